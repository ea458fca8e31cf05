"""A GPU, which sees images together, and a CPU, which sees each alone, say the same of them."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from common.arrays import Floats32
from common.features.inference_engine import one_thread_per_core
from common.networks import inference


def test_outputs_come_in_the_order_of_images_and_views(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(3).random((5, 2, 3, 4, 4), dtype=np.float32)
    monkeypatch.setattr(inference, "BLOCK", 2)
    sizes: list[int] = []

    def see(views: Tensor) -> Sequence[Tensor]:
        sizes.append(len(views))
        return views.mean(dim=(2, 3)), views.double().sum(dim=1)

    def views(number: int) -> Floats32:
        return pixels[number]

    for device, seen in (("cpu", [2] * 5), ("a gpu", [4, 4, 2])):
        monkeypatch.setattr(inference, "DEVICE", device)
        with one_thread_per_core() as pool:
            found = list(inference.outputs_of_views(see, range(5), views, pool))
        means, sums = (torch.stack(each).numpy() for each in zip(*found, strict=True))
        np.testing.assert_allclose(means, pixels.mean(axis=(3, 4)), rtol=1e-6)
        np.testing.assert_allclose(sums, pixels.sum(axis=2), rtol=1e-6)
        assert sizes == seen
        sizes.clear()
