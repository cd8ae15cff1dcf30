"""Image search over Matryoshka embeddings: train a backbone, embed a corpus once, search coarse to fine.

Nothing is imported until it is used: `import mrl_search` needs neither torch nor FAISS.
"""

import importlib
from typing import Any

_HOMES = {
    "errors": ("MrlSearchError",),
    "config": ("IndexSpec", "Plan", "Stage", "TrainConfig"),
    "recipes": ("load_recipe",),
    "results": ("BatchHits", "Hit", "Hits"),
    "embeddings": ("EmbeddingSet",),
    "data.sources": ("open_source",),
    "data.pixels": ("load_pixels",),
    "training": ("pixel_side", "train"),
    "models.encoder": ("load_encoder",),
    "index": ("Index",),
    "search": ("vote",),
    "own_vectors": ("index_vectors",),
    "vector_files": ("read_queries",),
    "shrink": ("shrink_index",),
    "workflow": ("build_index", "evaluate", "search_images"),
    "sheet": ("contact_sheet", "save_sheet"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BatchHits", "EmbeddingSet", "Hit", "Hits", "Index", "IndexSpec", "MrlSearchError", "Plan", "Stage", "TrainConfig", "build_index",
    "contact_sheet", "evaluate", "index_vectors", "load_encoder", "load_pixels", "load_recipe", "open_source", "pixel_side",
    "read_queries", "save_sheet", "search_images", "shrink_index", "train", "vote",
]  # fmt: skip


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    if name not in _HOME_OF:
        raise AttributeError(f"module 'mrl_search' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mrl_search.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
