"""`mrl-search plan-capacity`: what a corpus of a given size needs, on one machine and in Milvus."""

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from mrl_search.cli.options import bytes_of, dims_of, option
from mrl_search.errors import ConfigError

if TYPE_CHECKING:
    from mrl_search.capacity import Demand, Need

__all__ = ["plan_capacity"]

RECALL_HELP = (
    "Share of the true ten neighbours: .95, .99 or .999, as measured on the generated vectors "
    "easy; others are rounded up."
)
DIMS_HELP = "Prefixes with an index: the first stage, 64 or 128, …, and the full length."


def plan_capacity(
    count: Annotated[str, option("--count N", "Vectors, such as 1e9 or 250000000.")],
    dims: Annotated[str, option("--dims 64,1024", DIMS_HELP)] = "64,1024",
    recall: Annotated[float, option("--recall SHARE", RECALL_HELP)] = 0.99,
    rate: Annotated[float, option("--rate", "Queries a second.")] = 10.0,
    dtype: Annotated[str, option("--dtype", "Of the vectors: float16 or float32.")] = "float16",
    ram: Annotated[str, option("--ram SIZE", "Memory of a machine.")] = "256GB",
    disk: Annotated[str, option("--disk SIZE", "Disk of a machine.")] = "4TB",
    read_us: Annotated[float, option("--read-us", "Microseconds of a random read.")] = 100.0,
    price_ram: Annotated[float, option("--price-ram", "Dollars a month for 1 GB of RAM.")] = 5.0,
    price_disk: Annotated[float, option("--price-disk", "Dollars a month for 1 GB of disk.")] = 0.1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what so many vectors need: disk, memory, time and money.

    Bytes and microseconds are measured; machine and prices are your inputs.
    """
    from mrl_search.capacity import Demand, Machine

    machine = Machine(bytes_of(ram), bytes_of(disk), read_us, price_ram, price_disk)
    demand = Demand(_count_of(count), dims_of(dims), recall, rate, dtype, machine)
    need = demand.need()
    if as_json:
        told = {"demand": dataclasses.asdict(demand), "need": dataclasses.asdict(need)}
        typer.echo(json.dumps(told))
    else:
        _show(demand, need)


def _count_of(text: str) -> int:
    """Read `1e9`, `250000000` or `250,000,000`."""
    try:
        value = float(text.replace(",", ""))
        if value != value or not 0 < value < 1e15:
            raise ValueError(text)
    except ValueError as error:
        hint = "A number of vectors up to 1e15, such as 1e9."
        raise ConfigError(f"--count is {text!r}.", hint) from error
    return round(value)


def _show(demand: "Demand", need: "Need") -> None:
    from mrl_search.cli.render import note, show_table

    held, stored, other = sum(need.ram.values()), sum(need.disk.values()), need.milvus
    dims = demand.dims
    rows = [
        ("disk", _size(stored), _parts(need.disk), _size(other.disk)),
        ("memory", _size(held), _parts(need.ram), _size(other.ram)),
        ("memory to join its parts", _size(need.building), "items and clusters", "–"),
        ("cache, to read no vector from disk", _size(need.cache), "", "–"),
        ("query in memory, one thread", _time(need.memory_us), "", "–"),
        ("query, every candidate from disk", _time(need.disk_us),
         f"{need.shortlist:,.0f} reads of {demand.machine.read_us:g} µs", "–"),
        ("read by a query of a new process", _size(need.first_bytes),
         "blocks are checked when first read", "–"),
        (f"reads a second at {demand.rate:g} queries", f"{need.iops:,.0f}",
         "of vectors that do not fit in memory", "–"),
        (f"cores at {demand.rate:g} queries a second", f"{need.cores:,.2f}", "", "–"),
        (f"machines of {_size(demand.machine.ram)} and {_size(demand.machine.disk)}",
         f"{need.machines:,}", "an index is searched by one", f"{other.machines:,}"),
        ("one such machine joins and holds", f"{need.largest:,}", "vectors", ""),
        ("dollars a month", f"{need.dollars:,.0f}",
         f"{demand.machine.gb_ram:g} for 1 GB of memory, {demand.machine.gb_disk:g} of disk",
         f"{other.dollars:,.0f}"),
    ]  # fmt: skip
    title = f"{need.count:,} vectors of {dims[-1]:,} dims in {demand.dtype}, recall {demand.target}"
    show_table(("", "mrl-search", "of which", "Milvus, by its formulas"), rows, title)
    note(
        f"plan {dims[0]}:{need.shortlist:,.0f},{dims[-1]}: a query compares {need.codes:,.0f} codes"
    )
    if need.extrapolated:
        note("That is extrapolated; recall depends on the vectors: tune an index of a sample.")
    if need.building > demand.machine.ram:
        note("Joining takes more memory than such a machine has.")
    if need.machines > 1:
        note("One machine does not hold this; an index here is searched by one machine.")


def _parts(sizes: "dict[str, float] | object") -> str:
    assert isinstance(sizes, dict)
    return ", ".join(f"{name} {_size(size)}" for name, size in sizes.items())


def _size(size: float) -> str:
    """Bytes to three digits, in decimal units."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            return f"{size:.3g} {unit}" if size < 999.5 else f"{size:,.0f} {unit}"
        size /= 1000
    raise AssertionError


def _time(us: float) -> str:
    return f"{us:,.0f} µs" if us < 999.5 else f"{us / 1000:,.3g} ms"
