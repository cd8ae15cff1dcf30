"""What a corpus needs: arithmetic that can be checked by hand, and the records it comes from."""

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
from command_line import assert_error, lines, ok, run

from mrl_search.capacity import (
    FOUND,
    FULL,
    READ_US,
    Demand,
    Found,
    Machine,
    disk_bytes,
    query_us,
    reads_at,
    rss_bytes,
)  # fmt: skip
from mrl_search.cli.plan_capacity import _time
from mrl_search.engines.spec import Clusters
from mrl_search.errors import ConfigError

RECORDS = Path(__file__).parents[1] / "benchmarks" / "scale" / "capacity.jsonl"


def records() -> list[dict]:
    """The measurements; of several of one plan, that which was disturbed least."""
    found: dict[tuple, dict] = {}
    for r in map(json.loads, RECORDS.read_text().splitlines()):
        key = (r["n"], r["dim"], r["first"], r["target"])
        found[key] = min(found.get(key, r), r, key=lambda r: r["p50_ms"])
    return list(found.values())


def has_enough_queries(r: dict) -> bool:
    """Whether the queries can tell the target: 300 allow three misses at .999."""
    return (1 - r["target"]) * 10 * r.get("queries", 1000) >= 5


def test_what_was_found_is_in_the_records() -> None:
    measured = {
        Found(r["first"], r["target"], r["n"], r["codes"], r["shortlist"])
        for r in records()
        if r["dim"] == FULL and has_enough_queries(r)
    }
    assert set(FOUND) == measured


def test_predictions_are_within_a_quarter_of_what_was_measured() -> None:
    """Memory, disk and time of all sizes; times were fitted to 10^5 and 10^6 vectors alone."""
    for r in records():
        dims, n = tuple(sorted({64, 128, r["dim"]})), r["n"]
        item = r["disk"]["items.parquet"] / n  # paths of generated items are null
        disk = disk_bytes(dims, n, "float16", item)
        if r["dim"] == 128:  # built without clusters at full length
            disk["clusters"] = Clusters.of(64, n).nbytes
        if len([name for name in r["disk"] if name.startswith("prefix")]) < 3:
            assert sum(disk.values()) == pytest.approx(sum(r["disk"].values()), rel=0.01)
        held = rss_bytes(r["first"], n, r["disk"]["vectors.npy"], 0)
        assert sum(held.values()) == pytest.approx(r["rss"]["all"], rel=0.25)
        us = query_us((r["first"], r["dim"]), n, r["codes"], r["shortlist"])
        assert us == pytest.approx(r["p50_ms"] * 1000, rel=0.25), r["plan"]


def test_times_by_the_law_are_within_a_quarter_of_what_was_measured() -> None:
    """With the reads of the law, not those of a measured plan."""
    sizes = set()
    for r in records():
        if r["dim"] == FULL and (r["first"], r["target"]) != (64, 0.999) and has_enough_queries(r):
            demand = Demand(r["n"], (r["first"], FULL), r["target"])
            us = query_us(demand.dims, r["n"], *demand.reads(r["n"]))
            assert us == pytest.approx(r["p50_ms"] * 1000, rel=0.25), r["plan"]
            sizes.add(r["n"])
    assert sizes == {10**5, 2 * 10**5, 10**6, 10**7}


def test_rows_that_are_read_cost_what_was_measured() -> None:
    """Of a million vectors, opened as if their file were too large to stay mapped."""
    lines = (RECORDS.parent / "large_files.jsonl").read_text().splitlines()
    found = {(r["plan"], r["rows"]): r for r in map(json.loads, lines)}
    for plan in {plan for plan, _ in found}:
        first, shortlist = map(int, plan.partition("@")[0].split(":"))
        read, mapped = found[plan, "read"], found[plan, "mapped"]
        us = mapped["p50_us"] + READ_US * shortlist
        assert us == pytest.approx(read["p50_us"], rel=0.1), plan
        held = sum(rss_bytes(first, 10**6, 10**10, 0).values())
        assert held == pytest.approx(read["rss_bytes"], rel=0.1), plan


def test_clusters_are_as_large_as_their_file() -> None:
    """From the sizes of files of 1,000,000 and 200,000 vectors."""
    for dims, count, size in (
        (64, 1_000_000, 41_572_119), (128, 1_000_000, 75_166_487), (64, 200_000, 8_817_431),
        (8, 200_000, 3_241_208),
    ):  # fmt: skip
        assert Clusters.of(dims, count).nbytes == pytest.approx(size, rel=0.005)
    assert Clusters.of(1024, 1_000_000) == Clusters(0, 0)


def test_reads_grow_by_a_power_through_the_middle_of_what_was_measured() -> None:
    demand = Demand(10**7)
    for number in (0, 1):
        a, b, c = (demand.reads(10**power)[number] for power in (5, 6, 7))
        assert b / a == pytest.approx(c / b)
    for read, name in ((0, "codes"), (1, "shortlist")):
        off = [demand.reads(f.count)[read] / getattr(f, name) for f in demand.known]
        assert math.prod(off) == pytest.approx(1) and min(off) < 1 < max(off)
    made = [Found(64, 0.99, n, 3 * n**0.5, round(n**0.25)) for n in (10**4, 10**8, 10**12)]
    assert reads_at(made, 10**8) == pytest.approx((30_000, 100))
    assert reads_at(made, 1) == (1, 1)  # no more than there are
    assert not Demand(10**7).need().extrapolated and Demand(2 * 10**7).need().extrapolated
    assert Demand(10**7, (128, FULL), 0.999).need().extrapolated  # measured up to 10^6
    assert not Demand(10**7, (128, FULL)).need().extrapolated
    assert Demand(10**6, (64, 512)).need().extrapolated  # another full length
    assert Demand(60_000).need().extrapolated  # fewer than were measured


def test_recall_is_rounded_up_to_what_was_measured_and_costs() -> None:
    costs = [Demand(10**8, (128, 1024), recall).need().memory_us for recall in (0.95, 0.99, 0.999)]
    assert costs[0] < costs[1] < costs[2]
    assert Demand(10**8, recall=0.96).target == 0.99
    assert Demand(10**8, recall=0.5).target == 0.95


def test_needs_by_hand() -> None:
    machine = Machine(ram=1e12, disk=1e13, read_us=50, gb_ram=2, gb_disk=1)
    need = Demand(10**9, (64, 1024), 0.99, rate=20, machine=machine).need()
    assert need.disk["vectors"] == 2048e9
    assert need.disk["sieve"] == (64 + 4 * 2) * 1e9
    assert need.ram["vectors"] == 12e6  # rows of so large a file are read
    assert need.disk_us == pytest.approx(need.memory_us + 50 * need.shortlist)
    held = need.searching
    assert held == sum(need.ram.values())  # of a file of 4 GiB or more, no vector counts
    assert need.dollars == pytest.approx((2 * held + sum(need.disk.values())) / 1e9)
    assert need.dollars_in_memory == pytest.approx(need.dollars + 2 * 2048)
    assert need.milvus.ram == pytest.approx(1e9 * (4 * (64 + 1024) + 140.8))
    assert need.machines == 1
    small = dataclasses.replace(machine, disk=1e12)
    assert Demand(10**9, machine=small).need().machines == 3
    part = 1 - (1e12 - held) / 2048e9  # of vectors not in memory
    assert need.cached == pytest.approx(1 - part)
    assert need.iops == pytest.approx(20 * need.reads * part)
    roomy = dataclasses.replace(machine, ram=3e12)
    assert Demand(10**9, rate=20, machine=roomy).need().iops == 0
    most = Demand(need.largest, machine=machine).need()
    assert need.milvus.machines == 6  # by memory: 4.5 TB in three quarters of 1 TB
    assert Demand(10**9, machine=small).need().milvus.machines == 9  # by disk
    assert most.building <= 1e12 < most.building * 1.02  # joining needs most of it here
    assert most.building == pytest.approx(need.largest * 355 + most.disk["clusters"], rel=0.01)
    narrow = Demand(10**9, machine=dataclasses.replace(machine, disk=1e12)).need()
    stored = Demand(narrow.largest, machine=machine).need().disk.values()
    assert sum(stored) <= 1e12 < sum(stored) * 1.02


@pytest.mark.parametrize(
    ("count", "dims", "recall", "message"),
    [
        (1000, (64, 1024), 0.99, "^count is 1,000; this is for 50,001 to"),
        (10**13, (64, 1024), 0.99, "^count is 10,000,000,000,000; this"),
        (10**8, (1024,), 0.99, "^dims is 1024; a plan of two"),
        (10**8, (16, 1024), 0.99, "^dims begins with 16; recall was not measured"),
        (10**8, (64, 65_537), 0.99, "^dims ends with 65,537; at most"),
        (10**8, (64, 1024), 0.9999, "^recall is 0.9999; it must be above 0 and at most 0.999"),
        (10**8, (64, 1024), 1.0, "^recall is 1; it must be"),
        (10**8, (64, 1024), math.nan, "^recall is nan; it must be"),
        (
            10**8,
            (64, 1024),
            0.999,
            "^dims begins with 64; that does not find 0.999 of the neighbours",
        ),
    ],
)
def test_what_was_not_measured_is_refused(
    count: int, dims: tuple[int, ...], recall: float, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Demand(count, dims, recall).need()


@pytest.mark.parametrize(
    ("given", "message"),
    [({"ram": 0}, "^ram is 0 bytes"), ({"disk": 0.0}, "^disk is 0 bytes"),
     ({"ram": math.nan}, "^ram is nan bytes"),
     ({"read_us": -1}, "read_us is -1"), ({"read_us": math.nan}, "read_us is nan"),
     ({"read_us": 1e17}, "read_us is 1e.17"), ({"gb_ram": -3}, "gb_ram is -3"),
     ({"gb_disk": math.inf}, "gb_disk is inf")],
)  # fmt: skip
def test_numbers_of_no_machine_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=f"{message}; it must be "):
        Machine(**given)


@pytest.mark.parametrize("rate", [0.0, math.inf, math.nan, 1e17])
def test_rates_of_no_user_are_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match=r"^rate is .*; it must be above 0"):
        Demand(10**8, rate=rate)


def test_a_larger_corpus_costs_no_less() -> None:
    """Across 4 GiB, too, where vectors are no longer mapped."""
    needs = [Demand(count).need() for count in (10**6, 2_097_151, 2_097_153, 10**7)]
    for name in ("searching", "dollars", "dollars_in_memory", "memory_us", "disk_us"):
        values = [getattr(need, name) for need in needs]
        assert values == sorted(values), name
    assert sum(needs[1].ram.values()) > 4e9 > sum(needs[2].ram.values())  # what a process shows


def test_vectors_that_are_on_the_disk_need_no_memory() -> None:
    need = Demand(10**6, machine=Machine(ram=250e6)).need()
    assert need.machines == 1 and need.cached < 0.02
    assert need.largest < 10**6  # joining takes 502 MB


def test_rows_of_float32_are_read_from_half_as_many_on() -> None:
    few, more = (Demand(count, dtype="float32").need() for count in (1_048_575, 1_048_577))
    extra = READ_US * more.shortlist
    assert more.memory_us - few.memory_us == pytest.approx(extra, rel=0.01)
    assert few.ram["vectors"] > 4e9 and more.ram["vectors"] == 12e6


def test_the_command() -> None:
    shown = ok("plan-capacity", "--count", "1e9", "--dims", "64,1024", "--recall", ".99").stdout
    assert "1,000,000,000 vectors of 1,024 dims in float16, recall@10 0.99" in shown
    assert "2.05 TB" in shown
    (found,) = lines(ok("plan-capacity", "--count", "1e9", "--json"))
    assert found["need"]["disk"]["vectors"] == 2048e9
    assert found["demand"]["machine"]["ram"] == 256e9

    def need(*options: str) -> dict:
        return lines(ok("plan-capacity", "--count", "2e9", "--json", *options))[0]["need"]

    plain = need()
    assert plain["machines"] == 2 and need("--disk", "9TB")["machines"] == 1
    assert need("--ram", "64GB", "--disk", "9TB")["machines"] > 1
    assert need("--dtype", "float32")["disk"]["vectors"] == 2 * plain["disk"]["vectors"]
    assert need("--rate", "20")["iops"] == pytest.approx(2 * plain["iops"])
    assert need("--read-us", "200")["disk_us"] > plain["disk_us"]
    assert need("--price-ram", "9")["dollars"] > plain["dollars"]
    assert need("--price-disk", "9")["dollars"] > plain["dollars"]
    assert need("--recall", ".95")["shortlist"] < plain["shortlist"]
    assert need("--dims", "128,1024")["shortlist"] < plain["shortlist"]


def shown(*options: str) -> tuple[dict[str, list[str]], str]:
    """The values of each row of the table by its label, and the notes."""
    result = ok("plan-capacity", *options)
    rows = [re.split(r" {2,}", line.strip()) for line in result.stdout.splitlines()]
    return {row[0]: row[1:] for row in rows}, " ".join(result.stderr.split())


def test_the_table_shows_what_each_number_is_for() -> None:
    rows, notes = shown("--count", "1e9", "--rate", "20")
    assert rows["memory to search, vectors on disk"] == ["95.2 GB"]
    assert rows["memory to search, vectors in memory"] == ["2.14 TB", "4.49 TB"]
    assert rows["memory to join parts, once"] == ["395 GB"]
    assert rows["machines of 256 GB memory, 4 TB disk"] == ["1", "24"]
    assert rows["vectors that fit in its memory"] == ["8%"]
    assert rows["most vectors it can join and search"] == ["647,000,000"]
    assert rows["cores, 20 queries/s"] == ["0.11"]
    assert "To join parts, one machine needs 395 GB of memory once; yours has 256 GB." in notes
    assert "Machines are counted by memory and disk. For more queries a second" in notes
    assert "Plan 64:1206,1024: a query compares 644,653 codes of 64 dims, then 1,206 " in notes
    assert "Both numbers are extrapolated" in notes
    rows, notes = shown("--count", "1e9", "--ram", "64GB", "--disk", "500GB")
    assert rows["machines of 64 GB memory, 500 GB disk"] == ["-", "94"]
    assert "A machine of 64 GB and 500 GB is too small, and an index is searched by one" in notes


def test_the_table_says_which_vectors_count_as_memory_of_the_process() -> None:
    rows, notes = shown("--count", "1e6")
    assert rows["memory to search, vectors on disk"] == ["228 MB"]
    assert "less than 4 GiB, so it stays mapped once it is read" in notes
    assert "a process then shows 2.26 GB of memory." in notes
    assert "extrapolated" not in notes and "To join" not in notes
    rows, notes = shown("--count", "1e7")
    assert rows["memory to search, vectors on disk"] == ["1.09 GB"]
    assert "4 GiB or more, so rows are read, not mapped" in notes
    assert "a process shows 1.09 GB." in notes


@pytest.mark.parametrize(
    "options",
    [("1e9",), ("1e6", "--ram", "1GB"), ("1e12", "--dims", "128,65536", "--rate", "123456.7"),
     ("1e9", "--ram", "999.5GB", "--disk", "12.5TB")],
)  # fmt: skip
def test_the_output_fits_in_80_columns(options: tuple[str, ...]) -> None:
    result = ok("plan-capacity", "--count", *options)
    for line in (*result.stdout.splitlines(), *result.stderr.splitlines()):
        assert len(line.rstrip()) <= 80, line


@pytest.mark.parametrize(("us", "text"), [(41.26, "41.3 µs"), (999.6, "1 ms"), (126_178, "126 ms"),
                                          (2e6, "2 s"), (4e9, "4,000 s")])  # fmt: skip
def test_times_have_three_digits(us: float, text: str) -> None:
    assert _time(us) == text


@pytest.mark.parametrize("count", ["many", "nan", "-3", "1e99", "inf", "0"])
def test_a_count_that_is_none(count: str) -> None:
    assert_error(run("plan-capacity", f"--count={count}"), "count is")


@pytest.mark.parametrize("option", ["--ram", "--disk"])
def test_a_size_that_is_none(option: str) -> None:
    shown = run("plan-capacity", "--count", "1e6", option, "16")
    assert_error(shown, f"{option[2:]} is 16 bytes")
    assert f"256 GB. The option is {option}." in shown.stderr
    result = run("plan-capacity", "--count", "1e6", option, "1e9GB")
    assert_error(result, f"{option} is '1e9GB'; it must be a size.")


def test_a_price_that_is_none_names_its_option() -> None:
    shown = run("plan-capacity", "--count", "1e6", "--price-ram", "-1")
    assert_error(shown, "gb_ram is -1")
    assert "The option is --price-ram." in shown.stderr
