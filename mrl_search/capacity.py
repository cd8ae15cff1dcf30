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

from mrl_search.engines.spec import FLAT_UP_TO, Clusters
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


FOUND = (  # benchmarks/scale/capacity.jsonl, vectors of FULL dims; 300 queries cannot tell .999
    Found(64, 0.95, 100_000, 2_466, 65), Found(64, 0.95, 200_000, 4_931, 112),
    Found(64, 0.95, 1_000_000, 9_861, 135), Found(64, 0.95, 10_000_000, 25_282, 147),
    Found(64, 0.99, 100_000, 5_981, 193), Found(64, 0.99, 200_000, 10_399, 303),
    Found(64, 0.99, 1_000_000, 17_673, 434), Found(64, 0.99, 10_000_000, 66_786, 475),
    Found(64, 0.999, 100_000, 25_512, 1_276),
    Found(128, 0.95, 100_000, 2_075, 35), Found(128, 0.95, 200_000, 3_368, 65),
    Found(128, 0.95, 1_000_000, 6_931, 65), Found(128, 0.95, 10_000_000, 17_958, 86),
    Found(128, 0.99, 100_000, 4_419, 103), Found(128, 0.99, 200_000, 7_274, 161),
    Found(128, 0.99, 1_000_000, 15_720, 177), Found(128, 0.99, 10_000_000, 37_489, 161),
    Found(128, 0.999, 100_000, 22_387, 303), Found(128, 0.999, 200_000, 26_024, 744),
    Found(128, 0.999, 1_000_000, 33_298, 975),
)  # fmt: skip
FULL = 1024
FEWEST = FLAT_UP_TO + 1  # vectors; fewer have no clusters
LARGEST = 10**12  # vectors
LEAST, MOST = 100e6, 1e18  # bytes of a machine's memory or disk
SLOWEST = 1e6  # microseconds of a read
DEAREST = 1e6  # dollars
BUSIEST = 1e9  # queries a second


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
            size = getattr(self, name)
            message = f"{name} is {size:,.0f} bytes; it must be from 100 MB to 1,000,000 TB."
            require(LEAST <= size <= MOST, message, "For example 256 GB.")
        message = f"read_us is {self.read_us:g}; it must be above 0 and at most {SLOWEST:,.0f}."
        require(0 < self.read_us <= SLOWEST, message)
        for name, price in (("gb_ram", self.gb_ram), ("gb_disk", self.gb_disk)):
            message = f"{name} is {price:g}; it must be from 0 to {DEAREST:,.0f}."
            require(0 <= price <= DEAREST, message)


@dataclass(frozen=True, slots=True)
class Milvus:
    """What Milvus needs by its own formulas: arithmetic, not measured here.

    Attributes:
        ram: bytes: a graph (HNSW, M=16) over the first stage, and the full length as float32.
        disk: bytes: both as float32, and the graph.
        machines: that hold this memory, a quarter of each left free, and this disk.
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
        first, full = self.dims[0], self.dims[-1]
        message = f"dims is {first}; a plan of two stages has two or more."
        require(len(self.dims) > 1, message, "For example 64 and 1,024.")
        message = f"dims ends with {full:,}; at most 65,536 are allowed."
        require(full <= 65_536, message)
        message = f"count is {self.count:,}; this is for {FEWEST:,} to {LARGEST:,} vectors."
        few = "Fewer fit on any machine." if self.count < FEWEST else ""
        require(FEWEST <= self.count <= LARGEST, message, few)
        known = sorted({found.first for found in FOUND})
        message = f"dims begins with {first}; recall was not measured with that first stage."
        require(first in known, message, f"Measured: {' and '.join(map(str, known))}.")
        most = max(found.recall for found in FOUND)
        message = f"recall is {self.recall:g}; it must be above 0 and at most {most}."
        require(0 < self.recall <= most, message, "Exact search finds all neighbours.")
        message = f"rate is {self.rate:g}; it must be above 0 and at most {BUSIEST:,.0f}."
        require(0 < self.rate <= BUSIEST, message)
        message = f"dtype is {self.dtype}; it must be float16 or float32."
        require(self.dtype in ("float16", "float32"), message)

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
            found = f"dims begins with {first}; that does not find {self.target} of the neighbours"
            message = f"{found} among {min(failed):,} vectors, with 2,000 candidates."
            raise ConfigError(message, "Begin with more, or ask for a lower recall.")
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
        ram: bytes that a process shows once it has read all vectors, by what they are for. A file
            of vectors up to 4 GiB is mapped and counts; rows of a larger one are read.
        searching: bytes of memory that a search needs, with all vectors on the disk.
        building: bytes in memory while parts are joined: items, and the clusters of all prefixes.
        cache: bytes of vectors, which are read from memory where there is room for them.
        cached: the share of them that fits in the memory of a machine beside a search.
        memory_us: of a query with all vectors in memory, on one thread.
        disk_us: of a query with none of them in memory, one read after another: arithmetic.
        first_bytes: that a query reads where no block of a row was checked before.
        reads: pages from the disk, for each query, with no vector in memory.
        iops: at the rate that is wanted, with the share of vectors that does not fit in memory.
        cores: that this rate keeps busy.
        machines: as many as have the memory that a search needs, and the disk. Above 1, it does
            not fit: an index is searched by one machine.
        largest: vectors that one such machine joins and searches.
        dollars: a month, for the disk, and the memory with all vectors on the disk.
        dollars_in_memory: a month, with all vectors in memory, too.
        milvus: the same corpus there.
    """

    count: int
    codes: float
    shortlist: float
    extrapolated: bool
    disk: Mapping[str, float]
    ram: Mapping[str, float]
    searching: float
    building: float
    cache: float
    cached: float
    memory_us: float
    disk_us: float
    first_bytes: float
    reads: float
    iops: float
    cores: float
    machines: int
    largest: int
    dollars: float
    dollars_in_memory: float
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
    dims: tuple[int, ...], count: int, codes: float, shortlist: float, dtype: str = "float16"
) -> float:
    """Microseconds of a query on one thread that no disk is read for; measured with float16."""
    first, full = dims[0], dims[-1]
    lists = Clusters.of(first, count).lists
    coarse = first * (LIST_US * lists + CODE_US * codes)
    more = READ_US if _bytes_of(dims, count, dtype) >= LARGE else 0.0
    return QUERY_US + coarse + (VALUE_US * full + more) * shortlist


def disk_bytes(
    dims: tuple[int, ...], count: int, dtype: str, item: float = ITEM
) -> dict[str, float]:
    """Bytes of the files of an index, by what they are for."""
    full = dims[-1]
    return {
        "vectors": _bytes_of(dims, count, dtype),
        "clusters": float(sum(Clusters.of(d, count).nbytes for d in dims)),
        "sieve": count * (4.0 * len(dims) + (coded_dims(dims, full) or 0)),
        "items": count * item,
    }


def _bytes_of(dims: tuple[int, ...], count: int, dtype: str) -> int:
    return count * dims[-1] * (2 if dtype == "float16" else 4)


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
    busy = query_us(dims, count, codes, shortlist, dtype=demand.dtype)
    pages = 1 + (disk["vectors"] / count - 1) / PAGE  # a row may begin anywhere in a page
    reads = shortlist * pages
    held, building, stored = _held(demand, count)
    cached = min(1.0, max(0.0, machine.ram - held) / disk["vectors"])
    sizes = [found.count for found in demand.known]
    extrapolated = not min(sizes) <= count <= max(sizes) or dims[-1] != FULL
    price = held / 1e9 * machine.gb_ram + stored / 1e9 * machine.gb_disk
    return Need(
        count=count, codes=codes, shortlist=shortlist, extrapolated=extrapolated, disk=disk,
        ram=ram, searching=held, building=building, cache=disk["vectors"], cached=cached,
        memory_us=busy, disk_us=busy + shortlist * machine.read_us,
        first_bytes=min(shortlist * CHECKED, disk["vectors"]), reads=reads,
        iops=demand.rate * reads * (1 - cached), cores=demand.rate * busy / 1e6,
        machines=max(math.ceil(held / machine.ram), math.ceil(stored / machine.disk)),
        largest=_largest(demand), dollars=price,
        dollars_in_memory=price + disk["vectors"] / 1e9 * machine.gb_ram,
        milvus=_milvus(demand, count),
    )  # fmt: skip


def _held(demand: Demand, count: int) -> tuple[float, float, float]:
    """Bytes of memory to search, vectors on the disk; of memory to join parts; of disk."""
    disk = disk_bytes(demand.dims, count, demand.dtype)
    searching = sum(rss_bytes(demand.dims[0], count, min(disk["vectors"], PAGES)).values())
    return searching, LIBRARIES + count * JOINED + disk["clusters"], sum(disk.values())


def _largest(demand: Demand) -> int:
    """The most vectors that one machine joins and searches, to three digits; 0: hardly any."""
    machine = demand.machine

    def fits(count: int) -> bool:
        searching, joining, stored = _held(demand, count)
        return max(searching, joining) <= machine.ram and stored <= machine.disk

    low, high = FLAT_UP_TO, LARGEST + 1
    while high - low > low // 1000 + 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    step = 10 ** max(len(str(low)) - 3, 0)
    return low // step * step if low > FLAT_UP_TO else 0


LINKS = 2 * 16 * 4 * 1.1  # bytes of a vector's links in a graph of M=16: hnswlib's layout
FREE = 0.75  # of the memory of a query node that data may fill


def _milvus(demand: Demand, count: int) -> Milvus:
    first, full, machine = demand.dims[0], demand.dims[-1], demand.machine
    rows, graph = 4.0 * count * (first + full), count * LINKS
    ram, disk = rows + graph, 2 * rows + graph  # vectors are on the disk and in the index
    machines = max(math.ceil(ram / (FREE * machine.ram)), math.ceil(disk / machine.disk))
    return Milvus(ram, disk, machines, ram / 1e9 * machine.gb_ram + disk / 1e9 * machine.gb_disk)
