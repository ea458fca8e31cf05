"""What a card and a summary say of how groups of lesions are served."""

from collections.abc import Iterator

from common.answers.group_metrics import METRICS
from common.formats import markdown_table, rounded
from common.json_types import JsonObject
from common.text import printable

_TEXT = """\
All images that were judged, from counts added over the sites. Balanced accuracy is the mean over
the diagnoses that a group has; sensitivities and specificity are of the screening rules. A site
counts groups of few lesions together, whatever they are. No interval is given: of few lesions such
figures are chance, and a difference between groups is not its own cause."""


def card_groups(groups: JsonObject | None) -> list[str]:
    """Return the paragraphs about groups of lesions.

    Parameters
    ----------
    groups : of :func:`common.answers.group_metrics.group_metrics`; None where none were counted.
    """
    if not groups:
        return []
    header = ("lesions", "images", *(name.replace("_", " ") for name in METRICS))
    tables = [markdown_table((name, *header), _rows(found)) for name, found in groups.items()]
    return ["## Groups", _TEXT, *tables]


def group_lines(groups: JsonObject | None) -> list[str]:
    """Return a line for each group, as text for a newcomer.

    Parameters
    ----------
    groups : as of :func:`card_groups`.
    """
    return [
        printable(
            f"{dimension} {name}: {each['lesions']} lesions  balanced accuracy "
            f"{rounded(each['balanced_accuracy'])}  sensitivity of malignant screening "
            f"{rounded(each['malignant_sensitivity'])}, its specificity "
            f"{rounded(each['malignant_specificity'])}"
        )
        for dimension, found in (groups or {}).items()
        for name, each in found.items()
    ]


def _rows(found: JsonObject) -> Iterator[tuple[object, ...]]:
    for name, each in found.items():
        cells = (rounded(each[metric], missing="n/a") for metric in METRICS)
        yield name, each["lesions"], each["images"], *cells
