"""A site answers with the sums of its own images, and refuses what is not a question to it."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import client.methods.finetune
from client.egress.allowlist import allowlist_of
from client.egress.questions import Question, check
from client.finetune.training_views import loader
from client.methods.finetune import answer
from client.site import Site
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.errors import ConfigError, RefusalError
from common.features.augment import normalise, prediction_view
from common.features.backbone import input_statistics
from common.features.transform import Transform
from common.finetune.half_precision import to_site
from common.finetune.imbalance import ClassCounts
from common.finetune.plan import CONTROL, Item, plan, shapes
from common.finetune.update import Update
from common.networks.network import ALL, HEAD, open_stage, run_network, shared_network
from common.statistics.calibration import uncalibrated
from common.statistics.sums import Sums
from common.task import HAM10000
from tests.finetuning import BACKBONE, SIZE, STAGE, quick, small_dataset, spread, training_labels

RUN = "0a" * 8
RULE = {"calibration": uncalibrated(7), "base_rates": np.full(7, 1 / 7)}
"""The class of the largest logit."""
Arrays = dict[str, np.ndarray]
MakeSite = Callable[..., Site]


@pytest.fixture(scope="module")
def dataset(synthetic_folder: Path) -> Dataset:
    return small_dataset(synthetic_folder)


@pytest.fixture(scope="module")
def folder(dataset, tmp_path_factory) -> Path:
    """Write a site with everything, and one whose lesions are all for testing."""
    tested = {image.lesion_id for image in dataset.images if image.split == "test"}
    return spread(
        dataset,
        tmp_path_factory.mktemp("client"),
        lambda number, image: "empty" if image.lesion_id in tested and number % 2 else "full",
    )


@pytest.fixture
def make_site(folder, network_file) -> MakeSite:
    """Open a site under a configuration; activations are shared, states are each test's own."""

    def make(name: str = "full", **changes: Any) -> Site:
        config = quick(folder, network_file, **changes)
        config = config.model_copy(update={"out": folder / f"run-{id(changes)}-{name}"})
        return Site(folder / "sites" / name, config)

    return make


def _tensors(site: Site, stage: str, scale: float = 0.0, moments: bool = True) -> Arrays:
    """Return what a coordinator sends: pretrained weights with a little noise, empty moments."""
    network, config = run_network(site.config), site.config
    rng = np.random.default_rng(0)
    found = {}
    for name, shape in shapes(open_stage(network, stage), config, moments).items():
        known = network.pretrained.get(name)
        start = np.zeros(shape, np.float32) if known is None else known.numpy()
        noise = scale * rng.standard_normal(shape) if known is not None else 0
        found[name] = np.asarray(start + noise, np.float32)
    return found


def _sent(site: Site, tensors: Arrays) -> Arrays:
    """Return what a round starts from as it crosses the wire."""
    return to_site(tensors, run_network(site.config).pretrained_arrays)


def _values(site: Site, number: int = 0, **changes: Any) -> dict[str, Any]:
    labels = training_labels(site.dataset)
    counts = np.maximum(np.bincount(labels, minlength=7), 1).tolist()
    return {"round": number, "run": RUN, "counts": counts, "images": sum(counts), **changes}


def _ask(site: Site, question: str, arrays: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    asked = Question(1, "1", question, arrays, {"question": question, **values})
    check(site, asked, allowlist_of(site.config.method).QUESTIONS)
    return answer(site, asked)


def _train(site: Site, number: int = 0, scale: float = 0.0, **changes: Any) -> Update:
    this = plan(site.config)[number]
    arrays = _tensors(site, this.stage, scale, this.begins)
    return _ask(site, "train", _sent(site, arrays), _values(site, number, **changes))


def _assert_equal(a: Sums, b: Sums) -> None:
    ours, theirs = a.to_record(), b.to_record()
    assert ours.keys() == theirs.keys()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)


def test_the_same_question_gets_the_same_answer_bit_for_bit(make_site) -> None:
    for changes in ({}, {"optimizer": "sgd", "momentum": 0, "strategy": "scaffold"}):
        site = make_site(**changes)
        for number in (0, 2, 5):
            _assert_equal(_train(site, number), _train(site, number))


@pytest.mark.parametrize("name", ["full", "empty"])
def test_every_answer_is_the_neutral_elements_kind(make_site, name) -> None:
    site = make_site(name)
    for number, stage in enumerate((HEAD, STAGE, ALL)):
        update = _train(site, 2 * number)
        needed = shapes(
            open_stage(shared_network(BACKBONE, site.config.weights, HAM10000.n_classes), stage),
            site.config,
            plan(site.config)[2 * number].ends,
        )
        Update.zero(needed).from_record(update.to_record())
        # An epoch: every image once.
        assert update.weight == len(training_labels(site.dataset))
        assert (update.loss > 0) == (name == "full")
        moved = any(a.any() for a in update.tensors.values())
        assert moved == (name == "full")


SETTINGS = {
    f"{imbalance}, {priors}": {"imbalance": imbalance, "priors": priors}
    for imbalance in ("none", "weights", "oversample", "focal", "logits")
    for priors in ("global", "local")
}


@pytest.mark.parametrize("how", SETTINGS)
@pytest.mark.parametrize("name", ["full", "empty"])
def test_no_remedy_makes_a_site_weigh_more_than_its_images(make_site, how, name) -> None:
    site = make_site(name, stages=HEAD, rounds=2, local_epochs=0.5, **SETTINGS[how])
    images = len(training_labels(site.dataset))
    own = np.bincount(training_labels(site.dataset), minlength=7)
    others = np.add(own, [5, 1, 4, 3, 0, 30, 2])
    updates = [_train(site, number, counts=others.tolist()) for number in (0, 1)]
    weight = sum(float(update.weight) for update in updates)
    assert np.isfinite(weight)
    if "oversample, global" in how:
        assert 0 <= weight <= images
    else:
        assert weight == pytest.approx(images)


def test_counts_are_of_the_training_images_alone(make_site, dataset) -> None:
    found = [_ask(make_site(name), "counts", {}, {}) for name in ("full", "empty")]
    assert not found[1].images.any()
    expected = ClassCounts.measure(training_labels(dataset), HAM10000.n_classes)
    np.testing.assert_array_equal((found[0] + found[1]).images, expected.images)


def test_dropout_falls_on_the_image_and_its_view_wherever_it_is(make_site, folder) -> None:
    site = make_site(dropout=0.3)
    network = shared_network(BACKBONE, site.config.weights, HAM10000.n_classes)
    load = loader(site, network, open_stage(network, ALL))
    factors = np.array([[load(Item(i, v))[1] for v in range(3)] for i in range(4)])
    np.testing.assert_allclose(np.unique(factors), [0, 1 / 0.7], rtol=1e-6)
    assert (factors == 0).mean() == pytest.approx(0.3, abs=0.05)
    assert len({row.tobytes() for rows in factors for row in rows}) == 12
    # In another folder under another name, among fewer images.
    names = [site.dataset.images[i].lesion_id for i in site.part("train")]
    few = site.dataset.select(np.isin(site.dataset.lesions, names[2]))
    spread(few, folder / "other", lambda number, image: "elsewhere")
    there = Site(folder / "other" / "sites" / "elsewhere", site.config)
    image = names.index(names[2])
    inputs, again, _ = loader(there, network, open_stage(network, ALL))(Item(0, 1))
    np.testing.assert_array_equal(again, factors[image, 1])
    np.testing.assert_array_equal(inputs, load(Item(image, 1))[0])


def test_without_dropout_every_feature_counts(make_site) -> None:
    site = make_site(dropout=0)
    network = shared_network(BACKBONE, site.config.weights, HAM10000.n_classes)
    load = loader(site, network, open_stage(network, HEAD))
    assert (load(Item(0, 5))[1] == 1).all()


def _go_on(arrays: Arrays, update: Update) -> Arrays:
    """Return what the coordinator of one site sends after a round."""
    mean = update.mean()
    return {name: np.asarray(a + mean.get(name, 0), np.float32) for name, a in arrays.items()}


@pytest.mark.usefixtures("unrounded")
@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd"}])
def test_until_its_moments_are_averaged_a_site_goes_on_with_its_own(make_site, changes) -> None:
    site = make_site(stages=HEAD, rounds=3, moments_every=1, **changes)
    arrays, expected = _tensors(site, HEAD), []
    for number in range(3):
        expected.append(_ask(site, "train", _sent(site, arrays), _values(site, number)))
        arrays = _go_on(arrays, expected[-1])
    site = make_site(stages=HEAD, rounds=3, moments_every=3, **changes)
    start = _tensors(site, HEAD)
    weights = {name: a for name, a in start.items() if "/" not in name}
    for number in range(3):
        sent = start if number == 0 else weights
        found = _ask(site, "train", _sent(site, sent), _values(site, number))
        assert found.tensors.keys() == (start if number == 2 else weights).keys()
        for name in weights:
            np.testing.assert_allclose(
                found.change(name), expected[number].change(name), rtol=1e-3, atol=1e-6
            )
        # Asked again, after a coordinator that was killed.
        _assert_equal(_ask(site, "train", _sent(site, sent), _values(site, number)), found)
        weights = _go_on(weights, found)
    for name in start.keys() - weights.keys():
        moved = sum(update.change(name) for update in expected)
        np.testing.assert_allclose(found.change(name), moved, rtol=1e-3, atol=1e-6)


def test_a_site_that_missed_the_begin_of_a_cycle_starts_at_zero(make_site) -> None:
    changes = {"stages": HEAD, "rounds": 4, "moments_every": 2}
    site = make_site(**changes)
    weights = _tensors(site, HEAD, moments=False)
    fresh = _ask(site, "train", _sent(site, weights), _values(site, 3))
    site = make_site(**changes)
    # Of the cycle before it has moments; how far they moved since then is nobody's concern.
    ones = {n: np.ones_like(a) if "/" in n else a for n, a in _tensors(site, HEAD).items()}
    _ask(site, "train", _sent(site, ones), _values(site, 0))
    _assert_equal(_ask(site, "train", _sent(site, weights), _values(site, 3)), fresh)


PLAIN = {"optimizer": "sgd", "momentum": 0, "clip": 0, "weight_decay": 0, "layer_decay": 0.5}


def test_control_variates_follow_option_ii_of_scaffold(make_site) -> None:
    site = make_site(strategy="scaffold", batch=5, **PLAIN)
    arrays = _tensors(site, STAGE)
    stage = open_stage(shared_network(BACKBONE, site.config.weights, HAM10000.n_classes), STAGE)
    sent = {n: np.full(p.shape, 0.01, np.float32) for n, p in stage.trainable.items()}
    own: Arrays = {n: np.zeros_like(a) for n, a in sent.items()}
    arrays |= {CONTROL + n: a for n, a in sent.items()}
    for number in (2, 3):
        this = plan(site.config)[number]
        times = this.times(sum(_values(site)["counts"]), 5)
        middles = [(a + b) / 2 for a, b in itertools.pairwise(times)]
        rate = sum(this.learning_rate(t, site.config.warmup) for t in middles)
        update = _ask(site, "train", _sent(site, arrays), _values(site, number))
        change = update.mean()
        for name, c in sent.items():
            steps = rate * 0.5 ** stage.depth[name]
            # c_i+ = c_i - c + (x - y_i) / (K eta)
            expected = own[name] - c - change[name] / steps
            moved = change[CONTROL + name]
            np.testing.assert_allclose(own[name] + moved, expected, rtol=1e-3, atol=1e-4)
            own[name] = own[name] + moved
    # Question again for the last round, the site has the state of the one before.
    _assert_equal(_ask(site, "train", _sent(site, arrays), _values(site, 3)), update)


def test_fedprox_holds_a_site_near_the_start(make_site) -> None:
    lengths = {}
    for strategy, proximal in (("fedavg", 1), ("fedprox", 1e-6), ("fedprox", 90)):
        site = make_site(strategy=strategy, proximal=proximal, batch=2, lr=0.01, **PLAIN)
        change = _train(site, 2).mean()
        lengths[strategy, proximal] = sum(float((a**2).sum()) for a in change.values()) ** 0.5
    free = lengths["fedavg", 1]
    assert lengths["fedprox", 1e-6] == pytest.approx(free, rel=1e-3)
    assert lengths["fedprox", 90] < 0.5 * free


REFUSED = {
    "a missing tensor": (lambda a: _without(a, "head.bias"), "'head.bias' is missing"),
    "another tensor": (lambda a: a | {"x": a["head.bias"]}, "nothing named 'x' belongs"),
    "another stage's": (
        lambda a: a | {f"backbone.{STAGE}.0.conv1.bias": np.zeros(96, np.float16)},
        rf"nothing named 'backbone.{STAGE}.* belongs",
    ),
    "no moments": (lambda a: _without(a, "exp_avg/head.bias"), "'exp_avg/.* is missing"),
    "control variates": (
        lambda a: a | {"control/head.bias": a["head.bias"]},
        "nothing named 'control/head.bias' belongs",
    ),
    "another shape": (
        lambda a: a | {"head.weight": a["head.weight"].T},
        r"'head.weight', <f2\[96, 7\], is not Form\(shape=\(7, 96\)",
    ),
    "a scalar": (
        lambda a: a | {"step/head.bias": np.zeros(1, np.float32)},
        r"'step/head.bias', <f4\[1\], is not Form",
    ),
    "negative squares": (
        lambda a: a | {"exp_avg_sq/head.bias": -a["exp_avg_sq/head.bias"] - 1},
        "'exp_avg_sq/head.bias', .* is not Form",
    ),
    "single precision": (
        lambda a: a | {"head.bias": a["head.bias"].astype(np.float32)},
        r"'head.bias', <f4\[7\], is not Form",
    ),
    "no numbers": (lambda a: a | {"head.bias": a["head.bias"] * np.nan}, "'head.bias', .* is not"),
    "huge ones": (
        lambda a: a | {"head.bias": a["head.bias"] + np.inf},
        "'head.bias', .* is not Form",
    ),
}


def _without(arrays: Arrays, name: str) -> Arrays:
    return {n: a for n, a in arrays.items() if n != name}


@pytest.mark.parametrize("what", REFUSED)
def test_tensors_that_are_not_the_stages_are_refused(make_site, what) -> None:
    site = make_site()
    change, message = REFUSED[what]
    with pytest.raises(RefusalError, match=message) as refusal:
        _ask(site, "train", change(_sent(site, _tensors(site, HEAD))), _values(site))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("number", "message"),
    [(-1, "value 'round' is"), (6, "no round 6; this run has 6"), (10**9, "no round 1000000000")],
)
def test_a_round_beyond_the_plan_is_refused(make_site, number, message) -> None:
    site = make_site()
    with pytest.raises(RefusalError, match=message):
        _ask(site, "train", _sent(site, _tensors(site, HEAD)), _values(site, number))


def test_a_runs_name_cannot_lead_out_of_its_folder(make_site) -> None:
    site = make_site(strategy="scaffold", **PLAIN)
    with pytest.raises(RefusalError, match="value 'run' is"):
        _train(site, run="../../../elsewhere")


def _about(stage: str = HEAD, **changes: Any) -> dict[str, Any]:
    return {"scores": "ab" * 32, "subset": "test", "views": 2, "personal": False, **changes}


@pytest.mark.parametrize(
    ("question", "changes", "message"),
    [
        ("evaluate", {"scores": "cd" * 32}, "were not sent in this run; send them first"),
        ("evaluate", {"scores": "../../x"}, "value 'scores' is"),
        ("evaluate", {"subset": "all"}, "value 'subset' is"),
        ("evaluate", {"subset": "train"}, "value 'subset' is"),
        ("weights", {}, "no question 'weights' in method finetune"),
    ],
)
def test_other_questions_are_refused(make_site, question, changes, message) -> None:
    arrays = dict(RULE)
    with pytest.raises(RefusalError, match=message):
        _ask(make_site(), question, arrays, _about(**changes))


def test_a_stage_that_the_network_does_not_have_is_refused(make_site) -> None:
    site = make_site(stages="head,blocks.77,all")
    with pytest.raises(ConfigError, match=r"stage 'blocks\.77' names no part of this network"):
        _ask(site, "train", _sent(site, _tensors(site, HEAD)), _values(site, 2))


def _expected_logits(site: Site, arrays: Arrays, views: int) -> np.ndarray:
    """Compute the logits of the test images one view at a time, with the whole network."""
    network = shared_network(BACKBONE, site.config.weights, HAM10000.n_classes)
    network.load(arrays)
    mean, std = input_statistics(BACKBONE)
    rows = []
    for i in site.part("test"):
        image = Transform().image(site.dataset.read(site.dataset.images[i].image_id))
        inputs = [normalise(prediction_view(image, k, SIZE), mean, std) for k in range(views)]
        with torch.inference_mode():
            rows.append(network(torch.from_numpy(np.stack(inputs))).mean(dim=0).numpy())
    return np.array(rows)


def test_scores_are_the_networks_averaged_over_its_views(make_site) -> None:
    site = make_site()
    arrays = {n: a for n, a in _tensors(site, ALL, scale=0.01).items() if "/" not in n}
    labels = site.dataset.labels[site.part("test")]
    logits = _expected_logits(site, arrays, views=2)
    calibration = dict(RULE)
    found = _ask(site, "evaluate", arrays | calibration, _about())
    expected = np.zeros((7, 7), dtype=np.int64)
    np.add.at(expected, (labels, logits.argmax(axis=1)), 1)
    np.testing.assert_array_equal(found.confusion, expected)
    own = np.exp(logits)[np.arange(len(labels)), labels] / np.exp(logits).sum(axis=1)
    assert found.log_loss[0] == pytest.approx(-np.log(own).sum(), rel=1e-4)
    # Once sent, the weights need not come again.
    _assert_equal(_ask(site, "evaluate", calibration, _about()), found)
    calibrated = _ask(site, "calibrate", calibration, _about())
    assert (calibrated.count, calibrated.loss) == (len(labels), pytest.approx(found.log_loss[0]))


@pytest.mark.parametrize("about", [{}, {"metadata": "age,sex"}])
def test_a_head_of_its_own_learns_from_the_sites_images_alone(make_site, dataset, about) -> None:
    site = make_site(personal=40, lr=0.05, imbalance="none", smoothing=0, **about)
    arrays = {n: a for n, a in _tensors(site, HEAD).items() if "/" not in n} | RULE
    labels = training_labels(site.dataset)

    def ask(digest: str, **values: Any) -> Any:  # of no site that a coordinator asks
        values = _about(scores=digest * 32, subset="train", **values)
        return answer(site, Question(1, "1", "evaluate", arrays, values))

    shared, own = ask("aa"), ask("bb", personal=True)
    assert shared.log_loss[0] == pytest.approx(len(labels) * np.log(7), rel=1e-4)
    assert own.log_loss[0] < 0.7 * shared.log_loss[0]
    _assert_equal(ask("cc", personal=True), own)
    # Nothing of it stays for the next question.
    _assert_equal(ask("dd"), shared)
    empty = make_site("empty", personal=3, **about)
    found = _ask(empty, "evaluate", arrays, _about(personal=True))
    assert found.confusion.sum() == len(empty.dataset)


def test_what_leaves_says_which_network_and_views(make_site) -> None:
    site = make_site()
    described = client.methods.finetune.describe(site)
    assert described["n_features"] == 96
    others = [make_site(seed=1), make_site(size=64), replace(site, folder=site.folder.parent)]
    keys = [client.methods.finetune.describe(other)["features"] for other in others]
    assert [key == described["features"] for key in keys] == [False, False, True]


def test_configuration_refuses_what_cannot_train() -> None:
    for changes, message in (
        ({"views": 0}, "'views' is 0; fine-tuning trains on augmented views"),
        ({"strategy": "scaffold"}, "scaffold corrects plain SGD; set optimizer=sgd momentum=0"),
        ({"stages": "head,../x"}, "'stages'"),
        ({"rounds": "0"}, "'rounds'"),
        ({"lr": "-1"}, "'lr'"),
        ({"dropout": 1}, "'dropout'"),
        ({"fraction": 0}, "'fraction'"),
        ({"strategy": "fedsgd"}, "'strategy' is 'fedsgd'"),
    ):
        with pytest.raises(ConfigError, match=message) as refusal:
            RunConfig.read({"method": "finetune", **changes})
        assert "\n" not in str(refusal.value)
