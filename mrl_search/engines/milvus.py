"""Milvus: where a collection is, how it is asked, and what it keeps of an index.

A collection has a row an item: `id`, the item's columns as JSON in `item`, and a field of unit
norm for each prefix, `prefix_64`. A server that allows one vector field (Milvus 2.3) gets a
collection a prefix instead. A second collection, NAME_files, keeps small files: what the index is.

Searches see what their own process has written (consistency "Session"), and what others have
written within some tenths of a second; counts and checks see everything ("Strong").
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.base import Found
from mrl_search.engines.milvus_client import BUILDING, Place, ask, connected
from mrl_search.errors import ConfigError, EngineError

__all__ = ["KINDS", "MOST_FIELDS", "Remote", "default_effort", "milvus_kind"]

MOST_FIELDS = 10  # vector fields of a collection
MOST_FOUND = 16_384  # answers to one query
MESSAGE = 8 << 20  # bytes of vectors in one call
TOGETHER = 32  # queries in one call
ANSWERS = 8192  # of one call: Milvus Lite takes a fifth of a millisecond for each
PIECE = 60_000  # characters of a file in one row
FLAT_UP_TO = 50_000  # rows
KINDS: dict[str, tuple[dict[str, int], str, tuple[int, ...]]] = {
    "FLAT": ({}, "", ()),
    "HNSW": ({"M": 16, "efConstruction": 200}, "ef", (16, 32, 64, 128, 256, 512)),
    "IVF_FLAT": ({"nlist": 1024}, "nprobe", (4, 8, 16, 32, 64, 128, 256)),
}
"""Kinds of index: how it is built, what its effort is called, and which are worth trying."""
Schema = tuple[Any, dict[str, dict[str, object]]]  # of a collection, and the indexes of its fields


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
            hint = f"Copy an index there: mrl-search copy INDEX --to '{place}'"
            raise EngineError(f"There is no collection {place}.", hint)
        self.place, self._client = place, connected(place)
        self.about: dict[str, Any] = json.loads(self.file("about") or b"{}")
        if not self.about:
            message = f"The collection {place} was not made by mrl-search, or not finished."
            raise EngineError(message, "Choose another name, or drop it.")
        self.kinds: dict[int, str] = {int(d): kind for d, kind in self.about["kinds"].items()}
        self.dims = tuple(sorted(self.kinds))
        for name in self._names():
            self._ask(
                self._client.load_collection, name, seconds=BUILDING if place.is_file else None
            )

    @staticmethod
    def exists(place: Place) -> bool:
        """Whether there is a collection; looking makes no file."""
        if place.is_file and not Path(place.uri).exists():
            return False
        client = connected(place)
        return bool(ask(place, client.has_collection, place.name)) or bool(
            ask(place, client.has_collection, _files(place))
        )

    @classmethod
    def create(cls, place: Place, kinds: Mapping[int, str], about: Mapping[str, object]) -> Self:
        """Open the collections of an index, made where a run that was stopped did not make them.

        Args:
            place: where.
            kinds: the kind of index of each prefix.
            about: what the index is, and no other is.

        Raises:
            EngineError: they are of another index.
        """
        client, dims = connected(place), sorted(kinds)
        _made(place, client, _files(place), _file_schema)
        wanted = {**about, "kinds": {str(d): kinds[d] for d in dims}}
        known = json.loads(_file(place, client, "about") or b"{}")
        if known and known != {**wanted, "apart": known.get("apart")}:
            message = f"The collection {place} is of another index."
            raise EngineError(message, "Choose another name for this one.")
        if known:
            return cls(place)
        apart = False
        try:
            _made(place, client, place.name, partial(_schema, kinds={d: kinds[d] for d in dims}))
        except EngineError as error:
            if "vector field" not in error.message:
                raise
            apart = True  # the server allows fewer fields
            for d in dims:
                name = place.name if d == dims[-1] else f"{place.name}_{d}"
                _made(place, client, name, partial(_schema, kinds={d: kinds[d]}))
        _write_file(place, client, "about", json.dumps({**wanted, "apart": apart}).encode())
        return cls(place)

    def manifest(self) -> bytes:
        """The manifest of the index; it is written last.

        Raises:
            EngineError: the collections were not filled to the end.
        """
        found = self.file("manifest")
        if found is None:
            hint = f"Finish the copy that fills it: mrl-search copy INDEX --to '{self.place}'"
            raise EngineError(f"The collection {self.place} is not whole.", hint)
        return found

    def check(self, fingerprint: str, kinds: Mapping[str, str]) -> None:
        """Check that the collections have the vectors of a model, and its prefixes, and are whole.

        Raises:
            EngineError: they are of another index, or were not filled to the end.
        """
        if (self.about.get("fingerprint"), self.about["kinds"]) != (fingerprint, dict(kinds)):
            message = (
                f"The collection {self.place} is of another index: its model or prefixes differ."
            )
            hint = "Copy this one under another name: mrl-search copy INDEX --to PLACE"
            raise EngineError(message, hint)
        self.manifest()

    def drop(self) -> None:
        """Remove the collections."""
        for name in {*self._names(), _files(self.place)}:
            self._ask(self._client.drop_collection, name)

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

    def count(self) -> int:
        """Number of rows that every collection has.

        Raises:
            EngineError: one has more than another.
        """
        options = {"filter": "", "output_fields": ["count(*)"], "consistency_level": "Strong"}
        found = {
            int(self._ask(self._client.query, name, **options)[0]["count(*)"])
            for name in self._names()
        }
        if len(found) > 1:
            message = f"The collections of {self.place} have {min(found):,} to {max(found):,} rows."
            raise EngineError(message, "Run the command that fills them again.")
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
        _write_file(self.place, self._client, name, content)

    def file(self, name: str) -> bytes | None:
        """A small file; None if there is none."""
        return _file(self.place, self._client, name)


def _files(place: Place) -> str:
    return f"{place.name}_files"


def _write_file(place: Place, client: Any, name: str, content: bytes) -> None:  # noqa: ANN401
    text = base64.b64encode(content).decode()
    pieces = [text[i : i + PIECE] for i in range(0, len(text), PIECE)]
    for number, piece in enumerate(pieces):
        row = {"id": f"{name}/{number:06d}", "text": piece, "vector": [1.0, 0.0]}
        ask(place, client.upsert, _files(place), [row])
    beyond = f'id like "{name}/%" and id >= "{name}/{len(pieces):06d}"'  # of a longer one before
    ask(place, client.delete, _files(place), filter=beyond)


def _file(place: Place, client: Any, name: str) -> bytes | None:  # noqa: ANN401
    options: dict[str, Any] = {"filter": f'id like "{name}/%"', "output_fields": ["id", "text"]}
    ask(place, client.load_collection, _files(place))
    pieces = ask(
        place, client.query, _files(place), limit=MOST_FOUND, consistency_level="Strong", **options
    )
    ordered = sorted(pieces, key=lambda piece: piece["id"])
    return base64.b64decode("".join(piece["text"] for piece in ordered)) if ordered else None


def _made(place: Place, client: Any, name: str, make: Callable[[Any], Schema]) -> None:  # noqa: ANN401
    """Create a collection and its indexes; what a stopped run has made stays."""
    schema, indexes = make(client)
    if not ask(place, client.has_collection, name):
        options = {"schema": schema, "consistency_level": "Strong"}
        ask(place, client.create_collection, name, **options)
    for field, options in indexes.items():
        if not ask(place, client.list_indexes, name, field):
            params = client.prepare_index_params()
            params.add_index(field, metric_type="IP", **options)
            ask(place, client.create_index, name, params)


def _schema(client: Any, kinds: Mapping[int, str]) -> Schema:  # noqa: ANN401
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("item", DataType.JSON)
    indexes = dict[str, dict[str, object]]()
    for dims, kind in kinds.items():
        schema.add_field(f"prefix_{dims}", DataType.FLOAT_VECTOR, dim=dims)
        indexes[f"prefix_{dims}"] = {"index_type": kind, "params": dict(KINDS[kind][0])}
    return schema, indexes


def _file_schema(client: Any) -> Schema:  # noqa: ANN401
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, max_length=200, is_primary=True)
    schema.add_field("text", DataType.VARCHAR, max_length=65_000)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    return schema, {"vector": {"index_type": "FLAT"}}
