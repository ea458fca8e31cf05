"""What is shown of an image, and what a model must offer so that its answers can be shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from common.answers.answer import Answer, Unreadable
from common.data.metadata import UNKNOWN, Described
from common.task import Task


class ImageFile(NamedTuple):
    """An image as it was given.

    Attributes
    ----------
    name : what the user calls it: a path, or a file's name in a browser.
    data : the bytes of its file.
    patient : what is known of the patient.
    """

    name: str
    data: bytes
    patient: Described = UNKNOWN


@dataclass(frozen=True)
class Evidence:
    """Where in an image the evidence for its likeliest diagnosis lies.

    Attributes
    ----------
    png : an RGBA map of any resolution, which covers the whole image as its EXIF orientation says;
        None where the model has no such map.
    text : one sentence: what the map's colours mean, or why there is no map.
    """

    png: bytes | None
    text: str


@dataclass(frozen=True)
class Shown:
    """What a model gives for one image.

    Attributes
    ----------
    answer : the answer, or why there is none.
    evidence : where the evidence lies; None where it was not asked for or there is no answer.
    """

    answer: Answer | Unreadable
    evidence: Evidence | None = None


@dataclass(frozen=True)
class About:
    """What all answers of one model share.

    Attributes
    ----------
    model : one sentence: which model this is, and of which run.
    task : the diagnoses that it tells apart.
    base_rates : the share of each diagnosis at the training sites by code, in [0, 1].
    prevalence : the shares at the place of use, which the probabilities are for; None where they
        are those of the training sites.
    prevalence_source : where ``prevalence`` is from, such as "given" or "estimated from 200 images
        without labels"; "" without it.
    notes : what must be said of all answers, in sentences.
    metadata : columns of what the model uses beside an image: ``age``, ``sex``, ``localization``.
    threshold_by : the column by which patients have a screening threshold of their own; "" for
        one threshold.
    """

    model: str
    task: Task
    base_rates: Mapping[str, float]
    prevalence: Mapping[str, float] | None = None
    prevalence_source: str = ""
    notes: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    threshold_by: str = ""

    @property
    def asked(self) -> tuple[str, ...]:
        """The columns of what changes an answer."""
        asked = (*self.metadata, self.threshold_by) if self.threshold_by else self.metadata
        return tuple(dict.fromkeys(asked))


class Answerer(Protocol):
    """A loaded model that answers about images; one thread at a time asks it."""

    @property
    def about(self) -> About:
        """What all its answers share."""

    def answer(self, files: Sequence[ImageFile], *, evidence: bool) -> Sequence[Shown]:
        """Answer about images, one for each in the same order.

        A file that cannot be decoded gets :class:`~common.answers.answer.Unreadable` in its place;
        it raises nothing and the others are answered.

        Parameters
        ----------
        evidence : whether maps are asked for, which take time.
        """
