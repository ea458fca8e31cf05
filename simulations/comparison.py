"""Pooled, federated and alone on the same test lesions: what federation costs."""

import json
import logging
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from client.site import site_folders
from common.config import RunConfig
from common.dataset import Dataset, make_folder
from common.errors import ConfigError, DataError, QuorumError
from common.features import extract
from common.model_file import load_model
from common.shards import write_atomically
from server.run import METRICS_FILE, MODEL_FILE
from server.svm import NEVER
from simulations.evaluation import Answers, Gap, HeldOut, Quality
from simulations.experiment import POOLED, make_sites, rounds, simulate, with_splits
from simulations.partition import Scheme

NATURAL: Final = "natural"
DIRICHLET: Final = "dirichlet"
ALONE: Final = "alone"
KINDS = (POOLED, NATURAL, DIRICHLET, ALONE)
"""Kinds of arms: everything at one site; the sources federated; Dirichlet sites federated; and
an arm for each source alone."""

STATE_FILE = "comparison.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArmQuality(Quality):
    """How good an arm's model is, also beside the pooled one; None without a pooled model.

    Attributes
    ----------
    difference : largest difference of an SVM's decision value, over the diagnoses that both
        were trained on; None for another method.
    disagreements : test images with another diagnosis.
    gap : the metrics minus the pooled model's; None for itself.
    """

    difference: float | None
    disagreements: int | None
    gap: Gap | None


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes
    ----------
    fit_rounds, rounds : questions to the sites in the final fit or in training, and in all.
    statistics : bytes that a site sent of first and second moments, on average.
    sums : bytes that a site sent beside them, on average.
    seconds : wall time; the features were cached before. None for a run that was interrupted.
    """

    fit_rounds: int
    rounds: int
    statistics: float
    sums: float
    seconds: float | None


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
    quality: ArmQuality | None = None
    cost: Cost | None = None
    failure: str = ""


def compare(
    data: Path,
    out: Path,
    config: RunConfig,
    sites: int,
    alpha: float,
    kinds: Collection[str] | None = None,
) -> list[Arm]:
    """Train every arm in a run folder of its own and judge all on the same test images.

    A comparison that was killed goes on when it is started again; other kinds of arms may be
    asked for then.

    Parameters
    ----------
    sites, alpha : number and skew of the Dirichlet sites.
    kinds : those of ``KINDS`` that are wanted; None for all that the data can give, without
        ``natural`` and ``alone`` where the table names no sources.

    Raises
    ------
    ConfigError
        If a kind is unknown, or ``out`` holds another comparison.
    DataError
        If the data cannot be used, or ``out`` holds anything else.
    """
    for kind in kinds or ():
        if kind not in KINDS:
            raise ConfigError(f"'{kind}' is no arm; choose from {', '.join(KINDS)}")
    dataset = with_splits(data, config)
    held_out = HeldOut.of(dataset, config)
    asked = config.model_dump(mode="json", exclude={"out", "sites"})
    clock = _Clock(out, {"data": str(data.resolve()), "sites": sites, "alpha": alpha, **asked})
    # All before the first is trained: an impossible one ends the comparison at once.
    spread = _Spread(dataset, out / "sites", sites, alpha, config.seed)
    federations = list(spread.federations(kinds))
    if config.method == "svm":  # of all images, for the sites read theirs from the same cache
        extract(dataset, config.feature_spec, config.cache.expanduser(), progress=True)
    arms: list[Arm] = []
    pooled: Answers | None = None
    for name, folder in federations:
        run = out / "runs" / name
        arm = _train(name, folder, run, config, clock)
        if not arm.failure:
            answers = held_out.ask(load_model(run / MODEL_FILE))
            pooled = answers if name == POOLED else pooled
            arm = replace(arm, quality=_quality(held_out, answers, pooled, config.method))
        arms.append(arm)
    return arms


class _Clock:
    """How long each arm took: with what was asked, all that a comparison itself must remember.

    Parameters
    ----------
    out : folder of the comparison, made if needed.
    asked : everything that decides the arms.

    Raises
    ------
    ConfigError
        If another comparison is there.
    DataError
        If anything else is there.
    """

    def __init__(self, out: Path, asked: Mapping[str, Any]) -> None:
        self._file = out / STATE_FILE
        self._asked = json.loads(json.dumps(asked))
        self.seconds: dict[str, float] = {}
        if self._file.exists():
            self._go_on()
        else:
            make_folder(out)
            self._write()

    def keep(self, arm: str, seconds: float) -> None:
        """Remember how long an arm took."""
        self.seconds[arm] = seconds
        self._write()

    def _go_on(self) -> None:
        try:
            state = json.loads(self._file.read_text(encoding="utf-8"))
            first, self.seconds = state["asked"], state["seconds"]
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(f"{self._file} cannot be read; name a new folder") from error
        for key, value in self._asked.items():
            if first.get(key) != value:
                raise ConfigError(
                    f"{self._file.parent} holds a comparison whose {key} is {first.get(key)!r}, "
                    f"not {value!r}; start it as it was or name a new folder"
                )

    def _write(self) -> None:
        state = {"asked": self._asked, "seconds": self.seconds}
        write_atomically(self._file, (json.dumps(state, indent=1) + "\n").encode())


@dataclass(frozen=True)
class _Spread:
    """Pooled data, and how it is spread over the sites of the arms, in folders in ``out``."""

    dataset: Dataset
    out: Path
    sites: int
    alpha: float
    seed: int

    def federations(self, kinds: Collection[str] | None) -> Iterator[tuple[str, Path]]:
        """Yield each arm's name and the folder with its sites, the pooled arm first."""
        if kinds is None:
            kinds = KINDS if self.dataset.sources.any() else (POOLED, DIRICHLET)
        if POOLED in kinds:
            yield POOLED, self._make(POOLED, None)
        if NATURAL in kinds:
            yield NATURAL, self._make(NATURAL, None)
        if DIRICHLET in kinds:
            yield DIRICHLET, self._make(DIRICHLET, self.sites)
        for site in site_folders(self._make(NATURAL, None)) if ALONE in kinds else []:
            folder = self.out / f"{ALONE}-{site.name}"
            folder.mkdir(exist_ok=True)
            if not (folder / site.name).is_symlink():
                (folder / site.name).symlink_to(site.resolve())
            yield folder.name, folder

    def _make(self, scheme: Scheme | Literal["pooled"], sites: int | None) -> Path:
        folder = self.out / scheme
        make_sites(self.dataset, folder, scheme, sites, self.alpha, self.seed)
        return folder


def _train(name: str, sites: Path, out: Path, config: RunConfig, clock: _Clock) -> Arm:
    """Train one arm over the folders in ``sites``; its quality is still to be judged."""
    n_sites = len(site_folders(sites))
    # Rules for federations: a baseline has one site, which hides nothing from itself.
    rules = {} if n_sites > 1 else {"quorum": 1, "expected": 1, "secure": False}
    run = config.model_copy(update={"sites": sites.resolve(), "out": out, **rules})
    fresh, start = not out.exists(), time.perf_counter()
    try:
        metrics = _run(name, run)
    except (QuorumError, DataError) as error:  # too little data is no reason to train no other
        return Arm(name, n_sites, failure=str(error))
    if fresh:
        clock.keep(name, time.perf_counter() - start)
    training = metrics["training"]
    return Arm(
        name,
        n_sites,
        left_out=metrics["data"]["left_out"],
        c=training.get("chosen", {}).get("c"),
        cost=_cost(out, n_sites, training.get("rounds", 0), clock.seconds.get(name)),
    )


def _run(name: str, config: RunConfig) -> dict[str, Any]:
    """Return the metrics of a run, which goes on where it was, or was finished before."""
    assert config.out is not None
    if (config.out / MODEL_FILE).exists():
        _log.info("%s: finished before", name)
        metrics: dict[str, Any] = json.loads((config.out / METRICS_FILE).read_text())
        return metrics
    _log.info("%s: training", name)
    return simulate(config)


def _quality(
    held_out: HeldOut, answers: Answers, pooled: Answers | None, method: str
) -> ArmQuality:
    difference = disagreements = gap = None
    if pooled is not None:
        other = answers.predictions[0] != pooled.predictions[0]
        disagreements = int(np.count_nonzero(other))
        if method == "svm":  # the others are not held to equal the pooled model
            difference = _difference(answers.scores, pooled.scores)
        if answers is not pooled:
            gap = held_out.gap(answers, pooled)
    return ArmQuality(
        **vars(held_out.quality(answers)),
        difference=difference,
        disagreements=disagreements,
        gap=gap,
    )


def _difference(scores: NDArray[np.float64], pooled: NDArray[np.float64]) -> float:
    """Compare decision values (n, n_classes), but for classes that one has never seen."""
    known = np.minimum(scores, pooled).min(axis=0) > NEVER / 2
    return float(np.abs(scores - pooled)[:, known].max())


def _cost(run: Path, sites: int, fit_rounds: int, seconds: float | None) -> Cost:
    log = rounds(run)
    moments = sum(entry["bytes_up"] for entry in log if "moments" in entry["question"])
    total = sum(entry["bytes_up"] for entry in log)
    return Cost(fit_rounds, len(log), moments / sites, (total - moments) / sites, seconds)
