"""From vectors that a user brings to an index: checked, at unit length, rotated if asked for, with the items they stand for.

No torch is needed. Everything is checked before the first byte is written.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from mrl_search.engines import Index, add_prefix_indexes, check_factories
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import ConfigError, DataError
from mrl_search.files import fresh_folder, refuse_existing
from mrl_search.progress import Progress, silent
from mrl_search.store.items import ITEMS_SCHEMA, write_items
from mrl_search.store.manifest import OWN_VECTORS, VECTORS, Manifest, write_manifest
from mrl_search.store.rows import write_rotation, write_rows
from mrl_search.store.transform import check_rotatable, principal_axes, rotate, rows_to_fit
from mrl_search.store.vector_files import ListColumn, VectorSource, open_vectors
from mrl_search.vectors import check_dims, default_dims, unit_rows

__all__ = ["index_vectors", "item_columns"]

OURS = ("id", "hash", "norm")  # columns of the items that are always made here
ROTATIONS = ("pca",)


def index_vectors(
    source: VectorSource | str | Path,
    out: str | Path,
    spec: IndexSpec | None = None,
    *,
    items: str | Path | None = None,
    rotation: str | None = None,
    progress: Progress = silent,
) -> Index:
    """Build an index of own vectors in the new folder `out`.

    Args:
        source: the vectors, or where they are (see `open_vectors`).
        out: the new index folder.
        spec: prefixes, factory and dtype; by default `default_dims`, the kind of index that suits so many, float16.
        items: a Parquet file with one row a vector (see `item_columns`). Where the vectors are a column of a Parquet file, its other
            columns are the default.
        rotation: `pca` stores the vectors along their principal axes, so that a prefix holds as much as it can; None: as they are.
        progress: is told what is being done, how much of it, and of how much.

    Raises:
        DataError: rows or items that cannot be used.
        ConfigError: a dim longer than the vectors, or another rotation.
        IndexFolderError: `out` exists, or is being built by another process.
    """
    out = Path(out).expanduser()
    refuse_existing(out.resolve())
    if not isinstance(source, VectorSource):
        source = open_vectors(source)
    dim = source.dim
    spec = spec or IndexSpec(dims=default_dims(dim))
    dims = check_dims({*spec.dims, dim}, dim)
    check_factories(replace(spec, dims=dims), source.count)
    if rotation is not None:
        if rotation not in ROTATIONS:
            raise ConfigError(
                f"There is no rotation {rotation!r}.", f"It is {', '.join(ROTATIONS)}."
            )
        check_rotatable(dim)
    columns = item_columns(source, items)
    seen = _look(source, rotation is not None, progress)
    table = columns.set_column(0, "id", pa.array(np.arange(source.count)))
    table = table.set_column(
        table.schema.get_field_index("hash"), "hash", pa.array(seen.hashes, pa.string())
    )
    table = table.set_column(
        table.schema.get_field_index("norm"), "norm", pa.array(seen.norms, pa.float32())
    )
    with fresh_folder(out) as building:
        shape = (source.count, dim)
        write_rows(
            building / VECTORS,
            shape,
            np.dtype(spec.dtype),
            _stored(source, seen.rotation, progress),
        )
        write_items(building, table)
        write_rotation(building, seen.rotation)
        factory = add_prefix_indexes(
            building,
            replace(spec, dims=dims),
            lambda d, done, total: progress(f"indexing {d} dims", done, total),
        )
        manifest = Manifest(
            encoder=OWN_VECTORS, fingerprint=seen.fingerprint, dim=dim, dims=dims, count=source.count, dtype=spec.dtype,
            source=source.name, model="", factory=factory,
        )  # fmt: skip
        write_manifest(building, manifest)
    return Index.open(out)


def item_columns(source: VectorSource, items: str | Path | None = None) -> pa.Table:
    """The items of `source` from a Parquet file, its own or `items`: the columns of `ITEMS_SCHEMA`, then all others.

    Columns with the schema's names are used and cast to its types, `labels` for `label` if that is not there; those that are missing
    are null. `id`, `hash` and `norm` are always made from the vectors: columns of these names are kept as `item_id`, `item_hash` and
    `item_norm`. Of the vectors' own Parquet file, lists, structs and binary columns are left out.

    Raises:
        DataError: not a Parquet file, another number of rows, a column twice, or values that the schema's type cannot hold.
    """
    if items is None and not isinstance(source.parts[0], ListColumn):
        return pa.table(
            [pa.nulls(source.count, field.type) for field in ITEMS_SCHEMA], schema=ITEMS_SCHEMA
        )
    table, where = _read_items(source, items)
    if table.num_rows != source.count:
        raise DataError(
            f"{where} has {table.num_rows:,} rows; there are {source.count:,} vectors.",
            "Give one row a vector, in the same order.",
        )
    names = list(table.column_names)
    if "labels" in names and "label" not in names:
        names[names.index("labels")] = "label"
    names = [f"item_{name}" if name in OURS else name for name in names]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DataError(
            f"{where} has two columns {twice[0]!r}.",
            f"Rename one; {', '.join(OURS)} become item_{OURS[0]} and so on.",
        )
    table = table.rename_columns(names)
    standard = []
    for field in ITEMS_SCHEMA:
        if field.name not in names:
            standard.append(pa.nulls(source.count, field.type))
            continue
        column = table[field.name]
        try:
            standard.append(column.cast(field.type))
        except pa.ArrowException as error:
            raise DataError(
                f"Column {field.name!r} of {where} holds {column.type}, which is no {field.type}: {error}.",
                "Convert it, or rename it.",
            ) from error
    extra = [name for name in names if name not in ITEMS_SCHEMA.names]
    return pa.table(
        [*standard, *(table[name] for name in extra)], names=[*ITEMS_SCHEMA.names, *extra]
    )


def _read_items(source: VectorSource, items: str | Path | None) -> tuple[pa.Table, Path]:
    path = Path(items).expanduser() if items is not None else source.parts[0].path
    if not path.is_file():
        raise DataError(
            f"There is no file {path}.", "--items is a Parquet file with one row a vector."
        )
    try:
        file = pq.ParquetFile(path)
        wanted = (
            None
            if items is not None
            else [f.name for f in file.schema_arrow if not _is_payload(f.type)]
        )
        return file.read(columns=wanted).replace_schema_metadata(None), path
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path} cannot be read as Parquet: {error}.",
            "--items is a Parquet file with one row a vector.",
        ) from error


def _is_payload(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    )


@dataclass(frozen=True, eq=False, slots=True)
class _Seen:
    """What one reading of all rows gives: their content hashes and lengths, a hash of everything, and the rotation if there is one."""

    hashes: list[str]
    norms: NDArray[np.float32]
    fingerprint: str
    rotation: NDArray[np.float32] | None


def _look(source: VectorSource, rotated: bool, progress: Progress) -> _Seen:
    hashes: list[str] = []
    norms = np.empty(source.count, dtype=np.float32)
    content = xxhash.xxh3_128(f"{source.dim} {source.dtypes}".encode())
    moment = np.zeros((source.dim, source.dim)) if rotated else None
    fitted = rows_to_fit(source.count) if rotated else np.empty(0, dtype=np.int64)
    start = 0
    for rows in source.read():
        stop = start + len(rows)
        hashes += [xxhash.xxh3_128_hexdigest(row) for row in rows]
        content.update(rows.data)
        unit, norms[start:stop] = unit_rows(rows)
        if moment is not None:
            some = unit[fitted[(fitted >= start) & (fitted < stop)] - start]
            moment += some.T @ some
        start = stop
        progress("checking rows", start, source.count)
    return _Seen(
        hashes, norms, content.hexdigest(), None if moment is None else principal_axes(moment)
    )


def _stored(
    source: VectorSource, rotation: NDArray[np.float32] | None, progress: Progress
) -> Iterator[NDArray[np.floating]]:
    done = 0
    for rows in source.read():
        unit, _ = unit_rows(rows)
        yield unit if rotation is None else rotate(unit, rotation)
        done += len(rows)
        progress("writing vectors", done, source.count)
