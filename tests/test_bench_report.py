"""Reports: values by hand, every number on the page, the same bytes again, significant drops."""

import base64
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mrl_search.errors import DataError, FileError
from mrl_search.measure.compare import compare
from mrl_search.measure.records import Run
from mrl_search.measure.schema import pack, unpack
from mrl_search.metrics import Share
from mrl_search.report.figures import Sketchbook
from mrl_search.report.page import render_markdown, render_page
from mrl_search.report.tables import (
    bytes_of,
    cascade_table,
    cost_table,
    digits,
    milliseconds,
    run_tables,
    share,
    times,
    trained_table,
)
from mrl_search.report.values import baseline, enough, rate_of, recall_of, share_of, times_of
from mrl_search.report.write import introduction, report_page, rotation, write_report

N = 200
CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)


def right(wrong: int, n: int = N) -> str:
    """Outcomes of which the first `wrong` are wrong."""
    return pack(np.arange(n) >= wrong)


def webp() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (60, 30), "red").save(buffer, "WEBP")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture
def run() -> Run:
    """A bench of two prefixes as a file would hold it; every number of it is its own."""
    plans = (
        ("brute force", "every stored vector", None, 64_000.0, 8_000, 11, 12, 0.91, 0, 8.0),
        ("64 dims", "64", 64, 63_999.0, 256_000, 13, 14, 0.92, 0, 4.0),
        ("8 dims", "8", 8, 8_001.0, 32_000, 31, 32, 0.71, 90, 0.5),
        ("adaptive 8→64", "8:200,64", None, 20_805.0, 32_000, 15, 16, 0.88, 1, 1.0),
    )
    records = [
        {"kind": "prefix", "dims": 64, "linear": right(10), "vote": right(12)},
        {"kind": "prefix", "dims": 8, "linear": right(30), "vote": right(17)},
        *(
            {
                "kind": "plan",
                "name": name,
                "plan": plan,
                "dims": dims,
                "multiply_adds": adds,
                "ram": ram,
                "exact": name in ("brute force", "64 dims"),
                "nearest": right(near),
                "vote": right(vote),
                "precision": {"mean": mean, "sd": 0.1, "n": N},
                "found": pack(np.where(np.arange(N) < few, 4, 10)),
            }
            for name, plan, dims, adds, ram, near, vote, mean, few, _ in plans
        ),
        *(
            {
                "kind": "control",
                "name": name,
                "dims": d,
                "vote": right(w),
                "found": pack(np.full(N, f)),
            }
            for name, d, w, f in (
                ("pca", 8, 23, 6),
                ("pca", 64, 21, 9),
                ("random", 8, 101, 1),
                ("random", 64, 19, 10),
            )
        ),
        *({"kind": "instance", "dims": d, "right": right(w, 50)} for d, w in ((8, 9), (64, 1))),
        *(
            {
                "kind": "latency",
                "plan": name,
                "round": r,
                "warm_up": 10,
                "ms": [round(ms * (1 + i / 1000 + (r == 2)), 4) for i in range(120)],
            }
            for name, *_, ms in plans
            for r in (1, 2, 3)
        ),
        *(
            {"kind": "batch", "plan": name, "round": 1, "queries": 256, "seconds": ms / 16}
            for name, *_, ms in plans
        ),
        {"kind": "embedding", "ms": [7.0, 9.5, 8.25]},
        *(
            {
                "kind": "scatter",
                "dims": d,
                "x": [0.0, 1.0, 2.0],
                "y": [1.0, 0.0, 1.0],
                "labels": [0, 1, 2],
                "names": ["cat", "other", ""],
                "variance": [0.5, 0.25],
            }
            for d in (8, 64)
        ),
        {
            "kind": "ladder",
            "number": 1,
            "title": "cat-7.jpg",
            "why": "",
            "thumbnails": {"cat-7.jpg": webp()},
            "rows": [
                {
                    "title": f"{d} dims",
                    "tiles": [
                        {"path": "cat-7.jpg", "caption": "query", "mark": "query"},
                        {"path": "gone.jpg", "caption": f"{d}", "mark": "right"},
                    ],
                }
                for d in (8, 64)
            ],
        },
        {
            "kind": "cascade",
            "give": 0.01,
            "dims": [8, 64],
            "thresholds": [0.9, 0.0],
            "n": 100,
            "accuracy": 0.93,
            "expected_dims": 20.52,
            "stopped": [0.8, 0.2],
            "fixed": {"8": 0.91, "64": 0.94},
        },
        {
            "kind": "mislabels",
            "count": 3,
            "thumbnails": {"pets/<5>.jpg": webp()},
            "rows": [
                {
                    "title": "all",
                    "tiles": [{"path": "pets/<5>.jpg", "caption": "is cat", "mark": "wrong"}],
                }
            ],
            "shown": [
                {"id": 5, "path": "pets/<5>.jpg", "label": "cat", "says": "dog", "against": 0.97},
                {"id": 6, "path": None, "label": "dog", "says": "cat", "against": 0.83},
            ],
        },
        {"kind": "done"},
    ]
    about = {
        "id": "a1",
        "name": "pets",
        "when": "2026-01-02T03:04:05+00:00",
        "corpus": {
            "n": 1000,
            "dim": 64,
            "dims": [8, 64],
            "dtype": "float16",
            "source": "pets",
            "encoder": "drawn",
            "fingerprint": "f00d" * 8,
            "factory": {"8": "Flat", "64": "Flat"},
            "classes": 2,
            "vectors": 128_000,
            "content": "c0",
            "files": {
                "vectors.npy": 128_128,
                "prefix-0008.faiss": 32_045,
                "prefix-0064.faiss": 256_045,
            },
        },
        "queries": {
            "source": "items of the index",
            "n": N,
            "labelled": N,
            "own": True,
            "fingerprint": "q0",
        },
        "contestants": {},
        "settings": {
            "k": 10,
            "neighbours": 20,
            "sample": N,
            "timed": 120,
            "rounds": 3,
            "batch": 256,
            "threads": 1,
            "copies": 50,
        },
        "environment": {
            "machine": "x86_64",
            "cpu": "A <fast> one",
            "cores": 2,
            "os": "Linux 6",
            "python": "3.11.2",
            "versions": {"numpy": "2.4.6"},
            "commit": "abc123",
        },
    }
    return Run(about, [{"format": 1, "run": "a1", **r} for r in records])


def change(run: Run, kind: str, where: dict[str, object], **values: object) -> Run:
    """The run with other values in some of its records."""
    return replace(
        run,
        records=[
            {**r, **values} if r["kind"] == kind and where.items() <= r.items() else r
            for r in run.records
        ],
    )


def about(run: Run, part: str, **values: object) -> Run:
    return replace(run, about={**run.about, part: {**run.about[part], **values}})


def test_a_rotation_that_finds_more_is_told(run: Run) -> None:
    """At 8 dims 7.3 of 10 are found by the prefix, on average; by these axes all ten."""
    found = recall_of(run.one("plan", name="8 dims")["found"], run.k).value
    all_found = change(run, "control", {"name": "pca", "dims": 8}, found=pack(np.full(N, 10)))
    told = f"recall@10 of exact is 100.0% against {found:.1%} by 8 dims."
    assert told in rotation(all_found) and rotation(all_found) in introduction(all_found)
    none = change(run, "control", {"name": "pca", "dims": 8}, found=pack(np.zeros(N, int)))
    assert rotation(none) == ""


def test_queries_that_trained_the_model_stand_apart(run: Run) -> None:
    """The first 150 of 200 queries trained the model: it is right in more of them."""
    assert "It is not known whether queries trained the model." in introduction(run)[0]
    assert trained_table(run) is None
    mask = np.arange(N) < 150
    record = {"kind": "trained", "run": "r", "count": 150, "labelled": pack(mask)}
    told = replace(run, records=[record, *run.records])
    assert "150 of the 200 queries trained the model: it knows them." in introduction(told)[0]
    table = trained_table(told)
    votes = unpack(run.one("prefix", dims=8)["vote"]) == 1
    at = table.columns.index("20-NN, new")
    row = {r[0]: r for r in table.rows}["8"]
    assert row[at] == share(Share.of(votes[150:]))
    assert row[at + 1] == share(Share.of(votes[:150]))
    assert "50 queries that did not train the model" in table.note
    none = {**record, "count": 0, "labelled": pack(np.zeros(N, bool))}
    told = replace(run, records=[none, *run.records])
    assert "None of the queries trained the model." in introduction(told)[0]
    assert trained_table(told) is None


def test_adaptive_classification_stands_next_to_each_prefix(run: Run) -> None:
    table = cascade_table(run)
    assert table.columns == ("classification", "20-NN", "points below all dims", "mean dims")
    assert table.rows == (
        ("8 dims", "91.0%", "3.00", "8"),
        ("64 dims", "94.0%", "0.00", "64"),
        ("adaptive, may lose 1%", "93.0%", "1.00", "20.5"),
    )
    assert "n = 100, so 94.0% has a 95% interval from 87.5 to 97.2" in table.note
    assert "which often lost more" in table.note  # as version 0.2 learnt thresholds
    assert "95% confidence" in cascade_table(change(run, "cascade", {}, level=0.05)).note
    assert cascade_table(replace(run, records=[])) is None


def test_shares_and_their_intervals() -> None:
    found = share_of(right(20, 200))
    assert (found.value, found.n) == (0.9, 200) and (round(found.low, 4), round(found.high, 4)) == (
        0.8506,
        0.9343,
    )
    assert share_of(None) is None
    recall = recall_of(pack(np.array([10, 5, 10, 5])), 10)
    assert (
        recall.value == 0.75
        and recall.low == pytest.approx(0.75 - 1.959964 * 0.25 / 2)
        and recall.high == pytest.approx(0.995, abs=1e-4)
    )
    assert Share.mean(0.5, 0.0, 9) == Share(0.5, 0.5, 0.5, 9)


def test_a_query_counts_with_its_median_over_the_rounds(run: Run) -> None:
    rounds = [
        {"kind": "latency", "plan": "x", "round": r, "warm_up": 2, "ms": ms}
        for r, ms in enumerate(([1.0, 9.0, 3.0], [2.0, 4.0, 90.0], [3.0, 5.0, 6.0]))
    ]
    some = replace(
        run,
        records=[
            *rounds,
            {"kind": "batch", "plan": "x", "round": 1, "queries": 100, "seconds": 0.5},
        ],
    )
    t = times_of(some, "x")
    assert (t.p50, t.p95, t.p99, t.n, t.rounds, t.warm_up) == (
        5.0,
        None,
        None,
        3,
        3,
        2,
    )  # medians 2, 5, 6; too few for more
    assert rate_of(some, "x") == 200.0
    assert times_of(some, "y") is None and rate_of(some, "y") is None
    many = times_of(run, "64 dims")
    assert (
        many.p50 == pytest.approx(4 * 1.0595)
        and many.p95 == pytest.approx(4 * 1.11305)
        and many.p99 == pytest.approx(4 * 1.11781)
    )


def test_the_smallest_prefix_that_is_good_enough(run: Run) -> None:
    vote, linear, copies = enough(run)
    assert (vote.measure, vote.dims, vote.p) == (
        "20-NN",
        8,
        0.0625,
    )  # five queries that only the full length has: 2 · 2⁻⁵
    assert vote.difference.value == pytest.approx(-0.025)
    assert (linear.dims, linear.p) == (64, 1.0)  # twenty that only the full length has
    assert (copies.measure, copies.dims) == ("instance recall@1", 64)  # eight: 2 · 2⁻⁸
    text = "\n".join(introduction(run))
    for sentence in (
        "20-NN: 8 dims are not significantly worse than 64: 91.5% against 94.0%, a difference of "
        "-2.5 points (95% interval from -2.5 to +0.1; McNemar's exact test: p = 0.062, n = 200).",
        "linear head: all 64 dims are needed (95.0%); 8 dims are significantly worse.",
        "The fastest exact search (64 dims) takes 4.24 ms a query. The fastest plan with a recall "
        "of 99% is adaptive 8→64 (8:200,64): 99.7% in 1.06 ms, 4× as fast.",
        "Embedding a query picture takes 8.25 ms (median of 3)",
    ):
        assert sentence in text


def test_speed_ups_are_against_the_fastest_exact_search(run: Run) -> None:
    assert baseline(run) == ("64 dims", times_of(run, "64 dims").p50)
    faster = change(run, "latency", {"plan": "brute force"}, ms=[2.0] * 120)
    assert baseline(faster) == ("brute force", 2.0)
    note = "Speed-up: against brute force, the fastest exact search of this run."
    assert note in cost_table(faster).note
    assert baseline(replace(run, records=[])) is None


def test_a_longer_prefix_that_is_worse_counts_against_a_shorter(run: Run) -> None:
    longer = replace(
        run,
        records=[
            *run.records,
            {
                "kind": "prefix",
                "run": "a1",
                "format": 1,
                "dims": 32,
                "linear": None,
                "vote": right(40),
            },
        ],
    )
    assert enough(longer)[0].dims == 64
    headless = change(run, "prefix", {"dims": 64}, linear=None)
    added = {
        "kind": "prefix",
        "run": "a1",
        "format": 1,
        "dims": 32,
        "linear": right(190),
        "vote": None,
    }
    linear = enough(replace(headless, records=[*headless.records, added]))[1]
    assert (linear.measure, linear.longest) == (
        "linear head",
        32,
    )  # not the 64 that nobody measured


def test_pictures_that_could_not_be_timed_leave_no_hole(run: Run) -> None:
    assert "Embedding a query picture" not in "\n".join(
        introduction(change(run, "embedding", {}, ms=[]))
    )


def test_numbers_are_written_as_they_deserve() -> None:
    assert [digits(x) for x in (0.012345, 1.2345, 12.0, 123.4, 1234.5, 1_234_567, 0)] == [
        "0.0123",
        "1.23",
        "12",
        "123",
        "1,230",
        "1,230,000",
        "0",
    ]
    assert (share(None), milliseconds(None), times(None)) == ("–",) * 3
    assert share(Share(0.9413, 0.9381, 0.9442, 5)) == "94.1% [93.8, 94.4]"
    assert (times(11.8), times(0.061), bytes_of(12_288_045), bytes_of(9_600)) == (
        "12×",
        "0.061×",
        "12.3 MB",
        "9.6 kB",
    )


def expected(run: Run) -> list[str]:
    """Every number of the records, as a page must show it."""
    cells = []
    for r in run.records:
        for key in ("linear", "vote", "nearest", "right"):
            cells += [share(share_of(r[key]))] if key in r else []
        cells += [share(recall_of(r["found"], 10))] if "found" in r else []
        if r["kind"] == "plan":
            t = times_of(run, r["name"])
            cells += [
                share(Share.mean(r["precision"]["mean"], 0.1, N)),
                digits(r["multiply_adds"] / 1e6),
            ]
            cells += [r["plan"], digits(r["ram"] / 1000)]
            cells += [*map(milliseconds, (t.p50, t.p95, t.p99)), digits(rate_of(run, r["name"]))]
            cells += [times(times_of(run, "64 dims").p50 / t.p50)]
        if r["kind"] == "mislabels":
            cells += ["97%", "83%", "3 of 200", "8.25"]
    return cells + [
        "256 kB",
        "128 B/vector",
        "x86_64",
        "abc123",
        "2.4.6",
        "2026-01-02T03:04:05+00:00",
    ]


def test_a_report_has_every_number_of_its_records(run: Run, tmp_path: Path) -> None:
    page = report_page([run], tmp_path)
    html, markdown = render_page(page), render_markdown(page)
    told = "\n".join(
        "\n".join([t.title, *t.columns, *(cell for row in t.rows for cell in row), t.note])
        for t in run_tables(run)
    )
    for cell in expected(run):
        assert cell in html and cell in markdown.replace("\\", ""), cell
    for cell in expected(run)[:-4]:
        assert cell in told, cell
    assert "A &lt;fast&gt; one" in html and "pets/&lt;5&gt;.jpg" in html
    assert "200 queries (items of the index)" in told and "120 single queries on one thread" in told
    assert "median of 3 rounds after 10 to warm up" in told and "n = 50" in told


def test_the_commands_of_a_page_name_the_files(run: Run, tmp_path: Path) -> None:
    bare = replace(run, records=[])
    first = replace(bare, file=tmp_path / "a b.jsonl", label="a b")
    second = replace(bare, file=tmp_path / "others.jsonl", label="others")
    page = report_page([first, second], tmp_path)
    assert [command for command, _ in page.commands] == [
        "mrl-search bench INDEX --out 'a b.jsonl'",
        "mrl-search bench INDEX --out others.jsonl",
        "mrl-search report 'a b.jsonl' others.jsonl",
    ]
    assert {"a b: measured", "others: measured"} <= set(page.facts)


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes(run: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report([run], tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    drawn = ("accuracy", "controls", "front", "latency", "prefixes", "recall", "scatter")
    assert names == sorted(
        [
            *(f"{n}.png" for n in drawn),
            "ladder-1.webp",
            "mislabels.webp",
            "report.html",
            "report.md",
        ]
    )
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_figures_show_their_values(run: Run, tmp_path: Path) -> None:
    for part, other in (
        ("accuracy", change(run, "prefix", {"dims": 8}, vote=right(60))),
        ("recall", change(run, "instance", {"dims": 8}, right=right(20, 50))),
        ("prefixes", change(run, "latency", {"plan": "8 dims"}, ms=[0.8] * 120)),
        ("front", change(run, "plan", {"name": "adaptive 8→64"}, found=right(0))),
        ("latency", change(run, "latency", {"plan": "adaptive 8→64"}, ms=[2.5] * 120)),
        ("controls", change(run, "control", {"name": "pca", "dims": 8}, vote=right(90))),
        ("scatter", change(run, "scatter", {"dims": 8}, x=[0.0, 1.5, 2.0])),
    ):
        getattr(Sketchbook(run, tmp_path), part)()
        before = (tmp_path / f"{part}.png").read_bytes()
        getattr(Sketchbook(other, tmp_path), part)()
        assert (tmp_path / f"{part}.png").read_bytes() != before, part


def test_a_sheet_is_laid_out_from_the_thumbnails_of_its_record(run: Run, tmp_path: Path) -> None:
    (ladder,) = Sketchbook(run, tmp_path).ladders()
    with Image.open(ladder.image) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    reds = ((pixels[..., 0] > 200) & (pixels[..., 1:].max(axis=2) < 60)).sum()
    assert ladder.title == "Hits of cat-7.jpg by prefix" and 2 * 5000 < reds < 2 * 7000
    damaged = change(run, "ladder", {}, thumbnails={"cat-7.jpg": "no base64!"})
    with pytest.raises(DataError, match=r"thumbnail of cat-7\.jpg cannot be read"):
        Sketchbook(damaged, tmp_path).ladders()


def test_without_labels_it_is_said_once(run: Run, tmp_path: Path) -> None:
    bare = about(about(run, "queries", labelled=0), "corpus", classes=0)
    bare = change(
        change(bare, "prefix", {}, linear=None, vote=None),
        "plan",
        {},
        nearest=None,
        vote=None,
        precision=None,
    )
    bare = change(
        change(bare, "control", {}, vote=None),
        "ladder",
        {},
        rows=[],
        why="the index does not say where its pictures are",
    )
    bare = replace(
        bare,
        records=[r for r in bare.records if r["kind"] not in ("mislabels", "instance", "cascade")],
    )
    page = re.sub('base64,[^"]*', "", render_page(report_page([bare], tmp_path)))
    doubted = about(bare, "queries", doubt="The labels are no classes: 9 of 9.")
    intro = " ".join(report_page([doubted], tmp_path).intro)
    assert "The labels are no classes: 9 of 9. So recall" in intro
    assert (
        page.count("There are no labels") == 1
        and page.count("the index does not say where its pictures are") == 1
    )
    for gone in ("linear head", "20-NN", "1-NN", "mAP", "mislabel", "Accuracy: n"):
        assert gone not in page, gone
    assert (
        share(recall_of(bare.one("plan", name="8 dims")["found"], 10)) in page
        and not (tmp_path / "accuracy.png").exists()
    )


def test_a_bench_that_was_stopped_is_shown_as_far_as_it_came(run: Run, tmp_path: Path) -> None:
    for some in (0, 1, 4, 20):
        half = replace(run, records=run.records[:some])
        assert "is not finished" in render_page(report_page([half], tmp_path))


def test_a_page_warns_of_different_machines(run: Run, tmp_path: Path) -> None:
    one = replace(run, records=[])
    same = replace(one, about={**run.about, "name": "others", "id": "b2"})
    other = about(same, "environment", cpu="Another")
    page = render_page(report_page([one, other], tmp_path))
    for text in ("The machines differ", "A &lt;fast&gt; one", "Another"):
        assert text in page
    assert "machines differ" not in render_page(report_page([one, same], tmp_path))
    with pytest.raises(DataError, match="nothing to report"):
        report_page([], tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot be made: a part of its path is a file"):
        write_report([run], tmp_path / "file" / "report")


def test_equal_benches_differ_in_nothing(run: Run) -> None:
    found = compare(run, run)
    assert not found.worse and not found.notes and all(d.base == d.new for d in found.differences)
    assert len(found.differences) == 2 * 3 + 4 * 2 + 4  # prefixes, plans, times


def test_a_drop_counts_where_chance_does_not_explain_it(run: Run) -> None:
    few, many = (change(run, "prefix", {"dims": 8}, vote=right(17 + n)) for n in (7, 11))
    assert not compare(few, run).worse  # 2 · 2⁻⁷ is over 5% of 14 tests
    (drop,) = compare(many, run).worse  # 2 · 2⁻¹¹ is not
    assert (drop.what, drop.measure, drop.base, drop.new, drop.p) == (
        "8 dims",
        "20-NN",
        0.915,
        0.86,
        2**-10,
    )
    assert not compare(run, many).worse  # better is not worse
    (lost,) = compare(
        change(
            run, "plan", {"name": "adaptive 8→64"}, found=pack(np.where(np.arange(N) < 20, 8, 10))
        ),
        run,
    ).worse
    assert (lost.what, lost.measure) == (
        "adaptive 8→64",
        "recall@10",
    ) and lost.new == pytest.approx(0.98)


def test_a_time_counts_beyond_the_tolerance(run: Run) -> None:
    slow = change(run, "latency", {"plan": "64 dims"}, ms=[6.0] * 120)
    assert not compare(slow, run, 0.5).worse
    (drop,) = compare(slow, run, 0.4).worse
    assert (drop.what, drop.measure, drop.new, drop.p) == ("64 dims", "p50 ms", 6.0, None)


def test_what_cannot_be_compared_is_said_or_refused(run: Run) -> None:
    slow = change(run, "latency", {}, ms=[600.0] * 120)
    for other, said in (
        (about(slow, "environment", cpu="Another"), "another machine"),
        (about(slow, "settings", threads=2), "with 1 threads"),
    ):
        found = compare(other, run)
        assert (
            not found.worse
            and said in found.notes[0]
            and not any(d.p is None for d in found.differences)
        )
    with pytest.raises(DataError, match="other queries"):
        compare(about(run, "queries", fingerprint="q1"), run)
    with pytest.raises(DataError, match="with k = 10, this one with 5"):
        compare(about(run, "settings", k=5), run)
    fewer = replace(run, records=[r for r in run.records if r.get("name") != "8 dims"])
    assert compare(fewer, run).notes[0] == "8 dims is only in the base."
    bare = replace(run, records=[r for r in run.records if r["kind"] != "instance"])
    assert compare(bare, run).notes == ("instance recall@1 is only in the base: 8 dims, 64 dims.",)
    short = change(run, "instance", {}, right=pack(np.ones(7, dtype=bool)))
    assert compare(short, run).notes == (
        "instance recall@1 has other queries in the base: 8 dims, 64 dims.",
    )
    other = change(run, "plan", {"name": "adaptive 8→64"}, plan="8:100,64")
    assert compare(other, run).notes == (
        "adaptive 8→64 was 8:200,64 in the base, and is 8:100,64.",
    )


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the page with")
def test_the_page_opens_in_a_browser_without_network_or_errors(run: Run, tmp_path: Path) -> None:
    write_report([run], tmp_path / "report")
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr",
        "--log-level=0",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--virtual-time-budget=3000",
        "--dump-dom",
        (tmp_path / "report" / "report.html").as_uri(),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in shown.stderr, shown.stderr
    assert (
        "<h1>pets: what each prefix is worth</h1>" in shown.stdout
        and "adaptive 8→64" in shown.stdout
    )
    probe = tmp_path / "probe.html"  # an error would be seen
    probe.write_text(
        (tmp_path / "report" / "report.html")
        .read_text()
        .replace("</main>", "<img src='https://example.org/x.png'></main>")
    )
    told = subprocess.run(
        [*command[:-1], probe.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert "CONSOLE" in told.stderr and "Content Security Policy" in told.stderr


def test_a_run_is_what_a_file_can_hold(run: Run) -> None:
    assert json.loads(json.dumps(run.records)) == run.records
