"""The part of a benchmark that needs pictures and the model."""

from pathlib import Path

import numpy as np

from mrl_search.encoders.encoder import load_encoder
from mrl_search.engines import Index
from mrl_search.errors import DataError
from mrl_search.images.sources import Source, open_source
from mrl_search.index import embed_queries
from mrl_search.measure.bench import measure_copies
from mrl_search.measure.copies import STANDARD, changed_copies, corpus_of
from mrl_search.measure.queries import QuerySet, temporary_index
from mrl_search.measure.records import Journal
from mrl_search.measure.settings import BenchSettings, about
from mrl_search.progress import Progress, silent

__all__ = ["bench_pictures"]

TIMED = 31  # query pictures that are embedded one by one; the first one warms up


def bench_pictures(
    index: Index,
    settings: BenchSettings,
    out: Path,
    source: Source | str | None,
    progress: Progress = silent,
) -> tuple[QuerySet, Journal]:
    """Embed the query pictures, time that, and search with changed copies.

    Args:
        index: what is measured.
        settings: its `copies` says with how many changed copies to search.
        out: file of records, new or to be continued.
        source: query pictures; None: those of the index itself, which are embedded already.
        progress: receives what is done, how much of it, and the total.

    Returns:
        the queries, and the journal for `measure`.

    Raises:
        IndexFolderError: the index was built with another model.
        DataError: too few pictures; or none is in the index, so that no copy has an original.
    """
    index.check_takes_images()
    encoder = load_encoder(index.manifest.model)
    index.check_encoder(encoder.fingerprint)
    if source is None:
        pictures: Source = corpus_of(index)
        queries = QuerySet.of_index(index, settings.sample, settings.seed)
    else:
        pictures = open_source(source) if isinstance(source, str) else source
        with temporary_index(pictures, encoder, encoder.dims[-1:], progress) as own:
            queries = QuerySet.of_collection(
                own.embeddings, pictures.name, index, settings.sample, settings.seed
            )
            _ = queries.vectors, queries.paths  # read before the folder goes
    journal = Journal.open(out, about(index, queries, settings))
    if not journal.has("embedding"):
        paths = queries.paths[queries.shuffled(TIMED, settings.seed)]
        embedded = [embed_queries(index, encoder, [path]) for path in paths if path]
        times = [one.embed_ms for one in embedded if one.names and one.embed_ms is not None]
        if len(times) > 1:
            journal.add("embedding", ms=[round(ms, 3) for ms in times[1:]])
    if settings.copies and not all(journal.has("instance", dims=d) for d in index.dims):
        wanted = queries.paths_in(index)
        if not wanted:
            raise DataError(
                f"No picture of {pictures.name} is in {index.folder}: "
                "no copy can find its original.",
                "Leave --instance out.",
            )
        order = np.random.default_rng(settings.seed).permutation(len(wanted))[: settings.copies]
        chosen = {wanted[i] for i in order}
        copies, _ = changed_copies(pictures, encoder, chosen, STANDARD, progress)
        measure_copies(index, copies, journal)
    return queries, journal
