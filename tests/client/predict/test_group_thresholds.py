"""A patient's group decides the threshold where it is given; the answer names it in every form."""

import asyncio

import httpx
import numpy as np
import pytest

from client.predict.answerer import ModelAnswerer
from client.predict.images import Answered
from client.predict.page import fragments
from client.predict.requests import Answers
from client.predict.shown import ImageFile
from client.predict.text import block
from client.predict.values import columns, row, values
from common.answers.answering import Answering, AnswerOptions
from common.config.run import RunConfig
from common.data.metadata import UNKNOWN, About
from common.models.linear import LinearModel
from common.models.predictor import Predictor
from common.svm.feature_map import FeatureMap
from common.task import HAM10000
from tests.client.predict.fakes import image
from tests.client.predict.test_answerer import DrawnMaps
from tests.common.answers.test_group_thresholds import basis_of, draw

WOMAN, MAN = About(sex="female"), About(60, "male", "back")


@pytest.fixture(scope="module")
def answerer() -> ModelAnswerer:
    """Make a model of thresholds by sex that gives every image the same probabilities."""
    basis = basis_of(*draw(2000, 0))
    point = {g: basis.by_group.point(HAM10000, g, _common(basis)) for g in (0, 1)}
    # Between the thresholds of women and men: only a woman's image is flagged.
    chance = (point[0].threshold + point[1].threshold) / 2
    p = np.full(7, (1 - chance) / 4)
    p[[HAM10000.codes.index(code) for code in HAM10000.malignant]] = chance / 3
    weights = np.hstack([np.zeros((7, 2)), np.log(p)[:, None]])
    config = RunConfig.read({"screening_by": "sex", "resolution": 64})
    model = LinearModel(FeatureMap(np.zeros(2), np.eye(2)), weights, basis, config)
    predictor = Predictor(model)
    maps = [np.ones((4, 2, 3, 3), np.float32)]
    vars(predictor)["_network"] = DrawnMaps(maps)
    return ModelAnswerer(predictor, AnswerOptions())


def _common(basis):
    return next(p for p in Answering(basis, AnswerOptions()).points if p.target == "malignant")


@pytest.fixture(scope="module")
def shown(answerer):
    patients = (WOMAN, MAN, UNKNOWN, About(age=60))
    files = [ImageFile(f"{n}.jpg", image(), patient) for n, patient in enumerate(patients)]
    return answerer.answer(files, evidence=False)


def of(answer):
    return next(rule for rule in answer.screening if rule.target == "malignant")


def test_each_patient_has_the_threshold_of_the_group_or_the_common_one(shown):
    rules = [of(each.answer) for each in shown]
    assert [rule.group for rule in rules] == ["sex female", "sex male", None, None]
    assert [rule.flagged for rule in rules[:2]] == [True, False]
    assert rules[2].threshold == rules[0].common_threshold == rules[1].common_threshold
    assert rules[2].common_threshold is None
    # What the model does not use is said, what decides a threshold is none of it.
    notes = [each.answer.notes for each in shown]
    unused = "The model does not use {}: it answers without."
    assert notes == [
        (), (unused.format("age and localization"),), (), (unused.format("age"),)
    ]  # fmt: skip


def test_text_page_json_and_csv_name_the_threshold(shown, answerer):
    for each, group in zip(shown, ("sex female", "sex male", None, None), strict=True):
        text = " ".join(block(each.answer).split())
        card = fragments(Answered(each, image()), 1).card
        for form in (text, card):
            assert (f"for patients of {group}" in form) == (group is not None)
            assert ("by the common threshold" in form.lower()) == (group is not None)
        found = next(r for r in values(each.answer)["screening"] if r["target"] == "malignant")
        assert found["group"] == group
        cells = dict(zip(columns(HAM10000), row(each.answer, HAM10000), strict=True))
        assert cells["screening_malignant_group"] == (group or "")
        limit = of(each.answer).common_threshold
        assert cells["screening_malignant_common_threshold"] == (repr(limit) if limit else "")
    assert any("for each of sex female, sex male" in note for note in answerer.about.notes)


def test_the_served_page_asks_for_what_decides_the_threshold(answerer):
    app = Answers(answerer).app(["local"], "t")

    async def get():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://local/t/") as client:
            return (await client.get("")).text

    page = asyncio.run(get())
    assert 'name="sex"' in page
    assert 'name="age"' not in page
    assert "Threshold of a group" in page
