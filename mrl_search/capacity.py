"""What a corpus of a given size needs: disk, memory, reads, time, machines and money.

Arithmetic from constants that were measured; `benchmarks/scale/README.md` compares it with
measurements. All constants are here. Recall depends on the vectors: the table is of the generated
vectors `easy` (`benchmarks/engine/vectors.py`), and what lies beyond its sizes is extrapolated.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mrl_search.engines.size import Clusters
from mrl_search.engines.spec import FLAT_UP_TO
from mrl_search.errors import ConfigError, require
from mrl_search.search.exact.sieve import coded_dims
from mrl_search.store.blocks import LARGE
from mrl_search.vectors import check_dims

__all__ = [
    "FOUND", "Demand", "Found", "Machine", "Milvus", "Need", "query_us", "reads_at", "rss_bytes",
]  # fmt: skip

# Bytes: records of benchmarks/scale/capacity.jsonl, and the index of 22,998 photographs
LIBRARIES = 105e6  # of a process that has imported all, before it opens an index
OPENED = 14e6  # more once it has answered
COPIED = 1.05  # bytes in memory for each byte of the file of clusters, which FAISS copies
ITEM = 53  # of items.parquet for each picture
SHOWN = 53  # in memory for each item, once hits are shown: its path and label
JOINED = 355  # in memory for each item while parts are joined: benchmarks/scale/join.jsonl
PAGES = 12e6  # of a larger file, whose rows are read: benchmarks/scale/large_files.jsonl
CHECKED = 256 << 10  # read for a row whose block was not checked before
PAGE = 4096

# Microseconds on one thread, nothing read from disk: fitted by benchmarks/scale/check.py
QUERY_US = 41.3
LIST_US = 0.103e-3  # of a centroid and dim
CODE_US = 0.0708e-3  # of a code and dim
VALUE_US = 0.178e-3  # of a candidate and dim
READ_US = 1.6  # of a candidate that is read from a larger file: benchmarks/scale/large_files.jsonl
FAULT_US = 5.9  # of one on a page that was not mapped yet, as in the records of 10^7 vectors


@dataclass(frozen=True, slots=True)
class Found:
    """What a first stage had to read to find a share of the true ten neighbours.

    Attributes:
        first: its dims.
        recall: the share, recall@10.
        count: vectors of the corpus.
        codes: that one query compares.
        shortlist: candidates that are compared at full length.
    """

    first: int
    recall: float
    count: int
    codes: float
    shortlist: int


FOUND = (  # benchmarks/scale/capacity.jsonl, vectors of FULL dims
    Found(64, 0.95, 100_000, 2_466, 65), Found(64, 0.95, 200_000, 4_931, 112),
    Found(64, 0.95, 1_000_000, 9_861, 135), Found(64, 0.95, 10_000_000, 25_282, 147),
    Found(64, 0.99, 100_000, 5_981, 193), Found(64, 0.99, 200_000, 10_399, 303),
    Found(64, 0.99, 1_000_000, 17_673, 434), Found(64, 0.99, 10_000_000, 66_786, 475),
    Found(64, 0.999, 100_000, 25_512, 1_276),
    Found(128, 0.95, 100_000, 2_075, 35), Found(128, 0.95, 200_000, 3_368, 65),
    Found(128, 0.95, 1_000_000, 6_931, 65),
    Found(128, 0.99, 100_000, 4_419, 103), Found(128, 0.99, 200_000, 7_274, 161),
    Found(128, 0.99, 1_000_000, 15_720, 177),
    Found(128, 0.999, 100_000, 22_387, 303), Found(128, 0.999, 200_000, 26_024, 744),
    Found(128, 0.999, 1_000_000, 33_298, 975),
)  # fmt: skip
FULL = 1024
MOST = 1e18  # of any number that is given
LEAST = 100_000_000  # bytes of a machine's memory or disk


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine and its price: inputs, not measurements.

    Attributes:
        ram: bytes.
        disk: bytes.
        read_us: microseconds of one random read.
        gb_ram: dollars a month for 1e9 bytes of memory.
        gb_disk: dollars a month for 1e9 bytes of disk.
    """

    ram: float = 256e9
    disk: float = 4e12
    read_us: float = 100
    gb_ram: float = 5.0
    gb_disk: float = 0.10

    def __post_init__(self) -> None:
        for name in ("ram", "disk"):
            limits = f"{name} must be at least {LEAST:,} bytes, and a number."
            require(LEAST <= getattr(self, name) < MOST, limits, f"For example --{name} 256GB.")
        require(0 < self.read_us < MOST, "read_us must be a positive number.")
        for name in ("gb_ram", "gb_disk"):
            require(0 <= getattr(self, name) < MOST, f"The price {name} must be a number from 0.")


@dataclass(frozen=True, slots=True)
class Milvus:
    """What Milvus needs by its own formulas: arithmetic, not measured here.

    Attributes:
        ram: bytes: a graph (HNSW, M=16) over the first stage, and the full length as float32.
        disk: bytes: both as float32, and the graph.
        machines: that hold this memory, a quarter of each left free.
        dollars: a month.
    """

    ram: float
    disk: float
    machines: int
    dollars: float


@dataclass(frozen=True)
class Demand:
    """What is wanted.

    Attributes:
        count: vectors.
        dims: prefixes with an index, ascending; the last one is the full length.
        recall: of the true ten neighbours, as a share.
        rate: queries a second.
        dtype: of the stored vectors.
        machine: what there is.

    Raises:
        ConfigError: sizes, dims or a recall for which nothing was measured.
    """

    count: int
    dims: tuple[int, ...] = (64, 1024)
    recall: float = 0.99
    rate: float = 10.0
    dtype: str = "float16"
    machine: Machine = Machine()

    def __post_init__(self) -> None:
        check_dims(self.dims)
        require(len(self.dims) > 1, "A plan of two stages has two dims.", "Such as --dims 64,1024.")
        fewest = FLAT_UP_TO + 1
        message = f"{self.count:,} vectors are few: every machine holds them."
        require(self.count >= fewest, message, f"Ask for {fewest:,} or more.")
        require(self.count <= 10**12, "More than 10^12 vectors are beyond any measurement.")
        known = sorted({found.first for found in FOUND})
        message = f"Recall with a first stage of {self.dims[0]} dims was not measured."
        require(self.dims[0] in known, message, f"Measured: {', '.join(map(str, known))}.")
        shares = sorted({found.recall for found in FOUND})
        message = f"A recall of {self.recall} was not measured."
        hint = f"Ask for at most {shares[-1]}; exact search finds all."
        require(0 < self.recall <= shares[-1], message, hint)
        require(0 < self.rate < MOST, "The rate must be a positive number.")
        require(self.dims[-1] <= 65_536, "More than 65,536 dims are no embedding.")
        require(self.dtype in ("float16", "float32"), "dtype is float16 or float32.")

    @cached_property
    def target(self) -> float:
        """The next recall that was measured."""
        return min(found.recall for found in FOUND if found.recall >= self.recall)

    @cached_property
    def known(self) -> tuple[Found, ...]:
        """What was measured of its first stage and recall.

        Raises:
            ConfigError: the first stage does not reach the recall at larger sizes.
        """
        first = self.dims[0]
        known = tuple(f for f in FOUND if (f.first, f.recall) == (first, self.target))
        if len(known) < 2:
            failed = {f.count for f in FOUND if f.first == first} - {f.count for f in known}
            found = f"{first} dims do not find {self.target} of the neighbours"
            message = f"{found} among {min(failed):,} vectors, with 2,000 candidates."
            larger = [f.first for f in FOUND if f.first > first and f.recall == self.target]
            hint = (
                f"Begin with --dims {larger[-1]},{FULL}" if larger else "Ask for a lower --recall."
            )
            raise ConfigError(message, hint)
        return known

    def reads(self, count: int) -> tuple[float, float]:
        """Codes and candidates of a query in a corpus of `count` vectors."""
        return reads_at(self.known, count)

    def need(self) -> "Need":
        """What it takes."""
        return _need(self, self.count)


@dataclass(frozen=True, slots=True)
class Need:
    """What a corpus needs on one machine; bytes, microseconds, dollars a month.

    Attributes:
        count: vectors.
        codes: that a query compares in the first stage.
        shortlist: candidates that it compares at full length.
        extrapolated: whether these two are beyond the sizes or the full length that were measured.
        disk: bytes, by what they are for.
        ram: bytes that a process keeps, by what they are for.
        building: bytes in memory while parts are joined: items, and the clusters of all prefixes.
        cache: bytes of vectors that are read from memory where there is room for them.
        memory_us: of a query with all vectors in the cache, on one thread.
        disk_us: of a query with none of them in the cache, one read after another: arithmetic.
        first_bytes: that a query reads where no block of a row was checked before.
        reads: from the disk, for each query, with none in the cache.
        iops: at the rate that is wanted, with the share of vectors that does not fit in the cache.
        cores: at this rate.
        machines: how many such machines hold it; an index is searched by one.
        largest: vectors that one such machine joins and holds.
        dollars: a month, for the memory and disk that are used.
        milvus: the same corpus there.
    """

    count: int
    codes: float
    shortlist: float
    extrapolated: bool
    disk: Mapping[str, float]
    ram: Mapping[str, float]
    building: float
    cache: float
    memory_us: float
    disk_us: float
    first_bytes: float
    reads: float
    iops: float
    cores: float
    machines: int
    largest: int
    dollars: float
    milvus: Milvus


def reads_at(known: Sequence[Found], count: int) -> tuple[float, float]:
    """Codes and candidates of a query among `count` vectors, at most all of them.

    Powers of the size, by least squares of the logarithms of what was measured.
    """
    sizes = [math.log(found.count) for found in known]

    def at(values: Sequence[float]) -> float:
        power, start = statistics.linear_regression(sizes, [math.log(value) for value in values])
        return min(math.exp(start + power * math.log(count)), count)

    return at([found.codes for found in known]), at([found.shortlist for found in known])


def query_us(
    dims: tuple[int, ...], count: int, codes: float, shortlist: float, beyond: float = READ_US
) -> float:
    """Microseconds of a query on one thread, of float16 vectors that no disk is read for.

    `beyond` is what a candidate costs more in a file that does not stay mapped.
    """
    first, full = dims[0], dims[-1]
    lists = Clusters.of(first, count).lists
    coarse = first * (LIST_US * lists + CODE_US * codes)
    more = beyond if 2 * count * full >= LARGE else 0.0
    return QUERY_US + coarse + (VALUE_US * full + more) * shortlist


def disk_bytes(
    dims: tuple[int, ...], count: int, dtype: str, item: float = ITEM
) -> dict[str, float]:
    """Bytes of the files of an index, by what they are for."""
    full, size = dims[-1], 2 if dtype == "float16" else 4
    return {
        "vectors": count * full * size,
        "clusters": float(sum(Clusters.of(d, count).nbytes for d in dims)),
        "sieve": count * (4.0 * len(dims) + (coded_dims(dims, full) or 0)),
        "items": count * item,
    }


def rss_bytes(first: int, count: int, vectors: float, shown: float = SHOWN) -> dict[str, float]:
    """Bytes of a process that has answered many queries, by what they are for."""
    return {
        "process": LIBRARIES + OPENED,
        "clusters": COPIED * Clusters.of(first, count).nbytes,
        "items": count * shown,
        "vectors": vectors if vectors < LARGE else PAGES,
    }


def _need(demand: Demand, count: int) -> Need:
    dims, machine = demand.dims, demand.machine
    codes, shortlist = demand.reads(count)
    disk = disk_bytes(dims, count, demand.dtype)
    ram = rss_bytes(dims[0], count, disk["vectors"])
    busy = query_us(dims, count, codes, shortlist)
    pages = 1 + (disk["vectors"] / count - 1) / PAGE  # a row may begin anywhere in a page
    reads = shortlist * pages
    room = max(0.0, machine.ram - sum(ram.values()) + ram["vectors"])
    missed = max(0.0, 1 - room / disk["vectors"])
    held, stored = sum(ram.values()), sum(disk.values())
    price = held / 1e9 * machine.gb_ram + stored / 1e9 * machine.gb_disk
    return Need(
        count=count, codes=codes, shortlist=shortlist,
        extrapolated=count > demand.known[-1].count or dims[-1] != FULL, disk=disk, ram=ram,
        building=LIBRARIES + count * JOINED + disk["clusters"],
        cache=disk["vectors"], memory_us=busy, disk_us=busy + shortlist * machine.read_us,
        first_bytes=min(shortlist * CHECKED, disk["vectors"]), reads=reads,
        iops=demand.rate * reads * missed, cores=demand.rate * busy / 1e6,
        machines=max(math.ceil(held / machine.ram), math.ceil(stored / machine.disk)),
        largest=_largest(demand), dollars=price, milvus=_milvus(demand, count),
    )  # fmt: skip


def _largest(demand: Demand) -> int:
    """The most vectors that one machine holds, to three digits."""
    machine = demand.machine

    def fits(count: int) -> bool:
        disk = disk_bytes(demand.dims, count, demand.dtype)
        held = sum(rss_bytes(demand.dims[0], count, disk["vectors"]).values())
        joining = LIBRARIES + count * JOINED + disk["clusters"]
        return max(held, joining) <= machine.ram and sum(disk.values()) <= machine.disk

    low, high = FLAT_UP_TO, 10**13
    while high - low > low // 1000 + 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low if low > FLAT_UP_TO else 0


LINKS = 2 * 16 * 4 * 1.1  # bytes of a vector's links in a graph of M=16: hnswlib's layout
FREE = 0.75  # of the memory of a query node that data may fill


def _milvus(demand: Demand, count: int) -> Milvus:
    first, full, machine = demand.dims[0], demand.dims[-1], demand.machine
    rows, graph = 4.0 * count * (first + full), count * LINKS
    ram, disk = rows + graph, 2 * rows + graph  # vectors are on the disk and in the index
    machines = max(1, math.ceil(ram / (FREE * machine.ram)))
    return Milvus(ram, disk, machines, ram / 1e9 * machine.gb_ram + disk / 1e9 * machine.gb_disk)
