"""The recipes of the package do train, one after the other where one begins with another; and the model that they made is whole."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import noise_pixels, train_tiny

from mrl_search.encoders.registry import load_encoder
from mrl_search.images.drawn import SPECIES, draw_animal
from mrl_search.mapping import to_mapping
from mrl_search.measure.copies import STANDARD, changed_copy
from mrl_search.training.recipes import load_recipe
from mrl_search.vectors import prefix

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
SMALL = ["model.dims=[8, 16]", "schedule.batch=8", "objective.instance_from=0"]


def test_the_recipes_of_the_bundled_model_follow_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # each begins with runs/ and the name of the one before
    for name in ("pets", "pets-refine", "pets-classes", "pets-axes", "pets-joint"):
        epochs = min(1, load_recipe(name).schedule.epochs)
        config = load_recipe(name, [*SMALL, f"schedule.epochs={epochs}"], width=8, size=32)
        records = train_tiny(Path("runs") / name, config, noise_pixels())
        assert len(records) == epochs
    encoder = load_encoder("runs/pets-joint")
    assert encoder.training["recipe"] == to_mapping(config) and encoder.heads.classes == (
        "cat",
        "dog",
    )
    rows = encoder.encode(np.zeros((2, 32, 32, 3), np.uint8))
    assert rows.shape == (2, 16) and np.isfinite(rows).all()


def test_the_recipe_of_small_pictures_trains_on_them_as_they_are(tmp_path: Path) -> None:
    config = load_recipe("tiny-animals", [*SMALL, "schedule.epochs=1"], width=8, size=32)
    (record,) = train_tiny(tmp_path / "run", config, noise_pixels(side=32))
    assert record.size == 32 and list(record.accuracy) == [8, 16]


def test_the_bundled_model_is_whole_and_finds_changed_copies_of_what_it_never_saw() -> None:
    encoder = load_encoder()
    assert (encoder.model, encoder.heads.classes, encoder.dims) == (
        "bundled",
        ("cat", "dog"),
        (8, 16, 32, 64, 128, 256, 512, 1024),
    )
    assert set(encoder.heads.weights) == set(encoder.dims) and "pictures" in encoder.training
    drawn = [draw_animal(species, i) for species in SPECIES for i in range(10)]
    pictures = np.stack([encoder.preprocessing.pixels(image) for image in drawn])
    rows = encoder.encode(pictures)
    np.testing.assert_allclose(
        encoder.encode(pictures[:, :, ::-1].copy()), rows, atol=1e-3 * np.abs(rows).max()
    )
    copies = encoder.encode(
        np.stack(
            [
                changed_copy(image, encoder.preprocessing.size, i, STANDARD)
                for i, image in enumerate(drawn)
            ]
        )
    )
    found = [
        (prefix(copies, d) @ prefix(rows, d).T).argmax(axis=1) == np.arange(len(drawn))
        for d in (8, 64, 1024)
    ]
    shares = [share.mean() for share in found]
    assert shares[0] > 0.2 and shares[2] > 0.8, shares


def test_the_bundled_model_is_no_larger_than_12_megabytes() -> None:
    folder = resources.files("mrl_search.encoders") / "bundled"
    assert (
        sum(len((folder / name).read_bytes()) for name in ("model.safetensors", "model.json"))
        <= 12_000_000
    )
