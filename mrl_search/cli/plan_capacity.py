"""`mrl-search plan-capacity`: what a corpus of a given size needs, on one machine and in Milvus."""

import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from mrl_search.cli.options import bytes_of, dims_of, option
from mrl_search.cli.render import note, show_table
from mrl_search.errors import ConfigError

if TYPE_CHECKING:
    from mrl_search.capacity import Demand, Need

__all__ = ["plan_capacity"]

COUNT_HELP = "How many vectors, from 50,001 to 1e12, such as 1e9 or 250,000,000."
DIMS_HELP = (
    "Prefixes that have an index. A query compares the first (64 or 128) with many vectors, and "
    "the last, the full length, with the best candidates."
)
RECALL_HELP = (
    "Share of the true ten nearest neighbours to find: .95, .99 or .999; others are rounded up. "
    "What it costs was measured with generated vectors."
)
RATE_HELP = "Queries a second, for cores, and reads of vectors that memory does not hold."


def plan_capacity(
    count: Annotated[str, option("--count N", COUNT_HELP)],
    dims: Annotated[str, option("--dims 64,…,FULL", DIMS_HELP)] = "64,1024",
    recall: Annotated[float, option("--recall SHARE", RECALL_HELP)] = 0.99,
    rate: Annotated[float, option("--rate NUMBER", RATE_HELP)] = 10.0,
    dtype: Annotated[
        str, option("--dtype TYPE", "Of the stored vectors: float16 or float32.")
    ] = "float16",
    ram: Annotated[str, option("--ram SIZE", "Memory of one machine.")] = "256GB",
    disk: Annotated[str, option("--disk SIZE", "Disk of one machine.")] = "4TB",
    read_us: Annotated[
        float, option("--read-us NUMBER", "Microseconds of one random read from the disk.")
    ] = 100.0,
    price_ram: Annotated[
        float, option("--price-ram DOLLARS", "Price of 1 GB of memory for a month.")
    ] = 5.0,
    price_disk: Annotated[
        float, option("--price-disk DOLLARS", "Price of 1 GB of disk for a month.")
    ] = 0.1,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object: bytes and microseconds.")
    ] = False,
) -> None:
    """Show what so many vectors need: disk, memory, time and money.

    Computed from bytes and microseconds that were measured. Machine and prices are your inputs.
    """
    from mrl_search.capacity import Demand, Machine

    sizes = _size_of("--ram", ram), _size_of("--disk", disk)
    number, prefixes = _count_of(count), dims_of(dims)
    try:
        machine = Machine(*sizes, read_us, price_ram, price_disk)
        demand = Demand(number, prefixes, recall, rate, dtype, machine)
        need = demand.need()
    except ConfigError as error:
        name = error.message.split()[0].lower().replace("gb", "price").replace("_", "-")
        raise ConfigError(error.message, f"{error.hint} The option is --{name}.".strip()) from error
    if as_json:
        told = {"demand": dataclasses.asdict(demand), "need": dataclasses.asdict(need)}
        typer.echo(json.dumps(told))
    else:
        _show(demand, need)


def _count_of(text: str) -> int:
    """Read `1e9`, `250000000` or `250,000,000`."""
    try:
        return round(float(text.replace(",", "")))
    except (ValueError, OverflowError) as error:  # nan and inf, too
        message = f"--count is {text!r}; it must be a number of vectors."
        raise ConfigError(message, "For example 1e9 or 250,000,000.") from error


def _size_of(name: str, text: str) -> int:
    try:
        return bytes_of(text)
    except ConfigError as error:
        raise ConfigError(f"{name} is {text!r}; it must be a size.", error.hint) from error


def _show(demand: "Demand", need: "Need") -> None:

    machine, other, first = demand.machine, need.milvus, f"{demand.dims[0]} dims"
    rate = f"{demand.rate:g} queries/s"
    disk, ram = need.disk, need.ram
    rows = [
        ("disk", _size(sum(disk.values())), _size(other.disk)),
        ("  vectors", _size(disk["vectors"]), ""),
        ("  clusters of all prefixes", _size(disk["clusters"]), ""),
        ("  codes of exact search", _size(disk["sieve"]), ""),
        ("  items: paths and labels", _size(disk["items"]), ""),
        ("memory to search, vectors on disk", _size(need.searching), ""),
        ("  program", _size(ram["process"]), ""),
        (f"  clusters of {first}", _size(ram["clusters"]), ""),
        ("  items: paths and labels", _size(ram["items"]), ""),
        ("memory to search, vectors in memory", _size(need.searching + need.cache),
         _size(other.ram)),
        ("memory to join parts, once", _size(need.building), ""),
        ("time of a query, vectors on disk", _time(need.disk_us), ""),
        ("time of a query, vectors in memory", _time(need.memory_us), ""),
        ("first query of a process reads", _size(need.first_bytes), ""),
        (f"disk reads/s, {rate}", f"{need.iops:,.0f}", ""),
        (f"cores, {rate}", f"{need.cores:,.2g}" if need.cores < 10 else f"{need.cores:,.0f}", ""),
        (f"machines of {_size(machine.ram)} memory, {_size(machine.disk)} disk",
         "1" if need.machines == 1 else "-", f"{other.machines:,}"),
        ("  vectors that fit in its memory", f"{need.cached:.0%}", ""),
        ("most vectors it can join and search", f"{need.largest:,}", ""),
        ("dollars a month, vectors on disk", _money(need.dollars), ""),
        ("dollars a month, vectors in memory", _money(need.dollars_in_memory),
         _money(other.dollars)),
    ]  # fmt: skip
    full = f"{demand.dims[-1]:,} dims"
    title = f"{need.count:,} vectors of {full} in {demand.dtype}, recall@10 {demand.target}"
    show_table(("", "mrl-search", "Milvus, by its formulas"), rows, title)
    note(
        f"Plan {demand.dims[0]}:{need.shortlist:.0f},{demand.dims[-1]}: a query compares "
        f"{need.codes:,.0f} codes of {first},\nthen {need.shortlist:,.0f} vectors of {full}."
    )
    for text in _remarks(demand, need):
        note(text)


def _remarks(demand: "Demand", need: "Need") -> Iterator[str]:
    """What one should know of the table; lines of at most 80 characters."""
    ram, disk = _size(demand.machine.ram), _size(demand.machine.disk)
    if need.extrapolated:
        yield "Both numbers are extrapolated: tune an index of a sample of your vectors."
    shown = _size(sum(need.ram.values()))
    if need.ram["vectors"] == need.cache:
        yield (
            "The file of vectors has less than 4 GiB, so it stays mapped once it is read:\n"
            f"a process then shows {shown} of memory."
        )
    else:
        yield (
            "The file of vectors has 4 GiB or more, so rows are read, not mapped: those in\n"
            f"memory are in the cache of the system, and a process shows {shown}."
        )
    if need.building > demand.machine.ram:
        size = _size(need.building)
        yield f"To join parts, one machine needs {size} of memory once; yours has {ram}."
    if need.machines > 1:
        yield (
            f"A machine of {ram} and {disk} is too small, and an index is searched by one\n"
            "machine. Choose a larger one, or Milvus."
        )
    else:
        yield (
            "Machines are counted by memory and disk. For more queries a second than one\n"
            "answers, copy the index to more of them."
        )


def _size(size: float) -> str:
    """Bytes to three digits, in decimal units."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            return f"{size:.3g} {unit}" if size < 999.5 else f"{size:,.0f} {unit}"
        size /= 1000
    raise AssertionError


def _time(us: float) -> str:
    """Microseconds to three digits."""
    for unit in ("µs", "ms"):
        if us < 999.5:
            return f"{us:.3g} {unit}"
        us /= 1000
    return f"{us:,.3g} s" if us < 999.5 else f"{us:,.0f} s"


def _money(dollars: float) -> str:
    return f"{dollars:,.0f}" if dollars >= 9.995 else f"{dollars:.2f}"
