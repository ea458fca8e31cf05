"""No two series of a study look alike, whatever it compares and whoever reads it."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.study.cells import Arm
from simulations.study.report.charts.style import DARK, LIGHT, Styles

NAMES = st.text("abcdefghijklmnop", min_size=1, max_size=3)

# Machado, Oliveira and Fernandes (2009), "A physiologically-based model for simulation of color
# vision deficiency", severity 1: linear RGB as it is seen.
SEEN = {
    "all": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = TO_XYZ.sum(axis=1)


@given(
    routes=st.lists(NAMES, min_size=1, max_size=20, unique=True),
    spreads=st.lists(NAMES, min_size=1, max_size=6, unique=True),
    sites=st.lists(NAMES, max_size=8, unique=True),
)
def test_no_two_series_share_colour_line_and_marker(routes, spreads, sites):
    ways = [*((spread, "") for spread in spreads), *((spreads[0], site) for site in sites)]
    arms = [Arm(route, *way, 1.0) for route in routes for way in ways]
    styles = Styles.of(arms)
    assert len({styles[arm] for arm in arms}) == len(arms)
    for arm in arms:
        assert styles[arm._replace(scale=0.5)] == styles[arm]
        others = [styles[other] for other in arms if other.route != arm.route]
        if len(routes) <= len(LIGHT):
            assert styles[arm].colour not in {other.colour for other in others}


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("seen", SEEN)
def test_colours_are_apart_for_every_eye(palette, seen):
    """Twenty in CIELAB is far: 2.3 are just seen."""
    colours = [_lab(np.asarray(SEEN[seen]) @ _linear(colour)) for colour in palette]
    assert min(np.linalg.norm(a - b) for a, b in combinations(colours, 2)) > 20


def _linear(colour):
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def _lab(linear):
    x, y, z = np.cbrt(TO_XYZ @ np.clip(linear, 0, 1) / WHITE)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])
