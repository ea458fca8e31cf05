"""A site's answers under differential privacy: noisy sums, paid for before they are computed."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
from flwr.app import Context
from numpy.typing import NDArray

from client.ledger import SEAL_FOLDER, Ledger
from client.site import Site
from client.state import SiteState
from common.calibration import probabilities
from common.config import RunConfig
from common.dataset import DIAGNOSES, Dataset
from common.errors import RefusalError
from common.metrics import Evaluation
from common.model import average_views, decision_values
from common.noise import noisy
from common.private import (
    OVERVIEW_NORM,
    Centre,
    NoisySum,
    Objective,
    Units,
    clipped_gradients,
    overview,
    plan,
    public_map,
)
from common.private_moments import MOMENTS_NORM, moments
from common.sums import Sums
from common.wire import Arrays, Value

Floats = NDArray[np.float64]

randomness = os.urandom
"""Of noise and samples. Never a run's seed: the coordinator knows it."""

LEDGER = "ledger"
"""Folder in a site's own one."""

_LARGEST = 1e6
"""Of the numbers that a coordinator sends: far below those at which sums are no numbers."""

_RANGES = {"class_weight": (0.0, 1.0)}
"""Of others: a weight above 1 would make a clipped gradient longer than what is paid for."""


def describe(site: Site) -> dict[str, Value]:
    """Say what this site's features are; of its lesions nothing, for that has its price."""
    return introduction(site, site.features.views.shape[2])


def introduction(site: Site, n_features: int) -> dict[str, Value]:
    """Say what a private site may say of itself."""
    refuse_what_only_simulations_may(site, "join")
    return {
        "n_features": n_features,
        "features": site.config.feature_spec.key,
        "images": "",
        "lesions": "",
        "test_counts": gives_test_counts(site),
        "fingerprint": ledger_of(site).account().id if site.config.epsilon else site.fingerprint,
    }


def answer(
    site: Site, question: str, arrays: Arrays, values: Mapping[str, Value], context: Context
) -> Sums:
    """Answer one question of the coordinator.

    Raises
    ------
    RefusalError
        If this site does not answer it, or its budget does not allow it.
    """
    known = checked(arrays)
    refuse_what_only_simulations_may(site, question)
    if question == "evaluate":
        return _evaluate(site, known)
    training = "moments" if site.config.classifier == "lda" else "gradient"
    units = units_of(site)
    step = Step.read(values, question, training, units.total)
    return step.paid(site, lambda: noisy_sum(site.config, units, question, known))


def checked(arrays: Arrays) -> dict[str, Floats]:
    """Return the arrays of a question in double precision.

    Raises
    ------
    RefusalError
        If a number is none, so large that a clipped sum of what it makes would be none, or one
        that would make it a sum of longer gradients than are paid for.
    """
    known = {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}
    for name, array in known.items():
        low, high = _RANGES.get(name, (-_LARGEST, _LARGEST))
        if not ((low <= array) & (array <= high)).all():
            raise RefusalError(f"array '{name}' has numbers outside of {low:g} to {high:g}")
    return known


@dataclass(frozen=True)
class Step:
    """A noisy sum that is asked for in a run.

    Attributes
    ----------
    run : name of the run.
    number : 0 for the overview, then from 1.
    question : what is asked.
    due : whether that is what is asked in such a step.
    units : how many privacy units the site has.
    """

    run: str
    number: int
    question: str
    due: bool
    units: int

    @classmethod
    def read(cls, values: Mapping[str, Value], question: str, training: str, units: int) -> Self:
        """Read what a question says; ``training`` is the question after the overview."""
        number = int(str(values["step"]))
        due = question == (training if number else "overview")
        return cls(str(values["run"]), number, question, due, units)

    def paid(self, site: Site, compute: Callable[[], NoisySum]) -> NoisySum:
        """Return the noisy sum that ``compute`` makes, after it was paid for.

        Asked again it is the very same: another noise would tell more.

        Raises
        ------
        RefusalError
            If it does not follow the last of its run, or the budget does not allow the run. Steps
            in between, which the site missed, are paid for all the same.
        """
        state = SiteState(site.own_folder / LEDGER / "answers", self.run)
        with state.locked():
            last, kept = -1 if state.last is None else state.last, state.load(self.number)
            if self.number == last:
                return NoisySum(kept["values"])
            # The overview comes first: without it, answers that were lost could be given anew.
            early = self.number < last or self.number > 0 > last
            if early or self.number > site.config.releases or not self.due:
                raise RefusalError(
                    f"step {self.number}, {self.question}, does not follow step {last} of this run"
                )
            with _paid(site, self):
                sums = compute()
                state.save(self.number, sums.to_record())
        return sums


@contextmanager
def _paid(site: Site, step: Step) -> Iterator[None]:
    """Reserve all that a run spends, settle what has left; only a first answer adds anything."""
    spent = plan(site.config)
    if spent is None:
        yield
        return
    if site.config.delta * step.units > 1:
        raise RefusalError(
            f"'delta' is {site.config.delta:g}, with which one of this site's units might be "
            "published; set a smaller one"
        )
    ledger = ledger_of(site)
    costs = zip(spent._fields, spent, strict=True)
    first, rest = (ledger.reserve(cost, part, key=f"{step.run}/{part}") for part, cost in costs)
    if not step.number and first in ledger.account().settled:
        raise RefusalError("this run was answered, and the answers were lost; begin a new one")
    yield
    if step.number in (0, site.config.releases):
        ledger.settle(rest if step.number else first)


def ledger_of(site: Site) -> Ledger:
    """Open the site's ledger. That of a simulated site is all in its folder, and goes with it."""
    config, folder = site.config, site.own_folder / LEDGER
    limit, state = config.epsilon, folder / SEAL_FOLDER
    if site.operator:
        limit, state = site.rules.epsilon, site.operator.seals
    return Ledger.open(folder, site.fingerprint, config.unit, limit, config.delta, state)


def gives_test_counts(site: Site) -> bool:
    """Tell whether exact counts of test lesions leave; those of a simulation are public."""
    return not site.deployed or site.rules.test_counts


def refuse_what_only_simulations_may(site: Site, question: str) -> None:
    """Refuse what would tell more of a hospital's lesions than its budget says."""
    if not site.deployed:
        return
    if not site.config.epsilon:
        raise RefusalError("'epsilon' is 0, which is for simulations; set what may be spent")
    if not site.rules.epsilon:
        raise RefusalError("the operator's rules allow no 'epsilon' to be spent")
    if site.config.trust == "distributed" and not site.config.secure:
        raise RefusalError("trust=distributed needs a secure sum; set secure=true")
    if question == "evaluate" and not gives_test_counts(site):
        raise RefusalError("the operator's rules let no exact counts of test lesions leave")


def noisy_sum(
    config: RunConfig, units: Units, question: str, known: Mapping[str, Floats]
) -> NoisySum:
    """Sum over a site's units, and add the site's noise.

    Nothing is paid for here: this is for a site that has, and for an audit of the mechanism.

    Parameters
    ----------
    question : "overview", "gradient" or "moments".
    known : what the coordinator sends with it.
    """
    spent = plan(config)
    noise = spent.training.noise if spent else 0.0
    if question == "overview":
        norm, noise = OVERVIEW_NORM, spent.overview.noise if spent else 0.0
        sums = overview(units, len(DIAGNOSES))
    elif question == "moments":
        norm, centre = MOMENTS_NORM, Centre(known["mean"], known["scale"])
        sums = moments(units, centre, len(DIAGNOSES))
    else:
        norm, centre = config.clip_norm, Centre(known["mean"], known["scale"])
        drawn = units.of(sample(units.total, config.rate))
        objective = Objective(config.classifier, known["offset"], known["class_weight"])
        sums = clipped_gradients(drawn, centre, known["weights"], objective, norm)
    return released(config, sums, norm, noise)


def released(config: RunConfig, sums: Floats, norm: float, noise: float) -> NoisySum:
    """Add this site's share of the noise to sums to which a unit adds ``norm`` at most."""
    return NoisySum(noisy(sums, norm, noise / np.sqrt(config.honest), randomness))


def sample(n: int, rate: float) -> NDArray[np.bool_]:
    """Draw each of n units by itself."""
    return np.asarray(chances(n) < rate)


def chances(n: int) -> Floats:
    """Draw n numbers in [0, 1)."""
    bits = np.frombuffer(randomness(8 * n), dtype=np.uint64) >> np.uint64(11)
    return np.asarray(bits * 2.0**-53)


def units_of(site: Site) -> Units:
    """Return the privacy units of the training images, in the public map's coordinates.

    Raises
    ------
    RefusalError
        If the table does not name them, or features are no numbers.
    """
    if "units" not in site.memory:
        train, names = training_units(site)
        X = _mapped(site, site.features.train[~site.held_out])
        site.memory["units"] = Units.group(X, train.labels, train.lesions, names)
    found: Units = site.memory["units"]
    return found


def training_units(site: Site) -> tuple[Dataset, NDArray[np.str_]]:
    """Return the training images, and the names (n,) of the privacy units that they are of.

    Raises
    ------
    RefusalError
        If the table does not name them.
    """
    train, column = site.dataset.select(~site.held_out), site.config.unit
    names = np.array([getattr(image, column) for image in train.images], dtype=np.str_)
    if (names == "").any():
        raise RefusalError(
            f"'unit' is {column}, which the site's table lacks for some training images; fill that "
            "column in, or set unit=lesion_id"
        )
    return train, names


def _mapped(site: Site, views: NDArray[np.float32]) -> Floats:
    """Return images (n, d), each the mean of its mapped views, of norm 1 at most."""
    if not np.isfinite(views).all():
        raise RefusalError("the site's features hold NaN or infinite values")
    feature_map = public_map(views.shape[2], site.config.projection, site.config.seed)
    return average_views(feature_map, views)


def _evaluate(site: Site, known: Mapping[str, Floats]) -> Evaluation:
    if "test" not in site.memory:
        site.memory["test"] = _mapped(site, site.features.predict[site.held_out])
    scores = decision_values(site.memory["test"], known["weights"])
    chances = probabilities(scores, known["calibration"])
    labels = site.dataset.labels[site.held_out]
    return Evaluation.measure(labels, scores.argmax(axis=1), chances)
