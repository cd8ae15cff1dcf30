"""Importing torchvision, also beside a torch that it was not linked with.

PyPI's torchvision is linked to CUDA; beside a CPU-only torch its C++ operators cannot load, and the import stops at "operator
torchvision::nms does not exist" (pytorch/vision#9077). Its models and transforms need none of them: declaring the schemas is enough.
"""

import importlib
from types import ModuleType
from typing import Any

import torch

__all__ = ["import_torchvision"]

SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[Any] = []  # a torch.library.Library forgets its schemas when it is collected


def import_torchvision(name: str = "torchvision") -> ModuleType:
    """The module `name` of torchvision."""
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _declared:
            raise
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in SCHEMAS.values():
        library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)
    return importlib.import_module(name)
