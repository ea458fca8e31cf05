"""Screening thresholds of groups of patients: the same sensitivity in each.

Equal opportunity: whoever has the target is flagged as often, whatever the group. Where a group
has too few calibration lesions, and where a patient's group is not known, the common threshold
holds.

References
----------
Hardt, Price and Srebro (2016), "Equality of opportunity in supervised learning", NeurIPS 29.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from common.answers.conformal import lesions_needed
from common.answers.operating import (
    TARGET_NAMES,
    OperatingPoint,
    operating_point,
    targets_of,
)
from common.arrays import Ints
from common.data.metadata import Described
from common.data.patient_groups import NO_GROUP, PatientGroups
from common.task import Task

LEAST_WITH_TARGET = 50
"""Calibration lesions with the target that a group needs for a threshold of its own.

Of 50 the 95 % interval of a sensitivity of 95 % is about 12 points wide.
"""


@dataclass(frozen=True)
class GroupLesions:
    """Calibration lesions of each group of patients.

    Attributes
    ----------
    groups : of the patients.
    screening : (groups, targets, 2, SCORE_BINS) histograms, as of `GroupCounts`.
    """

    groups: PatientGroups
    screening: Ints

    def point(self, task: Task, group: int, common: OperatingPoint) -> OperatingPoint:
        """Return a group's screening rule, the common one where it has too few lesions.

        Parameters
        ----------
        group : its number.
        common : the rule of all for the same target, whose sensitivity the group's is to have.
        """
        counts = self.screening[group, targets_of(task).index(common.target)]
        if counts[1].sum() < max(LEAST_WITH_TARGET, lesions_needed(common.wanted)):
            return common
        own = operating_point(common.target, counts, task.n_classes, common.wanted)
        return replace(own, group=self.name(group))

    def points_for(
        self, task: Task, patients: Sequence[Described], common: Sequence[OperatingPoint]
    ) -> list[list[OperatingPoint]]:
        """Return the screening rules of each patient's group, by target as the ``common`` ones."""
        groups = self.groups.of(patients).tolist()
        own = {
            group: [
                point if group == NO_GROUP else self.point(task, group, point) for point in common
            ]
            for group in set(groups)
        }
        return [own[group] for group in groups]

    def told(self, task: Task, common: OperatingPoint) -> str:
        """Say which groups have a threshold of their own beside the ``common`` one."""
        points = (self.point(task, group, common) for group in range(len(self.groups.names)))
        named = [point.group for point in points if point.group]
        target = TARGET_NAMES[common.target]
        if not named:
            return (
                f"screening for {target}: no group of patients has {LEAST_WITH_TARGET} such "
                "calibration lesions, so all have the common threshold"
            )
        return (
            f"screening for {target} has a threshold of its own for each of {', '.join(named)}; "
            "all others, and patients whose group is not known, have the common one"
        )

    def name(self, group: int) -> str:
        """Return what a group is called, such as "sex female"."""
        return f"{self.groups.column} {self.groups.names[group]}"
