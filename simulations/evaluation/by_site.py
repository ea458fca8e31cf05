"""A model's figures on the test images of each site."""

from collections.abc import Iterator
from math import nan

import numpy as np
from numpy.typing import NDArray

from common.data.dataset import Dataset
from common.statistics.metrics import Evaluation, Metrics
from simulations.evaluation.intervals import Interval, Predicted, bootstrap, point_estimates
from simulations.evaluation.judgement import SiteFigures

NO_SITE = "no site named"
"""What stands for the site of images whose row names none."""

_NONE: Interval = (nan, nan)


def site_figures(dataset: Dataset, predictions: Predicted, seed: int) -> Iterator[SiteFigures]:
    """Yield a model's figures on the images of each source, if the table names sources.

    Parameters
    ----------
    dataset : the n test images.
    predictions : predicted classes (n,) and probabilities (n, n_classes).
    seed : seed of the resamples.
    """
    if not any(dataset.sources):
        return
    for source in np.unique(dataset.sources):
        rows = dataset.sources == source
        chosen = predictions[0][rows], predictions[1][rows]
        yield _figures(str(source) or NO_SITE, dataset.select(rows), chosen, seed)


def _figures(site: str, images: Dataset, predictions: Predicted, seed: int) -> SiteFigures:
    labels = images.labels
    present = np.unique(labels)
    values, bounds = _one_diagnosis(labels, predictions), {}
    if len(present) > 1:  # else no AUC, and nothing that lesions within classes would change
        values = point_estimates(labels, *predictions)
        bounds = bootstrap(labels, *predictions, images.lesions, seed=seed)
    return SiteFigures(
        site=site,
        images=len(images),
        lesions=len(images.by_lesion.sizes),
        diagnoses=tuple(images.task.codes[label] for label in present),
        balanced_accuracy=values["balanced_accuracy"],
        balanced_accuracy_interval=bounds.get("balanced_accuracy", _NONE),
        macro_auc=values["macro_auc"],
        macro_auc_interval=bounds.get("macro_auc", _NONE),
        accuracy=values["accuracy"],
        accuracy_interval=bounds.get("accuracy", _NONE),
    )


def _one_diagnosis(labels: NDArray[np.integer], predictions: Predicted) -> dict[str, float]:
    metrics = Metrics.compute(Evaluation.measure(labels, *predictions))
    names = ("accuracy", "balanced_accuracy", "macro_auc")
    return {name: getattr(metrics, name) for name in names}
