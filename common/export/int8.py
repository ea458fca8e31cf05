"""A network in 8 bits: static, a scale a channel, QDQ.

Ranges are fixed ahead: dynamic ones cost depthwise convolutions their accuracy. Each weight has
the scale of its output channel, and biases make up for the rounding. The graph says by pairs of
QuantizeLinear and DequantizeLinear (QDQ) where 8 bits are enough, and every runtime fuses them as
it can. Transform, pooling, head and calibration stay in floats.
"""

import numpy as np
from onnx import ModelProto, checker

from common.export.ranges import TensorCounts, tensors_of
from common.export.rounding import with_rounded_weights

_TYPES = ("Conv", "Add", "Clip", "Relu")


def in_int8(network: ModelProto, counts: TensorCounts) -> ModelProto:
    """Return a network in 8 bits.

    Parameters
    ----------
    network : in 32-bit floats, as of :class:`common.export.graph.Parts`.
    counts : of its tensors, over pictures as those that it will see.
    """
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorsData

    tensors = tensors_of(network)
    ranges = counts.ranges(tensors).items()
    spans = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges}
    quantizer = QDQQuantizer(
        with_rounded_weights(network, counts.means(tensors)),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, spans),
        nodes_to_quantize=[],
        nodes_to_exclude=[],
        op_types_to_quantize=list(_TYPES),
        extra_options={},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    small: ModelProto = quantizer.model.model
    checker.check_model(small)
    return small
