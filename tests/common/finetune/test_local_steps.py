"""Steps of a site are those that plain PyTorch takes on whole batches."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from common.arrays import Floats32
from common.config.run import RunConfig
from common.finetune.imbalance import Balance
from common.finetune.local_steps import Load, LocalSteps
from common.finetune.plan import Item
from common.finetune.targets import Targets
from common.networks.network import ALL, HEAD, Network, Stage, build, open_stage, trunk
from common.task import HAM10000
from tests.finetuning import STAGE, write_network
from tests.records import draw_records

IMAGES, SIZE = 12, 32
Y = draw_records(IMAGES, 1)[1]
COUNTS = np.bincount(Y, minlength=7)


def _config(**changes: object) -> RunConfig:
    return RunConfig.read({"method": "finetune", **changes})


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Network]:
    """Build networks with kernels whose order in memory matters."""
    built: dict[str, Network] = {}

    def network_of(name: str) -> Network:
        if name not in built:
            file: Path = tmp_path_factory.mktemp("weights") / "w.safetensors"
            built[name] = build(name, write_network(file, name), HAM10000.n_classes)
        built[name].load({})
        return built[name]

    return network_of


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        yield threads


RNG = np.random.default_rng(5)
INPUTS = RNG.standard_normal((IMAGES, 3, SIZE, SIZE)).astype(np.float32)
SPREAD = RNG.random(IMAGES).astype(np.float32)
BATCHES = [range(0, 5), range(5, 12), range(2, 9), range(0, 12), range(1, 2)]
RATES = [0.002, 0.003, 0.003, 0.002, 0.001]


def _loader(network: Network, inputs: Floats32) -> Load:
    """Read images or activations; every feature is multiplied by a factor of the image."""
    ones = np.ones(network.n_features, np.float32)
    about = np.zeros(0, np.float32)
    return lambda item: (inputs[item.image], (np.float32(0.5) + SPREAD[item.image]) * ones, about)


def _at_the_cut(network: Network, stage: str) -> Floats32:
    with torch.no_grad():
        return trunk(network, [stage])(torch.from_numpy(INPUTS))[0].numpy()


class Plain:
    """The same steps as one would write them: whole batches, PyTorch's plain optimisers."""

    def __init__(
        self, network: Network, stage: Stage, config: RunConfig, inputs: Floats32 = INPUTS
    ) -> None:
        self.network, self.stage, self.config, self.inputs = network, stage, config, inputs
        self.start = {name: p.detach().clone() for name, p in stage.trainable.items()}
        groups = [
            {
                "params": [p],
                "weight_decay": config.weight_decay if p.ndim > 1 else 0.0,
                "scale": config.layer_decay ** stage.depth[name],
            }
            for name, p in stage.trainable.items()
        ]
        if config.optimizer == "adamw":
            self.optimizer = torch.optim.AdamW(groups, foreach=False)
        else:
            self.optimizer = torch.optim.SGD(groups, momentum=config.momentum, foreach=False)

    def step(self, images: Sequence[int], lr: float) -> float:
        index = list(images)
        features = self.stage.tail(torch.from_numpy(self.inputs[index]))
        factors = torch.from_numpy(0.5 + SPREAD[index])[:, None]
        losses = torch.nn.functional.cross_entropy(
            self.network.head(features * factors),
            torch.from_numpy(Y[index]),
            label_smoothing=self.config.smoothing,
            reduction="none",
        )
        objective = losses.mean()
        if self.config.strategy == "fedprox":
            for name, p in self.stage.trainable.items():
                objective = (
                    objective + self.config.proximal / 2 * (p - self.start[name]).square().sum()
                )
        self.optimizer.zero_grad()
        objective.backward()
        if self.config.clip:
            torch.nn.utils.clip_grad_norm_(list(self.stage.trainable.values()), self.config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        self.optimizer.step()
        return losses.sum().item()


def _steps(
    network: Network,
    stage: Stage,
    config: RunConfig,
    pool: ThreadPoolExecutor,
    moments: Mapping[str, Floats32] | None = None,
    correction: Mapping[str, torch.Tensor] | None = None,
    inputs: Floats32 = INPUTS,
) -> LocalSteps:
    balance, load = Balance.from_counts(config, COUNTS), _loader(network, inputs)
    return LocalSteps(
        network, stage, config, balance, Targets(Y), load, pool, moments or {}, correction
    )


def _items(batch: Sequence[int]) -> list[Item]:
    return [Item(i, 0) for i in batch]


def _assert_near(found: Mapping[str, Floats32], expected: Mapping[str, torch.Tensor]) -> None:
    # AdamW takes a whole step where a gradient is nothing but rounding: no bound holds for each.
    largest = max(float(each.norm()) for each in expected.values())
    assert largest > 0.01
    for name, theirs in expected.items():
        difference = float((torch.from_numpy(found[name]) - theirs).norm())
        assert difference <= 0.01 * float(theirs.norm()) + 1e-5 * largest, name


OPTIMISERS = {
    "sgd": {"optimizer": "sgd", "momentum": 0},
    "momentum": {"optimizer": "sgd", "momentum": 0.8},
    "adamw": {"optimizer": "adamw"},
    "clipped": {"optimizer": "sgd", "momentum": 0, "clip": 0.1},
    "proximal": {"optimizer": "sgd", "momentum": 0, "strategy": "fedprox", "proximal": 100.0},
}


def _weights(stage: Stage) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in stage.trainable.items()}


def _distance(stage: Stage, start: Mapping[str, torch.Tensor]) -> float:
    moved = ((p.detach() - start[n]).square().sum() for n, p in stage.trainable.items())
    return float(sum(moved)) ** 0.5


@pytest.mark.parametrize("backbone", ["test_resnet", "test_nfnet"])
@pytest.mark.parametrize("how", OPTIMISERS)
def test_steps_are_those_of_plain_pytorch(networks, pool, how, backbone):
    """Also when a round ends in between and the moments travel."""
    config = _config(imbalance="none", **{"clip": 0, "weight_decay": 0.1, **OPTIMISERS[how]})
    network = networks(backbone)
    stage = open_stage(network, ALL)
    start = _weights(stage)
    plain = Plain(network, stage, config)
    losses = []
    for number, (batch, lr) in enumerate(zip(BATCHES, RATES, strict=True)):
        if number == 3:
            plain.start = _weights(stage)
        losses.append(plain.step(batch, lr))
    expected = {name: w - start[name] for name, w in _weights(stage).items()}
    network.load({})
    steps = _steps(network, stage, config, pool)
    found = [steps.step(_items(b), lr) for b, lr in zip(BATCHES[:3], RATES[:3], strict=True)]
    first = steps.change()
    steps = _steps(network, stage, config, pool, steps.moments())
    found += [steps.step(_items(b), lr) for b, lr in zip(BATCHES[3:], RATES[3:], strict=True)]
    second = steps.change()
    assert first.keys() == second.keys()
    np.testing.assert_allclose(found, losses, rtol=1e-3)
    _assert_near({name: first[name] + second[name] for name in expected}, expected)


@pytest.mark.parametrize("how", ["momentum", "adamw"])
def test_a_stage_that_opens_goes_on_with_the_moments_of_the_one_before(networks, pool, how):
    """Between the blocks of one group of layers, which one fused step takes together."""
    config = _config(imbalance="none", clip=0, layer_decay=0.5, **OPTIMISERS[how])
    network = networks("test_resnet")
    narrow, wide = open_stage(network, f"{STAGE}.0.conv2"), open_stage(network, STAGE)
    assert narrow.trainable.keys() < wide.trainable.keys()
    inputs = {stage.name: _at_the_cut(network, stage.name) for stage in (narrow, wide)}
    moments: dict[str, Floats32] = {}
    for stage in (narrow, wide, wide):
        steps = _steps(network, stage, config, pool, moments, inputs=inputs[stage.name])
        steps.step(_items(range(IMAGES)), 0.02)
        moments = steps.moments()
    found = _weights(wide)
    network.load({})
    start = _weights(wide)
    plain = Plain(network, wide, config, inputs[STAGE])
    for stage in (narrow, wide, wide):
        for name, parameter in wide.trainable.items():
            parameter.requires_grad_(name in stage.trainable)
        plain.step(range(IMAGES), 0.02)
    expected = {name: w - start[name] for name, w in _weights(wide).items()}
    _assert_near({name: (w - start[name]).numpy() for name, w in found.items()}, expected)


@pytest.mark.parametrize("how", OPTIMISERS)
def test_the_number_of_cores_changes_no_bit(networks, how):
    config = _config(**{"clip": 0.5, **OPTIMISERS[how]})
    network = networks("test_resnet")
    stage = open_stage(network, ALL)
    threads, found = torch.get_num_threads(), []
    try:
        for cores in (1, 2, 3):
            network.load({})
            torch.set_num_threads(cores)
            with ThreadPoolExecutor(
                cores, initializer=torch.set_num_threads, initargs=(1,)
            ) as pool:
                steps = _steps(network, stage, config, pool)
                losses = [steps.step(_items(b), 0.01) for b in BATCHES]
                found.append((losses, steps.change()))
    finally:
        torch.set_num_threads(threads)
    for losses, change in found[1:]:
        assert losses == found[0][0]
        for name, array in change.items():
            assert array.tobytes() == found[0][1][name].tobytes(), name


def test_clipping_bounds_a_step_and_a_huge_pull_holds_it(networks, pool):
    network = networks("test_resnet")
    stage = open_stage(network, ALL)
    start, moved = _weights(stage), {}
    plain = {"optimizer": "sgd", "momentum": 0, "layer_decay": 1, "weight_decay": 0}
    plain |= {"imbalance": "none"}
    for how, changes in {
        "free": {"clip": 0},
        "clipped": {"clip": 0.01},
        "held": {"clip": 0, "strategy": "fedprox", "proximal": 50},
    }.items():
        network.load({})
        steps = _steps(network, stage, _config(**plain, **changes), pool)
        for number in range(6):
            steps.step(_items(range(IMAGES)), 0.01)
            if number == 0:
                moved[f"{how} once"] = _distance(stage, start)
        moved[how] = _distance(stage, start)
    assert moved["clipped once"] == pytest.approx(0.01 * 0.01, rel=1e-3)
    assert moved["clipped"] <= 6 * 0.01 * 0.01 * 1.001
    assert moved["held once"] == moved["free once"]
    assert moved["held"] < 0.5 * moved["free"]


def test_a_correction_is_added_to_every_gradient(networks, pool):
    network = networks("test_resnet")
    stage = open_stage(network, STAGE)
    plain = {"imbalance": "none", "optimizer": "sgd", "momentum": 0, "clip": 0, "weight_decay": 0}
    config, inputs = _config(layer_decay=0.5, **plain), _at_the_cut(network, STAGE)
    correction = {n: torch.randn(p.shape) for n, p in stage.trainable.items()}
    changes = []
    for given_ in (None, correction):
        network.load({})
        steps = _steps(network, stage, config, pool, None, given_, inputs)
        steps.step(_items(range(IMAGES)), 0.1)
        changes.append(steps.change())
    for name, extra in correction.items():
        expected = changes[0][name] - 0.1 * 0.5 ** stage.depth[name] * extra.numpy()
        np.testing.assert_allclose(changes[1][name], expected, rtol=1e-4, atol=1e-5)


def test_the_head_alone_learns_from_features(networks, pool):
    """The convex problem that it is: enough steps reach its optimum."""
    network = networks("test_resnet")
    stage = open_stage(network, HEAD)
    x = np.random.default_rng(0).standard_normal((IMAGES, network.n_features)).astype(np.float32)
    config = _config(optimizer="sgd", clip=0, imbalance="none", smoothing=0, weight_decay=0)
    steps = _steps(network, stage, config, pool, inputs=x)
    losses = [steps.step(_items(range(IMAGES)), 0.1) for _ in range(100)]
    assert losses[0] == pytest.approx(IMAGES * np.log(7), rel=1e-5)
    assert losses[-1] < 0.05
    assert {name for name in steps.change() if "/" not in name} == {"head.weight", "head.bias"}
