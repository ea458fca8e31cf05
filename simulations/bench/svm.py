"""How long a federated SVM takes, next to scikit-learn on the same pooled records."""

import tempfile
from pathlib import Path

from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from client.site import Site
from common.config.run import RunConfig
from common.statistics.moments import Moments
from common.svm.feature_map import FeatureMap, powers_of, raised
from common.svm.objective import balanced_weights
from simulations.bench.measurement import Measurement, timed
from simulations.runtimes.experiment import make_sites, simulate, with_splits

_SITES = 10


def bench_svm(data: Path, c: float) -> list[Measurement]:
    """Time whole federated runs at one C against ``LinearSVC`` at its default tolerance.

    A run is everything after the features: moments, principal components, fits on the
    folds, the final fit, calibration and evaluation. ``LinearSVC`` fits once, on the same
    views with the same weights: all standardised features, and the principal components.
    """
    with tempfile.TemporaryDirectory() as folder:
        sites = Path(folder, "sites")
        config = RunConfig(c=(c,), out=Path(folder, "run"), sites=sites, min_active=1)
        records = Site(data, config).training_records()  # computes the features, not timed
        make_sites(with_splits(data, config), sites, "iid", _SITES, 1.0, config.seed)
        _, federated = timed(lambda: simulate(config))
    X = raised(records.X, powers_of(config, records.X.shape[1]))
    moments = Moments.measure(X, records.y, records.weight, config.task.n_classes)
    weights = balanced_weights(moments.class_weight)[records.y] * records.weight
    Z = FeatureMap.principal(moments, config.components, 0, config.whitening).apply(X)
    svc = LinearSVC(C=c, dual=False)
    scaled = make_pipeline(StandardScaler(), svc)
    _, whole = timed(lambda: scaled.fit(X, records.y, linearsvc__sample_weight=weights))
    _, reduced = timed(lambda: svc.fit(Z, records.y, sample_weight=weights))
    n, size = records.X.shape
    return [
        Measurement(f"federated SVM, {_SITES} sites, {n} views, whole run", federated, "s"),
        Measurement(f"LinearSVC, pooled, {size} features", whole, "s"),
        Measurement(f"LinearSVC, pooled, {Z.shape[1]} principal components", reduced, "s"),
        Measurement("federated / LinearSVC on all features", federated / whole, "", "at most 1"),
        Measurement("federated / LinearSVC on components", federated / reduced, "", "at most 1"),
    ]
