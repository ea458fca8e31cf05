"""Federated fine-tuning is pooled fine-tuning, whatever happens on the way."""

import errno
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

import client.app
import client.finetune
import common.finetune
import common.shards
import server.app
import server.finetune
from client.state import SiteState
from common.augment import Augmentation, augmented_view, decode, normalise
from common.backbone import input_statistics, load_backbone
from common.config import RunConfig
from common.dataset import DIAGNOSES, Dataset
from common.errors import ConfigError, DataError, FedDermError, QuorumError
from common.features import content_keys
from common.finetune import LocalSteps
from common.network import ALL, HEAD, open_stage, shared_network
from common.network_model import NetworkModel
from common.splits import TEST
from common.wire import pack, unpack_arrays, unpack_values
from server.checkpoint import Checkpoint
from server.progress import TRAINING_FILE
from server.run import CHECKPOINT_FILE, METRICS_FILE, MODEL_FILE, RunFolder
from simulations.experiment import rounds, simulate
from simulations.grid import RUN_ID, SERVER_NODE_ID, InProcessGrid
from tests.finetuning import (
    BACKBONE,
    SIZE,
    STAGE,
    SiteOf,
    dealt,
    quick,
    small_dataset,
    spread,
    training_labels,
)

Arrays = dict[str, np.ndarray]
Change = Callable[[Arrays], Arrays]

SITES = 3


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """Keep the activations of all runs."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def dataset(synthetic_folder: Path) -> Dataset:
    return small_dataset(synthetic_folder, images=30)


@pytest.fixture(scope="module")
def base(dataset, network_file, cache, tmp_path_factory) -> RunConfig:
    """Three sites that a short run with AdamW is over."""
    folder = spread(dataset, tmp_path_factory.mktemp("three"), dealt(SITES))
    return quick(folder, network_file, cache=cache, batch=8)


def _with(config: RunConfig, out: Path, **changes: Any) -> RunConfig:
    return RunConfig.read(config.model_dump() | {"out": out} | changes)


def _lines(run: RunConfig) -> list[dict[str, Any]]:
    assert run.out is not None
    return [json.loads(line) for line in (run.out / TRAINING_FILE).read_text().splitlines()]


def _model(run: RunConfig) -> NetworkModel:
    assert run.out is not None
    return NetworkModel.load(run.out / MODEL_FILE)


def _bytes(run: RunConfig, name: str = MODEL_FILE) -> bytes:
    assert run.out is not None
    return (run.out / name).read_bytes()


# --- Honest equality ---

STEPS: dict[str, Any] = {
    "optimizer": "sgd",
    "clip": 0,
    "batch": 1000,
    "local_epochs": 1.0,
    "lr": (0.5, 0.3, 0.1),
    "rounds": (2, 2, 3),
    "validate_every": 100,
}


def _first_lesion(dataset: Dataset) -> str:
    return next(image.lesion_id for image in dataset.images if image.split == "1")


PARTITIONS: dict[str, Callable[[Dataset], SiteOf]] = {
    "centralized": lambda dataset: lambda number, image: "pooled",
    "alike": lambda dataset: dealt(4),
    "a class a site": lambda dataset: lambda number, image: image.dx,
    "a lesion alone": lambda dataset: (
        lambda number, image: (
            "lonely" if image.lesion_id == _first_lesion(dataset) else f"site_{number % 2}"
        )
    ),
    "nothing to train on": lambda dataset: (
        lambda number, image: (
            "tested" if image.split == TEST and number % 2 else f"site_{number % 2}"
        )
    ),
}


@pytest.fixture(scope="module")
def unvalidated(synthetic_folder: Path) -> Dataset:
    """Leave out the validation lesions: of such a run, the last round is the best."""
    return small_dataset(synthetic_folder, images=30, validation=False)


@pytest.fixture(scope="module", params=[0.0, 0.9], ids=["sgd", "momentum"])
def reference(request, unvalidated, network_file) -> tuple[dict[str, Any], Arrays, Arrays]:
    """Train on all images at once, with nothing but PyTorch's own SGD."""
    settings = STEPS | {"momentum": request.param, "imbalance": "weights", "weight_decay": 0.02}
    settings |= {"layer_decay": 0.8, "dropout": 0.3, "smoothing": 0.1, "warmup": 0.5}
    settings |= {"imbalance_strength": 0.7, "views": 2}
    start, end = _train_plainly(unvalidated, network_file, settings)
    return settings, start, end


class _Plain(nn.Module):
    def __init__(self, file: Path) -> None:
        super().__init__()
        self.backbone: Any = load_backbone(BACKBONE, file)
        self.head = nn.Linear(self.backbone.num_features, 7)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @torch.no_grad()
    def trunk(self, views: torch.Tensor, stage: str) -> torch.Tensor:
        """Return what a frozen stage makes of an image's views, as half precision keeps it.

        Of all its views at once: a last bit that differs may become half precision's.
        """
        b = self.backbone
        x = b.conv1(views.contiguous(memory_format=torch.channels_last))
        x = b.layer3(b.layer2(b.layer1(b.maxpool(b.act1(b.bn1(x))))))
        if stage == HEAD:
            x = b.global_pool(b.layer4(x))
        return x.half().float()

    def features(self, x: torch.Tensor, stage: str) -> torch.Tensor:
        b = self.backbone
        if stage == HEAD:
            return x
        return b(x) if stage == ALL else b.global_pool(b.layer4(x))


def _depth(name: str) -> int:
    """Count the groups of layers before the head."""
    groups = ["head", "layer4", "layer3", "layer2", "layer1", "conv1"]
    return groups.index(name.removeprefix("backbone.").split(".")[0])


def _train_plainly(dataset: Dataset, file: Path, how: Mapping[str, Any]) -> tuple[Arrays, Arrays]:
    train = dataset.select(dataset.splits != TEST)
    labels, keys = torch.from_numpy(train.labels), content_keys(train)
    counts = np.bincount(train.labels, minlength=7)
    weight = np.where(counts > 0, np.maximum(counts, 1.0) ** -how["imbalance_strength"], 0)
    weight = torch.from_numpy(weight * len(train) / (weight @ counts)).float()
    mean, std = input_statistics(BACKBONE)
    everyone = range(len(train))
    files = [train.read(image.image_id) for image in train.images]

    def view(i: int, number: int) -> torch.Tensor:
        image = decode(files[i], SIZE)
        drawn = augmented_view(image, keys[i], number, 0, SIZE, Augmentation())
        return torch.from_numpy(normalise(drawn, mean, std))

    def kept(i: int, number: int) -> torch.Tensor:
        rng = np.random.default_rng([0, int(keys[i], 16), number, 1])
        drawn = rng.random(96, dtype=np.float32) >= how["dropout"]
        return torch.from_numpy(drawn / np.float32(1 - how["dropout"])).float()

    net = _Plain(file).eval().to(memory_format=torch.channels_last)
    twice = [torch.stack([view(i, number) for number in range(how["views"])]) for i in everyone]
    frozen = {stage: [net.trunk(views, stage) for views in twice] for stage in (HEAD, STAGE)}
    start = {n: p.detach().numpy().copy() for n, p in net.named_parameters()}
    groups = [
        {
            "params": [p],
            "weight_decay": how["weight_decay"] if p.ndim > 1 else 0.0,
            "scale": how["layer_decay"] ** _depth(name),
        }
        for name, p in net.named_parameters()
    ]
    sgd = torch.optim.SGD(groups, lr=1.0, momentum=how["momentum"], foreach=False)
    epoch, total = 0, sum(how["rounds"])
    for stage, lr, n in zip((HEAD, STAGE, ALL), how["lr"], how["rounds"], strict=True):
        for name, p in net.named_parameters():
            p.requires_grad_(stage == ALL or name.startswith(("head.", f"backbone.{stage}.")))
        for number in range(n):
            if stage == ALL:
                inputs = torch.stack([view(i, epoch) for i in everyone])
            else:
                inputs = torch.stack([frozen[stage][i][epoch % how["views"]] for i in everyone])
            dropout = torch.stack([kept(i, epoch) for i in everyone])
            logits = net.head(net.features(inputs, stage) * dropout)
            losses = nn.functional.cross_entropy(
                logits, labels, label_smoothing=how["smoothing"], reduction="none"
            )
            sgd.zero_grad(set_to_none=True)
            (losses * weight[labels]).mean().backward()
            rise = min(1.0, (number + 0.5) / n / how["warmup"])
            rate = lr * rise * (1 + math.cos(math.pi * (epoch + 0.5) / total)) / 2
            for group in sgd.param_groups:
                group["lr"] = rate * group["scale"]
            sgd.step()
            epoch += 1
    return start, {n: p.detach().numpy() for n, p in net.named_parameters()}


@pytest.mark.parametrize("how", PARTITIONS)
def test_one_step_a_round_is_pooled_training(
    reference, unvalidated, network_file, cache, tmp_path, how
):
    settings, start, expected = reference
    spread(unvalidated, tmp_path, PARTITIONS[how](unvalidated))
    config = quick(tmp_path, network_file, cache=cache, **settings)
    metrics = simulate(config)
    assert not metrics["data"]["left_out"]
    assert sum(metrics["training"]["class_counts"].values()) == len(training_labels(unvalidated))
    found = _model(config).weights
    assert found.keys() == expected.keys()
    moved = [float(np.abs(expected[name] - start[name]).max()) for name in expected]
    assert np.median(moved) > 3e-4
    for name, theirs in expected.items():
        np.testing.assert_allclose(found[name], theirs, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("imbalance", ["focal", "logits"])
def test_whatever_the_loss(unvalidated, network_file, cache, tmp_path, imbalance):
    found = []
    for how in ("centralized", "a class a site"):
        folder = spread(unvalidated, tmp_path / how, PARTITIONS[how](unvalidated))
        settings = STEPS | {"momentum": 0, "imbalance": imbalance}
        config = quick(folder, network_file, cache=cache, **settings)
        simulate(config)
        found.append(_model(config).weights)
    for name, theirs in found[0].items():
        np.testing.assert_allclose(found[1][name], theirs, rtol=0, atol=1e-5, err_msg=name)


# --- Killed and started again ---

HOWS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "scaffold": {"strategy": "scaffold", "optimizer": "sgd", "momentum": 0, "clip": 1},
    "fedadam, momentum": {"strategy": "fedadam", "server_lr": 0.01, "optimizer": "sgd"},
    "fedyogi, some sites": {"strategy": "fedyogi", "server_lr": 0.01, "fraction": 0.6},
    "scaffold, some sites": {
        **{"strategy": "scaffold", "optimizer": "sgd", "momentum": 0},
        **{"fraction": 0.6, "imbalance": "oversample", "local_epochs": 0.5},
    },
}


class Interruptions:
    """Raise now and then where a coordinator or a site may be killed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
        self.count, self.every, self.times = 0, every, 0
        for owner, name in (
            (LocalSteps, "step"),
            (SiteState, "save"),
            (Checkpoint, "save"),
            (server.finetune._Training, "_validate"),
        ):
            monkeypatch.setattr(owner, name, self._around(getattr(owner, name)))

    def _around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def around(*arguments: Any, **named: Any) -> Any:
            self._tick()
            result = function(*arguments, **named)
            self._tick()
            return result

        return around

    def _tick(self) -> None:
        self.count += 1
        if self.count % self.every == 0:
            self.times += 1
            raise KeyboardInterrupt


@pytest.mark.parametrize("how", HOWS)
def test_a_run_that_is_interrupted_again_and_again_gives_the_same_model(
    base, tmp_path, monkeypatch, how
):
    finished = _with(base, tmp_path / "finished", **HOWS[how])
    simulate(finished)
    run = _with(base, tmp_path / "run", **HOWS[how])
    # More often than there are moments in a round, it would get nowhere.
    interruptions = Interruptions(monkeypatch, every=29)
    while not (run.out / MODEL_FILE).exists():
        try:
            simulate(run)
        except KeyboardInterrupt:
            assert interruptions.times < 30
    assert interruptions.times >= 2
    assert _bytes(run) == _bytes(finished)
    assert _bytes(run, METRICS_FILE) == _bytes(finished, METRICS_FILE)
    untimed = [[{**line, "seconds": 0} for line in _lines(each)] for each in (run, finished)]
    assert untimed[0] == untimed[1]


KILLED = """
import os, signal, sys
from common import shards
from common.config import RunConfig
from common.finetune import LocalSteps
from simulations.experiment import simulate

class Replacing:
    def __getattr__(self, name):
        return getattr(os, name)

    def replace(self, part, path):
        if str(path).endswith("checkpoint.safetensors"):
            tick()
        os.replace(part, path)

left = int(sys.argv[2])

def tick():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

step = LocalSteps.step

def killed(*arguments):
    tick()
    return step(*arguments)

if sys.argv[1] == "step":
    LocalSteps.step = killed
else:
    shards.os = Replacing()
simulate(RunConfig.model_validate_json(sys.argv[3]))
"""


def test_a_run_killed_at_any_moment_gives_the_same_model(base, tmp_path):
    finished = _with(base, tmp_path / "finished", fraction=0.7)
    simulate(finished)
    run = _with(base, tmp_path / "run", fraction=0.7)
    # In the middle of a site's steps; while a checkpoint is written; and late in the run.
    for moment in (("step", "8"), ("write", "2"), ("step", "11")):
        command = [sys.executable, "-c", KILLED, *moment, run.model_dump_json()]
        assert subprocess.run(command, check=False).returncode == -9
        assert (run.out / CHECKPOINT_FILE).exists()
        assert not (run.out / MODEL_FILE).exists()
    simulate(run)
    assert _bytes(run) == _bytes(finished)
    assert _bytes(run, METRICS_FILE) == _bytes(finished, METRICS_FILE)
    assert {file.name for file in run.out.iterdir()} == {f.name for f in finished.out.iterdir()}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux's affinity")
def test_the_number_of_cores_changes_no_bit(base, tmp_path):
    cores, models = os.sched_getaffinity(0), []
    try:
        for name, some in (("all", cores), ("one", {min(cores)})):
            os.sched_setaffinity(0, some)
            run = _with(base, tmp_path / name, cache=tmp_path / f"cache-{name}")
            simulate(run)
            models.append((_bytes(run), _bytes(run, METRICS_FILE)))
    finally:
        os.sched_setaffinity(0, cores)
    assert models[0] == models[1]


def test_nothing_of_a_finished_run_stays_behind(base, tmp_path):
    how = HOWS["scaffold"]
    run = _with(base, tmp_path / "run", cache=tmp_path / "cache", **how)
    simulate(run)
    assert not (run.out / CHECKPOINT_FILE).exists()
    assert not any((tmp_path / "cache" / "scratch").iterdir())
    again = _with(base, tmp_path / "again", cache=tmp_path / "cache", **how)
    simulate(again)
    assert _bytes(again) == _bytes(run)


# --- Each setting does what it says ---

STRATEGIES = ["fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "scaffold"]
SGD: dict[str, Any] = {"optimizer": "sgd", "momentum": 0}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_every_strategy_learns(base, dataset, tmp_path, strategy, optimizer):
    changes = {"strategy": strategy, "stages": HEAD, "rounds": 6, "batch": 1000}
    changes |= SGD | {"lr": 0.1} if optimizer == "sgd" else {"lr": 0.005}
    changes |= {"server_lr": 0.01} if strategy in ("fedadam", "fedyogi") else {}
    if strategy == "scaffold" and optimizer == "adamw":
        with pytest.raises(ConfigError, match="scaffold corrects plain SGD"):
            _with(base, tmp_path / "run", **changes)
        return
    run = _with(base, tmp_path / "run", **changes)
    metrics = simulate(run)
    losses = [line["loss"] for line in _lines(run)]
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    assert metrics["overall"]["n"] == (dataset.splits == TEST).sum()
    assert _model(run).weights.keys() == {"head.weight", "head.bias"}


@pytest.mark.parametrize("imbalance", ["none", "weights", "oversample", "focal", "logits"])
@pytest.mark.parametrize("priors", ["global", "local"])
def test_every_remedy_runs_over_sites_with_one_class_or_none(
    dataset, network_file, cache, tmp_path, imbalance, priors
):
    spread(
        dataset,
        tmp_path,
        lambda n, image: "empty" if image.split == TEST and n % 2 else f"site_{image.dx == 'nv'}",
    )
    changes = {"imbalance": imbalance, "priors": priors, "rounds": 1, "stages": f"{HEAD},all"}
    run = quick(tmp_path, network_file, cache=cache, batch=8, **changes)
    metrics = simulate(run)
    assert not metrics["data"]["left_out"]
    assert all(np.isfinite(line["loss"]) for line in _lines(run))
    assert len(_lines(run)) == 2


def test_scaffold_over_one_site_is_sgd(dataset, network_file, cache, tmp_path):
    found = []
    for strategy in ("fedavg", "scaffold"):
        folder = spread(dataset, tmp_path / strategy, lambda number, image: "pooled")
        run = quick(folder, network_file, cache=cache, batch=8, strategy=strategy, **SGD)
        simulate(run)
        found.append(_model(run).weights)
    assert found[0].keys() == found[1].keys()
    for name, plain in found[0].items():
        np.testing.assert_allclose(found[1][name], plain, rtol=1e-3, atol=1e-5)


def test_a_share_of_the_sites_is_drawn_by_seed_and_round(dataset, network_file, cache, tmp_path):
    spread(dataset, tmp_path, dealt(5))
    drawn = []
    for number, seed in enumerate((0, 0, 1)):
        changes = {"fraction": 0.4, "stages": HEAD, "rounds": 8, "seed": seed, "views": 1}
        run = quick(tmp_path, network_file, cache=cache, **changes)
        run = _with(run, tmp_path / str(number))
        simulate(run)
        log = rounds(run.out)
        drawn.append([tuple(e["answered"]) for e in log if e["question"] == "train"])
        # All are asked what can be asked of all.
        assert all(len(e["answered"]) == 5 for e in log if e["question"] != "train")
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(set(sites)) == 2 for sites in drawn[0])
    assert {site for sites in drawn[0] for site in sites} == {f"site_{k:02}" for k in range(5)}


@pytest.mark.parametrize(("fraction", "sites", "size"), [(0.28, 25, 7), (0.1, 3, 1), (1, 4, 4)])
def test_a_share_is_rounded_up_but_not_by_rounding_errors(base, fraction, sites, size):
    class Sampler(server.finetune._Training):
        def __init__(self) -> None:
            self._config = base.model_copy(update={"fraction": fraction})
            names = dict.fromkeys(f"s{k}" for k in range(sites))
            self._federation = type("F", (), {"sites": names})()

    this = common.finetune.plan(base)[0]
    assert len(set(Sampler()._sample(this))) == size


class _Scripted:
    """Metrics with the scores that a test wants."""

    def __init__(self, scores: list[float]) -> None:
        self._scores = iter(scores)

    def compute(self, evaluation: object) -> Any:
        score = next(self._scores)
        return type("M", (), {"macro_auc": score, "balanced_accuracy": score})()


def test_patience_goes_on_to_the_next_stage_from_the_best_weights(base, tmp_path, monkeypatch):
    scores = [0.5, 0.6, 0.4, 0.3, 0.2, 0.1, 0.7, 0.65, 0.64]
    monkeypatch.setattr(server.finetune, "Metrics", _Scripted(scores))
    sent: dict[int, Arrays] = {}
    train = client.finetune._train

    def note(site: Any, tensors: Arrays, values: Mapping[str, Any]) -> Any:
        sent.setdefault(int(values["round"]), {n: a for n, a in tensors.items() if "/" not in n})
        return train(site, tensors, values)

    monkeypatch.setattr(client.finetune, "_train", note)
    run = _with(base, tmp_path / "run", rounds=6, validate_every=1, patience=2)
    metrics = simulate(run)
    # The head's best round is 1, and two evaluations without a better one end its stage; the next
    # stage has none; the last stage's first round is the best of all.
    assert list(sent) == [0, 1, 2, 3, 6, 7, 12, 13, 14]
    assert [line["round"] - 1 for line in _lines(run)] == list(sent)
    assert metrics["training"]["best_round"] == 12
    pretrained = shared_network(BACKBONE, base.weights).pretrained
    for number in (6, 12):
        for name, tensor in sent[number].items():
            # What round 1 made of the head is what round 2 began with.
            best = sent[2][name] if name in sent[2] else pretrained[name].numpy()
            np.testing.assert_array_equal(tensor, best, err_msg=f"{number} {name}")
    for name, tensor in _model(run).weights.items():
        np.testing.assert_array_equal(tensor, sent[13][name])
    # Without patience, no stage ends early.
    monkeypatch.setattr(server.finetune, "Metrics", _Scripted([0.9, *[0.1] * 20]))
    patient = _with(base, tmp_path / "patient", stages=HEAD, rounds=6, validate_every=1)
    assert simulate(patient)["training"]["best_round"] == 0
    assert len(_lines(patient)) == 6


def test_the_best_round_by_validation_is_kept(base, tmp_path):
    run = _with(base, tmp_path / "run", validate_every=1, lr=0.03)
    metrics = simulate(run)
    scores = {line["round"] - 1: line["macro_auc"] for line in _lines(run)}
    assert len(scores) == 6
    best = max(scores.values())
    assert metrics["training"]["best_round"] == max(r for r, s in scores.items() if s == best)
    assert metrics["training"]["validation_macro_auc"] == pytest.approx(best)


def test_a_stage_is_scored_at_its_end_whatever_the_interval(base, tmp_path):
    run = _with(base, tmp_path / "run", validate_every=100, rounds="1,3,2")
    simulate(run)
    assert [line["round"] for line in _lines(run) if "macro_auc" in line] == [1, 4, 6]


def test_personal_heads_are_scored_beside_the_global_model(base, tmp_path):
    run = _with(base, tmp_path / "run", stages=HEAD, personal=5)
    metrics = simulate(run)
    assert metrics["personal"].keys() == metrics["sites"].keys()
    for site, own in metrics["personal"].items():
        assert own["n"] == metrics["sites"][site]["n"]
    plain = _with(base, tmp_path / "plain", stages=HEAD)
    without = simulate(plain)
    assert "personal" not in without
    assert without["sites"] == metrics["sites"]
    for name, tensor in _model(run).weights.items():
        np.testing.assert_array_equal(tensor, _model(plain).weights[name])


def test_the_model_file_gives_the_figures_of_the_run(base, tmp_path, dataset):
    run = _with(base, tmp_path / "run", predictions=3, lr=0.03)
    metrics = simulate(run)
    model = _model(run)
    test = [image for image in dataset.images if image.split == TEST]
    labels, probabilities, _ = model.predict({i.image_id: dataset.read(i.image_id) for i in test})
    truth = np.array([DIAGNOSES.index(image.dx) for image in test])
    assert metrics["overall"]["n"] == len(test)
    assert metrics["overall"]["accuracy"] == pytest.approx((labels == truth).mean())
    own = np.maximum(probabilities[np.arange(len(test)), truth], np.finfo(float).eps)
    assert metrics["overall"]["log_loss"] == pytest.approx(-np.log(own).mean(), rel=1e-5)


def test_a_run_says_how_many_bytes_open_stages_saved(base, tmp_path):
    run = _with(base, tmp_path / "run", rounds="1,2,1")
    said = simulate(run)["training"]
    network = shared_network(BACKBONE, base.weights)
    # AdamW's two moments are as large as the weights, its count of steps one number for each.
    sizes = [
        sum(3 * p.numel() + 1 for p in open_stage(network, stage).trainable.values())
        for stage in (HEAD, STAGE, ALL)
    ]
    assert said["bytes_sent"] == 2 * 4 * SITES * (sizes[0] + 2 * sizes[1] + sizes[2])
    assert said["bytes_of_whole_networks"] == 2 * 4 * SITES * 4 * sizes[2]
    log = [entry for entry in rounds(run.out) if entry["question"] == "train"]
    travelled = sum(entry["bytes_down"] + entry["bytes_up"] for entry in log)
    assert said["bytes_sent"] < travelled < 1.1 * said["bytes_sent"]


# --- Whatever is wrong is named, and what was finished survives ---

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
        return Message(pack(change(arrays), values), reply_to=message)

    return app


def _train(config: RunConfig, app: ClientApp) -> None:
    grid = InProcessGrid(app, [{"partition-id": i} for i in range(SITES)], config.flat())
    server.app.app(grid, Context(RUN_ID, SERVER_NODE_ID, {}, RecordDict(), config.flat()))


def _changed(name: str, change: Callable[[np.ndarray], Any]) -> Change:
    return lambda arrays: {**arrays, name: np.asarray(change(arrays[name]), arrays[name].dtype)}


def _fail(arrays: Arrays) -> Arrays:
    raise MemoryError("no memory left")


def _spoiled(number: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda a: np.concatenate([[number], a.ravel()[1:]]).reshape(a.shape)


FAULTS: dict[str, tuple[str, Change, str]] = {
    "a shape": (
        "train",
        _changed("head.weight", np.transpose),
        "array 'head.weight' is float32[96",
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
    "an exception": ("train", _fail, "no memory left"),
    "negative counts": ("counts", _changed("images", lambda a: a - 99), "'images' is negative"),
    "too many counts": ("counts", _changed("images", lambda a: a + 99), "'images' adds up to"),
    "odd metrics": ("evaluate", _changed("confusion", lambda a: a + 99), "'confusion' adds up"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_site_whose_answer_is_odd_is_out_and_the_others_go_on(base, tmp_path, what):
    question, change, reason = FAULTS[what]
    run = _with(base, tmp_path / "run", stages=HEAD, rounds=3, quorum=2)
    _train(run, _app(question, change, first=question == "train"))
    faults = [fault for entry in rounds(run.out) for fault in entry["faults"].items()]
    assert [name for name, _ in faults] == [BAD]
    assert reason in faults[0][1]
    metrics = json.loads((run.out / METRICS_FILE).read_text())
    assert metrics["data"]["left_out"] == dict(faults)
    assert sorted(metrics["data"]["sites"]) == sorted(metrics["sites"]) == ["site_00", "site_02"]
    assert all(np.isfinite(line["loss"]) for line in _lines(run))
    trained = [entry["answered"] for entry in rounds(run.out) if entry["question"] == "train"]
    if question == "train":
        assert [len(sites) for sites in trained] == [3, 2, 2]


def test_below_the_quorum_the_last_whole_round_survives(base, tmp_path):
    changes = {"stages": f"{HEAD},{STAGE}", "quorum": SITES}
    finished = _with(base, tmp_path / "finished", **changes)
    simulate(finished)
    run = _with(base, tmp_path / "run", **changes)
    message = (
        "2 sites are left in round 'train', the quorum is 3: site_01 array 'head.weight' holds"
    )
    change = _changed("head.weight", _spoiled(np.nan))
    for first in (2, 1):  # later, after a start that goes further
        with pytest.raises(QuorumError, match=message) as refusal:
            _train(run, _app("train", change, first))
        assert "\n" not in str(refusal.value)
    assert len(_lines(run)) == 3
    simulate(run)
    assert _bytes(run) == _bytes(finished)


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(base, tmp_path, monkeypatch):
    finished = _with(base, tmp_path / "finished", quorum=SITES, **HOWS["scaffold"])
    simulate(finished)
    run = _with(base, tmp_path / "run", quorum=SITES, **HOWS["scaffold"])
    real = os.replace

    def filled(after: int, only: str = "") -> Callable[[str, Path], None]:
        left = after

        def replace(part: str, path: Path) -> None:
            nonlocal left
            if only in Path(path).name:
                left -= 1
                if left < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(part, path)

        return replace

    # The coordinator's disk, later the sites', later that of all.
    for after, only in ((3, CHECKPOINT_FILE), (4, "-"), (9, "")):
        with monkeypatch.context() as patch:
            patch.setattr(common.shards.os, "replace", filled(after, only))
            with pytest.raises(FedDermError, match="No space left on device") as refusal:
                simulate(run)
        assert isinstance(refusal.value, DataError | QuorumError)
        assert "\n" not in str(refusal.value)
        assert "cannot write to" in str(refusal.value)
        assert not (run.out / MODEL_FILE).exists()
    simulate(run)
    assert _bytes(run) == _bytes(finished)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
def test_a_log_on_a_full_disk_is_one_line(base, tmp_path):
    folder = RunFolder(_with(base, tmp_path / "run"))
    (folder.path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"cannot write .*No space left on device") as refusal:
        folder.append("log.jsonl", {"round": 1})
    assert str(folder.path) in str(refusal.value)


def _start(config: RunConfig, monkeypatch: pytest.MonkeyPatch, after: int = 3) -> None:
    """Leave an unfinished run behind."""
    with monkeypatch.context() as patch:
        interruptions = Interruptions(patch, every=10**9)
        save, saved = Checkpoint.save, 0

        def stop(self: Checkpoint, path: Path) -> None:
            nonlocal saved
            save(self, path)
            saved += 1
            if saved == after:
                raise KeyboardInterrupt

        patch.setattr(Checkpoint, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            simulate(config)
        assert interruptions.count


def test_an_unfinished_run_of_another_configuration_is_refused(base, tmp_path, monkeypatch):
    run = _with(base, tmp_path / "run", stages=HEAD, rounds=4)
    _start(run, monkeypatch)
    message = r"unfinished run whose lr is \[0.01\], not \[0.02\]; start it as it was"
    with pytest.raises(ConfigError, match=message) as refusal:
        simulate(_with(run, run.out, lr=0.02))
    assert "\n" not in str(refusal.value)
    # A checkpoint of one run laid into another.
    other = _with(base, tmp_path / "other", stages=STAGE, rounds=4)
    _start(other, monkeypatch)
    foreign, own = run.out / CHECKPOINT_FILE, other.out / CHECKPOINT_FILE
    kept = own.read_bytes()
    own.write_bytes(foreign.read_bytes())
    with pytest.raises(DataError, match=f"{own} is of another configuration; remove it"):
        simulate(other)
    own.write_bytes(kept[:-7])
    with pytest.raises(
        DataError, match=f"{own} is no checkpoint .*; remove it to begin"
    ) as refusal:
        simulate(other)
    assert "\n" not in str(refusal.value)
    # What the message tells to do.
    own.unlink()
    simulate(other)
    anew = _with(other, tmp_path / "anew")
    simulate(anew)
    assert _bytes(other) == _bytes(anew)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            "head,blocks.7,all",
            r"stage 'blocks\.7' names no part of this network; choose from head, ",
        ),
        (f"{STAGE},head,all", f"'stages' has 'head' after '{STAGE}', which opens more of"),
        ("all,layer3", "'stages' has 'layer3' after 'all', which opens more of the network"),
    ],
)
def test_stages_that_cannot_be_are_refused_in_one_line(base, tmp_path, stages, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        simulate(_with(base, tmp_path / "run", stages=stages))
    assert "\n" not in str(refusal.value)


def test_without_training_images_there_is_no_run(dataset, network_file, cache, tmp_path):
    spread(dataset.select(dataset.splits == TEST), tmp_path, dealt(2))
    with pytest.raises(DataError, match="no site has training images; lower test_fraction"):
        simulate(quick(tmp_path, network_file, cache=cache))
