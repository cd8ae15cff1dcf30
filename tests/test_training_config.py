"""Recipes and their settings: what they accept, and the message for what they do not."""

import dataclasses
import tomllib
from pathlib import Path

import pytest

from mrl_search.encoders.config import ModelConfig
from mrl_search.errors import ConfigError
from mrl_search.mapping import from_mapping, to_mapping, to_toml
from mrl_search.training.config import (
    AugmentConfig,
    DataConfig,
    ObjectiveConfig,
    Recipe,
    ScheduleConfig,
    TrainConfig,
)
from mrl_search.training.pixels import pixel_side
from mrl_search.training.recipes import load_recipe, recipe_names


def test_every_recipe_of_the_package_loads() -> None:
    assert "pets" in recipe_names()
    for name in recipe_names():
        assert load_recipe(name).name == name


def test_a_step_overrides_the_base_and_starts_from_the_step_before(tmp_path: Path) -> None:
    file = tmp_path / "two.toml"
    file.write_text(
        'name = "two"\nseed = 7\n[schedule]\nepochs = 5\nbatch = 7\n'
        '[[steps]]\nname = "a"\n[steps.schedule]\nepochs = 2\n'
        '[[steps]]\nname = "b"\nseed = 8\n[steps.schedule]\nlr = 0.5\nsizes = { "0" = 32 }\n'
    )
    recipe = load_recipe(str(file))
    a, b = recipe.steps
    assert (recipe.name, a.name, b.name) == ("two", "two-a", "two-b")
    assert (a.init, b.init, a.seed, b.seed) == ("", "steps/two-a", 7, 8)
    assert [(c.schedule.epochs, c.schedule.batch, c.schedule.lr) for c in (a, b)] == [
        (2, 7, 0.002),
        (5, 7, 0.5),
    ]
    assert (a.schedule.sizes, b.schedule.sizes) == ({"0": 128}, {"0": 32})

    def epochs(*overrides: str) -> list[int]:
        return [c.schedule.epochs for c in load_recipe(str(file), overrides).steps]

    assert epochs("schedule.epochs=9") == [9, 9]
    assert epochs("steps.2.schedule.epochs=9") == epochs("steps.b.schedule.epochs=9") == [2, 9]
    assert epochs("schedule.epochs=9", "steps.1.schedule.epochs=3") == [3, 9]
    assert load_recipe(str(file), ["steps.a.schedule.sizes.0=40"]).steps[1] == b
    assert [c.name for c in load_recipe(str(file), ["name=x"]).steps] == ["x-a", "x-b"]
    wide = load_recipe(str(file), width=8, size=64)
    assert {c.model.widths[0] for c in wide.steps} == {8}
    assert {c.schedule.size(0) for c in wide.steps} == {64}
    assert load_recipe(f"{file}:a") == Recipe("two-a", (a,))
    alone = load_recipe(f"{file}:b", ["init=RUN", "seed=1", "name=mine"])
    assert alone == Recipe("mine", (dataclasses.replace(b, init="RUN", seed=1, name="mine"),))


@pytest.mark.parametrize(
    ("name", "overrides", "message", "hint"),
    [
        ("pets:six", [], "recipe pets has no step 'six'.", "base, refine, classes, axes, joint"),
        ("pets:axes", [], "pets:axes starts from the result of the step", "--set init=RUN"),
        ("pets", ["steps.6.seed=1"], "recipe pets has no step '6'.", "steps.joint.schedule"),
        ("pets", ["steps.x.seed=1"], "recipe pets has no step 'x'.", "steps.joint.schedule"),
        ("pets", ["steps=1"], "recipe pets: unknown key 'steps'.", ""),
        ("small", ["steps.2.seed=1"], "recipe small has no step '2'.", "steps.1.schedule"),
        ("small:a", [], "recipe small has no step 'a'.", ""),
    ],
)
def test_steps_that_do_not_exist(name: str, overrides: list[str], message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe(name, overrides)
    assert error.value.message.startswith(message) and hint in error.value.hint


@pytest.mark.parametrize("names", [("a", "a"), ("a", ""), ("A b",)])
def test_every_step_has_a_name(names: tuple[str, ...], tmp_path: Path) -> None:
    steps = "".join(f'[[steps]]\nname = "{name}"\n' for name in names)
    (tmp_path / "it.toml").write_text(steps)
    with pytest.raises(ConfigError, match="each step needs its own name"):
        load_recipe(str(tmp_path / "it.toml"))


def test_overrides_replace_single_values(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('name = "mine"\n[schedule]\nepochs = 5\nbatch = 7\n')
    (config,) = load_recipe(
        str(file),
        [
            "schedule.epochs=3",
            "schedule.lr = 1",
            "model.dims=[4, 8]",
            "name=other",
            'schedule.sizes={"0"=32}',
        ],
    ).steps
    assert (config.name, config.schedule.epochs, config.schedule.batch) == ("other", 3, 7)
    assert (config.schedule.lr, config.model.dims) == (1.0, (4, 8))
    assert isinstance(config.schedule.lr, float)
    assert config.schedule.size(9) == 32


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["schedule.epochs"], "'schedule.epochs' is not KEY=VALUE."),
        (["schedule.epoch=3"], "schedule: unknown key 'epoch'."),
        (["speed=3"], "unknown key 'speed'."),
        (["schedule.epochs=three"], "schedule: epochs is 'three'; it must be int."),
        (["schedule.epochs=2.5"], "schedule: epochs is 2.5; it must be int."),
        (["schedule.epochs=true"], "schedule: epochs is True; it must be int."),
        (
            ["schedule.epochs=0"],
            "schedule.epochs is 0; it must be positive unless axes and init are set.",
        ),
        (
            ["schedule.epochs=3"],
            "objective.instance_from is 14; it must be below schedule.epochs, 3.",
        ),
        (["schedule.batch=1"], "schedule.batch is 1; it must be 2 or more."),
        (["schedule.accumulate=0"], "schedule.accumulate is 0; it must be 1 or more."),
        (["schedule.weight_decay=-1"], "schedule.weight_decay is -1.0; it must be 0 or more."),
        (["schedule.embed_size=-5"], "schedule.embed_size is -5; it must be 0 or more."),
        (["schedule.warmup=1"], "schedule.warmup is 1.0; it must be 0 or more, and below 1."),
        (["schedule.lr=0"], "schedule.lr is 0.0; it must be positive."),
        (
            ["schedule.precision=fp8"],
            "schedule.precision is 'fp8'; it must be one of auto, no, bf16, fp16.",
        ),
        (["schedule.sizes={4=64}"], "schedule.sizes is {'4': 64}; it must be positive sides by"),
        (["schedule.sizes={}"], "schedule.sizes is {}; it must be positive sides by epoch"),
        (["augment.scale=[0.5]"], "augment: scale is [0.5]; it must be"),
        (["model=compact"], "model is 'compact'; it must be"),
        (["name.first=x"], "recipe pets: name is a value, not a section with 'first'."),
        (
            ["objective.weights=[1, 2]"],
            "objective.weights has 2 values; it must have one for each of 8 dims, or none.",
        ),
        (["objective.temperature=0"], "objective.temperature is 0.0; it must be positive."),
        (["objective.memory=-5"], "objective.memory is -5; it must be 0 or more."),
        (
            ["objective.smoothing=1"],
            "objective.smoothing is 1.0; it must be 0 or more, and below 1.",
        ),
        (
            ["model.backbone=huge"],
            "model.backbone is 'huge'; it must be one of compact, four-conv, general, timm:NAME.",
        ),
        (
            ["model.widths=[4, 8, 8, 8]"],
            "model.widths is [4, 8, 8, 8]; it must be four positive multiples of 8.",
        ),
        (
            ["model.widths=[8, 8, 8]"],
            "model.widths is [8, 8, 8]; it must be four positive multiples of 8.",
        ),
        (["model.dims=[64, 8]"], "model.dims is [64, 8]; it must be positive and ascending."),
        (["model.dims=[]"], "model.dims is []; it must be positive and ascending."),
        (["model.dims=[0, 8]"], "model.dims is [0, 8]; it must be positive and ascending."),
        (["augment.scale=[0.5, 0.3]"], "augment.scale is [0.5, 0.3]; it must be two positive"),
        (["augment.scale=[0.0, 0.3]"], "augment.scale is [0.0, 0.3]; it must be two positive"),
        (
            ["augment.aspect=[2, 1]"],
            "augment.aspect is [2.0, 1.0]; it must be two positive numbers",
        ),
        (["augment.flip=1.5"], "augment.flip is 1.5; it must be from 0 to 1."),
        (["augment.rotate=-1"], "augment.rotate is -1.0; it must be 0 or more."),
        (
            ["augment.outside=mirror"],
            "augment.outside is 'mirror'; it must be reflection or zeros.",
        ),
        (["data.validation=1"], "data.validation is 1.0; it must be a share over 0 and below 1."),
    ],
)
def test_overrides_that_make_no_sense(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe("pets:base", overrides)
    assert message in error.value.message


def test_unknown_and_unreadable_recipes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no recipe 'birds'.") as error:
        load_recipe("birds")
    assert "pets" in error.value.hint
    (tmp_path / "broken.toml").write_text("epochs = = 3")
    with pytest.raises(ConfigError, match=r"broken.toml cannot be read as TOML"):
        load_recipe(str(tmp_path / "broken.toml"))


CONFIGS = [
    TrainConfig(),
    TrainConfig(
        name='quo"ted \x7f 😀', seed=3, model=ModelConfig(widths=(8, 8, 16, 24), dims=(4, 8)),
        augment=AugmentConfig(jitter=(0, 0.5, 0.1, 0.0)),
        weak=AugmentConfig(jpeg=30, outside="zeros"), objective=ObjectiveConfig(weights=(1.0, 0.5)),
        schedule=ScheduleConfig(sizes={"0": 32, "3": 64}, precision="bf16"),
    ),
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS)
def test_a_recipe_can_be_written_and_read_back(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(to_toml(config), encoding="utf-8")
    assert load_recipe(str(tmp_path / "recipe.toml")) == Recipe(config.name, (config,))
    assert tomllib.loads(to_toml(config)) == {
        k: v for k, v in to_mapping(config).items() if v is not None
    }
    assert from_mapping(TrainConfig, to_mapping(config), "it") == config


def test_small_pictures_are_decoded_as_they_are() -> None:
    config = TrainConfig(schedule=ScheduleConfig(sizes={"0": 32, "4": 64}))
    sides = {
        native: pixel_side(dataclasses.replace(config, data=DataConfig(native=native)))
        for native in (0, 32, 64, 70, 500)
    }
    assert sides == {0: 80, 32: 64, 64: 64, 70: 70, 500: 80}


def test_images_grow_with_the_epochs() -> None:
    schedule = ScheduleConfig(sizes={"0": 64, "8": 96, "12": 128})
    assert [schedule.size(e) for e in (0, 7, 8, 11, 12, 99)] == [64, 64, 96, 96, 128, 128]


def test_epochs_without_any_objective_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"instance_from is 2; it must be 0 where objective.label is 0"
    ):
        load_recipe("small", ["objective.label=0", "objective.instance_from=2"])
