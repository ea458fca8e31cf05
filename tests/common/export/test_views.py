"""The graph cuts the views that Pillow cuts, from pictures of all shapes and any light."""

import io

import numpy as np
import pytest
from onnx import inliner
from PIL import Image as Pillow

from common.export.session import Exported
from common.export.views import views_graph
from common.features.augment import PREDICTION_VIEWS, normalise, prediction_view
from common.features.extract import FeatureSpec
from common.features.transform import Transform

STATISTICS = (0.5, 0.4, 0.6), (0.2, 0.25, 0.3)
SHAPES = [(97, 131), (300, 200), (64, 64), (150, 447), (301, 226)]


def picture(shape: tuple[int, int], seed: int) -> Pillow.Image:
    """Draw a picture of all frequencies, with some pixels at both ends of the scale."""
    rng = np.random.default_rng(seed)
    coarse = Pillow.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(shape[::-1], Pillow.Resampling.BICUBIC), dtype=np.float64)
    noisy = smooth * (1.2, 1.0, 0.7) + rng.normal(0, 20, smooth.shape)
    return Pillow.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("colour", ["none", "grey-world", "shades-of-gray"])
def test_views_are_those_of_pillow(colour):
    transform = Transform(resolution=150, colour=colour)
    spec = FeatureSpec(size=48, predictions=PREDICTION_VIEWS, transform=transform)
    graph = views_graph(spec, STATISTICS, 20, 10)
    exported = Exported(inliner.inline_local_functions(graph).SerializeToString())
    for seed, shape in enumerate(SHAPES):
        drawn, file = picture(shape, seed), io.BytesIO()
        drawn.save(file, "PNG")
        working = transform.image(file.getvalue())
        views = [prediction_view(working, number, 48) for number in range(PREDICTION_VIEWS)]
        wanted = np.stack([normalise(view, *STATISTICS) for view in views])
        (found,) = exported.outputs(np.asarray(drawn))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
