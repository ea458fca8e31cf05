"""A trained model as one ONNX file that answers alone: from pixels to calibrated probabilities."""

from typing import Literal

Form = Literal["onnx", "onnx-int8"]
"""Formats of the file: 32-bit floats, or the network in 8 bits."""
