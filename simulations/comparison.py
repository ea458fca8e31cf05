"""Pooled, federated and alone on the same test lesions: what federation costs."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from client.site import site_folders
from common.config import RunConfig
from common.dataset import DIAGNOSES, Dataset
from common.errors import QuorumError
from common.features import extract
from common.metrics import Evaluation, Metrics
from common.model import LinearModel
from common.splits import TEST
from server.run import MODEL_FILE
from simulations.experiment import POOLED, make_sites, rounds, simulate, with_splits
from simulations.intervals import Interval, bootstrap


@dataclass(frozen=True)
class Quality:
    """A model on the pooled test images; intervals are 95 % over lesions, all in [0, 1].

    Attributes
    ----------
    calibration_error : expected calibration error.
    difference : largest difference of a decision value from the pooled model's.
    disagreements : test images with another diagnosis than the pooled model's.
    """

    balanced_accuracy: float
    balanced_accuracy_interval: Interval
    macro_auc: float
    macro_auc_interval: Interval
    calibration_error: float
    calibration_error_before: float
    difference: float
    disagreements: int


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes
    ----------
    rounds : questions to the sites, those of the final fit, and in all.
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
    """One way to train, with what came of it; without a model, why."""

    name: str
    sites: int
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
        If the data cannot be used.
    """
    dataset = with_splits(data, config)
    features = extract(dataset, config.feature_spec, config.cache.expanduser(), progress=True)
    test = np.flatnonzero(dataset.splits == TEST)
    held_out = HeldOut(features.predict[test], dataset.labels[test], dataset.lesions[test])
    del features  # the sites read their own
    arms: list[Arm] = []
    pooled: NDArray[np.float64] | None = None
    for name, folder in _federations(dataset, out / "sites", sites, alpha, config.seed):
        run = config.model_copy(update={"sites": folder, "out": out / "runs" / name})
        n_sites = len(site_folders(folder))
        start = time.perf_counter()
        try:
            metrics = simulate(run)
        except QuorumError as error:
            arms.append(Arm(name, n_sites, failure=str(error)))
            continue
        seconds = time.perf_counter() - start
        model = LinearModel.load(out / "runs" / name / MODEL_FILE)
        pooled = model.scores(held_out.views) if pooled is None else pooled
        quality = _quality(model, held_out, pooled, metrics["calibration_error_before"], run.seed)
        chosen = metrics["training"].get("chosen", {}).get("c")
        cost = _cost(out / "runs" / name, n_sites, metrics["training"].get("rounds", 0), seconds)
        arms.append(Arm(name, n_sites, chosen, quality, cost))
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


def _quality(
    model: LinearModel,
    held_out: HeldOut,
    pooled: NDArray[np.float64],
    calibration_error_before: float,
    seed: int,
) -> Quality:
    labels = held_out.labels
    scores = model.scores(held_out.views)
    predicted, probabilities = model.predict(held_out.views)
    intervals = bootstrap(labels, predicted, probabilities, held_out.lesions, seed=seed)
    auc = roc_auc_score(np.eye(len(DIAGNOSES))[labels], probabilities, average="macro")
    evaluation = Evaluation.measure(labels, predicted, probabilities)
    return Quality(
        balanced_accuracy=float(balanced_accuracy_score(labels, predicted)),
        balanced_accuracy_interval=intervals["balanced_accuracy"],
        macro_auc=float(auc),
        macro_auc_interval=intervals["macro_auc"],
        calibration_error=Metrics.compute(evaluation).expected_calibration_error,
        calibration_error_before=calibration_error_before,
        difference=float(np.abs(scores - pooled).max()),
        disagreements=int((predicted != pooled.argmax(axis=1)).sum()),
    )


def _cost(run: Path, sites: int, fit_rounds: int, seconds: float) -> Cost:
    log = rounds(run)
    moments = sum(entry["bytes_up"] for entry in log if "moments" in entry["question"])
    total = sum(entry["bytes_up"] for entry in log)
    return Cost(fit_rounds, len(log), moments / sites, (total - moments) / sites, seconds)
