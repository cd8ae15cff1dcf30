"""The main job through the command line: a small network is trained on drawn animals once, and everything else runs on it."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import write_corpus
from PIL import Image
from typer.testing import CliRunner, Result

from mrl_search.cli.app import app
from mrl_search.encoders.network_encoder import NetworkEncoder
from mrl_search.encoders.registry import load_encoder
from mrl_search.engines import Index
from mrl_search.files import building_folder, claim
from mrl_search.images import sources
from mrl_search.images.decode import content_hash
from mrl_search.images.sources import open_source
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


def test_build_index_lists_the_broken_picture_and_info_tells_it(place: Path) -> None:
    (told,) = lines(ok("info", place / "index", "--json"))
    assert (told["count"], told["skipped"], told["dims"], told["dim"]) == (40, 1, [8, 16, 64], 64)
    skipped = json.loads((place / "index" / "skipped.json").read_text())
    assert [Path(s["path"]).name for s in skipped] == ["broken.jpg"] and "not an image" in skipped[
        0
    ]["reason"]
    assert "cat 20, dog 20" in ok("info", place / "index", "--verify").stdout
    assert not list(place.glob(".*building"))


def test_exact_search_is_the_plan_at_full_length_and_proves_it(place: Path) -> None:
    image = place / "fresh" / "cat" / "cat-0000.jpg"
    (exact,) = lines(
        ok("query", image, "--index", place / "index", "-k", "5", "--json", "--exact", "--certify")
    )
    (full,) = lines(
        ok("query", image, "--index", place / "index", "-k", "5", "--json", "--dims", "64")
    )
    assert exact["plan"] == "exact" and [h["id"] for h in exact["hits"]] == [
        h["id"] for h in full["hits"]
    ]
    assert all(h["proven"] is True for h in exact["hits"])
    assert "proven" not in full["hits"][0]


def test_certificates_are_shown(place: Path) -> None:
    image = place / "pictures" / "dog" / "dog-0003.jpg"
    (answer,) = lines(
        ok(
            "query",
            image,
            "--index",
            place / "index",
            "-k",
            "5",
            "--json",
            "--plan",
            "8:40,64",
            "--certify",
        )
    )
    assert [h["proven"] for h in answer["hits"]] == [True] * 5  # the shortlist is the whole corpus
    (answer,) = lines(
        ok(
            "query",
            image,
            "--index",
            place / "index",
            "-k",
            "5",
            "--json",
            "--dims",
            "8",
            "--certify",
        )
    )
    assert not all(h["proven"] for h in answer["hits"])
    shown = ok("query", image, "--index", place / "index", "--dims", "8", "--certify").stdout
    assert "likely" in shown and "proven" in shown


def test_explain_tells_rank_and_score_at_every_prefix(place: Path, tmp_path: Path) -> None:
    image = place / "fresh" / "cat" / "cat-0000.jpg"
    how = ["query", image, "--index", place / "index", "-k", "4", "--exact"]
    (answer,) = lines(ok(*how, "--json", "--explain"))
    for hit in answer["hits"]:
        assert [e["dims"] for e in hit["explain"]] == [8, 16, 64]
        assert hit["explain"][-1]["rank"] == hit["rank"] and hit["explain"][-1][
            "score"
        ] == pytest.approx(hit["score"], abs=2e-6)
    shown = ok(*how, "--explain", "--sheet", tmp_path / "ladder.png").stdout
    assert (
        "8 dims" in shown
        and "64 dims" in shown
        and f"1 ({answer['hits'][0]['score']:.2f})" in shown
    )
    one = ok(*how, "--sheet", tmp_path / "one.png")
    assert "pictures of the hits" in one.stderr
    with Image.open(tmp_path / "ladder.png") as ladder, Image.open(tmp_path / "one.png") as single:
        assert (
            ladder.width == single.width and ladder.height > 1.5 * single.height
        )  # three rows; 8 and 64 are dims of this index


def test_an_early_stop_says_how_much_was_read(place: Path) -> None:
    image = place / "pictures" / "dog" / "dog-0003.jpg"
    (answer,) = lines(
        ok(
            "query",
            image,
            "--index",
            place / "index",
            "-k",
            "1",
            "--json",
            "--adaptive",
            "--plan",
            "8:40,16:40,64:40",
        )
    )
    assert (
        answer["dims_read"] == 16 and len(answer["hits"]) == 1
    )  # a picture of the corpus is its own nearest at every prefix
    (answer,) = lines(ok("query", image, "--index", place / "index", "--json", "--adaptive"))
    assert answer["plan"] == "16:200,64:10" and answer["dims_read"] in (16, 64)
    assert "dims read" in ok("query", image, "--index", place / "index", "--adaptive").stdout


def test_filters_choose_who_may_answer(place: Path, tmp_path: Path) -> None:
    image = place / "pictures" / "dog" / "dog-0003.jpg"
    for how in ([], ["--exact"], ["--certify"], ["--adaptive"], ["--dims", "8"]):
        (answer,) = lines(
            ok(
                "query",
                image,
                "--index",
                place / "index",
                "-k",
                "30",
                "--json",
                "--where",
                "label=cat",
                *how,
            )
        )
        assert len(answer["hits"]) == 20 and {h["label"] for h in answer["hits"]} == {"cat"}
    (tmp_path / "ids.txt").write_text("0\n25\n31\n")
    result = ok("query", image, "--index", place / "index", "--ids", tmp_path / "ids.txt", "--json")
    assert {h["id"] for h in lines(result)[0]["hits"]} == {0, 25, 31}
    (vote,) = lines(
        ok("classify", image, "--index", place / "index", "--json", "--where", "label=cat")
    )
    assert vote["votes"] == {"cat": 1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--exact", "--dims", "8"], "--exact was given with another way to search"),
        (["--adaptive", "--dims", "8"], "--adaptive needs more than one prefix"),
        (["--where", "label=cow"], "No item of this index meets label=cow"),
        (["--where", "colour=red"], "Items have no column 'colour'"),
        (["--ids", "nowhere.txt"], "nowhere.txt cannot be read"),
    ],
)
def test_ways_to_search_that_make_no_sense(place: Path, options: list[str], message: str) -> None:
    result = run(
        "query", place / "fresh" / "cat" / "cat-0000.jpg", "--index", place / "index", *options
    )
    assert result.exit_code == 1 and message in result.stderr and "hint:" in result.stderr


def test_tune_stores_a_plan_that_query_and_classify_use(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "index", tmp_path / "index")
    (told,) = lines(
        ok(
            "tune",
            tmp_path / "index",
            "--recall",
            "0.9",
            "-k",
            "3",
            "--json",
            "--plot",
            tmp_path / "tune.png",
        )
    )
    assert (told["objective"], told["target"], told["k"], told["n"]) == ("recall", 0.9, 3, 20)
    assert told["value"] >= 0.85 and told["plan"] in [line["plan"] for line in told["front"]] + [
        told["plan"]
    ]
    with Image.open(tmp_path / "tune.png") as plot:
        assert plot.width > 800
    image = place / "fresh" / "cat" / "cat-0000.jpg"
    (answer,) = lines(ok("query", image, "--index", tmp_path / "index", "-k", "3", "--json"))
    assert answer["plan"] == told["plan"]
    told = ok("tune", tmp_path / "index", "--objective", "class", "--recall", "0.5", "-k", "3")
    chosen = json.loads((tmp_path / "index" / "manifest.json").read_text())["plans"]["classify"][
        "plan"
    ]
    assert f"chosen: {chosen}" in told.stderr and "next: mrl-search classify IMAGE" in told.stderr
    (vote,) = lines(ok("classify", image, "--index", tmp_path / "index", "-k", "3", "--json"))
    assert vote["plan"] == chosen
    (told,) = lines(
        ok("tune", tmp_path / "index", "--objective", "instance", "--recall", "0.9", "--json")
    )
    assert (told["objective"], told["k"]) == ("instance", 1)
    shown = ok("info", tmp_path / "index").stdout
    assert "tuned for instance 0.9" in shown and "tuned for class 0.5" in shown
    assert run("tune", tmp_path / "index", "--recall", "1.5").exit_code == 2
    refused = run("tune", tmp_path / "index", "--max-ram", "10")
    assert refused.exit_code == 1 and "No prefix index fits in 10 bytes" in refused.stderr


def test_kinds_of_index_can_be_chosen(place: Path, tmp_path: Path) -> None:
    ok(
        "build-index",
        place / "fresh",
        "--out",
        tmp_path / "index",
        "--model",
        place / "run",
        "--factory",
        "SQ8",
        "--factory",
        "8=Flat",
    )
    (told,) = lines(ok("info", tmp_path / "index", "--json"))
    assert told["factory"] == {"8": "Flat", "16": "SQ8", "64": "SQ8"}
    refused = run(
        "build-index",
        place / "fresh",
        "--out",
        tmp_path / "other",
        "--model",
        place / "run",
        "--factory",
        "32=Flat",
    )
    assert refused.exit_code == 1 and "A factory is given for 32 dims" in refused.stderr
    for kinds, said in (
        (["8=Flat", "8=SQ8"], "for 8 dims: Flat and SQ8"),
        (["Flat", "8=SQ8", "SQ8"], "for all prefixes: Flat and SQ8"),
    ):
        options = [option for kind in kinds for option in ("--factory", kind)]
        assert_error(
            run("build-index", place / "fresh", "--out", tmp_path / "other", *options), said
        )


@pytest.mark.parametrize(
    "how",
    [["--dims", "8"], ["--dims", "64"], ["--plan", "8:40,64"], ["--plan", "8:40,16:20,64:5"], []],
)
def test_query_finds_a_picture_of_the_corpus_first(place: Path, how: list[str]) -> None:
    image = place / "pictures" / "dog" / "dog-0003.jpg"
    (answer,) = lines(ok("query", image, "--index", place / "index", "-k", "5", "--json", *how))
    assert answer["image"] == str(image) and [h["rank"] for h in answer["hits"]] == [1, 2, 3, 4, 5]
    assert answer["hits"][0]["path"] == str(image) and answer["hits"][0]["label"] == "dog"
    assert answer["hits"][0]["score"] == pytest.approx(1, abs=2e-3)
    scores = [h["score"] for h in answer["hits"]]
    assert scores == sorted(scores, reverse=True)


def test_query_says_its_plan_and_the_last_dims_decide_the_scores(place: Path) -> None:
    image = place / "fresh" / "cat" / "cat-0000.jpg"
    answers = {
        how: lines(
            ok("query", image, "--index", place / "index", "-k", "3", "--json", "--plan", how)
        )[0]
        for how in ("8", "8:40,64", "64")
    }
    assert answers["8:40,64"]["plan"] == "8:40,64:3"
    assert answers["8:40,64"]["hits"] == answers["64"]["hits"] != answers["8"]["hits"]


def test_query_shows_a_table_and_saves_the_sheet(place: Path) -> None:
    sheet = place / "sheet.png"
    result = ok(
        "query",
        place / "fresh" / "cat" / "cat-0001.jpg",
        "--index",
        place / "index",
        "-k",
        "4",
        "--sheet",
        sheet,
    )
    assert "rank" in result.stdout and result.stdout.count(".jpg") == 5
    with Image.open(sheet) as image:
        assert image.width > 4 * 144


def test_query_goes_on_after_a_broken_picture_and_ends_in_an_error_if_all_are(place: Path) -> None:
    good, bad = place / "fresh" / "cat" / "cat-0000.jpg", place / "pictures" / "cat" / "broken.jpg"
    result = ok("query", bad, good, "--index", place / "index", "--json")
    assert [a["image"] for a in lines(result)] == [str(good)] and "broken.jpg" in result.stderr
    assert_error(run("query", bad, "--index", place / "index"), "None of the images could be read")


def test_classify_votes_and_its_options_matter(place: Path) -> None:
    image = place / "pictures" / "cat" / "cat-0004.jpg"
    (soft,) = lines(
        ok(
            "classify",
            image,
            "--index",
            place / "index",
            "--json",
            "-k",
            "10",
            "--temperature",
            "0.5",
        )
    )
    assert soft["confidence"] == max(soft["votes"].values()) and sum(
        soft["votes"].values()
    ) == pytest.approx(1, abs=1e-5)
    (nearest,) = lines(ok("classify", image, "--index", place / "index", "--json", "-k", "1"))
    assert (nearest["label"], nearest["confidence"], nearest["plan"]) == ("cat", 1.0, "64:1")
    (plain,) = lines(
        ok("classify", image, "--index", place / "index", "--json", "--majority", "-k", "10")
    )
    assert (
        set(plain["votes"].values()) <= {i / 10 for i in range(11)}
        and plain["votes"] != soft["votes"]
    )
    assert "confidence" in ok("classify", image, "--index", place / "index").stdout
    (longer,) = lines(
        ok(
            "classify",
            image,
            "--index",
            place / "index",
            "--json",
            "--majority",
            "-k",
            "10",
            "--plan",
            "64:40",
        )
    )
    assert longer["votes"] == plain["votes"]  # ten vote, however many the plan keeps


def test_classify_reads_only_as_many_dims_as_it_needs(place: Path, tmp_path: Path) -> None:
    image = place / "pictures" / "cat" / "cat-0004.jpg"
    how = ["classify", image, "--index", place / "index", "-k", "5"]
    (answer,) = lines(ok(*how, "--json", "--adaptive"))
    assert (
        answer["dims_read"] == 64
    )  # four pictures were held out: too few to stop early for one point
    (answer,) = lines(ok(*how, "--json", "--adaptive", "--give", "0.9"))
    assert answer["plan"] == "8:200,16:200,64:5" and answer["dims_read"] == 8
    assert answer["confidence"] == max(answer["votes"].values())
    (alone,) = lines(ok(*how, "--json", "--dims", str(answer["dims_read"])))
    assert (answer["label"], answer["votes"]) == (
        alone["label"],
        alone["votes"],
    ) and "dims_read" not in alone
    told = ok(*how, "--adaptive", "--plan", "8:40,64")
    assert (
        "dims read" in told.stdout
        and "thresholds learnt from 4 items of the index" in told.stderr
        and "--give" in told.stderr
    )
    shutil.copytree(place / "pictures", tmp_path / "others")
    (tmp_path / "others" / "cat" / "cat-0000.jpg").unlink()
    ok(
        "build-index", tmp_path / "others", "--model", place / "run", "--out", tmp_path / "index"
    )  # not what the model was trained on
    assert (
        "thresholds learnt from 39 items"
        in ok("classify", image, "--index", tmp_path / "index", "--adaptive").stderr
    )
    assert_error(run(*how, "--give", "0.1"), "--give says what --adaptive may give up")
    assert_error(run(*how, "--adaptive", "--dims", "8"), "--adaptive needs more than one prefix")
    assert_error(run(*how, "--adaptive", "--plan", "8:40"), "there is nothing to stop before")


def test_evaluate_gives_every_prefix_with_n_and_intervals(place: Path) -> None:
    rows = lines(
        ok("evaluate", place / "pictures", "--index", place / "index", "--instance", "--json")
    )
    assert [r["dims"] for r in rows] == [8, 16, 64]
    for r in rows:
        assert r["n"] == r["n_instance"] == 40
        for name in ("linear_top1", "knn_top1", "map_at_10", "instance_recall_at_1"):
            low, high = r["ci95"][name]
            assert 0 <= low <= r[name] <= high <= 1
        assert 0 <= r["thumbnail_recall_at_1"] <= 1
    hard = lines(
        ok(
            "evaluate",
            place / "pictures",
            "--index",
            place / "index",
            "--json",
            "--instance",
            "hard",
        )
    )
    assert [r["knn_top1"] for r in hard] == [r["knn_top1"] for r in rows]
    assert sum(r["instance_recall_at_1"] for r in hard) < sum(
        r["instance_recall_at_1"] for r in rows
    )
    standard = lines(
        ok("evaluate", "--instance", place / "pictures", "--index", place / "index", "--json")
    )
    assert (
        standard
        == rows
        == lines(
            ok(
                "evaluate",
                place / "pictures",
                "--instance=standard",
                "--index",
                place / "index",
                "--json",
            )
        )
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
        "may give up"
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
    assert_error(
        run("evaluate", place / "fresh", "--model", place / "run", "--split", "validation"),
        "does not hold the same pictures as when",
    )
    assert "linear head" in ok("evaluate", place / "fresh", "--index", place / "index").stdout
    assert (
        "broken.jpg: not an image"
        in ok("evaluate", place / "pictures", "--model", place / "run").stderr
    )


def test_the_parts_of_a_source_are_those_of_the_training(place: Path, tmp_path: Path) -> None:
    """A broken picture is in front, and small ones are between: neither counts where pictures are divided."""
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


@pytest.mark.skipif(sys.platform == "win32", reason="names are text on Windows")
def test_a_query_whose_name_is_not_text(place: Path, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    shutil.copy(os.fsencode(place / "fresh" / "cat" / "cat-0000.jpg"), name)
    program = "from mrl_search.cli.app import app; app()"
    for extra in ([], ["--json"]):
        told = subprocess.run(
            [sys.executable, "-c", program, "query", name, "--index", place / "index", *extra],
            env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "caf\\udce9.jpg" in told.stdout


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
    assert told[0] == whole[0]  # the copies are made of the pictures in the other place
    assert (
        ok("tune", tmp_path / "index", "--objective", "instance", "--recall", "0.5").exit_code == 0
    )
    shutil.rmtree(tmp_path / "pictures")
    assert [r["thumbnail_recall_at_1"] for r in lines(ok(*evaluate))] == [None] * 3
    assert_error(
        run("tune", tmp_path / "index", "--objective", "instance"),
        "can be read to be copied; the first: ",
    )


def test_a_bench_that_goes_on_copies_the_same_pictures(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mrl_search.engines import Index
    from mrl_search.measure.pictured import bench_pictures
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


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes")
def test_a_file_name_that_is_not_utf8_stops_no_corpus(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "fresh", tmp_path / "fresh")
    shutil.copy(
        place / "fresh" / "cat" / "cat-0000.jpg",
        os.fsencode(tmp_path / "fresh" / "cat") + b"/caf\xe9.jpg",
    )
    ok("build-index", tmp_path / "fresh", "--model", place / "run", "--out", tmp_path / "index")
    (skipped,) = json.loads((tmp_path / "index" / "skipped.json").read_text())
    assert skipped["path"].endswith("caf\\xe9.jpg") and skipped["reason"] == "its name is not UTF-8"


def test_a_full_disk_while_embedding_is_a_sentence(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        args = (
            "build-index",
            place / "fresh",
            "--model",
            place / "run",
            "--out",
            tmp_path / "index",
        )
        assert_error(run(*args), "The disk is full: ")
    ok(*args)


def test_places_are_named_as_a_shell_would(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    ok("build-index", place / "fresh", "--model", place / "run", "--out", "~/index")
    assert (
        sorted(
            p.name
            for p in (tmp_path / "index").iterdir()
            if "progress" in p.name or "jsonl" in p.name
        )
        == []
    )
    ok("shrink", tmp_path / "index", "--dims", "8", "--yes", "--out", "~/small")
    np.save(
        tmp_path / "vectors.npy",
        np.random.default_rng(0).standard_normal((40, 16)).astype(np.float32),
    )
    ok("build-index", tmp_path / "vectors.npy", "--out", "~/own")
    for name in ("2024.05", "2024.06", ".hidden"):
        shutil.copytree(place / "fresh", tmp_path / name)
        ok("build-index", name, "--model", place / "run", "--dims", "8")
    assert sorted(p.name for p in (tmp_path / "indexes").iterdir()) == [
        "2024.05",
        "2024.06",
        "hidden",
    ]


def test_a_kind_that_is_none_is_told_before_anything_is_embedded(
    place: Path, tmp_path: Path
) -> None:
    args = (
        "build-index",
        place / "fresh",
        "--model",
        place / "run",
        "--out",
        tmp_path / "index",
        "--factory",
        "64=Flatt",
    )
    assert_error(run(*args), "FAISS makes no index of 64 dims from 'Flatt'")
    assert not list(tmp_path.iterdir()) or not list(tmp_path.glob(".index.building/*"))


def assert_error(result: Result, said: str) -> None:
    assert result.exit_code == 1, result.output
    assert said in result.stderr and "error: " in result.stderr and "Traceback" not in result.output


def test_bad_input_is_a_sentence_and_a_hint(place: Path, tmp_path: Path) -> None:
    image, index = place / "fresh" / "cat" / "cat-0000.jpg", place / "index"
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.png").write_bytes(b"")
    table = [
        (
            [
                "build-index",
                tmp_path / "nowhere",
                "--model",
                place / "run",
                "--out",
                tmp_path / "i",
            ],
            "There is nothing at",
        ),
        (
            ["build-index", tmp_path / "empty", "--model", place / "run", "--out", tmp_path / "i"],
            "There is no image in",
        ),
        (
            ["build-index", tmp_path / "broken", "--model", place / "run", "--out", tmp_path / "i"],
            "can be read",
        ),
        (
            ["build-index", place / "fresh", "--model", place / "run", "--out", index],
            "exists already",
        ),
        (
            [
                "build-index",
                place / "fresh",
                "--model",
                place / "run",
                "--out",
                tmp_path / "i",
                "--dims",
                "8,128",
            ],
            "128",
        ),
        (
            ["build-index", place / "fresh", "--model", tmp_path / "none", "--out", tmp_path / "i"],
            "There is no model",
        ),
        (
            ["query", image, "--index", index, "--dims", "32"],
            "This index has dims 8, 16, 64; there is no 32.",
        ),
        (["query", image, "--index", index, "--plan", "64:10,8"], "dims must grow"),
        (["query", image, "--index", index, "--plan", "8:40,64:5"], "fewer than the 10 asked for"),
        (["query", image, "--index", index, "--plan", "8:x"], "is not a plan"),
        (["query", image, "--index", index, "--plan", "8:20,64", "--dims", "8"], "both given"),
        (["query", image, "--index", tmp_path / "none"], "There is no"),
        (
            ["query", image, "--index", index, "--sheet", tmp_path / "hits.gif"],
            "which kind of picture to write",
        ),
        (["classify", image, "--index", index, "--temperature", "0"], "temperature"),
        (["classify", image, "--index", index, "--majority", "--temperature", "0.1"], "both given"),
        (["tune", index, "--plot", tmp_path / "plot.jpg"], "End it with .png"),
        (["evaluate", place / "fresh", "--index", index, "--instance=wild"], "no protocol 'wild'"),
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
            "has no 'sped'",
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
            "A seed is from 0",
        ),
        (
            ["train", place / "pictures", "--recipe", "small", "--out", Path(image) / "run"],
            "as " + str(image) + " is a file",
        ),
        (["train", place / "pictures", "--recipe", image, "--out", tmp_path / "r"], "is not TOML"),
        (["demo", "--out", image], "cannot be made"),
    ]
    for args, said in table:
        assert_error(run(*args), said)
    assert not (tmp_path / "i").exists() and not (tmp_path / ".i.building").exists()


def test_damage_is_told_by_the_name_of_the_file(place: Path, tmp_path: Path) -> None:
    image = place / "fresh" / "cat" / "cat-0000.jpg"
    for name, damage, said in (
        ("vectors.npy", lambda d: d[:-1], "cut short"),
        ("prefix-0008.faiss", lambda d: d[:-1] + bytes([d[-1] ^ 1]), "altered"),
        ("manifest.json", lambda d: d.replace(b'"format": 1', b'"format": 99'), "format 99"),
    ):
        copy = tmp_path / name
        shutil.copytree(place / "index", copy)
        (copy / name).write_bytes(damage((copy / name).read_bytes()))
        assert_error(run("query", image, "--index", copy, "--dims", "8"), said)


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


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Builds of eight pictures a batch, the first of which is stopped by the user after three; sizes of the batches that were embedded."""
    monkeypatch.setattr("mrl_search.encoders.embed.BATCH", 8)
    monkeypatch.setattr("mrl_search.index.COMMIT", 1)
    encode, seen, stops = NetworkEncoder.encode, list[int](), [KeyboardInterrupt]

    def counting(self: NetworkEncoder, pictures: np.ndarray) -> np.ndarray:
        if len(seen) == 3 and stops:
            raise stops.pop()
        seen.append(len(pictures))
        return encode(self, pictures)

    monkeypatch.setattr(NetworkEncoder, "encode", counting)
    return seen


def test_a_killed_build_goes_on_without_embedding_anything_twice(
    place: Path, tmp_path: Path, interrupted: list[int]
) -> None:
    out = tmp_path / "index"
    args = ("build-index", place / "pictures", "--model", place / "run", "--out", out)
    assert run(*args).exit_code == 130
    assert not out.exists()
    assert_error(
        run("query", place / "fresh" / "cat" / "cat-0000.jpg", "--index", out), "not finished yet"
    )
    ok(
        "train",
        place / "pictures",
        "--recipe",
        "small",
        *(x for s in (*TINY, "seed=5") for x in ("--set", s)),
        "--out",
        tmp_path / "run",
    )
    for other in (
        ("build-index", place / "fresh", "--model", place / "run", "--out", out),
        ("build-index", place / "pictures", "--model", tmp_path / "run", "--out", out),
        (*args, "--dtype", "float32"),
    ):
        assert_error(
            run(*other), "unfinished run of other images, another model, or another --dtype"
        )
    ok(*args)
    assert sum(interrupted) == 40
    vectors = [
        np.load(folder / "vectors.npy").astype(np.float32) for folder in (out, place / "index")
    ]
    assert np.allclose(*vectors, atol=1e-3)  # in batches of another size, so not to the last bit
    assert not (out / "progress.json").exists()


@pytest.mark.parametrize(
    ("changed", "again"),
    [("cat/broken.jpg", 24), ("cat/cat-0010.jpg", 13), ("dog/dog-0019.jpg", 0)],
)
def test_a_build_that_goes_on_reads_again_what_is_another_picture_by_now(
    place: Path, tmp_path: Path, interrupted: list[int], changed: str, again: int
) -> None:
    shutil.copytree(place / "pictures", tmp_path / "pictures")
    args = (
        "build-index",
        tmp_path / "pictures",
        "--model",
        place / "run",
        "--out",
        tmp_path / "index",
    )
    assert run(*args).exit_code == 130 and sum(interrupted) == 23  # and one that is broken
    file, new = tmp_path / "pictures" / changed, place / "fresh" / "dog" / "dog-0001.jpg"
    shutil.copyfile(new, file)
    os.utime(file, (1e9, 1e9))  # as cp -p leaves it
    ok(*args)
    mended = changed.endswith("broken.jpg")
    assert sum(interrupted[3:]) == 17 + again
    index = Index.open(tmp_path / "index")
    assert len(index) == 40 + mended and len(index.embeddings.skipped) == 1 - mended
    assert index.embeddings.hashes[
        index.embeddings.paths.tolist().index(str(file))
    ] == content_hash(new.read_bytes())


def test_a_build_that_goes_on_reads_again_what_has_another_label_by_now(
    place: Path, tmp_path: Path, interrupted: list[int]
) -> None:
    pictures = [p.read_bytes() for p in sorted((place / "pictures").glob("*/*-00*.jpg"))]
    table = tmp_path / "pictures.parquet"
    args = ("build-index", table, "--model", place / "run", "--out", tmp_path / "index")
    pq.write_table(pa.table({"image": pictures, "label": ["old"] * 40}), table)
    assert run(*args).exit_code == 130 and sum(interrupted) == 24
    pq.write_table(pa.table({"image": pictures, "label": ["old"] * 10 + ["new"] * 30}), table)
    sources._dataset_source.cache_clear()  # a data set that is open stays as it is
    ok(*args)
    assert sum(interrupted[3:]) == 30
    assert Index.open(tmp_path / "index").embeddings.labels.tolist() == ["old"] * 10 + ["new"] * 30


def test_a_build_that_is_stopped_while_it_goes_on_reads_nothing_half_written(
    place: Path, tmp_path: Path, interrupted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(place / "pictures", tmp_path / "pictures")
    args = (
        "build-index",
        tmp_path / "pictures",
        "--model",
        place / "run",
        "--out",
        tmp_path / "index",
    )
    assert run(*args).exit_code == 130
    first = tmp_path / "pictures" / "cat" / "cat-0000.jpg"
    drawn = first.read_bytes()
    first.write_bytes((place / "fresh" / "dog" / "dog-0001.jpg").read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(NetworkEncoder, "encode", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(*args).exit_code == 130
    first.write_bytes(drawn)
    ok(*args)
    vectors = [
        np.load(folder / "vectors.npy").astype(np.float32)
        for folder in (tmp_path / "index", place / "index")
    ]
    assert np.allclose(*vectors, atol=1e-3)


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not locked on Windows")
def test_two_builds_never_share_a_folder(place: Path, tmp_path: Path) -> None:
    with claim(building_folder(tmp_path / "index")):
        assert_error(
            run(
                "build-index",
                place / "fresh",
                "--model",
                place / "run",
                "--out",
                tmp_path / "index",
            ),
            "Another process is at work",
        )
        np.save(tmp_path / "x.npy", np.eye(8, dtype=np.float32))
        assert_error(
            run("build-index", tmp_path / "x.npy", "--out", tmp_path / "index"),
            "Another process is at work",
        )


def test_a_build_that_could_not_be_moved_to_its_place_is_finished_with_other_dims(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mrl_search import index as workflow

    args = (
        "build-index",
        place / "pictures",
        "--model",
        place / "run",
        "--out",
        tmp_path / "index",
    )
    with monkeypatch.context() as patch:
        patch.setattr(workflow, "publish", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(*args).exit_code == 130
    ok(*args, "--dims", "16")
    index = Index.open(tmp_path / "index")
    assert index.sieve.norms.shape == (2, 40) and sorted(
        p.name for p in index.folder.glob("prefix*")
    ) == ["prefix-0016.faiss", "prefix-0064.faiss"]


def test_what_another_killed_build_left_is_no_part_of_an_index(place: Path, tmp_path: Path) -> None:
    left = building_folder(tmp_path / "index")
    np.save(left / "rotation.npy", np.eye(64, dtype=np.float32))
    ok(
        "build-index",
        place / "fresh",
        "--model",
        place / "run",
        "--out",
        tmp_path / "index",
        "--dims",
        "8",
    )
    assert (
        "rotation.npy"
        not in json.loads((tmp_path / "index" / "manifest.json").read_text())["files"]
    )


def test_what_a_stopped_build_of_other_dims_left_is_no_part_of_an_index(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mrl_search import index as workflow

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    args = ("build-index", place / "fresh", "--model", place / "run", "--out", tmp_path / "index")
    with monkeypatch.context() as patch:
        patch.setattr(workflow, "write_manifest", killed)
        assert run(*args).exit_code == 130
    building = building_folder(tmp_path / "index")
    assert (building / "prefix-0016.faiss").exists()
    (building / ".prefix-0016.faiss.77.writing").write_bytes(b"half")
    ok(*args, "--dims", "8")
    held = sorted(p.name for p in (tmp_path / "index").iterdir() if "prefix" in p.name)
    assert held == ["prefix-0008.faiss", "prefix-0064.faiss"]


def test_the_newest_index_is_the_default(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_error(
        run("query", place / "fresh" / "cat" / "cat-0000.jpg"), "There is no index in indexes"
    )
    ok("build-index", place / "fresh", "--model", place / "run", "--dims", "8")
    assert (tmp_path / "indexes" / "fresh" / "manifest.json").exists()
    (answer,) = lines(ok("query", place / "fresh" / "cat" / "cat-0000.jpg", "--json"))
    assert len(answer["hits"]) == 4 and answer["plan"] == "64:10"


def test_help_is_quick_to_load_and_starts_with_verbs() -> None:
    text = ok("--help").stdout
    for command in (
        "demo",
        "train",
        "build-index",
        "query",
        "classify",
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
            "Embed",
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
