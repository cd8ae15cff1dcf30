"""`mrl-search classify` and `mrl-search tune`: votes, plans that are kept, and thresholds."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import assert_error, lines, ok, run
from PIL import Image

from mrl_search.index import Index

pytestmark = pytest.mark.usefixtures("fake_model")


@pytest.fixture
def index(gallery: Path, tmp_path: Path) -> Path:
    """A copy of the index that may be tuned."""
    shutil.copytree(gallery / "index", tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture
def image(gallery: Path) -> Path:
    return gallery / "pictures" / "cat" / "cat-0004.png"


def test_neighbours_vote_and_options_matter(index: Path, image: Path) -> None:
    place = ["classify", image, "--index", index, "--json"]
    (soft,) = lines(ok(*place, "-k", "30", "--temperature", "0.5"))
    assert soft["confidence"] == max(soft["votes"].values())
    assert sum(soft["votes"].values()) == pytest.approx(1, abs=1e-5)
    assert soft["plan"] == "exact" and "dims_read" not in soft
    (sharp,) = lines(ok(*place, "-k", "30", "--temperature", "0.01"))
    assert sharp["votes"] != soft["votes"]
    (nearest,) = lines(ok(*place, "-k", "1", "--dims", "64"))
    found = (nearest["label"], nearest["confidence"], nearest["plan"])
    assert found == ("cat", 1.0, "64")
    (plain,) = lines(ok(*place, "--majority", "-k", "30"))
    assert set(plain["votes"].values()) <= {round(i / 30, 6) for i in range(31)}
    assert plain["votes"] != soft["votes"]
    (cats,) = lines(ok(*place, "--where", "label=cat"))
    assert cats["votes"] == {"cat": 1.0}
    shown = ok("classify", image, "--index", index, "-k", "5")
    assert "confidence" in shown.stdout and "5 neighbours among 40 items" in shown.stderr


def test_tune_stores_a_plan_that_query_and_classify_use(
    index: Path, image: Path, tmp_path: Path
) -> None:
    plot = tmp_path / "tune.png"
    (line,) = lines(ok("tune", index, "--recall", "0.9", "-k", "3", "--json", "--plot", plot))
    assert (line["objective"], line["target"], line["k"], line["n"]) == ("recall", 0.9, 3, 27)
    assert line["value"] >= 0.85 and line["front"]
    with Image.open(plot) as drawn:
        assert drawn.width > 800
    (answer,) = lines(ok("query", image, "--index", index, "-k", "3", "--json"))
    assert answer["plan"] == line["plan"]
    told = ok("tune", index, "--objective", "class", "--recall", "0.5", "-k", "3")
    chosen = json.loads((index / "manifest.json").read_text())["plans"]["classify"]["plan"]
    assert f"chosen: {chosen}" in told.stderr and "next: mrl-search classify IMAGE" in told.stderr
    (vote,) = lines(ok("classify", image, "--index", index, "-k", "3", "--json"))
    assert vote["plan"] == chosen
    shown = ok("info", index).stdout
    assert "tuned for class 0.5" in shown and "tuned for recall 0.9" in shown
    ok("info", index, "--verify")
    assert run("tune", index, "--recall", "1.5").exit_code == 2
    assert_error(run("tune", index, "--max-ram", "10"), "No prefix index fits in 10 bytes")
    assert_error(run("tune", index, "--give", "0.1"), "--give is for --objective adaptive")
    assert_error(run("tune", index, "--plot", tmp_path / "plot.jpg"), "plot.jpg")


def test_tune_for_changed_copies(index: Path) -> None:
    (line,) = lines(ok("tune", index, "--objective", "instance", "--recall", "0.5", "--json"))
    assert (line["objective"], line["k"]) == ("instance", 1)
    assert "tuned for instance 0.5" in ok("info", index).stdout


def test_classify_reads_only_as_many_dims_as_it_needs(index: Path, image: Path) -> None:
    how = ["classify", image, "--index", index, "-k", "5"]
    missing = run(*how, "--adaptive")
    assert_error(missing, "has no thresholds")
    assert f"mrl-search tune {index} --objective adaptive -k 5" in missing.stderr
    learn = ["tune", index, "--objective", "adaptive", "-k", "5"]
    (line,) = lines(ok(*learn, "--give", "0.9", "--json"))
    assert line["plan"] == "8:200,16:200,64" and line["thresholds"][-1] == 0
    assert (line["give"], line["k"], line["n"]) == (0.9, 5, 40)
    (answer,) = lines(ok(*how, "--json", "--adaptive"))
    assert answer["plan"] == "8:200,16:200,64" and answer["dims_read"] == 8
    assert answer["confidence"] == max(answer["votes"].values())
    (alone,) = lines(ok(*how, "--json", "--dims", "8"))
    assert (answer["label"], answer["votes"]) == (alone["label"], alone["votes"])
    assert "dims read" in ok(*how, "--adaptive").stdout
    filtered = ok(*how, "--adaptive", "--where", "label=cat")
    assert "learnt without a filter" in filtered.stderr
    strict = ok(*learn)  # forty items are too few to stop early for one point
    assert "No early stop stays within the 1.0% limit with 40 labelled items" in strict.stderr
    assert "It takes at least 299." in strict.stderr
    assert "--give 0.05" in strict.stderr
    (answer,) = lines(ok(*how, "--json", "--adaptive"))
    assert answer["dims_read"] == 64
    for options, message in (
        (["-k", "6"], "are for k 5, not 6"),
        (["--dims", "8"], "are for plan 8:200,16:200,64, not 8"),
        (["--majority"], "are for weighting softmax, not majority"),
    ):
        assert_error(run(*how, "--adaptive", *options), message)
    assert "(loses at most 1.0%)" in ok("info", index).stdout


def test_options_that_make_no_sense(index: Path, image: Path) -> None:
    for options, message in (
        (["--temperature", "0"], "The temperature is 0.0; it must be positive"),
        (["--majority", "--temperature", "0.1"], "A --majority vote has no --temperature"),
        (["--plan", "8:5,64"], "fewer than the 20 answers wanted"),
    ):
        assert_error(run("classify", image, "--index", index, *options), message)


def test_own_vectors_without_labels_cannot_vote(image: Path, tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "x.npy", np.eye(30, dtype=np.float32))
    Index.from_vectors(tmp_path / "x.npy", tmp_path / "own")
    vote = run("classify", "--vector", tmp_path / "x.npy", "--index", tmp_path / "own")
    assert_error(vote, "have no labels")
    assert_error(run("classify", image, "--index", tmp_path / "own"), "your own vectors")
    assert_error(run("tune", tmp_path / "own", "--objective", "adaptive"), "two labelled items")


def test_a_picture_without_near_neighbours_is_unknown(index: Path, image: Path) -> None:
    place = ["classify", image, "--index", index, "-k", "5"]
    assert "unknown" not in ok(*place, "--cutoff", "-1").stdout
    (known,) = lines(ok(*place, "--json", "--cutoff", "0.9999"))
    assert known["votes"] == {"cat": 1.0}  # itself alone
    (nobody,) = lines(ok(*place, "--json", "--cutoff", "1", "--where", "label=dog"))
    assert nobody["label"] is None and nobody["votes"] == {}
    assert "unknown" in ok(*place, "--cutoff", "1", "--where", "label=dog").stdout
    assert_error(run(*place, "--cutoff", "auto"), "40 items are too few")
