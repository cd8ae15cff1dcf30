"""Image search over Matryoshka embeddings: train a backbone, embed a corpus once, search coarse to fine.

Nothing is imported until it is used: `import mrl_search` needs neither torch nor FAISS.
"""

import importlib
from typing import Any

_HOMES = {
    "errors": ("MrlSearchError",),
    "engines.spec": ("IndexSpec",),
    "search.plan": ("Plan", "Stage"),
    "training.config": ("TrainConfig",),
    "training.recipes": ("load_recipe",),
    "search.results": ("BatchHits", "Hit", "Hits"),
    "store.rows": ("EmbeddingSet",),
    "images.sources": ("open_source",),
    "training.pixels": ("load_pixels",),
    "training.loop": ("pixel_side", "train"),
    "encoders.registry": ("load_encoder",),
    "engines": ("Index",),
    "search": ("vote",),
    "store.own_vectors": ("index_vectors",),
    "store.vector_files": ("read_queries",),
    "engines.shrink": ("shrink_index",),
    "index": ("build_index", "search_images"),
    "measure.evaluate": ("evaluate",),
    "report.sheet": ("contact_sheet", "save_sheet"),
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
