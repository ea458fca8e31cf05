"""The tables of the checks, with bootstrap intervals over lesions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from common.arrays import Floats
from common.formats import estimate, markdown_table, rounded
from simulations.experiments.explanations.check import Checked
from simulations.experiments.explanations.curves import BY_MAP, ORDERS
from simulations.experiments.explanations.measures import WHOLE, Location

REPEATS = 1000
"""Resamples of an interval."""

_LEAST = 0.01  # share of what the views see from which on an image has a kind of place
_FEWEST = 5  # lesions of which a mean is shown


class Column(NamedTuple):
    """A column: what it shows of one image, and whether with an interval."""

    header: str
    value: Callable[[Checked], float]
    interval: bool = True


Groups = Mapping[str, Sequence[Checked]]
"""Images by the names of rows."""


def tables(checked: Sequence[Checked], seed: int) -> Iterator[str]:
    """Yield the tables as Markdown, each below its title."""
    groups, parts = _groups(checked), checked[0].locations
    for title, columns in (("Evidence in the lesion", _shares), ("Pointing game", _pointing)):
        yield _table(title, "lesions", groups, columns(WHOLE.name), seed)
        by_part = {name: columns(name) for name in parts}
        yield _stacked(f"{title}, by part of the map", "part", by_part, checked, seed)
    places = {name: _placed(name) for name in checked[0].places}
    yield _stacked("Places", "place", places, checked, seed)
    for number, title in enumerate(("Deletion", "Insertion")):
        yield _table(title, "lesions", groups, _curve(number), seed)
    heads = {name: _correlated(name, checked[0]) for name in parts}
    yield _stacked("Correlation with other maps", "part", heads, checked, seed)


def mean_interval(
    values: Floats, groups: Sequence[str], seed: int
) -> tuple[float, tuple[float, float]]:
    """Return the mean over groups of their means, and its 95 % percentile bootstrap interval.

    Lesions are drawn with replacement within their group, so that each group counts the same. Of
    fewer than five lesions all is nan.

    Parameters
    ----------
    values : (n,) one a lesion; nan where there is none.
    groups : n names.
    """
    known = ~np.isnan(values)
    kept, names = values[known], np.asarray(groups)[known]
    rng = np.random.default_rng(seed)
    if len(kept) < _FEWEST:
        return float("nan"), (float("nan"), float("nan"))
    members = [kept[names == name] for name in np.unique(names)]
    drawn = [rng.choice(each, (REPEATS, len(each))).mean(axis=1) for each in members]
    low, high = np.quantile(np.mean(drawn, axis=0), (0.025, 0.975)).tolist()
    return float(np.mean([each.mean() for each in members])), (low, high)


def _groups(checked: Sequence[Checked]) -> Groups:
    sites = sorted({each.site for each in checked})
    diagnoses = sorted({each.diagnosis for each in checked})
    return {
        "all": checked,
        "answered right": [each for each in checked if each.right],
        "answered wrong": [each for each in checked if not each.right],
        **{code: [each for each in checked if each.diagnosis == code] for code in diagnoses},
        **{site: [each for each in checked if each.site == site] for site in sites},
    }


def _located(part: str, value: Callable[[Location], float]) -> Callable[[Checked], float]:
    return lambda checked: value(checked.locations[part])


def _shares(part: str) -> Sequence[Column]:
    of = partial(_located, part)
    return (
        Column("lesion's area", of(lambda at: at.area), interval=False),
        Column("if spread evenly", of(lambda at: at.expected), interval=False),
        Column("another image's map", of(lambda at: at.other), interval=False),
        Column("positive evidence", of(lambda at: at.share)),
        Column("less evenly", of(lambda at: at.share - at.expected)),
        Column("less another's", of(lambda at: at.share - at.other)),
        Column("negative evidence", of(lambda at: at.against)),
    )


def _pointing(part: str) -> Sequence[Column]:
    of = partial(_located, part)
    return (
        Column("by chance", of(lambda at: at.expected), interval=False),
        Column("middle of the views", of(lambda at: at.middle), interval=False),
        Column("map", of(lambda at: at.pointing)),
        Column("less chance", of(lambda at: at.pointing - at.expected)),
        Column("less middle", of(lambda at: at.pointing - at.middle)),
    )


def _placed(name: str) -> Sequence[Column]:
    def of(value: Callable[[Checked], float]) -> Callable[[Checked], float]:
        return lambda checked: (
            value(checked) if checked.places[name].expected >= _LEAST else float("nan")
        )

    return (
        Column(
            "images that have it",
            lambda each: float(each.places[name].expected >= _LEAST),
            interval=False,
        ),
        Column("positive evidence there", of(lambda each: each.places[name].share)),
        Column("if spread evenly", of(lambda each: each.places[name].expected), interval=False),
        Column(
            "more than evenly",
            of(lambda each: each.places[name].share - each.places[name].expected),
        ),
    )


def _curve(number: int) -> Sequence[Column]:
    def area(order: str) -> Callable[[Checked], float]:
        return lambda checked: checked.curves[order][number]

    def gain(order: str) -> Callable[[Checked], float]:
        return lambda checked: area(BY_MAP)(checked) - area(order)(checked)

    return (
        *(Column(order, area(order), interval=order == BY_MAP) for order in ORDERS),
        *(Column(f"map less {order}", gain(order)) for order in ORDERS if order != BY_MAP),
    )


def _correlated(part: str, like: Checked) -> Sequence[Column]:
    def of(name: str, which: int) -> Callable[[Checked], float]:
        return lambda checked: checked.correlations[name][part][which]

    return [
        Column(f"{name}, {what}", of(name, which))
        for name in like.correlations
        for which, what in enumerate(("with sign", "size"))
    ]


def _table(title: str, first: str, groups: Groups, columns: Sequence[Column], seed: int) -> str:
    """Tabulate groups of images; only in the row "all" does each diagnosis count the same."""
    rows = [
        [name, str(len(each)), *_cells(each, columns, seed, balanced=name == "all")]
        for name, each in groups.items()
        if len(each) >= _FEWEST
    ]
    header = [first, "n", *(column.header for column in columns)]
    return f"## {title}\n\n{markdown_table(header, rows)}"


def _stacked(
    title: str,
    first: str,
    columns: Mapping[str, Sequence[Column]],
    checked: Sequence[Checked],
    seed: int,
) -> str:
    """Tabulate columns that are others in each row, over all images."""
    rows = [[name, *_cells(checked, each, seed, balanced=True)] for name, each in columns.items()]
    header = [first, *(column.header for column in next(iter(columns.values())))]
    return f"## {title}\n\n{markdown_table(header, rows)}"


def _cells(
    checked: Sequence[Checked], columns: Sequence[Column], seed: int, balanced: bool
) -> list[str]:
    groups = [each.diagnosis if balanced else "" for each in checked]
    cells = []
    for column in columns:
        values = np.array([column.value(each) for each in checked])
        mean, bounds = mean_interval(values, groups, seed)
        cells.append(estimate(mean, bounds) if column.interval else rounded(mean))
    return cells
