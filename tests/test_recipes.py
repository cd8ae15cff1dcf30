"""The recipes of the package train, step by step, and the bundled model is complete."""

import io
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from fakes import ListSource, write_corpus
from PIL import Image
from tiny_runs import TINY, Stopped, noise_pixels, same, train_all, train_tiny, weights_of

from mrl_search.encoders.registry import load_encoder
from mrl_search.errors import ConfigError, MrlSearchError
from mrl_search.images.drawn import SPECIES, draw_animal
from mrl_search.mapping import to_mapping, to_toml
from mrl_search.measure.copies import STANDARD, changed_copy
from mrl_search.training.config import Recipe, TrainConfig
from mrl_search.training.recipes import load_recipe
from mrl_search.training.records import AxesRecord, EpochRecord, Record, StepRecord
from mrl_search.training.steps import train
from mrl_search.vectors import prefix

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
SMALL = ["model.dims=[8, 16]", "schedule.batch=8", "objective.instance_from=0"]


def labelled_source() -> ListSource:
    """`noise_pixels` as files."""
    files = []
    for image in noise_pixels().images.permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        files.append(file.getvalue())
    source = ListSource(files)
    source.labels = [("cat", "dog")[i % 2] for i in range(len(files))]
    return source


@pytest.mark.slow
def test_the_recipe_of_the_bundled_model_trains_step_by_step(tmp_path: Path) -> None:
    source, out = labelled_source(), tmp_path / "run"
    small = [*SMALL, *(f"steps.{i}.schedule.epochs=1" for i in (1, 2, 3, 5))]
    recipe = load_recipe("pets", small, width=8, size=32)
    seen: list[tuple[str, type]] = []
    decoded: list[StepRecord] = []

    def stop(config: TrainConfig, record: Record) -> None:
        seen.append((config.name, type(record)))
        if isinstance(record, StepRecord) and record.what == "decoding":
            decoded.append(record)
        if config.name == "pets-classes" and isinstance(record, StepRecord):
            raise Stopped

    with pytest.raises(Stopped):
        train(source, recipe, out, on_record=stop)
    assert {name for name, _ in seen} == {"pets-base", "pets-refine", "pets-classes"}
    assert len(decoded) == 1  # all at one side
    seen.clear()
    last = train(source, recipe, out, on_record=lambda c, r: seen.append((c.name, type(r))))
    assert [name for name, kind in seen if kind is EpochRecord] == ["pets-classes", "pets-joint"]
    assert isinstance(last, AxesRecord) and list(last.accuracy) == [8, 16]
    folders = sorted(p.name for p in (out / "steps").iterdir())
    assert folders == ["pets-axes", "pets-base", "pets-classes", "pets-refine"]
    encoder = load_encoder(str(out))
    assert encoder.name == "pets-joint" and encoder.heads.classes == ("cat", "dog")
    before = str(out / "steps" / "pets-axes")
    assert encoder.training["recipe"] == to_mapping(replace(recipe.steps[-1], init=before))
    rows = encoder.encode(np.zeros((2, 32, 32, 3), np.uint8))
    assert rows.shape == (2, 16) and np.isfinite(rows).all()
    with pytest.raises(MrlSearchError, match="There is a finished run"):
        train(source, recipe, out)
    alone = load_recipe("pets:joint", [*small[:3], f"init={before}"], width=8, size=32)
    train(
        source,
        replace(alone, steps=(replace(alone.steps[0], schedule=recipe.steps[-1].schedule),)),
        tmp_path / "alone",
    )
    assert same(weights_of(tmp_path / "alone"), weights_of(out))


def test_a_recipe_with_steps_trains_them_and_refuses_another_recipe(tmp_path: Path) -> None:
    source, out = labelled_source(), tmp_path / "run"
    first = replace(TINY, name="first", schedule=replace(TINY.schedule, epochs=1))
    recipe = Recipe("two", (first, replace(first, name="second")))
    last = train(source, recipe, out)
    assert isinstance(last, EpochRecord) and (last.epoch, list(last.accuracy)) == (1, [8, 16])
    assert load_encoder(str(out)).training["recipe"]["init"] == str(out / "steps" / "first")
    assert not same(weights_of(out), weights_of(out / "steps" / "first"))
    (out / "model.json").unlink()
    with pytest.raises(ConfigError, match="first has another recipe"):
        train(source, replace(recipe, steps=(replace(first, seed=1), recipe.steps[1])), out)


def test_a_recipe_is_named_and_a_folder_opened(tmp_path: Path) -> None:
    write_corpus(tmp_path / "pictures", 8, size=48)
    recipe = tmp_path / "mine.toml"
    config = replace(TINY, schedule=replace(TINY.schedule, epochs=1))
    recipe.write_text(to_toml(config))
    records: list[Record] = []
    last = train(
        tmp_path / "pictures",
        str(recipe),
        str(tmp_path / "run"),
        on_record=lambda _, record: records.append(record),
    )
    assert records[0] == StepRecord("decoding", 16, 16) and records[-1] is last
    assert load_encoder(str(tmp_path / "run")).heads.classes == ("cat", "dog")


def test_the_recipe_of_small_pictures_trains_on_them_as_they_are(tmp_path: Path) -> None:
    (config,) = load_recipe("tiny-animals", [*SMALL, "schedule.epochs=1"], width=8, size=32).steps
    (record,) = train_tiny(tmp_path / "run", config, noise_pixels(side=32))
    assert record.size == 32 and list(record.accuracy) == [8, 16]


def test_the_recipe_small_trains_every_prefix(tmp_path: Path) -> None:
    recipe = load_recipe("small")
    assert (recipe.name, recipe.steps[0].model.dims[-1]) == ("small", 1024)
    values = [*SMALL, "schedule.lr=0.01", "data.validation=0.2"]
    (config,) = load_recipe("small", values, width=8, size=32).steps
    first, *_, last = train_tiny(tmp_path / "run", config, noise_pixels())
    assert (last.epoch, last.size, list(last.accuracy)) == (14, 32, [8, 16])
    assert last.label_loss < 0.6 * first.label_loss and last.accuracy[16] > 0.8


def test_the_recipe_levels_tells_individuals_and_sets_the_last_dims_apart(tmp_path: Path) -> None:
    (config,) = load_recipe("levels").steps
    name, axes = config.data.individual, config.axes
    assert re.search(name, "cat/tabby/tabby-0007-1.jpg")[1] == "tabby-0007"
    assert axes is not None and (axes.after, config.model.dims[-2:]) == (256, (256, 1024))
    objective = config.objective
    assert dict(zip(config.model.dims, objective.instance_weights, strict=True))[256] == 0
    assert dict(zip(config.model.dims, objective.individual_weights, strict=True))[64] == 0
    values = [
        "model.dims=[8, 16, 32]", "axes.after=16", "schedule.batch=8", "schedule.epochs=1",
        r"data.individual='(\d+)-\d+\.jpg$'", "objective.instance_weights=[0, 0, 1]",
        "objective.individual_weights=[0, 1, 1]", "data.validation=0.2",
    ]  # fmt: skip
    (config,) = load_recipe("levels", values, width=8, size=32).steps
    *_, last = train_all(tmp_path / "run", config)
    assert isinstance(last, AxesRecord) and list(last.accuracy) == [8, 16, 32]
    assert load_encoder(str(tmp_path / "run")).preprocessing.mirror


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
