"""Pooled, federated and alone on the same test lesions: what federation costs."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.site import site_folders
from common.calibration import probabilities, uncalibrated
from common.config import RunConfig
from common.dataset import Dataset, make_folder
from common.errors import DataError, QuorumError
from common.features import extract
from common.metrics import Evaluation, Metrics
from common.model import LinearModel
from common.splits import TEST
from server.run import MODEL_FILE
from server.svm import NEVER
from simulations.experiment import POOLED, make_sites, rounds, simulate, with_splits
from simulations.intervals import Interval, bootstrap, point_estimates


@dataclass(frozen=True)
class Quality:
    """A model on the pooled test images; intervals are 95 % over lesions, all in [0, 1].

    Attributes
    ----------
    calibration_error, calibration_error_before : expected calibration error of the
        probabilities, and of what they would be without calibration.
    difference : largest difference of a decision value from the pooled model's, over the
        diagnoses that both were trained on; None without a pooled model.
    disagreements : test images with another diagnosis than the pooled model's, or None.
    """

    balanced_accuracy: float
    balanced_accuracy_interval: Interval
    macro_auc: float
    macro_auc_interval: Interval
    calibration_error: float
    calibration_error_before: float
    difference: float | None
    disagreements: int | None


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes
    ----------
    fit_rounds, rounds : questions to the sites in the final fit, and in all.
    statistics : bytes that a site sent of first and second moments, on average.
    sums : bytes that a site sent beside them, on average.
    seconds : wall time; the features were cached before.
    """

    fit_rounds: int
    rounds: int
    statistics: float
    sums: float
    seconds: float


@dataclass(frozen=True)
class Arm:
    """One way to train, with what came of it.

    Attributes
    ----------
    sites : how many there are.
    left_out : why those that do not take part do not, by name.
    c : regularisation strength chosen; None where there is none.
    failure : why there is no model.
    """

    name: str
    sites: int
    left_out: dict[str, str] = field(default_factory=dict)
    c: float | None = None
    quality: Quality | None = None
    cost: Cost | None = None
    failure: str = ""


@dataclass(frozen=True)
class HeldOut:
    """The pooled test images: prediction features (n, P, n_features), labels, lesions (n,)."""

    views: NDArray[np.float32]
    labels: NDArray[np.int64]
    lesions: NDArray[np.str_]


def compare(data: Path, out: Path, config: RunConfig, sites: int, alpha: float) -> list[Arm]:
    """Train every arm in a run folder of its own and judge all on the same test images.

    The arms are: everything pooled; the natural sites federated, where the table names
    sources; ``sites`` Dirichlet sites of skew ``alpha`` federated; each natural site alone.

    Raises
    ------
    DataError
        If the data cannot be used, or ``out`` holds anything.
    """
    dataset = with_splits(data, config)
    diagnoses = len(np.unique(dataset.labels[dataset.splits == TEST]))
    if diagnoses < 2:
        raise DataError(
            f"{data}: a comparison needs test lesions of two diagnoses, there are {diagnoses}; "
            "raise test_fraction, or name test lesions in the column split"
        )
    make_folder(out)
    # All before the first is trained: an impossible one ends the comparison at once.
    federations = list(_federations(dataset, out / "sites", sites, alpha, config.seed))
    held_out = _held_out(dataset, config)
    arms: list[Arm] = []
    pooled: LinearModel | None = None
    for name, folder in federations:
        arm = _train(name, folder, out / "runs" / name, config)
        if not arm.failure:
            model = LinearModel.load(out / "runs" / name / MODEL_FILE)
            pooled = model if name == POOLED else pooled
            arm = replace(arm, quality=_quality(model, pooled, held_out, config.seed))
        arms.append(arm)
    return arms


def _federations(
    dataset: Dataset, out: Path, sites: int, alpha: float, seed: int
) -> Iterator[tuple[str, Path]]:
    """Yield each arm's name and the folder with its sites, the pooled arm first."""
    make_sites(dataset, out / POOLED, POOLED, None, alpha, seed)
    yield POOLED, out / POOLED
    natural = dataset.sources.any()
    if natural:
        make_sites(dataset, out / "natural", "natural", None, alpha, seed)
        yield "natural", out / "natural"
    make_sites(dataset, out / "dirichlet", "dirichlet", sites, alpha, seed)
    yield "dirichlet", out / "dirichlet"
    for site in site_folders(out / "natural") if natural else []:
        alone = out / f"alone-{site.name}"
        alone.mkdir()
        (alone / site.name).symlink_to(site.resolve())
        yield alone.name, alone


def _held_out(dataset: Dataset, config: RunConfig) -> HeldOut:
    # The features of all images, for the sites read theirs from the same cache.
    features = extract(dataset, config.feature_spec, config.cache.expanduser(), progress=True)
    test = np.flatnonzero(dataset.splits == TEST)
    return HeldOut(features.predict[test], dataset.labels[test], dataset.lesions[test])


def _train(name: str, sites: Path, out: Path, config: RunConfig) -> Arm:
    """Train one arm over the folders in ``sites``; its quality is still to be judged."""
    n_sites = len(site_folders(sites))
    # The quorum is a rule for federations: a baseline has one site, whatever it says.
    rules = {} if n_sites > 1 else {"quorum": 1, "expected": 1}
    run = config.model_copy(update={"sites": sites, "out": out, **rules})
    start = time.perf_counter()
    try:
        metrics = simulate(run)
    except QuorumError as error:
        return Arm(name, n_sites, failure=str(error))
    seconds = time.perf_counter() - start
    training = metrics["training"]
    return Arm(
        name,
        n_sites,
        left_out=metrics["data"]["left_out"],
        c=training.get("chosen", {}).get("c"),
        cost=_cost(out, n_sites, training.get("rounds", 0), seconds),
    )


def _quality(
    model: LinearModel, pooled: LinearModel | None, held_out: HeldOut, seed: int
) -> Quality:
    labels = held_out.labels
    scores = model.scores(held_out.views)
    predicted, calibrated = model.predict(held_out.views)
    plain = probabilities(scores, uncalibrated(len(model.classes)))
    values = point_estimates(labels, predicted, calibrated)
    intervals = bootstrap(labels, predicted, calibrated, held_out.lesions, seed=seed)
    expected = None if pooled is None else pooled.scores(held_out.views)
    return Quality(
        balanced_accuracy=values["balanced_accuracy"],
        balanced_accuracy_interval=intervals["balanced_accuracy"],
        macro_auc=values["macro_auc"],
        macro_auc_interval=intervals["macro_auc"],
        calibration_error=_calibration_error(labels, predicted, calibrated),
        calibration_error_before=_calibration_error(labels, predicted, plain),
        difference=None if expected is None else _difference(scores, expected),
        disagreements=None if expected is None else int((predicted != expected.argmax(1)).sum()),
    )


def _calibration_error(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], chances: NDArray[np.float64]
) -> float:
    evaluation = Evaluation.measure(labels, predicted, chances)
    return Metrics.compute(evaluation).expected_calibration_error


def _difference(scores: NDArray[np.float64], pooled: NDArray[np.float64]) -> float:
    """Compare decision values (n, n_classes), but for classes that one has never seen."""
    known = np.minimum(scores, pooled).min(axis=0) > NEVER / 2
    return float(np.abs(scores - pooled)[:, known].max())


def _cost(run: Path, sites: int, fit_rounds: int, seconds: float) -> Cost:
    log = rounds(run)
    moments = sum(entry["bytes_up"] for entry in log if "moments" in entry["question"])
    total = sum(entry["bytes_up"] for entry in log)
    return Cost(fit_rounds, len(log), moments / sites, (total - moments) / sites, seconds)
