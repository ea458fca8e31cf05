"""A network that a run has fine-tuned, as the weights of another run's frozen features."""

from pathlib import Path
from typing import NamedTuple

from common.arrays import Floats32
from common.errors import ConfigError, DataError, reason
from common.json_types import JsonObject
from common.storage.verified import FORMAT_ERRORS, open_arrays

_BACKBONE = "backbone."


class TunedNetwork(NamedTuple):
    """What a model file of ``method=finetune`` says of the network before its head.

    Attributes
    ----------
    tensors : the trained ones, of the network's shapes, by their names in the folded backbone.
    settings : those of the run that trained it.
    """

    tensors: dict[str, Floats32]
    settings: JsonObject


def tuned_settings(weights: Path | None) -> JsonObject | None:
    """Return the settings of the run that fine-tuned a weights file; None if none did.

    Raises
    ------
    ConfigError
        If the file is the model of a run that trained no network.
    """
    if weights is None:
        return None
    try:
        with open_arrays(weights) as stored:
            settings: JsonObject = dict(stored.fields["config"])
            tuned = any(name.startswith(_BACKBONE) for name in stored.kinds)
    except FORMAT_ERRORS:  # pretrained weights have no description of ours
        return None
    if not tuned:
        raise ConfigError(
            f"{weights} is a model whose backbone was not trained; name the model of a run of "
            "method=finetune, or pretrained weights"
        )
    return settings


def read_tuned(weights: Path) -> TunedNetwork:
    """Return the network of a file that :func:`tuned_settings` knows.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    try:
        with open_arrays(weights) as stored:
            arrays, settings = stored.read(), dict(stored.fields["config"])
    except FORMAT_ERRORS as error:
        raise DataError(f"{weights} is damaged ({reason(error)}); train it again") from error
    tensors = {
        name.removeprefix(_BACKBONE): array
        for name, array in arrays.items()
        if name.startswith(_BACKBONE)
    }
    return TunedNetwork(tensors, settings)


def refuse_tuned(weights: Path | None, why: str) -> None:
    """Raise a :class:`ConfigError` that says ``why`` if a run fine-tuned a weights file."""
    if tuned_settings(weights) is not None:
        raise ConfigError(f"{weights} is a network that a run has fine-tuned, but {why}")
