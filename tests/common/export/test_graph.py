"""An exported file alone answers as the model does, and says what its answers need."""

import io

import numpy as np
import pytest
from PIL import Image as Pillow

from common.answers.answering import Answering, AnswerOptions
from common.export.facts import add_facts, facts_of
from common.export.graph import parts_of
from common.export.session import Exported
from common.features.backbone import PooledFeatures, load_backbone
from common.models.predictor import Predictor
from tests.common.export import models
from tests.common.export.test_views import picture
from tests.finetuning import BACKBONE

DRAWN = [picture(shape, seed) for seed, shape in enumerate([(80, 110), (130, 100), (96, 96)])]


def file_of(drawn: Pillow.Image) -> bytes:
    file = io.BytesIO()
    drawn.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module", params=["linear", "network"])
def model(request, network_file):
    """Make a model on five views, the last one mirrored."""
    settings = {"backbone": BACKBONE, "weights": network_file, "size": 32, "predictions": 5}
    pooled = PooledFeatures(load_backbone(BACKBONE, network_file), 2)
    kind, size = models.linear, pooled.size
    if request.param == "network":
        kind, size = models.network, pooled.maps.channels[-1]
        settings["method"] = "finetune"
    else:
        settings["levels"] = 2
    made = kind(size, resolution=96, **settings)
    judged = Predictor(made).judge([(str(n), file_of(d)) for n, d in enumerate(DRAWN)])
    return models.undecided(made, np.stack([each.scores for each in judged]))


@pytest.fixture(scope="module")
def exported(model):
    graph = parts_of(model).joined()
    add_facts(graph, facts_of(model, "onnx", 64 * "0"))
    return Exported(graph.SerializeToString())


def test_a_file_answers_as_its_model(model, exported):
    wanted = Predictor(model).predict({str(n): file_of(d) for n, d in enumerate(DRAWN)})
    found = [exported.outputs(np.asarray(drawn))[0] for drawn in DRAWN]
    assert wanted.probabilities.std(axis=0).max() > 0.1  # else a constant would do
    np.testing.assert_allclose(found, wanted.probabilities, atol=1e-3)


def test_a_file_says_what_answers_need(model, exported):
    facts, answering = exported.facts, Answering(model.basis, AnswerOptions())
    assert facts["input"] == {"resolution": 96, "colour": "none", "size": 32, "views": 5}
    codes = np.array(facts["task"]["codes"])
    assert codes.tolist() == list(model.task.codes)
    images = [(str(n), file_of(drawn)) for n, drawn in enumerate(DRAWN)]
    for drawn, each in zip(DRAWN, Predictor(model).answer(images, answering), strict=True):
        [p] = exported.outputs(np.asarray(drawn))
        assert len(each.answer.screening) == 2
        for rule in each.answer.screening:
            own = facts["screening"][rule.target]
            assert (p[own["members"]].sum() >= own["threshold"]) == rule.flagged
        inside = p >= facts["prediction_set"]["thresholds"]
        inside[p.argmax()] = True
        assert set(codes[inside]) == set(each.answer.prediction_set.diagnoses)
        unsure = any("little sure" in reason for reason in each.answer.refer)
        assert (p.max() < facts["refer_below"]) == unsure
