"""Plans: how to search, as a list of stages from coarse to fine."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from mrl_search.errors import ConfigError, require

__all__ = ["Plan", "Stage"]

STAGE = re.compile(r"(\d+)(?::(\d+))?(?:@(\d+))?")


@dataclass(frozen=True, slots=True)
class Stage:
    """Score by the cosine of the first `dims` numbers and keep the best `keep`.

    `effort` is how hard a first stage looks where its index is approximate: clusters that are visited (nprobe of IVF; on average, where
    clusters are found exactly: each query visits what it needs), or candidates that a walk holds (ef of HNSW); 0 leaves it to the index.
    Written `DIMS:KEEP` or `DIMS:KEEP@EFFORT`.
    """

    dims: int
    keep: int
    effort: int = 0

    def __str__(self) -> str:
        return f"{self.dims}:{self.keep}" + (f"@{self.effort}" if self.effort else "")


@dataclass(frozen=True, slots=True)
class Plan:
    """How to search: the first stage searches the index of its prefix, each later one re-scores the survivors on a longer prefix.

    One stage is a plain search at that prefix (exact search at full length), two are adaptive retrieval, three or more funnel
    retrieval (Matryoshka Representation Learning, arXiv 2205.13147, section 4.3).

    Raises:
        ConfigError: no stage, dims that do not grow, a shortlist that grows, or keeps nothing.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        require(
            bool(self.stages),
            "A plan needs at least one stage.",
            "For example 64:10, or 8:200,1024:10.",
        )
        for stage in self.stages:
            reads = min(stage.dims, stage.keep) >= 1 and stage.effort >= 0
            require(
                reads,
                f"Stage {stage} keeps nothing or reads nothing.",
                "Both numbers of a stage are at least 1.",
            )
        for a, b in pairwise(self.stages):
            grow = f"Plan {self}: dims must grow from stage to stage, {b.dims} follows {a.dims}."
            require(b.dims > a.dims, grow, "For example 8:200,64:50,1024.")
            require(
                b.keep <= a.keep,
                f"Plan {self}: a stage cannot keep more than the one before, {b.keep} follows {a.keep}.",
            )
            require(
                not b.effort,
                f"Plan {self}: only the first stage asks an index, {b} cannot.",
                "Leave its @ out.",
            )

    @classmethod
    def parse(cls, text: str, k: int) -> Self:
        """Read `8:200,64:50,1024` or `128:200@64,1024`; the last stage may leave its number out, and then keeps `k`.

        Raises:
            ConfigError: not of that form, or the last stage keeps fewer than `k`.
        """
        stages = []
        parts = text.replace(" ", "").split(",")
        for i, part in enumerate(parts):
            match = STAGE.fullmatch(part)
            if match is None or (match[2] is None and i < len(parts) - 1):
                raise ConfigError(
                    f"{text!r} is not a plan: {part!r} should be DIMS:KEEP.",
                    "For example 8:200,64:50,1024.",
                )
            stages.append(Stage(int(match[1]), int(match[2] or k), int(match[3] or 0)))
        plan = cls(tuple(stages))
        short = f"Plan {plan} keeps {plan.keep} at the end, fewer than the {k} asked for."
        require(plan.keep >= k, short, f"End it with :{k}, or ask for fewer with -k.")
        return plan

    @classmethod
    def single(cls, dims: int, k: int) -> Self:
        """The plan with one stage: search at one prefix."""
        return cls((Stage(dims, k),))

    @classmethod
    def adaptive(cls, dims: int, shortlist: int, full: int, k: int) -> Self:
        """A shortlist on a few dims, re-ranked at full length."""
        return cls((Stage(dims, max(shortlist, k)), Stage(full, k)))

    @classmethod
    def ladder(cls, dims: Sequence[int], shortlist: int, k: int) -> Self:
        """A stage at each of `dims`, ascending, that re-scores one shortlist; the last keeps `k`."""
        *early, last = dims
        return cls((*(Stage(d, max(shortlist, k)) for d in early), Stage(last, k)))

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(stage.dims for stage in self.stages)

    @property
    def keep(self) -> int:
        """How many answers come out at the end."""
        return self.stages[-1].keep

    def __str__(self) -> str:
        return ",".join(map(str, self.stages))
