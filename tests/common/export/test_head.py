"""The graph of a head gives the probabilities that the model gives of the same maps."""

import numpy as np
import onnxruntime
import pytest

from common.export.head import head_graph
from common.svm.feature_map import FourierMap
from tests.common.export import models

SHAPES = [(5, 3, 4, 4), (5, 8, 2, 2)]
COLUMNS = ("age", "sex")
RBF = FourierMap(40, 3.0, 5)
LINEAR = {
    "linear": {},
    "linear, metadata": {"metadata": COLUMNS},
    "rbf": {"fourier": RBF, "metadata": COLUMNS},
    "unit": {"unit": 1.0},
    "unit, metadata": {"unit": 0.8, "metadata": COLUMNS},
    "clipped": {"clip": 1.5},
    "roots": {"power": 0.5},
    "roots, metadata": {"power": 0.5, "metadata": COLUMNS},
    "clipped rbf": {"fourier": RBF, "clip": 1.5},
}
NETWORK = {
    "network": {},
    "late": {"metadata": COLUMNS, "fusion": "late"},
    "gate": {"metadata": COLUMNS, "fusion": "gate"},
}
MODELS = [
    *(
        pytest.param(lambda s=s: models.linear(11, **s), SHAPES, id=name)
        for name, s in LINEAR.items()
    ),
    *(
        pytest.param(lambda s=s: models.network(8, **s), SHAPES[1:], id=n)
        for n, s in NETWORK.items()
    ),
]


@pytest.mark.parametrize(("make", "shapes"), MODELS)
def test_a_head_answers_as_its_model(make, shapes):
    rng = np.random.default_rng(3)
    drawn = [[rng.gamma(1, 1, shape).astype(np.float32) for shape in shapes] for _ in range(6)]
    model = make()
    scores = np.stack([model.judge(maps) for maps in drawn])
    model = models.undecided(model, scores)
    graph = head_graph(model, shapes, 20, 10).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for maps, wanted in zip(drawn, model.basis.probabilities(scores), strict=True):
        [found] = session.run(None, {f"map_{k}": each for k, each in enumerate(maps)})
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert model.basis.probabilities(scores).std(axis=0).min() > 0.04  # else a constant would do
