"""What a model loses where images come from a camera of another size, or of another light.

``python -m simulations.bench.resolution svm DATA`` trains at one size and tests at another, at
several working resolutions; ``finetune DATA`` does so for fine-tuning, and ``colour DATA`` leaves
one source of images out of the training and tests on it.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache as cache_results
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from sklearn.svm import LinearSVC

from common.arrays import Bools, Floats, Ints
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.splits import folds, holdout
from common.features.extract import Features, FeatureSpec, extract
from common.features.transform import Colour, Transform
from common.formats import markdown_table
from common.models.file import load_model
from common.models.linear import average_views
from common.models.network import NetworkModel
from common.statistics.moments import Moments
from common.svm.feature_map import FeatureMap
from common.svm.objective import balanced_weights
from server.run.folder import model_file
from simulations.bench.cameras import (
    balanced_accuracy,
    one_a_lesion,
    paired_interval,
    shortest,
    smaller_camera,
)
from simulations.data.partition import write_site
from simulations.runtimes.experiment import simulate

LARGE, SMALL = "large", "small"

_FOLDS = 5
_C = 1e-4
_COMPONENTS = 512
_COLOURS: tuple[Colour, ...] = ("none", "grey-world", "shades-of-gray")
_CASES = ((LARGE, LARGE), (SMALL, LARGE), (SMALL, SMALL), (LARGE, SMALL))
"""Sizes of training and test, each pair of the same test size together."""

Predict = Callable[[str, str], Ints]
"""Maps the sizes of training and test to the diagnoses (n,) of the lesions."""

Data = Annotated[Path, typer.Argument(help="Folder laid out like HAM10000.")]
Most = Annotated[int, typer.Option(help="Lesions of each diagnosis, at most.")]
Side = Annotated[int, typer.Option(help="Short side of the smaller camera's images, in pixels.")]
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
    size: Annotated[int, typer.Option(help="Pixels of a view.")] = 224,
    cache: Cache = _CACHE,
) -> None:
    """Train linear SVMs at one size and test them at another, over five folds of lesions."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = _sizes(one_a_lesion(Dataset.open(data), most), side, Path(folder))
        typer.echo(_described(sizes))
        for pixels in resolution:
            spec = FeatureSpec(size=size, views=2, predictions=2, transform=Transform(pixels))
            features = {n: _features(d, spec, cache) for n, d in sizes.items()}
            labels = sizes[LARGE].labels
            typer.echo(_table(pixels, labels, _by_folds(sizes[LARGE], features)))


@app.command()
def finetune(
    data: Data,
    resolution: Resolutions,
    most: Most = 600,
    side: Side = 112,
    local_epochs: Annotated[float, typer.Option(help="Share of the images in a round.")] = 0.1,
    rounds: Annotated[str, typer.Option(help="Rounds of the stages; empty: the default.")] = "",
    cache: Cache = _CACHE,
) -> None:
    """Fine-tune on half of the lesions at one size, and test the others at another."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = _sizes(one_a_lesion(Dataset.open(data), most), side, Path(folder))
        typer.echo(_described(sizes))
        tested = holdout(sizes[LARGE], 0.5, 0)
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
            predict = _by_networks(sizes, tested, models, usual, pixels, Path(folder))
            typer.echo(_table(pixels, sizes[LARGE].labels[tested], predict))


@app.command()
def colour(data: Data, most: Most = 600, cache: Cache = _CACHE) -> None:
    """Train linear SVMs without one source of images and test them on it, each in turn."""
    dataset = one_a_lesion(Dataset.open(data), most)
    predicted: dict[Colour, Ints] = {}
    for name in _COLOURS:
        spec = FeatureSpec(views=2, predictions=2, transform=Transform(colour=name))
        predicted[name] = _unseen(dataset, extract(dataset, spec, cache.expanduser(), True))
    typer.echo(_colour_table(dataset, predicted))


def _sizes(dataset: Dataset, side: int, folder: Path) -> dict[str, Dataset]:
    return {LARGE: dataset, SMALL: smaller_camera(dataset, side, folder / SMALL)}


def _described(sizes: Mapping[str, Dataset]) -> str:
    sides = " and ".join(f"{name}: {shortest(each)} pixels" for name, each in sizes.items())
    return f"{len(sizes[LARGE])} lesions, one image of each; short side {sides}\n"


def _own(transform: Transform, dataset: Dataset) -> Transform:
    """Return the same transform for these images as it is kept for all larger resolutions."""
    return replace(transform, resolution=min(transform.resolution, shortest(dataset)))


def _features(dataset: Dataset, spec: FeatureSpec, cache: Path) -> Features:
    own = replace(spec, transform=_own(spec.transform, dataset))
    return extract(dataset, own, cache.expanduser(), True)


def _by_folds(dataset: Dataset, features: Mapping[str, Features]) -> Predict:
    fold, labels = folds(dataset, _FOLDS, 0), dataset.labels
    shape = (len(features), len(labels))
    found = {
        train: dict(zip(features, np.empty(shape, dtype=np.int64), strict=True))
        for train in features
    }
    for train, k in itertools.product(features, range(_FOLDS)):
        held = np.asarray(fold == k)
        judge = _fitted(features[train], labels, ~held)
        for test, predicted in found[train].items():
            predicted[held] = judge(features[test], held)
    return lambda train, test: found[train][test]


def _unseen(dataset: Dataset, features: Features) -> Ints:
    """Return the diagnoses (n,) by SVMs that saw no image of the lesion's source."""
    predicted = np.empty(len(dataset), dtype=np.int64)
    for source in np.unique(dataset.sources):
        held = np.asarray(dataset.sources == source)
        predicted[held] = _fitted(features, dataset.labels, ~held)(features, held)
    return predicted


def _fitted(train: Features, labels: Ints, learnt: Bools) -> Callable[[Features, Bools], Ints]:
    """Return what diagnoses images by a balanced SVM on principal components.

    Parameters
    ----------
    labels, learnt : (n,) diagnoses, and which images are learnt.
    """
    views = train.train[learnt]
    X, y = views.reshape(-1, views.shape[2]), np.repeat(labels[learnt], views.shape[1])
    weight = np.full(len(y), 1 / views.shape[1])
    moments = Moments.measure(X, y, weight, int(labels.max()) + 1)
    mapping = FeatureMap.principal(moments, _COMPONENTS)
    classifier = LinearSVC(C=_C, dual=False)
    weights = balanced_weights(moments.class_weight)[y] * weight
    classifier.fit(mapping.apply(X), y, sample_weight=weights)

    def judge(test: Features, tested: Bools) -> Ints:
        found: Ints = classifier.predict(average_views(mapping, test.predict[tested]))
        return found

    return judge


def _by_networks(
    sizes: Mapping[str, Dataset],
    tested: Bools,
    models: dict[tuple[str, int], NetworkModel],
    usual: Mapping[str, object],
    pixels: int,
    folder: Path,
) -> Predict:
    """Return what predicts by networks at a resolution of ``pixels``.

    Parameters
    ----------
    tested : (n,) which images are tested on; the others are trained on.
    models : by size and resolution of the training; one that is missing is trained and kept.
    usual : the settings of a training.
    """

    @cache_results
    def predict(train: str, test: str) -> Ints:
        own = min(pixels, shortest(sizes[train]))
        if (train, own) not in models:
            out = folder / f"run-{train}-{own}"
            config = RunConfig.read({**usual, "resolution": own, "out": out})
            sites = folder / f"sites-{train}-{own}"
            models[train, own] = _tuned(sizes[train], tested, config, sites)
        model = models[train, own]
        config = model.config.model_copy(update={"resolution": pixels})
        images = sizes[test].select(tested)
        return model.basis.decide(replace(model, config=config).dataset_scores(images, folder))

    return predict


def _tuned(dataset: Dataset, tested: Bools, config: RunConfig, sites: Path) -> NetworkModel:
    assert config.out is not None
    splits: NDArray[np.str_] = np.where(tested, "test", folds(dataset, config.folds, 0).astype(str))
    write_site(dataset.with_splits(splits), sites / "pooled", link=True)
    simulate(config.model_copy(update={"sites": sites}))
    model = load_model(model_file(config.out))
    assert isinstance(model, NetworkModel)
    return model


def _table(pixels: int, labels: Ints, predict: Predict) -> str:
    """Return a resolution's table: each pair of sizes beside two without a change of size."""
    rows = []
    for train, test in _CASES:
        found, rival = predict(train, test), predict(test, test)
        value, *others = (
            balanced_accuracy(labels, each) for each in (found, rival, predict(train, train))
        )
        low, high = paired_interval(labels, found == labels, rival == labels)
        gaps = [f"{value - other:+.3f}" for other in others]
        rows.append((str(pixels), train, test, f"{value:.3f}", *gaps, _interval(low, high)))
    header = ("resolution", "trained", "tested", "balanced accuracy")
    beside = ("beside training at the tested size", "beside testing at the trained size")
    return markdown_table((*header, *beside, "95 % of the first"), rows)


def _interval(low: float, high: float) -> str:
    return f"{low:+.3f} to {high:+.3f}"


def _colour_table(dataset: Dataset, predicted: Mapping[Colour, Ints]) -> str:
    return markdown_table(
        ("colour", *np.unique(dataset.sources).tolist(), "all, each unseen", "gap", "95 %"),
        list(_colour_rows(dataset, predicted)),
    )


def _colour_rows(dataset: Dataset, predicted: Mapping[Colour, Ints]) -> Iterator[Sequence[str]]:
    labels = dataset.labels
    for name, found in predicted.items():
        sites = [dataset.sources == source for source in np.unique(dataset.sources)]
        values: list[Floats | float] = [balanced_accuracy(labels[s], found[s]) for s in sites]
        whole = balanced_accuracy(labels, found)
        low, high = paired_interval(labels, found == labels, predicted["none"] == labels)
        gap = whole - balanced_accuracy(labels, predicted["none"])
        yield (
            name,
            *(f"{v:.3f}" for v in values),
            f"{whole:.3f}",
            f"{gap:+.3f}",
            _interval(low, high),
        )


if __name__ == "__main__":
    app()
