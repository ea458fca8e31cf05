"""With one step a round, federated fine-tuning is plain PyTorch on the pooled images."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from common.data.balance import MOST_WEIGHT
from common.data.dataset import Dataset
from common.data.metadata import UNKNOWN, encode, width
from common.data.splits import TEST
from common.features.augment import Augmentation, augmented_view, normalise
from common.features.backbone import input_statistics, load_backbone
from common.features.extract import content_keys
from common.features.transform import Transform
from common.networks.network import ALL, HEAD
from simulations.runtimes.experiment import simulate
from tests.finetuning import (
    BACKBONE,
    SIZE,
    STAGE,
    SiteOf,
    dealt,
    model_of,
    quick,
    small_dataset,
    spread,
    training_labels,
)

Arrays = dict[str, np.ndarray]


STEPS: dict[str, Any] = {
    "optimizer": "sgd",
    "moments_every": 1,
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


_ABOUT = {"momentum": 0.9, "metadata": ("age", "sex", "localization")}
REFERENCES: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.0},
    "momentum": {"momentum": 0.9},
    "late": {**_ABOUT, "fusion": "late"},
    "gate": {**_ABOUT, "fusion": "gate"},
    "groups": {"momentum": 0.0, "balance_groups": "sex"},
}


@pytest.fixture(scope="module")
def reference(request, unvalidated, network_file) -> tuple[dict[str, Any], Arrays, Arrays]:
    """Train on all images at once, with nothing but PyTorch's own SGD."""
    settings = STEPS | {"imbalance": "weights", "weight_decay": 0.02}
    settings |= {"layer_decay": 0.8, "dropout": 0.3, "smoothing": 0.1, "warmup": 0.5}
    settings |= {"imbalance_strength": 0.7, "views": 2} | REFERENCES[request.param]
    start, end = _train_plainly(unvalidated, network_file, settings)
    return settings, start, end


class _Plain(nn.Module):
    def __init__(self, file: Path, metadata: int, fusion: str) -> None:
        super().__init__()
        self.backbone: Any = load_backbone(BACKBONE, file)
        self.head = nn.Linear(self.backbone.num_features, 7)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        sizes = {"late": {"added": 7}, "gate": {"scale": 96, "shift": 96}, "": {}}[fusion]
        self.metadata = nn.ModuleDict(
            {name: nn.Linear(metadata, size, bias=False) for name, size in sizes.items()}
        )
        for parameter in self.metadata.parameters():
            nn.init.zeros_(parameter)

    def logits(self, x: torch.Tensor, about: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        by = self.metadata
        if "added" in by:
            return self.head(x * kept) + by["added"](16 * about)
        if "scale" in by:
            x = 2 * torch.sigmoid(by["scale"](4 * about)) * x + by["shift"](4 * about)
        return self.head(x * kept)

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
    if name.startswith("metadata."):
        return 0
    groups = ["head", "layer4", "layer3", "layer2", "layer1", "conv1"]
    return groups.index(name.removeprefix("backbone.").split(".")[0])


def _train_plainly(dataset: Dataset, file: Path, how: Mapping[str, Any]) -> tuple[Arrays, Arrays]:
    train = dataset.select(dataset.splits != TEST)
    labels, keys = torch.from_numpy(train.labels), content_keys(train)
    counts = np.bincount(train.labels, minlength=7)
    weight = np.where(counts > 0, np.maximum(counts, 1.0) ** -how["imbalance_strength"], 0)
    weight = torch.from_numpy(weight * len(train) / (weight @ counts)).float()
    if how.get("balance_groups") == "sex":
        rows = pd.DataFrame({"dx": train.labels, "sex": [image.sex for image in train.images]})
        sexes = rows.groupby(["dx", "sex"])["sex"].transform("size")
        rows = rows.groupby("dx")["sex"]
        share = rows.transform("size") / rows.transform("nunique") / sexes
        assert 1.2 < share.max() < MOST_WEIGHT
        of_group = torch.tensor(share.to_numpy(), dtype=torch.float32)
    else:
        of_group = torch.ones(len(train))
    mean, std = input_statistics(BACKBONE)
    everyone = range(len(train))
    files = [train.read(image.image_id) for image in train.images]

    def view(i: int, number: int) -> torch.Tensor:
        image = Transform().image(files[i])
        drawn = augmented_view(image, keys[i], number, 0, SIZE, Augmentation())
        return torch.from_numpy(normalise(drawn, mean, std))

    def kept(i: int, number: int) -> torch.Tensor:
        rng = np.random.default_rng([0, int(keys[i], 16), number, 1])
        drawn = rng.random(96, dtype=np.float32) >= how["dropout"]
        return torch.from_numpy(drawn / np.float32(1 - how["dropout"])).float()

    columns = how.get("metadata", ())
    known = torch.from_numpy(encode(columns, train.images))
    unknown = torch.from_numpy(encode(columns, [UNKNOWN] * len(train)))

    net = (
        _Plain(file, width(columns), how.get("fusion", ""))
        .eval()
        .to(memory_format=torch.channels_last)
    )
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
            p.requires_grad_(
                stage == ALL or name.startswith(("head.", "metadata.", f"backbone.{stage}."))
            )
        for number in range(n):
            if stage == ALL:
                inputs = torch.stack([view(i, epoch) for i in everyone])
            else:
                inputs = torch.stack([frozen[stage][i][epoch % how["views"]] for i in everyone])
            dropout = torch.stack([kept(i, epoch) for i in everyone])
            features, losses = net.features(inputs, stage), torch.zeros(len(train))
            for about in (known, unknown):
                losses = losses + 0.5 * nn.functional.cross_entropy(
                    net.logits(features, about, dropout),
                    labels,
                    label_smoothing=how["smoothing"],
                    reduction="none",
                )
            sgd.zero_grad(set_to_none=True)
            (losses * weight[labels] * of_group).mean().backward()
            rise = min(1.0, (number + 0.5) / n / how["warmup"])
            rate = lr * rise * (1 + math.cos(math.pi * (epoch + 0.5) / total)) / 2
            for group in sgd.param_groups:
                group["lr"] = rate * group["scale"]
            sgd.step()
            epoch += 1
    return start, {n: p.detach().numpy() for n, p in net.named_parameters()}


@pytest.mark.usefixtures("unrounded")
@pytest.mark.parametrize(
    ("reference", "how"),
    [
        *((settings, how) for settings in ("sgd", "momentum") for how in PARTITIONS),
        *((other, "a class a site") for other in ("late", "gate", "groups")),
    ],
    indirect=["reference"],
)
def test_one_step_a_round_is_pooled_training(
    reference, unvalidated, network_file, cache, tmp_path, how
):
    settings, start, expected = reference
    spread(unvalidated, tmp_path, PARTITIONS[how](unvalidated))
    config = quick(tmp_path, network_file, cache=cache, **settings)
    metrics = simulate(config)
    assert not metrics["data"]["left_out"]
    assert sum(metrics["training"]["class_counts"].values()) == len(training_labels(unvalidated))
    found = model_of(config).weights
    assert found.keys() == expected.keys()
    moved = [float(np.abs(expected[name] - start[name]).max()) for name in expected]
    assert np.median(moved) > 3e-4
    for name, theirs in expected.items():
        # Numbers of the patient are large beside features, and so are the steps of their weights.
        rtol = 3e-5 if name.startswith("metadata.") else 0
        np.testing.assert_allclose(found[name], theirs, rtol=rtol, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("reference", ["sgd", "momentum"], indirect=True)
@pytest.mark.parametrize("how", ["centralized", "a class a site"])
def test_half_precision_on_the_wire_stays_near_pooled_training(
    reference, unvalidated, network_file, cache, tmp_path, how
):
    settings, start, expected = reference
    spread(unvalidated, tmp_path, PARTITIONS[how](unvalidated))
    config = quick(tmp_path, network_file, cache=cache, **settings)
    simulate(config)
    found = model_of(config).weights
    off, moved = (
        math.sqrt(sum(float(((a[n] - b[n]) ** 2).sum()) for n in expected))
        for a, b in ((found, expected), (expected, start))
    )
    assert 0 < off < 0.02 * moved


@pytest.mark.usefixtures("unrounded")
@pytest.mark.parametrize("imbalance", ["focal", "logits"])
def test_whatever_the_loss(unvalidated, network_file, cache, tmp_path, imbalance):
    found = []
    for how in ("centralized", "a class a site"):
        folder = spread(unvalidated, tmp_path / how, PARTITIONS[how](unvalidated))
        settings = STEPS | {"momentum": 0, "imbalance": imbalance}
        config = quick(folder, network_file, cache=cache, **settings)
        simulate(config)
        found.append(model_of(config).weights)
    for name, theirs in found[0].items():
        np.testing.assert_allclose(found[1][name], theirs, rtol=0, atol=1e-5, err_msg=name)
