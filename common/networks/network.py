"""The network that is fine-tuned: a folded backbone and a linear head, opened stage by stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx, nn

from common.arrays import Floats32
from common.config.run import RunConfig
from common.errors import ConfigError
from common.features.backbone import load_backbone
from common.features.pretrained import weights_digest
from common.networks.fused_head import fused
from common.networks.fusion import METADATA, Fusion, fusion_of

from timm.models import group_parameters  # isort: skip  (after common.features.backbone)

HEAD = "head"
ALL = "all"

OWN = (f"{HEAD}.", f"{METADATA}.")
"""What the names of parameters begin with that every stage opens."""

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Weights = Mapping[str, Floats32]


class Network(nn.Module):
    """A pretrained backbone without normalisation layers, and a linear head that starts at zero.

    Weights of the head at zero make its first gradient the same wherever it is computed, and
    need no random numbers. All parameters are named ``backbone.*``, ``head.*`` or ``metadata.*``.

    Attributes
    ----------
    backbone : maps normalised images (n, 3, h, w) to features (n, n_features).
    head : maps features to logits (n, n_classes).
    metadata : how numbers of the patient enter; None if they do not.
    """

    def __init__(self, backbone: nn.Module, n_classes: int, fusion: Fusion | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.graph = _trace(backbone)
        self.n_features = int(backbone.num_features)  # type: ignore[arg-type]
        self.head = nn.Linear(self.n_features, n_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.metadata = fused(fusion, n_classes, self.n_features)
        self.pretrained = {
            name: tensor.detach().clone() for name, tensor in self.named_parameters()
        }

    @property
    def pretrained_arrays(self) -> dict[str, Floats32]:
        """The pretrained parameters by name, in their shapes."""
        return {name: tensor.numpy() for name, tensor in self.pretrained.items()}

    def forward(self, images: Tensor, about: Tensor | None = None) -> Tensor:
        """Map normalised images (n, 3, h, w) to logits (n, n_classes).

        Parameters
        ----------
        about : (n, width) numbers of the patients, which a network without metadata ignores.
        """
        return self.classify(self.backbone(images), about)

    def classify(
        self, features: Tensor, about: Tensor | None, factors: Tensor | None = None
    ) -> Tensor:
        """Map pooled features (n, n_features) to logits (n, n_classes).

        Parameters
        ----------
        about : (n, width) numbers of the patients, which a network without metadata ignores.
        factors : (n, n_features) of dropout, on what the head sees; 1 if None.
        """
        if factors is None:
            factors = features.new_ones(())
        if self.metadata is None:
            logits: Tensor = self.head(features * factors)
            return logits
        fused_logits: Tensor = self.metadata(self.head, features, factors, about)
        return fused_logits

    @torch.no_grad()
    def load(self, weights: Weights) -> None:
        """Set the parameters in ``weights``, of their shapes; reset all others as pretrained."""
        for name, parameter in self.named_parameters():
            if name in weights:
                parameter.copy_(torch.from_numpy(np.array(weights[name])))
            else:
                parameter.copy_(self.pretrained[name])


@dataclass(frozen=True)
class Stage:
    """The open part of a network, cut off from the frozen one.

    Attributes
    ----------
    name : ``head``, ``all``, or the module from which on everything is open.
    tail : maps the activations at the cut to features (n, n_features); where nothing is frozen,
        images. Its parameters are the network's own.
    trainable : the open parameters by name, those that are named ``OWN`` last.
    depth : how many groups of layers each lies before the head, which has 0.
    """

    name: str
    tail: nn.Module
    trainable: dict[str, nn.Parameter]
    depth: dict[str, int]

    @property
    def frozen(self) -> bool:
        """Whether a part of the network is not trained, so that its output can be kept."""
        return self.name != ALL


def build(
    backbone: str, weights: Path | None, n_classes: int, fusion: Fusion | None = None
) -> Network:
    """Return the pretrained network in evaluation mode, in the fastest memory layout.

    Its head has ``n_classes`` outputs; ``fusion`` says how metadata enter, None if they do not.

    Raises
    ------
    ConfigError
        If the backbone cannot be used.
    DataError
        If its weights cannot be read.
    """
    network = Network(load_backbone(backbone, weights), n_classes, fusion).eval()
    network.to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def run_network(config: RunConfig) -> Network:
    """Return a run's network, one for all sites of a process; each user loads its weights first.

    Errors are those of :func:`shared_network`.
    """
    fusion = fusion_of(config.fusion, config.metadata)
    return shared_network(config.backbone, config.weights, config.task.n_classes, fusion)


def shared_network(
    backbone: str, weights: Path | None, n_classes: int, fusion: Fusion | None = None
) -> Network:
    """Return one network for all sites of a process; each user loads its weights first.

    Where the weights file was replaced, or the number of classes is another, it is another network.

    Parameters
    ----------
    fusion : how metadata enter; None if they do not.

    Raises
    ------
    ConfigError
        If the backbone cannot be used.
    DataError
        If its weights cannot be read.
    """
    return _shared(backbone, weights, n_classes, fusion, weights_digest(backbone, weights))


@lru_cache(maxsize=1)
def _shared(
    backbone: str, weights: Path | None, n_classes: int, fusion: Fusion | None, digest: str
) -> Network:
    return build(backbone, weights, n_classes, fusion)


def open_stage(network: Network, name: str) -> Stage:
    """Open a network from the first module that ``name`` names, in the order of execution.

    Raises
    ------
    ConfigError
        If the network has no such module.
    """
    opened = {f"backbone.{module}" for module in _opened(network, name)}
    trainable = {
        full: parameter
        for full, parameter in network.named_parameters()
        if full.startswith(OWN) or full.rpartition(".")[0] in opened
    }
    depth = _depth(network)
    tail = network.backbone if name == ALL else _tail(network, _cut(network, name))
    return Stage(name, tail, trainable, {full: depth[full] for full in trainable})


def trunk(network: Network, names: Sequence[str]) -> nn.Module:
    """Return the network that maps images to the activations at the cuts of several stages.

    Its output is a tuple in the order of ``names``.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    values = [_cut(network, name).value for name in names]
    for node in network.graph.nodes:
        if node.op != "output":
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[value] for value in values))
    module = fx.GraphModule(network.backbone, graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def to_device(inputs: Tensor) -> Tensor:
    """Move ``inputs`` of any shape to where the network is, images (n, 3, h, w) in its layout."""
    if inputs.ndim == 4:
        return inputs.to(DEVICE, memory_format=torch.channels_last)
    return inputs.to(DEVICE)


def autocast() -> torch.autocast:
    """Compute in mixed precision on a GPU, in single precision on a CPU."""
    return torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=DEVICE == "cuda")


class _Tracer(fx.Tracer):
    """Traces modules down to those without children, whose code may branch on shapes."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return next(m.children(), None) is None


def _trace(backbone: nn.Module) -> fx.Graph:
    try:
        return _Tracer().trace(backbone)
    except fx.proxy.TraceError as error:
        raise ConfigError(f"this backbone cannot be cut into stages ({error})") from error


def _opened(network: Network, name: str) -> list[str]:
    """Return the modules with parameters that a stage opens, in the order of execution."""
    own = {full.rpartition(".")[0] for full, _ in network.backbone.named_parameters()}
    owners = dict.fromkeys(_owner(node) for node in network.graph.nodes)
    modules = [module for module in owners if module in own]
    if name in (ALL, HEAD):
        return modules if name == ALL else []
    starts = [i for i, m in enumerate(modules) if m == name or m.startswith(f"{name}.")]
    if not starts:
        known = dict.fromkeys(".".join(m.split(".")[:2]) for m in modules)
        raise ConfigError(
            f"stage '{name}' names no part of this network; choose from {HEAD}, "
            f"{', '.join(reversed(known))}, {ALL}"
        )
    return modules[starts[0] :]


def _owner(node: fx.Node) -> str | None:
    """Name the module that a node calls, or whose parameter it reads; None for others."""
    target = str(node.target)
    return {"call_module": target, "get_attr": target.rpartition(".")[0]}.get(node.op)


class _Cut(NamedTuple):
    """Nodes from number ``end`` on use only ``value`` of those before."""

    value: fx.Node
    end: int


def _cut(network: Network, name: str) -> _Cut:
    """Return the last place, before what a stage opens, where a single value is passed on."""
    nodes = list(network.graph.nodes)
    opened = set(_opened(network, name))
    first = next(i for i, n in enumerate(nodes) if _owner(n) in opened or n.op == "output")
    number = {node: i for i, node in enumerate(nodes)}
    for end in range(first, 0, -1):
        crossing = [n for n in nodes[:end] if any(number[user] >= end for user in n.users)]
        if len(crossing) == 1:
            return _Cut(crossing[0], end)
    raise AssertionError("a network has one input")


def _tail(network: Network, cut: _Cut) -> fx.GraphModule:
    graph = fx.Graph()
    copies = {cut.value: graph.placeholder("activations")}
    for node in list(network.graph.nodes)[cut.end :]:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    return fx.GraphModule(network.backbone, graph)


def _depth(network: Network) -> dict[str, int]:
    """Return each parameter's group of layers, as timm counts them, from the head's 0."""
    model: Any = network.backbone
    groups = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    deepest = max(groups.values())
    depth = {f"backbone.{name}": deepest + 1 - number for name, number in groups.items()}
    return depth | {name: 0 for name in network.pretrained if name.startswith(OWN)}
