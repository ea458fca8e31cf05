"""A page that answers in a browser by itself: the model, ONNX Runtime and the cards are in it.

A script computes numbers and chooses. The words are those of all pages: for each diagnosis as the
likeliest there is a card from the same template, with "nan" for each number that an image decides.
"""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from math import nan
from pathlib import Path

import numpy as np

from client.predict import words
from client.predict.answerer import ModelAnswerer
from client.predict.images import Answered
from client.predict.page import drawn, fragments, policy, script, whole_page
from client.predict.picture import SIDE, Picture
from client.predict.shown import About, Shown
from common.answers.answer import Answer, Unreadable
from common.answers.answering import Answering, AnswerOptions
from common.data.pictures import LEAST_SIDE, MOST_PIXELS
from common.errors import DataError
from common.export.facts import LEFT_OUT
from common.json_types import Json, plain
from common.models.file import Model
from common.models.predictor import Predictor, lacking_pixels
from common.storage.reading import read_bytes

VERSION = "1.30.0"
"""Of onnxruntime-web, as package.json in this folder asks for it."""

_SCRIPT, _BINARY = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
_DIGESTS = {
    _SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    _BINARY: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
_EXPORTS = re.compile(r"export\{[^}]*?(\w+) as default[^}]*\};\s*(//.*\s*)?$")
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class Runtime:
    """ONNX Runtime for the browser, from its package's folder ``dist``.

    Attributes
    ----------
    script : of a module, which defines ``ort``.
    binary : its WebAssembly.

    Raises
    ------
    DataError
        If the folder lacks a file, or has one of another version.
    """

    def __init__(self, folder: Path) -> None:
        # What the module exports gets a name: a page that is one file can import nothing.
        self.script = _EXPORTS.sub(r"const ort=\1;", _checked(folder / _SCRIPT).decode())
        self.binary = _checked(folder / _BINARY)


def standalone_page(
    model: Model, facts: Mapping[str, Json], content: bytes, runtime: Runtime
) -> bytes:
    """Return a page that answers about images as the model does.

    Parameters
    ----------
    facts : what the exported file says of itself.
    content : of the exported file.
    """
    made = _script(runtime)
    page = whole_page(
        "standalone.html.j2",
        about=_about(model),
        policy=policy(made, also="'wasm-unsafe-eval'"),
        script=made,
        unread=fragments(Answered(Shown(Unreadable("", "")), b""), 0).joined(),
        cards=[
            drawn(Shown(answer), 0, Picture(b"", 0, 0)).joined() for answer in _open_answers(model)
        ],
        facts=_for_script({**facts, **_more_facts(model)}),
        runtime=_packed(runtime.binary),
        model=_packed(content),
        endings=",".join(_ENDINGS),
        largest=None,
        at_once=1,
        fields={},
    )
    return page.encode()


def _checked(file: Path) -> bytes:
    how = "name the folder dist of onnxruntime-web " + VERSION
    try:
        content = read_bytes(file)
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); {how}") from error
    if hashlib.sha256(content).hexdigest() != _DIGESTS[file.name]:
        raise DataError(f"{file} is not of onnxruntime-web {VERSION}, or was changed; {how}")
    return content


def _script(runtime: Runtime) -> str:
    # In a block, its names are not those of the runtime.
    return f"{runtime.script}\n{{\n{script('drop.js.j2', 'standalone.js.j2')}}}\n"


def _about(model: Model) -> About:
    """Return what all answers of the page share; it knows nothing of patients."""
    about = ModelAnswerer(Predictor(model), AnswerOptions()).about
    notes = (*_answering(model).warnings, f"Left out here: {'; '.join(LEFT_OUT)}.")
    return replace(about, notes=notes, metadata=(), threshold_by="")


def _answering(model: Model) -> Answering:
    return Answering(replace(model.basis, by_group=None), AnswerOptions())


def _open_answers(model: Model) -> list[Answer]:
    """Return the answers with each diagnosis as the likeliest, which say all that may be said.

    Each has both outcomes of each screening rule, the reason to refer it if there is one, and nan
    for what an image decides.
    """
    task, n = model.task, model.task.n_classes
    (unsure,) = _answering(model).answers([""], np.full((1, n), 1 / n), np.array([nan]))
    return [
        replace(
            unsure,
            diagnosis=code,
            name=task.name(code),
            malignant=code in task.malignant,
            probability=nan,
            probabilities=dict.fromkeys(task.codes, nan),
            stands_out=task.codes[(k + 1) % n],
            times_base_rate=nan,
            screening=tuple(
                replace(rule, flagged=flagged, probability=nan)
                for rule in unsure.screening
                for flagged in (True, False)
            ),
            notes=(lacking_pixels(nan, model.config.resolution),),
        )
        for k, code in enumerate(task.codes)
    ]


def _more_facts(model: Model) -> dict[str, Json]:
    """Return what the script needs beside what the exported file says of itself."""
    task, answers = model.task, _open_answers(model)
    others = [(code, answers[k - 1]) for k, code in enumerate(task.codes)]
    return {
        "limits": {"least_side": LEAST_SIDE, "most_pixels": MOST_PIXELS, "picture": SIDE},
        "percent": {
            "least": {"below": words.LEAST, "text": words.percent(0)},
            "most": {"from": words.MOST, "text": words.percent(1)},
        },
        "words": {
            "named": [words.named(code, task) for code in task.codes],
            "rare": [words.stands_out(other) for _, other in others],
            "next": [
                words.following(replace(other, probabilities={other.diagnosis: nan, code: nan}))[0]
                for code, other in others
            ],
            "targets": {rule.target: words.target(rule) for rule in answers[0].screening},
        },
    }


def _for_script(facts: Mapping[str, Json]) -> str:
    return json.dumps(plain(facts)).replace("<", "\\u003c")


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()
