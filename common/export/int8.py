"""A network in 8 bits: static, a scale a channel, QDQ.

Ranges are fixed ahead: dynamic ones cost depthwise convolutions their accuracy. Each weight has
the scale of its output channel. The graph says by pairs of QuantizeLinear and DequantizeLinear
(QDQ) where 8 bits are enough, and every runtime fuses them as it can. Transform, pooling, head and
calibration stay in floats.
"""

from collections.abc import Collection

import numpy as np
from onnx import ModelProto, checker

from common.export.ranges import Ranges

_TYPES = ("Conv", "Add", "Clip", "Relu")


def in_int8(network: ModelProto, ranges: Ranges, floats: Collection[str] = ()) -> ModelProto:
    """Return a network in 8 bits.

    Parameters
    ----------
    network : in 32-bit floats, as of :class:`common.export.graph.Parts`.
    ranges : of the tensors of :func:`common.export.ranges.tensors_of`.
    floats : names of the nodes that stay in floats.
    """
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorsData

    spans = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    copied = ModelProto()
    copied.CopyFrom(network)
    quantizer = QDQQuantizer(
        copied,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, spans),
        nodes_to_quantize=[],
        nodes_to_exclude=list(floats),
        op_types_to_quantize=list(_TYPES),
        extra_options={},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    small: ModelProto = quantizer.model.model
    checker.check_model(small)
    return small
