"""How a benchmark measures, and the `run` record that opens its file."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from mrl_search.errors import ConfigError, DataError
from mrl_search.measure.contestants import contestants
from mrl_search.measure.environment import environment
from mrl_search.measure.queries import QuerySet
from mrl_search.measure.records import Record, identity
from mrl_search.search.corpus import Corpus

__all__ = ["BenchSettings", "about"]

FEWEST = 10  # queries
MOST_HITS = 255  # a record packs counts of hits into bytes


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """How a benchmark measures; ConfigError for a `k` that is too large for records."""

    k: int = 10  # hits of a plan, for recall and precision
    neighbours: int = 20  # nearest that vote for a label
    sample: int = 25_000  # queries, at most
    timed: int = 200  # queries that are timed one by one; fewer for slow contestants
    rounds: int = 3  # of timing; a query counts with its median
    batch: int = 256  # queries in one call, for the rate
    threads: int = 1  # while times are taken
    copies: int = 0  # changed copies that search for their originals, at most; 0 needs no model
    seed: int = 0  # of all samples

    def __post_init__(self) -> None:
        if self.k > MOST_HITS:
            raise ConfigError(f"bench: k is {self.k}; it must be {MOST_HITS} or less.")


def about(corpus: Corpus, queries: QuerySet, settings: BenchSettings) -> Record:
    """The `run` record: everything that decides the results, hashed as `id`, and the time."""
    m, most = corpus.manifest, max(settings.k, settings.neighbours)
    if not corpus.dims:
        raise DataError(f"{corpus.folder} has no prefix index yet.", m.rebuild(corpus.folder))
    if len(queries) < FEWEST:
        hint = f"Measure with {FEWEST} pictures or more; hundreds give short intervals."
        raise DataError(f"{len(queries)} queries are too few for a benchmark.", hint)
    count = len(corpus.live_rows)
    if count < most + corpus.collection.copies(queries.hashes).max(initial=0):
        message = f"{corpus.folder} has {count} items, too few to find {most} others of each."
        raise DataError(message, "Index more pictures.")
    labels = {label for label in corpus.collection.labels[corpus.live_rows] if label is not None}
    what = {
        "corpus": {
            "n": count, "dim": corpus.dim, "dims": list(corpus.dims), "dtype": m.dtype,
            "source": m.source, "encoder": m.encoder, "fingerprint": m.fingerprint,
            "factory": dict(m.factory), "vectors": corpus.vectors.nbytes, "classes": len(labels),
            "files": {name: record.bytes for name, record in m.files.items()},
            "content": identity({name: record.xxh3 for name, record in m.files.items()}),
        },
        "queries": {
            "source": queries.source, "n": len(queries), "labelled": len(queries.labelled),
            "own": queries.own, "fingerprint": queries.fingerprint, "doubt": queries.doubt,
        },
        "contestants": {c.name: str(c) for c in contestants(corpus, settings.k)},
        "settings": asdict(settings),
        "environment": environment(),
    }  # fmt: skip
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {"id": identity(what), "name": corpus.folder.resolve().name, **what, "when": when}
