"""Sources: folders, data sets on disk and the hub give the same thing, paths, labels and bytes."""

import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mrl_search.encoders.base import Preprocessing
from mrl_search.errors import BrokenImage, ConfigError, DataError
from mrl_search.images import tables
from mrl_search.images.reading import Picture, read_pictures
from mrl_search.images.sources import (
    RecordedSource,
    Source,
    open_source,
    read_path,
    read_recorded,
    subset,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _private_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep `datasets` from writing into the cache of the user who runs the tests."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    tables._source.cache_clear()
    datasets.disable_progress_bars()


def _png(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 3), (grey, grey, grey)).save(file, "PNG")
    return file.getvalue()


def _dataset(
    greys: list[int],
    label: object = None,
    column: str = "label",
    image: str = "image",
    **more: list,
) -> datasets.Dataset:
    """Rows of one grey picture each; `label`: class names, values, or None for no column."""
    features = {image: datasets.Image()}
    values: dict[str, list] = {image: [{"bytes": _png(grey), "path": None} for grey in greys]}
    if isinstance(label, tuple):
        features[column] = datasets.ClassLabel(names=list(label))
        values[column] = [i % len(label) for i in range(len(greys))]
    elif isinstance(label, list):
        features[column] = datasets.Value("string" if isinstance(label[0], str) else "int64")
        values[column] = label
    for name, rows in more.items():
        features[name], values[name] = datasets.Value("string"), rows
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))


def _greys(source: Source) -> list[int]:
    """The pictures' values, read through the source."""
    return [
        Image.open(io.BytesIO(source.read(i))).getpixel((0, 0))[0] for i in range(len(source.paths))
    ]


def test_a_folder_is_scanned_recursively_in_the_order_of_its_paths(tmp_path: Path) -> None:
    written = (
        "dog/b.JPG", "cat/z.png", "cat/a.webp", "top.gif", "cat/siamese/s.bmp", "dog/c.tiff",
        "dog/d.jpeg", "dog/e.tif",
    )  # fmt: skip
    for i, name in enumerate(written):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes([i]))
    for name in ("cat/notes.txt", "dog/b.JPG.part", "dog/clip.mp4", "noextension"):
        (tmp_path / name).write_bytes(b"no")
    (tmp_path / "folder.jpg").mkdir()
    source = open_source(str(tmp_path))
    assert source.name == str(tmp_path)
    assert source.paths == [str(tmp_path / name) for name in sorted(written)]
    assert source.labels == ["cat", "siamese", "cat", "dog", "dog", "dog", "dog", None]
    assert [source.read(i) for i in range(8)] == [bytes([i]) for i in (2, 4, 1, 0, 5, 6, 7, 3)]


def test_a_relative_folder_gives_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics" / "a.png").write_bytes(b"a")
    monkeypatch.chdir(tmp_path)
    source = open_source("pics")
    assert source.name == str(tmp_path / "pics")
    assert source.paths == [str(tmp_path / "pics" / "a.png")]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_source("~/pics").paths == source.paths


def test_one_file_is_a_source_of_one_image(tmp_path: Path) -> None:
    (tmp_path / "one.PNG").write_bytes(_png(7))
    source = open_source(str(tmp_path / "one.PNG"))
    assert list(source.paths) == [str(tmp_path / "one.PNG")]
    assert (list(source.labels), _greys(source)) == ([None], [7])


def test_an_image_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    source = open_source(str(tmp_path))
    (tmp_path / "a.png").unlink()
    with pytest.raises(BrokenImage) as error:
        source.read(0)
    assert error.value.message == "cannot be read: there is no such file or folder"


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("nowhere", "There is nothing at ", "hub:OWNER/NAME"),
        ("empty", "There is no image in ", ".jpeg, .jpg, .png"),
        ("letter.txt", "is neither an image nor a data set", "Parquet"),
        ("broken.parquet", "cannot be loaded as a data set: ", "datasets.load_dataset"),
        ("numbers.parquet", "has no image column; it has x, y", "'image'"),
    ],
)
def test_what_is_no_source_is_a_sentence(
    tmp_path: Path, name: str, message: str, hint: str
) -> None:
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    (tmp_path / "empty" / "readme.txt").write_text("no pictures")
    (tmp_path / "letter.txt").write_text("Dear all")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 but no more")
    datasets.Dataset.from_dict({"x": [1, 2], "y": ["a", "b"]}).to_parquet(
        tmp_path / "numbers.parquet"
    )
    with pytest.raises(DataError) as error:
        open_source(str(tmp_path / name))
    assert message in error.value.message
    assert str(tmp_path / name) in error.value.message
    assert hint in error.value.hint


def test_a_parquet_file_with_class_names(tmp_path: Path) -> None:
    file = tmp_path / "pets.parquet"
    _dataset([10, 20, 30], ("cat", "dog")).to_parquet(file)
    source = open_source(str(file))
    assert source.name == str(file)
    assert list(source.paths) == [f"{file}#train/{i}" for i in range(3)]
    assert list(source.labels) == ["cat", "dog", "cat"]
    assert _greys(source) == [10, 20, 30]


@pytest.mark.parametrize(
    ("label", "column", "seen"),
    [
        (("newt", "auk"), "labels", ["newt", "auk"]),
        (["a b", "c"], "label", ["a b", "c"]),
        (["a b", "c"], "labels", ["a b", "c"]),
        ([7, 3], "label", ["7", "3"]),
        ([7, 3], "species", [None, None]),
        (None, "", [None, None]),
    ],
)
def test_labels_are_names_strings_numbers_or_unknown(
    tmp_path: Path, label: object, column: str, seen: list
) -> None:
    _dataset([1, 2], label, column).to_parquet(tmp_path / "x.parquet")
    assert list(open_source(str(tmp_path / "x.parquet")).labels) == seen


def test_a_missing_label_is_none(tmp_path: Path) -> None:
    names = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    rows = {"image": [{"bytes": _png(i), "path": None} for i in range(3)], "label": [1, -1, None]}
    datasets.Dataset.from_dict(rows, features=names).save_to_disk(tmp_path / "x")
    assert list(open_source(str(tmp_path / "x")).labels) == ["dog", None, None]


def test_a_folder_of_parquet_files_is_one_data_set_with_splits(tmp_path: Path) -> None:
    folder = tmp_path / "data set"
    (folder / "data").mkdir(parents=True)
    _dataset([1, 2], ("cat", "dog")).to_parquet(folder / "data" / "train-00000-of-00002.parquet")
    _dataset([3], ("cat", "dog")).to_parquet(folder / "data" / "train-00001-of-00002.parquet")
    _dataset([4, 5], ("cat", "dog")).to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    source = open_source(str(folder))
    assert list(source.paths) == [
        f"{folder}#{row}" for row in ("train/0", "train/1", "train/2", "test/0", "test/1")
    ]
    assert list(source.labels) == ["cat", "dog", "cat", "cat", "dog"]
    assert _greys(source) == [1, 2, 3, 4, 5]


def test_a_table_without_images_among_pictures_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").write_bytes(_png(7))
    (tmp_path / "indexes" / "mine").mkdir(parents=True)
    pq.write_table(
        pa.table({"path": ["a.png"], "label": ["cat"]}),
        tmp_path / "indexes" / "mine" / "items.parquet",
    )
    assert open_source(str(tmp_path)).paths == [str(tmp_path / "cat" / "a.png")]
    _dataset([1]).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(
        DataError, match=r"has images in tables .*rows.parquet.* and in files .*a.png"
    ):
        open_source(str(tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right of their own on Windows")
def test_links_are_followed_within_the_folder_alone(tmp_path: Path) -> None:
    for name in ("pictures/cat/a.png", "elsewhere/deep/b.png", "pictures/.hidden/deep/c.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(_png(7))
    (tmp_path / "pictures" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pictures" / "out.png").symlink_to(tmp_path / "elsewhere" / "deep" / "b.png")
    (tmp_path / "pictures" / "bird").symlink_to(".hidden")
    (tmp_path / "pictures" / "again").symlink_to(tmp_path / "pictures")
    (tmp_path / "pictures" / "another cat").symlink_to(tmp_path / "pictures" / "cat")
    (tmp_path / "pictures" / "nowhere").symlink_to(tmp_path / "gone")
    source = open_source(str(tmp_path / "pictures"))
    assert list(zip(source.paths, source.labels, strict=True)) == [
        (str(tmp_path / "pictures" / "bird" / "deep" / "c.png"), "deep"),
        (str(tmp_path / "pictures" / "cat" / "a.png"), "cat"),
    ]  # fmt: skip
    assert any("2 links that lead out of the folder" in note for note in source.notes)


def test_a_column_of_numbers_holds_no_images(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [1, 2]}), tmp_path / "numbers.parquet")
    with pytest.raises(
        DataError, match=r"The column 'image' of .*numbers.parquet has .*int64.*, not images."
    ):
        open_source(str(tmp_path / "numbers.parquet"))


def test_a_saved_dataset_and_a_saved_dict(tmp_path: Path) -> None:
    _dataset([1, 2], ("cat", "dog")).save_to_disk(tmp_path / "one")
    one = open_source(str(tmp_path / "one"))
    assert list(one.paths) == [f"{tmp_path}/one#train/0", f"{tmp_path}/one#train/1"]
    assert (list(one.labels), _greys(one)) == (["cat", "dog"], [1, 2])
    datasets.DatasetDict(
        {"train": _dataset([3], ("cat",)), "validation": _dataset([4, 5], ("cat",))}
    ).save_to_disk(tmp_path / "both")
    both = open_source(str(tmp_path / "both"))
    rows = [path.rpartition("#")[2] for path in both.paths]
    assert rows == ["train/0", "validation/0", "validation/1"]
    assert _greys(both) == [3, 4, 5]


def test_one_split_with_labels_and_one_without(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": _dataset([3], ("cat",)), "test": _dataset([4])}).save_to_disk(
        tmp_path / "both"
    )
    source = open_source(str(tmp_path / "both"))
    assert list(source.labels) == ["cat", None]
    assert _greys(source) == [3, 4]


def test_a_split_without_images_is_a_sentence(tmp_path: Path) -> None:
    datasets.DatasetDict(
        {"train": _dataset([3]), "test": datasets.Dataset.from_dict({"x": [1]})}
    ).save_to_disk(tmp_path / "both")
    with pytest.raises(DataError, match="has no image column 'image' in its split 'test'"):
        open_source(str(tmp_path / "both"))


def test_the_format_a_data_set_was_saved_with_does_not_matter(tmp_path: Path) -> None:
    _dataset([3, 4], ("cat", "dog")).with_format("numpy", columns=["label"]).save_to_disk(
        tmp_path / "x"
    )
    source = open_source(str(tmp_path / "x"))
    assert list(source.labels) == ["cat", "dog"]
    assert _greys(source) == [3, 4]


@pytest.mark.parametrize("name", ["photo", "img"])
def test_the_image_column_is_found_by_its_type_or_its_name(tmp_path: Path, name: str) -> None:
    _dataset([9], image=name, caption=["a grey one"]).save_to_disk(tmp_path / "x")
    assert _greys(open_source(str(tmp_path / "x"))) == [9]


def test_a_column_of_file_names_is_followed(tmp_path: Path) -> None:
    (tmp_path / "far.png").write_bytes(_png(77))
    rows = {"image": [str(tmp_path / "far.png"), str(tmp_path / "gone.png")], "label": ["a", "b"]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "x.parquet")
    source = open_source(str(tmp_path / "x.parquet"))
    assert source.read(0) == _png(77)
    with pytest.raises(BrokenImage, match="cannot be read: there is no such file"):
        source.read(1)


def test_an_empty_row_and_a_broken_one_are_skipped(tmp_path: Path) -> None:
    cells = [{"bytes": data, "path": None} for data in (_png(1), b"junk", _png(2))]
    rows = {"image": [cells[0], None, *cells[1:]]}
    images = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict(rows, features=images).to_parquet(tmp_path / "x.parquet")
    path = f"{tmp_path}/x.parquet"
    pictures = list(read_pictures(open_source(path), Preprocessing(2).decode))
    assert [p.pixels[0, 0, 0] if isinstance(p, Picture) else p.reason for p in pictures] == [
        1, f"{path}#train/1 holds no image", "not an image that can be read", 2,
    ]  # fmt: skip


def test_paths_lead_back_to_the_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "50% #1"  # a name that looks like a place in a data set
    folder.mkdir()
    (folder / "a#b.png").write_bytes(_png(1))
    (folder / "c.png").write_bytes(_png(2))
    _dataset([3, 4, 5]).to_parquet(tmp_path / "x#y.parquet")
    for source in (open_source(str(folder)), open_source(str(tmp_path / "x#y.parquet"))):
        for i, path in enumerate(source.paths):
            assert read_path(path) == source.read(i)
        items = RecordedSource(source.name, source.paths[::-1], source.labels[::-1])
        assert _greys(items) == _greys(source)[::-1]


@pytest.mark.parametrize("path", [
    "gone.png", "go#ne.png", "gone.parquet#train/0", "x.parquet#train/9", "x.parquet#test/0",
    "x.parquet#train/x",
])  # fmt: skip
def test_a_path_that_leads_nowhere_is_a_broken_image(tmp_path: Path, path: str) -> None:
    _dataset([1]).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(BrokenImage) as error:
        read_path(str(tmp_path / path))
    assert "is gone" in error.value.message or "no such file" in error.value.message


def test_a_subset_is_a_source(tmp_path: Path) -> None:
    for i, name in enumerate("abcd"):
        (tmp_path / f"{name}.png").write_bytes(_png(i))
    part = subset(open_source(str(tmp_path)), [3, 1], "two")
    assert part.name == f"{tmp_path} (two)"
    assert [Path(p).name for p in part.paths] == ["d.png", "b.png"]
    assert _greys(part) == [3, 1]


def test_the_hub_is_loaded_by_name_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[str, ...]] = []

    def load_dataset(name: str, **more: object) -> datasets.DatasetDict:
        loaded.append((name, *more))
        return datasets.DatasetDict(
            {"train": _dataset([1, 2], ("cat", "dog")), "test": _dataset([3], ("cat", "dog"))}
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = open_source("hub:zoo/pets")
    rows = ("train/0", "train/1", "test/0")
    assert list(source.paths) == [f"hub:zoo/pets#{row}" for row in rows]
    assert source.name == "hub:zoo/pets" and _greys(source) == [1, 2, 3]
    assert list(source.labels) == ["cat", "dog", "cat"]
    assert read_path("hub:zoo/pets#test/0") == _png(3)
    assert read_path("hub:zoo/pets#test/0") == _png(3)
    # once, and then remembered; by a path that was recorded, only from what is on this machine
    assert loaded == [("zoo/pets",), ("zoo/pets", "download_config")]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionError("Couldn't reach 'zoo/pets' on the Hub\nmore"), "on the Hub."),
        (ValueError(), "ValueError."),
    ],
)
def test_a_hub_that_does_not_answer_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def load_dataset(name: str) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError) as raised:
        open_source("hub:zoo/pets")
    assert raised.value.message.startswith("hub:zoo/pets cannot be loaded as a data set: ")
    assert raised.value.message.endswith(words)
    assert "\n" not in raised.value.message
    assert "network" in raised.value.hint


def test_a_data_set_without_rows_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda name: _dataset([1]).select([]))
    with pytest.raises(DataError, match="hub:zoo/nothing has no rows"):
        open_source("hub:zoo/nothing")


def test_pictures_are_not_decoded_before_they_are_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _dataset([1, 2], ("cat", "dog")).to_parquet(tmp_path / "x.parquet")
    not_called = SimpleNamespace()  # calling it would fail
    monkeypatch.setattr(datasets.Image, "decode_example", not_called)
    assert _greys(open_source(str(tmp_path / "x.parquet"))) == [1, 2]


# Other label columns


def test_another_column_may_hold_the_labels(tmp_path: Path) -> None:
    file = str(tmp_path / "set.parquet")
    _dataset([1, 2, 3], ("a", "b"), kind=["x", "y", None]).to_parquet(file)
    plain, other = open_source(file), open_source(file, "kind")
    assert (plain.labels, other.labels) == (["a", "b", "a"], ["x", "y", None])
    assert plain.paths == other.paths and plain.read(0) == other.read(0)
    with pytest.raises(DataError, match="has no column 'colour'"):
        open_source(file, "colour")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").write_bytes(_png(1))
    with pytest.raises(DataError, match="which has no column 'kind'"):
        open_source(str(tmp_path / "folder"), "kind")


def test_a_recorded_path_leads_nowhere_else(tmp_path: Path) -> None:
    for name in ("in/a.png", "out/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(_png(1))
    source = str(tmp_path / "in")
    assert read_recorded(f"{source}/a.png", source) == _png(1)
    (tmp_path / "in/link.png").symlink_to(tmp_path / "out/b.png")
    for path in (
        f"{tmp_path}/out/b.png", f"{source}/../out/b.png", f"{source}/link.png", "/dev/zero",
        "hub:x/y#train/0",
    ):  # fmt: skip
        for where in (source, f"{source}/a.png"):  # a folder, or one picture
            with pytest.raises(BrokenImage):
                read_recorded(path, where)
    assert read_recorded(f"{source}/a.png", f"{source}/a.png") == _png(1)
    assert read_recorded(f"{tmp_path}/out/b.png", "") == _png(1)  # items of own vectors name it
    for path in ("/dev/zero", "hub:x/y#train/0", f"{tmp_path}/x.parquet#train/0"):
        with pytest.raises(BrokenImage):
            read_recorded(path, "")


def test_what_is_passed_over_is_counted(tmp_path: Path, without_heif: None) -> None:
    for name in ("a.jpg", "b.pgm", "noending", ".hidden.png", "@eaDir/t.png", "cat/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(_png(1))
    for name in ("x.heic", "y.heic", "z.dng"):
        (tmp_path / name).write_bytes(b"II*\0" if name == "z.dng" else b"\0\0\0\x18ftypheic")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    source = open_source(str(tmp_path))
    assert [Path(path).name for path in source.paths] == ["a.jpg", "b.pgm", "c.png", "noending"]
    assert list(source.labels) == [None, None, "cat", None]
    assert list(source.notes) == [
        "passed over: 2 .heic, 1 .dng",
        "HEIC is read with the extra heic: pip install pillow-heif",
        "left out 2 hidden or system files and folders, which --hidden takes: .hidden.png, @eaDir",
        "left out 2 links that lead nowhere, pipes or devices: gone.jpg, pipe.jpg",
        "taken by their content: 1 without ending, 1 .pgm",
        "pictures: 1 without ending, 1 .jpg, 1 .pgm, 1 .png",
    ]
    assert len(open_source(str(tmp_path), hidden=True).paths) == 6


def test_labels_come_from_where_one_says(tmp_path: Path) -> None:
    for name in ("pets/cat/1.png", "pets/dog/2.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(_png(1))
    (tmp_path / "metadata.csv").write_text(
        "\ufefffile_name,label,year\npets/cat/1.png,cafe\u0301,7\npets/gone.png,x,8\n"
    )
    source = open_source(str(tmp_path))
    assert list(source.labels) == ["caf\u00e9", None]
    assert source.columns is not None
    folders = ["pets/cat", "pets/dog"]
    assert source.columns.to_pydict() == {"year": [7, None], "folder": folders}
    assert "1 rows of metadata name no picture here" in source.notes
    for how, labels in (
        ("folder", ["cat", "dog"]), ("depth:1", ["pets", "pets"]), ("none", [None, None]),
    ):  # fmt: skip
        assert list(open_source(str(tmp_path), labels=how).labels) == labels
    with pytest.raises(ConfigError, match="--labels is 'depth:0'"):
        open_source(str(tmp_path), labels="depth:0")


def test_labels_of_any_type_are_names_or_none(tmp_path: Path) -> None:
    pictures = [{"bytes": _png(i), "path": None} for i in range(3)]
    for column, labels in (
        (pa.array([0, 7, None]), ["0", "7", None]), (pa.array(["", "a", "b"]), [None, "a", "b"]),
        (pa.array([1.5, float("nan"), None]), ["1.5", None, None]),
        (pa.array([True, False, None]), ["True", "False", None]),
        (pa.array([b"x", b"y", b"z"]), [None] * 3), (pa.array([[1], [2], []]), [None] * 3),
    ):  # fmt: skip
        pq.write_table(pa.table({"image": pictures, "label": column}), tmp_path / "x.parquet")
        tables._source.cache_clear()
        assert list(open_source(str(tmp_path / "x.parquet")).labels) == labels


def test_a_recorded_picture_may_lie_in_any_root(tmp_path: Path) -> None:
    for name in ("one/a.png", "two/b.png", "three/c.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(_png(1))
    roots = (str(tmp_path / "one"), str(tmp_path / "two"))
    for name in ("one/a.png", "two/b.png"):
        assert read_recorded(str(tmp_path / name), *roots) == _png(1)
    for path in (tmp_path / "three" / "c.png", tmp_path / "one" / ".." / "three" / "c.png"):
        with pytest.raises(BrokenImage, match=r"is outside of .*one and .*two"):
            read_recorded(str(path), *roots)
