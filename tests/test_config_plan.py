"""Plans and index specs: what they accept, and the message for what they do not."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import ConfigError
from mrl_search.search.plan import Plan, Stage


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
