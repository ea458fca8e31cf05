"""A site's answers under differential privacy: noisy sums, paid for before they are computed."""

import os
from collections.abc import Mapping

import numpy as np
from flwr.app import Context
from numpy.typing import NDArray

from client.ledger import SEAL_FOLDER, STATE, Ledger
from client.site import Site
from client.state import SiteState
from common.calibration import probabilities
from common.dataset import DIAGNOSES
from common.errors import RefusalError
from common.metrics import Evaluation
from common.model import average_views, decision_values
from common.noise import noisy
from common.private import (
    OVERVIEW_NORM,
    Centre,
    NoisySum,
    clipped_gradients,
    overview,
    plan,
    public_map,
)
from common.sums import Sums
from common.wire import Arrays, Value

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

randomness = os.urandom
"""Of noise and samples. Never a run's seed: the coordinator knows it."""

_LEDGER = "ledger"
"""Folder in a site's data folder."""

_LARGEST = 1e6
"""Of the numbers that a coordinator sends: far below those at which sums are no numbers."""


def describe(site: Site) -> dict[str, Value]:
    """Say what this site's features are; of its lesions nothing, for that has its price."""
    if site.deployed:
        _refuse_what_only_simulations_may(site, "join")
    return {
        "n_features": site.features.views.shape[2],
        "features": site.config.feature_spec.key,
        "images": "",
        "lesions": "",
        "fingerprint": _ledger(site).account().id if site.config.epsilon else site.fingerprint,
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
    known = {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}
    for name, array in known.items():
        if not (np.abs(array) <= _LARGEST).all():
            raise RefusalError(f"array '{name}' has numbers beyond {_LARGEST:g}")
    if site.deployed:
        _refuse_what_only_simulations_may(site, question)
    if question == "evaluate":
        return _evaluate(site, known)
    if question not in ("overview", "gradient"):
        raise RefusalError(f"no question '{question}' in method private")
    run, step = str(values["run"]), int(str(values["step"]))
    state = SiteState(site.folder / _LEDGER / "answers", run)
    with state.locked():
        last, kept = -1 if state.last is None else state.last, state.load(step)
        if step == last:  # asked again; another noise would tell more
            return NoisySum(kept["values"])
        if step != last + 1 or step > site.config.steps or (step == 0) != (question == "overview"):
            raise RefusalError(f"step {step}, {question}, does not follow step {last} of this run")
        paid = _pay(site, run, first=step == 0)
        sums = _noisy_sum(site, question, known)
        state.save(step, sums.to_record())
        if paid and step in (0, site.config.steps):
            _ledger(site).settle(paid["gradients" if step else "overview"])
    return sums


def _pay(site: Site, run: str, first: bool) -> dict[str, int]:
    """Reserve all that a run spends; only its first answer adds to the ledger.

    Returns
    -------
    The reservations by what they are for; none where nothing is promised.
    """
    paid = {}
    if spent := plan(site.config):
        if site.config.delta * len(_records(site)[1]) > 1:
            raise RefusalError(
                f"'delta' is {site.config.delta:g}, with which one of this site's units might be "
                "published; set a smaller one"
            )
        ledger = _ledger(site)
        for part, cost in zip(spent._fields, spent, strict=True):
            paid[part] = ledger.reserve(cost, part, key=f"{run}/{part}")
        if first and paid["overview"] in ledger.account().settled:
            raise RefusalError("this run was answered, and the answers were lost; begin a new one")
    return paid


def _ledger(site: Site) -> Ledger:
    """Open the site's ledger. That of a simulated site is all in its folder, and goes with it."""
    config, folder = site.config, site.folder / _LEDGER
    limit, state = (
        (site.rules.limit, STATE) if site.deployed else (config.epsilon, folder / SEAL_FOLDER)
    )
    return Ledger.open(folder, site.fingerprint, f"{config.unit}_id", limit, config.delta, state)


def _refuse_what_only_simulations_may(site: Site, question: str) -> None:
    """Refuse what would tell more of a hospital's lesions than its budget says."""
    if not site.config.epsilon:
        raise RefusalError("'epsilon' is 0, which is for simulations; set what may be spent")
    if not site.rules.limit:
        raise RefusalError("the operator allows no 'epsilon' in the configuration of the node")
    if site.config.trust == "distributed" and not site.config.secure:
        raise RefusalError("trust=distributed needs a secure sum; set secure=true")
    if question == "evaluate":
        raise RefusalError("exact counts of test lesions are for simulations")


def _noisy_sum(site: Site, question: str, known: Mapping[str, Floats]) -> NoisySum:
    config, spent = site.config, plan(site.config)
    X, y = _records(site)
    if question == "overview":
        norm, noise = OVERVIEW_NORM, spent.overview.noise if spent else 0.0
        sums = overview(X, y, len(DIAGNOSES))
    else:
        norm, noise = config.clip_norm, spent.gradients.noise if spent else 0.0
        drawn = _sample(len(y), config.rate)
        X1 = Centre(known["mean"], known["scale"]).apply(X[drawn])
        sums = clipped_gradients(X1, y[drawn], known["weights"], known["offset"], config.loss, norm)
    return NoisySum(noisy(sums, norm, noise / np.sqrt(config.honest), randomness))


def _sample(n: int, rate: float) -> NDArray[np.bool_]:
    """Draw each of n records by itself."""
    numbers = np.frombuffer(randomness(8 * n), dtype=np.uint64) >> np.uint64(11)
    return np.asarray(numbers * 2.0**-53 < rate)


def _records(site: Site) -> tuple[Floats, Ints]:
    """Return the mapped units (n, d) of the training images, of norm 1 at most, and their labels.

    The mean over all views of all its images: what is clipped is the whole of a unit.
    """
    if "private" not in site.memory:
        train = np.flatnonzero(~site.held_out)
        views = site.features.train[train]
        if not np.isfinite(views).all():
            raise RefusalError("the site's features hold NaN or infinite values")
        feature_map = public_map(views.shape[2], site.config.projection, site.config.seed)
        images, labels = average_views(feature_map, views), site.dataset.labels[train]
        if site.config.unit == "lesion":
            _, first, index, sizes = np.unique(
                site.dataset.lesions[train],
                return_index=True,
                return_inverse=True,
                return_counts=True,
            )
            totals = np.zeros((len(first), images.shape[1]))
            np.add.at(totals, index, images)
            images, labels = totals / sizes[:, None], labels[first]
        site.memory["private"] = images, labels
    found: tuple[Floats, Ints] = site.memory["private"]
    return found


def _evaluate(site: Site, known: Mapping[str, Floats]) -> Evaluation:
    test = np.flatnonzero(site.held_out)
    views = site.features.predict[test]
    feature_map = public_map(views.shape[2], site.config.projection, site.config.seed)
    scores = decision_values(average_views(feature_map, views), known["weights"])
    chances = probabilities(scores, known["calibration"])
    return Evaluation.measure(site.dataset.labels[test], scores.argmax(axis=1), chances)
