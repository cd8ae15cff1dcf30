"""Indexes on disk: FAISS indexes of the prefixes of stored vectors, and the folder they live in."""

from mrl_search.engines.build import add_prefix_indexes, build_prefix_index, check_factories
from mrl_search.engines.collection import Index, newest_index
from mrl_search.engines.effort import efforts, is_graph, search_parameters

__all__ = [
    "Index", "add_prefix_indexes", "build_prefix_index", "check_factories", "efforts", "is_graph", "newest_index", "search_parameters",
]  # fmt: skip
