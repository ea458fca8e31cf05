"""The components of generated pictures are a file that every site has, of one network."""

from dataclasses import replace

import numpy as np
import pytest

from common.config.run import RunConfig
from common.features.extract import FeatureSpec
from common.privacy.public_components import FILE, PublicComponents

SPEC = FeatureSpec()
N_FEATURES = 1752


def test_a_private_run_has_no_more_components_than_the_file():
    components = PublicComponents.of(SPEC, N_FEATURES)
    assert components is PublicComponents.of(replace(SPEC, size=128, views=2), N_FEATURES)
    assert components.matrix.shape == (N_FEATURES, 256)
    assert RunConfig(method="private").components <= 256
    assert FILE.stat().st_size < 2**20  # what Flower packs of one file, at most


@pytest.mark.parametrize(
    ("spec", "n_features"),
    [
        (SPEC, 96),
        (replace(SPEC, levels=1), N_FEATURES),
        (replace(SPEC, backbone="resnet18.a1_in1k"), N_FEATURES),
    ],
)
def test_there_are_none_of_another_network(spec, n_features):
    assert PublicComponents.of(spec, n_features) is None


def test_components_are_those_of_the_means_of_views_with_variances_a_little_evened():
    rng = np.random.default_rng(0)
    spread = np.array([3.0, 2.0, 1.0, 0.5, 0.1, 0.1])
    views = 5 + rng.standard_normal((4000, 2, 6)) * spread
    components = PublicComponents.compute(views, 3)
    np.testing.assert_allclose(components.mean, views.mean(axis=(0, 1)))
    variances = views.mean(axis=1).var(axis=0)
    mixed = 0.9 * variances + 0.1 * variances.mean()
    expected = np.eye(6)[:, :3] * mixed[:3] ** -0.125
    np.testing.assert_allclose(np.abs(components.matrix), expected, atol=0.05)


def test_a_file_holds_them_rounded_to_8_bits(tmp_path):
    rng, file = np.random.default_rng(1), tmp_path / "components.json"
    components = PublicComponents(rng.standard_normal(20), rng.standard_normal((20, 4)))
    components.write(file)
    read = PublicComponents.read(file)
    np.testing.assert_allclose(read.mean, components.mean, rtol=1e-6)
    largest = np.abs(components.matrix).max(axis=0)
    assert (np.abs(read.matrix - components.matrix) <= largest / 127 / 2 * 1.001).all()
