"""A trained model as scikit-learn's functions take it: from image files or pixels to diagnoses."""

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from common.answers.answer import Answer, Unreadable
from common.answers.answering import Answering, AnswerOptions
from common.answers.operating import balanced
from common.arrays import Floats
from common.data.metadata import UNKNOWN, About, Described
from common.data.patients import checked
from common.errors import DataError
from common.models.file import Prediction
from common.models.predictor import Predictor
from common.storage.reading import read_bytes
from common.task import Task

if TYPE_CHECKING:
    from sklearn.utils import Tags

Image = str | os.PathLike[str] | NDArray[np.uint8]
"""An image file, or red, green and blue pixels of shape (height, width, 3)."""


Rule = Literal["likeliest", "balanced"]

_NO_IMAGES = "there are no images; name image files, or give arrays"


class Classifier:
    """Diagnoses images by a trained model; no medical device.

    Its diagnoses are by one of two rules: ``likeliest``, the largest probability; or ``balanced``,
    the largest beside its base rate, which a run's accuracies are about. :meth:`answers` says more
    of an image: which diagnoses cannot be excluded, what stands out, and when to ask a person.

    Parameters
    ----------
    predictor : the model with its network.
    rule : by which :meth:`predict` and :meth:`diagnose` choose a diagnosis.

    Attributes
    ----------
    classes_ : (n_classes,) codes of the diagnoses, in the order of the probabilities.
    """

    def __init__(self, predictor: Predictor, rule: Rule = "likeliest") -> None:
        self._predictor, self._rule = predictor, rule
        self.classes_: NDArray[np.str_] = np.array(predictor.model.task.codes, dtype=np.str_)

    @property
    def task(self) -> Task:
        """The diagnoses that it tells apart: codes, full names, which are malignant."""
        return self._predictor.model.task

    def predict(self, images: Image | Iterable[Image]) -> NDArray[np.str_]:
        """Return the codes (n,) of n images' diagnoses; images and errors: :meth:`diagnose`."""
        return np.asarray(self.classes_[self.diagnose(images).labels])

    def predict_proba(self, images: Image | Iterable[Image]) -> Floats:
        """Return n images' calibrated probabilities (n, n_classes), in [0, 1]; rows sum to 1.

        Images and errors are those of :meth:`diagnose`.
        """
        return self.diagnose(images).probabilities

    def diagnose(self, images: Image | Iterable[Image]) -> Prediction:
        """Return all that the model says of images: diagnoses, probabilities, distances.

        Parameters
        ----------
        images : path, ndarray of uint8, or several of them
            JPEG, PNG, TIFF, BMP, WebP or DICOM files, or red, green and blue pixels in [0, 255], of
            shape (height, width, 3), neither of them below 64 pixels; n arrays of one size may be
            one, of shape (n, height, width, 3).

        Raises
        ------
        DataError
            If there is no image, one cannot be read or decoded, or an array is none of an image.
        """
        files: dict[str, bytes] = {}
        names = [_add(files, number, image) for number, image in enumerate(_each(images))]
        if not names:
            raise DataError(_NO_IMAGES)
        labels, probabilities, distance = self._predictor.predict(files)
        if self._rule == "balanced":
            labels = balanced(probabilities, self._predictor.model.basis.base_rates)
        place = {name: row for row, name in enumerate(files)}
        rows = [place[name] for name in names]
        distance = None if distance is None else distance[rows]
        return Prediction(labels[rows], probabilities[rows], distance)

    def answers(
        self,
        images: Image | Iterable[Image],
        options: AnswerOptions | None = None,
        about: Described | Sequence[Described] = UNKNOWN,
    ) -> list[Answer | Unreadable]:
        """Return what the model says of each image: how likely, how sure, or "ask a person".

        An image that cannot be read or decoded is an ``Unreadable``, and the others stand.

        Parameters
        ----------
        images : as for :meth:`diagnose`.
        options : coverage of the sets, sensitivity of the screening and more; None for the usual.
        about : what is known of the patient of all images, or of each image; a model without
            metadata says that it does not use it.

        Raises
        ------
        ConfigError
            If an age, a sex or a place is none.
        DataError
            If there is no image, an array is none of an image, or what is known is not of as many
            images.
        """
        answering = Answering(self._predictor.model.basis, options or AnswerOptions())
        files: dict[str, bytes] = {}
        found: dict[str, Answer | Unreadable] = {}
        names = []
        for number, image in enumerate(_each(images)):
            try:
                names.append(_add(files, number, image))
            except DataError as error:
                if not isinstance(image, str | os.PathLike):
                    raise
                names.append(str(Path(image)))
                found[names[-1]] = Unreadable(names[-1], str(error).removeprefix(f"{names[-1]} "))
        if not names:
            raise DataError(_NO_IMAGES)
        patients = _patients(names, about)
        answered = self._predictor.answer([*files.items()], answering, about=patients)
        found |= {name: each.answer for name, each in zip(files, answered, strict=True)}
        return [found[name] for name in names]

    def __sklearn_tags__(self) -> "Tags":
        from sklearn.utils import ClassifierTags, Tags, TargetTags

        target = TargetTags(required=True)
        return Tags("classifier", target, classifier_tags=ClassifierTags())


def _patients(names: Sequence[str], about: Described | Sequence[Described]) -> dict[str, Described]:
    """Return what is known of the patient of each image by its name."""
    if not isinstance(about, Sequence) or isinstance(about, About):
        return dict.fromkeys(names, checked(about))
    if len(about) != len(names):
        raise DataError(
            f"{len(names)} images are named, and what is known is of {len(about)}; give one each"
        )
    found: dict[str, Described] = {}
    for name, each in zip(names, about, strict=True):
        if found.setdefault(name, patient := checked(each)) != patient:
            raise DataError(f"{name} is named twice with other patients; ask one by one")
    return found


def _each(images: Image | Iterable[Image]) -> Iterator[Any]:
    """Yield images one by one; what is none is said of each."""
    pixels = isinstance(images, np.ndarray) and images.dtype.kind not in "OU" and images.ndim < 4
    if pixels or isinstance(images, str | os.PathLike) or not isinstance(images, Iterable):
        yield images
    else:
        yield from images


def _add(files: dict[str, bytes], number: int, image: Any) -> str:
    """Add an image as a file's bytes; return its name, the same for the same file."""
    if isinstance(image, str | os.PathLike):
        name = str(Path(image))
        if name not in files:
            files[name] = _read(Path(image))
    else:
        name = f"images[{number}]/"  # no path ends like this
        files[name] = _png(image, number)
    return name


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); name image files") from error


def _png(image: Any, number: int) -> bytes:
    """Return pixels as a PNG file, which loses nothing: they go the way of any file."""
    array = isinstance(image, np.ndarray)
    kind = f"{image.dtype} {image.shape}" if array else type(image).__name__
    if not (array and image.size and image.dtype == np.uint8 and image.shape[2:] == (3,)):
        raise DataError(
            f"image {number} is {kind}; an image is a path, or an array of uint8 (height, width, 3)"
        )
    file = io.BytesIO()
    Pillow.fromarray(np.ascontiguousarray(image)).save(file, "PNG", compress_level=0)
    return file.getvalue()
