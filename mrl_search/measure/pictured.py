"""The part of a benchmark that needs pictures and the model."""

from pathlib import Path

from mrl_search.errors import DataError
from mrl_search.images.sources import Source, open_source
from mrl_search.index import Index
from mrl_search.measure.bench import measure_copies
from mrl_search.measure.copies import STANDARD, changed_copies, corpus_of
from mrl_search.measure.queries import QuerySet, shuffled, temporary_index
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
        progress: called with what is being done, how far, and of how much.

    Returns:
        the queries, and the journal for `measure`.

    Raises:
        IndexFolderError: the index was built with another model.
        DataError: too few pictures; or none is in the index, so that no copy has an original.
    """
    corpus, encoder, seed = index.corpus, index.encoder, settings.seed
    if source is None:
        pictures: Source = corpus_of(corpus)
        queries = QuerySet.of_corpus(corpus, settings.sample, seed)
    else:
        pictures = open_source(source) if isinstance(source, str) else source
        with temporary_index(pictures, encoder, encoder.dims[-1:], progress) as own:
            collection = own.corpus.collection
            queries = QuerySet.of_collection(
                collection, pictures.name, corpus, settings.sample, seed
            )
            _ = queries.vectors, queries.paths  # read before the folder goes
    journal = Journal.open(out, about(corpus, queries, settings))
    if not journal.has("embedding"):
        paths = [path for path in queries.paths[shuffled(len(queries), TIMED, seed)] if path]
        embedded = [index.embed([path], skip_broken=True) for path in paths]
        times = [one.embed_ms for one in embedded if one.names and one.embed_ms is not None]
        if len(times) > 1:
            journal.add("embedding", ms=[round(ms, 3) for ms in times[1:]])
    if settings.copies and not all(journal.has("instance", dims=d) for d in corpus.dims):
        known = queries.paths_in(corpus)
        if not known:
            raise DataError(
                f"No picture of {pictures.name} is in {corpus.folder}: "
                "no copy can find its original.",
                "Leave --instance out.",
            )
        chosen = {known[i] for i in shuffled(len(known), settings.copies, seed)}
        copies, _ = changed_copies(pictures, encoder, chosen, STANDARD, progress)
        measure_copies(corpus, copies, journal)
    return queries, journal
