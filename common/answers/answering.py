"""From a model's probabilities to its answers about images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

import numpy as np

from common.answers import conformal, operating
from common.answers.answer import Answer, PredictionSet, Screening
from common.answers.appearance import SHARE
from common.answers.basis import AnswerBasis
from common.answers.prediction_sets import Score, Thresholds, sets
from common.answers.prevalence import for_frequencies
from common.answers.referral import Referral, confidences, refer_least_sure
from common.arrays import Floats, Ints
from common.data.metadata import UNKNOWN, Described
from common.errors import ConfigError

T = TypeVar("T")

ThresholdKind = Literal["pooled", "class", "site", "everywhere"]

_NO_APPEARANCE = (
    "the model does not know how its training lesions look: no image is referred for being unlike "
    "them, whatever it shows"
)
_NO_LESIONS = (
    "the model has no calibration lesions: no prediction sets, no screening flags, no referral by "
    "confidence"
)


@dataclass(frozen=True)
class AnswerOptions:
    """What a user may choose of the answers.

    Attributes
    ----------
    coverage : share of new lesions whose prediction set is to hold their diagnosis, in (0, 1).
    score : what a prediction set is made by.
    threshold : whether it keeps its promise over all lesions, in each class, at a site, or
        everywhere: in each class and over all lesions, or over those of the site if one is named.
    site : name of the site that asks; "" if it took no part in the training.
    sensitivity : of the screening rules, in (0, 1).
    refer : share of the lesions to refer as those that the model is least sure of, in [0, 1).
    prevalence : (n_classes,) frequencies of the diagnoses at the place of use; None for those of
        the training sites.

    Raises
    ------
    ConfigError
        If a share is out of its range.
    """

    coverage: float = 0.95
    score: Score = "probability"
    threshold: ThresholdKind = "everywhere"
    site: str = ""
    sensitivity: float = operating.SENSITIVITY
    refer: float = 0.1
    prevalence: Floats | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ("coverage", "sensitivity"):
            if not 0 < (value := getattr(self, name)) < 1:
                raise ConfigError(f"{name} is {value:g}; choose one above 0 and below 1")
        if not 0 <= self.refer < 1:
            raise ConfigError(f"the share to refer is {self.refer:g}; choose one from 0 to below 1")


class Answering:
    """Makes answers of a model's probabilities, by thresholds from its calibration lesions.

    Attributes
    ----------
    points : the screening rules of all patients.
    warnings : what the answers lack, and why, in sentences.
    """

    def __init__(self, basis: AnswerBasis, options: AnswerOptions) -> None:
        self._basis, self._options, self._task = basis, options, basis.task
        self._targets = operating.targets_of(basis.task)
        self.points: list[operating.OperatingPoint] = []
        self.warnings: list[str] = []
        self._referral: Referral | None = None
        self._thresholds: Thresholds | None = None
        if basis.appearance is None:
            self.warnings.append(_NO_APPEARANCE)
        if not basis.lesions.lesions.sum():
            self.warnings.append(_NO_LESIONS)
            return
        self._thresholds = self._tried(lambda: self._choose_thresholds(options.site))
        points = (self._tried(partial(self._point, target)) for target in range(len(self._targets)))
        self.points = [point for point in points if point is not None]
        counts, n_classes = basis.lesions.confidence, basis.task.n_classes
        self._referral = self._tried(lambda: refer_least_sure(counts, options.refer, n_classes))
        if basis.by_group is not None:
            self.warnings += [basis.by_group.told(self._task, point) for point in self.points]

    def thresholds(self, site: str = "") -> Thresholds | None:
        """Return the thresholds of prediction sets; None where they cannot be had.

        Parameters
        ----------
        site : name of the site that asks, whose own lesions then count; "" for the options' site.
        """
        known = site in self._basis.by_site and self._options.score == "probability"
        if self._thresholds is None or not known:
            return self._thresholds
        return self._choose_thresholds(site)

    def points_for(self, patients: Sequence[Described]) -> list[list[operating.OperatingPoint]]:
        """Return the screening rules that hold for each patient, by target as ``points``.

        They are those of the patient's group, where the model has them.
        """
        by_group = self._basis.by_group
        if by_group is None:
            return [self.points] * len(patients)
        return by_group.points_for(self._task, patients, self.points)

    def answers(
        self,
        images: Sequence[str],
        probabilities: Floats,
        distances: Floats,
        patients: Sequence[Described] = (),
    ) -> list[Answer]:
        """Answer about images.

        Parameters
        ----------
        images : n names.
        probabilities : (n, n_classes), calibrated; rows sum to 1.
        distances : (n,) from the training images; nan where not known.
        patients : what is known of the n patients, for the thresholds of their groups; nothing if
            empty.
        """
        prevalence, base = self._options.prevalence, self._basis.base_rates
        adapted = probabilities
        if prevalence is not None:
            adapted, base = for_frequencies(probabilities, base, prevalence), prevalence
        times = operating.times_base_rate(adapted, base)
        shown = self._prediction_sets(probabilities)
        targets = operating.target_probabilities(probabilities, self._task)
        points = self.points_for(patients or [UNKNOWN] * len(images))
        task, codes = self._task, self._task.codes
        referred = [
            (*self._unlike(distance), *unsure)
            for distance, unsure in zip(distances, self._unsure(probabilities), strict=True)
        ]
        return [
            Answer(
                image=image,
                task=task,
                diagnosis=codes[likeliest],
                name=task.names[likeliest],
                malignant=codes[likeliest] in task.malignant,
                probability=float(adapted[i, likeliest]),
                probabilities=self._by_code(adapted[i]),
                trained_probabilities=None
                if prevalence is None
                else self._by_code(probabilities[i]),
                stands_out=codes[int(times[i].argmax())],
                times_base_rate=float(times[i].max()),
                screening=tuple(
                    _screened(point, common, float(targets[i, self._targets.index(point.target)]))
                    for point, common in zip(points[i], self.points, strict=True)
                ),
                prediction_set=None if shown is None else shown[i],
                refer=referred[i],
                distance=None if np.isnan(distances[i]) else float(distances[i]),
            )
            for i, (image, likeliest) in enumerate(zip(images, adapted.argmax(axis=1), strict=True))
        ]

    def _tried(self, compute: Callable[[], T]) -> T | None:
        """Return what is computed; what cannot be had is a warning, and the rest is answered."""
        try:
            return compute()
        except ConfigError as error:
            self.warnings.append(str(error))
            return None

    def _choose_thresholds(self, site: str) -> Thresholds:
        options, lesions = self._options, self._basis.lesions
        counted = {"probability": lesions.probability, "adaptive": lesions.cumulative}
        own = counted[options.score][:, 1]
        how = (options.coverage, options.score)
        if options.prevalence is not None:
            return conformal.for_prevalence(own, options.prevalence, *how)
        match options.threshold:
            case "pooled":
                return conformal.pooled(own, *how)
            case "class":
                return conformal.by_class(own, *how)
            case "site":
                return conformal.by_site(self._site_counts(site), own, *how)
        return conformal.everywhere(own, *how, self._site_counts(site) if site else None)

    def _site_counts(self, site: str) -> Ints:
        by_site = self._basis.by_site
        if self._options.score != "probability":
            raise ConfigError("a site's threshold is counted for the score 'probability' only")
        if site not in by_site:
            known = ", ".join(by_site) or "none, for under secure sums they are not counted"
            raise ConfigError(
                f"no calibration lesions of site '{site}' in the model, so nothing is promised "
                f"there; it has: {known}"
            )
        return np.asarray(by_site[site])

    def _point(self, target: int) -> operating.OperatingPoint:
        counts, n_classes = self._basis.lesions.screening[target], self._task.n_classes
        wanted = self._options.sensitivity
        return operating.operating_point(self._targets[target], counts, n_classes, wanted)

    def _prediction_sets(self, probabilities: Floats) -> list[PredictionSet] | None:
        chosen, options, codes = self._thresholds, self._options, self._task.codes
        if chosen is None:
            return None
        order = np.argsort(-probabilities, axis=1, kind="stable")
        inside = sets(probabilities, chosen)
        without = tuple(codes[c] for c in np.flatnonzero(chosen.without_guarantee))
        kind = options.threshold if options.prevalence is None else "prevalence"
        lesions = int(self._basis.lesions.lesions.sum())
        return [
            PredictionSet(
                diagnoses=tuple(codes[c] for c in row if members[c]),
                coverage=chosen.coverage,
                threshold=kind,
                lesions=lesions,
                without_guarantee=without,
            )
            for row, members in zip(order, inside, strict=True)
        ]

    def _by_code(self, probabilities: Floats) -> dict[str, float]:
        order = np.argsort(-probabilities, kind="stable")
        return {self._task.codes[c]: float(probabilities[c]) for c in order}

    def _unlike(self, distance: float) -> tuple[str, ...]:
        """Return that an image is unlike the training lesions, if it is."""
        appearance = self._basis.appearance
        if appearance is None or not distance > appearance.threshold:
            return ()
        return (
            f"the image is unlike the training lesions: its distance is {distance:.2f}, that of "
            f"{100 * (1 - SHARE):g} % of new lesions is at most {appearance.threshold:.2f}",
        )

    def _unsure(self, probabilities: Floats) -> list[tuple[str, ...]]:
        """Return for each image that the model is unsure of it, if it is."""
        rule = self._referral
        if rule is None:
            return [()] * len(probabilities)
        unsure = confidences(probabilities, "probability") < rule.threshold
        reason = (
            f"the model is as little sure as of the {100 * rule.referred:.0f} % of calibration "
            f"lesions that it was least sure of; of the others it got {100 * rule.risk:.0f} % wrong"
        )
        return [(reason,) if each else () for each in unsure]


def _screened(
    point: operating.OperatingPoint, common: operating.OperatingPoint, probability: float
) -> Screening:
    return Screening(
        target=point.target,
        flagged=probability >= point.threshold,
        probability=probability,
        threshold=point.threshold,
        sensitivity=point.sensitivity,
        sensitivity_interval=point.sensitivity_interval,
        specificity=point.specificity,
        specificity_interval=point.specificity_interval,
        group=point.group or None,
        common_threshold=common.threshold if point.group else None,
    )
