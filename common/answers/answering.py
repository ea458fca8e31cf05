"""From a model's probabilities to its answers about images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

import numpy as np

from common.answers import conformal, operating
from common.answers.answer import TARGETS, Answer, PredictionSet, Screening
from common.answers.basis import AnswerBasis
from common.answers.prediction_sets import Score, Thresholds, sets
from common.answers.prevalence import for_frequencies
from common.answers.referral import Referral, confidences, refer_least_sure
from common.arrays import Floats, Ints
from common.errors import ConfigError
from common.task import DIAGNOSES, FULL_NAMES, MALIGNANT, N_CLASSES

T = TypeVar("T")

ThresholdKind = Literal["pooled", "class", "site"]


@dataclass(frozen=True)
class AnswerOptions:
    """What a user may choose of the answers.

    Attributes
    ----------
    coverage : share of new lesions whose prediction set is to hold their diagnosis, in (0, 1).
    score : what a prediction set is made by.
    threshold : whether it has one threshold for all lesions, one for each class, or that of a site.
    site : name of the site, where its threshold is wanted.
    sensitivity : of the screening rules, in (0, 1).
    refer : share of the lesions to refer as those that the model is least sure of, in [0, 1).
    prevalence : (n_classes,) frequencies of the diagnoses at the place of use; None for those of
        the training sites.
    """

    coverage: float = 0.95
    score: Score = "probability"
    threshold: ThresholdKind = "class"
    site: str = ""
    sensitivity: float = operating.SENSITIVITY
    refer: float = 0.1
    prevalence: Floats | None = field(default=None, compare=False)


class Answering:
    """Makes answers of a model's probabilities, by thresholds from its calibration lesions.

    Attributes
    ----------
    warnings : what the answers lack, and why, in sentences.
    """

    def __init__(self, basis: AnswerBasis, options: AnswerOptions) -> None:
        self._basis, self._options = basis, options
        self.warnings: list[str] = []
        self._thresholds: Thresholds | None = None
        self._points: list[operating.OperatingPoint] = []
        self._referral: Referral | None = None
        if not basis.lesions.lesions.sum():
            self.warnings.append(
                "the model has no calibration lesions: no prediction sets, no screening flags, no "
                "referral by confidence"
            )
            return
        self._thresholds = self._tried(self._choose_thresholds)
        points = (self._tried(partial(self._point, target)) for target in range(len(TARGETS)))
        self._points = [point for point in points if point is not None]
        counts = basis.lesions.likeliest
        self._referral = self._tried(lambda: refer_least_sure(counts, options.refer, N_CLASSES))

    def answers(
        self, images: Sequence[str], probabilities: Floats, distances: Floats
    ) -> list[Answer]:
        """Answer about images.

        Parameters
        ----------
        images : n names.
        probabilities : (n, n_classes), calibrated; rows sum to 1.
        distances : (n,) from the training images; nan where not known.
        """
        prevalence, base = self._options.prevalence, self._basis.base_rates
        adapted = probabilities
        if prevalence is not None:
            adapted, base = for_frequencies(probabilities, base, prevalence), prevalence
        times = operating.times_base_rate(adapted, base)
        shown = self._prediction_sets(probabilities)
        targets = operating.target_probabilities(probabilities)
        referred = self._reasons(probabilities)
        return [
            Answer(
                image=image,
                diagnosis=DIAGNOSES[likeliest],
                name=FULL_NAMES[DIAGNOSES[likeliest]],
                malignant=DIAGNOSES[likeliest] in MALIGNANT,
                probability=float(adapted[i, likeliest]),
                probabilities=_by_code(adapted[i]),
                trained_probabilities=None if prevalence is None else _by_code(probabilities[i]),
                stands_out=DIAGNOSES[int(times[i].argmax())],
                times_base_rate=float(times[i].max()),
                screening=tuple(
                    _screened(point, float(targets[i, TARGETS.index(point.target)]))
                    for point in self._points
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

    def _choose_thresholds(self) -> Thresholds:
        options, lesions = self._options, self._basis.lesions
        counted = {"probability": lesions.probability, "adaptive": lesions.cumulative}
        own = counted[options.score][:, 1]
        how = (options.coverage, options.score)
        if options.prevalence is not None:
            return conformal.for_prevalence(own, options.prevalence, *how)
        if options.threshold == "class":
            return conformal.by_class(own, *how)
        if options.threshold == "site":
            return conformal.by_site(self._site_counts(), own, *how)
        return conformal.pooled(own, *how)

    def _site_counts(self) -> Ints:
        by_site, site = self._basis.by_site, self._options.site
        if self._options.score != "probability":
            raise ConfigError("a site's threshold is counted for the score 'probability' only")
        if site not in by_site:
            known = ", ".join(by_site) or "none, for under secure sums they are not counted"
            raise ConfigError(
                f"no calibration lesions of site '{site}' in the model; it has: {known}"
            )
        return np.asarray(by_site[site])

    def _point(self, target: int) -> operating.OperatingPoint:
        counts = self._basis.lesions.screening[target]
        return operating.operating_point(TARGETS[target], counts, self._options.sensitivity)

    def _prediction_sets(self, probabilities: Floats) -> list[PredictionSet] | None:
        chosen, options = self._thresholds, self._options
        if chosen is None:
            return None
        order = np.argsort(-probabilities, axis=1, kind="stable")
        inside = sets(probabilities, chosen)
        without = tuple(DIAGNOSES[c] for c in np.flatnonzero(chosen.without_guarantee))
        kind = options.threshold if options.prevalence is None else "prevalence"
        lesions = int(self._basis.lesions.lesions.sum())
        return [
            PredictionSet(
                diagnoses=tuple(DIAGNOSES[c] for c in row if members[c]),
                coverage=chosen.coverage,
                threshold=kind,
                lesions=lesions,
                without_guarantee=without,
            )
            for row, members in zip(order, inside, strict=True)
        ]

    def _reasons(self, probabilities: Floats) -> list[tuple[str, ...]]:
        """Return for each image why a person should be asked."""
        rule = self._referral
        if rule is None:
            return [()] * len(probabilities)
        unsure = confidences(probabilities, "probability") < rule.threshold
        reason = (
            f"the model is not sure: {100 * rule.referred:.0f} % of the calibration lesions were "
            f"less sure than this rule asks for; it errs on {100 * rule.risk:.0f} % of the others"
        )
        return [(reason,) if each else () for each in unsure]


def _by_code(probabilities: Floats) -> dict[str, float]:
    order = np.argsort(-probabilities, kind="stable")
    return {DIAGNOSES[c]: float(probabilities[c]) for c in order}


def _screened(point: operating.OperatingPoint, probability: float) -> Screening:
    return Screening(
        target=point.target,
        flagged=probability >= point.threshold,
        probability=probability,
        threshold=point.threshold,
        sensitivity=point.sensitivity,
        sensitivity_interval=point.sensitivity_interval,
        specificity=point.specificity,
        specificity_interval=point.specificity_interval,
    )
