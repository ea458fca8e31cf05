"""The exact SVM on features of a network that the sites have fine-tuned together before."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.svm import LinearSVC
from sklearn.utils.class_weight import compute_sample_weight

from client.open_site import site_folders
from client.site import Site
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.errors import ConfigError
from common.features.augment import normalise, prediction_view
from common.features.backbone import input_statistics
from common.features.extract import extract
from common.models.linear import LinearModel, average_views
from common.networks.network import shared_network
from common.statistics import calibration
from server.method import server_method
from server.run.folder import MODEL_FILE
from simulations.runtimes.experiment import simulate
from tests.finetuning import BACKBONE, SIZE, changed, model_of, quick
from tests.sites import make_quick_sites

SPLITS = {"folds": 3, "judged": "first"}


@pytest.fixture(scope="module")
def tuned(base: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Fine-tune a network."""
    run = changed(base, tmp_path_factory.mktemp("tuned") / "run")
    simulate(run)
    return run


@pytest.fixture(scope="module")
def svm(tuned: RunConfig) -> Callable[..., RunConfig]:
    def configure(out: Path, **changes: object) -> RunConfig:
        assert tuned.out is not None
        assert tuned.sites is not None
        places = {"sites": tuned.sites, "cache": tuned.cache, "out": out}
        few = {"views": 0, "levels": 1, "min_active": 1, "components": 64, "c": 1e-4}
        settings: dict[str, Any] = {**places, **few, **SPLITS, "method": "svm", **changes}
        return quick(tuned.sites.parent, **{"weights": tuned.out / MODEL_FILE, **settings})

    return configure


def test_its_features_are_the_pooled_maps_of_the_fine_tuned_network(
    svm: Callable[..., RunConfig], tuned: RunConfig, dataset: Dataset, tmp_path: Path
) -> None:
    run = svm(tmp_path / "run")
    network = shared_network(BACKBONE, tuned.weights, dataset.task.n_classes)
    network.load(model_of(tuned).weights)
    statistics = input_statistics(BACKBONE)
    views = [
        normalise(
            prediction_view(run.feature_spec.transform.image(dataset.read(i.image_id)), 0, SIZE),
            *statistics,
        )
        for i in dataset.images[:4]
    ]
    with torch.no_grad():
        expected = network.backbone(torch.from_numpy(np.stack(views))).numpy()
    found = extract(dataset, run.feature_spec, run.cache).predict[:4, 0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    pretrained = extract(dataset, replace(run.feature_spec, weights=tuned.weights), run.cache)
    assert not np.allclose(found, pretrained.predict[:4, 0], rtol=0, atol=1e-3)
    simulate(run)
    model = LinearModel.load(tmp_path / "run" / MODEL_FILE, run.weights)
    assert np.isfinite(model.dataset_scores(dataset, run.cache)).all()
    with pytest.raises(ConfigError, match="name their file with --weights"):
        LinearModel.load(tmp_path / "run" / MODEL_FILE)


def test_c_is_judged_on_the_first_fold_alone(synthetic_folder: Path, tmp_path: Path) -> None:
    """The choice is that of scikit-learn's SVMs of all other folds, calibrated on the first."""
    config = make_quick_sites(synthetic_folder, tmp_path / "sites", 2)
    run = config.model_copy(update={"out": tmp_path / "run", "judged": "first"})
    choice = simulate(run)["training"]["choice"]
    assert run.sites is not None
    sites = [Site(folder, run) for folder in site_folders(run.sites)]
    records = [site.training_records() for site in sites]
    X, y, fold = (
        np.concatenate([getattr(r, name) for r in records]) for name in ("X", "y", "fold")
    )
    mapping = LinearModel.load(tmp_path / "run" / MODEL_FILE).feature_map
    views = np.concatenate([site.prediction_views[site.dataset.splits == "0"] for site in sites])
    labels = np.concatenate([site.dataset.labels[site.dataset.splits == "0"] for site in sites])
    weight = compute_sample_weight("balanced", y)[fold != 0]
    for each in choice:
        svc = LinearSVC(C=each["c"], dual=False, tol=1e-8, max_iter=100_000)
        svc.fit(mapping.apply(X[fold != 0]), y[fold != 0], sample_weight=weight)
        scores = svc.decision_function(average_views(mapping, views))
        calibrated = calibration.fit(
            lambda p, s=scores: calibration.calibration_sums(s, labels, p), len(svc.classes_)
        )
        called = calibration.decisions(scores, calibrated, np.bincount(y) / len(y))
        assert each["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, called))
        chances = calibration.probabilities(scores, calibrated)
        area = roc_auc_score(labels, chances, multi_class="ovr")
        assert each["macro_auc"] == pytest.approx(area, abs=0.01)  # of a histogram


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"judged": "all"}, "set seed=0 folds=3 test_fraction=0.2 judged=first head=svm"),
        ({"seed": 1}, "only with its splits are there lesions that it has not seen"),
        ({"backbone": "test_vgg"}, "set backbone=test_resnet"),
        ({"method": "private", "epsilon": 3}, "promises nothing of what that run saw"),
        ({"method": "private_finetune", "epsilon": 3}, "promises nothing of what that run saw"),
        ({"method": "finetune", "views": 1}, "fine-tuning starts from pretrained weights"),
    ],
)
def test_other_splits_and_methods_are_refused_in_one_line(
    svm: Callable[..., RunConfig], tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    run = svm(tmp_path / "run").model_copy(update=settings)
    with pytest.raises(ConfigError, match=message):
        server_method(run).check(run)


def test_a_model_without_a_trained_network_is_no_weights(
    svm: Callable[..., RunConfig], tmp_path: Path
) -> None:
    first = svm(tmp_path / "first")
    simulate(first)
    second = svm(tmp_path / "second", weights=tmp_path / "first" / MODEL_FILE)
    with pytest.raises(ConfigError, match="a model whose backbone was not trained"):
        server_method(second).check(second)
