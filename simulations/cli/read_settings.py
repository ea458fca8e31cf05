"""What several commands take: settings as a file and KEY=VALUE, a parent, pretrained weights."""

import tomllib
from pathlib import Path
from typing import Annotated

import typer

from common.config.run import RunConfig
from common.errors import ConfigError
from common.storage.reading import read_text

Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings; `fedderm settings` lists them."),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")]
From = Annotated[
    Path | None,
    typer.Option("--from", metavar="RUN", help="Finished run to go on from.", show_default="none"),
]
Weights = Annotated[
    list[Path] | None,
    typer.Option(help="File of the pretrained weights, of a model trained with weights=FILE."),
]


def read_settings(
    settings: list[str] | None, file: Path | None = None, parent: Path | None = None
) -> RunConfig:
    """Read the settings of a file, then those of the command line over them.

    Parameters
    ----------
    parent : finished run to go on from.

    Raises
    ------
    ConfigError
        If one is wrong, or the file is none.
    """
    values: dict[str, object] = {}
    if file is not None:
        try:
            values = tomllib.loads(read_text(file))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file} is no TOML file ({error})") from error
    values |= key_values(settings)
    if parent is not None:
        values["parent"] = parent
    return RunConfig.read_settings(values)


def key_values(settings: list[str] | None) -> dict[str, str]:
    """Return the values of settings KEY=VALUE by key.

    Raises
    ------
    ConfigError
        If one has another form.
    """
    values = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"'{setting}' is no setting; write key=value")
        values[key] = value
    return values
