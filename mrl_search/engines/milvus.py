"""Milvus: where a collection is, how it is asked, and what it keeps of an index.

A collection has a row an item: `id`, the item's columns as JSON in `item`, and a field of unit
norm for each prefix, `prefix_64`. A server that allows one vector field (Milvus 2.3) gets a
collection a prefix instead. A second collection, NAME_files, keeps small files: what the index is.

Searches see what their own process has written (consistency "Session"), and what others have
written within some tenths of a second; counts and checks see everything ("Strong").
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.base import Found
from mrl_search.engines.milvus_client import BUILDING, Damaged, Place, ask, connected
from mrl_search.engines.milvus_made import (
    KINDS,
    MOST_FOUND,
    fields_of,
    file_schema,
    files_of,
    fill_hint,
    made,
    of_another,
    owner_of,
    read_file,
    schema_of,
    write_file,
)
from mrl_search.errors import ConfigError, EngineError

__all__ = ["MOST_FIELDS", "Remote", "default_effort", "milvus_kind"]

MOST_FIELDS = 10  # vector fields of a collection
MESSAGE = 8 << 20  # bytes of vectors in one call
TOGETHER = 32  # queries in one call
ANSWERS = 8192  # of one call: Milvus Lite takes a fifth of a millisecond for each
FLAT_UP_TO = 50_000  # rows


def milvus_kind(kind: str, count: int, last: bool) -> str:
    """The kind of index of one prefix; `auto` and `Flat` are words of `IndexSpec`.

    Raises:
        ConfigError: Milvus has no such kind, or none that is known here.
    """
    if kind == "auto":
        return "FLAT" if last or count <= FLAT_UP_TO else "HNSW"
    if kind.upper() not in KINDS:
        raise ConfigError(f"{kind!r} is no kind of index in Milvus.", f"Use {', '.join(KINDS)}.")
    return kind.upper()


def default_effort(kind: str) -> int:
    """The effort of a search that names none; 0 for a kind that takes none."""
    efforts = KINDS[kind][2]
    return efforts[2] if efforts else 0


class Remote:
    """The collections of one place. Safe for several threads.

    Args:
        place: where they are.

    Attributes:
        dims: prefixes that have a field, ascending; the last is the full length.
        kinds: the kind of index of each.
        about: what the index is, as JSON.

    Raises:
        ConfigError: pymilvus is not installed.
        EngineError: the server does not answer, refuses, or has no such collection.
    """

    def __init__(self, place: Place) -> None:
        if not self.exists(place):
            raise Damaged(f"There is no collection {place}.", fill_hint(place))
        self.place, self._client = place, connected(place)
        self.about: dict[str, Any] = self._about()
        self.kinds: dict[int, str] = {int(d): kind for d, kind in self.about["kinds"].items()}
        self.dims = tuple(sorted(self.kinds))
        for name in self._names():
            if not self._ask(self._client.has_collection, name):
                raise Damaged(f"The collection {name} of {place} is gone.", fill_hint(place))
            self._ask(
                self._client.load_collection, name, seconds=BUILDING if place.is_file else None
            )

    def _about(self) -> dict[str, Any]:
        """What the index is.

        Raises:
            Damaged: the collections were not made to the end, or lost their small files.
            EngineError: they are not of mrl-search.
        """
        with suppress(ValueError):  # damaged
            if self._ask(self._client.has_collection, files_of(self.place)):
                return dict(json.loads(self.file("about") or b""))
        if self.owner(self.place):
            raise Damaged(f"The collection {self.place} is not whole.", fill_hint(self.place))
        message = f"The collection {self.place} was not made by mrl-search."
        raise EngineError(message, "Choose another name.")

    @staticmethod
    def exists(place: Place) -> bool:
        """Whether there is a collection; looking makes no file."""
        if place.is_file and not Path(place.uri).exists():
            return False
        client = connected(place)
        return bool(ask(place, client.has_collection, place.name)) or bool(
            ask(place, client.has_collection, files_of(place))
        )

    @staticmethod
    def owner(place: Place) -> str | None:
        """The token of the index that a place belongs to; "" for another program's, None: free."""
        if not Remote.exists(place):
            return None
        client = connected(place)
        names = [n for n in (place.name, files_of(place)) if ask(place, client.has_collection, n)]
        return owner_of(place, client, names[0])

    @classmethod
    def create(cls, place: Place, kinds: Mapping[int, str], about: Mapping[str, object]) -> Self:
        """Open the collections of an index, made where a run that was stopped did not make them.

        Args:
            place: where.
            kinds: the kind of index of each prefix.
            about: what the index is; its `token` is that of no other.

        Raises:
            EngineError: they belong to another index.
        """
        client, dims, token = connected(place), sorted(kinds), str(about["token"])
        made(place, client, files_of(place), file_schema, token)
        wanted = {**about, "kinds": {str(d): kinds[d] for d in dims}}
        known = json.loads(read_file(place, client, "about") or b"{}")
        if known and known != {**wanted, "apart": known.get("apart")}:
            raise of_another(place)
        fields = fields_of(place, client, place.name)
        apart = bool(fields) and f"prefix_{dims[0]}" not in fields
        try:
            if not apart:
                made(place, client, place.name, partial(schema_of, kinds=kinds), token)
        except EngineError as error:
            if "vector field" not in error.message:
                raise
            apart = True  # the server allows fewer fields
        for d in dims if apart else ():
            name = place.name if d == dims[-1] else f"{place.name}_{d}"
            made(place, client, name, partial(schema_of, kinds={d: kinds[d]}), token)
        if not known:
            content = json.dumps({**wanted, "apart": apart})
            write_file(place, client, "about", content.encode())
        return cls(place)

    def manifest(self) -> bytes:
        """The manifest of the index; it is written last.

        Raises:
            EngineError: the collections were not filled to the end.
        """
        found = self.file("manifest")
        if found is None:
            raise Damaged(f"The collection {self.place} is not whole.", fill_hint(self.place))
        return found

    def check(self, token: str, kinds: Mapping[str, str]) -> None:
        """Check that the collections are those of an index, and were filled to the end.

        Raises:
            EngineError: they are not.
        """
        if (self.about.get("token"), self.about["kinds"]) != (token, dict(kinds)):
            raise of_another(self.place)
        self.manifest()

    @classmethod
    def drop(cls, place: Place) -> None:
        """Remove the collections of a place, those of Milvus Lite whether or not it can read them.

        Raises:
            EngineError: it does not answer.
        """
        client, names = connected(place), [place.name, files_of(place)]
        owner = None if place.is_file else cls.owner(place)
        for name in ask(place, client.list_collections) if owner else ():
            prefix = name.removeprefix(f"{place.name}_")
            if prefix.isdecimal() and owner_of(place, client, name) == owner:
                names.append(name)  # of a server that allows one vector field
        for name in reversed(names):
            with suppress(Damaged):
                ask(place, client.drop_collection, name)
            if place.is_file:
                shutil.rmtree(Path(place.uri) / "collections" / name, ignore_errors=True)

    def _names(self) -> set[str]:
        """The collections that have vectors."""
        return {self._field(d)[0] for d in self.dims}

    def _field(self, dims: int) -> tuple[str, str]:
        """The collection and the field of a prefix."""
        name, field = self.place.name, f"prefix_{dims}"
        whole = not self.about.get("apart") or dims == self.dims[-1]
        return (name if whole else f"{name}_{dims}"), field

    def _ask(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:  # noqa: ANN401
        return ask(self.place, call, *args, **options)

    def counts(self) -> set[int]:
        """Numbers of rows of the collections; more than one if they differ."""
        options = {"filter": "", "output_fields": ["count(*)"], "consistency_level": "Strong"}
        return {
            int(self._ask(self._client.query, name, **options)[0]["count(*)"])
            for name in self._names()
        }

    def count(self) -> int:
        """Number of rows that every collection has.

        Raises:
            Damaged: one has more than another.
        """
        found = self.counts()
        if len(found) > 1:
            message = f"The collections of {self.place} have {min(found):,} to {max(found):,} rows."
            raise Damaged(message, fill_hint(self.place))
        return found.pop()

    def upsert(
        self, ids: NDArray[np.int64], rows: NDArray[np.float32], items: Sequence[Mapping[str, Any]]
    ) -> None:
        """Write rows (n, dim) of unit norm, in place of those of the same ids."""
        from mrl_search.vectors import prefix

        if not len(ids):
            return
        vectors = {d: prefix(rows, d) for d in self.dims}
        together: dict[str, list[dict[str, Any]]] = {}
        for d in self.dims:
            name, field = self._field(d)
            data = together.setdefault(
                name, [{"id": int(i), "item": item} for i, item in zip(ids, items, strict=True)]
            )
            for row, vector in zip(data, vectors[d], strict=True):
                row[field] = vector
        for name, data in together.items():
            self._ask(self._client.upsert, name, data)

    def settle(self) -> None:
        """Have Milvus Lite store what was written; until then each search converts all rows."""
        for name in self._names() if self.place.is_file else ():
            self._ask(self._client.flush, name, seconds=BUILDING)

    def batch(self) -> int:
        """How many rows are written in one call."""
        return max(1, min(2_000, MESSAGE // (4 * sum(self.dims))))

    def delete(self, ids: NDArray[np.int64]) -> None:
        """Remove rows; those that are gone already count as removed."""
        for start in range(0, len(ids), 10_000):
            some = ids[start : start + 10_000].tolist()
            for name in self._names():
                self._ask(self._client.delete, name, ids=some)

    def search(
        self, dims: int, x: NDArray[np.float32], k: int, effort: int = 0, where: str = ""
    ) -> Found:
        """The best `k` rows by the inner product of a prefix.

        Args:
            dims: which prefix.
            x: (n, dims) float32 of unit norm.
            k: answers wanted.
            effort: as of `PrefixIndex`.
            where: an expression that rows must meet.

        Returns:
            scores and ids of items, (n, k); where there are fewer, -inf and -1.
        """
        if k > MOST_FOUND:
            hint = f"Keep at most {MOST_FOUND:,} in every stage."
            raise ConfigError(f"Milvus gives at most {MOST_FOUND:,} answers, not {k:,}.", hint)
        name, field = self._field(dims)
        word, wanted = KINDS[self.kinds[dims]][1], effort or default_effort(self.kinds[dims])
        params = {word: max(wanted, k) if word == "ef" else wanted} if word else {}
        scores = np.full((len(x), k), -np.inf, np.float32)
        ids = np.full((len(x), k), -1, np.int64)
        together = max(1, min(TOGETHER, ANSWERS // max(k, 1)))
        for start in range(0, len(x), together):
            some = list(x[start : start + together])
            found = self._ask(  # where no field is named, Milvus Lite answers with all vectors
                self._client.search, name, data=some, anns_field=field, limit=k, filter=where,
                output_fields=["id"], consistency_level="Session",
                search_params={"metric_type": "IP", "params": params},
            )  # fmt: skip
            for row, hits in enumerate(found, start):
                ids[row, : len(hits)] = [hit["id"] for hit in hits]
                scores[row, : len(hits)] = [hit["distance"] for hit in hits]
        return scores, ids

    def rows(
        self, first: int, beyond: int
    ) -> Iterator[tuple[int, NDArray[np.float32], dict[str, Any]]]:
        """Id, vector (dim,) float32 and columns of the rows whose id lies in a range."""
        where = f"id >= {first} and id < {beyond}"
        yield from self._rows(where)

    def some(self, ids: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float32], dict[str, Any]]]:
        """The same of some ids, in any order; those that are not there are left out."""
        yield from self._rows(f"id in {list(map(int, ids))}")

    def _rows(self, where: str) -> Iterator[tuple[int, NDArray[np.float32], dict[str, Any]]]:
        name, field = self._field(self.dims[-1])
        wanted = ["id", "item", field]
        for row in self._ask(self._client.query, name, filter=where, output_fields=wanted):
            yield int(row["id"]), np.asarray(row[field], np.float32), row["item"]

    def write_file(self, name: str, content: bytes) -> None:
        """Keep a small file, in place of an older one."""
        write_file(self.place, self._client, name, content)

    def file(self, name: str) -> bytes | None:
        """A small file; None if there is none."""
        return read_file(self.place, self._client, name)
