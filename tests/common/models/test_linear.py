"""A model is the same after it was a file, and nothing else is read as one."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from common.answers.appearance import SIZE, Appearance
from common.answers.basis import AnswerBasis
from common.answers.counts import AnswerCounts
from common.arrays import Floats
from common.config.run import RunConfig
from common.errors import DataError
from common.models.file import load_model
from common.models.linear import LinearModel
from common.statistics.moments import Moments
from common.svm.feature_map import FeatureMap, FourierMap
from common.task import BINARY, HAM10000
from tests.records import N_CLASSES, draw_records

X, Y = draw_records(60, 8)
VIEWS = X.reshape(20, 3, 8).astype(np.float32)


def make_basis(calibration: Floats) -> AnswerBasis:
    """Return a basis with calibration lesions at two sites."""
    rng = np.random.default_rng(1)
    counts = [
        AnswerCounts.measure(
            HAM10000, rng.integers(0, N_CLASSES, 30), rng.dirichlet(np.ones(N_CLASSES), size=30)
        )
        for _ in range(2)
    ]
    base_rates = rng.dirichlet(np.ones(N_CLASSES))
    sites = dict(zip(("north", "south"), counts, strict=True))
    looks = Appearance(rng.standard_normal(SIZE), rng.standard_normal((SIZE, SIZE)), 1.5)
    return AnswerBasis.of(HAM10000, calibration, base_rates, counts[0] + counts[1], sites, looks)


def make_model(fourier: FourierMap | None) -> LinearModel:
    moments = Moments.measure(X, Y, np.ones(60), N_CLASSES)
    principal = FeatureMap.principal(moments, 5)
    feature_map = FeatureMap(principal.mean, principal.matrix, fourier)
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((N_CLASSES, feature_map.n_outputs + 1))
    calibration = rng.uniform(0.5, 2.0, (2, N_CLASSES))
    config = RunConfig(seed=3, c=(1e-4,))
    return LinearModel(feature_map, weights, make_basis(calibration), config)


@pytest.mark.parametrize("fourier", [None, FourierMap(16, 1.7, 5)], ids=["linear", "rbf"])
def test_a_model_comes_back_bit_for_bit(tmp_path: Path, fourier: FourierMap | None) -> None:
    model = make_model(fourier)
    model.save(tmp_path / "a")
    loaded = LinearModel.load(tmp_path / "a")
    loaded.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert loaded.feature_map.digest == model.feature_map.digest
    assert loaded.config == model.config
    assert tuple(loaded.task.codes) == tuple(model.task.codes)
    np.testing.assert_array_equal(loaded.scores(VIEWS), model.scores(VIEWS))
    assert list(loaded.basis.by_site) == ["north", "south"]
    for ours, theirs in zip(*(m.basis.to_record().values() for m in (loaded, model)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("fourier", [None, FourierMap(16, 1.7, 5)], ids=["linear", "rbf"])
def test_prediction_averages_the_decision_values_of_the_views(
    fourier: FourierMap | None,
) -> None:
    model = make_model(fourier)
    values = np.zeros((20, N_CLASSES))
    for view in range(3):
        Z = model.feature_map.apply(VIEWS[:, view])
        values += (Z @ model.weights[:, :-1].T + model.weights[:, -1]) / 3
    maps = [[views[:, :3, None, None], views[:, 3:, None, None]] for views in VIEWS]
    scores = [model.judge(each) for each in maps]
    np.testing.assert_allclose(model.scores(VIEWS), values, atol=1e-12)
    np.testing.assert_allclose(scores, values, atol=1e-12)
    assert model.scores(VIEWS[:0]).shape == (0, N_CLASSES)  # of a site without test images


class Explosive:
    """Raises where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("a pickle was executed",)


def spoil(path: Path, how: str) -> None:
    """Put something at ``path`` that is no model."""
    if how == "text":
        path.write_text("weights: 1, 2, 3\n" * 100)
    elif how == "pickle":
        path.write_bytes(pickle.dumps(Explosive()))
    elif how == "cut":
        make_model(None).save(path)
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "folder":
        path.mkdir()
    elif how == "other arrays":
        save_file({"weights": np.zeros(3)}, path)
    elif how == "other metadata":
        save_file({"weights": np.zeros(3)}, path, metadata={"fedderm": json.dumps([1])})
    elif how == "other classes":
        model = make_model(None)
        model = replace(model, basis=replace(model.basis, task=BINARY))
        model.save(path)
    elif how == "other shape":
        replace(make_model(None), weights=np.zeros((N_CLASSES, 3))).save(path)
    elif how == "no numbers":
        basis = make_basis(np.full((2, N_CLASSES), np.nan))
        replace(make_model(None), basis=basis).save(path)


REASONS = {
    "missing": "",
    "text": "",
    "pickle": "",
    "cut": "",
    "folder": "",
    "other arrays": "",
    "other metadata": "",
    "other classes": r"array 'base_rates' has the shape \[7\], expected \[2\]",
    "other shape": r"array 'weights' has the shape \[7, 3\], expected \[7, 6\]",
    "no numbers": "array 'calibration' has values that are no finite numbers",
}


@pytest.mark.parametrize(("how", "reason"), REASONS.items())
def test_what_is_no_model_is_refused_in_one_line(tmp_path: Path, how: str, reason: str) -> None:
    path = tmp_path / "model.safetensors"
    spoil(path, how)
    for load in (LinearModel.load, load_model):
        with pytest.raises(
            DataError, match=rf"model\.safetensors is no FedDerm.*{reason}"
        ) as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_the_door_loads_it_without_pytorch(tmp_path: Path) -> None:
    """A site of the SVM and a command that reads cached features never need it."""
    make_model(None).save(tmp_path / "model")
    code = (
        "import sys; from pathlib import Path; from common.models.file import load_model;"
        "print(type(load_model(Path(sys.argv[1]))).__name__, *sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model")]
    name, *modules = subprocess.run(command, capture_output=True, check=True).stdout.split()
    assert name == b"LinearModel"
    assert not {b"torch", b"timm", b"onnxruntime", b"sklearn"} & set(modules)
