"""Running a network without training it, as fast as a CPU core can.

A network is exported once, kept as a file and run by ONNX Runtime, on one thread; callers with many
views use one thread on each core. On CPUs this is faster than batches over all cores, where threads
wait for each other. A view's outputs depend on the view alone, not on the number of cores. PyTorch
is imported only where a network is exported, or cannot be.
"""

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from common.arrays import Floats32
from common.errors import DataError, reason
from common.json_types import Json, JsonObject
from common.storage.verified import read_verified, write_verified

if TYPE_CHECKING:
    from torch import nn

    from common.features.backbone import PooledFeatures

Engine = Callable[[Floats32], Floats32]
"""Maps one normalised view (3, size, size) to its features (D,)."""

Run = Callable[[Floats32], Sequence[Floats32]]
"""Maps normalised views (n, 3, size, size) to the network's outputs, each of n rows."""

_FACTS = "fedderm"

_log = logging.getLogger(__name__)


class Built(NamedTuple):
    """A network as PyTorch builds it.

    Attributes
    ----------
    network : in evaluation mode, on the CPU; it gives a tensor or a tuple of tensors.
    facts : what users of the exported network must know beside its outputs.
    """

    network: "nn.Module"
    facts: Mapping[str, Json]


class Runner(NamedTuple):
    """A network that can be run, and the facts that were built with it."""

    run: Run
    facts: JsonObject


def one_thread_per_core() -> ThreadPoolExecutor:
    """Return a pool of a thread for each core of this process; PyTorch uses one core in each.

    It then uses one core in the caller's thread too, because small steps on all cores wait for busy
    ones. A process that has not imported PyTorch does not import it for this.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count()
    if "torch" not in sys.modules:
        return ThreadPoolExecutor(cores)
    import torch

    torch.set_num_threads(1)
    return ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,))


def torch_engine(network: "PooledFeatures") -> Engine:
    """Run a network in evaluation mode by PyTorch, in its fastest memory layout."""
    return _one_view(torch_runner(Built(network, {})).run)


def onnx_engine(network: "Callable[[], PooledFeatures]", size: int, file: Path) -> Engine:
    """Run a network by ONNX Runtime, or by PyTorch where it cannot be exported.

    Parameters
    ----------
    network : builds the network; called only where ``file`` is missing or damaged.
    size : height and width of the views in pixels.
    file : the file of the exported network; its name must say all that the network depends on.
    """
    runner = onnx_runner(lambda: Built(network(), {}), (1, 3, size, size), [file])
    return _one_view(runner.run)


def onnx_runner(
    build: Callable[[], Built], shape: tuple[int, int, int, int], files: Sequence[Path]
) -> Runner:
    """Run a network by ONNX Runtime, or by PyTorch where it cannot be exported.

    Parameters
    ----------
    build : called only where no file has the exported network whole.
    shape : (n, 3, size, size), the shape of the views in every run.
    files : where the exported network may be. It is kept in the first that can be written, if any.
        Their names must say all that the network and its facts depend on.
    """
    for file in files:
        try:
            return _session(read_verified(file))
        except OSError:  # not there, or not for this user
            continue
        except Exception as error:  # ONNX Runtime has an unrelated exception for every failure
            _log.warning("%s cannot be used (%s): exported again", file, reason(error))
    _log.info("exporting the network for ONNX Runtime, which takes some seconds, once")
    built = build()
    try:
        exported = export(built, shape)
        runner = _session(exported)
    except Exception as error:  # nor do the exporter's failures have a common type
        _log.warning("ONNX Runtime cannot run this network, PyTorch does, slower: %s", error)
        return torch_runner(built)
    _keep(exported, files)
    return runner


def torch_runner(built: Built) -> Runner:
    """Run a network by PyTorch, in its fastest memory layout."""
    import torch

    network = built.network.eval()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(views: Floats32) -> Sequence[Floats32]:
        images = torch.from_numpy(views).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            outputs = network(images)
        # As ONNX Runtime gives them: users may rely on the order in memory.
        return [
            each.contiguous(memory_format=torch.contiguous_format).numpy()
            for each in (outputs if isinstance(outputs, tuple) else (outputs,))
        ]

    return Runner(run, dict(built.facts))


def _one_view(run: Run) -> Engine:
    def engine(view: Floats32) -> Floats32:
        features: Floats32 = run(view[None])[0][0]
        return features

    return engine


def export(built: Built, shape: tuple[int, int, int, int]) -> bytes:
    """Return a network as an ONNX file, with its facts.

    Parameters
    ----------
    shape : (n, 3, size, size), the shape of the views in every run.
    """
    import torch

    network = built.network.eval()
    with warnings.catch_warnings():  # about the exporter's own future
        warnings.simplefilter("ignore")
        program = torch.onnx.export(network, (torch.zeros(shape),), dynamo=True, verbose=False)
    assert program is not None
    model = program.model_proto
    model.metadata_props.add(key=_FACTS, value=json.dumps(built.facts))
    content: bytes = model.SerializeToString()
    return content


def _keep(exported: bytes, files: Sequence[Path]) -> None:
    """Write the first of ``files`` that can be written."""
    for file in files:
        try:
            return write_verified(file, exported)
        except DataError as error:
            _log.info("the exported network is not kept in %s: %s", file.parent, error)
    return _log.warning("the exported network cannot be kept, so it will be exported again")


def _session(exported: bytes) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    facts = session.get_modelmeta().custom_metadata_map.get(_FACTS, "{}")

    def run(views: Floats32) -> Sequence[Floats32]:
        outputs: Sequence[Floats32] = session.run(None, {name: views})
        return outputs

    return Runner(run, json.loads(facts))
