"""How a bench measures, and what decides its numbers: the `run` record that opens a file of records."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from mrl_search.engines import Index
from mrl_search.errors import ConfigError, DataError
from mrl_search.measure.contestants import contestants, stored_bytes
from mrl_search.measure.queries import QuerySet
from mrl_search.measure.records import Record, environment, identity
from mrl_search.search import copies_of

__all__ = ["BenchSettings", "about"]


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """How a bench measures.

    Attributes:
        k: answers of a plan, of which recall and precision are told.
        neighbours: that vote for a label, per prefix.
        sample: at most so many queries.
        timed: of these, so many are timed one by one (fewer for a contestant that is slow).
        rounds: how often each is timed; it counts with its median.
        batch: queries in one call, for the rate.
        threads: of FAISS and numpy while times are taken.
        copies: at most so many changed copies are searched for their originals; 0: none, because that needs the model.
        seed: of all samples.

    Raises:
        ConfigError: a number that makes no sense.
    """

    k: int = 10
    neighbours: int = 20
    sample: int = 25_000
    timed: int = 200
    rounds: int = 3
    batch: int = 256
    threads: int = 1
    copies: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("k", 1),
            ("neighbours", 1),
            ("timed", 2),
            ("rounds", 1),
            ("batch", 1),
            ("threads", 1),
            ("copies", 0),
        ):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"A bench cannot have {name} = {getattr(self, name)}.",
                    f"It is {least} at least.",
                )
        if self.k > 255:
            raise ConfigError(f"A bench cannot have k = {self.k}.", "It is 255 at most.")


def about(index: Index, queries: QuerySet, settings: BenchSettings) -> Record:
    """The `run` record: everything that decides what a bench finds, its `id` a hash of that, and when it began.

    Raises:
        DataError: the corpus is too small for so many neighbours, or has no prefix index.
    """
    m, most = index.manifest, max(settings.k, settings.neighbours)
    if not index.dims:
        raise DataError(f"{index.folder} has no prefix index yet.", m.rebuild(index.folder))
    if len(index) < most + copies_of(index, queries.hashes).max(initial=0):
        raise DataError(
            f"{index.folder} has {len(index)} items, too few to find {most} others of each.",
            "Index more pictures.",
        )
    what = {
        "corpus": {
            "n": len(index), "dim": index.dim, "dims": list(index.dims), "dtype": m.dtype, "source": m.source, "encoder": m.encoder,
            "fingerprint": m.fingerprint, "factory": dict(m.factory), "vectors": stored_bytes(index),
            "classes": len({label for label in index.embeddings.labels if label is not None}),
            "files": {name: record.bytes for name, record in m.files.items()},
            "content": identity({name: record.xxh3 for name, record in m.files.items()}),
        },
        "queries": {
            "source": queries.source, "n": len(queries), "labelled": len(queries.labelled), "own": queries.own,
            "fingerprint": queries.fingerprint,
        },
        "contestants": {c.name: str(c) for c in contestants(index, settings.k)},
        "settings": asdict(settings),
        "environment": environment(),
    }  # fmt: skip
    return {
        "id": identity(what),
        "name": index.folder.resolve().name,
        **what,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
