"""Copies of a data folder as other cameras would have made it, and what is compared on them."""

import io
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from common.arrays import Floats, Ints
from common.data.dataset import IMAGE_FOLDER, Dataset
from common.data.pictures import short_side
from common.data.tables.ham10000 import write_metadata

_RESAMPLES = 1000
_QUALITY = 85  # of JPEG, as the images of HAM10000 here have it; PNG has no use for it


class Encoding(StrEnum):
    """How a camera saves its images."""

    JPEG = "jpeg"
    PNG = "png"


def one_a_lesion(dataset: Dataset, most: int, seed: int = 0) -> Dataset:
    """Return one image of each lesion, of at most ``most`` lesions of each diagnosis."""
    order = np.random.default_rng(seed).permutation(len(dataset))
    _, first = np.unique(dataset.lesions[order], return_index=True)
    one = order[np.sort(first)]
    labels = dataset.labels[one]
    kept = np.concatenate([one[labels == label][:most] for label in np.unique(labels)])
    return dataset.select(np.sort(kept))


def smaller_camera(dataset: Dataset, side: int, encoding: Encoding, folder: Path) -> Dataset:
    """Write a data folder of the same images with ``side`` pixels on their short side, and open it.

    Pixels are reduced by Lanczos' filter, which is not the program's own. As PNG they stay so; as
    JPEG they are encoded with half the pixels of colour, which is usual.
    """
    images = folder / IMAGE_FOLDER
    images.mkdir(parents=True)
    for image in dataset.images:
        data = _reduced(dataset.read(image.image_id), side, encoding)
        (images / f"{image.image_id}.{encoding}").write_bytes(data)
    write_metadata(folder, dataset.images)
    return Dataset.open(folder)


def _reduced(data: bytes, side: int, encoding: Encoding) -> bytes:
    with Pillow.open(io.BytesIO(data)) as image:
        scale = side / min(image.size)
        width, height = (round(length * scale) for length in image.size)
        small = image.convert("RGB").resize((width, height), Pillow.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, encoding.upper(), quality=_QUALITY)
    return file.getvalue()


def shortest(dataset: Dataset) -> int:
    """Return the short side, in pixels, of a dataset's smallest image."""
    return min(short_side(dataset.read(image.image_id)) for image in dataset.images)


def balanced_accuracy(labels: Ints, found: Floats) -> float:
    """Return the mean recall over the diagnoses present, in [0, 1].

    Parameters
    ----------
    labels : (n,) diagnoses.
    found : (n,) 1 where it was found, 0 where it was not.
    """
    return float(np.mean([found[labels == k].mean() for k in np.unique(labels)]))


def paired_interval(labels: Ints, better: Floats, worse: Floats, seed: int = 0) -> Floats:
    """Return the 95 % interval (2,) of a gap in balanced accuracy, over resampled lesions.

    Parameters
    ----------
    labels : (n,) diagnoses, one of each lesion.
    better, worse : (n,) 1 where each of the two found it, 0 where it did not.
    """
    rng = np.random.default_rng(seed)
    gaps = better - worse
    drawn = [_means(gaps[labels == k], rng) for k in np.unique(labels)]
    return np.quantile(np.mean(drawn, axis=0), [0.025, 0.975])


def gap(labels: Ints, better: Floats, worse: Floats) -> str:
    """Return the gap in balanced accuracy and its :func:`paired_interval`, for a table.

    Parameters
    ----------
    labels, better, worse : (n,), as for :func:`paired_interval`.
    """
    value = balanced_accuracy(labels, better) - balanced_accuracy(labels, worse)
    low, high = paired_interval(labels, better, worse)
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def _means(gaps: Floats, rng: np.random.Generator) -> Floats:
    return np.array([gaps[rng.integers(0, len(gaps), len(gaps))].mean() for _ in range(_RESAMPLES)])
