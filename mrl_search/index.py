"""Building an index of pictures, and searching it with pictures."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrl_search.encoders.embed import clear_progress, embed, embed_pictures
from mrl_search.encoders.encoder import Encoder
from mrl_search.engines import Index, add_prefix_indexes, check_factories
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import BrokenImage, Skipped
from mrl_search.files import building_folder, claim, publish
from mrl_search.images.decode import decode, square
from mrl_search.images.sources import Source, open_source, read_path
from mrl_search.progress import Progress, silent
from mrl_search.search import search
from mrl_search.search.plan import Plan
from mrl_search.search.results import BatchHits, Queries
from mrl_search.store.manifest import Manifest, write_manifest
from mrl_search.vectors import check_dims

__all__ = ["Answers", "build_index", "embed_queries", "search_images"]

COPIED = 256  # pictures in memory at once


def build_index(
    source: Source | str,
    encoder: Encoder,
    out: str | Path,
    spec: IndexSpec | None = None,
    progress: Progress = silent,
) -> Index:
    """Embed the images of `source` and build the prefix indexes of `spec` over them, in the new folder `out`.

    An unfinished build of the same images by the same encoder is continued. `spec` defaults to the encoder's dims, each with the kind of
    index that suits so many images.

    Raises:
        IndexFolderError: `out` exists, or is being built by another process.
        ConfigError: a dim that the encoder does not have.
        DataError: there is nothing in `source` that can be read.
    """
    if isinstance(source, str):
        source = open_source(source)
    out = Path(out).expanduser()
    spec = spec or IndexSpec(dims=encoder.dims)
    dim = encoder.dims[-1]
    spec = replace(spec, dims=check_dims({*spec.dims, dim}, dim))
    check_factories(spec, len(source.paths))
    building = building_folder(out)
    with claim(building):
        count = embed(
            source,
            encoder,
            building,
            spec.dtype,
            lambda done, total: progress("embedding", done, total),
        )
        factory = add_prefix_indexes(
            building, spec, lambda d, done, total: progress(f"indexing {d} dims", done, total)
        )
        manifest = Manifest(
            encoder=encoder.name, fingerprint=encoder.fingerprint, dim=dim, dims=spec.dims, count=count, dtype=spec.dtype,
            source=source.name, model=encoder.model, classes=encoder.classes, unit_heads=encoder.unit_heads, factory=factory,
        )  # fmt: skip
        write_manifest(building, manifest)
        publish(building, out)
        clear_progress(out)
    return Index.open(out)


def embed_queries(index: Index, encoder: Encoder, paths: Sequence[str | Path]) -> Queries:
    """Embed image files to search `index` with; one that cannot be read is skipped.

    Raises:
        IndexFolderError: the index was built with another model.
    """
    index.check_encoder(encoder.fingerprint)
    start = time.perf_counter()
    rows, good, skipped = [np.empty((0, index.dim), dtype=np.float32)], [], []
    names = [str(path) for path in paths]
    for first in range(0, len(names), COPIED):
        pictures = []
        for path in names[first : first + COPIED]:
            try:
                image, _ = decode(read_path(path), encoder.size)
            except BrokenImage as error:
                skipped.append(Skipped(path, error.message))
                continue
            pictures.append(square(image, encoder.size))
            good.append(path)
        if pictures:
            rows.append(index.to_space(embed_pictures(encoder, np.stack(pictures))))
    return Queries(good, np.concatenate(rows), tuple(skipped), (time.perf_counter() - start) * 1e3)


@dataclass(frozen=True, eq=False, slots=True)
class Answers:
    """What a search with image files gave: `hits[i]` belongs to `paths[i]`; times in milliseconds for all of them together."""

    paths: list[str]
    hits: BatchHits
    skipped: Sequence[Skipped]
    embed_ms: float
    search_ms: float


def search_images(
    index: Index,
    encoder: Encoder,
    paths: Sequence[str | Path],
    plan: Plan,
    allowed: NDArray[np.int64] | None = None,
) -> Answers:
    """Search `index` with image files; one that cannot be read is skipped. Only the ids `allowed` may be answers, if they are given.

    Raises:
        IndexFolderError: the index was built with another model.
        ConfigError: the plan names a dim that the index does not have.
    """
    for d in plan.dims:
        index.check_dims(d)
    queries = embed_queries(index, encoder, paths)
    start = time.perf_counter()
    hits = search(index, queries.rows, plan, allowed)
    return Answers(
        queries.names,
        hits,
        queries.skipped,
        queries.embed_ms or 0.0,
        (time.perf_counter() - start) * 1e3,
    )
