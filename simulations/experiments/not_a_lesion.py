"""How many pictures of something else a model's pretrained network tells from lesions, by kind.

``python -m simulations.experiments.not_a_lesion DATA MODEL`` learns how lesions look from training
lesions, takes the threshold from validation lesions, and judges test lesions and other pictures.
"""

import io
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import binomtest
from torch import Tensor, nn
from tqdm import tqdm

from common.answers.appearance import SHARE, DistanceCounts
from common.arrays import Bools, Floats, Floats32, Ints
from common.data.dataset import Dataset
from common.features.augment import normalise, prediction_view
from common.features.backbone import input_statistics, load_backbone
from common.features.inference_engine import one_thread_per_core, onnx_engine
from common.models.file import Model, load_model
from simulations.experiments.appearance_scores import SCORES, Statistics
from simulations.experiments.drawn_pictures import DRAWN, Draw
from simulations.experiments.sample_pictures import SAMPLES, crop, skin
from simulations.runtimes.experiment import with_splits

_CHOSEN = "appearance"
_QUALITY = 85  # of JPEG, as the lesions have it
_SEARCHED = 6  # images for each wanted picture of skin: many lesions leave no corner free


class Pictures(NamedTuple):
    """What is measured: n pictures, lesions among them.

    Attributes
    ----------
    files : their bytes.
    kinds : (n,) the source of a lesion, the kind of another picture.
    parts : (n,) "train", "validation" or "test" for a lesion, "" for another picture.
    labels : (n,) diagnoses of lesions, 0 for other pictures.
    """

    files: Sequence[bytes]
    kinds: NDArray[np.str_]
    parts: NDArray[np.str_]
    labels: Ints


def gather(dataset: Dataset, lesions: int, each: int, seed: int = 0) -> Pictures:
    """Choose one image of each of some lesions, and draw pictures of everything else.

    Parameters
    ----------
    dataset : with the splits of a run.
    lesions : number of lesions of each part, at most.
    each : number of pictures of each kind.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(dataset))
    _, first = np.unique(dataset.lesions[order], return_index=True)
    one = order[np.sort(first)]
    part = np.where(
        dataset.splits == "test", "test", np.where(dataset.splits == "0", "validation", "train")
    )
    chosen = np.concatenate(
        [one[part[one] == name][:lesions] for name in ("train", "validation", "test")]
    )
    others = list(_others(dataset.select(one[part[one] == "test"]), each))
    files = [dataset.read(dataset.images[i].image_id) for i in chosen]
    kinds = [*dataset.sources[chosen], *(kind for kind, _ in others)]
    return Pictures(
        [*files, *(_jpeg(picture) for _, picture in others)],
        np.array(kinds),
        np.append(part[chosen], np.full(len(others), "")),
        np.append(dataset.labels[chosen], np.zeros(len(others), dtype=np.int64)),
    )


def statistics(model: Model, files: Sequence[bytes]) -> Statistics:
    """Return the statistics of the maps that a model's pretrained network has of whole images.

    Parameters
    ----------
    files : contents of n image files.

    Returns
    -------
    By name, over all channels of a level: "mean 1", "deviation 1" and so on, (n, channels); "mean"
    of the final map, (n, D).
    """
    network = _MapStatistics(load_backbone(model.config.backbone, model.config.weights))
    mean, std = input_statistics(model.config.backbone)
    spec = model.config.feature_spec
    built: Any = network  # an engine runs any network of one output
    with tempfile.TemporaryDirectory() as folder, one_thread_per_core() as pool:
        engine = onnx_engine(lambda: built, spec.size, Path(folder) / "network.onnx")

        def row(data: bytes) -> Floats32:
            view = prediction_view(spec.transform.image(data), 0, spec.size)
            return engine(normalise(view, mean, std))

        rows = list(tqdm(pool.map(row, files), total=len(files), unit="image", disable=None))
    edges = np.cumsum([0, *network.sizes.values()])
    columns = np.stack(rows).astype(np.float64)
    return {n: columns[:, a:b] for n, a, b in zip(network.sizes, edges, edges[1:], strict=False)}


def flagged(distances: Floats, pictures: Pictures) -> Bools:
    """Return which pictures (n,) lie beyond the threshold of the validation lesions.

    Parameters
    ----------
    distances : (n,).
    """
    counts = DistanceCounts.measure(distances[pictures.parts == "validation"])
    threshold = counts.threshold()
    if threshold is None:
        raise typer.BadParameter("too few lesions for a threshold; give more --lesions")
    return np.asarray(distances > threshold)


def main(
    data: Annotated[Path, typer.Argument(help="Folder of HAM10000, with masks.")],
    file: Annotated[Path, typer.Argument(help="A run's model.safetensors.")],
    lesions: Annotated[int, typer.Option(help="Lesions of each part, at most.")] = 2000,
    pictures: Annotated[int, typer.Option(help="Other pictures of each kind.")] = 60,
    compare: Annotated[bool, typer.Option(help="Compare all scores too.")] = False,
) -> None:
    """Print which share of each kind of pictures is flagged, as a Markdown table."""
    model = load_model(file)
    shown = gather(with_splits(data, model.config), lesions, pictures)
    features = statistics(model, shown.files)
    train = shown.parts == "train"
    distances = SCORES[_CHOSEN](features, train, shown.labels)
    for line in table(flagged(distances, shown), shown):
        typer.echo(line)
    if compare:
        for line in _comparison(features, shown):
            typer.echo(line)


def table(flags: Bools, pictures: Pictures) -> Iterator[str]:
    """Yield the lines of a table: test lesions by source, then other pictures by kind.

    Parameters
    ----------
    flags : (n,) which pictures are flagged.
    """
    yield "| what is shown | pictures | flagged | 95 % interval |"
    yield "|---|---|---|---|"
    test, other = pictures.parts == "test", pictures.parts == ""
    yield _row("test lesions", flags[test])
    for source in np.unique(pictures.kinds[test]):
        yield _row(f"test lesions of {source}", flags[test & (pictures.kinds == source)])
    yield _row("all other pictures", flags[other])
    for kind in dict.fromkeys(pictures.kinds[other].tolist()):
        yield _row(kind, flags[other & (pictures.kinds == kind)])


def _row(what: str, flags: Bools) -> str:
    share = 100 * flags.mean()
    interval = binomtest(int(flags.sum()), len(flags)).proportion_ci(method="wilson")
    low, high = 100 * interval.low, 100 * interval.high
    return f"| {what} | {len(flags)} | {share:.1f} % | {low:.1f} to {high:.1f} |"


def _comparison(features: Statistics, pictures: Pictures) -> Iterator[str]:
    yield ""
    yield "| score | test lesions flagged | other pictures flagged, mean of kinds | worst kind |"
    yield "|---|---|---|---|"
    other = pictures.parts == ""
    for name, score in SCORES.items():
        values = score(features, pictures.parts == "train", pictures.labels)
        # Other scores do not fit the bins of distances.
        flags = values > np.quantile(values[pictures.parts == "validation"], 1 - SHARE)
        kinds = np.unique(pictures.kinds[other])
        shares = [100 * flags[other & (pictures.kinds == kind)].mean() for kind in kinds]
        worst = int(np.argmin(shares))
        lesions = 100 * flags[pictures.parts == "test"].mean()
        yield (
            f"| {name} | {lesions:.1f} % | {np.mean(shares):.1f} % | "
            f"{kinds[worst]}, {shares[worst]:.0f} % |"
        )


def _others(dataset: Dataset, each: int) -> Iterator[tuple[str, Image.Image]]:
    draws: dict[str, Draw] = {**DRAWN}
    draws |= {kind: partial(crop, kind) for kind in SAMPLES}
    for kind, draw in draws.items():
        rng = np.random.default_rng(zlib.crc32(kind.encode()))
        yield from ((kind, draw(rng)) for _ in range(each))
    searched = np.arange(min(len(dataset), _SEARCHED * each))
    yield from _at_most(skin(dataset.select(searched)), each)


def _at_most(
    pictures: Iterable[tuple[str, Image.Image]], each: int
) -> Iterator[tuple[str, Image.Image]]:
    counts: Counter[str] = Counter()
    for kind, picture in pictures:
        counts[kind] += 1
        if counts[kind] <= each:
            yield kind, picture


def _jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=_QUALITY)
    return file.getvalue()


class _MapStatistics(nn.Module):
    """Means and standard deviations of all levels' channels, side by side."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone
        channels = [info["num_chs"] for info in backbone.feature_info]
        self.sizes = {
            f"{name} {level}": size
            for level, size in enumerate(channels, 1)
            for name in ("mean", "deviation")
        }
        self.sizes["mean"] = backbone.num_features

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (n, 3, h, w) to statistics (n, D)."""
        final, maps = self.backbone.forward_intermediates(images)
        both = [s for m in maps for s in (m.mean(dim=(2, 3)), m.std(dim=(2, 3), correction=0))]
        return torch.cat([*both, final.mean(dim=(2, 3))], dim=1)


if __name__ == "__main__":
    typer.run(main)
