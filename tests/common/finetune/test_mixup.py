"""Mixed images and their losses are what the papers say, whatever the batch."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from common.config.run import RunConfig
from common.finetune.imbalance import Balance
from common.finetune.mixup import Mix
from common.finetune.plan import Item

ITEMS = [Item(image, 3) for image in range(4)]
SEED = (0, 17)
IMAGES = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 3, 20, 20)))


def draws(chance: float, number: int = 2000) -> list[Mix | None]:
    return [Mix.drawn(SEED, [Item(i, 0), Item(i + 1, 0)], chance) for i in range(number)]


def test_so_many_are_mixed_half_of_them_by_each_way():
    found = draws(0.8)
    mixed = [mix for mix in found if mix is not None]
    assert len(mixed) / len(found) == pytest.approx(0.8, abs=0.03)
    boxes = [mix for mix in mixed if mix.box is not None]
    assert len(boxes) / len(mixed) == pytest.approx(0.5, abs=0.04)
    assert all(0 <= mix.share <= 1 for mix in mixed)
    assert draws(0.0) == [None] * 2000
    assert Mix.drawn(SEED, ITEMS[:1], 1.0) is None
    assert draws(0.8) == found
    assert found != [Mix.drawn((0, 18), [Item(i, 0), Item(i + 1, 0)], 0.8) for i in range(2000)]


def test_mixup_lays_images_over_each_other():
    mixed, mix = Mix(0.3).images(IMAGES)
    assert mix.share == 0.3
    for i in range(4):
        torch.testing.assert_close(mixed[i], 0.3 * IMAGES[i] + 0.7 * IMAGES[i - 1])


def test_cutmix_takes_a_box_of_the_other_image():
    mixed, mix = Mix(0.9, (0.25, 0.5, 0.1, 0.6)).images(IMAGES)
    own = (mixed == IMAGES).all(dim=1)
    other = (mixed == IMAGES.roll(1, 0)).all(dim=1)
    assert (own ^ other).all()
    assert other[:, 5:10, 2:12].all()
    assert mix.share == pytest.approx(float(own[0].float().mean())) == 1 - 50 / 400


def test_labels_are_mixed_as_images_are():
    config = RunConfig.read({"method": "finetune", "smoothing": 0, "imbalance": "none"})
    balance = Balance.from_counts(config, np.array([5, 9, 2]))
    logits, labels = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 2, 1, 1])
    share = 0.35
    own = share * balance.loss(logits, labels)
    other = (1 - share) * balance.loss(logits, labels.roll(1))
    soft = Mix(share).blend(functional.one_hot(labels, 3).double())
    torch.testing.assert_close(own + other, functional.cross_entropy(logits, soft, reduction="sum"))
