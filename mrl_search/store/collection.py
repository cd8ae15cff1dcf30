"""A collection at rest: vectors, the items they stand for, and what made them.

Opening maps the vectors and reads the manifest; a column of items is read when it is first used.
Neither torch nor FAISS is needed, not even for the accuracy of linear heads.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mrl_search.arrays import open_array
from mrl_search.errors import ConfigError, DataError, IndexFolderError, Skipped
from mrl_search.files import read_bytes, reading, write_text
from mrl_search.leases import lease
from mrl_search.mapping import read_json
from mrl_search.store.blocks import Blocks, decoded
from mrl_search.store.intact import check_file, damaged
from mrl_search.store.items import Items
from mrl_search.store.manifest import (
    CENTRE,
    DELETED,
    HEADS,
    ITEMS,
    LEFT_OUT,
    ROTATION,
    SKIPPED,
    VECTORS,
    Manifest,
    lease_file,
    read_manifest,
)
from mrl_search.store.rows import Ids, VectorStore
from mrl_search.store.transform import Transform

__all__ = [
    "Collection", "Head", "Heads", "LeftOut", "checks_of", "heads_bytes", "left_out_of",
    "load_checked", "write_left_out",
]  # fmt: skip

OPENED = 5  # times: another process may change the index meanwhile
LARGEST_HEADS = 1 << 30  # bytes
HEAD_NAME = re.compile(r"(weight|bias)\.(\d+)")
UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, EOFError, pa.ArrowException, SafetensorError,
)  # fmt: skip

T = TypeVar("T")
Head: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]
Heads: TypeAlias = Mapping[int, Head]


class LeftOut(NamedTuple):
    """The content of a picture that a user removed: a sync does not take it, by whatever name.

    Attributes:
        hash: of its bytes; empty where nobody recorded it.
        bytes: their number; None where nobody recorded it.
    """

    hash: str = ""
    bytes: int | None = None


@dataclass(frozen=True, eq=False)
class Collection:
    """Vectors and their items; row i of `vectors` is item i.

    Attributes:
        vectors: the stored vectors.
        items: a table of n rows with the columns of `ITEMS_SCHEMA`, then any others. Vectors of
            a user's own may leave `path`, `label`, `width` and `height` null.
        manifest: what made the vectors.
        transform: from a raw row to a stored row.
        heads: prefix length to linear head: weight (classes, dims) and bias (classes,) float32.
        skipped: pictures of the source that could not be embedded.
        alive: which rows are not deleted, (n,) bool; None: all.
        lease: keeps the files of this generation on the disk.
    """

    vectors: VectorStore
    items: Items
    manifest: Manifest
    transform: Transform
    heads: Heads = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    alive: NDArray[np.bool_] | None = None
    lease: object = None

    def __post_init__(self) -> None:
        m, v, t = self.manifest, self.vectors, self.transform
        if (len(v), v.dim, v.dtype) != (m.count, m.dim, np.dtype(m.dtype)):
            raise DataError(
                f"There are {len(v):,} vectors of {v.dim} dims in {v.dtype}; "
                f"the manifest says {m.count:,} of {m.dim} in {m.dtype}."
            )
        if self.items.num_rows != m.count:
            raise DataError(f"There are {self.items.num_rows:,} items for {m.count:,} vectors.")
        _ = self.items.schema  # raises DataError for other columns
        for dims, (weight, bias) in self.heads.items():
            if weight.shape != (len(m.classes), dims) or bias.shape != (len(m.classes),):
                wanted = (len(m.classes), dims)
                raise DataError(f"The head at {dims} dims has shape {weight.shape}, not {wanted}.")
        if t.rotation is not None and t.rotation.shape != (t.dim, t.rows_dim):
            shape, wanted = t.rotation.shape, (t.dim, t.rows_dim)
            raise DataError(f"The rotation has shape {shape}, not {wanted}.")
        if t.centre is not None and (t.rotation is None or t.centre.shape != (t.rows_dim,)):
            raise DataError(f"The centre has shape {t.centre.shape}, not {(t.rows_dim,)}.")

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def live_rows(self) -> Ids:
        """The rows that are not deleted, ascending: (n,) int64."""
        return np.arange(len(self)) if self.alive is None else np.flatnonzero(self.alive)

    @cached_property
    def labels(self) -> NDArray[np.object_]:
        """Label of each item: (n,) str, or None where unknown."""
        return self.items.column("label")

    @cached_property
    def paths(self) -> NDArray[np.object_]:
        """Path of each item: (n,) str, or None."""
        return self.items.column("path")

    @cached_property
    def hashes(self) -> NDArray[np.object_]:
        """Content hash of each item: (n,) str."""
        return self.items.column("hash")

    @cached_property
    def norms(self) -> NDArray[np.float32]:
        """Norm of each raw row before it was normalised: (n,) float32."""
        return np.asarray(self.items["norm"].to_numpy(), dtype=np.float32)

    @cached_property
    def labelled(self) -> NDArray[np.bool_]:
        """Which items have a label: (n,) bool."""
        known = np.array([label is not None for label in self.labels], dtype=bool)
        return known if self.alive is None else known & self.alive

    @cached_property
    def hash_counts(self) -> Counter[str]:
        """How many items have each content hash."""
        hashes = self.hashes if self.alive is None else self.hashes[self.alive]
        return Counter(hashes.tolist())

    def copies(self, hashes: Iterable[str]) -> NDArray[np.int64]:
        """How many items have each of these content hashes: (n,) int64."""
        return np.array([self.hash_counts[h] for h in hashes], dtype=np.int64)

    def linear_scores(self, dims: int) -> NDArray[np.float32]:
        """Logits of every item by the linear head of a prefix: (n, classes) float32.

        A head reads the raw prefix, or the prefix at unit norm, as `manifest.unit_heads` says.
        """
        if not self.heads:
            message = f"The model {self.manifest.encoder} has no linear heads."
            raise ConfigError(message, "Classify by neighbours instead.")
        if dims not in self.heads:
            known = ", ".join(map(str, sorted(self.heads)))
            hint = f"There are heads at {known}."
            raise ConfigError(f"There is no linear head at {dims} dims.", hint)
        weight, bias = self.heads[dims]
        scores = np.empty((len(self), len(bias)), dtype=np.float32)
        for rows, stored in self.vectors.chunks(dims):
            if self.manifest.unit_heads:
                x = self.vectors.prefix(dims, rows)
            else:
                x = stored.astype(np.float32) * self.norms[rows, None]
            scores[rows] = x @ weight.T + bias
        return scores

    def linear_predictions(self, dims: int) -> NDArray[np.object_]:
        """The class that the linear head of a prefix predicts for each item: (n,) str."""
        classes = np.array(self.manifest.classes, dtype=object)
        predicted: NDArray[np.object_] = classes[self.linear_scores(dims).argmax(axis=1)]
        return predicted

    def has_head(self, dims: int, labels: Iterable[str | None]) -> bool:
        """Whether there is a linear head at `dims` that knows any of `labels`."""
        return dims in self.heads and not set(self.manifest.classes).isdisjoint(labels)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open an index folder: its files are checked (see `check_file`), its vectors mapped.

        Raises:
            IndexFolderError: not an index, unfinished, newer, or with a file that is missing, cut
                short or altered.
            FileError: the system does not read a file.
        """
        m, held = _held(folder)

        def optional(name: str, read: Callable[[Path], T]) -> T | None:
            return load_checked(folder, m, name, read) if name in m.files else None

        rows, paths = partial(open_array, shape=(None, None)), []
        names = [part.file(VECTORS) for part in m.all_parts]
        arrays = [load_checked(folder, m, name, rows) for name in names]
        for part in m.all_parts:
            paths.append(check_file(folder, m, part.file(ITEMS)))
        items = load_checked(folder, m, ITEMS, lambda _: Items(*paths))
        values = partial(open_array, dtype="float32")
        axes = optional(ROTATION, values), optional(CENTRE, values)
        transform = Transform(m.rows_dim or m.dim, m.dim, *axes)
        heads, skipped = optional(HEADS, _read_heads), optional(SKIPPED, _read_skipped)
        alive = optional(DELETED, partial(_read_alive, m)) if m.deleted else None
        try:
            checks = [checks_of(a, folder, m, n) for a, n in zip(arrays, names, strict=True)]
            store = VectorStore(*arrays, blocks=checks)
            return cls(store, items, m, transform, heads or {}, skipped or (), alive, held)
        except DataError as error:
            hint = m.rebuild(folder)
            raise IndexFolderError(f"{folder} contradicts itself. {error.message}", hint) from error


def _held(folder: Path) -> tuple[Manifest, object]:
    """The manifest, and a lease of the files that it names."""
    for _ in range(OPENED):
        m = read_manifest(folder)
        held = lease(lease_file(folder, m))
        if held is not None or read_manifest(folder).generation == m.generation:
            return m, held
    raise IndexFolderError(f"{folder} changes faster than it can be opened.", "Try again.")


def checks_of(array: NDArray[Any], folder: Path, manifest: Manifest, name: str) -> Blocks | None:
    """The checks of a mapped file of an index folder; None for one without rows."""
    record, path = manifest.files[name], folder / manifest.place(name)
    hashes = decoded(record.blocks, record.bytes) if record.blocks else None
    return Blocks.of(array, path, hashes, lambda what: damaged(folder, manifest, f"{path} {what}."))


def heads_bytes(heads: Heads) -> bytes:
    """The content of `heads.safetensors`."""
    weights = {f"weight.{d:04d}": np.ascontiguousarray(w) for d, (w, _) in heads.items()}
    biases = {f"bias.{d:04d}": np.ascontiguousarray(b) for d, (_, b) in heads.items()}
    return bytes(save(weights | biases))


def load_checked(folder: Path, manifest: Manifest, name: str, read: Callable[[Path], T]) -> T:
    """Check a file of an index folder (see `check_file`) and return what `read` makes of it.

    Raises:
        IndexFolderError: the file is missing or damaged.
        FileError: the system does not read it.
    """
    path = check_file(folder, manifest, name)
    try:
        with reading(path):
            return read(path)
    except DataError as error:
        raise damaged(folder, manifest, error.message) from error
    except UNREADABLE as error:
        raise damaged(folder, manifest, f"{path} cannot be read: {error}") from error


def _read_heads(path: Path) -> Heads:
    found: dict[int, dict[str, NDArray[np.float32]]] = {}
    for name, tensor in load(read_bytes(path, LARGEST_HEADS)).items():
        if match := HEAD_NAME.fullmatch(name):
            found.setdefault(int(match[2]), {})[match[1]] = tensor
    return {dims: (parts["weight"], parts["bias"]) for dims, parts in sorted(found.items())}


def _read_alive(manifest: Manifest, path: Path) -> NDArray[np.bool_]:
    """Which rows are not deleted, from one bit a row, the lowest first."""
    bits = np.frombuffer(read_bytes(path, (manifest.count + 7) // 8), np.uint8)
    deleted = np.unpackbits(bits, count=manifest.count, bitorder="little").astype(bool)
    if np.count_nonzero(deleted) != manifest.deleted:
        message = f"{path} marks {np.count_nonzero(deleted):,} rows, not {manifest.deleted:,}."
        raise DataError(message)
    return ~deleted


def _read_skipped(path: Path) -> tuple[Skipped, ...]:
    return tuple(
        Skipped(entry["path"], entry["reason"], tuple(entry.get("stamp", ())))
        for entry in read_json(path)
    )


def left_out_of(folder: Path, manifest: Manifest) -> dict[str, LeftOut]:
    """What was removed by hand, by path.

    Raises:
        IndexFolderError: the file is damaged.
    """
    if LEFT_OUT not in manifest.files:
        return {}
    values: Any = load_checked(folder, manifest, LEFT_OUT, read_json)
    if isinstance(values, list):  # of earlier versions, which knew the paths alone
        return {str(path): LeftOut() for path in values}
    try:
        return {path: LeftOut(str(one["hash"]), one["bytes"]) for path, one in values.items()}
    except (AttributeError, KeyError, TypeError) as error:
        message = f"{folder / manifest.place(LEFT_OUT)} is no list of removed pictures."
        raise IndexFolderError(message, "Restore an older generation.") from error


def write_left_out(folder: Path, left_out: Mapping[str, LeftOut]) -> None:
    """Write what was removed by hand."""
    values = {path: left_out[path]._asdict() for path in sorted(left_out)}
    text = json.dumps(values, ensure_ascii=False) + "\n"
    write_text(folder / LEFT_OUT, text, errors="backslashreplace")
