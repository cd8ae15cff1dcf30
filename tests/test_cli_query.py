"""`mrl-search query`: its options matter, its JSON can be given back, its errors are sentences."""

import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import assert_error, lines, ok, run
from fakes import FakeEncoder
from PIL import Image

from mrl_search.errors import ConfigError
from mrl_search.index import Index

pytestmark = pytest.mark.usefixtures("fake_model")


@pytest.fixture
def index(gallery: Path) -> Path:
    return gallery / "index"


@pytest.fixture
def known(gallery: Path) -> Path:
    return gallery / "pictures" / "dog" / "dog-0003.png"


@pytest.fixture
def fresh(gallery: Path) -> Path:
    return gallery / "fresh" / "cat" / "cat-0000.png"


@pytest.mark.parametrize(
    "how", [["--dims", "8"], ["--plan", "8:40,64"], ["--plan", "8:40,16:20,64"], ["--exact"], []]
)
def test_a_picture_of_the_corpus_is_found_first(index: Path, known: Path, how: list[str]) -> None:
    (line,) = lines(ok("query", known, "--index", index, "-k", "5", "--json", *how))
    assert line["image"] == str(known) and [h["rank"] for h in line["hits"]] == [1, 2, 3, 4, 5]
    assert line["hits"][0]["path"] == str(known) and line["hits"][0]["label"] == "dog"
    assert line["hits"][0]["score"] == pytest.approx(1, abs=2e-3)
    scores = [h["score"] for h in line["hits"]]
    assert scores == sorted(scores, reverse=True) and line["ms"] > 0
    python = Index.open(index).search(known, 5, plan=line["plan"])
    assert [h["id"] for h in line["hits"]] == [hit.id for hit in python]


@pytest.mark.parametrize(
    "how", [["--dims", "8"], ["--plan", "8:40,16:20,64"], ["--exact"], [], ["--plan", "auto"]]
)
def test_the_plan_in_json_can_be_given_back(index: Path, fresh: Path, how: list[str]) -> None:
    place = ["query", fresh, "--index", index, "-k", "5", "--json"]
    (first,) = lines(ok(*place, *how))
    (again,) = lines(ok(*place, "--plan", first["plan"]))
    assert (again["plan"], again["hits"]) == (first["plan"], first["hits"])


def test_the_last_dims_decide_the_scores(index: Path, fresh: Path) -> None:
    found = {
        plan: lines(ok("query", fresh, "--index", index, "-k", "3", "--json", "--plan", plan))[0]
        for plan in ("8", "8:40,64", "64", "exact")
    }
    assert [line["plan"] for line in found.values()] == ["8", "8:40,64", "64", "exact"]
    assert found["8:40,64"]["hits"] == found["64"]["hits"] == found["exact"]["hits"]
    assert found["64"]["hits"] != found["8"]["hits"]


def test_explain_shows_rank_and_score_at_every_prefix(
    index: Path, fresh: Path, tmp_path: Path
) -> None:
    how = ["query", fresh, "--index", index, "-k", "4", "--exact"]
    (line,) = lines(ok(*how, "--json", "--explain"))
    for hit in line["hits"]:
        assert [e["dims"] for e in hit["explain"]] == [8, 16, 64]
        assert hit["explain"][-1]["rank"] == hit["rank"]
        assert hit["explain"][-1]["score"] == pytest.approx(hit["score"], abs=2e-6)
    shown = ok(*how, "--explain", "--sheet", tmp_path / "ladder.png").stdout
    assert "8 dims" in shown and "64 dims" in shown
    assert f"1 ({line['hits'][0]['score']:.2f})" in shown
    one = ok(*how, "--sheet", tmp_path / "one.png")
    assert "pictures of the hits" in one.stderr
    with Image.open(tmp_path / "ladder.png") as ladder, Image.open(tmp_path / "one.png") as single:
        assert ladder.width == single.width and ladder.height > 1.5 * single.height


def test_filters_choose_who_may_answer(index: Path, known: Path, tmp_path: Path) -> None:
    place = ["query", known, "--index", index, "-k", "30", "--json"]
    for how in ([], ["--exact"], ["--dims", "8"], ["--plan", "8:40,64"]):
        (line,) = lines(ok(*place, "--where", "label=cat", *how))
        assert len(line["hits"]) == 20 and {h["label"] for h in line["hits"]} == {"cat"}
    (tmp_path / "ids.txt").write_text("0\n25\n31\n")
    (line,) = lines(ok(*place, "--ids", tmp_path / "ids.txt"))
    assert {h["id"] for h in line["hits"]} == {0, 25, 31}
    (line,) = lines(ok(*place, "--ids", tmp_path / "ids.txt", "--where", "id>20"))
    assert {h["id"] for h in line["hits"]} == {25, 31}


def test_a_cutoff_keeps_near_answers_and_says_when_there_is_none(
    index: Path, known: Path, fresh: Path
) -> None:
    place = ["query", "--index", index, "--json", "-k", "10"]
    (line,) = lines(ok(*place, known))
    cutoff = line["hits"][3]["score"] - 1e-5
    (cut,) = lines(ok(*place, known, "--cutoff", str(cutoff)))
    assert cut["hits"] == line["hits"][:4]
    none = run(*place, fresh, "--cutoff", "0.9999")
    assert none.exit_code == 3 and lines(none)[0]["hits"] == []
    assert "No item has a cosine of at least 0.9999" in none.stderr
    both = ok(*place, known, fresh, "--cutoff", "0.9999")
    assert [len(line["hits"]) for line in lines(both)] == [1, 0]
    assert run(*place, known, "--cutoff", "1.5").exit_code == 2


def test_a_table_and_a_sheet_are_shown(index: Path, fresh: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    result = ok("query", fresh, "--index", index, "-k", "4", "--sheet", sheet)
    assert "rank" in result.stdout and result.stdout.count(".png") == 5
    assert "40 items in" in result.stderr and "embedding " in result.stderr
    with Image.open(sheet) as image:
        assert image.width > 4 * 144


def test_broken_pictures_are_listed_and_an_error_if_all_are(
    gallery: Path, index: Path, fresh: Path
) -> None:
    bad = gallery / "pictures" / "cat" / "broken.jpg"
    result = ok("query", bad, fresh, "--index", index, "--json")
    assert [line["image"] for line in lines(result)] == [str(fresh)]
    assert "broken.jpg" in result.stderr
    assert_error(run("query", bad, "--index", index), "None of the pictures can be read")


def test_vectors_are_searched(index: Path, tmp_path: Path) -> None:
    rows = np.load(index / "vectors.npy")[[4, 9]].astype(np.float32)
    np.save(tmp_path / "two.npy", rows)
    np.save(tmp_path / "one.npy", rows[0])
    place = ["query", "--index", index, "--json", "-k", "1", "--vector"]
    two, one = (lines(ok(*place, tmp_path / f"{name}.npy")) for name in ("two", "one"))
    assert [line["hits"][0]["id"] for line in two] == [4, 9]
    assert [line["image"] for line in two] == [f"{tmp_path}/two.npy[{i}]" for i in range(2)]
    assert [(line["image"], line["hits"][0]["id"]) for line in one] == [(f"{tmp_path}/one.npy", 4)]


def test_a_picture_of_the_index_can_be_left_out(index: Path, known: Path, fresh: Path) -> None:
    for how in ([], ["--dims", "8"], ["--plan", "8:40,64"], ["--where", "label=dog"]):
        place = ["--index", index, "-k", "5", "--json", *how]
        (line,) = lines(ok("query", known, *place))
        (others,) = lines(ok("query", known, *place, "--not-itself"))
        assert [h["id"] for h in others["hits"]][:4] == [h["id"] for h in line["hits"]][1:]
        assert (others["k"], others["found"], len(others["hits"])) == (5, 5, 5)
        (same,) = lines(ok("query", fresh, *place, "--not-itself"))
        assert same["hits"] == lines(ok("query", fresh, *place))[0]["hits"]
    python = Index.open(index).search(known, 3, not_itself=True)
    assert [hit.path for hit in python] != [str(known)] and str(known) not in {
        hit.path for hit in python
    }


def test_fewer_answers_than_asked_for_are_said(index: Path, known: Path) -> None:
    result = ok("query", known, "--index", index, "--json", "--where", "label=dog", "-k", "30")
    (line,) = lines(result)
    assert (line["k"], line["found"], len(line["hits"])) == (30, 20, 20)
    assert "Only 20 of the 30 asked for were found." in result.stderr


def test_pictures_that_are_gone_are_marked(gallery: Path, tmp_path: Path) -> None:
    shutil.copytree(gallery / "fresh", tmp_path / "fresh")
    ok("build-index", tmp_path / "fresh", "--out", tmp_path / "index", "--dims", "8")
    picture, *rest = sorted((tmp_path / "fresh" / "cat").iterdir())
    asked = ["query", picture, "--index", tmp_path / "index"]
    (line,) = lines(ok(*asked, "--json"))
    assert not any(hit["gone"] for hit in line["hits"]) and "(gone)" not in ok(*asked).stdout
    rest[0].unlink()
    (line,) = lines(ok(*asked, "--json"))
    assert [hit["path"] for hit in line["hits"] if hit["gone"]] == [str(rest[0])]
    assert f"{rest[0]}  (gone)" in ok(*asked).stdout


def test_own_columns_are_shown_and_a_sheet_needs_pictures(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(16, dtype=np.float32))
    columns = {
        "title": [f"title {i} " * 9 for i in range(16)], "year": range(2000, 2016),
        "when": [datetime(2026, 1, 1 + i) for i in range(16)], "price": [float("nan")] * 16,
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    ok("build-index", tmp_path / "x.npy", "--items", tmp_path / "items.parquet", "--out",
       tmp_path / "own")  # fmt: skip
    asked = ["query", "--vector", tmp_path / "x.npy", "--index", tmp_path / "own", "-k", "1"]
    found = lines(ok(*asked, "--json"))
    assert [line["hits"][0]["columns"]["year"] for line in found] == list(range(2000, 2016))
    assert found[2]["hits"][0]["columns"] == {
        "title": columns["title"][2], "year": 2002, "when": "2026-01-03T00:00:00", "price": None,
    }  # fmt: skip
    shown = ok(*asked).stdout
    assert "title 3 title 3 title 3…" in shown and "2003" in shown
    assert_error(run(*asked, "--sheet", tmp_path / "s.png"), "without paths of pictures")
    assert_error(run(*asked, "--not-itself"), "--not-itself is for pictures")
    with pytest.raises(ConfigError, match="Vectors have no content"):
        Index.open(tmp_path / "own").search(np.eye(16, dtype=np.float32), not_itself=True)


def test_what_a_camera_wrote_is_shown_and_filters(tmp_path: Path) -> None:
    for i, day in enumerate(("2024:04:30 23:59:59", "2024:05:01 00:00:00", "2025:01:01 08:00:00")):
        exif = Image.Exif()
        exif[0x0110] = f"Holga {i}"
        exif.get_ifd(0x8769)[0x9003] = day
        exif.get_ifd(0x8825).update({1: "S", 2: (33.0, 30.0, 0.0), 3: "E", 4: (151.0, 0.0, 0.0)})
        path = tmp_path / "in" / "trip" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (i, 0, 0)).save(path, exif=exif)
        os.utime(path, (1e9 + i, 1e9 + i))
    Index.build(tmp_path / "in", tmp_path / "index", model=FakeEncoder())
    asked = ["query", path, "--index", tmp_path / "index", "-k", "3"]
    table = ok(*asked).stdout
    assert "2024-05-01 00:00:00  Holga 1" in table and "-33.5" not in table
    assert table.splitlines()[1].split() == ["rank", "score", "label", "taken", "camera", "path"]

    def found(where: str) -> list[dict[str, Any]]:
        hits = lines(ok(*asked, "--json", "--where", where))[0]["hits"]
        return sorted((hit["columns"] for hit in hits), key=lambda columns: columns["taken"])

    (row,) = found("taken=2024-05")
    assert row | {"inode": 0} == {
        "folder": "trip", "taken": "2024-05-01T00:00:00", "camera": "Holga 1", "latitude": -33.5,
        "longitude": 151.0, "bytes": (path.parent / "1.jpg").stat().st_size,
        "modified": "2001-09-09T01:46:41+00:00", "inode": 0,
    }  # fmt: skip
    for where, cameras in (
        ("taken>=2024-05", "12"), ("taken<2024-05", "0"), ("taken>2024-05-01", "2"),
        ("taken<=2024", "01"), ("taken!=2024", "2"), (f"taken={row['taken']}", "1"),
        (f"modified={row['modified']}", "1"), ("modified<=2001-09-09", "012"),
        ("folder=trip", "012"), ("latitude<0", "012"),
    ):  # fmt: skip
        assert "".join(columns["camera"][-1] for columns in found(where)) == cameras, where
    assert "taken, camera, latitude, longitude, bytes, modified, inode" in ok(
        "info", tmp_path / "index"
    ).stdout  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--exact", "--dims", "8"], "--exact is given with --dims or --plan"),
        (["--plan", "8:20,64", "--dims", "8"], "--dims and --plan are both given"),
        (["--where", "label=cow"], "No item of this index meets label=cow"),
        (["--where", "colour=red"], "Items have no column 'colour'"),
        (["--ids", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["--dims", "32"], "This index has dims 8, 16, 64; there is no 32."),
        (["--plan", "64:10,8"], "dims must grow"),
        (["--plan", "8:40,64:5"], "ends with :5, but the last stage keeps what -k says"),
        (["--plan", "8:5,64"], "fewer than the 10 answers wanted"),
        (["--plan", "8:40,20:20,64"], "there is no 20"),
        (["--plan", "8:x"], "is not a plan"),
        (["--vector", "x.npy"], "--vector is given with pictures or words"),
        (["--sheet", "hits.gif"], "hits.gif"),
    ],
)
def test_options_that_make_no_sense(
    index: Path, fresh: Path, options: list[str], message: str
) -> None:
    result = run("query", fresh, "--index", index, *options)
    assert_error(result, message)
    assert "hint:" in result.stderr


def test_nothing_to_search_with(index: Path, tmp_path: Path, fresh: Path) -> None:
    assert_error(run("query", "--index", index), "There is nothing to search with")
    assert_error(run("query", fresh, "--index", tmp_path / "none"), "There is no")


def test_damage_is_named_by_its_file(index: Path, fresh: Path, tmp_path: Path) -> None:
    for name, damage, message in (
        ("vectors.npy", lambda d: d[:-1], "cut short"),
        ("prefix-0008.faiss", lambda d: d[:-1] + bytes([d[-1] ^ 1]), "altered"),
        ("manifest.json", lambda d: d.replace(b'"format": 1', b'"format": 99'), "format 99"),
    ):
        copy = tmp_path / name
        shutil.copytree(index, copy)
        (copy / name).write_bytes(damage((copy / name).read_bytes()))
        assert_error(run("query", fresh, "--index", copy, "--dims", "8"), message)


def test_the_newest_index_is_the_default(
    gallery: Path, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_error(run("query", fresh), "There is no index in indexes")
    ok("build-index", gallery / "fresh", "--dims", "8")
    (line,) = lines(ok("query", fresh, "--json"))
    assert len(line["hits"]) == 4 and line["plan"] == "exact"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="names are text on Windows")
def test_a_query_whose_name_is_not_text(index: Path, fresh: Path, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    shutil.copy(os.fsencode(fresh), name)
    program = (
        "from fakes import FakeEncoder; from mrl_search.encoders import registry\n"
        "registry.load_encoder = lambda model, *_: FakeEncoder()\n"
        "from mrl_search.cli.app import app; app()"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict", "PYTHONPATH": path}
    for extra in ([], ["--json"]):
        done = subprocess.run(
            [sys.executable, "-c", program, "query", name, "--index", index, *extra],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "caf\\udce9.png" in done.stdout


HEAVY = {
    "torch", "torchvision", "timm", "onnxruntime", "pandas", "datasets", "matplotlib", "PIL",
    "typer", "pydantic", "rich", "http.client", "pyarrow.compute",
}  # fmt: skip
LOADED = (
    "import sys; from mrl_search.cli.start import main\n"
    "try: main()\n"
    "except SystemExit as end: assert not end.code\n"
    f"print(sorted({HEAVY} & set(sys.modules)))"
)


@pytest.mark.parametrize("extra", [["--json"], [], ["--where", "label=x"]], ids=str)
def test_a_query_by_a_vector_imports_nothing_heavy(tmp_path: Path, extra: list[str]) -> None:
    rows = np.random.default_rng(0).standard_normal((300, 64), dtype=np.float32)
    pq.write_table(pa.table({"label": ["x", "y", "z"] * 100}), tmp_path / "items.parquet")
    Index.from_vectors(rows, tmp_path / "index", items=tmp_path / "items.parquet")
    np.save(tmp_path / "x.npy", rows[6])
    done = subprocess.run(
        [sys.executable, "-c", LOADED, "query", "--vector", str(tmp_path / "x.npy"),
         "--index", str(tmp_path / "index"), "-k", "3", *extra],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    *answers, loaded = done.stdout.splitlines()
    needed = ["pyarrow.compute"] if "--where" in extra else []
    assert loaded == str(needed) and "6" in answers[-1 if "--json" in extra else 2]


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """An index of 1,200 vectors, and the vectors."""
    folder = tmp_path_factory.mktemp("thousand")
    rows = np.random.default_rng(0).standard_normal((1200, 32)).astype(np.float32)
    Index.from_vectors(rows, folder / "index")
    return folder / "index", rows


def test_the_cutoff_auto_shows_what_stands_out(
    thousand: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    index, rows = thousand
    np.save(tmp_path / "known.npy", rows[7] * 3)
    np.save(tmp_path / "fresh.npy", np.random.default_rng(1).standard_normal(32))
    known, fresh = (
        ["query", "--vector", tmp_path / f"{name}.npy", "--index", index, "-k", "5"]
        for name in ("known", "fresh")
    )
    (every,) = lines(ok(*known, "--expected", "--json"))
    assert every["hits"][0]["expected"] < 0.01 < every["hits"][1]["expected"]
    (cut,) = lines(ok(*known, "--cutoff", "auto", "--json"))
    assert cut["hits"] == every["hits"][:1]
    (plain,) = lines(ok(*known, "--json"))
    assert "expected" not in plain["hits"][0]
    table = ok(*known, "--expected").stdout.splitlines()
    assert "expected by chance" in table[1] and "<0.001" in table[2]
    none = run(*fresh, "--cutoff", "auto")
    assert none.exit_code == 3 and "Nothing here looks like this." in none.stderr


def test_the_cutoff_auto_takes_a_thousand_items(index: Path, known: Path) -> None:
    place = ["query", known, "--index", index]
    assert_error(run(*place, "--cutoff", "auto"), "40 items are too few")
    assert run(*place, "--cutoff", "high").exit_code == 2
    assert "expected by chance" not in ok(*place, "--expected").stdout
