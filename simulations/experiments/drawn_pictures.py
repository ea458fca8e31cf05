"""Pictures that show no lesion, drawn at random: noise, colours, text, screens and charts."""

import io
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from common.arrays import Floats

SIZE = (300, 225)
"""Width and height of all pictures, as the lesions' in pixels."""

Draw = Callable[[np.random.Generator], Image.Image]
"""Draws one picture of a kind."""

_SKIN = np.array([200.0, 155.0, 140.0])
_SPECTRA = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
_LARGER = 2  # text is drawn larger and then reduced, as a photographed screen is
_WORDS = (
    *("patient", "image", "report", "date", "site", "doctor", "left", "right", "arm", "back"),
    *("normal", "biopsy", "margin", "result", "of", "the", "in", "and", "no", "yes", "mm"),
    *("2024", "34", "61", "sample", "slide", "review", "follow", "up", "weeks"),
)


def noise(rng: np.random.Generator) -> Image.Image:
    """Draw noise of a power spectrum, from white to smooth, grey to coloured, partly skin's."""
    width, height = SIZE
    rows, columns = np.fft.fftfreq(height) * height, np.fft.fftfreq(width) * width
    frequency = np.maximum(np.hypot(rows[:, None], columns), 1.0)
    white = np.fft.fft2(rng.standard_normal((3, height, width)))
    waves = np.fft.ifft2(white / frequency ** rng.choice(_SPECTRA)).real
    waves = (waves - waves.mean(axis=(1, 2), keepdims=True)) / waves.std(axis=(1, 2), keepdims=True)
    grey = rng.random()
    waves = grey * waves[:1] + (1 - grey) * waves
    mean = _SKIN if rng.random() < 0.5 else rng.uniform(60, 200, 3)
    return _image(mean + rng.uniform(5, 70) * waves.transpose(1, 2, 0))


def one_colour(rng: np.random.Generator) -> Image.Image:
    """Draw a grey, any colour, or a colour of skin."""
    colours = (np.full(3, rng.integers(256)), rng.integers(0, 256, 3), _skin(rng))
    return _image(np.broadcast_to(colours[rng.integers(3)], (*SIZE[::-1], 3)))


def gradient(rng: np.random.Generator) -> Image.Image:
    """Draw a linear or radial gradient between two colours."""
    width, height = SIZE
    y, x = np.mgrid[:height, :width]
    angle, (left, top) = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.8, 2)
    linear = x / width * np.cos(angle) + y / height * np.sin(angle)
    ramp = linear if rng.random() < 0.5 else np.hypot(x - width * left, y - height * top)
    ramp = (ramp - ramp.min()) / np.ptp(ramp)
    a, b = (_skin(rng) if rng.random() < 0.4 else rng.integers(0, 256, 3) for _ in range(2))
    return _image(a + (b - a) * ramp[..., None])


def page(rng: np.random.Generator) -> Image.Image:
    """Draw a page of text, dark on light."""
    return _lines(rng, (225, 256), (0, 90))


def terminal(rng: np.random.Generator) -> Image.Image:
    """Draw lines of text, light on dark."""
    return _lines(rng, (0, 50), (120, 256))


def screen(rng: np.random.Generator) -> Image.Image:
    """Draw a desktop with windows and forms."""
    image = Image.new("RGB", (800, 600), _colour(rng, 0, 256))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(13)
    for _ in range(rng.integers(1, 5)):
        left, top = (int(rng.integers(-50, most)) for most in (400, 300))
        right, bottom = left + int(rng.integers(200, 700)), top + int(rng.integers(150, 500))
        draw.rectangle((left, top, right, bottom), _colour(rng, 220, 256), (90, 90, 90))
        draw.rectangle((left, top, right, top + 24), _colour(rng, 30, 200))
        middle = (left + right) // 2
        for y in range(top + 36, bottom - 20, 26):
            draw.text((left + 12, y), _words(rng, 2), (30, 30, 30), font)
            draw.rectangle((middle, y, right - 14, y + 18), _colour(rng, 200, 256), (150, 150, 150))
    return image.resize(SIZE, Image.Resampling.BICUBIC)


def chart(rng: np.random.Generator) -> Image.Image:
    """Draw lines, bars, points, a heat map or a histogram by Matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), dpi=80)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    kinds = (
        lambda: axes.plot(rng.standard_normal((40, 3)).cumsum(axis=0)),
        lambda: axes.bar(range(8), rng.random(8), color=rng.random(3)),
        lambda: axes.plot(*rng.standard_normal((2, 200)), "o", color=rng.random(3)),
        lambda: axes.imshow(rng.random((9, 9)), cmap="viridis"),
        lambda: axes.hist(rng.standard_normal(500), bins=30),
    )
    kinds[rng.integers(len(kinds))]()
    axes.set_title(_words(rng, 3))
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return Image.open(file).convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)


DRAWN: Mapping[str, Draw] = {
    "noise": noise,
    "one colour": one_colour,
    "gradient": gradient,
    "page of text": page,
    "terminal": terminal,
    "screen": screen,
    "chart": chart,
}
"""How each kind is drawn."""


def _lines(rng: np.random.Generator, paper: tuple[int, int], ink: tuple[int, int]) -> Image.Image:
    width, height = (_LARGER * side for side in SIZE)
    image = Image.new("RGB", (width, height), _colour(rng, *paper))
    draw = ImageDraw.Draw(image)
    size, left = int(rng.integers(9, 30)), int(rng.integers(5, 60))
    for top in range(int(rng.integers(5, 40)), height, round(1.35 * size)):
        if rng.random() < 0.85:
            words = _words(rng, int(rng.integers(1, 14)))
            draw.text((left, top), words, _colour(rng, *ink), ImageFont.load_default(size))
    return image.resize(SIZE, Image.Resampling.BICUBIC)


def _words(rng: np.random.Generator, number: int) -> str:
    return " ".join(rng.choice(_WORDS, number))


def _colour(rng: np.random.Generator, least: int, most: int) -> tuple[int, int, int]:
    red, green, blue = rng.integers(least, most, 3).tolist()
    return red, green, blue


def _skin(rng: np.random.Generator) -> Floats:
    return np.asarray(_SKIN + rng.integers(-30, 31, 3))


def _image(pixels: NDArray[np.generic]) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
