"""The drawn animals: always the same pixels, never two alike, and a folder that is filled once."""

import errno
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes import fail_writes
from PIL import Image

from mrl_search.errors import ConfigError, DataError, FileError
from mrl_search.images import drawn as module
from mrl_search.images.drawn import BREEDS, INDIVIDUAL, SPECIES, draw_animal, write_individuals


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float32)


def _stamps(paths: list[Path]) -> list[int]:
    return [path.stat().st_mtime_ns for path in paths]


@pytest.mark.parametrize("species", SPECIES)
def test_the_same_arguments_give_the_same_pixels(species: str) -> None:
    assert draw_animal(species, 7).tobytes() == draw_animal(species, 7).tobytes()
    assert draw_animal(species, 7).tobytes() != draw_animal(species, 8).tobytes()


def test_another_process_draws_the_same_pixels() -> None:
    code = (
        "import hashlib, mrl_search.images.drawn as d; "
        "print(hashlib.sha256(d.draw_animal('dog', 3, 64).tobytes()).hexdigest())"
    )
    there = subprocess.run(  # a str hashes differently in each process: nothing may depend on it
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "123"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.strip() == hashlib.sha256(draw_animal("dog", 3, 64).tobytes()).hexdigest()


def test_every_picture_is_an_individual() -> None:
    small = np.stack(
        [
            _pixels(draw_animal(species, seed, 64).reduce(4)).ravel()
            for species in SPECIES
            for seed in range(40)
        ]
    )
    differences = np.abs(small[:, None] - small[None]).mean(
        axis=2
    )  # (80, 80), in steps of 0 to 255
    np.fill_diagonal(differences, np.inf)
    assert differences.min() > 6


@pytest.mark.parametrize("size", [48, 96, 160])
def test_the_size_changes_the_resolution_and_not_the_scene(size: int) -> None:
    image = draw_animal("cat", 11, size)
    assert (image.mode, image.size) == ("RGB", (size, size))
    reference = _pixels(draw_animal("cat", 11, 320).resize((16, 16), Image.Resampling.BOX))
    assert np.abs(_pixels(image.resize((16, 16), Image.Resampling.BOX)) - reference).mean() < 6


def test_cats_and_dogs_with_the_same_seed_have_nothing_in_common() -> None:
    differences = [
        np.abs(_pixels(draw_animal("cat", seed, 64)) - _pixels(draw_animal("dog", seed, 64))).mean()
        for seed in range(10)
    ]
    assert min(differences) > 10


@pytest.mark.parametrize(
    ("species", "seed", "size", "message", "hint"),
    [
        ("horse", 0, 160, "There is no drawing of a 'horse'.", "Choose one of: cat, dog."),
        (
            "cat",
            -1,
            160,
            "Picture 0 of animal -1 at size 160 cannot be drawn.",
            "Numbers start at 0, sizes at 16.",
        ),
        (
            "dog",
            0,
            8,
            "Picture 0 of animal 0 at size 8 cannot be drawn.",
            "Numbers start at 0, sizes at 16.",
        ),
    ],
)
def test_what_cannot_be_drawn_says_so(
    species: str, seed: int, size: int, message: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        draw_animal(species, seed, size)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_an_individual_keeps_its_colours_in_every_picture() -> None:
    """Its pictures have more similar colour histograms than pictures of other animals."""
    pictures = {
        (i, p): draw_animal("cat", i, 64, p) for i in range(0, 36, 6) for p in range(4)
    }  # all of one breed
    assert len({image.tobytes() for image in pictures.values()}) == 24
    colours = {
        key: np.histogramdd(_pixels(image).reshape(-1, 3), 6, ((0, 256),) * 3)[0].ravel()
        for key, image in pictures.items()
    }
    same, other = [], []
    for (i, p), a in colours.items():
        for (j, q), b in colours.items():
            if p < q:
                (same if i == j else other).append(np.abs(a - b).sum())
    assert np.mean(same) < 0.95 * np.mean(other)


def test_individuals_lie_in_folders_of_species_and_breed(tmp_path: Path) -> None:
    paths = write_individuals(tmp_path, 2, range(3), size=16)
    assert len(paths) == 12 * 2 * 3 == len({path.read_bytes() for path in paths})
    names = [path.relative_to(tmp_path).as_posix() for path in paths]
    assert names[:4] == [
        f"cat/tabby/tabby-{i}.jpg" for i in ("0000-0", "0000-1", "0000-2", "0001-0")
    ]
    assert {(path.parent.parent.name, path.parent.name) for path in paths} == {
        (s, b) for b, s in BREEDS.items()
    }
    with Image.open(paths[3]) as stored:
        assert stored.format == "JPEG"
        difference = _pixels(stored) - _pixels(draw_animal("cat", 6, 16, 0))
        assert np.abs(difference).mean() < 12  # what JPEG loses
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(paths)
    assert [re.search(INDIVIDUAL, name)[1] for name in names[:4]] == ["tabby-0000"] * 3 + [
        "tabby-0001"
    ]
    more = write_individuals(
        tmp_path / "more", 2, range(3, 4), size=16
    )  # a fourth picture of the same animals
    again = write_individuals(tmp_path / "again", 2, range(4), size=16)
    assert [path.read_bytes() for path in more] == [
        path.read_bytes() for path in again if path.stem.endswith("-3")
    ]
    other = write_individuals(tmp_path / "other", 2, range(3), seed=1, size=16)
    assert not {path.read_bytes() for path in other} & {path.read_bytes() for path in paths}


def test_several_processes_draw_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = write_individuals(tmp_path / "a", 1, range(2), size=16)
    monkeypatch.setattr(module, "_POOL_FROM", 2)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
    assert [p.read_bytes() for p in write_individuals(tmp_path / "b", 1, range(2), size=16)] == [
        p.read_bytes() for p in alone
    ]


def test_a_second_call_writes_nothing_and_a_larger_one_only_what_is_missing(tmp_path: Path) -> None:
    paths = write_individuals(tmp_path, 1, range(1), size=16)
    before = _stamps(paths)
    assert write_individuals(tmp_path, 1, range(1), size=16) == paths
    assert _stamps(paths) == before
    assert len(write_individuals(tmp_path, 1, range(2), size=16)) == 24
    assert _stamps(paths) == before


def test_a_picture_that_was_cut_short_or_has_another_size_is_drawn_again(tmp_path: Path) -> None:
    cut, other, *untouched = write_individuals(tmp_path, 1, range(1), size=16)
    whole, kept = cut.read_bytes(), _stamps(untouched)
    cut.write_bytes(whole[:-40])
    larger = write_individuals(tmp_path / "elsewhere", 1, range(1), size=32)
    other.write_bytes(larger[1].read_bytes())
    write_individuals(tmp_path, 1, range(1), size=16)
    assert cut.read_bytes() == whole
    with Image.open(other) as image:
        assert image.size == (16, 16)
    assert _stamps(untouched) == kept


def test_a_full_disk_is_a_sentence_and_leaves_no_half_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_writes(monkeypatch, errno.ENOSPC)
    message = r"tabby-0000-0\.jpg cannot be written: the disk is full"
    with pytest.raises(FileError, match=message):
        write_individuals(tmp_path, 1, range(1), size=16)
    assert not list(tmp_path.rglob("*.jpg"))


def test_a_photograph_is_never_overwritten(tmp_path: Path) -> None:
    photograph = tmp_path / "dog" / "husky" / "husky-0000-0.jpg"
    photograph.parent.mkdir(parents=True)
    Image.new("RGB", (20, 20), "red").save(photograph)
    before = photograph.read_bytes()
    message = r"husky-0000-0\.jpg is there already and is not a drawn animal"
    with pytest.raises(DataError, match=message) as caught:
        write_individuals(tmp_path, 1, range(1), size=16)
    assert caught.value.hint == "Choose an empty folder for the drawn animals."
    assert photograph.read_bytes() == before
