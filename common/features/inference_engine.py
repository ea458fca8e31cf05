"""Running a frozen network on one view after another, as fast as a CPU core can.

An engine takes one view at a time on one thread; callers with many views use one thread on each
core. On CPUs this is faster than batches, which leave the cache and make threads wait for each
other. A view's features depend on the view alone, not on other views or the number of cores.
"""

import logging
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnxruntime
import torch

from common.arrays import Floats32
from common.errors import FedDermError, reason
from common.features.backbone import PooledFeatures
from common.verified import read_verified, write_verified

Engine = Callable[[Floats32], Floats32]
"""Maps one normalised view (3, size, size) to its features (D,)."""

_log = logging.getLogger(__name__)


def one_thread_per_core() -> ThreadPoolExecutor:
    """Return a pool of a thread for each core of this process; PyTorch uses one core in each.

    It then uses one core in the caller's thread too, because small steps on all cores wait for busy
    ones.
    """
    torch.set_num_threads(1)
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count()
    return ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,))


def torch_engine(network: PooledFeatures) -> Engine:
    """Run a network in evaluation mode by PyTorch, in its fastest memory layout."""
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(view: Floats32) -> Floats32:
        images = torch.from_numpy(view)[None].contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            features: Floats32 = network(images)[0].numpy()
        return features

    return run


def onnx_engine(network: Callable[[], PooledFeatures], size: int, file: Path) -> Engine:
    """Run a network by ONNX Runtime, or by PyTorch where it cannot be exported.

    Parameters
    ----------
    network : builds the network; called only where ``file`` is missing or damaged.
    size : height and width of the views in pixels.
    file : the file of the exported network; its name must say all that the network depends on.

    Raises
    ------
    DataError
        If ``file`` cannot be written.
    """
    try:
        return _session(read_verified(file))
    except FileNotFoundError:
        pass
    except Exception as error:  # ONNX Runtime has an unrelated exception for every failure
        _log.warning("%s cannot be used (%s): exported again", file, reason(error))
    built = network().eval()
    try:
        exported = _export(built, size)
        write_verified(file, exported)
        return _session(exported)
    except FedDermError:
        raise
    except Exception as error:  # nor do the exporter's failures have a common type
        _log.warning("ONNX Runtime cannot run this network, PyTorch does, slower: %s", error)
        return torch_engine(built)


def _export(network: PooledFeatures, size: int) -> bytes:
    with warnings.catch_warnings():  # about the exporter's own future
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, (torch.zeros(1, 3, size, size),), dynamo=True, verbose=False
        )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


def _session(exported: bytes) -> Engine:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(view: Floats32) -> Floats32:
        features: Floats32 = session.run(None, {name: view[None]})[0][0]
        return features

    return run
