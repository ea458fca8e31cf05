"""A site's answers under differential privacy: noisy sums, paid for before they are computed."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from flwr.app import Context
from numpy.typing import NDArray

from client.privacy.ledger import SEAL_FOLDER, Ledger
from client.round_state import SiteState
from client.site import Site
from common.config.run import RunConfig
from common.data.dataset import DIAGNOSES, Dataset
from common.errors import DataError, Reason, RefusalError
from common.models.linear import average_views, decision_values
from common.privacy.lda import moments
from common.privacy.linear import (
    MOMENTS_NORM,
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
from common.privacy.noise import noisy
from common.statistics.calibration import probabilities
from common.statistics.metrics import Evaluation
from common.statistics.sums import Sums
from common.wire.messages import Arrays, Value

Floats = NDArray[np.float64]

randomness = os.urandom
"""Of noise and samples. Never a run's seed: the coordinator knows it."""

LEDGER = "ledger"
"""Folder in a site's own one."""


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
        "fingerprint": site.data_name,
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
    refuse_what_only_simulations_may(site, question)
    known = {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}
    if question == "evaluate":
        return _evaluate(site, known)
    training = "moments" if site.config.classifier == "lda" else "gradient"
    units = units_of(site)  # before a ledger is begun: data may have to be mended
    step = Step.read(values, question, training)
    return step.paid(site, lambda: clipped(site.config, units, question, known))


class Clipped(NamedTuple):
    """A sum over a site's units, before its noise.

    Attributes
    ----------
    sums : any shape.
    norm : largest norm of what one unit adds to them.
    noise : multiplier of the noise that the plan has for them; 0 for none.
    """

    sums: Floats
    norm: float
    noise: float

    def noisy(self, honest: int) -> NoisySum:
        """Add this site's share of the noise, where ``honest`` sites at least add theirs."""
        return NoisySum(noisy(self.sums, self.norm, self.noise / np.sqrt(honest), randomness))


@dataclass(frozen=True)
class Step:
    """A noisy sum that is asked for in a run.

    Attributes
    ----------
    run : name of the run.
    number : 0 for the overview, then from 1.
    question : what is asked.
    due : whether that is what is asked in such a step.
    """

    run: str
    number: int
    question: str
    due: bool

    @classmethod
    def read(cls, values: Mapping[str, Value], question: str, training: str) -> Self:
        """Read what a question says; ``training`` is the question after the overview."""
        number = int(str(values["step"]))
        due = question == (training if number else "overview")
        return cls(str(values["run"]), number, question, due)

    def paid(self, site: Site, compute: Callable[[], Clipped]) -> NoisySum:
        """Return the noisy sum of what ``compute`` clips, after it was paid for.

        Asked again it is the very same: another noise would tell more. The sealed ledger knows
        which steps were answered, so that an older or lost file of answers opens none again. What
        can fail comes before the budget is charged.

        Raises
        ------
        RefusalError
            If it does not follow the last of its run, or the budget does not allow the run. Steps
            in between, which the site missed, are paid for all the same.
        """
        ledger = ledger_of(site) if site.config.epsilon else None
        state = SiteState(site.own_folder / LEDGER / "answers", self.run)
        with state.locked():
            kept = -1 if state.last is None else state.last
            answered = max(kept, self._answered(ledger))
            if self.number != answered or kept != answered:
                self._refuse_out_of_turn(site.config, kept, answered)
                state.save(self.number, self._noisy(site, ledger, compute).to_record())
            if ledger is not None:
                self._note(site.config, ledger)
            return NoisySum(state.load(self.number)["values"])

    def _answered(self, ledger: Ledger | None) -> int:
        """Return the last step of this run that the ledger knows to be answered; -1 for none."""
        if ledger is None:
            return -1
        account = ledger.account()
        # Versions before answers were noted settled the overview when it was answered.
        begun = account.number_of(self._key("overview")) in account.settled
        return account.answered.get(self.run, 0 if begun else -1)

    def _refuse_out_of_turn(self, config: RunConfig, kept: int, answered: int) -> None:
        if self.number <= answered and kept < answered:
            raise RefusalError(
                Reason.ORDER,
                f"step {self.number} was answered and the answers were lost, the last kept is "
                f"{kept}; begin a new run",
            )
        # The overview comes first: without it, answers that were lost could be given anew.
        early = self.number < answered or self.number > 0 > answered
        if early or self.number > config.releases or not self.due:
            raise RefusalError(
                Reason.ORDER,
                f"step {self.number}, {self.question}, does not follow step {answered} of this run",
            )

    def _noisy(self, site: Site, ledger: Ledger | None, compute: Callable[[], Clipped]) -> NoisySum:
        """Return a new noisy sum, after all that a run spends was reserved."""
        spent, sums = plan(site.config), compute()
        if ledger is not None and spent is not None:
            costs = spent._asdict().items()
            ledger.reserve_all([(cost, part, self._key(part)) for part, cost in costs])
        return sums.noisy(site.config.honest)

    def _note(self, config: RunConfig, ledger: Ledger) -> None:
        """Note an answer before it leaves; only a first one adds anything."""
        account = ledger.account()
        if account.answered.get(self.run, -1) < self.number:
            ledger.answer(self.run, self.number)
        number = account.number_of(self._key("training" if self.number else "overview"))
        if self.number in (0, config.releases) and number is not None:
            ledger.settle(number)

    def _key(self, part: str) -> str:
        return f"{self.run}/{part}"


def ledger_of(site: Site) -> Ledger:
    """Open the site's ledger. That of a simulated site is all in its folder, and goes with it.

    A hospital's is of its operator's unit, delta and limit, whatever a run asks for.
    """
    config, folder = site.config, site.own_folder / LEDGER
    unit, delta, limit, state = config.unit, config.delta, config.epsilon, folder / SEAL_FOLDER
    if site.operator:
        rules, state = site.rules, site.operator.seals
        unit, delta, limit = rules.unit, rules.delta, rules.epsilon
    return Ledger.open(
        folder, site.fingerprint, unit, limit, delta, state, lambda: site.former_fingerprint
    )


def gives_test_counts(site: Site) -> bool:
    """Tell whether exact counts of test lesions leave; those of a simulation are public."""
    return not site.deployed or site.rules.test_counts


def refuse_what_only_simulations_may(site: Site, question: str) -> None:
    """Refuse what would tell more of a hospital's lesions than its budget says."""
    if not site.deployed:
        return
    if not site.config.epsilon:
        raise RefusalError(
            Reason.EPSILON, "'epsilon' is 0, which is for simulations; set what may be spent"
        )
    if not site.rules.epsilon:
        raise RefusalError(Reason.EPSILON, "the operator's rules allow no 'epsilon' to be spent")
    if site.config.trust == "distributed" and not site.config.secure:
        raise RefusalError(Reason.SECURE, "trust=distributed needs a secure sum; set secure=true")
    if site.config.unit != site.rules.unit or site.config.delta > site.rules.delta:
        raise RefusalError(
            Reason.UNIT,
            f"'unit' is {site.config.unit} and 'delta' {site.config.delta:g}; the operator's rules "
            f"have {site.rules.unit}, and at most {site.rules.delta:g}",
        )
    if question == "evaluate" and not gives_test_counts(site):
        raise RefusalError(
            Reason.TEST_COUNTS, "the operator's rules let no exact counts of test lesions leave"
        )


def clipped(config: RunConfig, units: Units, question: str, known: Mapping[str, Floats]) -> Clipped:
    """Sum over a site's units.

    Nothing is paid for here: this is for a site that will, and for an audit of the mechanism.

    Parameters
    ----------
    question : "overview", "gradient" or "moments".
    known : what the coordinator sends with it.
    """
    spent = plan(config)
    noise = spent.training.noise if spent else 0.0
    if question == "overview":
        noise = spent.overview.noise if spent else 0.0
        return Clipped(overview(units, len(DIAGNOSES)), OVERVIEW_NORM, noise)
    centre = Centre(known["mean"], known["scale"])
    if question == "moments":
        return Clipped(moments(units, centre, len(DIAGNOSES)), MOMENTS_NORM, noise)
    drawn = units.of(sample(units.total, config.rate))
    objective = Objective(config.classifier, known["offset"], known["class_weight"])
    sums = clipped_gradients(drawn, centre, known["weights"], objective, config.clip_norm)
    return Clipped(sums, config.clip_norm, noise)


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
    DataError
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
    DataError
        If the table does not name them.
    """
    column = site.config.unit
    names = np.array([getattr(image, column) for image in site.dataset.images], dtype=np.str_)
    # Of test images too: which are these may be the coordinator's choice.
    if (names == "").any():
        raise DataError(
            f"'unit' is {column}, which the site's table lacks for some images; fill that column "
            "in, or set unit=lesion_id"
        )
    train = ~site.held_out
    return site.dataset.select(train), names[train]


def _mapped(site: Site, views: NDArray[np.float32]) -> Floats:
    """Return images (n, d), each the mean of its mapped views, of norm 1 at most."""
    feature_map = public_map(views.shape[2], site.config.projection, site.config.seed)
    return average_views(feature_map, views)


def _evaluate(site: Site, known: Mapping[str, Floats]) -> Evaluation:
    if "test" not in site.memory:
        site.memory["test"] = _mapped(site, site.features.predict[site.held_out])
    scores = decision_values(site.memory["test"], known["weights"])
    chances = probabilities(scores, known["calibration"])
    labels = site.dataset.labels[site.held_out]
    return Evaluation.measure(labels, scores.argmax(axis=1), chances)
