"""``fedderm export``: the file answers alone as the model does, or is not written."""

import base64
import gzip
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pandas as pd
import pytest

from common.data.dataset import Dataset
from common.data.tables.ham10000 import METADATA_FILE
from common.models.predictor import Predictor
from simulations.evaluation import exported
from tests.common.export import models
from tests.documents import ROOT, blocks
from tests.finetuning import BACKBONE


@pytest.fixture(scope="module")
def photographs(request, synthetic_folder, tmp_path_factory):
    """Write JPEGs: real ones where there are some."""
    try:
        folder = request.getfixturevalue("real_data")
    except pytest.skip.Exception:
        folder = synthetic_folder
    dataset, out = Dataset.open(folder), tmp_path_factory.mktemp("photographs")
    for image in dataset.images[:: len(dataset) // 10]:
        (out / f"{image.image_id}.jpg").write_bytes(dataset.read(image.image_id))
    return sorted(out.iterdir())


def saved(model, photographs, folder):
    """Save a model that answers variously about the photographs; return its file."""
    files = [(path.name, path.read_bytes()) for path in photographs]
    scores = np.stack([each.scores for each in Predictor(model).judge(files)])
    folder.mkdir()
    models.undecided(model, scores).save(folder / "model.safetensors")
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def small(network_file, photographs, tmp_path_factory):
    """Save a small network; no site trained on what it holds out."""
    settings = {"backbone": BACKBONE, "weights": network_file, "size": 32, "predictions": 1}
    made = models.network(96, test_fraction=0.4, folds=2, **settings)
    return saved(made, photographs, tmp_path_factory.mktemp("small") / "run")


def test_the_script_of_the_page_answers_as_predict_does(fedderm, photographs, tmp_path):
    """The pretrained network on views of real size, from JPEGs, and nothing of this program."""
    model = models.network(1280, size=96, predictions=2)
    file = saved(model, photographs, tmp_path / "run")
    code, out, err = fedderm("export", file, "--out", tmp_path / "lesions.onnx")
    assert (code, err) == (0, ""), err
    assert out.startswith(f"{tmp_path / 'lesions.onnx'}: 13.")
    [script] = blocks(ROOT / "docs" / "export.md", "python")
    names = [str(path) for path in photographs]
    ended = subprocess.run(
        [sys.executable, "-I", "-c", script, *names],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    _, answers, _ = fedderm("predict", file, *names, "--json")
    for ours, theirs in zip(found, json.loads(answers), strict=True):
        wanted = theirs["probabilities"]
        assert ours["probabilities"] == pytest.approx(wanted, abs=1e-3)
        assert set(ours["set"]) == set(theirs["prediction_set"]["diagnoses"])
        assert ours["flagged"] == [r["target"] for r in theirs["screening"] if r["flagged"]]


def test_eight_bits_are_static_by_channel_and_compared_on_held_out_lesions(
    fedderm, small, network_file, synthetic_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("common.export.gate.Row.verdict", "passed")
    out = tmp_path / "small.onnx"
    command = ("export", small, "--format", "onnx-int8", "--weights", network_file)
    code, shown, err = fedderm(*command, "--data", synthetic_folder, "--out", out)
    assert code == 0, err
    assert "| balanced accuracy |" in shown
    graph = onnx.load(out)
    kinds = {node.op_type for node in graph.graph.node}
    assert not any("Dynamic" in kind for kind in kinds)
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in graph.graph.initializer}
    weights = [each for each in stored.values() if each.dtype == np.int8 and each.ndim == 4]
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    assert len(weights) == len(convolutions) > 10
    scales = {
        each.input[0]: stored[each.input[1]]
        for each in graph.graph.node
        if each.op_type == "DequantizeLinear" and each.input[0] in stored
    }
    assert all(scales[n].shape == stored[n].shape[:1] for n in scales if stored[n].ndim == 4)
    rows = exported.Exported(out.read_bytes()).facts["gate"]["rows"]
    same = next(row["after"] for row in rows if row["what"] == "same likeliest diagnosis")
    assert same > 0.8


def test_counts_of_sites_give_the_file_that_their_images_together_give(
    fedderm, small, network_file, synthetic_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("common.export.gate.Row.verdict", "passed")
    sites, weights = tmp_path / "sites", ("--weights", network_file)
    splits = ("--folds", "2", "--test-fraction", "0.4")
    fedderm("data", "partition", synthetic_folder, "--out", sites, *splits, "--link")
    counted = []
    for site in sorted(path for path in sites.iterdir() if path.is_dir()):
        file = tmp_path / f"{site.name}.counts"
        code, out, err = fedderm("ranges", small, site, "--out", file, *weights)
        if code:
            assert "has test lesions alone; 8 bits need others, too" in err
            continue
        assert re.search(r"counts over [1-9]\d* images", out)
        counted += ["--ranges", file]
    made = {}
    command = ("export", small, "--format", "onnx-int8", "--data", synthetic_folder, *weights)
    for name, more in {"pooled": (), "added": counted, "one": counted[:2]}.items():
        code, _, err = fedderm(*command, *more, "--out", tmp_path / name)
        assert code == 0, err
        made[name] = onnx.load(tmp_path / name).graph.initializer
    assert len(counted) > 2
    assert list(made["added"]) == list(made["pooled"]) != list(made["one"])
    counted[1].write_bytes(counted[1].read_bytes()[:-1])
    code, _, err = fedderm(*command, *counted, "--out", tmp_path / "damaged")
    assert code == 1
    assert f"{counted[1]} holds no counts of `fedderm ranges`" in err


def test_a_file_that_is_worse_is_refused_with_the_table(
    fedderm, small, network_file, synthetic_folder, tmp_path, monkeypatch
):
    honest = exported.in_int8

    def damaged(network, counts):
        return honest(network, replace(counts, channels=counts.channels + 3))

    monkeypatch.setattr(exported, "in_int8", damaged)
    out = tmp_path / "small.onnx"
    command = ("export", small, "--format", "onnx-int8", "--weights", network_file)
    code, shown, err = fedderm(*command, "--data", synthetic_folder, "--out", out)
    assert code == 1
    assert "| refused |" in shown
    assert err.count("\n") == 1
    assert "not exported: worse than allowed in" in err
    assert not out.exists()


def test_what_cannot_be_exported_is_one_line(fedderm, small, tmp_path):
    code, _, err = fedderm("export", small, "--format", "onnx-int8", "--out", tmp_path / "x")
    assert code == 1
    assert "add --data DIR" in err
    (tmp_path / "taken").write_text("x")
    code, _, err = fedderm("export", small, "--out", tmp_path / "taken")
    assert code == 1
    assert "name a new file" in err
    code, _, err = fedderm("export", small, "--page", tmp_path, "--out", tmp_path / "page.html")
    assert code == 1
    assert "name the folder dist of onnxruntime-web" in err
    assert not (tmp_path / "page.html").exists()


def test_a_page_holds_the_compared_file(
    fedderm, small, network_file, synthetic_folder, browser_runtime, tmp_path
):
    out = tmp_path / "page.html"
    command = ("export", small, "--weights", network_file, "--data", synthetic_folder)
    code, shown, err = fedderm(*command, "--page", browser_runtime, "--out", out)
    assert code == 0, err
    assert "| balanced accuracy |" in shown
    page = out.read_text(encoding="utf-8")
    facts, packed = (
        re.search(f'<script type="[^"]*" id="{name}">(.*?)</script>', page)[1]
        for name in ("facts", "model")
    )
    told = exported.Exported(gzip.decompress(base64.b64decode(packed))).facts
    del told["opset"]
    assert told.items() <= json.loads(facts).items()


@pytest.fixture(scope="module")
def on_all(network_file, photographs, tmp_path_factory):
    """Save a small network as one that was trained on all lesions."""
    settings = {"backbone": BACKBONE, "weights": network_file, "size": 32, "predictions": 1}
    made = models.network(96, test_fraction=0, folds=2, **settings)
    return saved(made, photographs, tmp_path_factory.mktemp("on-all") / "run")


def test_a_model_of_all_lesions_is_compared_on_marked_ones_of_other_data(
    fedderm, on_all, network_file, synthetic_folder, tmp_path
):
    out, others = tmp_path / "small.onnx", tmp_path / "others"
    command = ("export", on_all, "--weights", network_file, "--out", out, "--data")
    code, _, err = fedderm(*command, synthetic_folder)
    assert code == 1
    assert err.count("\n") == 1
    assert "name test lesions in the column split" in err
    shutil.copytree(synthetic_folder, others)
    table = pd.read_csv(others / METADATA_FILE)
    table["split"] = np.array(["test", "0", "1"])[pd.factorize(table["lesion_id"])[0] % 3]
    table.to_csv(others / METADATA_FILE, index=False)
    code, shown, err = fedderm(*command, others)
    assert code == 0, err
    assert "| balanced accuracy |" in shown
