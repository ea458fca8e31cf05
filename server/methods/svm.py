"""Training an SVM over a federation: the statistics once, then rounds of sums."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from common.answers.appearance import Appearance
from common.answers.basis import AnswerBasis
from common.answers.paired import INCUMBENT
from common.arrays import Floats, Ints
from common.config.run import RunConfig
from common.data.metadata import GIVES_AWAY, information, width
from common.errors import ConfigError, DataError
from common.features.extract import check_network
from common.features.tuned import tuned_settings
from common.json_types import Json, JsonObject
from common.models.linear import LinearModel
from common.statistics.calibration import even, uncalibrated
from common.statistics.metrics import Metrics
from common.statistics.moments import Moments, lda, ridge
from common.statistics.sums import Nothing
from common.svm import objective as svm
from common.svm.feature_map import FeatureMap, FourierMap, powers_of
from server.federation.federation import Federation, SitesLostError
from server.federation.question import LossPolicy, Question
from server.going_on import begin, check_parent
from server.group_balance import Weighting, balance_facts, weigh
from server.lesion_appearance import learn_appearance
from server.mapped_sites import MappedSites
from server.replacement import check_gate, judge
from server.run.fit_rounds import FitRounds
from server.run.folder import RunFolder
from server.run.parent import Parent
from server.run.progress import Progress
from server.run.training_result import TrainingResult

NEVER = -1e9
"""Intercept of a class that no site has: it is never the largest, its probability is 0."""


_HEADS = {
    "svm": "one-vs-rest squared-hinge SVM, solved exactly from sums over the sites",
    "ridge": "ridge classifier, solved from the sites' added moments",
    "lda": "linear discriminant analysis, solved from the sites' added moments",
}

# Enough to tell one C from another; the chosen one is then solved to the run's tolerance.
_CHOICE_TOLERANCE = 1e-3

_SPLITS = ("seed", "folds", "test_fraction")
"""Settings that decide which lesions are in which fold, and in the test set."""

_log = logging.getLogger(__name__)


class Scaled(NamedTuple):
    """A feature map with the metadata at one scale, None without metadata.

    Attributes
    ----------
    moments : those of the features after the map's matrix, before its clip and its Fourier map.
    """

    scale: float | None
    feature_map: FeatureMap
    moments: Moments


@dataclass(frozen=True)
class Candidate:
    """A setting, its fits without one fold each, and how they did on those folds.

    Attributes
    ----------
    c : regularisation strength.
    scale : of the metadata beside the features, in feature norms; None without metadata.
    weights : (n_fits, n_classes, n_outputs + 1).
    calibration : (2, n_classes), of the folds' scores.
    balanced_accuracy, macro_auc : in [0, 1], over all folds, of calibrated scores.
    judged : (n_classes,) images of each class in them.
    """

    c: float
    scale: float | None
    sites: MappedSites
    preconditioner: svm.Preconditioner
    weights: Floats
    calibration: Floats
    balanced_accuracy: float
    macro_auc: float
    judged: Ints

    def describe(self) -> dict[str, float | None]:
        """Return the setting and how it did, for the run's metrics."""
        fourier = self.sites.feature_map.fourier
        return {
            "c": self.c,
            "width": fourier.width if fourier else None,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_auc": self.macro_auc,
        } | ({} if self.scale is None else {"metadata_scale": self.scale})


@dataclass(frozen=True)
class Fitted:
    """A solved problem.

    Attributes
    ----------
    weights : (1, n_classes, n_outputs + 1).
    calibration : (2, n_classes).
    unseen : weights (n_folds, n_classes, n_outputs + 1) of the fits without one fold each, whose
        scores of that fold are those of unseen lesions; None where there are none.
    judged : (n_classes,) images of each class in all folds; None where not all were judged.
    """

    sites: MappedSites
    weights: Floats
    calibration: Floats
    unseen: Floats | None
    details: Mapping[str, Json]
    judged: Ints | None = None


def train(federation: Federation, config: RunConfig, folder: RunFolder) -> TrainingResult:
    """Train over the sites; where some fail and the quorum stands, again over those left.

    So the model is always exactly that of the sites which took part to the end.

    Raises
    ------
    QuorumError
        If too few sites are left.
    ConfigError
        If the run needs more rounds than sites answer.
    """
    with Progress(folder, None, config.tensorboard) as progress:
        rounds = FitRounds(config, progress)
        while True:
            rounds.begin()
            try:
                return _train(federation, config, folder, rounds)
            except SitesLostError as lost:
                _log.warning("%s; starting again over %s", lost, ", ".join(federation.sites))


def _train(
    federation: Federation, config: RunConfig, folder: RunFolder, rounds: FitRounds
) -> TrainingResult:
    task, n_classes = config.task, config.task.n_classes
    moments, config = begin(federation, config, folder)
    n_features = len(moments.mean)
    weighting = weigh(federation, config, svm.balanced_weights(moments.class_weight))
    columns, powers = width(config.metadata), powers_of(config, n_features)
    feature_map = FeatureMap.principal(
        moments, config.components, columns, config.whitening, powers
    )
    # A standardised view's norm is the root of the number of features, on average.
    feature_map = replace(feature_map, clip=config.clip_features * float(np.sqrt(n_features)))
    _warn_of_given_away(config.metadata, moments)
    if config.head == "svm":
        fitted = _svm(federation, config, feature_map, moments, weighting, rounds)
    else:
        _, scaled, mapped = next(_scaled(config, feature_map, moments))
        sites = MappedSites(task, federation, scaled, weighting, mapped, rounds)
        fitted = _one_shot(config, sites)
    weights = _without_absent(fitted.weights, weighting.classes)
    # Probabilities are for the frequencies of what they were calibrated on: no pseudo-labels.
    judged = moments.class_weight if fitted.judged is None else fitted.judged
    base_rates = judged / judged.sum()
    appearance = learn_appearance(federation, LossPolicy.RESTART)
    basis = _basis(config, fitted, base_rates, appearance)
    sites = fitted.sites
    return TrainingResult(
        LinearModel(sites.feature_map, weights[0], basis, config),
        sites.evaluate(weights, fitted.calibration, base_rates),
        sites.evaluate(weights, uncalibrated(n_classes), even(n_classes)),
        fitted.details,
        sites.count_answers(weights, fitted.calibration),
        gate=_gate(federation, config, sites, weights, basis) if config.gate else None,
    )


def _gate(
    federation: Federation,
    config: RunConfig,
    sites: MappedSites,
    weights: Floats,
    basis: AnswerBasis,
) -> JsonObject:
    """Judge whether the model of ``weights`` (1, n_classes, n_outputs + 1) may replace the old."""
    parent = Parent.of(config)
    assert parent is not None  # as checked
    assert isinstance(parent.model, LinearModel)
    sent = Question(INCUMBENT, Nothing(), parent.model.to_record())
    federation.answers(sent, LossPolicy.RESTART)
    return judge(config, parent, basis, sites.of_weights(weights))


def _basis(
    config: RunConfig, fitted: Fitted, base_rates: Floats, appearance: Appearance | None
) -> AnswerBasis:
    """Return what the answers rest on; without unseen lesions no counts of them."""
    task, groups = config.task, config.patient_groups
    if fitted.unseen is None:
        return AnswerBasis.of(task, fitted.calibration, base_rates, appearance=appearance)
    unseen = fitted.unseen, fitted.calibration
    counts = fitted.sites.count_answers(*unseen)
    by_group = fitted.sites.count_groups(groups, *unseen) if groups else None
    return AnswerBasis.of(
        task, fitted.calibration, base_rates, counts.total, counts.by_site, appearance, by_group
    )


def _without_absent(weights: Floats, class_weights: Floats) -> Floats:
    """Return the weights with those of classes that no site has set to never win."""
    never = np.append(np.zeros(weights.shape[-1] - 1), NEVER)
    return np.where(class_weights[:, None] > 0, weights, never)


def _one_shot(config: RunConfig, sites: MappedSites) -> Fitted:
    """Solve ridge or LDA from the moments.

    LDA's scores are logarithms of probabilities; those of ridge are calibrated on what it was
    trained on, for there is no fit that has not seen a lesion.
    """
    moments, with_ridge = sites.moments, config.head == "ridge"
    coefficients, intercepts = ridge(moments, config.penalty) if with_ridge else lda(moments)
    weights = np.hstack([coefficients, intercepts[:, None]])[None]
    parameters = sites.calibrate(weights) if with_ridge else uncalibrated(len(intercepts))
    return Fitted(sites, weights, parameters, None, {})


def _svm(
    federation: Federation,
    config: RunConfig,
    feature_map: FeatureMap,
    moments: Moments,
    weighting: Weighting,
    rounds: FitRounds,
) -> Fitted:
    """Choose C (and other settings) by cross-validation, then solve to the tolerance."""
    candidates: list[Candidate] = []
    for scale, each, mapped in _feature_maps(config, feature_map, moments):
        sites = MappedSites(config.task, federation, each, weighting, mapped, rounds)
        preconditioner = svm.Preconditioner(sites.moments, weighting.classes)
        candidates += _path(sites, config, preconditioner, scale, weighting.classes)
    # Not balanced accuracy, which a handful of lesions of the rarest class decide. max keeps the
    # first of equals, the smoothest: C ascends.
    best = max(candidates, key=lambda candidate: candidate.macro_auc)
    start = best.weights.mean(axis=0, keepdims=True)
    solution = best.sites.solve(
        "fit", start, best.preconditioner, best.c, config.tolerance, config.max_rounds
    )
    reached = float(solution.gradient_norm.max())
    if reached > config.tolerance:
        _log.warning("stopped after %d rounds at a gradient of %.1e", solution.rounds, reached)
    details: dict[str, Json] = {
        "choice": [candidate.describe() for candidate in candidates],
        "chosen": best.describe(),
        "rounds": solution.rounds,
        "gradient_norm": reached,
    }
    judged = best.judged if config.judged == "all" else None
    unseen = _without_absent(best.weights, weighting.classes)
    return Fitted(best.sites, solution.x[None], best.calibration, unseen, details, judged)


def _feature_maps(config: RunConfig, feature_map: FeatureMap, moments: Moments) -> Iterator[Scaled]:
    """Yield the maps to choose from, with the moments after their matrix.

    They are one for each scale of the metadata, and for each of the RBF kernel's widths.
    """
    for each in _scaled(config, feature_map, moments):
        if config.kernel == "linear":
            yield each
            continue
        scale, scaled, mapped = each
        norm = np.sqrt(np.trace(mapped.scatter()) / mapped.weight)
        for factor in config.widths:
            fourier = FourierMap(config.fourier, float(factor * norm), config.seed)
            yield Scaled(scale, replace(scaled, fourier=fourier), mapped)


def _scaled(config: RunConfig, feature_map: FeatureMap, moments: Moments) -> Iterator[Scaled]:
    """Yield the map with its metadata at each scale, and the moments after its matrix."""
    n = width(config.metadata)
    norm = np.sqrt(len(feature_map.mean) - n)  # of a standardised view, on average
    for scale in config.metadata_scale if n else (None,):
        scaled = feature_map if scale is None else feature_map.scaled(n, float(scale * norm))
        yield Scaled(scale, scaled, moments.mapped(scaled.mean, scaled.matrix))


def _warn_of_given_away(columns: Sequence[str], moments: Moments) -> None:
    """Warn of columns that tell more of the diagnosis than a patient's age or sex can."""
    sums = moments.class_sum[:, moments.class_sum.shape[1] - width(columns) :]
    for column, share in information(columns, sums).items():
        if share > GIVES_AWAY:
            _log.warning(
                "metadata column '%s' holds %.0f %% of the information in the training "
                "diagnoses; more than %.0f %% is implausible before a diagnosis: does it give it "
                "away? If so, train without it",
                *(column, 100 * share, 100 * GIVES_AWAY),
            )


def _path(
    sites: MappedSites,
    config: RunConfig,
    preconditioner: svm.Preconditioner,
    scale: float | None,
    class_weights: Floats,
) -> Iterator[Candidate]:
    """Fit every C without one fold each, all folds in the same rounds, from small C to large.

    They are compared as they would be used: calibrated, for a larger C lets the scores of frequent
    and of rare classes differ in size, which calibration takes out.
    """
    strengths, fourier = sorted(config.c), sites.feature_map.fourier
    width = f", width {fourier.width:.3g}" if fourier else ""
    weights = np.repeat(preconditioner.start(strengths[0])[None], config.folds, axis=0)
    for c in strengths:
        solution = sites.solve(
            f"C={c:g}{width}", weights, preconditioner, c, _CHOICE_TOLERANCE, config.max_rounds
        )
        weights = solution.x.reshape(weights.shape)
        unseen = _without_absent(weights, class_weights)
        calibrated = sites.calibrate(unseen)
        rates = sites.moments.class_weight / sites.moments.class_weight.sum()
        counts = sites.evaluate(unseen, calibrated, rates).total
        metrics, judged = Metrics.compute(counts), counts.confusion.sum(axis=1)
        if not judged.any():
            raise DataError(
                "no training lesion has a diagnosis that is no pseudo-label, so there is none to "
                "choose C by; add some, or a site that has them"
            )
        score = metrics.balanced_accuracy, metrics.macro_auc
        yield Candidate(c, scale, sites, preconditioner, weights, calibrated, *score, judged)


def check(config: RunConfig) -> None:
    """Refuse a network that cannot be loaded, or was trained on what it would be judged on."""
    if (tuned := tuned_settings(config.weights)) is not None:
        _check_unseen(config, tuned)
    check_network(config.feature_spec)
    check_parent(config)
    check_gate(config, Parent.of(config))


def _check_unseen(config: RunConfig, tuned: JsonObject) -> None:
    """Refuse splits other than those of the run that fine-tuned the network.

    It kept the test lesions out, and of the others the first fold, to validate on.
    """
    wanted = {key: tuned[key] for key in _SPLITS} | {"judged": "first", "head": "svm"}
    if any(getattr(config, key) != value for key, value in wanted.items()):
        settings = " ".join(f"{key}={value}" for key, value in wanted.items())
        raise ConfigError(
            f"{config.weights} is a network that a run has fine-tuned: only with its splits are "
            f"there lesions that it has not seen; set {settings}"
        )


def model_name(config: RunConfig) -> str:
    """Return what the model card calls the model."""
    return f"{_HEADS[config.head]}, on frozen features of {config.backbone}"


def training_facts(config: RunConfig, training: JsonObject) -> dict[str, object]:
    """Return what the model card says of the training."""
    facts: dict[str, object] = {"class weights": "balanced", **balance_facts(config)}
    if config.head == "svm":
        chosen = training["chosen"]
        facts |= {
            "kernel": config.kernel,
            "C": f"{chosen['c']:g}, chosen by cross-validation over whole lesions",
            "rounds of the final fit": training["rounds"],
            "gradient norm reached": f"{training['gradient_norm']:.1e}",
        }
    return facts
