"""The page that answers in a browser by itself, in a real one without a network."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image as Pillow
from playwright.sync_api import expect

from client.predict.answerer import ModelAnswerer
from client.predict.images import answered
from client.predict.page import fragments
from client.predict.shown import ImageFile
from client.predict.standalone import VERSION, Runtime, standalone_page
from common.answers.answering import AnswerOptions
from common.answers.counts import AnswerCounts
from common.data.dataset import Dataset
from common.errors import DataError
from common.export.facts import facts_of
from common.export.graph import parts_of
from common.features.backbone import PooledFeatures, load_backbone
from common.models.predictor import Predictor
from common.task import HAM10000
from tests.common.export import models
from tests.documents import ROOT
from tests.finetuning import BACKBONE
from tests.screens import PHONE, SIZES

NUMBER = re.compile(r"\d+(?:\.\d+)?")

SHAPE = """html => {
    const made = document.createElement("template");
    made.innerHTML = html;
    const row = made.content.querySelector("template");
    made.content.prepend(row.content);
    row.remove();
    return [...made.content.querySelectorAll("*")].map(e => [
        e.tagName, e.className, e.getAttribute("scope"), e.dataset.target, e.getAttribute("height"),
        [...e.childNodes].filter(n => n.nodeType == 3).map(n => n.data.trim()).join(" ").trim(),
        e.classList.contains("bar") ? e.getAttribute("width") : ""]);
}"""
"""Each element of a row and a card, with what a person sees of it."""


@pytest.fixture(scope="module")
def runtime(browser_runtime):
    return Runtime(browser_runtime)


def png(pixels: Pillow.Image, name: str) -> ImageFile:
    out = io.BytesIO()
    pixels.save(out, "PNG")
    return ImageFile(name, out.getvalue())


@pytest.fixture(scope="module")
def pictures(synthetic_folder):
    """Return pictures as PNG: of usual size, tiny, large, and transparent."""
    dataset = Dataset.open(synthetic_folder)
    some = [
        Pillow.open(io.BytesIO(dataset.read(image.image_id))).convert("RGB")
        for image in dataset.images[::15]
    ]
    clear = some[0].convert("RGBA")
    clear.putalpha(Pillow.linear_gradient("L").resize(clear.size))
    return [
        *(png(each, f"usual-{number}.png") for number, each in enumerate(some)),
        png(some[1].resize((100, 80)), "tiny.png"),
        png(some[2].resize((1847, 903)), "large \u202e<b>.png"),
        png(clear, "clear.png"),
    ]


def undecided(model, pictures):
    judged = Predictor(model).judge([(each.name, each.data) for each in pictures])
    model = models.undecided(model, np.stack([each.scores for each in judged]))
    rates = np.arange(1.0, 8) / 28
    return replace(model, basis=replace(model.basis, base_rates=rates))


@pytest.fixture(scope="module")
def network(pictures):
    return undecided(models.network(1280, size=64, predictions=2), pictures)


@pytest.fixture(scope="module")
def written(runtime, network, tmp_path_factory):
    """Write the page of a network."""
    return write(network, runtime, tmp_path_factory.mktemp("standalone"))


def write(model, runtime, folder):
    content = parts_of(model).joined().SerializeToString()
    out = folder / "page.html"
    out.write_bytes(standalone_page(model, facts_of(model, "onnx", ""), content, runtime))
    return out


def give(page, files):
    page.locator("#files").set_input_files(
        [{"name": f.name, "mimeType": "image/png", "buffer": f.data} for f in files]
    )
    expect(page.locator("#cards > article")).to_have_count(len(files), timeout=120_000)


def shapes(page, model, files):
    """Return the elements of the rows and cards that browser and Python make of each file."""
    rows, cards = page.locator("#rows > tr"), page.locator("#cards > article")
    outer = "element => element.outerHTML"
    theirs = answered(ModelAnswerer(Predictor(model), AnswerOptions()), files, evidence=False)
    for k, python in enumerate(theirs):
        row, card = rows.nth(k).evaluate(outer), cards.nth(k).evaluate(outer)
        browser = f"<template>{row}</template>{card}"
        yield page.evaluate(SHAPE, browser), page.evaluate(SHAPE, fragments(python, k).joined())


def assert_alike(ours, theirs):
    """Compare elements: words are equal, numbers nearly."""
    assert [NUMBER.sub("#", str(each)) for each in ours] == [
        NUMBER.sub("#", str(each)) for each in theirs
    ]
    for mine, other in zip(ours, theirs, strict=True):
        numbers = [[float(n) for n in NUMBER.findall(str(each))] for each in (mine, other)]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.1001), "a thousandth, in per cent"


@SIZES
def test_cards_are_those_of_python_offline(open_page, written, network, pictures, size):
    page, complaints, asked = open_page(written.as_uri(), size)
    give(page, pictures)
    for ours, theirs in shapes(page, network, pictures):
        assert_alike(ours, theirs)
    seen = page.locator("#cards").text_content()
    assert not re.search(r"\bnan\b", seen)
    for kind in ("Ask a person", "Melanoma flagged", "Melanoma not flagged", "Stands out", "fewer"):
        assert kind in seen
    assert page.locator("#cards .layers img").count() == len(pictures)
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    assert complaints == []
    assert {url for url in asked if not url.startswith("data:")} == {written.as_uri()}
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_probabilities_are_those_of_python_to_a_thousandth(open_page, written, network, pictures):
    page, _, _ = open_page(written.as_uri(), PHONE)
    give(page, pictures)
    chances = Predictor(network).predict({each.name: each.data for each in pictures}).probabilities
    for k, wanted in enumerate(chances):
        bars = page.locator("#cards > article").nth(k).locator(".bar")
        found = bars.evaluate_all("all => all.map(e => parseFloat(e.getAttribute('width')) / 100)")
        assert found == pytest.approx(sorted(wanted, reverse=True), abs=1e-3)


@pytest.mark.parametrize("calibrated", [True, False], ids=["calibrated", "not calibrated"])
def test_a_linear_svm_answers_too(open_page, runtime, pictures, network_file, tmp_path, calibrated):
    weights = {"backbone": BACKBONE, "weights": network_file, "levels": 2, "size": 32}
    n_features = PooledFeatures(load_backbone(BACKBONE, network_file), 2).size
    model = undecided(models.linear(n_features, colour="shades-of-gray", **weights), pictures)
    if not calibrated:
        lesions = AnswerCounts.zero(HAM10000)
        model = replace(model, basis=replace(model.basis, lesions=lesions, by_site={}))
    page, complaints, _ = open_page(write(model, runtime, tmp_path).as_uri(), PHONE)
    give(page, pictures[:4])
    for ours, theirs in shapes(page, model, pictures[:4]):
        assert_alike(ours, theirs)
    assert complaints == []


def test_what_is_no_image_has_a_card(open_page, written):
    page, complaints, _ = open_page(written.as_uri(), PHONE)
    slim = Pillow.new("RGB", (300, 20))
    give(page, [ImageFile("notes.png", b"x"), ImageFile("empty.png", b""), png(slim, "slim.png")])
    errors = page.locator("#cards .error").all_text_contents()
    assert errors[:2] == ["no image that this browser decodes; save it as PNG or JPEG"] * 2
    assert errors[2].startswith("an image of 300x20 pixels")
    assert page.locator("#count").text_content() == "3 of 3 answered, 3 for a person"
    assert complaints == []


def test_another_runtime_is_refused(tmp_path):
    with pytest.raises(DataError, match=f"cannot be read .* onnxruntime-web {VERSION}"):
        Runtime(tmp_path)
    for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"):
        (tmp_path / name).write_text("other")
    with pytest.raises(DataError, match=f"is not of onnxruntime-web {VERSION}, or was changed"):
        Runtime(tmp_path)


def test_the_version_is_the_one_that_is_installed():
    wanted = (ROOT / "client" / "predict" / "package.json").read_text(encoding="utf-8")
    assert f'"onnxruntime-web": "{VERSION}"' in wanted
