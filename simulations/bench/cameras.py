"""Copies of a data folder as other cameras would have made it, and what is compared on them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from common.arrays import Bools, Floats, Ints
from common.data.dataset import IMAGE_FOLDER, Dataset
from common.data.pictures import short_side
from common.data.tables.ham10000 import write_metadata

_QUALITY = 85  # of JPEG, as the images of HAM10000 here have it
_RESAMPLES = 1000


def one_a_lesion(dataset: Dataset, most: int, seed: int = 0) -> Dataset:
    """Return one image of each lesion, of at most ``most`` lesions of each diagnosis."""
    order = np.random.default_rng(seed).permutation(len(dataset))
    _, first = np.unique(dataset.lesions[order], return_index=True)
    one = order[np.sort(first)]
    labels = dataset.labels[one]
    kept = np.concatenate([one[labels == label][:most] for label in np.unique(labels)])
    return dataset.select(np.sort(kept))


def smaller_camera(dataset: Dataset, side: int, folder: Path) -> Dataset:
    """Write a data folder of the same images with ``side`` pixels on their short side, and open it.

    Pixels are reduced by Lanczos' filter, which is not the program's own, and encoded as JPEG.
    """
    images = folder / IMAGE_FOLDER
    images.mkdir(parents=True)
    for image in dataset.images:
        data = _reduced(dataset.read(image.image_id), side)
        (images / f"{image.image_id}.jpg").write_bytes(data)
    write_metadata(folder, dataset.images)
    return Dataset.open(folder)


def _reduced(data: bytes, side: int) -> bytes:
    with Pillow.open(io.BytesIO(data)) as image:
        scale = side / min(image.size)
        width, height = (round(length * scale) for length in image.size)
        small = image.convert("RGB").resize((width, height), Pillow.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def shortest(dataset: Dataset) -> int:
    """Return the short side, in pixels, of a dataset's smallest image."""
    return min(short_side(dataset.read(image.image_id)) for image in dataset.images)


def recalls(labels: Ints, predicted: Ints) -> Floats:
    """Return which share of each diagnosis present was found, (n_present,), in [0, 1].

    Parameters
    ----------
    labels, predicted : (n,).
    """
    return np.array([np.mean(predicted[labels == k] == k) for k in np.unique(labels)])


def balanced_accuracy(labels: Ints, predicted: Ints) -> float:
    """Return the mean recall over the diagnoses present, in [0, 1].

    Parameters
    ----------
    labels, predicted : (n,).
    """
    return float(recalls(labels, predicted).mean())


def paired_interval(labels: Ints, better: Bools, worse: Bools, seed: int = 0) -> Floats:
    """Return the 95 % interval (2,) of a gap in balanced accuracy, over resampled lesions.

    Parameters
    ----------
    labels : (n,) diagnoses, one of each lesion.
    better, worse : (n,) whether each of the two found it.
    """
    rng = np.random.default_rng(seed)
    gaps = better.astype(float) - worse.astype(float)
    drawn = [_means(gaps[labels == k], rng) for k in np.unique(labels)]
    return np.quantile(np.mean(drawn, axis=0), [0.025, 0.975])


def _means(gaps: Floats, rng: np.random.Generator) -> Floats:
    return np.array([gaps[rng.integers(0, len(gaps), len(gaps))].mean() for _ in range(_RESAMPLES)])
