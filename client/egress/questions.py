"""Every question that a site answers: what comes with it, in which form and range.

All is checked against settings and what is public before a question is answered, so that neither
the fact nor the text of a refusal depends on a lesion. Within these ranges no sum over records
overflows double precision.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from flwr.app import RecordDict
from pydantic import Field, TypeAdapter, ValidationError

from client.site import Site
from common.data.dataset import DIAGNOSES
from common.errors import Reason, RefusalError, ReplyError
from common.features.augment import PREDICTION_VIEWS
from common.wire.messages import Arrays, Value, unpack_arrays, unpack_values
from common.wire.secure_sums import KEY, PEERS, RECORD, UNMASK

LARGEST = 1e9
"""Of the numbers that a question of an exact method holds."""

LARGEST_MAP = 1e15
"""Of a feature map's, such as one over the deviation of a feature that hardly varies; and of a
calibration, whose solver may try anything."""

LARGEST_PRIVATE = 1e6
"""Of those that a private method's does."""

LARGEST_TENSOR = 1e6
"""Of a network's weights and an optimiser's moments."""

_K = len(DIAGNOSES)
_RECORDS = {"arrays", "values", RECORD}


@dataclass(frozen=True)
class Form:
    """What an array that comes with a question must look like.

    Attributes
    ----------
    shape : sizes; ``()`` for a number, None for a size that the method compares with its map's.
    low, high : range of its numbers.
    dtype : as NumPy writes it.
    """

    shape: tuple[int | None, ...]
    low: float = -LARGEST
    high: float = LARGEST
    dtype: Literal["<f8", "<f4"] = "<f8"

    def fits(self, array: np.ndarray[Any, Any]) -> bool:
        """Tell whether an array looks like this; NaN is in no range."""
        if array.dtype.str != self.dtype or array.ndim != len(self.shape):
            return False
        sizes = zip(array.shape, self.shape, strict=True)
        if any(wanted not in (None, size) for size, wanted in sizes):
            return False
        return bool(((self.low <= array) & (array <= self.high)).all())


_CALIBRATION = Form((2, _K), -LARGEST_MAP, LARGEST_MAP)

Forms = Mapping[str, Form]
Values = Mapping[str, Value]


@dataclass(frozen=True)
class Question:
    """What comes with a question.

    Attributes
    ----------
    values : names of its plain values, beside its own name.
    arrays : returns their forms, at a site and for such values.
    optional : whether single arrays may be missing.
    """

    values: tuple[str, ...] = ()
    arrays: Callable[[Site, Values], Forms] = lambda site, values: {}
    optional: bool = False


def _text(pattern: str) -> Any:
    return Annotated[str, Field(strict=True, pattern=pattern)]


def _whole(low: int, high: int) -> Any:
    return Annotated[int, Field(strict=True, ge=low, le=high)]


def _bytes(size: int) -> Any:
    return Annotated[bytes, Field(strict=True, min_length=1, max_length=size)]


def _list(item: Any, least: int, most: int) -> Any:
    return Annotated[list[item], Field(min_length=least, max_length=most)]


_MOST_SITES = 10_000
_LONGEST_ENVELOPE = 1 << 16

_VALUES: Mapping[str, Any] = {
    "question": _text(r"^[\w.]{1,100}$"),
    "finished": Annotated[bool, Field(strict=True)],
    "map": _text("^[0-9a-f]{64}$"),
    "scores": _text("^[0-9a-f]{64}$"),
    "run": _text("^[0-9a-f]{1,64}$"),
    "step": _whole(0, 1 << 31),
    "round": _whole(0, 1 << 31),
    "counts": _list(_whole(0, 10**7), _K, _K),
    "subset": Literal["validation", "test"],
    "views": _whole(1, PREDICTION_VIEWS),
    "personal": Annotated[bool, Field(strict=True)],
    "names": _list(_text(r"^.{1,100}$"), 0, _MOST_SITES),
    "keys": _list(_bytes(32), 0, _MOST_SITES),
    "signatures": _list(_bytes(64), 0, _MOST_SITES),
    "envelopes": _list(_bytes(_LONGEST_ENVELOPE), 0, _MOST_SITES),
}
"""Types of plain values, by name: a name means the same in all questions."""


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_VALUES[name])


def _feature_map(site: Site, _: Values) -> Forms:
    config, rbf = site.config, site.config.kernel == "rbf"
    return {
        "mean": Form((site.n_features,), -LARGEST_MAP, LARGEST_MAP),
        "matrix": Form((site.n_features, site.n_components), -LARGEST_MAP, LARGEST_MAP),
        "fourier": Form((3,) if rbf else (0,), 0, LARGEST_MAP),
        "unit": Form((), 0, 0),
        "clip": Form((), 0, LARGEST if config.clip_features else 0),
        "class_weights": Form((_K,), 0),
    }


def _fits(site: Site, _: Values) -> Forms:
    return {"weights": Form((None, _K, None))}


def _scored(site: Site, values: Values) -> Forms:
    return {**_fits(site, values), "calibration": _CALIBRATION}


def _private(
    size: Callable[[Site], tuple[int, ...]], *names: str
) -> Callable[[Site, Values], Forms]:
    """Return the forms of a private method's arrays, of whose weights ``size`` is the shape."""

    def forms(site: Site, _: Values) -> Forms:
        low, high = -LARGEST_PRIVATE, LARGEST_PRIVATE
        shapes: Mapping[str, tuple[int, ...]] = {
            "weights": size(site),
            "mean": (size(site)[-1] - 1,),
            "scale": (),
            "offset": (_K,),
            "calibration": (2, _K),
        }
        # A weight above 1 would make a clipped gradient longer than what is paid for.
        bounded = {"class_weight": Form((_K,), 0, 1), "priors": Form((_K,), 0, high)}
        return {n: bounded.get(n) or Form(shapes[n], low, high) for n in names}

    return forms


def _linear(site: Site) -> tuple[int, ...]:
    return (_K, min(site.config.projection, site.n_features) + 1)


def _opened(site: Site) -> tuple[int, ...]:
    from common.privacy.network import open_part  # imports PyTorch

    config = site.config
    return open_part(config.backbone, config.weights, config.opens).pretrained.shape


def _trained(site: Site, values: Values) -> Forms:
    """Return the forms of what a round of fine-tuning starts from."""
    from common.finetune.plan import NONNEGATIVE, plan, shapes
    from common.networks.network import open_stage, shared_network

    config, rounds = site.config, plan(site.config)
    number = int(str(values["round"]))
    if number >= len(rounds):
        raise RefusalError(Reason.FORM, f"there is no round {number}; this run has {len(rounds)}")
    stage = open_stage(shared_network(config.backbone, config.weights), rounds[number].stage)
    return {
        name: _tensor(shape, 0 if name.startswith(NONNEGATIVE) else -LARGEST_TENSOR)
        for name, shape in shapes(stage, config).items()
    }


def _whole_network(site: Site, _: Values) -> Forms:
    """Return the forms of a network's weights; those that are as pretrained need not come."""
    from common.networks.network import shared_network

    network = shared_network(site.config.backbone, site.config.weights)
    return {name: _tensor(tuple(p.shape)) for name, p in network.named_parameters()}


def _scored_network(site: Site, values: Values) -> Forms:
    rule = {"calibration": _CALIBRATION, "priors": Form((_K,), 0)}
    return {**_whole_network(site, values), **rule}


def _tensor(shape: tuple[int, ...], low: float = -LARGEST_TENSOR) -> Form:
    return Form(shape, low, LARGEST_TENSOR, "<f4")


_MAPPED = ("map",)
_STEP = ("run", "step")
_SCORES = ("scores", "subset", "views", "personal")
_CENTRE = ("mean", "scale")
_OBJECTIVE = ("offset", "class_weight")

JOIN, CLOSE = "join", "close"
ROUND = "hinge"
"""Question of an SVM's rounds, of which an operator allows so many."""

OF_ALL: Mapping[str, Question] = {
    JOIN: Question(),
    CLOSE: Question(("finished",)),
    KEY: Question(("run",)),
    PEERS: Question(("run", "names", "keys", "signatures")),
    UNMASK: Question(("run", "round", "envelopes")),
}
"""Questions of every method, which tell nothing of single images."""

_OF_METHODS: Mapping[str, Mapping[str, Question]] = {
    "svm": {
        "moments": Question(),
        "prepare": Question(_MAPPED, _feature_map),
        "mapped_moments": Question(_MAPPED),
        ROUND: Question(_MAPPED, _fits),
        "calibrate": Question(_MAPPED, _scored),
        "evaluate": Question(_MAPPED, _scored),
    },
    "finetune": {
        "counts": Question(),
        "train": Question(("round", "run", "counts"), _trained),
        "calibrate": Question(_SCORES, _scored_network, optional=True),
        "evaluate": Question(_SCORES, _scored_network, optional=True),
    },
    "private": {
        "overview": Question(_STEP),
        "gradient": Question(_STEP, _private(_linear, "weights", *_CENTRE, *_OBJECTIVE)),
        "moments": Question(_STEP, _private(_linear, *_CENTRE)),
        "evaluate": Question((), _private(_linear, "weights", "calibration")),
    },
    "private_finetune": {
        "overview": Question(_STEP),
        "gradient": Question(_STEP, _private(_opened, "weights", *_OBJECTIVE)),
        "evaluate": Question((), _private(_opened, "weights", "calibration", "priors")),
    },
}


class Asked(NamedTuple):
    """A question as it arrived.

    Attributes
    ----------
    run : Flower's number of the run.
    round : the coordinator's number of the round.
    question : what is asked; empty where that cannot be read.
    arrays, values : that came with it.
    """

    run: int
    round: str
    question: str = ""
    arrays: Arrays = MappingProxyType({})
    values: Values = MappingProxyType({})

    def read(self, content: RecordDict) -> "Asked":
        """Return the question with what its message holds.

        Raises
        ------
        RefusalError
            If that cannot be read.
        """
        try:
            arrays, values = unpack_arrays(content), unpack_values(content)
        except ReplyError as error:
            raise RefusalError(Reason.FORM, str(error)) from error
        if unknown := content.keys() - _RECORDS:
            raise RefusalError(Reason.FORM, f"a question has no record '{min(unknown)}'")
        try:
            question = _adapter("question").validate_python(values.get("question"))
        except ValidationError as error:
            raise RefusalError(Reason.FORM, "the message does not say what it asks") from error
        return self._replace(question=question, arrays=arrays, values=values)


def check(site: Site, asked: Asked) -> None:
    """Check all that comes with a question; of the site's data nothing is looked at.

    Raises
    ------
    RefusalError
        If the run's method has no such question, or something is missing, unknown, in another
        form or out of range.
    """
    known = {**OF_ALL, **_OF_METHODS[site.config.method]}
    if asked.question not in known:
        raise _bad(f"no question '{asked.question}' in method {site.config.method}")
    question = known[asked.question]
    _check_names(asked.values.keys() - {"question"}, set(question.values), set(question.values))
    for name, value in asked.values.items():
        try:
            _adapter(name).validate_python(value)
        except ValidationError as error:
            raise _bad(f"value '{name}' is {error.errors()[0]['msg']}") from error
    forms = question.arrays(site, asked.values)
    required = set() if question.optional else set(forms)
    _check_names(asked.arrays.keys(), required, set(forms))
    for name, array in asked.arrays.items():
        if not forms[name].fits(np.asarray(array)):
            raise _bad(
                f"array '{name}', {array.dtype.str}{list(array.shape)}, is not {forms[name]}"
            )


def _check_names(found: Collection[str], required: set[str], known: set[str]) -> None:
    if unknown := set(found) - known:
        raise _bad(f"nothing named '{min(unknown)}' belongs to this question")
    if missing := required - set(found):
        raise _bad(f"'{min(missing)}' is missing in this question")


def _bad(detail: str) -> RefusalError:
    return RefusalError(Reason.FORM, detail)
