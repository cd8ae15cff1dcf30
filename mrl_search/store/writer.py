"""The one way an index folder comes to be: rows and items are appended, the manifest comes last.

A folder is built beside its place as `.NAME.building` and renamed when it is complete. Rows of
pictures are logged as they are embedded: a build that was killed continues from its last commit.
"""

import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from mrl_search.arrays import open_array
from mrl_search.errors import ConfigError, DataError, IndexFolderError, Skipped
from mrl_search.files import (
    BLOCK,
    PROGRESS,
    building_folder,
    claim,
    open_in_place,
    open_regular,
    publish,
    write_atomically,
    write_text,
    writing,
)
from mrl_search.mapping import from_mapping, read_json
from mrl_search.progress import Progress, silent
from mrl_search.store.collection import Heads, heads_bytes
from mrl_search.store.intact import write_manifest
from mrl_search.store.items import logged_items, write_items
from mrl_search.store.manifest import (
    CENTRE,
    HEADS,
    MANIFEST,
    ROTATION,
    SKIPPED,
    VECTORS,
    Manifest,
    is_index_file,
)
from mrl_search.store.rows import VectorStore
from mrl_search.store.transform import Transform
from mrl_search.vectors import l2_normalize

__all__ = ["RAW", "CollectionWriter", "Entry", "write_rows"]

LOG, RAW = "items.jsonl", "raw-vectors.npy"  # of an unfinished build
NOTES = (LOG, RAW, PROGRESS, MANIFEST)  # files beside those of the index
COMMIT = 1024  # source rows between two commits

Entry = Mapping[str, object]  # an item's columns, or `path` and `reason` of a skipped picture


@dataclass(frozen=True, slots=True)
class _Progress:
    """How far the files are whole, with their checksums up to there.

    Attributes:
        job: hash of what is embedded, and by what.
        read: rows of the source that are logged.
        kept: rows of vectors.
        log_bytes: bytes of the log.
        log_xxh3: XXH3-128 of these bytes, in hex.
        rows_xxh3: XXH3-128 of the rows, without the header of their file.
    """

    job: str
    read: int = 0
    kept: int = 0
    log_bytes: int = 0
    log_xxh3: str = ""
    rows_xxh3: str = ""


@dataclass(eq=False)
class CollectionWriter:
    """Writes an index folder; open one with `CollectionWriter.open`.

    Attributes:
        folder: the building folder; other rooms write their files into it.
        out: the folder it becomes.
        dim: dims of the stored vectors.
        dtype: of the stored vectors, `float16` or `float32`.
        restarted: whether an unfinished build was damaged and is begun again.
        file: where appended rows go: `VECTORS`, or `RAW` if they are written again at the end.
        items: of the rows, once they are written.
    """

    folder: Path
    out: Path
    dim: int
    dtype: str
    restarted: bool = False
    file: str = VECTORS
    items: pa.Table | None = None
    _state: _Progress = field(default_factory=lambda: _Progress(""))
    _committed: int = 0
    _vectors: BinaryIO | None = None
    _log: BinaryIO | None = None
    _log_hash: xxhash.xxh3_128 = field(default_factory=xxhash.xxh3_128)
    _rows_hash: xxhash.xxh3_128 = field(default_factory=xxhash.xxh3_128)

    @classmethod
    @contextmanager
    def open(
        cls, out: Path, dim: int, dtype: str, job: Sequence[str] = (), file: str = VECTORS
    ) -> Iterator["CollectionWriter"]:
        """Claim the building folder of `out`.

        Without a `job` the folder begins empty and is removed if it is not published. With one, an
        unfinished build of the same job is continued, and kept if the block fails; if its files
        do not have their checksums, it is begun again. A job is whatever decides the rows:
        fingerprint of the encoder, source, paths.

        Raises:
            IndexFolderError: `out` exists, another process builds it, or an unfinished build of
                another job is in the way.
        """
        folder = building_folder(out)
        with claim(folder, lambda name: name in NOTES or is_index_file(name)):
            unfinished = (folder / PROGRESS).exists()
            if unfinished and not job:
                hint = f"Finish it, remove {folder}, or choose another place with --out."
                raise IndexFolderError(f"{folder} holds an unfinished build of pictures.", hint)
            text = "\n".join([dtype, str(dim), *job]).encode(errors="surrogateescape")
            begin = _Progress(xxhash.xxh3_128_hexdigest(text))
            state = _read_progress(folder, begin.job) if unfinished else None
            writer = cls(folder, out, dim, dtype, file=file, _state=state or begin)
            intact = state is not None and writer._hash_files() == (state.log_xxh3, state.rows_xxh3)
            if not intact:
                writer._state, writer.restarted = begin, unfinished
            try:
                for left in () if intact else folder.iterdir():
                    left.unlink()
                yield writer
            except BaseException:
                writer._close()
                if not job:
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            writer._close()
            if not job:  # what was not published
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def read(self) -> int:
        """Rows of the source that are logged."""
        return self._state.read

    @property
    def kept(self) -> int:
        """Rows of vectors that were appended."""
        return self._state.kept

    @property
    def entries(self) -> list[dict[str, object]]:
        """What is logged about each row of the source, in order."""
        return [json.loads(line) for line in self._lines()]

    def keep(self, count: int) -> None:
        """Keep what is logged about the first `count` rows of the source, and begin to append."""
        lines = self._lines()[:count]
        kept = sum("reason" not in json.loads(line) for line in lines)
        size = sum(map(len, lines))
        self._state = replace(self._state, read=len(lines), kept=kept, log_bytes=size)
        self._hash_files()
        self._save_progress()  # before anything is cut off
        for left in self.folder.iterdir():  # by a stopped build, which may have had another spec
            if left.name not in {self.file, LOG, PROGRESS}:
                left.unlink()
        self._vectors = open_in_place(self.folder / self.file, self._end() if lines else 0)
        self._log = open_in_place(self.folder / LOG, size)
        if not lines:
            self._vectors.write(self._header(0))
        self._committed = len(lines)

    def append(
        self, raw: NDArray[np.floating], entries: Sequence[Entry],
        transform: Transform | None = None,
    ) -> None:  # fmt: skip
        """Append rows, transformed and at unit norm, and log what became of the source's rows.

        Args:
            raw: (good, dim) as the encoder gives them.
            entries: for each row of the source, an item's columns, or `path` and `reason`. Those
                without a `reason` are the rows of `raw`, in order, and get its `norm`.
            transform: default: none.
        """
        assert self._vectors is not None and self._log is not None, "keep() comes first"
        norms = iter(np.linalg.norm(raw, axis=1).tolist())
        lines = [e if "reason" in e else {**e, "norm": next(norms)} for e in entries]
        with writing(self.folder / self.file):
            stored = raw if transform is None else transform(raw)
            rows = l2_normalize(stored).astype(self.dtype).tobytes()
            text = "".join(json.dumps(line) + "\n" for line in lines).encode()
            self._vectors.write(rows)
            self._log.write(text)
            self._rows_hash.update(rows)
            self._log_hash.update(text)
            state = self._state
            read, kept = state.read + len(lines), state.kept + len(raw)
            self._state = replace(state, read=read, kept=kept, log_bytes=self._log.tell())
            if read - self._committed >= COMMIT:
                self._commit()

    def finish_rows(
        self, source: str, columns: pa.Table | None = None, *, empty: bool = False
    ) -> VectorStore:
        """End appending: write items and skipped pictures from the log; return all rows.

        `columns` has further columns of the items, one row for each row of the source. Without
        rows, DataError is raised, unless they may be `empty`.
        """
        assert self._vectors is not None, "keep() comes first"
        with writing(self.folder / self.file):
            self._commit()
            self._vectors.seek(0)
            self._vectors.write(self._header(self._state.kept))
            _flush(self._vectors)
        self._close()
        entries = self.entries
        skipped = [Skipped(str(e["path"]), str(e["reason"])) for e in entries if "reason" in e]
        if not self._state.kept and not empty:
            shutil.rmtree(self.folder)
            first = f"{skipped[0].path}: {skipped[0].reason}" if skipped else "there is none"
            raise DataError(f"No image of {source} can be read; the first: {first}.", "Check them.")
        self.write_items(logged_items(entries, columns))
        self.write_skipped(skipped)
        return self.rows()

    def write_vectors(
        self, count: int, parts: Iterable[NDArray[np.floating]], progress: Progress = silent
    ) -> VectorStore:
        """Write `count` finished rows, some at a time, and return them."""

        def counted() -> Iterator[NDArray[np.floating]]:
            done = 0
            for rows in parts:
                yield rows
                done += len(rows)
                progress("writing vectors", done, count)

        write_rows(self.folder / VECTORS, (count, self.dim), np.dtype(self.dtype), counted())
        self.file = VECTORS
        return self.rows()

    def transform_rows(
        self, transform: Transform, norms: NDArray[np.float32], raw: VectorStore
    ) -> VectorStore:
        """Write rows that had these norms along other axes, and return them."""

        def parts() -> Iterator[NDArray[np.float32]]:
            for rows, stored in raw.chunks(raw.dim):
                yield l2_normalize(transform(stored.astype(np.float32) * norms[rows, None]))

        self.dim = transform.dim
        self.write_transform(transform)
        return self.write_vectors(len(raw), parts())

    def rows(self) -> VectorStore:
        """The rows that were written, mapped."""
        return VectorStore(open_array(self.folder / self.file, self.dtype, (None, self.dim)))

    def write_items(self, items: pa.Table) -> None:
        """Write the items, one row a vector."""
        self.items = items
        write_items(self.folder, items)

    def write_heads(self, heads: Heads) -> None:
        """Write the linear heads, if there are any."""
        if heads:
            with write_atomically(self.folder / HEADS) as file:
                file.write(heads_bytes(heads))

    def write_skipped(self, skipped: Sequence[Skipped]) -> None:
        """Write which pictures were left out, and why, if there are any."""
        if skipped:
            values = [{name: v for name, v in s._asdict().items() if v != ()} for s in skipped]
            text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
            write_text(self.folder / SKIPPED, text)

    def write_transform(self, transform: Transform) -> None:
        """Write rotation and centre of the rows, if there are any."""
        for name, values in ((ROTATION, transform.rotation), (CENTRE, transform.centre)):
            if values is not None:
                write_rows(self.folder / name, values.shape, values.dtype, [values])

    def publish(self, manifest: Manifest) -> None:
        """Write the manifest and move the folder to its place."""
        write_manifest(self.folder, manifest)
        publish(self.folder, self.out, notes=(PROGRESS, LOG, RAW))

    def _lines(self) -> list[bytes]:
        """The log up to its last commit, a line for each row of the source."""
        log = self.folder / LOG
        whole = log.read_bytes()[: self._state.log_bytes] if log.exists() else b""
        return whole.splitlines(keepends=True)

    def _commit(self) -> None:
        for file in (self._vectors, self._log):
            if file is not None:
                _flush(file)
        self._save_progress()
        self._committed = self._state.read

    def _save_progress(self) -> None:
        log, rows = self._log_hash.hexdigest(), self._rows_hash.hexdigest()
        self._state = replace(self._state, log_xxh3=log, rows_xxh3=rows)
        write_text(self.folder / PROGRESS, json.dumps(asdict(self._state)))

    def _hash_files(self) -> tuple[str, str]:
        """Read log and rows up to the state; later ones are added to their checksums."""
        self._log_hash = _hash_of(self.folder / LOG, 0, self._state.log_bytes)
        self._rows_hash = _hash_of(self.folder / self.file, len(self._header(0)), self._end())
        return self._log_hash.hexdigest(), self._rows_hash.hexdigest()

    def _end(self) -> int:
        """Where the rows end in their file."""
        row = self.dim * np.dtype(self.dtype).itemsize
        return len(self._header(0)) + self._state.kept * row

    def _close(self) -> None:
        for file in (self._vectors, self._log):
            if file is not None:
                file.close()
        self._vectors = self._log = None

    def _header(self, rows: int) -> bytes:
        return _npy_header((rows, self.dim), np.dtype(self.dtype))


def write_rows(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[np.floating],
    parts: Iterable[NDArray[np.floating]],
) -> None:  # fmt: skip
    """Write a .npy file of `shape` and `dtype` from its rows, some at a time."""
    with write_atomically(path) as file:
        file.write(_npy_header(shape, dtype))
        for part in parts:
            file.write(part.astype(dtype, copy=False).tobytes())


def _npy_header(shape: tuple[int, ...], dtype: np.dtype[np.floating]) -> bytes:
    """The header of a .npy file; numpy pads it to the same size for any number of rows."""
    descr = np.lib.format.dtype_to_descr(dtype)
    buffer = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def _read_progress(folder: Path, job: str) -> _Progress | None:
    """The state of an unfinished build; None if it is damaged.

    Raises:
        IndexFolderError: it is of another job.
    """
    try:
        state = from_mapping(_Progress, read_json(folder / PROGRESS), PROGRESS)
    except (ConfigError, DataError, TypeError):
        return None
    if min(state.read, state.kept, state.log_bytes) < 0:
        return None
    if state.job != job:
        message = f"{folder} holds an unfinished build of other images, another model, or --dtype."
        raise IndexFolderError(message, f"Remove {folder}, or choose another --out.")
    return state


def _hash_of(path: Path, start: int, stop: int) -> xxhash.xxh3_128:
    """The checksum of a part of a file; of nothing where it has no such part."""
    found = xxhash.xxh3_128()
    if start < stop and path.exists():
        with open_regular(path) as file:
            file.seek(start)
            while data := file.read(min(BLOCK, stop - file.tell())):
                found.update(data)
    return found


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
