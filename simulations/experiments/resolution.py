"""What a model loses where images come from a camera of another size.

``python -m simulations.experiments.resolution svm DATA`` trains at one size and tests at another,
at several working resolutions; ``finetune DATA`` does so for fine-tuning, and ``model RUN`` tests a
finished model at both. The smaller images are written as JPEG, as a camera does, and as PNG: what
only the former lose is the encoding's.
"""

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache as cache_results
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from client.open_site import site_folders
from common.arrays import Bools, Floats, Ints
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.splits import TEST, folds, holdout
from common.features.extract import Features, FeatureSpec, extract
from common.features.transform import Transform
from common.formats import markdown_table
from common.models.file import Model, load_model
from common.models.network import NetworkModel
from server.run.folder import CONFIG_FILE, model_file
from simulations.data.agreed_task import for_task
from simulations.data.partition import write_site
from simulations.experiments.cameras import (
    Encoding,
    balanced_accuracy,
    gap,
    one_a_lesion,
    shortest,
    smaller_camera,
)
from simulations.experiments.plain_svm import fitted
from simulations.runtimes.experiment import simulate

LARGE = "large"

_FOLDS = 5
_ENCODINGS = list(Encoding)

Found = Callable[[str, str], Floats]
"""Maps cameras of training and test to whether each diagnosis was found, (n,) of 0 and 1."""

Data = Annotated[Path, typer.Argument(help="Folder laid out like HAM10000.")]
Most = Annotated[int, typer.Option(help="Lesions of each diagnosis, at most.")]
Side = Annotated[int, typer.Option(help="Short side of the smaller camera's images, in pixels.")]
Encodings = Annotated[list[Encoding], typer.Option(help="How the smaller images are saved.")]
Resolutions = Annotated[list[int], typer.Option(help="Working resolutions, in pixels.")]
Cache = Annotated[Path, typer.Option(help="Folder for features.")]

app = typer.Typer(add_completion=False, help=__doc__)

_CACHE = Path("~/.cache/fedderm")


@app.command()
def svm(
    data: Data,
    resolution: Resolutions,
    most: Most = 600,
    side: Side = 112,
    encoding: Encodings = _ENCODINGS,
    views: Annotated[int, typer.Option(help="Augmented views of an image; 0: none.")] = 2,
    cache: Cache = _CACHE,
) -> None:
    """Train linear SVMs at one size and test them at another, over five folds of lesions."""
    with tempfile.TemporaryDirectory() as folder:
        cameras = _cameras(one_a_lesion(Dataset.open(data), most), side, encoding, Path(folder))
        for pixels in resolution:
            spec = FeatureSpec(views=views, predictions=2, transform=Transform(pixels))
            features = {n: _features(d, spec, cache) for n, d in cameras.items()}
            found = _by_folds(cameras[LARGE], features)
            typer.echo(_table(pixels, cameras[LARGE].labels, found, list(cameras)))


@app.command()
def finetune(
    data: Data,
    resolution: Resolutions,
    most: Most = 600,
    side: Side = 112,
    encoding: Encodings = _ENCODINGS,
    local_epochs: Annotated[float, typer.Option(help="Share of the images in a round.")] = 0.1,
    rounds: Annotated[str, typer.Option(help="Rounds of the stages; empty: the default.")] = "",
    cache: Cache = _CACHE,
) -> None:
    """Fine-tune on half of the lesions at one size, and test the others at another."""
    with tempfile.TemporaryDirectory() as folder:
        cameras = _cameras(one_a_lesion(Dataset.open(data), most), side, encoding, Path(folder))
        tested = holdout(cameras[LARGE], 0.5, 0)
        usual: dict[str, object] = {
            "method": "finetune",
            "predictions": 1,
            "local_epochs": local_epochs,
            "rounds": rounds,
            "folds": 5,
            "cache": cache,
        }
        models: dict[tuple[str, int], NetworkModel] = {}
        for pixels in resolution:
            found = _by_networks(cameras, tested, models, usual, pixels, Path(folder))
            typer.echo(_table(pixels, cameras[LARGE].labels[tested], found, list(cameras)))


@app.command()
def model(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    side: Side = 112,
    encoding: Encodings = _ENCODINGS,
    cache: Cache = _CACHE,
) -> None:
    """Test a model on the test lesions of its run's sites as each camera has them."""
    trained = load_model(model_file(run))
    sites = Path(json.loads((run / CONFIG_FILE).read_text())["sites"])
    with tempfile.TemporaryDirectory() as folder:
        parts = [
            _found(trained, _tested(site, trained), side, encoding, Path(folder) / site.name, cache)
            for site in site_folders(sites)
        ]
    labels, found = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
    rows = [
        (name, f"{balanced_accuracy(labels, each):.3f}", gap(labels, each, found[0]))
        for name, each in zip((LARGE, *encoding), found, strict=True)
    ]
    typer.echo(f"{len(labels)} test lesions, one image of each\n")
    typer.echo(markdown_table(("tested on", "balanced accuracy", "gap (95 %)"), rows))


def _tested(site: Path, trained: Model) -> Dataset:
    dataset = for_task(Dataset.open(site), trained.config.task)
    tested = dataset.select(dataset.splits == TEST)
    return one_a_lesion(tested, len(tested))


def _found(
    trained: Model,
    dataset: Dataset,
    side: int,
    encodings: list[Encoding],
    folder: Path,
    cache: Path,
) -> tuple[Ints, Floats]:
    """Return diagnoses (n,) and which each camera lets the model find, (n_cameras, n)."""
    smaller = [smaller_camera(dataset, side, each, folder / each) for each in encodings]
    scores = [trained.dataset_scores(each, cache.expanduser()) for each in (dataset, *smaller)]
    decided = np.array([trained.basis.decide(each) for each in scores])
    return dataset.labels, (decided == dataset.labels).astype(float)


def _cameras(
    dataset: Dataset, side: int, encodings: list[Encoding], folder: Path
) -> dict[str, Dataset]:
    """Return the images as they are and as smaller cameras have them, and print how many."""
    cameras = {LARGE: dataset}
    for each in encodings:
        cameras[each] = smaller_camera(dataset, side, each, folder / each)
    sides = ", ".join(f"{name} {shortest(own)}" for name, own in cameras.items())
    typer.echo(f"{len(dataset)} lesions, one image of each; pixels of the short side: {sides}\n")
    return cameras


def _own(transform: Transform, dataset: Dataset) -> Transform:
    """Return the same transform for these images as it is kept for all larger resolutions."""
    return replace(transform, resolution=min(transform.resolution, shortest(dataset)))


def _features(dataset: Dataset, spec: FeatureSpec, cache: Path) -> Features:
    own = replace(spec, transform=_own(spec.transform, dataset))
    return extract(dataset, own, cache.expanduser(), True)


def _by_folds(dataset: Dataset, features: Mapping[str, Features]) -> Found:
    fold, labels = folds(dataset, _FOLDS, 0), dataset.labels
    found = {pair: np.zeros(len(labels)) for pair in itertools.product(features, features)}
    for train, k in itertools.product(features, range(_FOLDS)):
        held = np.asarray(fold == k)
        judge = fitted(features[train], labels, ~held)
        for test, each in features.items():
            found[train, test][held] = judge(each, held)
    return lambda train, test: found[train, test]


def _by_networks(
    cameras: Mapping[str, Dataset],
    tested: Bools,
    models: dict[tuple[str, int], NetworkModel],
    usual: Mapping[str, object],
    pixels: int,
    folder: Path,
) -> Found:
    """Return what finds diagnoses by networks at a resolution of ``pixels``.

    Parameters
    ----------
    tested : (n,) which images are tested on; the others are trained on.
    models : by camera and resolution of the training; one that is missing is trained and kept.
    usual : the settings of a training.
    """

    @cache_results
    def found(train: str, test: str) -> Floats:
        own = min(pixels, shortest(cameras[train]))
        if (train, own) not in models:
            out = folder / f"run-{train}-{own}"
            config = RunConfig.read({**usual, "resolution": own, "out": out})
            sites = folder / f"sites-{train}-{own}"
            models[train, own] = _tuned(cameras[train], tested, config, sites)
        model = models[train, own]
        config = model.config.model_copy(update={"resolution": pixels})
        images = cameras[test].select(tested)
        scores = replace(model, config=config).dataset_scores(images, folder)
        return np.asarray(model.basis.decide(scores) == images.labels, dtype=float)

    return found


def _tuned(dataset: Dataset, tested: Bools, config: RunConfig, sites: Path) -> NetworkModel:
    assert config.out is not None
    splits: NDArray[np.str_] = np.where(tested, "test", folds(dataset, config.folds, 0).astype(str))
    write_site(dataset.with_splits(splits), sites / "pooled", link=True)
    simulate(config.model_copy(update={"sites": sites}))
    model = load_model(model_file(config.out))
    assert isinstance(model, NetworkModel)
    return model


def _table(pixels: int, labels: Ints, found: Found, cameras: list[str]) -> str:
    """Return a resolution's table: each camera alone, then what a change of camera costs."""
    header = ("resolution", "trained on", "tested on", "balanced accuracy")
    beside = ("beside training on the tested (95 %)", "beside testing on the trained (95 %)")
    return markdown_table((*header, *beside), list(_rows(pixels, labels, found, cameras)))


def _rows(pixels: int, labels: Ints, found: Found, cameras: list[str]) -> Iterator[tuple[str, ...]]:
    changed = [pair for other in cameras[1:] for pair in ((other, LARGE), (LARGE, other))]
    for train, test in [*((name, name) for name in cameras), *changed]:
        here = found(train, test)
        same = [(test, test), (train, train)] if train != test else []
        gaps = [gap(labels, here, found(*pair)) for pair in same] or ["", ""]
        yield str(pixels), train, test, f"{balanced_accuracy(labels, here):.3f}", *gaps


if __name__ == "__main__":
    app()
