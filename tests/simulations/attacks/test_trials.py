"""Hostile sites at work: what each attack does to a model with a defence, and without one."""

import json
from pathlib import Path

import numpy as np
import pytest

from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.errors import QuorumError
from common.models.network import NetworkModel
from common.task import HAM10000
from server.run.folder import METRICS_FILE, MODEL_FILE
from simulations.attacks.hostile_sites import (
    ATTACKS,
    chosen,
    hostile_app,
    most_frequent,
    poison,
    stamped,
)
from simulations.attacks.trials import NONE, Judge, attack_all, table
from simulations.runtimes.experiment import simulate
from tests.commands import TUNE, is_one_error
from tests.finetuning import dealt, model_of, quick, small_dataset, spread

SITES, RULE = 5, "trimmed_mean"
SGD = {"optimizer": "sgd", "lr": 0.1}
LOUD = ("scale", "sign_flip", "noise", "replacement")
BROKEN = ("nan", "infinity")


@pytest.fixture(scope="module")
def config(cached) -> RunConfig:
    values: dict[str, object] = dict(setting.split("=") for setting in TUNE)
    return RunConfig.read({**values, "cache": cached.cache, "robust": RULE, "hostile": 1, **SGD})


@pytest.fixture(scope="module")
def out(synthetic_folder, config, tmp_path_factory) -> Path:
    """Try all attacks by one of five sites."""
    out = tmp_path_factory.mktemp("attacks") / "out"
    attack_all(synthetic_folder, out, config, SITES, 5.0, list(ATTACKS), [1], [RULE])
    return out


def head(out: Path, attack: str, rule: str, weights: Path) -> np.ndarray:
    hostile = 0 if attack == NONE else 1
    file = out / "runs" / f"{attack}-{hostile}-{rule}" / MODEL_FILE
    return NetworkModel.load(file, weights).weights["head.weight"]


def moved_by(out: Path, attack: str, rule: str, weights: Path) -> float:
    """Return how far a model is from the honest one, over that one's size."""
    if not (out / "runs" / f"{attack}-1-{rule}" / MODEL_FILE).exists():
        return np.inf  # the sites could make nothing of the weights that came out
    honest = head(out, NONE, rule, weights)
    moved = head(out, attack, rule, weights) - honest
    return float(np.linalg.norm(moved) / np.linalg.norm(honest))


@pytest.mark.parametrize("attack", LOUD)
def test_what_is_louder_than_honest_sites_is_not_heard_with_a_defence(out, attack, network_file):
    moved = {rule: moved_by(out, attack, rule, network_file) for rule in (NONE, RULE)}
    assert moved[RULE] < 1
    assert moved[RULE] < moved[NONE] / 2


@pytest.mark.parametrize("rule", [NONE, RULE])
@pytest.mark.parametrize("attack", BROKEN)
def test_what_is_no_number_is_named_and_left_out_with_a_defence_or_without(out, attack, rule):
    metrics = json.loads((out / "runs" / f"{attack}-1-{rule}" / METRICS_FILE).read_text())
    liar = f"site_{chosen(SITES, 1, 0)[0]:02}"
    assert set(metrics["data"]["left_out"]) == {liar}
    assert "holds NaN or infinite values" in metrics["data"]["left_out"][liar]


def test_the_table_has_all_and_a_second_call_trains_nothing(
    out, synthetic_folder, config, monkeypatch
):
    monkeypatch.setattr("simulations.attacks.trials.simulate", None)
    arguments = (synthetic_folder, out, config, SITES, 5.0, list(ATTACKS), [1], [RULE])
    arms = attack_all(*arguments)
    lines = table(arms).splitlines()
    assert len(lines) == 2 + 1 + len(ATTACKS)
    for arm in arms:  # judged again, the models are found
        if not arm.failure:
            (out / "arms" / f"{arm.name}-test.json").unlink()
    assert attack_all(*arguments) == arms
    assert {arm.attack for arm in arms if len(arm.aimed) == 1} == {
        "label_flip",
        "backdoor",
        "replacement",
    }


def test_a_head_is_judged_from_kept_features_as_from_images(out, synthetic_folder, config):
    dataset = Dataset.open(synthetic_folder).select(np.arange(12))
    model = NetworkModel.load(out / "runs" / f"{NONE}-0-{RULE}" / MODEL_FILE, config.weights)
    files = ((i.image_id, stamped(dataset.read(i.image_id))) for i in dataset.images)
    expected = model.basis.decide(model.scores(files))
    np.testing.assert_array_equal(Judge(dataset, config, 0)._decide(model, True), expected)


def test_poisoned_sites_lie_about_what_they_should(synthetic_folder, tmp_path):
    (tmp_path / "sites").mkdir()
    for name in ("a", "b"):
        (tmp_path / "sites" / name).symlink_to(synthetic_folder)
    honest = Dataset.open(synthetic_folder)
    target = most_frequent(honest)
    assert honest.task.codes[target] == "nv"
    flip = poison(
        tmp_path / "sites", tmp_path / "flip", ATTACKS["label_flip"], [1], HAM10000, target
    )
    assert (Dataset.open(flip / "a").labels == honest.labels).all()
    assert (Dataset.open(flip / "b").labels == len(HAM10000.codes) - 1 - honest.labels).all()
    door = poison(tmp_path / "sites", tmp_path / "door", ATTACKS["backdoor"], [0], HAM10000, target)
    lies = Dataset.open(door / "a")
    marked = np.array([lies.read(i.image_id) != honest.read(i.image_id) for i in honest.images])
    assert marked.any()
    assert not marked.all()
    assert (lies.labels[marked] == target).all()
    assert (lies.labels[~marked] == honest.labels[~marked]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["robust=none", "hostile=0"], "'robust' is none"),
        (["--attacks", "x"], "'x' is no attack; choose from label_flip,"),
        (["--hostile", "5"], "hostile sites are [5] of 5; choose 1 to 4"),
        (["--hostile", "a"], "'a' are no numbers"),
    ],
)
def test_what_cannot_be_tried_is_one_line(fedderm, synthetic_folder, tmp_path, arguments, message):
    settings = [*TUNE, f"robust={RULE}", "hostile=1", "optimizer=sgd"]
    code, printed, err = fedderm(
        *("attack", synthetic_folder, "--out", tmp_path / "out", "--sites", SITES),
        *settings,
        *arguments,
    )
    assert is_one_error(code, printed, err)
    assert message in err


@pytest.mark.parametrize("attack", ["scale", "sign_flip", "noise"])
def test_a_whole_network_is_defended_as_well(synthetic_folder, network_file, tmp_path, attack):
    folder = spread(small_dataset(synthetic_folder, images=50), tmp_path, dealt(SITES))
    honest: dict[str, NetworkModel] = {}
    moved = {}
    for rule in ({}, {"robust": "multikrum", "hostile": 1}):
        name = str(rule.get("robust", NONE))
        settings = {"optimizer": "sgd", "lr": 0.001, "rounds": 1, **rule}
        for lies in (False, True):
            run = quick(folder, network_file, out=tmp_path / f"{name}-{lies}", **settings)
            try:
                simulate(run, hostile_app(ATTACKS[attack], [2] if lies else [], run.seed))
            except QuorumError:  # the sites could make nothing of the weights that came out
                moved[name] = np.inf
                continue
            if not lies:
                honest[name] = model_of(run)
                continue
            first, second = honest[name].weights, model_of(run).weights
            moved[name] = sum(float(np.abs(second[n] - first[n]).sum()) for n in first)
    assert moved["multikrum"] < moved[NONE] / 2
