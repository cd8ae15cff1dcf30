"""Image search over Matryoshka embeddings: train, embed a corpus once, search coarse to fine.

Nothing is imported until it is used: `import mrl_search` needs neither torch nor FAISS.

Example:
    >>> import numpy as np
    >>> import mrl_search as mrl
    >>> rows = np.eye(3, 16, dtype="float32") + 0.1
    >>> index = mrl.Index.from_vectors(rows)
    >>> [hit.id for hit in index.search(rows[1], k=2, plan="8:2,16")]
    [1, 0]
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrl_search.encoders.registry import load_encoder
    from mrl_search.encoders.words import Words
    from mrl_search.engines.spec import IndexSpec
    from mrl_search.errors import (
        BrokenImage,
        ConfigError,
        DataError,
        FileError,
        IndexFolderError,
        ModelError,
        MrlSearchError,
    )  # fmt: skip
    from mrl_search.images.sources import open_source
    from mrl_search.index import Index
    from mrl_search.joining import join_parts
    from mrl_search.measure.evaluate import evaluate
    from mrl_search.parts import build_part, build_vector_part
    from mrl_search.report.sheet import contact_sheet, save_sheet
    from mrl_search.search.classify import Ballot, Vote, Weighting
    from mrl_search.search.plan import Plan, Stage
    from mrl_search.search.request import SearchRequest
    from mrl_search.search.results import BatchHits, Hit, Hits
    from mrl_search.shrink import shrink_index
    from mrl_search.store.vector_files import read_queries
    from mrl_search.training.config import Recipe, TrainConfig
    from mrl_search.training.recipes import load_recipe
    from mrl_search.training.steps import train

__version__ = "0.2.0"

_HOMES = {
    "encoders.registry": ("load_encoder",),
    "encoders.words": ("Words",),
    "engines.spec": ("IndexSpec",),
    "errors": (
        "BrokenImage", "ConfigError", "DataError", "FileError", "IndexFolderError", "ModelError",
        "MrlSearchError",
    ),
    "images.sources": ("open_source",),
    "index": ("Index",),
    "joining": ("join_parts",),
    "measure.evaluate": ("evaluate",),
    "parts": ("build_part", "build_vector_part"),
    "report.sheet": ("contact_sheet", "save_sheet"),
    "search.classify": ("Ballot", "Vote", "Weighting"),
    "search.plan": ("Plan", "Stage"),
    "search.request": ("SearchRequest",),
    "search.results": ("BatchHits", "Hit", "Hits"),
    "shrink": ("shrink_index",),
    "store.vector_files": ("read_queries",),
    "training.config": ("Recipe", "TrainConfig"),
    "training.recipes": ("load_recipe",),
    "training.steps": ("train",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Ballot", "BatchHits", "BrokenImage", "ConfigError", "DataError", "FileError", "Hit", "Hits",
    "Index", "IndexFolderError", "IndexSpec", "ModelError", "MrlSearchError", "Plan", "Recipe",
    "SearchRequest", "Stage", "TrainConfig", "Vote", "Weighting", "Words", "build_part",
    "build_vector_part", "contact_sheet", "evaluate", "join_parts", "load_encoder", "load_recipe",
    "open_source", "read_queries", "save_sheet", "shrink_index", "train",
]  # fmt: skip

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
        if name not in _HOME_OF:
            raise AttributeError(f"module 'mrl_search' has no attribute {name!r}")
        return getattr(importlib.import_module(f"mrl_search.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
