"""Which share of a source a machine embeds, where several build one index (see `parts`)."""

import re
from dataclasses import dataclass
from typing import Self

import xxhash

from mrl_search.errors import ConfigError

__all__ = ["PATH", "POSITION", "Shard"]

PATH, POSITION = "path", "position"


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several shares of a source.

    Attributes:
        number: which, from 1 to `count`; 0: no share, all of it.
        count: how many there are.
        by: what decides who takes an item: its `path` or its `position`.
        total: items of the whole source, as this machine lists it.
        listing: checksum of that list.
        axes: the default axes of the encoder for the joined index.
        columns: of the items, which the whole source, its metadata or `--items` gave them.
        items: the file or folder of `--items`, for vectors of a user's own.
    """

    number: int = 0
    count: int = 0
    by: str = ""
    total: int = 0
    listing: str = ""
    axes: str = ""
    columns: tuple[str, ...] = ()
    items: str = ""

    def __bool__(self) -> bool:
        return self.number > 0

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `3/16`.

        Raises:
            ConfigError: anything else.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        number, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= number <= count:
            message = f"The shard is {text!r}; it must be NUMBER/COUNT, NUMBER from 1 to COUNT."
            raise ConfigError(message, "The third of sixteen machines takes 3/16.")
        return cls(number, count)

    def range_of(self, total: int) -> range:
        """Its positions among `total`."""
        ends = (total * number // self.count for number in (self.number - 1, self.number))
        return range(*ends)

    def takes(self, key: str) -> bool:
        """Whether it takes the item of this name."""
        found = xxhash.xxh3_64_intdigest(key.encode(errors="surrogateescape"))
        return bool(found % self.count == self.number - 1)
