"""Which images are of one lesion, where the table does not say.

Whole lesions are split, weighted and protected. Where a lesion is unknown, its patient and
diagnosis stand for it: two lesions of one patient count as one, and no lesion is ever divided.
Where the patient is unknown too, each image is a lesion of its own; near-duplicates are joined.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from common.data.image import Image

_PATIENT, _IMAGE = "patient:", "image:"


def of_patient(patient: str, dx: str) -> str:
    """Return the lesion of a patient's images of one diagnosis."""
    return f"{_PATIENT}{patient}:{dx}"


def of_image(image_id: str) -> str:
    """Return the lesion of an image of which nothing is known."""
    return f"{_IMAGE}{image_id}"


def unknown(image: Image) -> bool:
    """Tell whether an image's lesion is none that a table named."""
    return image.lesion_id in (
        of_patient(image.patient_id, image.dx),
        of_image(image.image_id),
    )


def basis(images: Iterable[Image]) -> str:
    """Say on what the lesions rest, for a report; "" where the table has them all."""
    ids = [image.lesion_id for image in images]
    patients = sum(name.startswith(_PATIENT) for name in ids)
    alone = sum(name.startswith(_IMAGE) for name in ids)
    parts = [
        f"the patient and the diagnosis stand for it in {patients} images" * bool(patients),
        f"each of {alone} images is its own, near-duplicates aside" * bool(alone),
    ]
    said = "; ".join(part for part in parts if part)
    return f"the lesion is unknown in {patients + alone} of {len(ids)} images: {said}" * bool(said)


def joined(images: Sequence[Image], groups: Iterable[Sequence[str]]) -> tuple[Image, ...]:
    """Make the lesions of images one that belong together, such as near-duplicates.

    A lesion that the table has gives the joined one its name; of several, the first in order.

    Parameters
    ----------
    groups : image ids that show one lesion; groups that share a lesion are joined too.
    """
    lesion_of = {image.image_id: image.lesion_id for image in images}
    parent: dict[str, str] = {}
    for group in groups:
        roots = [_root(parent, lesion_of[name]) for name in group]
        best = min(roots, key=_preference)
        parent.update({root: best for root in roots if root != best})
    return tuple(replace(image, lesion_id=_root(parent, image.lesion_id)) for image in images)


def _root(parent: dict[str, str], lesion: str) -> str:
    while lesion in parent:
        lesion = parent[lesion]
    return lesion


def _preference(lesion: str) -> tuple[int, str]:
    rank = 2 if lesion.startswith(_IMAGE) else int(lesion.startswith(_PATIENT))
    return rank, lesion
