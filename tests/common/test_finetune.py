"""Time, order, steps and sums of fine-tuning are what plain PyTorch on pooled data would have."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.config import RunConfig
from common.errors import ConfigError
from common.finetune import Floats, Item, LocalSteps, Stream, Update, plan
from common.imbalance import Balance
from common.network import ALL, HEAD, Network, Stage, build, open_stage, trunk
from tests.finetuning import STAGE, write_network
from tests.records import draw_records, partitions, total

EVEN = np.ones(7)
IMAGES, SIZE = 12, 32
Y = draw_records(IMAGES, 1)[1]
COUNTS = np.bincount(Y, minlength=7)


def _config(**changes: object) -> RunConfig:
    return RunConfig.read({"method": "finetune", **changes})


plans = st.fixed_dictionaries(
    {
        "stages": st.just("head,blocks.5,all"),
        "rounds": st.lists(st.integers(1, 9), min_size=3, max_size=3).map(tuple),
        "local_epochs": st.lists(
            st.sampled_from([0.05, 0.1, 0.25, 1 / 3, 0.7, 1.0, 2.5]), min_size=3, max_size=3
        ).map(tuple),
        "warmup": st.sampled_from([0.0, 0.1, 0.9]),
    }
)


@given(values=plans)
def test_a_plan_goes_through_all_stages_without_a_gap(values):
    config = _config(**values)
    rounds = plan(config)
    assert [r.number for r in rounds] == list(range(sum(config.rounds)))
    counts = Counter(r.stage for r in rounds)
    assert [counts[stage] for stage in config.stages] == list(config.rounds)
    assert rounds[0].begin == 0
    assert rounds[-1].end == pytest.approx(rounds[0].run_end)
    for now, then in itertools.pairwise(rounds):
        assert then.begin == pytest.approx(now.end)
        assert config.stages.index(then.stage) >= config.stages.index(now.stage)
    for r in rounds:
        number = config.stages.index(r.stage)
        assert r.end - r.begin == pytest.approx(config.local_epochs[number])
        assert r.lr == config.lr[number]
        mine = [other for other in rounds if other.stage == r.stage]
        assert r.stage_begin == pytest.approx(mine[0].begin)
        assert r.stage_end == pytest.approx(mine[-1].end)


@given(values=plans, images=st.integers(1, 5000), batch=st.integers(1, 500))
def test_learning_rates_rise_and_fall_within_bounds(values, images, batch):
    config = _config(**values)
    for r in plan(config):
        times = r.times(images, batch)
        assert (times[0], times[-1]) == (r.begin, pytest.approx(r.end))
        assert times == sorted(times)
        steps = (r.end - r.begin) * images / batch
        assert abs(len(times) - 1 - max(steps, 1)) <= 0.5 + 1e-9
        middles = [(a + b) / 2 for a, b in itertools.pairwise(times)]
        rates = [r.learning_rate(t, config.warmup) for t in middles]
        assert all(0 < rate <= r.lr for rate in rates)
        cosine = [r.lr * (1 + np.cos(np.pi * t / r.run_end)) / 2 for t in middles]
        risen = [
            t - r.stage_begin >= config.warmup * (r.stage_end - r.stage_begin) for t in middles
        ]
        for rate, full, up in zip(rates, cosine, risen, strict=True):
            assert rate == pytest.approx(full) if up else rate < full


def test_one_value_serves_all_stages_and_other_numbers_are_refused():
    assert {r.lr for r in plan(_config(lr=0.5, rounds=1, local_epochs="1"))} == {0.5}
    for key, value in {"rounds": "1,2", "lr": "1,1,1,1", "local_epochs": "0.1,1"}.items():
        n = value.count(",") + 1
        with pytest.raises(ConfigError, match=f"'{key}' has {n} values for 3 stages") as refusal:
            _config(**{key: value})
        assert "\n" not in str(refusal.value)


def _stream(n: int, draws: np.ndarray = EVEN, seed: int = 0, site: str = "a") -> Stream:
    labels = np.append(np.arange(7), np.zeros(n, dtype=np.int64))[:n]
    return Stream(labels, draws, seed, site)


def _along(stream: Stream, times: Sequence[float]) -> list[Item]:
    return [item for a, b in itertools.pairwise(times) for item in stream.between(a, b)]


@given(
    n=st.sampled_from([0, 1, 2, 3, 7, 30]),
    epochs=st.integers(1, 4),
    cuts=st.lists(st.floats(0, 4), max_size=20),
    seed=st.integers(0, 9),
)
def test_in_every_epoch_each_image_is_seen_once_however_time_is_cut(n, epochs, cuts, seed):
    times = [0.0, *sorted(t for t in cuts if t < epochs), float(epochs)]
    items = _along(_stream(n, seed=seed), times)
    assert items == _stream(n, seed=seed).between(0, epochs)
    for epoch in range(epochs):
        seen = items[epoch * n : (epoch + 1) * n]
        assert sorted(seen) == [Item(image, epoch) for image in range(n)]


@given(values=plans, n=st.sampled_from([1, 3, 10]), batch=st.integers(1, 40))
def test_so_the_steps_of_a_plan_lose_and_double_nothing(values, n, batch):
    rounds = plan(_config(**values))
    found = [item for r in rounds for item in _along(_stream(n), r.times(3 * n, batch))]
    assert found == _stream(n).between(0, rounds[-1].run_end)


@given(n=st.integers(0, 40), begin=st.floats(0, 5), length=st.floats(0, 2))
def test_every_site_goes_at_the_same_pace(n, begin, length):
    assert abs(len(_stream(n).between(begin, begin + length)) - n * length) <= 1 + 1e-5


def test_the_order_is_a_function_of_seed_and_site():
    first = _stream(30).between(0, 2)
    assert first == _stream(30).between(0, 2)
    others = [_stream(30, seed=1).between(0, 2), _stream(30, site="b").between(0, 2)]
    epochs = [[i.image for i in items] for items in (first[:30], first[30:], *others)]
    assert len(set(map(tuple, epochs))) == 4


def test_draws_match_the_frequencies_asked_for():
    labels = np.repeat(np.arange(7), [3, 4, 10, 1, 10, 70, 2])
    counts = np.bincount(labels, minlength=7)
    config = _config(imbalance="oversample", imbalance_strength=1.0)
    stream = Stream(labels, Balance.from_counts(config, counts).draws, 0, "a")
    epochs = 200
    items = stream.between(0, epochs)
    assert len(items) == epochs * len(labels)
    by_class = np.bincount(labels[[item.image for item in items]], minlength=7) / len(items)
    np.testing.assert_allclose(by_class, 1 / 7, atol=0.01)
    # A rare image that comes often is seen in another view each time.
    assert max(Counter(items).values()) == 1


@pytest.mark.parametrize("n", [0, 1, 3])
def test_few_images_may_be_drawn_too(n):
    rare = np.array([0.2, 5.0, 0.1, 1, 1, 1, 1])
    items = _stream(n, rare).between(0, 10)
    assert len(items) == 10 * max(n > 0, round(rare[:n].sum()))
    assert all(item.image < n for item in items)


CHANGES = np.random.default_rng(3).standard_normal((IMAGES, 4, 3)).astype(np.float32)
LOSSES = np.random.default_rng(4).random(IMAGES)


def _update(images: np.ndarray) -> Update:
    if not len(images):
        return Update.of(0.0, 0.0, {"w": CHANGES[0] * 0, "step": np.zeros((), np.float32)})
    tensors = {"w": CHANGES[images].mean(axis=0), "step": np.float32(images.mean())}
    return Update.of(float(len(images)), LOSSES[images].mean(), tensors)


@given(sites=partitions(Y))
def test_updates_of_any_partition_add_up_to_the_weighted_mean(sites):
    zero = Update.zero({"w": (4, 3), "step": ()})
    parts = [zero.from_record(_update(site).to_record()) for site in sites]
    whole = total([zero, *parts])
    assert whole.weight == IMAGES
    assert whole.loss / whole.weight == pytest.approx(LOSSES.mean())
    mean = whole.mean()
    np.testing.assert_allclose(mean["w"], CHANGES.mean(axis=0), rtol=1e-5, atol=1e-6)
    assert mean["step"] == pytest.approx((IMAGES - 1) / 2)
    assert {a.dtype for a in mean.values()} == {np.dtype(np.float32)}
    for name, array in whole.to_record().items():
        assert array.shape == zero.to_record()[name].shape


def test_the_mean_of_no_images_is_no_change():
    mean = Update.zero({"w": (2,), "step": ()}).mean()
    assert {name: a.tolist() for name, a in mean.items()} == {"w": [0, 0], "step": 0}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Network]:
    """Build networks with kernels whose order in memory matters."""
    built: dict[str, Network] = {}

    def network_of(name: str) -> Network:
        if name not in built:
            file: Path = tmp_path_factory.mktemp("weights") / "w.safetensors"
            built[name] = build(name, write_network(file, name))
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


def _loader(network: Network, inputs: Floats) -> Callable[[Item], tuple[Floats, Floats]]:
    """Read images or activations; every feature is multiplied by a factor of the image."""
    ones = np.ones(network.n_features, np.float32)
    return lambda item: (inputs[item.image], (np.float32(0.5) + SPREAD[item.image]) * ones)


def _at_the_cut(network: Network, stage: str) -> Floats:
    with torch.no_grad():
        return trunk(network, [stage])(torch.from_numpy(INPUTS))[0].numpy()


class Plain:
    """The same steps as one would write them: whole batches, PyTorch's plain optimisers."""

    def __init__(
        self, network: Network, stage: Stage, config: RunConfig, inputs: Floats = INPUTS
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
    moments: Mapping[str, Floats] | None = None,
    correction: Mapping[str, torch.Tensor] | None = None,
    inputs: Floats = INPUTS,
) -> LocalSteps:
    balance, load = Balance.from_counts(config, COUNTS), _loader(network, inputs)
    return LocalSteps(network, stage, config, balance, Y, load, pool, moments or {}, correction)


def _items(batch: Sequence[int]) -> list[Item]:
    return [Item(i, 0) for i in batch]


def _assert_near(found: Mapping[str, Floats], expected: Mapping[str, torch.Tensor]) -> None:
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
    return float(sum((p - start[n]).square().sum() for n, p in stage.trainable.items())) ** 0.5


def _go_on(moments: Mapping[str, Floats], change: Mapping[str, Floats]) -> dict[str, Floats]:
    """Add what a site sends to the moments that it got; a new stage's start at zero."""
    return {n: np.asarray(moments.get(n, 0) + a) for n, a in change.items() if "/" in n}


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
    steps = _steps(network, stage, config, pool, _go_on({}, first))
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
    moments: dict[str, Floats] = {}
    for stage in (narrow, wide, wide):
        steps = _steps(network, stage, config, pool, moments, inputs=inputs[stage.name])
        steps.step(_items(range(IMAGES)), 0.02)
        moments = _go_on(moments, steps.change())
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
