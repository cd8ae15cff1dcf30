"""One prefix searched: kinds of index behind one interface, how they are built, and the kernels."""

from mrl_search.engines.base import Mask, PrefixIndex
from mrl_search.engines.build import build_indexes, check_kinds, load_index
from mrl_search.engines.spec import SCAN, IndexSpec

__all__ = [
    "SCAN", "IndexSpec", "Mask", "PrefixIndex", "build_indexes", "check_kinds", "load_index",
]  # fmt: skip
