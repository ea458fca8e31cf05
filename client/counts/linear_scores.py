"""A finished linear model's scores of a site's images."""

import numpy as np

from client.egress.questions import Question
from client.site import Site
from common.arrays import Floats, Ints
from common.data.metadata import beside, width
from common.errors import Reason, RefusalError
from common.models.linear import average_views, check_map, decision_values, seen_numbers
from common.svm.feature_map import FeatureMap


def linear_scores(site: Site, images: Ints, question: Question) -> Floats:
    """Return decision values (n, n_classes) of images by a linear model's arrays.

    Parameters
    ----------
    images : (n,) numbers of the site's images.

    Raises
    ------
    RefusalError
        If what came is no model.
    """
    arrays = {n: np.asarray(a, dtype=np.float64) for n, a in question.arrays.items()}
    columns = site.config.metadata
    try:
        check_map(arrays, width(columns))
    except ValueError as error:
        raise RefusalError(Reason.FORM, f"what came is no linear model: {error}") from error
    feature_map = FeatureMap.from_record(arrays, width(columns))
    numbers = seen_numbers(feature_map, columns, site.metadata[images])
    views = beside(site.features.predict[images], numbers)
    return decision_values(average_views(feature_map, views), arrays["weights"])
