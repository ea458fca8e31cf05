"""Figures by group from their plain values."""

from collections.abc import Mapping

from common.json_types import JsonObject, number
from simulations.evaluation.bounded import Bounded
from simulations.evaluation.groups.figures import ByGroup, GroupFigures
from simulations.evaluation.groups.gaps import Gap


def read_by_group(values: JsonObject | None) -> ByGroup | None:
    """Return what ``dataclasses.asdict`` made plain; None for nothing."""
    if values is None:
        return None
    groups = tuple(_read_group(group) for group in values["groups"])
    return ByGroup(groups, values["unknown"], values["gaps"], values["reach"])


def _read_group(values: JsonObject) -> GroupFigures:
    return GroupFigures(
        values["dimension"],
        values["group"],
        values["lesions"],
        tuple(values["diagnoses"]),
        {name: Bounded(*map(number, metric)) for name, metric in values["metrics"].items()},
        _read_gaps(values["gaps"]),
        _read_gaps(values["standardised"]),
    )


def _read_gaps(values: JsonObject) -> Mapping[str, Gap]:
    return {
        name: Gap(**{part: number(value) for part, value in gap.items()})
        for name, gap in values.items()
    }
