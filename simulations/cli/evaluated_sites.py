"""Which lesions runs are judged on, and the runs on the lesions of each site, as Markdown."""

from collections.abc import Iterable, Iterator

from common.formats import estimate, markdown_table
from common.text import printable
from simulations.evaluation.intervals import Interval
from simulations.evaluation.judgement import (
    Judgement,
    OtherDiagnosis,
    SiteFigures,
    copies_in_words,
)

_TITLES = {
    "balanced_accuracy": "Balanced accuracy over the diagnoses that the site has",
    "macro_auc": "Macro AUC over the diagnoses that the site has",
    "accuracy": "Accuracy",
}


def selected(judgement: Judgement) -> Iterator[str]:
    """Yield paragraphs on how the test lesions were chosen, where they are not the runs' own."""
    selection = judgement.selection
    if not selection.every_lesion:
        return
    yield "Every lesion of the data is a test lesion."
    mapped = [_counted(o, f" as {o.counts_as}") for o in selection.others if o.counts_as]
    unknown = [_counted(o, "") for o in selection.others if not o.counts_as]
    if mapped:
        yield f"Counted by the models' classes: {', '.join(mapped)}."
    if unknown:
        yield f"Not judged, for the models do not know them: {', '.join(unknown)}."
    if selection.left_out:
        copies = copies_in_words(selection.copies)
        yield (
            f"Left out: {selection.left_out} images of lesions that were trained on, found by the "
            f"SHA-256 of their bytes{f'; {copies}' if copies else ''}."
        )
    if selection.unchecked:
        yield (
            f"Not checked: whether {', '.join(map(printable, selection.unchecked))} trained on "
            "these images. The training images are not at hand; name them by --trained-on FOLDER."
        )
    yield ""


def site_tables(judgement: Judgement) -> Iterator[str]:
    """Yield tables of runs by sites; without sources in the data, only a line that says so."""
    sites = {site.site: site for run in judgement.runs for site in run.sites}
    if not sites:
        yield "No figures by site: the column dataset of the table names none."
        yield ""
        return
    for metric, title in _TITLES.items():
        rows = [(run.run, *(_cell(site, metric) for site in run.sites)) for run in judgement.runs]
        yield f"{title}, by site (95 % interval):"
        yield ""
        yield markdown_table(("run", *map(_header, sites.values())), rows)
        yield ""
    without = _few(sites.values())
    if without:
        yield f"With one diagnosis alone there is no AUC and no interval: {', '.join(without)}."
        yield ""


def _few(sites: Iterable[SiteFigures]) -> list[str]:
    return [printable(site.site) for site in sites if len(site.diagnoses) < 2]


def _header(site: SiteFigures) -> str:
    return f"{site.site}: {site.lesions} lesions, {len(site.diagnoses)} diagnoses"


def _cell(site: SiteFigures, metric: str) -> str:
    bounds: Interval = getattr(site, f"{metric}_interval")
    return estimate(getattr(site, metric), bounds).removesuffix(" (- to -)")


def _counted(other: OtherDiagnosis, as_which: str) -> str:
    name = printable(other.diagnosis) or "no diagnosis"
    return f"{name}{as_which} ({other.images} images of {other.lesions} lesions)"
