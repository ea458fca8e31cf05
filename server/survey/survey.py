"""The statistics of a federation's data as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass

from common.arrays import Ints
from common.data.groups import COLUMNS, HISTOGRAMS, SMALL, groups
from common.json_types import Json
from common.statistics.data_counts import IMAGES, LESIONS, DataCounts
from common.task import KNOWN, Task
from server.federation.question import Answers
from server.federation.site_info import SiteInfo
from server.survey.changes import Changes, changes, lacking

_WITH, _WITHOUT, _SMALL = range(3)


@dataclass(frozen=True)
class Survey:
    """What a federation has.

    Attributes
    ----------
    task : the diagnoses of the run.
    secure : whether the coordinator knows sums over all sites alone.
    sites : what they said of themselves when they joined, by name.
    left_out : why the others are not in the counts, by name.
    counts : all sites' together, and, where sums are plain, each one's.
    """

    task: Task
    secure: bool
    sites: Mapping[str, SiteInfo]
    left_out: Mapping[str, str]
    counts: Answers[DataCounts]

    def values(self) -> dict[str, Json]:
        """Return everything as JSON; what is to be changed is in it, by site."""
        each = self.counts.by_site
        return {
            "synthetic": any(info.synthetic for info in self.sites.values()),
            "secure": self.secure,
            "diagnoses": list(self.task.codes),
            "sites": {
                name: {"images": self.sites[name].images, "lesions": self.sites[name].lesions}
                for name in self.counts.sites
            },
            "left_out": dict(self.left_out),
            "change": changes(self._compared()),
            "lacking": lacking(self._compared()),
            "histograms": {name: self._histogram(name) for name in HISTOGRAMS},
            "columns": {
                name: {
                    "sites": int(self.counts.total.columns[place]),
                    "total": _column(self.counts.total, place),
                    "by_site": {site: _column(counts, place) for site, counts in each.items()},
                }
                for place, name in enumerate(COLUMNS)
            },
        }

    def _compared(self) -> Changes:
        return Changes(self.task, self.counts.total, self.counts.by_site, len(self.counts.sites))

    def _shown(self, histogram: str, group: str) -> str:
        """Return a group's name, a diagnosis with its full one."""
        if histogram != "diagnosis":
            return group
        known = {code: each.name for code, each in KNOWN.items()}
        known |= dict(zip(self.task.codes, self.task.names, strict=True))
        full = known.get(group, group)
        return group if full == group else f"{group}, {full}"

    def _histogram(self, name: str) -> dict[str, Json]:
        each = self.counts.by_site
        return {
            "title": HISTOGRAMS[name],
            "groups": [*(self._shown(name, group) for group in groups(name, self.task)), SMALL],
            "total": _units(getattr(self.counts.total, name)),
            "by_site": {site: _units(getattr(counts, name)) for site, counts in each.items()},
        }


def _units(histogram: Ints) -> dict[str, Json]:
    return {"images": histogram[IMAGES].tolist(), "lesions": histogram[LESIONS].tolist()}


def _column(counts: DataCounts, place: int) -> dict[str, Json]:
    """Return of a column how many images have a value; of the others some are hidden."""
    images = counts.filled[place, IMAGES]
    return {
        "has": bool(counts.columns[place]),
        "with": int(images[_WITH]),
        "without": int(images[_WITHOUT]),
        "hidden": int(images[_SMALL]),
    }
