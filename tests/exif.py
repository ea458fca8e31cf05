"""How cameras turn the images that they store, as EXIF has it."""

from PIL import Image as Pillow

ORIENTATION = 0x0112
"""The number of the tag that says how."""

STORED = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_90,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_270,
}
"""How an upright image is stored under each value of that tag; under 1 as it is."""
