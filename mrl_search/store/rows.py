"""The meeting point of the torch side and the FAISS side: unit vectors, the items they stand for, and what made them.

Vectors are memory-mapped: opening a large set reads its manifest and items, and a prefix of a few rows touches those rows alone.
Neither torch nor FAISS is needed here, not even for the accuracy of the linear heads.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from mrl_search import vectors as matryoshka
from mrl_search.errors import ConfigError, DataError, IndexFolderError, Skipped
from mrl_search.files import fresh_folder, write_atomically
from mrl_search.store.items import ITEMS_SCHEMA, Items, ItemsFile, write_items
from mrl_search.store.manifest import (
    HEADS,
    ITEMS,
    ROTATION,
    SKIPPED,
    VECTORS,
    Manifest,
    check_file,
    read_manifest,
    write_manifest,
)
from mrl_search.store.mapped_rows import MappedRows

__all__ = [
    "EmbeddingSet", "Head", "Heads", "blocks", "heads_bytes", "write_heads", "write_rotation", "write_rows", "write_skipped",
    "write_vectors",
]  # fmt: skip

HEAD_NAME = re.compile(r"(weight|bias)\.(\d+)")
BLOCK = 1 << 22  # numbers held at once as float32: 16 MB

T = TypeVar("T")
Head: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]
Heads: TypeAlias = Mapping[int, Head]


@dataclass(frozen=True, eq=False)
class EmbeddingSet:
    """Embedded images: row i of `vectors` is item i.

    Attributes:
        vectors: (n, dim) float16 or float32, rows of unit length; usually memory-mapped.
        items: a table of n rows, in memory or read from disk as it is needed, with the columns of `ITEMS_SCHEMA`: `id` (the row), `path`,
            `label` (null where unknown), `hash` (of the image file), `width` and `height` in pixels, `norm` (length of the embedding
            before it was normalised). Own vectors may leave `path`, `label`, `width` and `height` null. Further columns may follow.
        manifest: what made them.
        heads: linear head of each prefix that has one: weight (classes, dims) and bias (classes,), both float32.
        skipped: images of the source that could not be embedded.
        rotation: (dim, rows_dim) float32, orthonormal rows: what a row was multiplied by before it was stored. None: nothing.

    Raises:
        DataError: vectors, items and manifest disagree.
    """

    vectors: NDArray[np.floating]
    items: Items
    manifest: Manifest
    heads: Heads = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    rotation: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        m = self.manifest
        if self.vectors.shape != (m.count, m.dim) or self.vectors.dtype != np.dtype(m.dtype):
            v = self.vectors
            raise DataError(
                f"Vectors are {v.dtype} of shape {v.shape}; the manifest says {m.dtype} of shape {(m.count, m.dim)}."
            )
        if self.items.num_rows != m.count:
            raise DataError(f"There are {self.items.num_rows:,} items for {m.count:,} vectors.")
        if not pa.schema(list(self.items.schema)[: len(ITEMS_SCHEMA)]).equals(ITEMS_SCHEMA):
            raise DataError(
                f"Items have columns {self.items.schema.names}; wanted are {ITEMS_SCHEMA.names}, each of its type."
            )
        for dims, (weight, bias) in self.heads.items():
            if weight.shape != (len(m.classes), dims) or bias.shape != (len(m.classes),):
                raise DataError(
                    f"The head at {dims} dims has shape {weight.shape}; wanted is {(len(m.classes), dims)}."
                )
        if self.rotation is not None and self.rotation.shape != (m.dim, m.rows_dim or m.dim):
            raise DataError(
                f"The rotation has shape {self.rotation.shape}; wanted is {(m.dim, m.rows_dim or m.dim)}."
            )

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dims(self) -> tuple[int, ...]:
        """Prefix lengths, ascending."""
        return self.manifest.dims

    @cached_property
    def copies(self) -> Counter[str]:
        """How many items have each content hash."""
        return Counter(self.hashes.tolist())

    @cached_property
    def labels(self) -> NDArray[np.object_]:
        """Label of each item, (n,) str or None."""
        return self._column("label")

    @cached_property
    def paths(self) -> NDArray[np.object_]:
        """Path of each item, (n,) str, or None: own vectors need not have any."""
        return self._column("path")

    @cached_property
    def hashes(self) -> NDArray[np.object_]:
        """Content hash of each item, (n,) str."""
        return self._column("hash")

    @cached_property
    def norms(self) -> NDArray[np.float32]:
        """Length of each embedding before it was normalised, (n,) float32."""
        return np.asarray(self.items["norm"].to_numpy(), dtype=np.float32)

    @cached_property
    def mapped(self) -> MappedRows:
        """Through this, rows of `vectors` that lie anywhere are read in turn."""
        return MappedRows(self.vectors)

    def _column(self, name: str) -> NDArray[np.object_]:
        column = np.empty(len(self), dtype=object)
        column[:] = self.items[name].to_pylist()
        return column

    def prefix(
        self, dims: int, rows: slice | NDArray[np.integer] = slice(None)
    ) -> NDArray[np.float32]:
        """The first `dims` numbers of the vectors at `rows` (all by default), at unit length: (rows, dims) float32.

        Raises:
            ConfigError: `dims` is not between 1 and the length of the vectors.
        """
        return matryoshka.prefix(self.stored(dims, rows), dims)

    def stored(
        self, dims: int, rows: slice | NDArray[np.integer] = slice(None)
    ) -> NDArray[np.floating]:
        """The first `dims` numbers of the vectors at `rows` as they are stored: (rows, dims) float16 or float32, of any length."""
        return np.asarray(self.vectors)[rows, :dims]

    def linear_scores(self, dims: int) -> NDArray[np.float32]:
        """What the linear head of a prefix says of every item: (n, classes) float32, before any softmax.

        The head reads the raw prefix, which is the stored one times `norm`, or the prefix at unit length, as the manifest says.

        Raises:
            ConfigError: there is no head at `dims`.
        """
        if dims not in self.heads:
            known = ", ".join(map(str, sorted(self.heads)))
            raise ConfigError(
                f"There is no linear head at {dims} dims."
                if known
                else f"The model {self.manifest.encoder} has no linear heads.",
                f"There are heads at {known}." if known else "Classify by the neighbours instead.",
            )
        weight, bias = self.heads[dims]
        scores = np.empty((len(self), len(bias)), dtype=np.float32)
        for rows in blocks(len(self), dims):
            unit = self.manifest.unit_heads
            read = (
                self.prefix(dims, rows)
                if unit
                else self.stored(dims, rows).astype(np.float32) * self.norms[rows, None]
            )
            scores[rows] = read @ weight.T + bias
        return scores

    def linear_predictions(self, dims: int) -> NDArray[np.object_]:
        """The class that the linear head of a prefix gives each item, (n,) str.

        Raises:
            ConfigError: there is no head at `dims`.
        """
        predicted: NDArray[np.object_] = np.array(self.manifest.classes, dtype=object)[
            self.linear_scores(dims).argmax(axis=1)
        ]
        return predicted

    def has_head(self, dims: int, labels: Iterable[str | None]) -> bool:
        """Whether there is a linear head at `dims` that knows any of `labels`."""
        return dims in self.heads and not set(self.manifest.classes).isdisjoint(labels)

    def save(self, out: Path) -> None:
        """Write the set as a new folder; FAISS indexes are added to it by `mrl_search.index`.

        Raises:
            IndexFolderError: `out` exists already.
            MrlSearchError: the disk is full.
        """
        with fresh_folder(out) as building:
            write_vectors(building, self.vectors)
            write_items(building, self.items)
            write_heads(building, self.heads)
            write_skipped(building, self.skipped)
            write_rotation(building, self.rotation)
            write_manifest(building, self.manifest)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a folder; its files are checked (see `check_file`), vectors are mapped and not read into memory.

        Raises:
            IndexFolderError: not an index, unfinished, newer, or with a file missing, cut short or altered.
        """
        manifest = read_manifest(folder)
        vectors = _load(folder, manifest, VECTORS, _read_array)
        items = _load(folder, manifest, ITEMS, ItemsFile)
        heads = _load(folder, manifest, HEADS, _read_heads) if HEADS in manifest.files else {}
        skipped = (
            _load(folder, manifest, SKIPPED, _read_skipped) if SKIPPED in manifest.files else ()
        )
        rotation = (
            _load(folder, manifest, ROTATION, _read_array) if ROTATION in manifest.files else None
        )
        try:
            return cls(vectors, items, manifest, heads, skipped, rotation)
        except DataError as error:
            raise IndexFolderError(
                f"{folder} contradicts itself. {error.message}", manifest.rebuild(folder)
            ) from error


def blocks(count: int, width: int, size: int | None = None) -> Iterator[slice]:
    """Slices that cover `count` rows of `width` numbers, each of about `size` numbers (4 million by default) but at least one row."""
    step = max(1, (size or BLOCK) // max(1, width))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def write_vectors(folder: Path, vectors: NDArray[np.floating]) -> None:
    """Write `vectors.npy`, (n, dim) float16 or float32. Raises MrlSearchError when the disk is full."""
    write_rows(
        folder / VECTORS,
        vectors.shape,
        vectors.dtype,
        (vectors[rows] for rows in blocks(*vectors.shape)),
    )


def write_rows(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[np.floating],
    parts: Iterable[NDArray[np.floating]],
) -> None:
    """Write a .npy file of `shape` and `dtype` from its rows, a few at a time. Raises MrlSearchError when the disk is full."""
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        header = {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(part.astype(dtype, copy=False).tobytes())


def write_heads(folder: Path, heads: Heads) -> None:
    """Write `heads.safetensors`, if there are any. Raises MrlSearchError when the disk is full."""
    if heads:
        with write_atomically(folder / HEADS) as path:
            path.write_bytes(heads_bytes(heads))


def heads_bytes(heads: Heads) -> bytes:
    """What `heads.safetensors` holds."""
    parts = (
        (kind, d, part)
        for d, (w, b) in heads.items()
        for kind, part in (("weight", w), ("bias", b))
    )
    return bytes(save({f"{kind}.{d:04d}": np.ascontiguousarray(part) for kind, d, part in parts}))


def write_rotation(folder: Path, rotation: NDArray[np.float32] | None) -> None:
    """Write `rotation.npy`, if the rows were rotated. Raises MrlSearchError when the disk is full."""
    if rotation is not None:
        write_rows(folder / ROTATION, rotation.shape, rotation.dtype, [rotation])


def write_skipped(folder: Path, skipped: tuple[Skipped, ...]) -> None:
    """Write `skipped.json`, if any image was left out. Raises MrlSearchError when the disk is full."""
    if skipped:
        with write_atomically(folder / SKIPPED) as path:
            path.write_text(
                json.dumps([asdict(s) for s in skipped], indent=1, ensure_ascii=False) + "\n",
                encoding="utf-8",
            )


def _load(folder: Path, manifest: Manifest, name: str, read: Callable[[Path], T]) -> T:
    path = check_file(folder, manifest, name)
    try:
        return read(path)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        pa.ArrowException,
        SafetensorError,
    ) as error:
        raise IndexFolderError(
            f"{path} cannot be read: {error}", manifest.rebuild(folder)
        ) from error


def _read_array(path: Path) -> NDArray[np.floating]:
    return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def _read_heads(path: Path) -> Heads:
    found: dict[int, dict[str, NDArray[np.float32]]] = {}
    for name, tensor in load_file(path).items():
        if match := HEAD_NAME.fullmatch(name):
            found.setdefault(int(match[2]), {})[match[1]] = tensor
    return {dims: (parts["weight"], parts["bias"]) for dims, parts in sorted(found.items())}


def _read_skipped(path: Path) -> tuple[Skipped, ...]:
    return tuple(Skipped(**entry) for entry in json.loads(path.read_text(encoding="utf-8")))
