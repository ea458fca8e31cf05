"""From a network's maps to calibrated probabilities, as an ONNX graph.

A model that uses what is known of a patient answers here as if nothing was known: the file takes
pixels alone.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper, parser

from common.arrays import Floats
from common.data.metadata import UNKNOWN, as_unknown, encode, width
from common.errors import ConfigError
from common.models.file import Model
from common.models.linear import LinearModel
from common.models.network import NetworkModel
from common.svm.feature_map import FeatureMap

PROBABILITIES = "probabilities"
"""Name of what comes out, float32 (n_classes,)."""

Constants = dict[str, NDArray[np.floating]]
Head = tuple[Sequence[str], Constants]
"""Steps from ``features`` (P, D), the pools of all views, to ``scores``; and their constants."""

_LAST_LAYER = ("weighed = MatMul(averaged, weights)", "scores = Add(weighed, intercepts)")
_CALIBRATED = (
    "scaled = Mul(scores, scale)",
    "logits = Add(scaled, bias)",
    "logit_row = Unsqueeze(logits, axis0)",
    "row = Softmax<axis = 1>(logit_row)",
    f"{PROBABILITIES} = Squeeze(row, axis0)",
)


def head_graph(
    model: Model, maps: Sequence[tuple[int, ...]], opset: int, ir_version: int
) -> ModelProto:
    """Return the graph from the maps of all views to the probabilities.

    Parameters
    ----------
    maps : shapes (P, channels, height, width) of the maps, by level.
    opset, ir_version : of the network that the graph stands behind.

    Returns
    -------
    A model from ``map_0``, ``map_1``, ... to :data:`PROBABILITIES`.

    Raises
    ------
    ConfigError
        If the model is of a kind that has no graph.
    """
    steps, constants = _head_of(model)
    constants["scale"], constants["bias"] = model.basis.calibration
    body = "\n  ".join((*_pooled(len(maps)), *steps, *_CALIBRATED))
    inputs = (f"float[{', '.join(map(str, shape))}] map_{k}" for k, shape in enumerate(maps))
    graph = parser.parse_model(f"""
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
head ({", ".join(inputs)}) => (float[{model.task.n_classes}] {PROBABILITIES})
{{
  {body}
}}""")
    graph.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value, dtype=np.float32), name)
        for name, value in constants.items()
    )
    return graph


def _pooled(levels: int) -> Iterator[str]:
    yield "axis0 = Constant<value_ints = [0]>()"
    yield "places = Constant<value_ints = [2, 3]>()"
    for k in range(levels):
        yield f"pool_{k} = ReduceMean<keepdims = 0>(map_{k}, places)"
    yield f"features = Concat<axis = 1>({', '.join(f'pool_{k}' for k in range(levels))})"


def _head_of(model: Model) -> Head:
    if isinstance(model, LinearModel):
        return _linear(model)
    if isinstance(model, NetworkModel):
        return _network(model)
    raise ConfigError(f"models of method {model.config.method} have no ONNX graph; use another one")


def _linear(model: LinearModel) -> Head:
    features, offset = _of_images(model)
    weights, matrix = model.weights[:, :-1].T, features.matrix
    if not (features.unit or features.clip or features.fourier):
        # Linear from one end to the other: a small matrix does, and makes a smaller file.
        matrix, offset, weights = matrix @ weights, offset @ weights, np.eye(weights.shape[1])
    constants: Constants = {"mean": features.mean, "matrix": matrix, "offset": offset}
    steps = [
        *_raised(features, constants),
        "centred = Sub(raised, mean)",
        "turned = MatMul(centred, matrix)",
        *_mapped(features, constants),
        "averaged = ReduceMean<keepdims = 0>(mapped, axis0)",
        *_LAST_LAYER,
    ]
    return steps, constants | {"weights": weights, "intercepts": model.weights[:, -1]}


def _raised(features: FeatureMap, constants: Constants) -> Iterator[str]:
    """Yield the steps from ``features`` to ``raised`` (P, D); add their constants."""
    if (features.exponents == 1).all():
        yield "raised = Identity(features)"
        return
    constants["powers"] = features.exponents
    yield "sizes = Abs(features)"
    yield "raised_sizes = Pow(sizes, powers)"
    yield "signs = Sign(features)"
    yield "raised = Mul(raised_sizes, signs)"


def _of_images(model: LinearModel) -> tuple[FeatureMap, Floats]:
    """Return the map of an image's features, and what an unknown patient adds behind its matrix.

    Returns
    -------
    The map, and (n_components,).
    """
    columns, whole = model.config.metadata, model.feature_map
    end = len(whole.mean) - width(columns)
    unknown = as_unknown(columns, encode(columns, [UNKNOWN]), whole.mean[end:] > 0)[0]
    offset = (unknown - whole.mean[end:]) @ whole.matrix[end:]
    own = whole.first(end, whole.matrix.shape[1])
    return own, np.asarray(offset)


def _mapped(features: FeatureMap, constants: Constants) -> Iterator[str]:
    """Yield the steps from ``turned`` (P, n_components) to ``mapped``; add their constants."""
    if features.unit or features.clip:
        yield "axis1 = Constant<value_ints = [1]>()"
    if features.unit:
        # Of the image's outputs alone: in ``turned`` those of the patient are 0.
        constants["tiny"] = np.array(np.finfo(np.float32).tiny)
        constants["unit"] = np.array(features.unit)
        yield "length_0 = ReduceL2<keepdims = 1>(turned, axis1)"
        yield "divisor = Max(length_0, tiny)"
        yield "direction = Div(turned, divisor)"
        yield "mapped_0 = Mul(direction, unit)"
    else:
        yield "mapped_0 = Identity(turned)"
    yield "mapped_1 = Add(mapped_0, offset)"
    if features.clip:
        constants["longest"] = np.array(features.clip)
        yield "length_1 = ReduceL2<keepdims = 1>(mapped_1, axis1)"
        yield "at_least = Max(length_1, longest)"
        yield "factor = Div(longest, at_least)"
        yield "mapped_2 = Mul(mapped_1, factor)"
    else:
        yield "mapped_2 = Identity(mapped_1)"
    if fourier := features.fourier:
        constants["frequencies"], constants["phases"] = fourier.drawn(features.matrix.shape[1])
        constants["height"] = np.array(np.sqrt(2.0))
        yield "turns = MatMul(mapped_2, frequencies)"
        yield "angles = Add(turns, phases)"
        yield "waves = Cos(angles)"
        yield "mapped = Mul(waves, height)"
    else:
        yield "mapped = Identity(mapped_2)"


def _network(model: NetworkModel) -> Head:
    weights, intercepts = model.last_layer(UNKNOWN)
    average = "averaged = ReduceMean<keepdims = 0>(features, axis0)"
    return [average, *_LAST_LAYER], {"weights": weights.T, "intercepts": intercepts}
