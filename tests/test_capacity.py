"""What a corpus needs: arithmetic that can be checked by hand, and the records it comes from."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from command_line import assert_error, lines, ok, run

from mrl_search.capacity import (
    FAULT_US,
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
from mrl_search.engines.size import Clusters
from mrl_search.errors import ConfigError

RECORDS = Path(__file__).parents[1] / "benchmarks" / "scale" / "capacity.jsonl"


def records() -> list[dict]:
    """The measurements; of several of one plan, that which was disturbed least."""
    found: dict[tuple, dict] = {}
    for r in map(json.loads, RECORDS.read_text().splitlines()):
        key = (r["n"], r["dim"], r["first"], r["target"])
        found[key] = min(found.get(key, r), r, key=lambda r: r["p50_ms"])
    return list(found.values())


def test_what_was_found_is_in_the_records() -> None:
    measured = {
        Found(r["first"], r["target"], r["n"], r["codes"], r["shortlist"])
        for r in records()
        if r["dim"] == FULL
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
        us = query_us((r["first"], r["dim"]), n, r["codes"], r["shortlist"], FAULT_US)
        assert us == pytest.approx(r["p50_ms"] * 1000, rel=0.25), r["plan"]


def test_times_by_the_law_are_within_a_quarter_of_what_was_measured() -> None:
    """With the reads of the law, not those of a measured plan, and of rows that are mapped."""
    sizes = set()
    for r in records():
        if r["dim"] == FULL and (r["first"], r["target"]) != (64, 0.999):
            demand = Demand(r["n"], (r["first"], FULL), r["target"])
            us = query_us(demand.dims, r["n"], *demand.reads(r["n"]), FAULT_US)
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
    assert Demand(10**7, (128, FULL)).need().extrapolated  # measured up to 10^6
    assert Demand(10**6, (64, 512)).need().extrapolated  # another full length


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
    assert need.dollars == pytest.approx(
        (2 * sum(need.ram.values()) + sum(need.disk.values())) / 1e9
    )
    assert need.milvus.ram == pytest.approx(1e9 * (4 * (64 + 1024) + 140.8))
    assert need.machines == 1
    small = dataclasses.replace(machine, disk=1e12)
    assert Demand(10**9, machine=small).need().machines == 3
    part = 1 - (1e12 - sum(need.ram.values()) + 12e6) / 2048e9  # of vectors not in memory
    assert need.iops == pytest.approx(20 * need.reads * part)
    roomy = dataclasses.replace(machine, ram=3e12)
    assert Demand(10**9, rate=20, machine=roomy).need().iops == 0
    most = Demand(need.largest, machine=machine).need()
    assert most.building <= 1e12 < most.building * 1.01  # joining needs most of it here
    assert most.building == pytest.approx(need.largest * 355 + most.disk["clusters"], rel=0.01)
    narrow = Demand(10**9, machine=dataclasses.replace(machine, disk=1e12)).need()
    stored = Demand(narrow.largest, machine=machine).need().disk.values()
    assert sum(stored) <= 1e12 < sum(stored) * 1.01


@pytest.mark.parametrize(
    ("count", "dims", "recall", "message"),
    [
        (1000, (64, 1024), 0.99, "are few"),
        (10**13, (64, 1024), 0.99, "beyond any measurement"),
        (10**8, (1024,), 0.99, "has two dims"),
        (10**8, (16, 1024), 0.99, "first stage of 16 dims was not measured"),
        (10**8, (64, 1024), 0.9999, "recall of 0.9999 was not measured"),
        (10**8, (64, 1024), 0.999, "64 dims do not find 0.999 of the neighbours among 200,000 vec"),
    ],
)
def test_what_was_not_measured_is_refused(
    count: int, dims: tuple[int, ...], recall: float, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Demand(count, dims, recall).need()


@pytest.mark.parametrize(
    "given",
    [{"ram": 0}, {"disk": 0.0}, {"read_us": -1}, {"read_us": math.nan}, {"gb_ram": -3},
     {"gb_disk": math.inf}],
)  # fmt: skip
def test_numbers_of_no_machine_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be a"):
        Machine(**given)


@pytest.mark.parametrize("rate", [0.0, math.inf, math.nan, 1e300])
def test_rates_of_no_user_are_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match="rate must be"):
        Demand(10**8, rate=rate)


def test_the_command() -> None:
    shown = ok("plan-capacity", "--count", "1e9", "--dims", "64,1024", "--recall", ".99").stdout
    assert "1,000,000,000 vectors of 1,024 dims in float16, recall 0.99" in shown
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


@pytest.mark.parametrize("count", ["many", "nan", "-3", "1e99"])
def test_a_count_that_is_none(count: str) -> None:
    assert_error(run("plan-capacity", f"--count={count}"), "--count is")


def test_a_size_without_its_unit() -> None:
    assert_error(run("plan-capacity", "--count", "1e6", "--ram", "16"), "ram must be at least")
