"""What an attacker learns from a run: three attacks on its method, settings and lesions."""

from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

from common.errors import ConfigError
from common.methods import METHODS
from simulations.audit.audited_run import AuditedRun, open_run
from simulations.audit.results import AttackResults, Audit


def audit(path: Path, data: Path | None = None) -> Audit:
    """Attack a run of the configuration of the one at ``path``.

    Parameters
    ----------
    path : a run's folder, or the one given to ``--out``.
    data : pooled data in place of the run's sites.

    Raises
    ------
    DataError
        If there is no finished run, or its lesions cannot be had.
    ConfigError
        If no attack on its method is known.
    """
    run = open_run(path, data)
    config, method = run.config, METHODS[run.config.method]
    if not method.audit:
        raise ConfigError(f"no attack on method {method.name} is known; audit a run of another")
    attack: Callable[[AuditedRun], AttackResults] = resolve_name(method.audit)
    return Audit(
        run=str(path),
        method=config.method,
        epsilon=config.epsilon or None,
        delta=config.delta,
        trust=config.trust,
        unit=config.unit if method.private else "lesion_id",
        synthetic=next(run.opened()).dataset.synthetic,
        found=attack(run),
    )
