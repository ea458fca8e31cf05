"""A site opens its own data only, and answers in a fresh process without the large libraries."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from client.egress.questions import Question
from client.methods import svm
from client.open_site import open_site, operator_of
from client.site import Site
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.splits import TEST
from common.data.tables.ham10000 import METADATA_FILE
from common.errors import ConfigError
from common.svm.feature_map import FeatureMap
from common.task import HAM10000
from tests.sites import N_FEATURES, hospital_file, make_quick_sites


@pytest.fixture(scope="module")
def config(synthetic_folder, tmp_path_factory) -> RunConfig:
    """Two sites; the run gets two augmented views an image."""
    folder = tmp_path_factory.mktemp("sites")
    return make_quick_sites(synthetic_folder, folder, 2, views=2)


def context_of(config: RunConfig, **node: str | int) -> Context:
    node_config = {key.replace("_", "-"): value for key, value in node.items()}
    return Context(7, 3, node_config, RecordDict(), config.flat())


def test_an_operator_names_the_folder_and_a_simulation_numbers_it(config, tmp_path):
    first, second = sorted(config.sites.iterdir())
    assert opened(context_of(config, partition_id=1)).folder == second
    # What the operator says goes before what the coordinator says.
    file = hospital_file(first, tmp_path)
    sent = config.model_copy(update={"weights": Path("/etc/shadow")})
    named = opened(context_of(sent, site=str(file), partition_id=1))
    assert (named.folder, named.name) == (first, "site_00")
    assert (named.config.cache, named.config.weights) == (tmp_path / "cache", None)
    assert (named.deployed, named.own_folder) == (True, tmp_path / "state")


def opened(context: Context) -> Site:
    return open_site(context, operator_of(context))


@pytest.mark.parametrize(
    ("changes", "node", "message"),
    [
        ({"sites": ""}, {"partition_id": 0}, "set 'site' in the node or 'sites' in the run"),
        ({}, {}, "set 'site' in the node or 'sites' in the run"),
        ({}, {"partition_id": 2}, "has 2 site folders, none for site 2"),
        ({"sites": "missing"}, {"partition_id": 0}, "missing has no folders; set 'sites'"),
        ({"sites": "empty"}, {"partition_id": 0}, "empty has no folders; set 'sites'"),
        ({"method": "magic"}, {"partition_id": 0}, "'method' is 'magic'"),
    ],
)
def test_what_cannot_be_opened_is_said_in_one_line(config, tmp_path, changes, node, message):
    (tmp_path / "empty").mkdir()
    if changes.get("sites"):
        changes = {"sites": tmp_path / changes["sites"]}
    context = context_of(config, **node)
    context.run_config.update({key: str(value) for key, value in changes.items()})
    with pytest.raises(ConfigError, match=message) as refusal:
        opened(context)
    assert "\n" not in str(refusal.value)


def test_the_splits_of_the_table_are_used(config):
    site = opened(context_of(config, partition_id=0))
    carried = Dataset.open(site.folder).splits
    assert set(carried) == {TEST, "0", "1"}
    np.testing.assert_array_equal(site.dataset.splits, carried)
    np.testing.assert_array_equal(site.held_out, carried == TEST)


def test_a_record_is_a_view_and_an_image_weighs_one(config):
    site = opened(context_of(config, partition_id=0))
    records = site.training_records()
    train = ~site.held_out
    assert records.X.shape == (2 * train.sum(), N_FEATURES)
    assert records.weight.sum() == train.sum()
    for array, of_image in (
        (records.y, site.dataset.labels),
        (records.lesion, site.dataset.by_lesion.index),
        (records.fold, site.dataset.splits[train].astype(int)),
    ):
        of_train = of_image if len(of_image) == train.sum() else of_image[train]
        np.testing.assert_array_equal(array.reshape(-1, 2), np.stack([of_train, of_train], axis=1))
    np.testing.assert_array_equal(records.X[::2], site.features.views[train, 0])
    # A lesion is in one fold.
    assert len(set(zip(records.lesion, records.fold, strict=True))) == len(set(records.lesion))


def test_a_site_without_splits_makes_its_own(config, tmp_path):
    source = opened(context_of(config, partition_id=0)).folder
    folder = tmp_path / "hospital"
    folder.mkdir()
    for part in source.iterdir():
        (folder / part.name).symlink_to(part)
    (folder / METADATA_FILE).unlink()
    rows = (source / METADATA_FILE).read_text().splitlines()
    rows = [row.rpartition(",")[0] for row in rows]
    (folder / METADATA_FILE).write_text("\n".join(rows))
    site = Site(folder, config)
    assert set(site.dataset.splits) == {TEST, "0", "1"}
    for lesion in set(site.dataset.lesions):
        assert len(set(site.dataset.splits[site.dataset.lesions == lesion])) == 1


def prepare(config: RunConfig) -> tuple[Context, FeatureMap]:
    context = context_of(config, partition_id=0)
    feature_map = FeatureMap(np.zeros(N_FEATURES), np.eye(N_FEATURES)[:, :40])
    arrays = {**feature_map.to_record(), "class_weights": np.ones(len(HAM10000.codes))}
    question = Question(context.run_id, "1", "prepare", arrays, {"map": feature_map.digest})
    svm.answer(opened(context), question)
    return context, feature_map


def test_scratch_is_per_run_and_gone_after_closing(config):
    context, _ = prepare(config)
    site = opened(context)
    assert any(site.state.scratch(context.run_id).rglob("*.npy"))
    assert site.state.scratch(context.run_id) != site.state.scratch(context.run_id + 1)
    site.close(context.run_id, finished=True)
    assert not any((config.cache / "scratch").iterdir())


FRESH = """
import json, sys
import numpy as np
from flwr.app import Context, Message, RecordDict
from client.app import app
from common.wire.messages import pack, unpack_arrays, stamp
from simulations.runtimes.in_process import InProcessGrid

run_config, digest, site = json.loads(sys.argv[1]), *sys.argv[2:]
context = Context(7, 3, {"site": site}, RecordDict(), run_config)
content = stamp(pack({"weights": np.zeros((1, 7, 41))}, {"question": "hinge", "map": digest}))
InProcessGrid(app, [], {})  # says who this process is
sums = unpack_arrays(app(Message(content, 3, "query"), context).content)
print(json.dumps([sums["loss"].tolist(), sorted({name.split(".")[0] for name in sys.modules})]))
"""


def test_a_fresh_process_answers_a_round_without_the_large_libraries(config, tmp_path):
    """A deployed site starts a process for every message."""
    context, feature_map = prepare(config)
    site = opened(context)
    file = hospital_file(site.folder, tmp_path, config.cache, rounds_a_day=9, least_lesions=1)
    command = [sys.executable, "-c", FRESH, json.dumps(config.flat()), feature_map.digest, file]
    loss, modules = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    # At weights of zero the loss of a class is the weight of all records.
    weight = site.training_records().weight.sum()
    np.testing.assert_allclose(loss, np.full((1, len(HAM10000.codes)), weight))
    assert not {"torch", "torchvision", "timm", "onnxruntime", "sklearn", "scipy"} & set(modules)
    site.close(context.run_id, finished=True)
