"""Which images are of one lesion, where the table does not say.

Whole lesions are split, weighted and protected. Where a lesion is unknown, its patient and
diagnosis stand for it: two lesions of one patient count as one, and no lesion is ever divided.
Where the patient is unknown too, each image is a lesion of its own; near-duplicates are joined.
"""

from collections.abc import Iterable

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


def preference(lesion: str) -> tuple[int, str]:
    """Return by what to sort lesions that are one: a table's name comes first."""
    rank = 2 if lesion.startswith(_IMAGE) else int(lesion.startswith(_PATIENT))
    return rank, lesion
