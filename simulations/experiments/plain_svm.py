"""A balanced linear SVM on principal components, trained on frozen features in one place."""

from collections.abc import Callable

import numpy as np
from sklearn.svm import LinearSVC

from common.arrays import Bools, Floats, Ints
from common.features.extract import Features
from common.models.linear import average_views
from common.statistics.moments import Moments
from common.svm.feature_map import FeatureMap
from common.svm.objective import balanced_weights

_C = 1e-4
_COMPONENTS = 512


def fitted(train: Features, labels: Ints, learnt: Bools) -> Callable[[Features, Bools], Floats]:
    """Return what tells of images whether the SVM finds their diagnosis, (m,) of 0 and 1.

    Parameters
    ----------
    labels, learnt : (n,) diagnoses, and which images are learnt.
    """
    views = train.train[learnt]
    X, y = views.reshape(-1, views.shape[2]), np.repeat(labels[learnt], views.shape[1])
    weight = np.full(len(y), 1 / views.shape[1])
    moments = Moments.measure(X, y, weight, int(labels.max()) + 1)
    mapping = FeatureMap.principal(moments, _COMPONENTS)
    classifier = LinearSVC(C=_C, dual=False)
    weights = balanced_weights(moments.class_weight)[y] * weight
    classifier.fit(mapping.apply(X), y, sample_weight=weights)

    def judge(test: Features, tested: Bools) -> Floats:
        predicted = classifier.predict(average_views(mapping, test.predict[tested]))
        found: Floats = (predicted == labels[tested]).astype(float)
        return found

    return judge
