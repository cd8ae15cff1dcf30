"""Open Parquet files, and tell errors of the system from damage in one place."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mrl_search.errors import DataError
from mrl_search.files import open_regular, reading

__all__ = ["MAGIC", "first_rows", "open_parquet"]

MAGIC = b"PAR1"
BUFFER = 1 << 20  # bytes of a column in memory at once; without it, all of a row group
AGAIN = "Write the file again."


@contextlib.contextmanager
def open_parquet(path: Path, hint: str = AGAIN) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file of any name. It stays open during the block, which may read it.

    Raises:
        FileError: the system does not open or read it.
        DataError: not a regular file, not Parquet, or damaged; `hint` says what to do.
    """
    try:
        with reading(path), open_regular(path) as file:
            yield pq.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}.", hint) from error


def first_rows(file: pq.ParquetFile, column: str, count: int) -> pa.Array:
    """At most the first `count` values of a column, or of a field in structs: `column.field`."""
    for batch in file.iter_batches(batch_size=count, columns=[column]):
        if len(batch):
            return batch.column(0)
    return pa.array([])
