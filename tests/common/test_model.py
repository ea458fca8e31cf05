"""A model is the same after it was a file, and nothing else is read as one."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from common.calibration import probabilities
from common.config import RunConfig
from common.dataset import DIAGNOSES
from common.errors import DataError
from common.feature_map import FeatureMap, FourierMap
from common.model import LinearModel
from common.moments import Moments
from tests.records import N_CLASSES, draw_records

X, Y = draw_records(60, 8)
VIEWS = X.reshape(20, 3, 8).astype(np.float32)


def make_model(fourier: FourierMap | None) -> LinearModel:
    principal = FeatureMap.principal(Moments.measure(X, Y, np.ones(60), N_CLASSES), 5)
    feature_map = FeatureMap(principal.mean, principal.matrix, fourier)
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((N_CLASSES, feature_map.n_outputs + 1))
    calibration = rng.uniform(0.5, 2.0, (2, N_CLASSES))
    return LinearModel(feature_map, weights, calibration, DIAGNOSES, RunConfig(seed=3, c=(1e-4,)))


@pytest.mark.parametrize("fourier", [None, FourierMap(16, 1.7, 5)], ids=["linear", "rbf"])
def test_a_model_comes_back_bit_for_bit(tmp_path: Path, fourier: FourierMap | None) -> None:
    model = make_model(fourier)
    model.save(tmp_path / "a")
    loaded = LinearModel.load(tmp_path / "a")
    loaded.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert loaded.feature_map.digest == model.feature_map.digest
    assert loaded.config == model.config
    assert tuple(loaded.classes) == tuple(model.classes)
    for got, want in zip(loaded.predict(VIEWS), model.predict(VIEWS), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("fourier", [None, FourierMap(16, 1.7, 5)], ids=["linear", "rbf"])
def test_prediction_averages_the_decision_values_of_the_views(fourier: FourierMap | None) -> None:
    model = make_model(fourier)
    values = np.zeros((20, N_CLASSES))
    for view in range(3):
        Z = model.feature_map.apply(VIEWS[:, view])
        values += (Z @ model.weights[:, :-1].T + model.weights[:, -1]) / 3
    predicted, p = model.predict(VIEWS)
    np.testing.assert_allclose(model.scores(VIEWS), values, atol=1e-12)
    np.testing.assert_array_equal(predicted, values.argmax(axis=1))
    np.testing.assert_allclose(p, probabilities(values, model.calibration), atol=1e-12)


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
    elif how == "other arrays":
        save_file({"weights": np.zeros(3)}, path)
    elif how == "other metadata":
        save_file({"weights": np.zeros(3)}, path, metadata={"fedderm": json.dumps([1])})
    elif how == "folder":
        path.mkdir()


@pytest.mark.parametrize(
    "how", ["missing", "text", "pickle", "cut", "other arrays", "other metadata", "folder"]
)
def test_what_is_no_model_is_refused_in_one_line(tmp_path: Path, how: str) -> None:
    path = tmp_path / "model.safetensors"
    spoil(path, how)
    with pytest.raises(DataError, match=r"model\.safetensors") as caught:
        LinearModel.load(path)
    assert "\n" not in str(caught.value)
