"""Every setting of federated fine-tuning does what it says."""

import weakref
from typing import Any

import numpy as np
import pytest

import client.app
import client.methods.finetune
import common.finetune.plan
import common.finetune.update
import common.storage.whole_files
import server.app
import server.methods.finetune
from client.egress.questions import Question
from common.answers.operating import balanced, targets_of
from common.data.splits import TEST
from common.errors import ConfigError, DataError
from common.finetune.half_precision import rounded
from common.models.predictor import Predictor
from common.networks.network import ALL, HEAD, open_stage, shared_network
from common.task import HAM10000
from simulations.runtimes.experiment import rounds, simulate
from tests.finetuning import (
    BACKBONE,
    SGD,
    SITES,
    STAGE,
    changed,
    dealt,
    model_of,
    quick,
    spread,
    training_log,
)

Arrays = dict[str, np.ndarray]


STRATEGIES = ["fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "scaffold"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_every_strategy_learns(base, dataset, tmp_path, strategy, optimizer):
    changes = {"strategy": strategy, "stages": HEAD, "rounds": 6, "batch": 1000}
    changes |= SGD | {"lr": 0.1} if optimizer == "sgd" else {"lr": 0.005}
    changes |= {"server_lr": 0.01} if strategy in ("fedadam", "fedyogi") else {}
    if strategy == "scaffold" and optimizer == "adamw":
        with pytest.raises(ConfigError, match="scaffold corrects plain SGD"):
            changed(base, tmp_path / "run", **changes)
        return
    run = changed(base, tmp_path / "run", **changes)
    metrics = simulate(run)
    losses = [line["loss"] for line in training_log(run)]
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    assert metrics["overall"]["n"] == (dataset.splits == TEST).sum()
    assert model_of(run).weights.keys() == {"head.weight", "head.bias"}


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
    assert all(np.isfinite(line["loss"]) for line in training_log(run))
    assert len(training_log(run)) == 2


def test_scaffold_over_one_site_is_sgd(dataset, network_file, cache, tmp_path):
    found = []
    for strategy in ("fedavg", "scaffold"):
        folder = spread(dataset, tmp_path / strategy, lambda number, image: "pooled")
        run = quick(folder, network_file, cache=cache, batch=8, strategy=strategy, **SGD)
        simulate(run)
        found.append(model_of(run).weights)
    assert found[0].keys() == found[1].keys()
    for name, plain in found[0].items():
        np.testing.assert_allclose(found[1][name], plain, rtol=1e-3, atol=1e-5)


def test_a_share_of_the_sites_is_drawn_by_seed_and_cycle(dataset, network_file, cache, tmp_path):
    spread(dataset, tmp_path, dealt(5))
    drawn = []
    for number, seed in enumerate((0, 0, 1)):
        changes = {"fraction": 0.4, "stages": HEAD, "rounds": 16, "seed": seed, "views": 1}
        changes["moments_every"] = 2
        run = quick(tmp_path, network_file, cache=cache, **changes)
        run = changed(run, tmp_path / str(number))
        simulate(run)
        log = rounds(run.out)
        drawn.append([tuple(e["answered"]) for e in log if e["question"] == "train"])
        # All are asked what can be asked of all.
        assert all(len(e["answered"]) == 5 for e in log if e["question"] != "train")
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(set(sites)) == 2 for sites in drawn[0])
    # Who goes on with moments of its own was there when they were averaged.
    assert drawn[0][::2] == drawn[0][1::2]
    assert {site for sites in drawn[0] for site in sites} == {f"site_{k:02}" for k in range(5)}


def test_the_coordinator_holds_few_updates_at_once(
    dataset, network_file, cache, tmp_path, monkeypatch
):
    spread(dataset, tmp_path, dealt(10))
    alive, most, real = weakref.WeakSet(), [], common.finetune.update.Update.from_record

    def counting(self, record):
        update = real(self, record)
        alive.add(update)
        most.append(len(alive))
        return update

    monkeypatch.setattr(common.finetune.update.Update, "from_record", counting)
    monkeypatch.setattr(common.finetune.update.Update, "__hash__", object.__hash__)
    run = quick(tmp_path, network_file, cache=cache, stages=HEAD, rounds=2, views=1)
    simulate(run)
    assert len(most) == 20
    assert max(most) <= 3


@pytest.mark.parametrize(("fraction", "sites", "size"), [(0.28, 25, 7), (0.1, 3, 1), (1, 4, 4)])
def test_a_share_is_rounded_up_but_not_by_rounding_errors(base, fraction, sites, size):
    class Sampler(server.methods.finetune._Training):
        def __init__(self) -> None:
            self._config = base.model_copy(update={"fraction": fraction})
            names = dict.fromkeys(f"s{k}" for k in range(sites))
            self._federation = type("F", (), {"sites": names})()

    this = common.finetune.plan.plan(base)[0]
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
    monkeypatch.setattr(server.methods.finetune, "Metrics", _Scripted(scores))
    sent: dict[int, Arrays] = {}
    train = client.methods.finetune.train

    def note(site: Any, tensors: Arrays, question: Question) -> Any:
        number = int(question.values["round"])
        sent.setdefault(number, {n: a for n, a in tensors.items() if "/" not in n})
        return train(site, tensors, question)

    monkeypatch.setattr(client.methods.finetune, "train", note)
    run = changed(base, tmp_path / "run", rounds=6, validate_every=1, patience=2)
    metrics = simulate(run)
    # The head's best round is 1, and two evaluations without a better one end its stage; the next
    # stage has none; the last stage's first round is the best of all.
    assert list(sent) == [0, 1, 2, 3, 6, 7, 12, 13, 14]
    assert [line["round"] - 1 for line in training_log(run)] == list(sent)
    assert metrics["training"]["best_round"] == 12
    assert metrics["training"]["rounds"] == len(sent)
    pretrained = shared_network(BACKBONE, base.weights, HAM10000.n_classes).pretrained
    for number in (6, 12):
        for name, tensor in sent[number].items():
            # What round 1 made of the head is what round 2 began with.
            best = sent[2][name] if name in sent[2] else pretrained[name].numpy()
            np.testing.assert_array_equal(tensor, best, err_msg=f"{number} {name}")
    for name, tensor in model_of(run).weights.items():
        changed_by = {name: tensor - pretrained[name].numpy()}
        np.testing.assert_array_equal(
            pretrained[name].numpy() + rounded(changed_by)[name], sent[13][name]
        )
    # Without patience, no stage ends early.
    monkeypatch.setattr(server.methods.finetune, "Metrics", _Scripted([0.9, *[0.1] * 20]))
    patient = changed(base, tmp_path / "patient", stages=HEAD, rounds=6, validate_every=1)
    assert simulate(patient)["training"]["best_round"] == 0
    assert len(training_log(patient)) == 6


def test_the_best_round_by_validation_is_kept(base, tmp_path):
    run = changed(base, tmp_path / "run", validate_every=1, lr=0.03)
    metrics = simulate(run)
    scores = {line["round"] - 1: line["macro_auc"] for line in training_log(run)}
    assert len(scores) == 6
    best = max(scores.values())
    assert metrics["training"]["best_round"] == max(r for r, s in scores.items() if s == best)
    assert metrics["training"]["validation_macro_auc"] == pytest.approx(best)


def test_a_stage_is_scored_at_its_end_whatever_the_interval(base, tmp_path):
    run = changed(base, tmp_path / "run", validate_every=100, rounds="1,3,2")
    simulate(run)
    assert [line["round"] for line in training_log(run) if "macro_auc" in line] == [1, 4, 6]


def test_personal_heads_are_scored_beside_the_global_model(base, tmp_path):
    run = changed(base, tmp_path / "run", stages=HEAD, personal=5)
    metrics = simulate(run)
    assert metrics["personal"].keys() == metrics["sites"].keys()
    for site, own in metrics["personal"].items():
        assert own["n"] == metrics["sites"][site]["n"]
    plain = changed(base, tmp_path / "plain", stages=HEAD)
    without = simulate(plain)
    assert "personal" not in without
    assert without["sites"] == metrics["sites"]
    for name, tensor in model_of(run).weights.items():
        np.testing.assert_array_equal(tensor, model_of(plain).weights[name])


def test_the_model_file_gives_the_figures_of_the_run(base, tmp_path, dataset):
    run = changed(base, tmp_path / "run", predictions=3, lr=0.01)
    metrics = simulate(run)
    model = model_of(run)
    test = [image for image in dataset.images if image.split == TEST]
    files = {i.image_id: dataset.read(i.image_id) for i in test}
    probabilities = Predictor(model).predict(files).probabilities
    labels = balanced(probabilities, model.basis.base_rates)
    truth = np.array([HAM10000.codes.index(image.dx) for image in test])
    assert metrics["overall"]["n"] == len(test)
    assert metrics["overall"]["accuracy"] == pytest.approx((labels == truth).mean())
    own = np.maximum(probabilities[np.arange(len(test)), truth], np.finfo(float).eps)
    assert metrics["overall"]["log_loss"] == pytest.approx(-np.log(own).mean(), rel=1e-5)


def test_a_run_says_how_many_bytes_open_stages_saved(base, tmp_path):
    run = changed(base, tmp_path / "run", rounds="1,2,1", moments_every=5)
    said = simulate(run)["training"]
    network = shared_network(BACKBONE, base.weights, HAM10000.n_classes)
    # AdamW's two moments are as large as the weights, all in half precision; its count of steps is
    # one number for each, in single.
    sizes = [
        sum(3 * p.numel() + 2 for p in open_stage(network, stage).trainable.values())
        for stage in (HEAD, STAGE, ALL)
    ]
    weights = [
        sum(p.numel() for p in open_stage(network, stage).trainable.values())
        for stage in (STAGE, ALL)
    ]
    # The second stage's moments come with its first round, and go with its last.
    middle = (sizes[1] + weights[0]) / 2
    assert said["bytes_sent"] == 2 * 2 * SITES * (sizes[0] + 2 * middle + sizes[2])
    assert said["bytes_of_whole_networks"] == 2 * 2 * SITES * (3 * sizes[2] + weights[1])
    log = [entry for entry in rounds(run.out) if entry["question"] == "train"]
    travelled = sum(entry["bytes_down"] + entry["bytes_up"] for entry in log)
    assert said["bytes_sent"] < travelled < 1.1 * said["bytes_sent"]


@pytest.mark.parametrize("secure", [False, True])
def test_moments_every_fifth_round_halve_what_is_sent_each_way(base, tmp_path, secure):
    sent, said = [], []
    for every in (1, 5):
        changes = {"moments_every": every, "rounds": 10, "validate_every": 10, "batch": 100}
        run = changed(base, tmp_path / str(every), stages=STAGE, secure=secure, **changes)
        said.append(simulate(run)["training"]["bytes_sent"])
        log = [entry for entry in rounds(run.out) if entry["question"] == "train"]
        sent.append([sum(entry[way] for entry in log) for way in ("bytes_down", "bytes_up")])
    down, up = (now / before for before, now in zip(*sent, strict=True))
    assert down == pytest.approx((10 + 2 * 2) / (10 + 2 * 10), abs=0.01)
    # In secure sums weights and mean gradients have 32 bits, mean squares 64.
    assert up == pytest.approx((10 + 2 * 3) / (10 + 3 * 10) if secure else down, abs=0.01)
    # Of a secure run it counts these bits.
    assert said[1] < sum(sent[1]) < 1.1 * said[1]


@pytest.mark.parametrize("optimizer", [{"optimizer": "adamw"}, {"optimizer": "sgd"}])
def test_at_one_site_nothing_changes_however_rarely_moments_travel(
    dataset, network_file, cache, tmp_path, optimizer
):
    found = []
    for every in (1, 2, 4):
        folder = spread(dataset, tmp_path / str(every), lambda number, image: "pooled")
        changes = {"rounds": "1,3,2", "moments_every": every, **optimizer}
        run = quick(folder, network_file, cache=cache, **changes)
        simulate(run)
        found.append(model_of(run).weights)
    for other in found[1:]:
        apart = np.concatenate([np.abs(other[n] - a).ravel() for n, a in found[0].items()])
        # AdamW's steps where gradients are rounding alone.
        assert np.mean(apart < 1e-5) > 0.99


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
        simulate(changed(base, tmp_path / "run", stages=stages))
    assert "\n" not in str(refusal.value)


def test_without_training_images_there_is_no_run(dataset, network_file, cache, tmp_path):
    spread(dataset.select(dataset.splits == TEST), tmp_path, dealt(2))
    with pytest.raises(DataError, match="no site has a training image with a diagnosis"):
        simulate(quick(tmp_path, network_file, cache=cache))


def test_thresholds_by_group_rest_on_the_validation_lesions_of_each(base, dataset, tmp_path):
    changes = {"screening_by": "sex", "stages": HEAD, "rounds": 1}
    run = changed(base, tmp_path / "run", **changes)
    simulate(run)
    found = model_of(run).basis.by_group
    assert found.groups.names == ("female", "male")
    lesions = {
        (image.lesion_id, image.sex, image.dx in HAM10000.malignant)
        for image, split in zip(dataset.images, dataset.splits, strict=True)
        if split == "0"
    }
    expected = [
        [sum(each[1:] == (sex, malignant) for each in lesions) for malignant in (False, True)]
        for sex in found.groups.names
    ]
    malignant = targets_of(HAM10000).index("malignant")
    assert found.screening[:, malignant].sum(axis=2).tolist() == expected
    assert np.sum(expected) > 0
