"""Import torchvision with a torch that it was not linked to.

PyPI's torchvision is linked to CUDA. With a CPU-only torch its import fails with "operator
torchvision::nms does not exist" (pytorch/vision#9077). Models and transforms do not use these
operators; declaring their schemas is enough.
"""

import importlib
from types import ModuleType
from typing import Any

import torch

__all__ = ["import_torchvision"]

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[Any] = []  # a torch.library.Library drops its schemas when it is collected


def import_torchvision(name: str = "torchvision") -> ModuleType:
    """Import the module `name` of torchvision."""
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _declared:
            raise
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)
    return importlib.import_module(name)
