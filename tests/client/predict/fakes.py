"""A model that answers by the size of an image alone, with an answer of each kind."""

import io
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image as Pillow

from client.predict.shown import About, Evidence, ImageFile, Shown
from common.answers.answer import Answer, Metadata, PredictionSet, Screening, Unreadable
from common.data.patients import known
from common.task import HAM10000

BASE_RATES = {
    "nv": 0.669, "mel": 0.111, "bkl": 0.11, "bcc": 0.051, "akiec": 0.033, "vasc": 0.014,
    "df": 0.012,
}  # fmt: skip
GIVEN = {
    "nv": 0.4, "mel": 0.2, "bkl": 0.2, "bcc": 0.1, "akiec": 0.05, "vasc": 0.03, "df": 0.02
}  # fmt: skip
TRAINED = {
    "nv": 0.834, "df": 0.0684, "mel": 0.052, "bkl": 0.03, "bcc": 0.01, "vasc": 0.0053,
    "akiec": 0.0003,
}  # fmt: skip

MAP = "Blue speaks for the likeliest diagnosis, orange against it, in 7 x 7 fields."


def screening(target="mel", flagged=False):
    threshold = 0.04 if flagged else 0.3
    return Screening(target, flagged, 0.052, threshold, 0.95, (0.912, 0.975), 0.618, (0.604, 0.632))


PLAIN = Answer(
    image="plain.jpg",
    task=HAM10000,
    diagnosis="nv",
    name=HAM10000.name("nv"),
    malignant=False,
    probability=0.834,
    probabilities=TRAINED,
    trained_probabilities=None,
    stands_out="nv",
    times_base_rate=1.25,
    screening=(screening(), screening("malignant")),
    prediction_set=PredictionSet(("nv",), 0.9, "pooled", 1201),
    refer=(),
    distance=1.02,
)

REFERRED = replace(
    PLAIN,
    image="referred.jpg",
    stands_out="df",
    times_base_rate=5.7,
    screening=(screening(flagged=True), screening("malignant", flagged=True)),
    prediction_set=PredictionSet(("nv", "df", "mel"), 0.95, "class", 812, ("df", "vasc")),
    refer=(
        "the prediction set has 3 diagnoses, one of them malignant",
        "the image is unlike the training images: it may be no lesion",
    ),
    distance=2.43,
    notes=("The image is smaller than the images that the model was trained on.",),
)

UNCALIBRATED = replace(
    PLAIN, image="uncalibrated.jpg", screening=(), prediction_set=None, distance=None
)

ELSEWHERE = replace(
    PLAIN,
    image="elsewhere.jpg",
    diagnosis="mel",
    name=HAM10000.name("mel"),
    malignant=True,
    probability=0.41,
    probabilities={
        "mel": 0.41, "nv": 0.38, "bkl": 0.15, "df": 0.03, "bcc": 0.0296, "vasc": 0.0002,
        "akiec": 0.0002,
    },
    trained_probabilities=TRAINED,
    stands_out="mel",
    prediction_set=PredictionSet(("mel", "nv"), 0.9, "prevalence", 1201),
)  # fmt: skip

KNOWN = replace(
    ELSEWHERE,
    image="known.jpg",
    metadata=Metadata({"age": 62.5, "localization": "back"}, "nv", TRAINED, ("mel",)),
)

UNREADABLE = Unreadable("broken.jpg", "an image cannot be decoded (truncated); use JPEG or PNG")

KINDS = (PLAIN, REFERRED, UNCALIBRATED, ELSEWHERE)

ABOUT = About(
    "Fine-tuned tf_efficientnet_lite0 of the run runs/real, over 4 sites.",
    HAM10000,
    BASE_RATES,
    notes=("This run is of synthetic images: nothing that it says is about lesions.",),
)


def image(width=400, height=300, kind="JPEG", colour=(196, 140, 120), **options):
    """Return a file of an image of one colour with a darker spot."""
    pixels = Pillow.new("RGB", (width, height), colour)
    pixels.paste((90, 50, 40), (width // 3, height // 3, width // 2, height // 2))
    out = io.BytesIO()
    pixels.save(out, kind, **options)
    return out.getvalue()


def evidence_map():
    fields = Pillow.new("RGBA", (7, 7), (0, 0, 0, 0))
    fields.paste((30, 90, 220, 150), (2, 2, 4, 4))
    fields.putpixel((5, 1), (230, 110, 20, 150))
    out = io.BytesIO()
    fields.save(out, "PNG")
    return out.getvalue()


class Model:
    """Answers with the kind that an image's width in tens says; none has a map but the first two.

    Attributes
    ----------
    asked : the names of each call.
    """

    def __init__(self, about=ABOUT):
        self.about = about
        self.asked = []

    def answer(self, files: Sequence[ImageFile], *, evidence: bool) -> list[Shown]:
        self.asked.append([file.name for file in files])
        return [self._one(file, evidence) for file in files]

    def _one(self, file, evidence):
        try:
            with Pillow.open(io.BytesIO(file.data)) as opened:
                opened.load()
                kind = opened.width // 10 % len(KINDS)
        except OSError:
            return Shown(replace(UNREADABLE, image=file.name))
        png = Evidence(evidence_map(), MAP)
        none = Evidence(None, "an SVM on random Fourier features has none, because they mix fields")
        found = (png if kind < 2 else none) if evidence else None
        if used := known(self.about.metadata, file.patient):
            metadata = replace(KNOWN.metadata, used=used)
            return Shown(replace(KNOWN, image=file.name, metadata=metadata), found)
        return Shown(replace(KINDS[kind], image=file.name), found)
