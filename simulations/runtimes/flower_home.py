"""What ``flwr run .`` needs in a clone, written into the virtual environment that it belongs to.

Flower and Ray start before this program does, so it cannot switch off what they would fetch and
send: activating the environment does. Flower's own folder, with the number of sites, lies there
too, and its local SuperLink has ports of its own: at Flower's usual ones, one may run that belongs
to another environment.
"""

import shlex
import sys
from pathlib import Path

from common.calls_home import SWITCHES
from common.errors import ConfigError
from simulations.runtimes.flower_run import local_superlink_ports

SITES = 4

_CONFIG = f"""[superlink]
default = "local"

[superlink.local]
address = ":local:"
options.num-supernodes = {SITES}
options.backend.client-resources.num-cpus = 1
"""
_ACTIVATED = '. "$VIRTUAL_ENV/flower/environment"\n'


def write_flower_home(venv: Path = Path(sys.prefix)) -> None:
    """Write Flower's folder into a virtual environment, and let its activation read it.

    Raises
    ------
    ConfigError
        If the folder is no virtual environment.
    """
    activate, home = venv / "bin" / "activate", venv / "flower"
    if not activate.exists():
        raise ConfigError(f"{venv} is no virtual environment; make one: python3 -m venv .venv")
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(_CONFIG, encoding="utf-8")
    settings = {"FLWR_HOME": str(home), **local_superlink_ports(), **SWITCHES}
    lines = (f"export {name}={shlex.quote(value)}\n" for name, value in settings.items())
    (home / "environment").write_text("".join(lines), encoding="utf-8")
    if _ACTIVATED not in (text := activate.read_text(encoding="utf-8")):
        activate.write_text(text + _ACTIVATED, encoding="utf-8")


if __name__ == "__main__":
    write_flower_home()
