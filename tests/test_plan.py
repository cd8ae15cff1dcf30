"""Plans: what the plan language accepts, and the sentence for what it does not."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrl_search.errors import ConfigError
from mrl_search.search.plan import Plan, Stage


def test_a_plan_is_read_as_it_is_written() -> None:
    plan = Plan.parse("8:200, 64:50,1024")
    assert plan.stages == (Stage(8, 200), Stage(64, 50), Stage(1024))
    assert str(plan) == "8:200,64:50,1024"
    assert (plan.dims, plan.shortest) == ((8, 64, 1024), 50)


def test_a_plan_is_written_with_its_effort() -> None:
    plan = Plan.parse("64:200@32,1024")
    assert plan.stages == (Stage(64, 200, 32), Stage(1024))
    assert str(plan) == "64:200@32,1024"
    assert Plan.parse("64@5").stages == (Stage(64, None, 5),)


def test_the_short_ways_to_a_plan() -> None:
    assert Plan.single(64) == Plan.parse("64") == Plan.of(64) == Plan.of("64")
    assert Plan.rerank(8, 200, 1024) == Plan.parse("8:200,1024")
    assert Plan.ladder((8, 16, 64), 200) == Plan.parse("8:200,16:200,64")
    assert Plan.of(Plan.EXACT) is Plan.EXACT
    assert Plan.single(64).shortest is None


def test_exact_and_auto_are_plans() -> None:
    for word, plan in (("exact", Plan.EXACT), ("auto", Plan.AUTO)):
        assert Plan.parse(word) == Plan.of(word) == plan
        assert str(plan) == word and plan.dims == () and plan.shortest is None
        assert plan.widened(5) == plan.at_least(5) == plan
    with pytest.raises(ConfigError, match=r"There is no plan 'fast'"):
        Plan(word="fast")


plans = st.builds(
    lambda dims, keeps, effort: Plan(
        tuple(
            Stage(d, None if i == len(dims) - 1 else k, 0 if i else effort)
            for i, (d, k) in enumerate(zip(sorted(dims), sorted(keeps, reverse=True), strict=False))
        )
    ),
    st.lists(st.integers(1, 4096), min_size=1, max_size=5, unique=True),
    st.lists(st.integers(1, 9999), min_size=5, max_size=5),
    st.integers(0, 999),
)


@given(plans | st.sampled_from([Plan.EXACT, Plan.AUTO]))
def test_every_plan_can_be_read_back(plan: Plan) -> None:
    assert Plan.parse(str(plan)) == plan


@given(plans, st.integers(0, 99), st.integers(1, 999))
def test_plans_can_be_widened(plan: Plan, extra: int, k: int) -> None:
    wide = plan.widened(extra)
    assert wide.dims == plan.dims and wide.stages[0].effort == plan.stages[0].effort
    assert wide.shortest == (None if plan.shortest is None else plan.shortest + extra)
    least = plan.at_least(k)
    assert least.dims == plan.dims and least.stages[-1] == plan.stages[-1]
    assert (least.shortest or k) >= k and Plan.parse(str(least)) == least


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not a plan: '' is not DIMS:KEEP."),
        ("8,64", "Stage 8 of plan 8,64 needs DIMS:KEEP."),
        ("8:200,", "is not a plan: '' is not DIMS:KEEP."),
        ("8:", "'8:' is not DIMS:KEEP."),
        ("8:many", "'8:many' is not DIMS:KEEP."),
        ("-8:10", "'-8:10' is not DIMS:KEEP."),
        ("8.5:10", "is not DIMS:KEEP."),
        ("64@", "is not a plan"),
        ("64:5@x,128", "is not a plan"),
        ("0", "Stage 0 of plan 0 has a number below 1."),
        ("8:0,64", "Stage 8:0 of plan 8:0,64 has a number below 1."),
        ("64:50,8", "dims must grow; 8 follows 64."),
        ("8:50,8", "dims must grow; 8 follows 8."),
        ("8:50,64:60,128", "a stage cannot keep more than the one before it."),
        ("64:200,1024@5", "only the first stage takes an effort (@)."),
        ("8:200,64:5", "Plan 8:200,64:5 ends with :5, but the last stage keeps what -k says."),
        ("64:10", "Plan 64:10 ends with :10"),
        ("fast", "'fast' is not a plan"),
        ("exact,64", "'exact' is not DIMS:KEEP."),
    ],
)
def test_what_is_not_a_plan(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Plan.parse(text)
    assert message in error.value.message


def test_a_number_at_the_end_is_told_what_to_write() -> None:
    with pytest.raises(ConfigError) as error:
        Plan.parse("8:200@4,64:5")
    assert error.value.hint == "Give the plan 8:200@4,64, and -k 5."


def test_stages_that_make_no_plan() -> None:
    with pytest.raises(ConfigError, match=r"at least one stage"):
        Plan(())
    with pytest.raises(ConfigError, match=r"The last stage of 8:5 keeps k answers"):
        Plan((Stage(8, 5),))
    with pytest.raises(ConfigError, match=r"has a number below 1"):
        Plan((Stage(8, None, -1),))


def test_plans_are_values() -> None:
    assert hash(Plan.single(8)) == hash(Plan.single(8))
    assert len({Plan.parse("8:5,64"), Plan.rerank(8, 5, 64), Plan.EXACT}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        Plan.single(8).stages = ()  # type: ignore[misc]
