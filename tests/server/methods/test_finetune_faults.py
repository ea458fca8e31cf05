"""Whatever a site answers, the run names it and why, and the others go on."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

import client.app
import client.methods.finetune
import server.app
import server.methods.finetune
from common.config.run import RunConfig
from common.errors import QuorumError
from common.networks.network import HEAD
from common.wire.messages import bind, digest, pack, unpack_arrays, unpack_values
from server.run.folder import METRICS_FILE
from simulations.runtimes.experiment import rounds, simulate
from simulations.runtimes.in_process import RUN_ID, SERVER_NODE_ID, InProcessGrid
from tests.finetuning import (
    SITES,
    STAGE,
    changed,
    content_of,
    model_of,
    training_log,
)

Arrays = dict[str, np.ndarray]
Change = Callable[[Arrays], Arrays]


BAD, BAD_NODE = "site_01", 2


def _app(question: str, change: Change, first: int = 0) -> ClientApp:
    """Return the real client app, whose bad site changes its answers from one time on."""
    app, times = ClientApp(), 0

    @app.query()
    def answer(message: Message, context: Context) -> Message:
        nonlocal times
        reply = client.app.app(message, context)
        if unpack_values(message.content)["question"] != question or context.node_id != BAD_NODE:
            return reply
        times += 1
        if times <= first:
            return reply
        arrays, values = unpack_arrays(reply.content), unpack_values(reply.content)
        content = bind(pack(change(arrays), values), digest(message.content))
        return Message(content, reply_to=message)

    return app


def _train(config: RunConfig, app: ClientApp) -> None:
    grid = InProcessGrid(app, [{"partition-id": i} for i in range(SITES)], config.flat())
    server.app.app(grid, Context(RUN_ID, SERVER_NODE_ID, {}, RecordDict(), config.flat()))


def _changed(name: str, change: Callable[[np.ndarray], Any]) -> Change:
    return lambda arrays: {**arrays, name: np.asarray(change(arrays[name]), arrays[name].dtype)}


def _spoiled(number: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda a: np.concatenate([[number], a.ravel()[1:]]).reshape(a.shape)


FAULTS: dict[str, tuple[str, Change, str]] = {
    "a shape": (
        "train",
        _changed("head.weight", np.transpose),
        "array 'head.weight' is float16[96",
    ),
    "a name": ("train", lambda a: {**a, "x": a["loss"]}, "expected ["),
    "a missing tensor": (
        "train",
        lambda a: {n: v for n, v in a.items() if n != "head.bias"},
        "arrays are [",
    ),
    "NaN": ("train", _changed("head.weight", _spoiled(np.nan)), "'head.weight' holds NaN or inf"),
    "infinity": ("train", _changed("exp_avg/head.bias", _spoiled(np.inf)), "'exp_avg/head.bias' h"),
    "a negative weight": ("train", _changed("weight", np.negative), "'weight' is negative"),
    "too large a weight": ("train", _changed("weight", lambda a: a + 1e6), "'weight' adds up to 1"),
    "a double": ("train", lambda a: {**a, "head.bias": a["head.bias"].astype(float)}, "float64[7]"),
    "a negative loss": ("train", _changed("loss", lambda a: -a - 1), "'loss' is negative"),
    "negative counts": ("counts", _changed("images", lambda a: a - 99), "'images' is negative"),
    "too many counts": ("counts", _changed("images", lambda a: a + 99), "'images' adds up to"),
    "odd metrics": ("evaluate", _changed("confusion", lambda a: a + 99), "'confusion' adds up"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_site_whose_answer_is_odd_is_out_and_the_others_go_on(base, tmp_path, what):
    question, change, reason = FAULTS[what]
    run = changed(base, tmp_path / "run", stages=HEAD, rounds=3, moments_every=1, quorum=2)
    _train(run, _app(question, change, first=question == "train"))
    faults = [fault for entry in rounds(run.out) for fault in entry["faults"].items()]
    assert [name for name, _ in faults] == [BAD]
    assert reason in faults[0][1]
    metrics = json.loads((run.out / METRICS_FILE).read_text())
    assert metrics["data"]["left_out"] == dict(faults)
    assert sorted(metrics["data"]["sites"]) == sorted(metrics["sites"]) == ["site_00", "site_02"]
    assert all(np.isfinite(line["loss"]) for line in training_log(run))
    trained = [entry["answered"] for entry in rounds(run.out) if entry["question"] == "train"]
    if question == "train":
        assert [len(sites) for sites in trained] == [3, 2, 2]


def test_below_the_quorum_the_last_whole_round_survives(base, tmp_path):
    changes = {"stages": f"{HEAD},{STAGE}", "quorum": SITES}
    finished = changed(base, tmp_path / "finished", **changes)
    simulate(finished)
    run = changed(base, tmp_path / "run", **changes)
    message = (
        "2 sites are left in round 'train', the quorum is 3: site_01 array 'head.weight' holds"
    )
    change = _changed("head.weight", _spoiled(np.nan))
    for first in (2, 1):  # later, after a start that goes further
        with pytest.raises(QuorumError, match=message) as refusal:
            _train(run, _app("train", change, first))
        assert "\n" not in str(refusal.value)
    assert len(training_log(run)) == 3
    simulate(run)
    assert content_of(run) == content_of(finished)


def test_a_rule_against_hostile_sites_needs_those_that_are_left(base, tmp_path):
    rule = {"robust": "median", "hostile": 1, "optimizer": "sgd"}
    run = changed(base, tmp_path / "run", stages=HEAD, rounds=3, **rule)
    change = _changed("head.weight", _spoiled(np.nan))
    message = "'robust' is median against 1 hostile sites, which needs 3 sites that train, and the"
    with pytest.raises(QuorumError, match=message):
        _train(run, _app("train", change, first=1))
    assert len(training_log(run)) == 1
    simulate(run)
    assert len(training_log(run)) == 3


def test_no_lie_about_validation_lesions_decides_anything_under_a_rule(base, tmp_path):
    rule = {"robust": "median", "hostile": 1, "optimizer": "sgd"}
    changes = {"stages": HEAD, "rounds": 4, "validate_every": 1, **rule}
    models = []
    for name, change in {
        "truth": lambda arrays: arrays,
        "lie": _changed("confusion", np.flipud),
        "bins": _changed("scores", lambda a: a[:, ::-1]),
    }.items():
        run = changed(base, tmp_path / name, **changes)
        _train(run, _app("evaluate", change))
        models.append(model_of(run))
    for model in models[1:]:
        assert all(np.array_equal(model.weights[n], w) for n, w in models[0].weights.items())
        assert np.array_equal(model.basis.calibration, models[0].basis.calibration)
        assert np.array_equal(model.basis.base_rates, models[0].basis.base_rates)
