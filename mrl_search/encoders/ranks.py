"""The processes that `accelerate launch` or `torchrun` start: each embeds a batch in turn.

The first one gets all batches, in the order of the source, and writes them. So a stopped build can
be continued by any number of processes. Nothing here is used by a process that runs alone.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import xxhash

from mrl_search.encoders.base import Encoder
from mrl_search.encoders.embed import BATCH, Batch, embed
from mrl_search.errors import DataError, Skipped
from mrl_search.images.reading import Picture
from mrl_search.images.sources import Source

if TYPE_CHECKING:
    from accelerate import PartialState

__all__ = ["Ranks", "launched", "one_by_one"]

PATIENCE = timedelta(days=7)  # the others wait while the first one checks, or builds indexes
LAUNCHED = {"WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR"}  # schedulers set some of them, too
NO_PIXELS = np.empty((0, 0, 3), np.uint8)


def launched() -> tuple[int, int]:
    """The number of this process, from 0, and how many were started together; (0, 1): alone."""
    if not os.environ.keys() >= LAUNCHED or int(os.environ["WORLD_SIZE"]) < 2:
        return 0, 1
    state = _state()
    return state.process_index, state.num_processes


def _state() -> "PartialState":
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())


@contextmanager
def one_by_one() -> Iterator[None]:
    """A block that the first process of a machine enters before the others: it may download."""
    if launched()[1] < 2:
        yield
        return
    with _state().local_main_process_first():
        yield


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes that embed one source.

    Attributes:
        rank: number of this one.
        count: how many there are.
        group: how they talk to each other: through the CPU, whatever GPUs they have.
    """

    rank: int = 0
    count: int = 1
    group: Any = None

    @classmethod
    @contextmanager
    def here(cls) -> Iterator[Self]:
        """The processes among which this one was started. All leave the block together."""
        rank, count = launched()
        if count < 2:
            yield cls()
            return
        import torch.distributed as dist

        group = dist.new_group(backend="gloo", timeout=PATIENCE)
        yield cls(rank, count, group)
        dist.barrier(group)

    @property
    def first(self) -> bool:
        """Whether this one writes."""
        return self.rank == 0

    def embed(self, source: Source, encoder: Encoder, start: int) -> Iterator[Batch]:
        """Yield the images of `source` from row `start` on, embedded by all; for the first one.

        Raises:
            DataError: the processes list other pictures.
        """
        if self.count < 2:
            yield from embed(source, encoder, range(start, len(source.paths)))
            return
        self._agree(source, start)
        own = embed(source, encoder, self._rows(start, len(source.paths)))
        for _ in range(self._rounds(start, len(source.paths))):
            batches: list[Batch | None] = [None] * self.count
            self._gather(next(own, None), batches)
            yield from (batch for batch in batches if batch is not None)

    def help(self, source: Source, encoder: Encoder) -> None:
        """Embed what the first process does not: for all the others."""
        start = self._agree(source)
        own = embed(source, encoder, self._rows(start, len(source.paths)))
        for _ in range(self._rounds(start, len(source.paths))):
            batch = next(own, None)
            if batch is not None:
                entries = [_without_pixels(entry) for entry in batch.entries]
                batch = Batch(batch.rows, entries)
            self._gather(batch)

    def _rows(self, start: int, total: int) -> Sequence[int]:
        """The rows that this process embeds: one batch in every `count`."""
        begins = range(start + self.rank * BATCH, total, self.count * BATCH)
        return [row for begin in begins for row in range(begin, min(begin + BATCH, total))]

    def _rounds(self, start: int, total: int) -> int:
        return -(-(total - start) // (self.count * BATCH))

    def _gather(self, batch: Batch | None, into: list[Batch | None] | None = None) -> None:
        import torch.distributed as dist

        dist.gather_object(batch, into, dst=0, group=self.group)

    def _agree(self, source: Source, start: int = 0) -> int:
        """Check that all list the same pictures; where the first one starts."""
        import torch.distributed as dist

        names = "\0".join(source.paths).encode(errors="surrogateescape")
        every: list[Any] = [None] * self.count
        dist.all_gather_object(every, (start, xxhash.xxh3_128_hexdigest(names)), self.group)
        if len({listing for _, listing in every}) > 1:
            message = f"The processes find other pictures in {source.name}: it changes meanwhile."
            raise DataError(message, "Run the command again.")
        return int(every[0][0])


def _without_pixels(entry: Picture | Skipped) -> Picture | Skipped:
    return replace(entry, pixels=NO_PIXELS) if isinstance(entry, Picture) else entry
