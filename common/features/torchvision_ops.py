"""Let torchvision import beside a torch build that its compiled operators do not match.

A CUDA build of torchvision next to a CPU build of torch cannot load its extension, and
``import torchvision`` then fails on registering ``torchvision::nms``. This project needs
only its transforms, so the missing operators are declared (never implemented) here.
Import this module before torchvision or timm. Where the builds match it does nothing.
"""

import importlib.util
import pathlib

import torch


def _extension_loads() -> bool:
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    for library in pathlib.Path(spec.origin).parent.glob("_C.*"):
        try:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        except OSError:
            return False
    return True


if not _extension_loads():
    # Kept alive for the life of the process: the operators vanish with the object.
    _library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for _operator in ("nms", "qnms"):
        _signature = f"{_operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        _library.define(_signature)  # type: ignore[no-untyped-call]
