"""The tables of a survey, the same in Markdown and on the page."""

from collections.abc import Iterator
from typing import NamedTuple

from common.json_types import JsonObject

_TWICE = "A lesion with images in two groups counts in both."
_PLAIN = (
    "A hospital counts groups of fewer lesions than its operator allows together before anything "
    "leaves it. A dash is a group that has none there, or too few; these are in the last row."
)
_SECURE = "The sums were secure: of a single site nothing is known."
_COLUMN_NOTE = (
    "Whether a site's table has values in a column, and how many images lack one; few: so few "
    "lesions that their number did not leave the site."
)


class Table(NamedTuple):
    """A table.

    Attributes
    ----------
    rows : the cells, the name of the row first.
    shares : of each row a share to be drawn as a bar, in [0, 1]; none for a table without bars.
    """

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    shares: list[float]
    note: str


def tables(values: JsonObject) -> list[Table]:
    """Return the tables of a survey's values: histograms, then columns."""
    return [*(_histogram(each) for each in values["histograms"].values()), _columns(values)]


def note(values: JsonObject) -> str:
    """Return how the numbers are to be read."""
    return f"{_SECURE if values['secure'] else _PLAIN} {_TWICE}"


def _histogram(histogram: JsonObject) -> Table:
    images, lesions = histogram["total"]["images"], histogram["total"]["lesions"]
    sites = {site: _cells(each["images"]) for site, each in histogram["by_site"].items()}
    shown = [k for k, number in enumerate(images) if number]
    most = max(images, default=0) or 1
    return Table(
        histogram["title"],
        ("", "images", "lesions", *sites),
        [
            (
                histogram["groups"][k],
                f"{images[k]:,}",
                f"{lesions[k]:,}",
                *(cells[k] for cells in sites.values()),
            )
            for k in shown
        ],
        [images[k] / most for k in shown],
        "",
    )


def _cells(images: list[int]) -> list[str]:
    """Write a site's numbers, the last of them of its small groups together."""
    hides = images[-1] or not any(images)
    return ["-" if hides and not number else f"{number:,}" for number in images]


def _columns(values: JsonObject) -> Table:
    columns, n_sites = values["columns"], len(values["sites"])
    rows = [
        (name, f"{each['sites']} of {n_sites}", *map(_column, each["by_site"].values()))
        for name, each in columns.items()
    ]
    sites = next(iter(columns.values()))["by_site"]
    return Table("Columns of the tables", ("", "sites", *sites), rows, [], _COLUMN_NOTE)


def _column(column: JsonObject) -> str:
    if not column["has"]:
        return "few values" if column["hidden"] else "no"
    if column["hidden"]:
        return "yes, few missing"
    return f"yes, {column['without']:,} missing" if column["without"] else "yes"


def headline(values: JsonObject) -> str:
    """Return how many sites, images and lesions there are, in a sentence."""
    sites = values["sites"].values()
    known = [site for site in sites if site["images"] is not None]
    images, lesions = (sum(site[unit] for site in known) for unit in ("images", "lesions"))
    silent = len(sites) - len(known)
    beside = f", and {silent} with too few lesions to be counted" if silent else ""
    return f"{len(known)} sites have {images:,} images of {lesions:,} lesions{beside}."


def remarks(values: JsonObject) -> Iterator[tuple[str, list[str]]]:
    """Yield what each site should change, why sites are left out, and what sites lack."""
    yield from values["change"].items()
    for site, why in values["left_out"].items():
        yield site, [f"left out: it {why}"]


def lacking(values: JsonObject) -> str:
    """Return in a sentence which diagnoses sites lack; "" if none."""
    each = "; ".join(f"{site}: {', '.join(codes)}" for site, codes in values["lacking"].items())
    return f"No images of, or too few to be named, which is no fault: {each}." if each else ""
