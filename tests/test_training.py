"""Training on a handful of drawn animals: what it yields, what it leaves, and that a killed run ends as an unbroken one."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mrl_search.config import TrainConfig
from mrl_search.data.drawn import SPECIES, draw_animal
from mrl_search.data.pixels import Pixels
from mrl_search.errors import ConfigError, DataError, MrlSearchError
from mrl_search.models.checkpoint import load_model
from mrl_search.recipes import load_recipe
from mrl_search.training import EpochRecord, StepRecord, pixel_side, train

TINY = ["model.widths=[8,8,16,16]", "model.dims=[8,16]", "schedule.epochs=3", "schedule.batch=8", 'schedule.sizes={"0"=32}']


def recipe(*more: str) -> TrainConfig:
    return load_recipe("drawn", [*TINY, *more])


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    names = [(s, i) for s in SPECIES for i in range(16)]
    images = [torch.frombuffer(bytearray(draw_animal(s, i, 40).tobytes()), dtype=torch.uint8).view(40, 40, 3) for s, i in names]
    return Pixels(torch.stack(images).permute(0, 3, 1, 2), [s for s, _ in names], [f"{s}{i}" for s, i in names], [])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    return all(torch.equal(t, weights(b)[name]) for name, t in weights(a).items())


def test_it_yields_steps_and_epochs_and_leaves_a_model(pixels: Pixels, tmp_path: Path) -> None:
    config = recipe()
    assert pixel_side(config) == 40
    records = list(train(pixels, config, tmp_path / "run", "drawn"))
    epochs = [r for r in records if isinstance(r, EpochRecord)]
    assert [(r.epoch, r.step, r.steps) for r in records if isinstance(r, StepRecord)] == [(e, s, 3) for e in (1, 2, 3) for s in (1, 2, 3)]
    assert [r.epoch for r in epochs] == [1, 2, 3] and list(epochs[0].accuracy) == [8, 16]
    assert (epochs[0].n_train, epochs[0].n_validation, epochs[0].size) == (28, 4, 32)
    assert epochs[-1].instance_loss < epochs[0].instance_loss
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["model.json", "model.safetensors", "recipe.toml", "records.jsonl"]
    model = load_model(tmp_path / "run")
    assert (model.classes, model.size, model.config.dims) == (("cat", "dog"), 32, (8, 16))
    assert model.training["recipe"]["schedule"]["epochs"] == 3


def test_a_killed_run_ends_as_an_unbroken_one(pixels: Pixels, tmp_path: Path) -> None:
    list(train(pixels, recipe(), tmp_path / "whole", "drawn"))
    run = train(pixels, recipe(), tmp_path / "killed", "drawn")
    seen = 0
    for record in run:
        seen += isinstance(record, StepRecord)
        if seen == 5:  # in the middle of the second epoch
            run.close()
            break
    assert (tmp_path / "killed" / "checkpoint.safetensors").exists() and not (tmp_path / "killed" / "model.json").exists()
    rest = [r.epoch for r in train(pixels, recipe(), tmp_path / "killed", "drawn") if isinstance(r, EpochRecord)]
    assert rest == [2, 3]
    assert same(tmp_path / "whole", tmp_path / "killed")
    lines = (tmp_path / "killed" / "records.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


@pytest.mark.parametrize(
    "change",
    ["seed=1", "objective.instance=0", "objective.temperature=0.5", "objective.weights=[1,0]", "objective.smoothing=0.2",
     "schedule.accumulate=3", "schedule.lr=0.001", "schedule.weight_decay=0.9", "schedule.warmup=0.5", "augment.flip=0",
     "augment.rotate=40",
     'schedule.sizes={"0"=32,"1"=24}'],
)  # fmt: skip
def test_every_setting_changes_the_result(change: str, pixels: Pixels, tmp_path: Path) -> None:
    short = "schedule.epochs=2"
    list(train(pixels, recipe(short), tmp_path / "a", "drawn"))
    list(train(pixels, recipe(short, change), tmp_path / "b", "drawn"))
    assert not same(tmp_path / "a", tmp_path / "b")


def test_a_run_can_start_from_another(pixels: Pixels, tmp_path: Path) -> None:
    list(train(pixels, recipe(), tmp_path / "first", "drawn"))
    still = recipe("schedule.epochs=1", "schedule.lr=1e-12", f'init="{tmp_path / "first"}"', "schedule.embed_size=48")
    list(train(pixels, still, tmp_path / "second", "drawn"))
    first, second = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert torch.allclose(first["backbone.project.weight"], second["backbone.project.weight"], atol=1e-6)
    assert load_model(tmp_path / "second").size == 48
    with pytest.raises(ConfigError, match="other layers"):
        list(train(pixels, recipe("model.dims=[16]", f'init="{tmp_path / "first"}"'), tmp_path / "third", "drawn"))


def test_without_labels_only_similarity_can_be_learned(pixels: Pixels, tmp_path: Path) -> None:
    bare = Pixels(pixels.images, [None] * 32, pixels.hashes, [])
    with pytest.raises(DataError, match="32 of 32 images have no label"):
        list(train(bare, recipe(), tmp_path / "a", "drawn"))
    list(train(bare, recipe("objective.label=0", "schedule.epochs=1"), tmp_path / "b", "drawn"))
    assert load_model(tmp_path / "b").classes == ()
    with pytest.raises(ConfigError, match="nothing to learn"):
        list(train(bare, recipe("objective.label=0", "objective.instance=0"), tmp_path / "c", "drawn"))


def test_refusals(pixels: Pixels, tmp_path: Path) -> None:
    run = train(pixels, recipe(), tmp_path / "run", "drawn")
    next(run)
    run.close()
    with pytest.raises(ConfigError, match="another recipe"):
        list(train(pixels, recipe("seed=3"), tmp_path / "run", "drawn"))
    list(train(pixels, recipe(), tmp_path / "run", "drawn"))
    with pytest.raises(MrlSearchError, match="finished run"):
        list(train(pixels, recipe(), tmp_path / "run", "drawn"))
    with pytest.raises(DataError, match="do not fill one batch"):
        list(train(pixels, recipe("schedule.batch=64"), tmp_path / "other", "drawn"))
