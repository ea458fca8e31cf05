"""Time goes on without a gap, every image comes in its turn, and updates add up."""

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.config.run import RunConfig
from common.errors import ConfigError
from common.finetune.imbalance import Balance
from common.finetune.plan import Item, Stream, plan
from common.finetune.update import Update
from tests.records import draw_records, partitions, total

EVEN = np.ones(7)
IMAGES = 12
Y = draw_records(IMAGES, 1)[1]


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


@example(values={"rounds": 5, "local_epochs": 0.7, "warmup": 0.1}, images=1, batch=1)
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
        # Up to rounding: a round's middle may be just where the rise ends.
        rise = config.warmup * (r.stage_end - r.stage_begin) * (1 - 1e-9)
        risen = [t - r.stage_begin >= rise for t in middles]
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
        return Update.of(0.0, 0.0, {"w": CHANGES[0] * 0, "step/w": np.zeros((), np.float32)})
    tensors = {"w": CHANGES[images].mean(axis=0), "step/w": np.float32(images.mean())}
    return Update.of(float(len(images)), LOSSES[images].mean(), tensors)


@given(sites=partitions(Y))
def test_updates_of_any_partition_add_up_to_the_weighted_mean(sites):
    zero = Update.zero({"w": (4, 3), "step/w": ()})
    parts = [zero.from_record(_update(site).to_record()) for site in sites]
    whole = total([zero, *parts])
    assert whole.weight == IMAGES
    assert whole.loss / whole.weight == pytest.approx(LOSSES.mean())
    mean = whole.mean()
    # A record is right to one part in 2,048.
    most = 2**-11 * np.abs(CHANGES).max()
    np.testing.assert_allclose(mean["w"], CHANGES.mean(axis=0), rtol=1e-5, atol=most)
    assert mean["step/w"] == pytest.approx((IMAGES - 1) / 2)
    assert {a.dtype for a in mean.values()} == {np.dtype(np.float32)}
    for name, array in whole.to_record().items():
        assert array.shape == zero.to_record()[name].shape


def test_the_mean_of_no_images_is_no_change():
    mean = Update.zero({"w": (2,), "step/w": ()}).mean()
    assert {name: a.tolist() for name, a in mean.items()} == {"w": [0, 0], "step/w": 0}
