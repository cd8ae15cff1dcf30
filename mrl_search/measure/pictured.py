"""The part of a bench that needs pictures and the model."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from mrl_search.encoders.registry import load_encoder
from mrl_search.engines import Index
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import DataError
from mrl_search.images.sources import Source, open_source
from mrl_search.index import build_index, embed_queries
from mrl_search.measure.bench import measure_instances
from mrl_search.measure.copies import STANDARD, changed_copies, corpus_of
from mrl_search.measure.queries import QuerySet
from mrl_search.measure.records import Journal
from mrl_search.measure.settings import BenchSettings, about
from mrl_search.progress import Progress, silent

__all__ = ["bench_pictures"]

TIMED = 31  # query pictures that are embedded one by one, for their time


def bench_pictures(
    index: Index,
    settings: BenchSettings,
    out: Path,
    source: Source | str | None,
    progress: Progress = silent,
) -> tuple[QuerySet, Journal]:
    """The part of a bench that needs the model: embed the pictures of `source` to search with, time that, and search changed copies.

    Args:
        index: what is measured.
        settings: with `copies` over 0, so many changed copies of pictures that are in the corpus are searched.
        out: file of records, begun or gone on with.
        source: the pictures; None: the index's own, which need not be embedded again.
        progress: is told what is being done.

    Returns:
        the queries, and the journal for `measure`.

    Raises:
        IndexFolderError: the index was built with another model than the one that opens now.
        DataError: too few pictures; or copies are wanted, and no picture is in the corpus.
    """
    index.check_takes_images()
    encoder = load_encoder(index.manifest.model)
    index.check_encoder(encoder.fingerprint)
    if source is None:
        pictures: Source = corpus_of(index)
        queries = QuerySet.of_index(index, settings.sample, settings.seed)
    else:
        pictures = open_source(source) if isinstance(source, str) else source
        with tempfile.TemporaryDirectory(prefix="mrl-search-") as folder:
            own = build_index(
                pictures,
                encoder,
                Path(folder) / "queries",
                IndexSpec(dims=(encoder.dims[-1],)),
                progress,
            ).embeddings
            own = replace(
                own, vectors=np.array(own.vectors)
            )  # no longer a file, which is gone in a moment
        queries = QuerySet.of_set(own, settings.sample, settings.seed, pictures.name, index=index)
    journal = Journal.open(out, about(index, queries, settings))
    rng = np.random.default_rng(settings.seed)
    some = queries.embeddings.paths[
        rng.permutation(queries.rows)[:TIMED]
    ]  # drawn in any case: a bench that goes on copies the same ones
    if not journal.has("embedding"):
        embedded = [embed_queries(index, encoder, [path]) for path in some if path]
        times = [
            one.embed_ms for one in embedded if one.names and one.embed_ms is not None
        ]  # the others are gone
        if len(times) > 1:
            journal.add(
                "embedding", ms=[round(ms, 3) for ms in times[1:]]
            )  # the first one warms up
    if settings.copies and not all(journal.has("instance", dims=d) for d in index.dims):
        known = set(index.embeddings.hashes)
        rows = [i for i in queries.rows if queries.embeddings.hashes[i] in known]
        wanted = (
            {
                str(path)
                for path in queries.embeddings.paths[rng.permutation(rows)[: settings.copies]]
                if path
            }
            if rows
            else set()
        )
        if not wanted:
            raise DataError(
                f"No picture of {pictures.name} is in {index.folder}, so no copy can find its original.",
                "Leave --instance out.",
            )
        measure_instances(
            index, changed_copies(pictures, encoder, wanted, STANDARD, progress)[0], journal
        )
    return queries, journal
