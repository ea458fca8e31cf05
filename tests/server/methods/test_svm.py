"""What the coordinator solves equals scikit-learn's classifiers on the pooled records."""

import json
import shutil
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.class_weight import compute_sample_weight

from client.open_site import site_folders
from client.site import Records, Site
from common.config.run import RunConfig
from common.data.balance import MOST_WEIGHT
from common.data.image import PSEUDO_LABEL
from common.data.metadata import UNKNOWN, About, encode
from common.data.splits import TEST
from common.errors import ConfigError, DataError
from common.models.linear import LinearModel
from common.svm.feature_map import FourierMap
from server.run.folder import CARD_FILE, MODEL_FILE
from server.run.progress import TENSORBOARD_FOLDER, TRAINING_FILE
from simulations.runtimes.experiment import rounds, simulate
from tests.sites import N_FEATURES, make_quick_sites
from tests.svm_reference import evening, signed_root

VIEWS = np.random.default_rng(0).standard_normal((50, 1, N_FEATURES))
COMPONENTS = 40


@pytest.fixture(scope="module")
def config(synthetic_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Three sites, two views of each image."""
    config = make_quick_sites(synthetic_folder, tmp_path_factory.mktemp("sites"), 3, views=2)
    return config.model_copy(update={"components": COMPONENTS, "whitening": 0.0})


@pytest.fixture(scope="module")
def pooled(config: RunConfig) -> Records:
    assert config.sites is not None
    parts = [Site(folder, config).training_records() for folder in site_folders(config.sites)]
    names = Records.__dataclass_fields__
    together = {name: np.concatenate([vars(part)[name] for part in parts]) for name in names}
    # scikit-learn would transform single precision in single precision.
    return Records(**{**together, "X": together["X"].astype(np.float64)})


def components(pooled: Records) -> Any:
    pca = PCA(COMPONENTS, svd_solver="full")
    return make_pipeline(FunctionTransformer(signed_root), StandardScaler(), pca).fit(pooled.X)


def train(config: RunConfig, out: Path, **settings: object) -> tuple[LinearModel, dict[str, Any]]:
    run = config.model_copy(update={"out": out, **settings})
    metrics = simulate(run)
    return LinearModel.load(out / MODEL_FILE), metrics


@pytest.mark.parametrize(
    ("head", "reference"),
    [("ridge", RidgeClassifier(alpha=7.0)), ("lda", LinearDiscriminantAnalysis(solver="lsqr"))],
)
def test_one_shot_heads_are_those_of_the_pooled_records(
    config: RunConfig, pooled: Records, head: str, reference: Any, tmp_path: Path
) -> None:
    # A view weighs 1 / 2 and so does scikit-learn's, where weights matter: in the penalty.
    weight = {"sample_weight": pooled.weight} if head == "ridge" else {}
    Z = components(pooled)
    reference.fit(Z.transform(pooled.X), pooled.y, **weight)
    model, _ = train(config, tmp_path / "run", head=head, penalty=7.0)
    expected = reference.decision_function(Z.transform(VIEWS[:, 0]))
    np.testing.assert_allclose(model.scores(VIEWS), expected, rtol=0, atol=1e-8)


def test_the_rbf_svm_is_that_of_the_pooled_records(
    config: RunConfig, pooled: Records, tmp_path: Path
) -> None:
    model, metrics = train(config, tmp_path / "run", kernel="rbf", fourier=512, widths=(0.7, 1.4))
    chosen = metrics["training"]["chosen"]
    Z = components(pooled)
    X = Z.transform(pooled.X)
    norm = np.sqrt(np.mean((X**2).sum(axis=1)))
    assert min(abs(chosen["width"] - w * norm) for w in (0.7, 1.4)) < 1e-9 * norm
    assert len(metrics["training"]["choice"]) == 2 * len(config.c)
    # The components' signs are free, and random frequencies are not: take the model's.
    X, views = (model.feature_map.project(x) for x in (pooled.X, VIEWS[:, 0]))
    fourier = FourierMap(512, chosen["width"], config.seed)
    weight = pooled.weight * compute_sample_weight("balanced", pooled.y)
    svc = LinearSVC(C=chosen["c"], dual=False, tol=1e-10, max_iter=100_000)
    svc.fit(fourier.apply(X), pooled.y, sample_weight=weight)
    expected: NDArray[np.float64] = svc.decision_function(fourier.apply(views))
    np.testing.assert_allclose(model.scores(VIEWS), expected, rtol=0, atol=1e-6)


def test_the_svm_of_clipped_features_is_that_of_the_pooled_clipped_ones(
    config: RunConfig, pooled: Records, tmp_path: Path
) -> None:
    model, metrics = train(config, tmp_path / "run", clip_features=0.9)
    X, views = (model.feature_map.project(x) for x in (pooled.X, VIEWS[:, 0]))
    longest = 0.9 * np.sqrt(N_FEATURES)
    norms = np.linalg.norm(X, axis=1)
    assert (norms > longest).any()
    assert (norms < longest).any()
    X, views = (x * np.minimum(1, longest / np.linalg.norm(x, axis=1))[:, None] for x in (X, views))
    weight = pooled.weight * compute_sample_weight("balanced", pooled.y)
    svc = LinearSVC(C=metrics["training"]["chosen"]["c"], dual=False, tol=1e-10, max_iter=100_000)
    svc.fit(X, pooled.y, sample_weight=weight)
    np.testing.assert_allclose(model.scores(VIEWS), svc.decision_function(views), atol=1e-6)


def test_the_svm_of_whitened_components_is_that_of_the_pooled_ones(
    config: RunConfig, pooled: Records, tmp_path: Path
) -> None:
    """The components of scikit-learn, divided by the roots of their variances and a share."""
    model, metrics = train(config, tmp_path / "run", whitening=0.3)
    Z = components(pooled)
    factors = evening(Z[-1].explained_variance_, 0.3, COMPONENTS)
    X, views = (Z.transform(x) * factors for x in (pooled.X, VIEWS[:, 0]))
    weight = pooled.weight * compute_sample_weight("balanced", pooled.y)
    svc = LinearSVC(C=metrics["training"]["chosen"]["c"], dual=False, tol=1e-10, max_iter=100_000)
    svc.fit(X, pooled.y, sample_weight=weight)
    expected = svc.decision_function(views)
    np.testing.assert_allclose(model.scores(VIEWS), expected, rtol=0, atol=1e-6)
    assert (
        np.abs(model.scores(VIEWS) - train(config, tmp_path / "plain")[0].scores(VIEWS)).max()
        > 0.01
    )


def test_metadata_is_in_the_same_exact_solution(
    config: RunConfig, pooled: Records, tmp_path: Path
) -> None:
    """Columns of ages and places stand beside the components, centred and scaled together."""
    columns = ("age", "sex")
    settings = {"metadata": columns, "metadata_scale": (0.2, 0.4), "metadata_dropped": 0.3}
    run = config.model_copy(update=settings)
    parts = [Site(folder, run).training_records() for folder in site_folders(config.sites)]
    X = np.concatenate([part.X for part in parts]).astype(np.float64)
    numbers = X[:, N_FEATURES:]
    nothing = encode(columns, [UNKNOWN])[0]
    assert 0.2 < (numbers == nothing).all(axis=1).mean() < 0.4
    model, metrics = train(config, tmp_path / "run", **settings)
    chosen = metrics["training"]["chosen"]
    assert len(metrics["training"]["choice"]) == 2 * len(config.c)
    Z = components(pooled)
    mean, factor = numbers.mean(axis=0), chosen["metadata_scale"] * np.sqrt(N_FEATURES)
    weight = pooled.weight * compute_sample_weight("balanced", pooled.y)
    svc = LinearSVC(C=chosen["c"], dual=False, tol=1e-10, max_iter=100_000)
    svc.fit(np.hstack([Z.transform(pooled.X), (numbers - mean) * factor]), pooled.y, weight)
    seen = (mean > 0).nonzero()[0]
    for about in (UNKNOWN, About(age=45.0, sex="male"), About(sex="no such word")):
        row = encode(columns, [about])[0]
        assert row.nonzero()[0].tolist() == [n for n in row.nonzero()[0] if n in seen]
        beside = np.repeat([(row - mean) * factor], len(VIEWS), axis=0)
        expected = svc.decision_function(np.hstack([Z.transform(VIEWS[:, 0]), beside]))
        found = model.scores(VIEWS, [about] * len(VIEWS))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(model.scores(VIEWS), model.scores(VIEWS, [UNKNOWN] * len(VIEWS)))


@pytest.mark.parametrize("secure", [False, True])
def test_balanced_groups_are_sample_weights_of_the_pooled_records(
    config: RunConfig, pooled: Records, tmp_path: Path, secure: bool
) -> None:
    """In each diagnosis both sexes weigh the same in total, where a lesion is not above the cap."""
    datasets = [Site(folder, config).dataset for folder in site_folders(config.sites)]
    kept = [image for d in datasets for image in d.images if image.split != TEST]
    rows = pd.DataFrame({"dx": pooled.y, "sex": np.repeat([image.sex for image in kept], 2)})
    images = rows.groupby(["dx", "sex"])["sex"].transform("size")
    groups = rows.groupby("dx")["sex"].transform("nunique")
    share = rows.groupby("dx")["dx"].transform("size") / groups / images
    assert set(rows["sex"]) == {"female", "male"}
    assert 1.2 < share.max() < MOST_WEIGHT
    model, metrics = train(config, tmp_path / "run", balance_groups="sex", secure=secure)
    weight = pooled.weight * compute_sample_weight("balanced", pooled.y) * share
    Z = components(pooled)
    svc = LinearSVC(C=metrics["training"]["chosen"]["c"], dual=False, tol=1e-10, max_iter=100_000)
    svc.fit(Z.transform(pooled.X), pooled.y, sample_weight=weight)
    expected = svc.decision_function(Z.transform(VIEWS[:, 0]))
    np.testing.assert_allclose(model.scores(VIEWS), expected, rtol=0, atol=1e-6)
    card = (tmp_path / "run" / CARD_FILE).read_text()
    assert "sex, within each diagnosis" in card


def with_rows(sites: Path, out: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    """Copy a site's folder, or those of several, and change the rows of the tables."""
    shutil.copytree(sites, out, symlinks=True)
    for table in out.rglob("HAM10000_metadata*"):
        change(pd.read_csv(table)).to_csv(table, index=False)
    return out


@pytest.mark.parametrize("secure", [False, True])
def test_a_site_with_test_lesions_alone_adds_nothing_and_is_judged_on(
    config: RunConfig, tmp_path: Path, secure: bool
) -> None:
    first, *others = site_folders(config.sites)
    for folder in others:
        shutil.copytree(folder, tmp_path / "others" / folder.name, symlinks=True)
    everyone = with_rows(tmp_path / "others", tmp_path / "everyone", lambda rows: rows)
    with_rows(first, everyone / first.name, lambda rows: rows[rows["split"] == TEST])
    of_others, few = train(config, tmp_path / "few", sites=tmp_path / "others")
    of_all, more = train(config, tmp_path / "more", sites=everyone, secure=secure)
    np.testing.assert_allclose(of_all.scores(VIEWS), of_others.scores(VIEWS), rtol=0, atol=1e-6)
    tested = int(Site(first, config).held_out.sum())
    assert more["overall"]["n"] == few["overall"]["n"] + tested > tested > 0


def test_pseudo_labels_alone_choose_nothing(config: RunConfig, tmp_path: Path) -> None:
    def guessed(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(dx_type=rows["dx_type"].where(rows["split"] == TEST, PSEUDO_LABEL))

    sites = with_rows(config.sites, tmp_path / "sites", guessed)
    with pytest.raises(DataError, match="no training lesion has a diagnosis that is no pseudo-"):
        train(config, tmp_path / "run", sites=sites)


def test_a_column_that_gives_the_diagnosis_away_is_told_of(
    synthetic_folder: Path, config: RunConfig, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Each site's table says by the sex whether a lesion is a naevus."""

    def telling(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(sex=np.where(rows["dx"] == "nv", "female", "male"))

    sites = with_rows(config.sites, tmp_path / "sites", telling)
    for folder, told in ((config.sites, False), (sites, True)):
        caplog.clear()
        train(config, tmp_path / f"run-{told}", sites=folder, metadata=("sex",), head="ridge")
        assert ("metadata column 'sex' holds" in caplog.text) == told


def test_each_round_of_the_fits_is_told_of(config: RunConfig, tmp_path: Path) -> None:
    out = tmp_path / "run"
    _, metrics = train(config, out, tensorboard=True)
    lines = [json.loads(line) for line in (out / TRAINING_FILE).read_text().splitlines()]
    assert [line["round"] for line in lines] == list(range(1, len(lines) + 1))
    stages = [stage for stage, _ in groupby(line["stage"] for line in lines)]
    assert stages == ["C=0.0001", "C=0.001", "fit"]
    *_, last = fit = [line for line in lines if line["stage"] == "fit"]
    assert len(fit) == metrics["training"]["rounds"]
    assert last["gradient_norm"] == metrics["training"]["gradient_norm"] <= config.tolerance
    assert last["loss"] < fit[0]["loss"]
    sent = sum(entry["bytes_up"] for entry in rounds(out) if entry["question"] == "hinge")
    assert sum(line["bytes_up"] for line in lines) >= sent > 0
    assert len(list((out / TENSORBOARD_FOLDER).iterdir())) == 1


def test_one_shot_heads_refuse_to_clip() -> None:
    with pytest.raises(ConfigError, match="'clip_features' is 1, but head lda is solved from"):
        RunConfig.read({"clip_features": 1, "head": "lda"})
