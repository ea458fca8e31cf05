"""A model as one ONNX graph: transform, prediction views, network, head and calibration."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from onnx import ModelProto, checker, compose, helper, inliner, load_from_string, shape_inference

from common.export.head import PROBABILITIES, head_graph
from common.export.views import PIXELS, VIEWS, views_graph
from common.models.file import Model
from common.networks.spatial_maps import exported_maps

_PREFIXES = ("before/", "network/", "behind/")


class Parts(NamedTuple):
    """The parts of a model's graph, in 32-bit floats.

    Attributes
    ----------
    views : from "pixels", uint8 (height, width, 3), to the normalised prediction views.
    network : from the views (P, 3, size, size) to its maps.
    head : from the maps to "probabilities", float32 (n_classes,).
    """

    views: ModelProto
    network: ModelProto
    head: ModelProto

    def joined(self) -> ModelProto:
        """Return the whole graph, which uses ONNX's own operators alone.

        It takes "pixels" of an upright picture of any size from 64 pixels on.
        """
        graphs = [part.graph for part in self]
        whole = helper.make_graph(
            [node for graph in graphs for node in graph.node],
            "fedderm",
            graphs[0].input,
            graphs[-1].output,
            [each for graph in graphs for each in graph.initializer],
            value_info=[each for graph in graphs for each in graph.value_info],
        )
        model = helper.make_model(
            whole,
            producer_name="fedderm",
            ir_version=self.network.ir_version,
            opset_imports=[helper.make_opsetid("", opset_of(self.network))],
        )
        checker.check_model(model)
        return model


def parts_of(model: Model) -> Parts:
    """Return the graph of a model from a picture's pixels to its calibrated probabilities.

    All its prediction views are in the graph, and their mean is what it answers by. PyTorch is
    needed to export the network; nothing of it is needed to run the graph.

    Raises
    ------
    ConfigError
        If the network cannot be built, or the model has no graph.
    DataError
        If the pretrained weights cannot be read or do not fit.
    """
    from common.features.backbone import input_statistics

    spec = model.config.feature_spec
    if model.trained is not None:
        spec = replace(spec, levels=0)  # its head reads the final map alone
    network = load_from_string(exported_maps(spec, model.trained))
    del network.metadata_props[:]
    about = (opset_of(network), network.ir_version)
    views = inliner.inline_local_functions(
        views_graph(spec, input_statistics(spec.backbone), *about)
    )
    maps = [output.name for output in network.graph.output]
    head = head_graph(model, [_shape(network, name) for name in maps], *about)
    parts = (views, network, head)
    views, network, head = map(compose.add_prefix, parts, _PREFIXES)
    before, _, behind = _PREFIXES
    taken, given = network.graph.input[0].name, [o.name for o in network.graph.output]
    _rename(views, {before + PIXELS: PIXELS, before + VIEWS: taken})
    names = {f"{behind}map_{k}": name for k, name in enumerate(given)}
    _rename(head, {**names, behind + PROBABILITIES: PROBABILITIES})
    return Parts(views, shape_inference.infer_shapes(network), head)


def opset_of(model: ModelProto) -> int:
    """Return the version of ONNX's own operators that a model uses."""
    return next(int(entry.version) for entry in model.opset_import if not entry.domain)


def _shape(model: ModelProto, name: str) -> tuple[int, ...]:
    output = next(each for each in model.graph.output if each.name == name)
    return tuple(side.dim_value for side in output.type.tensor_type.shape.dim)


def _rename(model: ModelProto, names: Mapping[str, str]) -> None:
    """Give inputs and outputs of a graph other names, in place."""
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
