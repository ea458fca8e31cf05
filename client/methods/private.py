"""A site's answers under differential privacy: noisy sums, charged before noise is drawn."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from client import frozen_features
from client.egress.questions import Question
from client.privacy import rules
from client.privacy.clipped import Clipped, clipped_overview, training_noise
from client.privacy.draws import sample
from client.privacy.paid_step import PaidStep
from client.privacy.units import training_units
from client.site import Site
from common.arrays import Bools, Floats
from common.config.run import RunConfig
from common.data.metadata import beside
from common.models.linear import average_views, decision_values
from common.privacy.lda import moments
from common.privacy.linear import (
    MOMENTS_NORM,
    Centre,
    Objective,
    Units,
    clipped_gradients,
    hidden_numbers,
    intercept_of,
    run_map,
)
from common.statistics.calibration import decisions, probabilities
from common.statistics.metrics import Evaluation
from common.statistics.sums import Sums
from common.wire.messages import Value

prepare = frozen_features.prepare


def describe(site: Site) -> dict[str, Value]:
    """Describe this site's features, and nothing of its lesions."""
    return rules.describe(site, site.n_features)


def answer(site: Site, question: Question) -> Sums:
    """Answer one question of the coordinator.

    Raises
    ------
    RefusalError
        If this site does not answer it, or its budget does not allow it.
    """
    rules.refuse_what_only_simulations_may(site, question.name)
    sent = {name: np.asarray(array, dtype=np.float64) for name, array in question.arrays.items()}
    if question.name == "evaluate":
        return _evaluate(site, sent)
    training = "moments" if site.config.head == "lda" else "gradient"
    units = units_of(site)  # before a ledger is begun: data may have to be mended
    step = PaidStep.read(question.values, question.name, training)
    return step.answer(site, lambda: clipped(site.config, units, question.name, sent))


def clipped(config: RunConfig, units: Units, question: str, sent: Mapping[str, Floats]) -> Clipped:
    """Sum over a site's units.

    Nothing is charged here: a site charges its ledger first, and an audit has none.

    Parameters
    ----------
    question : "overview", "gradient" or "moments".
    sent : what the coordinator sends with it: "mean" (d,) and "scale" (); for a gradient also
        "weights" (n_classes, d + 1), "offset" and "class_weight" (n_classes,).
    """
    if question == "overview":
        return clipped_overview(config, units)
    centre = Centre(sent["mean"], sent["scale"], intercept_of(config.head))
    noise = training_noise(config)
    if question == "moments":
        return Clipped(moments(units, centre, config.task.n_classes), MOMENTS_NORM, noise)
    drawn = units.of(sample(units.total, config.rate))
    objective = Objective(config.head, sent["offset"], sent["class_weight"])
    sums = clipped_gradients(drawn, centre, sent["weights"], objective, config.clip_norm)
    return Clipped(sums, config.clip_norm, noise)


def units_of(site: Site) -> Units:
    """Return the privacy units that are trained on, in the public map's coordinates.

    With metadata each lesion is seen with and without: no draw says which lesion is.

    Raises
    ------
    DataError
        As of :func:`lesions_of`.
    """
    return site.once(_units)


def lesions_of(site: Site) -> Units:
    """Return the privacy units of the training images, with one record of each lesion.

    Raises
    ------
    DataError
        If the table does not name them, or features are no numbers.
    """
    train, names = training_units(site)
    X = _mapped(site, site.features.train, ~site.held_out)
    return Units.group(X, train.labels, train.lesions, names)


def _units(site: Site) -> Units:
    config, images = site.config, site.features.views.shape[2]
    hidden = hidden_numbers(run_map(images, config), config.metadata)
    return lesions_of(site).seen_without(hidden, config.metadata_dropped)


def _mapped(site: Site, views: NDArray[np.float32], chosen: Bools) -> Floats:
    """Return images (n, d), each the mean of its mapped views, of norm 1 at most.

    Parameters
    ----------
    views : (m, P, n_features) of all images of the site.
    chosen : (m,) which images are taken.
    """
    known = beside(views[chosen], site.metadata[chosen])
    return average_views(run_map(views.shape[2], site.config), known)


def _test_images(site: Site) -> Floats:
    return _mapped(site, site.features.predict, site.held_out)


def _evaluate(site: Site, sent: Mapping[str, Floats]) -> Evaluation:
    scores = decision_values(site.once(_test_images), sent["weights"])
    predicted = decisions(scores, sent["calibration"], sent["base_rates"])
    chances = probabilities(scores, sent["calibration"])
    return Evaluation.measure(site.dataset.labels[site.held_out], predicted, chances)
