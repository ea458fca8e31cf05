"""Weights on 8-bit steps, and biases that make up for it on average.

Rounding moves a channel's output by the moved weights times what they are applied to. Its mean
follows from the mean of each input channel, which adds over pictures and sites; the bias takes it
back. On a depthwise network that is most of what rounding costs.

References
----------
Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019,
section 4.2, with means that are measured.
"""

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from common.arrays import Floats

LARGEST = 127
"""Steps of a weight to either side of zero."""


def with_rounded_weights(network: ModelProto, means: Mapping[str, Floats]) -> ModelProto:
    """Return a network whose convolutions have weights on 8-bit steps, still in floats.

    Parameters
    ----------
    network : of a model's parts.
    means : mean (channels,) of each channel of its tensors, by their names.
    """
    rounded = ModelProto()
    rounded.CopyFrom(network)
    stored = {each.name: each for each in rounded.graph.initializer}
    for node in rounded.graph.node:
        if node.op_type == "Conv" and node.input[1] in stored:
            _round(node, stored, means[node.input[0]])
    return rounded


def _round(node: NodeProto, stored: Mapping[str, TensorProto], mean: Floats) -> None:
    """Round a convolution's weights in place, and correct its bias, if it has one."""
    exact = numpy_helper.to_array(stored[node.input[1]]).astype(np.float64)
    weights = on_steps(exact)
    _put(stored[node.input[1]], weights)
    if len(node.input) > 2 and node.input[2] in stored:
        bias = numpy_helper.to_array(stored[node.input[2]])
        _put(stored[node.input[2]], bias - shift(weights - exact, mean))


def on_steps(weights: Floats) -> Floats:
    """Return ``weights`` (out, inputs, h, w), same shape, on 127 steps a side for each output."""
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    step = np.where(largest > 0, largest, 1.0) / LARGEST
    return np.asarray(np.round(weights / step) * step)


def shift(moved: Floats, mean: Floats) -> Floats:
    """Return by how much moved weights move the mean of each output; edges do not count.

    Parameters
    ----------
    moved : (out, inputs, h, w) what was added to the weights; inputs are those of a group.
    mean : (channels,) of the input, those of all groups.

    Returns
    -------
    An array of shape (out,).
    """
    outputs, inputs = moved.shape[:2]
    groups = len(mean) // inputs
    of_group = mean.reshape(groups, inputs).repeat(outputs // groups, axis=0)
    return np.asarray((moved.sum(axis=(2, 3)) * of_group).sum(axis=1))


def _put(stored: TensorProto, values: Floats) -> None:
    stored.CopyFrom(numpy_helper.from_array(values.astype(np.float32), stored.name))
