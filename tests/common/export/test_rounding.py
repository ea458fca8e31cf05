"""Rounded weights are on 127 steps a side, and means stay where they were."""

import numpy as np
import pytest
import torch
from torch import nn

from common.export.rounding import on_steps, shift


@pytest.mark.parametrize(("channels", "out", "groups"), [(6, 8, 1), (6, 6, 6), (6, 12, 3)])
def test_the_shift_is_what_the_mean_moves_by(channels, out, groups):
    """PyTorch's own convolution is the reference; without padding there are no edges."""
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, out, 3, groups=groups)
    maps = torch.rand(4, channels, 9, 9) * 2
    exact = conv.weight.detach().double().numpy()
    rounded = on_steps(exact)
    same = torch.full_like(maps, 0) + maps.mean(dim=(0, 2, 3), keepdim=True)
    before = conv(same).mean(dim=(0, 2, 3))
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(rounded))
    moved = (conv(same).mean(dim=(0, 2, 3)) - before).detach().numpy()
    mean = maps.mean(dim=(0, 2, 3)).double().numpy()
    np.testing.assert_allclose(shift(rounded - exact, mean), moved, atol=1e-6)
    assert np.abs(moved).max() > 1e-4


def test_each_output_has_127_steps_a_side():
    weights = np.random.default_rng(0).normal(size=(5, 3, 3, 3)) * np.logspace(-3, 3, 5).reshape(
        5, 1, 1, 1
    )
    weights[2] = 0
    rounded = on_steps(weights)
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    steps = rounded * 127 / np.where(largest > 0, largest, 1)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
    np.testing.assert_allclose(rounded, weights, atol=float(largest.max()) / 253)
    assert np.abs(steps).max() == pytest.approx(127)
