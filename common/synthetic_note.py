"""What every report on synthetic images says first."""

SYNTHETIC_NOTE = (
    "**Synthetic images: generated, they describe no patients. "
    "The figures show that the software works, nothing about skin lesions.**"
)


def synthetic_note(synthetic: bool) -> list[str]:
    """Return the lines above a report: none on real images."""
    return [SYNTHETIC_NOTE, ""] if synthetic else []
