"""Models by sites: each arm on the held-out lesions of each site."""

from collections.abc import Iterator, Sequence

from simulations.evaluation.measures import SCALARS
from simulations.study.findings import Findings, groups
from simulations.study.points import shown
from simulations.study.report.tables.table import Table
from simulations.study.results import ArmResult, SiteQuality

_METRICS = ("balanced_accuracy", "macro_auc", "accuracy")
_NOTE = (
    "On the lesions of each source, all folds together: no model is judged on a lesion that it was "
    "trained on. Means are over the diagnoses that the source has. * is a site's own model on its "
    "own lesions. The other metrics are in report.json and report.csv."
)


def site_tables(findings: Findings) -> Iterator[Table]:
    """Yield a table for each metric: a row for each model, a column for each site."""
    arms = groups([r for r in findings.full if r.sites])
    sites = {site: quality for group in arms for site, quality in group[0].sites.items()}
    for metric in _METRICS:
        yield Table(
            f"Models by sites: {SCALARS[metric]}",
            ("arm", *(_header(site, quality) for site, quality in sites.items())),
            [(findings.names.alike(g), *(_cell(g, site, metric) for site in sites)) for g in arms],
            _NOTE,
        )


def _header(site: str, quality: SiteQuality) -> str:
    diagnoses = int((quality.confusion.sum(axis=1) > 0).sum())
    return f"{site}, {quality.images} images of {quality.lesions} lesions, {diagnoses} diagnoses"


def _cell(alike: Sequence[ArmResult], site: str, metric: str) -> str:
    if site not in alike[0].sites:
        return "-"
    own = any(result.arm.site == site for result in alike)
    return shown(alike[0].sites[site].metrics[metric]) + " *" * own
