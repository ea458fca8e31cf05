"""Evidence drawn over an image, at the resolution that it really has."""

import io

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from common.arrays import Floats
from common.explanations.evidence import Evidence
from common.features.augment import CROPS, crop_box

FOR, AGAINST = (255, 214, 0), (0, 72, 255)
"""Red, green and blue of what speaks for a diagnosis and against it: yellow and blue.

Readers without red or without green cones tell them apart, neither is a colour of skin, and on grey
paper one is light and the other dark.
"""

_DENSEST = 0.75  # the image must be seen below
_OUTLINE = (255, 255, 255, 110)
_FULL_COLOUR = 0.99  # quantile of the evidence from which on the colour is full


def place(evidence: Evidence, width: int, height: int) -> Floats:
    """Return the evidence of each pixel of an image, (height, width).

    A cell's evidence is spread evenly over the part of the image that the cell covers, and the
    levels and views are added. So each shows as blocks of its own size, and the pixels add up to
    the cells.

    Parameters
    ----------
    width, height : of the working image in pixels.
    """
    pixels = np.zeros((height, width))
    for level in evidence.cells:
        for number, view in enumerate(level):
            left, top, right, bottom = crop_box((width, height), number)
            seen = view[:, ::-1] if number >= len(CROPS) else view
            rows = _shares(height, top, bottom, seen.shape[0])
            columns = _shares(width, left, right, seen.shape[1])
            pixels += rows @ seen @ columns.T
    return pixels


def overlay(pixels: Floats, views: int) -> bytes:
    """Return a PNG file with transparency to lay over the image of the same size.

    Parameters
    ----------
    pixels : (height, width) evidence, positive where it speaks for the diagnosis. The strongest
        hundredth has the full colour, whatever its size: colours compare places of one image.
    views : number of prediction views, whose squares are outlined.
    """
    size = np.abs(pixels)
    end = np.quantile(size[size > 0], _FULL_COLOUR) if size.any() else 1.0
    strength = np.clip(size / end, 0, 1) * _DENSEST
    colours = np.where(pixels[..., None] > 0, FOR, AGAINST)
    drawn = np.concatenate([colours, np.round(255 * strength)[..., None]], axis=2)
    image = Pillow.fromarray(drawn.astype(np.uint8), "RGBA")
    lines = Pillow.new("RGBA", image.size)
    for number in range(min(views, len(CROPS))):
        left, top, right, bottom = crop_box(image.size, number)
        ImageDraw.Draw(lines).rectangle((left, top, right - 1, bottom - 1), outline=_OUTLINE)
    file = io.BytesIO()
    Pillow.alpha_composite(image, lines).save(file, "PNG", optimize=True)
    return file.getvalue()


def caption(evidence: Evidence, label: str, rival: str) -> str:
    """Say in words what an overlay shows of a contrast made by ``log_odds``.

    Parameters
    ----------
    label, rival : full names of the two diagnoses.
    """
    return (
        f"Yellow speaks for {label}, blue for {rival}. "
        f"With {evidence.rest:+.2f} that no place adds, it comes to {evidence.total:+.2f}: "
        f"{label} is {np.exp(evidence.total):,.3g} times as likely as {rival}. "
        "The map shows what the model adds up; it does not outline the lesion."
    )


def _shares(length: int, start: int, stop: int, cells: int) -> Floats:
    """Return which share of each cell, side by side, lies in each pixel, (length, cells)."""
    edges = np.linspace(start, stop, cells + 1)
    pixels = np.arange(length)[:, None]
    low, high = np.maximum(edges[:-1], pixels), np.minimum(edges[1:], pixels + 1)
    return np.asarray(np.maximum(high - low, 0) * cells / (stop - start))
