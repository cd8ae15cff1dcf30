"""Words as queries, words beside pictures, and labels as words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import assert_error, lines, ok, run, write_pictures
from conftest import Rows, made_of
from fakes import FakeEncoder, FakeJointEncoder
from PIL import Image
from tiny_clip import NAME, weights

from mrl_search.encoders.registry import load_encoder
from mrl_search.encoders.weights import import_library
from mrl_search.encoders.words import Words
from mrl_search.encoders.zero_shot import label_vectors, zero_shot
from mrl_search.errors import ConfigError, DataError, IndexFolderError, ModelError
from mrl_search.index import Index
from mrl_search.store.transform import Transform
from mrl_search.vectors import combined, l2_normalize

__all__ = ["weights"]  # a fixture


@pytest.fixture(autouse=True)
def answering_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads are stand-ins here; no host is asked first."""
    monkeypatch.setattr("mrl_search.encoders.weights.getproxies", lambda: {"https": "a proxy"})


@pytest.fixture
def joint(monkeypatch: pytest.MonkeyPatch) -> FakeJointEncoder:
    """The encoder that every name of a model opens."""
    encoder = FakeJointEncoder()
    monkeypatch.setattr("mrl_search.encoders.registry.load_encoder", lambda *_, **__: encoder)
    return encoder


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with reddish cats and bluish dogs in `pictures`, and an `index` of them."""
    folder = tmp_path_factory.mktemp("colours")
    write_pictures(folder / "pictures", 10)
    (folder / "pictures" / "cat" / "broken.jpg").write_bytes(b"not a picture")
    Index.build(folder / "pictures", folder / "index", model=FakeJointEncoder())
    return folder


@pytest.fixture
def index(colours: Path, joint: FakeJointEncoder) -> Index:
    return Index.open(colours / "index")


@pytest.fixture
def cat(colours: Path) -> Path:
    return colours / "pictures" / "cat" / "cat-0003.png"


def raw(path: Path) -> np.ndarray:
    """The vector of a picture, by the definition of the fake encoder."""
    pixels = np.asarray(Image.open(path).resize((8, 8), Image.Resampling.BILINEAR, reducing_gap=2))
    return np.array([*pixels.mean(axis=(0, 1)), 100.0])


def unit(*values: float) -> np.ndarray:
    return np.array(values) / np.linalg.norm(values)


# One query of several parts


def test_parts_are_summed_as_unit_vectors() -> None:
    rows = [np.array([2.0, 0.0, 0.0]), np.array([0.0, 30.0, 0.0]), np.array([0.0, 0.0, 0.1])]
    assert combined(rows, [2, 3, -6]) == pytest.approx(np.array([2, 3, -6]) / 7)
    assert combined(rows[:1], [0.1]) == pytest.approx([1, 0, 0])
    with pytest.raises(DataError, match="cancel each other"):
        combined([rows[0], rows[0] * 3], [0.5, -0.5])


@pytest.mark.parametrize(
    ("words", "phrases", "text"),
    [
        (Words("a dog"), {"a dog": 1}, "a dog"),
        (Words("at night^0.5"), {"at night": 0.5}, "at night^0.5"),
        (Words(["a", "b^2"], "c^.25"), {"a": 1, "b": 2, "c": -0.25}, "a + b^2 - c^.25"),
        (Words(minus="people", picture="x/y.jpg"), {"people": -1}, "x/y.jpg - people"),
        (Words("a^b"), {"a^b": 1}, "a^b"),
        (Words(["a", "a^2"], "a^0.5"), {"a": 2.5}, "a + a^2 - a^0.5"),
        (Words("one\ntwo^3", picture=b"..."), {"one\ntwo": 3}, "picture + one\ntwo^3"),
    ],
)
def test_phrases_have_weights(words: Words, phrases: dict[str, float], text: str) -> None:
    assert words.phrases == phrases and str(words) == text


@pytest.mark.parametrize("arguments", [{"text": ""}, {"text": ["a", " "]}, {"text": "^0.5"}, {}])
def test_words_that_say_nothing(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Words(**arguments)
    with pytest.raises(ConfigError, match="to subtract from"):
        Words(minus="people")


def test_words_find_the_pictures_that_they_name(index: Index) -> None:
    hits = index.search(Words("red"), k=20)
    assert [hit.label for hit in hits] == ["cat"] * 10 + ["dog"] * 10
    for hit in hits:
        assert hit.score == pytest.approx(unit(*raw(Path(str(hit.path))))[0], abs=2e-3)
    blue = index.search(Words("blue"), k=3, where="label=cat", plan="8:10,64")
    assert {hit.label for hit in blue} == {"cat"}


def test_pictures_and_words_are_mixed_by_their_weights(index: Index, cat: Path) -> None:
    for query, weight in (
        (Words("blue", picture=cat), (0, 0, 1)), (Words("blue^0.5", picture=cat), (0, 0, 0.5)),
        (Words(minus="blue^2", picture=cat), (0, 0, -2)),
        (Words(["blue", "red^3"], "green", cat), (3, -1, 1)),
    ):  # fmt: skip
        expected = unit(*raw(cat)) + [*weight, 0]
        (row,) = index.embed([query]).rows
        assert row[:4] == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)
    with pytest.raises(DataError, match="cancel each other"):
        index.search(Words("red", "red"))


def test_one_list_may_hold_pictures_and_words(
    index: Index, joint: FakeJointEncoder, cat: Path
) -> None:
    with Image.open(cat) as image:
        queries = [cat, Words("blue"), Words("blue", picture=image), Words(picture=str(cat))]
        batch = index.embed(queries)
    assert batch.names == [str(cat), "blue", "picture + blue", str(cat)]
    assert joint.texts == ["blue"] and joint.batches == [3]
    assert batch.hashes is not None
    assert batch.hashes[0] == batch.hashes[3] != "" and set(batch.hashes[1:3]) == {""}
    assert np.array_equal(batch.rows[0], batch.rows[3])  # raw, as without words
    assert np.linalg.norm(batch.rows[0]) > 100
    assert [hits[0].label for hits in index.search(queries, k=1)] == ["cat", "dog", "dog", "cat"]
    with pytest.raises(DataError, match="Vectors cannot be mixed"):
        index.search([Words("red"), np.ones(64)])


def test_a_picture_that_cannot_be_read_is_left_out_with_its_words(
    index: Index, colours: Path, cat: Path
) -> None:
    broken = colours / "pictures" / "cat" / "broken.jpg"
    queries = [Words("red", picture=broken), Words("blue"), Words("blue", picture=cat)]
    batch = index.embed(queries, skip_broken=True)
    assert batch.names == ["blue", f"{cat} + blue"]
    assert [skipped.path for skipped in batch.skipped] == [f"{broken} + red"]
    assert batch.rows[0][:4] == pytest.approx([0, 0, 1, 0])
    with pytest.raises(DataError, match=r"broken\.jpg \+ red: not an image"):
        index.embed(queries)


# Where words are refused


def test_a_model_of_pictures_alone_reads_no_words(
    small_index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrl_search.encoders.registry.load_encoder", lambda *_, **__: FakeEncoder())
    with pytest.raises(ModelError, match="counting embeds pictures alone") as error:
        small_index.search(Words("red"))
    assert "open_clip:NAME/PRETRAINED" in error.value.hint


def test_an_index_of_own_vectors_takes_no_words() -> None:
    index = Index.from_vectors(np.eye(4, 16, dtype=np.float32))
    with pytest.raises(IndexFolderError, match="holds your own vectors"):
        index.search(Words("red"))


@pytest.mark.usefixtures("joint")
def test_words_keep_their_cosines_along_rotated_axes(make_index: Callable[..., Index]) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((30, 64)).astype(np.float32)
    rotation = np.linalg.qr(rng.standard_normal((64, 64)))[0].astype(np.float32)
    labels: list[str | None] = [None] * 30
    plain = made_of(rows, labels, dtype="float32")

    def turned(by: np.ndarray) -> Rows:
        made = made_of(rows @ by.T, labels, dtype="float32")
        return Rows(made.vectors, made.items, made.manifest, rotation=by)

    before = make_index(plain, name="plain").search(Words("red"), k=30)
    after = make_index(turned(rotation), name="turned").search(Words("red"), k=30)
    assert before.ids.tolist() == after.ids.tolist()
    assert after.scores == pytest.approx(before.scores, abs=1e-5)
    stretched = rotation * np.linspace(1, 2, 64, dtype=np.float32)[:, None]
    other = make_index(turned(stretched), name="stretched")
    with pytest.raises(IndexFolderError, match="fitted to pictures; they do not fit") as error:
        other.search(Words("red"))
    assert "--axes pca" in error.value.hint
    assert len(other.search(rows[3], k=2)) == 2  # vectors and pictures are in order


def test_what_is_a_rotation() -> None:
    turn = np.array([[0.6, 0.8, 0], [-0.8, 0.6, 0]], dtype=np.float32)
    assert Transform(3, 2, turn).orthogonal and Transform(3, 2).orthogonal
    assert not Transform(3, 2, turn * np.float32(1.01)).orthogonal
    assert not Transform(3, 2, turn[[0, 0]]).orthogonal


# The command line


@pytest.mark.usefixtures("joint")
def test_query_by_words(colours: Path) -> None:
    place = ["query", "--index", colours / "index", "--json", "-k", "10"]
    (red,) = lines(ok(*place, "--text", "red"))
    assert (red["image"], red["text"], red["minus"]) == (None, ["red"], [])
    assert {hit["label"] for hit in red["hits"]} == {"cat"}
    (other,) = lines(ok(*place, "--text", "grey", "--minus", "red"))
    assert {hit["label"] for hit in other["hits"]} == {"dog"} and other["minus"] == ["red"]
    (both,) = lines(ok(*place, "--text", "red", "--text", "blue^2", "--plan", "8:15,64"))
    assert {hit["label"] for hit in both["hits"]} == {"dog"} and both["plan"] == "8:15,64"
    (cats,) = lines(ok(*place, "--text", "blue", "--where", "label=cat"))
    assert {hit["label"] for hit in cats["hits"]} == {"cat"}
    shown = ok("query", "--text", "red", "--index", colours / "index", "-k", "3")
    assert shown.stdout.startswith("red  ·  plan exact") and "embedding" in shown.stderr


@pytest.mark.usefixtures("joint")
def test_query_by_pictures_and_words(colours: Path, cat: Path, tmp_path: Path) -> None:
    place = ["query", cat, "--index", colours / "index", "--json", "-k", "1"]
    (plain,) = lines(ok(*place))
    assert (
        plain["image"] == str(cat) and "text" not in plain and plain["hits"][0]["path"] == str(cat)
    )
    (mixed,) = lines(ok(*place, "--text", "blue"))
    assert mixed["image"] == str(cat) and mixed["text"] == ["blue"]
    assert mixed["hits"][0]["label"] == "dog"
    (little,) = lines(ok(*place, "--text", "blue^0.01"))
    assert little["hits"][0]["label"] == "cat"
    (minus,) = lines(ok(*place, "--minus", "red"))
    assert minus["hits"][0]["label"] == "dog"
    (other,) = lines(ok(*place, "--text", "red^0.01", "--not-itself"))
    assert other["hits"][0]["path"] != str(cat) and other["hits"][0]["label"] == "cat"
    dog = colours / "pictures" / "dog" / "dog-0001.png"
    two = lines(ok(*place, dog, "--text", "blue"))
    assert [line["image"] for line in two] == [str(cat), str(dog)]
    (cut,) = lines(run(*place, "--text", "blue", "--cutoff", "0.9999"))
    assert cut["hits"] == []


@pytest.mark.usefixtures("joint")
def test_a_sheet_of_words_and_pictures(colours: Path, cat: Path, tmp_path: Path) -> None:
    place = ["--index", colours / "index", "-k", "6"]
    sizes = {}
    for name, asked in (
        ("words", ["--text", "red / blue"]), ("both", [cat, "--text", "blue"]),
        ("ladder", ["--text", "red", "--explain"]),
    ):  # fmt: skip
        out = tmp_path / f"{name}.png"
        ok("query", *asked, *place, "--sheet", out)
        with Image.open(out) as drawn:
            sizes[name] = drawn.size
    assert sizes["both"][0] > sizes["words"][0]  # one tile more: the picture
    assert sizes["ladder"][1] > sizes["words"][1]  # one row a prefix


def test_query_options_that_make_no_sense(
    colours: Path, gallery: Path, joint: FakeJointEncoder, tmp_path: Path
) -> None:
    np.save(tmp_path / "q.npy", np.ones(64, np.float32))
    place = ["query", "--index", colours / "index"]
    for asked, message in (
        (["--minus", "red"], "no words and no picture to subtract from"),
        (["--text", " "], "a phrase must have a word"),
        (["--text", "red", "--minus", "blue^-1"], "The weight of 'blue^-1' is -1"),
        (["--text", "red^0"], "The weight of 'red^0' is 0"),
        (["--text", "red^1e999"], "The weight of 'red^1e999'"),
        (["--text", "red^2x"], "The weight of 'red^2x' is 2x"),
        (["--text", "red", "--vector", tmp_path / "q.npy"], "--vector is given with pictures"),
        (["--text", "red", "--not-itself"], "--not-itself is for pictures"),
        (["--text", "red", "--minus", "red"], "cancel each other"),
        ([], "There is nothing to search with"),
    ):
        assert_error(run(*place, *asked), message)


@pytest.mark.usefixtures("fake_model")
def test_query_says_which_models_read_words(gallery: Path) -> None:
    told = run("query", "--text", "red", "--index", gallery / "index")
    assert_error(told, "counting embeds pictures alone")
    assert "hint: Models of pictures and words: open_clip:NAME/PRETRAINED" in told.stderr


# Labels as words


@pytest.mark.parametrize("prompts", ["simple", "imagenet", "a photo of a {}."])
def test_zero_shot_is_that_of_open_clip(weights: Path, prompts: str) -> None:
    library: Any = import_library("open_clip", "models")
    encoder = load_encoder(f"open_clip:{NAME}@{weights}")
    labels = ["cat", "dog", "a train", "Eiffel tower", "zebra"]
    theirs = library.create_model(NAME, pretrained=str(weights)).eval()
    named = {
        "simple": library.SIMPLE_IMAGENET_TEMPLATES, "imagenet": library.OPENAI_IMAGENET_TEMPLATES,
    }  # fmt: skip
    expected = library.build_zero_shot_classifier(
        theirs, library.get_tokenizer(NAME), labels, named.get(prompts, [prompts])
    )
    found = label_vectors(labels, encoder, prompts)
    assert np.abs(found - expected.T.numpy()).max() < 1e-5
    pictures = np.random.default_rng(1).integers(0, 256, (7, 32, 32, 3), np.uint8)
    rows = encoder.encode(pictures)
    logits = np.exp(3.0) * (l2_normalize(rows) @ expected.numpy())
    shares = torch.from_numpy(logits).softmax(dim=1).numpy()
    assert zero_shot(rows, labels, encoder, prompts) == pytest.approx(shares, abs=1e-5)


def test_zero_shot_by_hand() -> None:
    encoder = FakeJointEncoder()
    rows = np.zeros((2, 64), np.float32)
    rows[0, :2], rows[1, :2] = (30, 40), (5, 0)
    shares = zero_shot(rows, ["red", "green", "blue"], encoder, "all {}")
    logits = 100 * np.array([[0.6, 0.8, 0], [1, 0, 0]])
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert shares == pytest.approx(expected, rel=1e-5)
    assert encoder.texts == ["all red", "all green", "all blue"]


def test_labels_that_cannot_be_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.ones((1, 64), np.float32)
    for labels in (["cat"], ["cat", "cat"], ["cat", ""], []):
        with pytest.raises(ConfigError, match="two or more, each once"):
            zero_shot(rows, labels, FakeJointEncoder(), "{}")
    with pytest.raises(ConfigError, match="must be one of simple, imagenet, or have"):
        zero_shot(rows, ["a", "b"], FakeJointEncoder(), "photo")
    with pytest.raises(ModelError, match="embeds pictures alone"):
        zero_shot(rows, ["a", "b"], FakeEncoder(), "{}")
    monkeypatch.setitem(__import__("sys").modules, "open_clip", None)
    with pytest.raises(ModelError, match="open_clip is not installed"):
        zero_shot(rows, ["a", "b"], FakeJointEncoder())


@pytest.mark.usefixtures("joint")
def test_classify_by_labels(colours: Path, cat: Path) -> None:
    dog, broken = cat.parents[1] / "dog" / "dog-0001.png", cat.parent / "broken.jpg"
    asked = ["classify", cat, dog, "--index", colours / "index", "--labels", "red, blue,green"]
    first, second = lines(ok(*asked, "--json", "--prompts", "{}"))
    assert (first["image"], first["label"]) == (str(cat), "red")
    assert (second["image"], second["label"], second["prompts"]) == (str(dog), "blue", "{}")
    cosines = 100 * unit(*raw(cat))[:3]
    expected = np.exp(cosines - cosines.max()) / np.exp(cosines - cosines.max()).sum()
    shares = [first["probabilities"][label] for label in ("red", "green", "blue")]
    assert shares == pytest.approx(expected, abs=1e-4) and first["probability"] == max(shares)
    assert list(first["probabilities"]) == sorted(
        first["probabilities"], key=first["probabilities"].get, reverse=True
    )
    shown = ok("classify", cat, broken, "--model", "joint", "--labels", "red,blue")
    assert shown.stdout.splitlines()[0].split() == ["label", "probability", "labels", "image"]
    assert "red" in shown.stdout.splitlines()[1] and "2 labels, prompts simple" in shown.stderr
    assert "skipped 1 image" in shown.stderr
    assert_error(
        run("classify", broken, "--model", "joint", "--labels", "red,blue"),
        "can be read; the first",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-k", "20"], "-k is for a vote of neighbours"),
        (["--majority"], "--majority is for a vote"),
        (["--temperature", "0.07"], "--temperature is for a vote"),
        (["--adaptive"], "--adaptive is for a vote"),
        (["--where", "label=cat"], "--where is for a vote"),
        (["--ids", "x.txt"], "--ids is for a vote"),
        (["--plan", "exact"], "--plan is for a vote"),
        (["--dims", "8"], "--dims is for a vote"),
        (["--vector", "x.npy"], "--vector is for a vote"),
    ],
)
@pytest.mark.usefixtures("joint")
def test_options_of_the_vote_are_refused_with_labels(
    colours: Path, cat: Path, options: list[str], message: str
) -> None:
    asked = ["classify", cat, "--index", colours / "index"]
    assert_error(run(*asked, "--labels", "a,b", *options), message)


@pytest.mark.usefixtures("joint")
def test_labels_need_pictures_and_prompts_need_labels(colours: Path, cat: Path) -> None:
    place = ["--index", colours / "index"]
    assert_error(run("classify", "--labels", "a,b", *place), "There is nothing to classify")
    assert_error(run("classify", cat, "--prompts", "simple", *place), "--prompts is for --labels")
    for labels, shown in (("a", "a"), ("cat,", "cat"), (" , ", "empty"), ("", "empty")):
        refused = run("classify", cat, "--labels", labels, *place)
        assert_error(refused, f"The labels are {shown}; name two or more")
    asked = ["classify", cat, *place, "--labels", "red, blue,"]
    (line,) = lines(ok(*asked, "--prompts", "{}", "--json"))
    assert set(line["probabilities"]) == {"red", "blue"}
    assert_error(run(*asked, "--prompts", ""), "The prompts are ''; they must be one of simple")


@pytest.mark.usefixtures("fake_model")
def test_classify_says_which_models_read_words(gallery: Path) -> None:
    picture = gallery / "pictures" / "cat" / "cat-0001.png"
    told = run("classify", picture, "--labels", "cat,dog", "--index", gallery / "index")
    assert_error(told, "counting embeds pictures alone")


def test_words_from_end_to_end_with_a_model_of_open_clip(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Build, search and classify by the command line with a checkpoint on disk."""
    write_pictures(tmp_path / "pictures", 4)
    picture, index = tmp_path / "pictures" / "cat" / "cat-0001.png", tmp_path / "index"
    model = f"open_clip:{NAME}@{weights}"
    ok("build-index", tmp_path / "pictures", "--out", index, "--model", model, "--axes", "none")
    assert json.loads((index / "manifest.json").read_text())["model"] == model
    encoder = load_encoder(model)
    opened = Index.open(index, encoder)
    corpus = opened.corpus.vectors.rows(np.arange(8), opened.dims[-1]).astype(np.float32)
    words = l2_normalize(encoder.encode_text(["a red dog"]))[0]
    with Image.open(picture) as image:
        shown = l2_normalize(encoder.encode(np.stack([encoder.preprocessing.pixels(image)])))[0]
    for options, weight in (
        (["--text", "a red dog"], 0),
        (["--text", "a red dog^0.5", picture], 2),
    ):
        (line,) = lines(ok("query", *options, "--index", index, "--json", "-k", "8"))
        query = words + weight * shown
        expected = np.sort(corpus @ (query / np.linalg.norm(query)))[::-1]
        assert [hit["score"] for hit in line["hits"]] == pytest.approx(expected, abs=2e-3)
    (line,) = lines(ok("classify", picture, "--labels", "cat,dog", "--index", index, "--json"))
    assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    (alone,) = lines(ok("classify", picture, "--labels", "cat,dog", "--model", model, "--json"))
    assert alone == line
