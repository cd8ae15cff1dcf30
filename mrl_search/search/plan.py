"""Plans: how to search, as a list of stages from coarse to fine."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar, Self

from mrl_search.errors import ConfigError, require

__all__ = ["Plan", "Stage"]

STAGE = re.compile(r"(\d{1,9})(?::(\d{1,9}))?(?:@(\d{1,9}))?")
EXAMPLE = "For example 64, or 8:200,64:50,1024, or exact."


@dataclass(frozen=True, slots=True)
class Stage:
    """Score by the cosine of the first `dims` dims and keep the best `keep`.

    Attributes:
        dims: prefix length.
        keep: answers that go on to the next stage; None in the last stage, which keeps k.
        effort: how much an approximate first index looks at: clusters to visit on average, or
            candidates to hold; 0 is the default of the index. Written `DIMS:KEEP@EFFORT`.

    Example:
        >>> str(Stage(128, 200, effort=64))
        '128:200@64'
    """

    dims: int
    keep: int | None = None
    effort: int = 0

    def __str__(self) -> str:
        keep = "" if self.keep is None else f":{self.keep}"
        return f"{self.dims}{keep}" + (f"@{self.effort}" if self.effort else "")


@dataclass(frozen=True, slots=True)
class Plan:
    """How to search. The first stage asks a prefix index; each later one re-ranks what is left.

    One stage is a search on one prefix, two are adaptive retrieval, more are funnel retrieval
    (Matryoshka Representation Learning, arXiv 2205.13147, section 4.3). A plan holds no k: the last
    stage keeps as many answers as a call wants. `exact` finds the true nearest at full length;
    `auto` is the index's tuned plan, or `exact`.

    Raises:
        ConfigError: dims that do not grow, a shortlist that grows, or one that keeps nothing.

    Example:
        >>> plan = Plan.parse("8:200,64:50,1024")
        >>> plan.dims
        (8, 64, 1024)
        >>> str(plan)
        '8:200,64:50,1024'
    """

    stages: tuple[Stage, ...] = ()
    word: str = ""
    EXACT: ClassVar["Plan"]
    AUTO: ClassVar["Plan"]

    def __post_init__(self) -> None:
        if self.word:
            require(self.word in ("exact", "auto"), f"There is no plan {self.word!r}.", EXAMPLE)
            return
        require(bool(self.stages), "A plan needs at least one stage.", EXAMPLE)
        for stage in self.stages:
            positive = min(stage.dims, stage.keep or 1) >= 1 and stage.effort >= 0
            nothing = f"Stage {stage} of plan {self} has a number below 1."
            require(positive and stage.keep != 0, nothing, EXAMPLE)
        last = f"The last stage of {self} keeps k answers, no other number."
        require(self.stages[-1].keep is None, last)
        for a, b in pairwise(self.stages):
            require(a.keep is not None, f"Stage {a} of plan {self} needs DIMS:KEEP.", EXAMPLE)
            order = f"Plan {self}: dims must grow; {b.dims} follows {a.dims}."
            require(b.dims > a.dims, order, EXAMPLE)
            grows = f"Plan {self}: a stage cannot keep more than the one before it."
            require(b.keep is None or b.keep <= (a.keep or 0), grows, EXAMPLE)
            require(not b.effort, f"Plan {self}: only the first stage takes an effort (@).")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `64`, `8:200,64:50,1024`, `128:200@64,1024`, `exact` or `auto`.

        Raises:
            ConfigError: not of that form.
        """
        text = "".join(text.split())
        if text in ("exact", "auto"):
            return cls(word=text)
        stages = []
        parts = text.split(",")
        for i, part in enumerate(parts):
            match = STAGE.fullmatch(part)
            if match is None:
                raise ConfigError(f"{text!r} is not a plan: {part!r} is not DIMS:KEEP.", EXAMPLE)
            if match[2] is not None and i == len(parts) - 1:
                short = ",".join([*parts[:-1], part.replace(f":{match[2]}", "", 1)])
                message = (
                    f"Plan {text} ends with :{match[2]}, but the last stage keeps what -k says."
                )
                raise ConfigError(message, f"Give the plan {short}, and -k {match[2]}.")
            keep = None if match[2] is None else int(match[2])
            stages.append(Stage(int(match[1]), keep, int(match[3] or 0)))
        return cls(tuple(stages))

    @classmethod
    def of(cls, plan: "Plan | str | int") -> "Plan":
        """A plan as it is, as text, or as the dims of its only stage."""
        if isinstance(plan, Plan):
            return plan
        return _parsed(plan) if isinstance(plan, str) else cls.single(plan)

    @classmethod
    def single(cls, dims: int) -> Self:
        """Search on one prefix."""
        return cls((Stage(dims),))

    @classmethod
    def rerank(cls, dims: int, shortlist: int, full: int) -> Self:
        """A shortlist on a few dims, re-ranked at `full` dims."""
        return cls((Stage(dims, shortlist), Stage(full)))

    @classmethod
    def ladder(cls, dims: Sequence[int], shortlist: int) -> Self:
        """A stage at each of `dims`, ascending, that re-ranks one shortlist."""
        *early, last = dims
        return cls((*(Stage(d, shortlist) for d in early), Stage(last)))

    @property
    def dims(self) -> tuple[int, ...]:
        """Prefix length of each stage."""
        return tuple(stage.dims for stage in self.stages)

    @property
    def shortest(self) -> int | None:
        """The smallest shortlist; None for a single stage."""
        return min((stage.keep for stage in self.stages if stage.keep is not None), default=None)

    def widened(self, extra: int) -> "Plan":
        """The same plan with `extra` more kept by every stage but the last."""
        return self._kept(lambda keep: keep + extra)

    def at_least(self, k: int) -> "Plan":
        """The same plan with shortlists of at least `k`."""
        return self._kept(lambda keep: max(keep, k))

    def _kept(self, change: Callable[[int], int]) -> "Plan":
        """The same plan with every shortlist changed."""
        if not self.stages:
            return self
        *early, last = self.stages
        return Plan((*(replace(s, keep=change(s.keep or 0)) for s in early), last))

    def __str__(self) -> str:
        return self.word or ",".join(map(str, self.stages))


@lru_cache(maxsize=1000)
def _parsed(text: str) -> Plan:
    return Plan.parse(text)


Plan.EXACT = Plan(word="exact")
Plan.AUTO = Plan(word="auto")
