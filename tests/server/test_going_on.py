"""A run that goes on from a finished one: what changed alone is asked, and the lineage is kept."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from common.config.run import RunConfig
from common.errors import ConfigError, DataError, FedDermError
from common.models.file import load_model
from common.models.linear import LinearModel
from server.run.folder import CARD_FILE, METRICS_FILE, MODEL_FILE
from simulations.runtimes.experiment import rounds, simulate
from tests.sites import make_quick_sites, with_changes

LDA = {"head": "lda"}


@pytest.fixture(scope="module")
def config(synthetic_folder, tmp_path_factory) -> RunConfig:
    """Four sites."""
    return make_quick_sites(synthetic_folder, tmp_path_factory.mktemp("sites"), 4)


@pytest.fixture
def run(config, tmp_path):
    """Run over some of the sites; return the run's folder."""

    def train(name: str, sites: str, **changes: object) -> Path:
        folder = tmp_path / f"{name}-sites"
        for number in sites:
            site = f"site_0{number}"
            (folder / site).parent.mkdir(exist_ok=True)
            (folder / site).symlink_to(config.sites / site, target_is_directory=True)
        out = tmp_path / name
        simulate(with_changes(config, {"sites": folder, "out": out, **changes}))
        return out

    return train


def model(folder: Path) -> LinearModel:
    return load_model(folder / MODEL_FILE)


def lineage(folder: Path) -> dict:
    return json.loads((folder / METRICS_FILE).read_text())["lineage"]


@pytest.mark.parametrize("head", ["lda", "ridge"])
def test_a_site_joins_while_the_others_are_away_and_leaves_again(run, head):
    first = run("first", "012", head=head)
    up = run("up", "3", head=head, parent=first)
    np.testing.assert_array_equal(model(up).weights, model(run("all", "0123", head=head)).weights)
    left = run("left", "0", head=head, parent=up, leaving="site_03,site_01")
    without = run("without", "02", head=head)
    np.testing.assert_array_equal(model(left).weights, model(without).weights)
    assert {round["question"] for round in rounds(up)} >= {"moments"}
    since = {name: site["since"] for name, site in lineage(left)["sites"].items()}
    assert since == {
        "site_00": "as before",
        "site_01": "left",
        "site_02": "absent",
        "site_03": "left",
    }
    assert len(lineage(left)["ancestors"]) == 2
    card = (left / CARD_FILE).read_text()
    assert lineage(left)["ancestors"][0][:16] in card
    assert "| site_02 | absent |" in card
    again = run("again", "1", head=head, parent=left)
    assert lineage(again)["sites"].keys() == {"site_00", "site_01", "site_02"}


def test_an_svm_keeps_the_c_of_its_parent_and_takes_fewer_rounds(run):
    usual = {"c": RunConfig().c}
    first = run("first", "012", **usual)
    up, anew = run("up", "0123", parent=first, **usual), run("anew", "0123", **usual)
    chosen = json.loads((first / METRICS_FILE).read_text())["training"]["chosen"]["c"]
    training = json.loads((up / METRICS_FILE).read_text())["training"]
    assert [each["c"] for each in training["choice"]] == [chosen]
    assert len(rounds(up)) < len(rounds(anew))
    without = run("without", "01", parent=first, **usual)
    assert lineage(without)["sites"]["site_02"]["since"] == "left"


def test_under_secure_sums_two_sites_or_more_change(run):
    first = run("first", "012", secure=True, **LDA)
    with pytest.raises(ConfigError, match=r"only site_03 differs, .* its share"):
        run("one", "0123", secure=True, parent=first, **LDA)
    two = run("two", "013", secure=True, parent=first, **LDA)
    weights = model(run("anew", "013", **LDA)).weights
    np.testing.assert_allclose(model(two).weights, weights, atol=1e-6)
    four = run("four", "0123", secure=True, **LDA)
    with pytest.raises(ConfigError, match="only site_02 differs"):
        run("gone", "013", secure=True, parent=four, **LDA)
    with pytest.raises(DataError, match="keeps no sums of its sites"):
        run("open", "3", parent=first, **LDA)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "ridge"}, "trained with other settings; set head=lda"),
        ({"levels": 2, **LDA}, "set levels=3"),
        ({"leaving": "site_09", **LDA}, "site_09, which has no share"),
        ({"leaving": "site_00", **LDA}, "site_00, which takes part in this run"),
        ({"leaving": "site_00"}, "head svm is solved in rounds with all sites"),
        ({"method": "finetune"}, "is a run of method svm"),
        ({"diagnoses": "mel,nv", **LDA}, "akiec, bcc, bkl, df, vasc apart"),
    ],
)
def test_what_cannot_go_on_is_one_line_and_the_parent_is_as_it_was(run, changes, message):
    first = run("first", "01", **LDA)
    before = {file.name: file.read_bytes() for file in first.iterdir()}
    with pytest.raises(FedDermError, match=message):
        run("next", "01", parent=first, **changes)
    assert {file.name: file.read_bytes() for file in first.iterdir()} == before


def test_a_parent_is_a_whole_run(run, tmp_path):
    first = run("first", "01", **LDA)
    with pytest.raises(DataError, match="holds no finished run"):
        run("none", "01", parent=tmp_path / "nothing", **LDA)
    (tmp_path / "alone").mkdir()
    shutil.copy(first / MODEL_FILE, tmp_path / "alone")
    with pytest.raises(DataError, match="name the folder of a finished run, not its model alone"):
        run("alone", "01", parent=tmp_path / "alone" / MODEL_FILE, **LDA)
    with pytest.raises(ConfigError, match="set parent=RUN"):
        run("leaving", "01", leaving="site_00", **LDA)
