"""``fedderm privacy``: plan what a training costs, read a site's ledger, attack runs."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from client.operator.site_rules import SEALS
from client.privacy.ledger import SEAL_FOLDER, Ledger
from common.errors import ConfigError
from common.privacy.accounting import SampledGaussian, epsilon, largest_delta, noise_for
from simulations.cli.json_output import refuse_taken, write_figures
from simulations.cli.unlearning import unlearning

_MOST_SITES = 1_000_000

app = typer.Typer(help="Plan, account for and audit differential privacy.", no_args_is_help=True)

Steps = Annotated[int, typer.Option(help="Steps of all rounds together.")]
WantedEpsilon = Annotated[
    float | None, typer.Option("--epsilon", help="Find the noise for this epsilon.")
]
Noise = Annotated[float | None, typer.Option(help="Find the epsilon of this noise multiplier.")]
Rate = Annotated[
    float | None, typer.Option(help="Probability that a step samples a unit; 1 for all.")
]
Units = Annotated[
    int | None, typer.Option(help="Privacy units, such as lesions, for rate and delta.")
]
Batch = Annotated[int | None, typer.Option(help="Expected units of a step.")]
Delta = Annotated[
    float | None, typer.Option(help="Default: 1e-5 or 1/units^1.1, whichever is smaller.")
]
Sites = Annotated[int | None, typer.Option(help="Sites that share the noise under a secure sum.")]
Honest = Annotated[
    int | None, typer.Option(help="Least number of honest sites that may remain of them.")
]


@app.command()
def plan(
    steps: Steps,
    wanted: WantedEpsilon = None,
    noise: Noise = None,
    rate: Rate = None,
    units: Units = None,
    batch: Batch = None,
    delta: Delta = None,
    sites: Sites = None,
    honest: Honest = None,
) -> None:
    """Find the noise multiplier for an epsilon, or the epsilon of a noise multiplier."""
    if (wanted is None) == (noise is None):
        raise ConfigError("give either --epsilon or --noise: the other one is found")
    rate, delta = _rate(rate, units, batch), _delta(delta, units)
    if noise is None:
        assert wanted is not None
        noise = noise_for(wanted, delta, rate, steps)
    cost = epsilon([SampledGaussian(noise, rate, steps)], delta)
    lines = [
        f"noise multiplier {noise:g}",
        f"epsilon {cost:.4g} at delta {delta:g}: sampling rate {rate:g}, {steps} steps",
    ]
    if sites is not None or honest is not None:
        share = _share(noise, sites, honest)
        lines.append(f"each site's share, if {honest} of {sites} are honest and remain: {share:g}")
    typer.echo("\n".join(lines))


@app.command()
def ledger(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A ledger's folder.")],
    limit: Annotated[float | None, typer.Option(help="Note a new limit of epsilon first.")] = None,
    delta: Annotated[float | None, typer.Option(help="Note a new delta first.")] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the seal: a simulated site's is in FOLDER.", show_default=False
        ),
    ] = None,
) -> None:
    """Verify the privacy ledger in FOLDER and print it."""
    inside = folder / SEAL_FOLDER
    site_ledger = Ledger(folder, state or (inside if inside.is_dir() else SEALS))
    if limit is not None:
        site_ledger.change_limit(limit)
    if delta is not None:
        site_ledger.change_delta(delta)
    for line in site_ledger.account().lines():
        typer.echo(line)


@app.command()
def audit(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder given to --out of a finished run.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Pooled data, if the run's sites are gone."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="New JSON file for the same figures, exact.")
    ] = None,
) -> None:
    """Attack a run with the settings of RUN; exit 1 if it is less private than promised."""
    from simulations.audit import audit as attacks
    from simulations.audit.report import audit_report

    refuse_taken(out)
    result = attacks.audit(run, data)
    typer.echo(audit_report(result))
    write_figures(out, asdict(result))
    if result.refuted:
        raise typer.Exit(1)


app.command()(unlearning)


def _rate(rate: float | None, units: int | None, batch: int | None) -> float:
    if (rate is None) == (batch is None):
        raise ConfigError("give either --rate, or --units and --batch")
    if batch is None:
        assert rate is not None
        return rate
    if units is None or not 1 <= batch <= units:
        raise ConfigError(f"--batch is {batch} of --units {units}; it must be 1 to --units")
    return batch / units


def _delta(delta: float | None, units: int | None) -> float:
    if units is None:
        if delta is None:
            raise ConfigError("give --delta, or --units for its default")
        return delta
    largest = largest_delta(units)
    if delta is not None and delta * units >= 1:
        raise ConfigError(
            f"delta is {delta:g}, which would allow to publish one of {units} units; "
            f"choose {largest:g} or less"
        )
    return largest if delta is None else delta


def _share(noise: float, sites: int | None, honest: int | None) -> float:
    """Return the noise multiplier of a site, rounded up to four digits.

    The noise of ``honest`` sites adds up to the whole; that of the others, which may tell theirs
    to the coordinator or fail, is not counted.
    """
    if sites is None or honest is None or not 1 <= honest <= sites <= _MOST_SITES:
        raise ConfigError(
            f"--honest is {honest} of --sites {sites}; give both, 1 to --sites, up to {_MOST_SITES}"
        )
    share = noise / math.sqrt(honest)
    digit = 10.0 ** (math.floor(math.log10(share)) - 3)
    return math.ceil(share / digit) * digit
