"""Plans, index specs and recipes: what they accept, and the sentence for what they do not."""

import dataclasses
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrl_search.encoders.config import ModelConfig
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import ConfigError
from mrl_search.mapping import from_mapping, to_mapping, to_toml
from mrl_search.search.plan import Plan, Stage
from mrl_search.training.config import (
    AugmentConfig,
    DataConfig,
    ObjectiveConfig,
    ScheduleConfig,
    TrainConfig,
)
from mrl_search.training.loop import pixel_side
from mrl_search.training.recipes import load_recipe, recipe_names


def test_a_plan_is_read_as_it_is_written() -> None:
    plan = Plan.parse("8:200, 64:50,1024", k=10)
    assert plan.stages == (Stage(8, 200), Stage(64, 50), Stage(1024, 10))
    assert str(plan) == "8:200,64:50,1024:10"
    assert (plan.dims, plan.keep) == ((8, 64, 1024), 10)


def test_the_short_ways_to_a_plan() -> None:
    assert Plan.single(64, 10) == Plan.parse("64", 10) == Plan.parse("64:10", 10)
    assert Plan.adaptive(8, 200, 1024, 10) == Plan.parse("8:200,1024", 10)
    assert Plan.adaptive(8, 5, 1024, 10) == Plan.parse("8:10,1024:10", 10)


@given(
    st.lists(st.integers(1, 4096), min_size=1, max_size=5, unique=True),
    st.lists(st.integers(1, 9999), min_size=5, max_size=5),
)
def test_every_plan_can_be_read_back(dims: list[int], keeps: list[int]) -> None:
    plan = Plan(
        tuple(Stage(d, k) for d, k in zip(sorted(dims), sorted(keeps, reverse=True), strict=False))
    )
    assert Plan.parse(str(plan), 1) == plan


@pytest.mark.parametrize(
    ("text", "k", "message"),
    [
        ("", 10, "'' is not a plan: '' should be DIMS:KEEP."),
        ("8,64:10", 10, "'8,64:10' is not a plan: '8' should be DIMS:KEEP."),
        ("8:200,", 10, "is not a plan: '' should be DIMS:KEEP."),
        ("8:", 10, "'8:' should be DIMS:KEEP."),
        ("8:many", 10, "'8:many' should be DIMS:KEEP."),
        ("-8:10", 10, "'-8:10' should be DIMS:KEEP."),
        ("8.5:10", 10, "should be DIMS:KEEP."),
        ("0:10", 10, "Stage 0:10 keeps nothing or reads nothing."),
        ("8:0", 0, "Stage 8:0 keeps nothing or reads nothing."),
        ("64:50,8:10", 10, "dims must grow from stage to stage, 8 follows 64."),
        ("8:50,8:10", 10, "dims must grow from stage to stage, 8 follows 8."),
        ("8:50,64:60", 10, "a stage cannot keep more than the one before, 60 follows 50."),
        ("8:5,64", 10, "a stage cannot keep more than the one before, 10 follows 5."),
        ("8:200,64:5", 10, "keeps 5 at the end, fewer than the 10 asked for."),
    ],
)
def test_what_is_no_plan(text: str, k: int, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Plan.parse(text, k)
    assert message in error.value.message


def test_a_plan_has_a_stage() -> None:
    with pytest.raises(ConfigError, match=r"at least one stage"):
        Plan(())


def test_plans_are_values() -> None:
    assert hash(Plan.single(8, 1)) == hash(Plan.single(8, 1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Plan.single(8, 1).stages = ()  # type: ignore[misc]


def test_an_index_spec_knows_two_types() -> None:
    assert IndexSpec().dtype == "float16"
    with pytest.raises(ConfigError, match=r"float16 or float32, not 'int8'"):
        IndexSpec(dtype="int8")


def test_every_recipe_of_the_package_loads() -> None:
    assert "pets" in recipe_names()
    for name in recipe_names():
        assert load_recipe(name).name == name


def test_overrides_replace_single_values(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('name = "mine"\n[schedule]\nepochs = 5\nbatch = 7\n')
    config = load_recipe(
        str(file),
        [
            "schedule.epochs=3",
            "schedule.lr = 1",
            "model.dims=[4, 8]",
            "name=other",
            'schedule.sizes={"0"=32}',
        ],
    )
    assert (config.name, config.schedule.epochs, config.schedule.batch) == ("other", 3, 7)
    assert (config.schedule.lr, config.model.dims) == (1.0, (4, 8))
    assert isinstance(config.schedule.lr, float)
    assert config.schedule.size(9) == 32


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["schedule.epochs"], "'schedule.epochs' is not KEY=VALUE."),
        (["schedule.epoch=3"], "schedule has no 'epoch'."),
        (["speed=3"], "has no 'speed'."),
        (["schedule.epochs=three"], "schedule: epochs cannot be 'three'."),
        (["schedule.epochs=2.5"], "schedule: epochs cannot be 2.5."),
        (["schedule.epochs=true"], "schedule: epochs cannot be True."),
        (["schedule.epochs=0"], "schedule.epochs is at least 1"),
        (["schedule.epochs=3"], "Similarity is learnt from epoch 14 on, the last is 2."),
        (["schedule.batch=1"], "accumulate is at least 1, batch 2"),
        (["schedule.accumulate=0"], "accumulate is at least 1, batch 2"),
        (["schedule.weight_decay=-1"], "nothing else below 0"),
        (["schedule.embed_size=-5"], "nothing else below 0"),
        (["schedule.warmup=1"], "warmup and keep shares below 1"),
        (["schedule.lr=0"], "lr positive"),
        (["schedule.precision=fp8"], "schedule.precision is auto, no, bf16 or fp16, not 'fp8'."),
        (["schedule.sizes={4=64}"], "schedule.sizes must say the size from epoch 0 on"),
        (["schedule.sizes={}"], "schedule.sizes must say the size from epoch 0 on"),
        (["augment.scale=[0.5]"], "augment: scale cannot be [0.5]."),
        (["model=compact"], "model cannot be 'compact'."),
        (["name.first=x"], "name is a value, it has no first."),
        (["objective.weights=[1, 2]"], "objective.weights has 2 numbers for 8 dims: "),
        (["objective.temperature=0"], "temperature is positive"),
        (["objective.memory=-5"], "nothing is below 0"),
        (["objective.smoothing=1"], "smoothing below 1"),
        (["model.backbone=huge"], "There is no backbone 'huge'."),
        (
            ["model.widths=[4, 8, 8, 8]"],
            "model.widths must be four multiples of 8, not [4, 8, 8, 8].",
        ),
        (["model.widths=[8, 8, 8]"], "model.widths must be four multiples of 8, not [8, 8, 8]."),
        (["model.dims=[64, 8]"], "model.dims must be lengths that grow, not [64, 8]."),
        (["model.dims=[]"], "model.dims must be lengths that grow, not []."),
        (["model.dims=[0, 8]"], "model.dims must be lengths that grow, not [0, 8]."),
        (["augment.scale=[0.5, 0.3]"], "scale is shares of the area"),
        (["augment.scale=[0.0, 0.3]"], "scale is shares of the area"),
        (["augment.aspect=[2, 1]"], "aspect is width over height"),
        (["augment.flip=1.5"], "flip, blur and jitter are from 0 to 1"),
        (["augment.rotate=-1"], "rotate is not negative"),
        (["augment.outside=mirror"], "outside is reflection or zeros, not 'mirror'"),
        (["data.validation=1"], "data.validation is a share between 0 and 1, not 1.0."),
    ],
)
def test_overrides_that_make_no_sense(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe("pets", overrides)
    assert message in error.value.message


def test_unknown_and_unreadable_recipes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no recipe 'birds'.") as error:
        load_recipe("birds")
    assert "pets" in error.value.hint
    (tmp_path / "broken.toml").write_text("epochs = = 3")
    with pytest.raises(ConfigError, match=r"broken.toml is not TOML"):
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
    assert load_recipe(str(tmp_path / "recipe.toml")) == config
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
    with pytest.raises(ConfigError, match="instance_from leaves the first epochs to the labels"):
        load_recipe("drawn", ["objective.label=0", "objective.instance_from=2"])
