"""Commands on a small network that is trained on drawn pictures once: train, evaluate, help."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import write_corpus
from PIL import Image
from typer.testing import CliRunner, Result

from mrl_search.cli import render
from mrl_search.cli.app import app
from mrl_search.cli.render import show_table
from mrl_search.encoders.registry import load_encoder
from mrl_search.images.decode import content_hash
from mrl_search.images.sources import open_source
from mrl_search.measure.records import read_runs
from mrl_search.store.manifest import read_manifest
from mrl_search.training.parts import part_of, stratified_split

TINY = [
    "model.widths=[8,8,16,16]",
    "model.dims=[8,16,64]",
    "schedule.epochs=2",
    "schedule.batch=8",
    'schedule.sizes={"0"=32}',
]


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args])


def ok(*args: str | Path) -> Result:
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result


def lines(result: Result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    write_corpus(folder / "pictures", 20, size=64)
    (folder / "pictures" / "cat" / "broken.jpg").write_bytes(b"not a picture")
    write_corpus(folder / "fresh", 2, seed=9, size=64)
    ok(
        "train",
        folder / "pictures",
        "--recipe",
        "small",
        *(x for s in TINY for x in ("--set", s)),
        "--out",
        folder / "run",
    )
    ok("build-index", folder / "pictures", "--out", folder / "index", "--model", folder / "run")
    return folder


def test_evaluate_gives_every_prefix_with_n_and_intervals(place: Path) -> None:
    rows = lines(
        ok("evaluate", place / "pictures", "--index", place / "index", "--instance", "--json")
    )
    assert [r["dims"] for r in rows] == [8, 16, 64]
    fingerprint = read_manifest(place / "index").fingerprint
    for r in rows:
        assert r["fingerprint"] == fingerprint and {"commit", "created", "versions"} <= set(r)
        assert r["n"] == r["n_instance"] == 40
        shares = ("linear_top1", "nearest_top1", "knn_top1", "map_at_10", "instance_recall_at_1")
        for name in shares:
            low, high = r["ci95"][name]
            assert 0 <= low <= r[name] <= high <= 1
        assert 0 <= r["thumbnail_recall_at_1"] <= 1
    searched = (place / "pictures", "--index", place / "index", "--json")
    hard = lines(ok("evaluate", *searched, "--instance", "--hard"))
    assert [r["knn_top1"] for r in hard] == [r["knn_top1"] for r in rows]
    assert sum(r["instance_recall_at_1"] for r in hard) <= sum(
        r["instance_recall_at_1"] for r in rows
    )
    with_adaptive = lines(
        ok("evaluate", place / "pictures", "--index", place / "index", "--adaptive", "--json")
    )
    assert [(r["give"], r["n"], r["expected_dims"]) for r in with_adaptive[3:]] == [
        (g, 20, 64) for g in (0.005, 0.01, 0.02, 0.05)
    ]
    assert (
        with_adaptive[3]["dims"] == [8, 16, 64]
        and with_adaptive[3]["accuracy"] == with_adaptive[3]["fixed"]["64"]
    )
    assert (
        "may lose"
        in ok("evaluate", place / "pictures", "--index", place / "index", "--adaptive").stdout
    )
    alone = lines(ok("evaluate", place / "pictures", "--model", place / "run", "--json"))
    assert [r["knn_top1"] for r in alone] == [r["knn_top1"] for r in rows] and alone[0][
        "instance_recall_at_1"
    ] is None
    held_out = lines(
        ok(
            "evaluate",
            place / "pictures",
            "--index",
            place / "index",
            "--split",
            "validation",
            "--json",
        )
    )
    assert held_out[0]["n"] == 4
    bench = ("bench", place / "index", "--split", "train", "--out", place / "part.jsonl")
    ok(*bench, "--queries", place / "pictures", "--rounds", "1")
    (told,) = read_runs([place / "part.jsonl"])
    assert told.about["queries"]["n"] == 36 and not told.about["queries"]["own"]
    assert_error(run(*bench), "--split is about pictures to search with")
    assert_error(
        run("evaluate", place / "fresh", "--model", place / "run", "--split", "validation"),
        "does not hold the pictures",
    )
    assert "linear head" in ok("evaluate", place / "fresh", "--index", place / "index").stdout
    assert "broken.jpg" in ok("evaluate", place / "pictures", "--model", place / "run").stderr


def test_the_parts_of_a_source_are_those_of_the_training(place: Path, tmp_path: Path) -> None:
    """Broken and small pictures do not count where pictures are divided."""
    shutil.copytree(place / "pictures", tmp_path / "mixed")
    small = {str(tmp_path / "mixed" / "cat" / f"cat-{i:04d}.jpg") for i in range(0, 20, 3)}
    for number, file in enumerate(small):
        Image.new("RGB", (30, 30), (number, 0, 0)).save(file)
    source, encoder = open_source(str(tmp_path / "mixed")), load_encoder(str(place / "run"))
    recipe = encoder.training["recipe"]
    for min_side, n in ((0, 40), (32, 33)):
        training = {"recipe": {**recipe, "data": {**recipe["data"], "min_side": min_side}}}
        parts = {
            part: part_of(source, part, replace(encoder, training=training)).paths
            for part in ("train", "validation")
        }
        good = [p for p in source.paths if "broken" not in p and not (min_side and p in small)]
        labels, hashes = (
            [Path(p).parent.name for p in good],
            [content_hash(Path(p).read_bytes()) for p in good],
        )
        wanted = stratified_split(
            labels, hashes, recipe["data"]["validation"], recipe["data"]["split_seed"]
        )
        assert len(good) == n
        assert [parts["train"], parts["validation"]] == [[good[i] for i in rows] for rows in wanted]


def test_labels_that_the_model_does_not_know_have_no_linear_accuracy(
    place: Path, tmp_path: Path
) -> None:
    for own, other in (("cat", "lynx"), ("dog", "wolf")):
        shutil.copytree(place / "pictures" / own, tmp_path / "pictures" / other)
    told = lines(ok("evaluate", tmp_path / "pictures", "--model", place / "run", "--json"))
    assert [r["linear_top1"] for r in told] == [None] * 3 and told[0]["knn_top1"] > 0


def test_pictures_that_are_gone_stop_no_measurement(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "pictures", tmp_path / "pictures")
    ok("build-index", tmp_path / "pictures", "--model", place / "run", "--out", tmp_path / "index")
    evaluate = (
        "evaluate",
        place / "pictures",
        "--index",
        tmp_path / "index",
        "--instance",
        "--json",
    )
    whole = lines(ok(*evaluate))
    (tmp_path / "pictures" / "cat" / "cat-0003.jpg").unlink()
    told = lines(ok(*evaluate))
    assert [r.pop("thumbnail_recall_at_1") for r in told] == [None] * 3 and whole[0].pop(
        "thumbnail_recall_at_1"
    ) is not None
    assert told[0].pop("created") > whole[0].pop("created")
    assert told[0] == whole[0]  # the copies are made of the pictures in the other place
    assert (
        ok("tune", tmp_path / "index", "--objective", "instance", "--recall", "0.5").exit_code == 0
    )
    shutil.rmtree(tmp_path / "pictures")
    assert [r["thumbnail_recall_at_1"] for r in lines(ok(*evaluate))] == [None] * 3
    assert_error(run("tune", tmp_path / "index", "--objective", "instance"), "No picture of ")


def test_a_bench_that_goes_on_copies_the_same_pictures(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mrl_search.index import Index
    from mrl_search.measure.copies import bench_pictures
    from mrl_search.measure.settings import BenchSettings

    index = Index.open(place / "index")
    settings = BenchSettings(k=3, neighbours=3, copies=10, timed=4, rounds=1, batch=4)
    bench_pictures(index, settings, tmp_path / "a.jsonl", None)
    text = (tmp_path / "a.jsonl").read_text().splitlines(keepends=True)
    begun = [line for line in text if '"instance"' not in line or '"dims":8,' in line]
    assert len(begun) == len(text) - 2
    (tmp_path / "b.jsonl").write_text("".join(begun))
    bench_pictures(index, settings, tmp_path / "b.jsonl", None)
    assert (tmp_path / "b.jsonl").read_text().splitlines() == [line.rstrip() for line in text]


def assert_error(result: Result, said: str) -> None:
    assert result.exit_code == 1, result.output
    assert said in result.stderr and "error: " in result.stderr and "Traceback" not in result.output


def test_bad_input_is_a_sentence_and_a_hint(place: Path, tmp_path: Path) -> None:
    image, index = place / "fresh" / "cat" / "cat-0000.jpg", place / "index"
    table = [
        (
            ["evaluate", place / "fresh", "--index", index, "--hard"],
            "--hard is about changed copies",
        ),
        (
            ["train", place / "fresh", "--recipe", "none", "--out", tmp_path / "r"],
            "There is no recipe",
        ),
        (
            [
                "train",
                place / "fresh",
                "--recipe",
                "small",
                "--set",
                "schedule.sped=1",
                "--out",
                tmp_path / "r",
            ],
            "unknown key 'sped'",
        ),
        (
            ["train", place / "pictures", "--recipe", "small", "--out", place / "run"],
            "finished run",
        ),
        (
            [
                "train",
                place / "pictures",
                "--recipe",
                "small",
                "--set",
                f"init={place / 'run'}",
                "--out",
                tmp_path / "r",
            ],
            "other layers",
        ),
        (
            [
                "train",
                place / "pictures",
                "--recipe",
                "small",
                "--seed",
                str(2**32),
                "--out",
                tmp_path / "r",
            ],
            "it must be from 0 to below 2**32",
        ),
        (
            ["train", place / "pictures", "--recipe", "small", "--out", Path(image) / "run"],
            str(image) + " is a file",
        ),
        (
            ["train", place / "pictures", "--recipe", image, "--out", tmp_path / "r"],
            "cannot be read as TOML",
        ),
        (["demo", "--out", image], "cannot be made"),
    ]
    for args, said in table:
        assert_error(run(*args), said)
    assert not (tmp_path / "i").exists() and not (tmp_path / ".i.building").exists()


def test_an_index_refuses_another_model(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    ok("build-index", place / "fresh", "--model", tmp_path / "run", "--out", tmp_path / "index")
    shutil.rmtree(tmp_path / "run")
    more = [*TINY, "seed=5"]
    ok(
        "train",
        place / "pictures",
        "--recipe",
        "small",
        *(x for s in more for x in ("--set", s)),
        "--out",
        tmp_path / "run",
    )
    assert_error(
        run("query", place / "fresh" / "cat" / "cat-0000.jpg", "--index", tmp_path / "index"),
        "was built with the model",
    )


def test_help_is_quick_to_load_and_starts_with_verbs() -> None:
    text = ok("--help").stdout
    for command in (
        "demo",
        "train",
        "build-index",
        "query",
        "classify",
        "tune",
        "evaluate",
        "bench",
        "report",
        "info",
        "shrink",
    ):
        assert command in text
        assert ok(command, "--help").stdout.splitlines()[2].split()[0] in {
            "Run",
            "Train",
            "Choose",
            "Index",
            "Find",
            "Classify",
            "Measure",
            "Show",
            "Make",
        }
    environment = {**os.environ, "NO_COLOR": "1"}
    told = subprocess.run(
        [sys.executable, "-m", "mrl_search", "--version"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert told.stdout.startswith("mrl-search ")


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_says_that_it_can_go_on(number: signal.Signals) -> None:
    code = (
        "import time; from mrl_search.cli.app import app\n"
        "def wait():\n    print('ready', flush=True); time.sleep(30)\n"
        "app.command()(wait); app(['wait'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        child.send_signal(number)
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert errors == "stopped; the same command continues where it can.\n"


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        (["rank", "score", "label"], [["1", "0.25", "cat"], ["10", "-.5", ""]]),
        (["a", "1"], []), (["", ""], [["x", "longer than its header"], ["y", ""]]),
        (["b"], [["+3"], ["x"]]),
    ],
    ids=str,
)  # fmt: skip
def test_a_table_in_a_pipe_is_that_of_rich(
    columns: list[str], rows: list[list[str]], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    show_table(columns, rows, "title")
    simple = capsys.readouterr().out
    monkeypatch.setattr(render, "_simple", render._styled)
    show_table(columns, rows, "title")
    assert simple == capsys.readouterr().out and simple.startswith("title\n")


def test_wide_characters_in_a_table_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(["a", "b"], [["\u5bbd", "1"], ["c", "2"]])
    assert capsys.readouterr().out == "a   b\n\u5bbd  1\nc   2\n"
