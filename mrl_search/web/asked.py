"""What a request of the API may say, and what it means: a query and a `SearchRequest`."""

import base64
import contextlib
import struct
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mrl_search.encoders.words import Words
from mrl_search.engines.base import Mask
from mrl_search.errors import ConfigError, DataError
from mrl_search.index import Index
from mrl_search.search.corpus import Corpus
from mrl_search.search.plan import Plan
from mrl_search.search.request import SearchRequest
from mrl_search.search.results import BatchHits
from mrl_search.search.run import StopRule, answer, default_plan, search
from mrl_search.vectors import combined
from mrl_search.web.served import Sent, Served, rows_of

__all__ = [
    "MOST_DIMS", "Asked", "AskedBatch", "AskedGroup", "AskedMap", "AskedRemoval", "AskedVote",
    "Condition", "CopyLevel", "ItemId", "Label", "Query", "find", "first_of", "numbers", "query_of",
]  # fmt: skip

MOST = 5_000  # hits of an answer
KEPT = 50_000  # candidates of a stage, and its effort
KINDS = ("id", "query_id", "text", "image", "vector")
ItemId = Annotated[int, Field(ge=0, lt=2**63, description="Of an item.", examples=[3])]
MOST_DIMS = 65_536
Numbers = Annotated[list[float], Field(min_length=1, max_length=MOST_DIMS)]
Packed = Annotated[str, Field(min_length=1, max_length=360_000)]
Vector = Numbers | Packed
VECTOR = "As the model, or the user, gives it: numbers, or float32, little endian, in base64."
CopyLevel = Literal["exact", "pixels", "copy", "similar"]
Label = Annotated[str, Field(min_length=1, max_length=200)]
Condition = Annotated[str, Field(min_length=1, max_length=500)]
Image = Annotated[
    str, Field(min_length=1, max_length=48_000_000, description="A picture file, base64.")
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Part(NamedTuple):
    """One thing that is searched with: kind, value and weight, which is negative to subtract."""

    kind: str
    value: Any
    weight: float

    @classmethod
    def of(cls, kind: str, value: Any, weight: float = 1.0) -> Self:  # noqa: ANN401 - as its kind
        """A part; words may end in `^WEIGHT`, as on the command line."""
        if kind == "text":
            (own,) = Words(value).phrases.values()
            weight *= own
        return cls(kind, value, weight)


class _Thing(_Strict):
    id: ItemId | None = None
    query_id: str | None = Field(None, max_length=40, description="Of an earlier answer.")
    text: str | None = Field(None, min_length=1, max_length=2_000, examples=["a dog on a beach"])
    image: Image | None = None
    vector: Vector | None = Field(None, description=VECTOR)

    def named(self) -> list[tuple[str, Any]]:
        """Kind and value of what is named."""
        every = ((kind, getattr(self, kind)) for kind in KINDS)
        return [(kind, value) for kind, value in every if value is not None]


class Term(_Thing):
    """What hits shall look like, or not: an item, an embedded picture, words or a vector."""

    weight: float = Field(1.0, gt=0, le=1_000)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.named()) != 1:
            raise ValueError(f"name exactly one of {', '.join(KINDS)}")
        return self

    def part(self, sign: int) -> "Part":
        """As a part of a query, subtracted if `sign` is -1."""
        ((kind, value),) = self.named()
        return Part.of(kind, value, sign * self.weight)


class Query(_Thing):
    """What is searched for: one thing, or several added and subtracted."""

    plus: list[Term] = Field([], max_length=20)
    minus: list[Term] = Field([], max_length=20)

    def parts(self) -> list[Part]:
        """All that is searched with."""
        return [
            *(Part.of(kind, value) for kind, value in self.named()),
            *(term.part(1) for term in self.plus),
            *(term.part(-1) for term in self.minus),
        ]


class How(_Strict):
    """How to search."""

    plan: str | None = Field(
        None, max_length=200, examples=["64:200,1024"], description="Default: auto."
    )
    dims: int | None = Field(None, ge=1, le=65_536, description="One prefix; short for a plan.")
    k: int = Field(10, ge=1, le=MOST)
    where: list[Condition] = Field([], max_length=20, examples=[["label=cat"]])
    ids: list[ItemId] | None = Field(None, max_length=100_000, description="Only these items.")
    cutoff: Annotated[float, Field(ge=-1, le=1)] | Literal["auto"] | None = None

    def request(self, **more: Any) -> SearchRequest:  # noqa: ANN401
        """As a `SearchRequest`."""
        ids = None if self.ids is None else np.asarray(self.ids, np.int64)
        plan = Plan.of(self.dims if self.dims is not None else self.plan or "auto")
        for stage in plan.stages:
            if max(stage.keep or 0, stage.effort) > KEPT:
                message = f"Stage {stage} has a number above {KEPT:,}."
                raise ConfigError(message, "Run such a plan with mrl-search query.")
        return SearchRequest(plan, self.k, tuple(self.where), ids, self.cutoff, **more)


class Asked(Query, How):
    """A search."""

    expected: bool = Field(False, description="Also tell how many unrelated items score as high.")
    explain: bool = Field(False, description="Also tell rank and score at every prefix.")
    not_itself: bool = Field(True, description="Leave out the items that are searched with.")

    @cached_property
    def whole_request(self) -> SearchRequest:
        """As a `SearchRequest`, with what is to be told."""
        return self.request(explain=self.explain, expected=self.expected)


class AskedBatch(How):
    """Several searches alike."""

    queries: list[Query] = Field(min_length=1, max_length=256)
    not_itself: bool = True


class AskedVote(Query, How):
    """A classification by a vote of neighbours, or by words."""

    k: int = Field(20, ge=1, le=MOST)
    labels: list[Label] | None = Field(None, max_length=500)


class AskedMap(_Strict):
    """A map of some items."""

    dims: int = Field(1024, ge=1, le=65_536)
    ids: list[ItemId] = Field(min_length=1, max_length=20_000)


class AskedGroup(_Strict):
    """Items that are no copies of each other."""

    ids: list[ItemId] = Field(min_length=2, max_length=20)


class AskedRemoval(_Strict):
    """Items to take out of the index; their files stay."""

    ids: list[ItemId] = Field([], max_length=100_000)
    where: list[Condition] = Field([], max_length=20)


def query_of(
    served: Served, index: Index, parts: Sequence[Part]
) -> tuple[NDArray[np.float32], list[int], bool]:
    """The query (dim,) float32 of some parts, rows of its items, and whether it was embedded."""
    if not parts:
        raise DataError(
            "There is nothing to search with.", "Name an id, a picture, words or a vector."
        )
    rows, own, embedded = [], [], False
    for part in parts:
        row, item = _row(served, index, part)
        rows.append(row)
        own += item
        embedded |= part.kind in ("text", "image")
    if len(rows) == 1 and parts[0].weight > 0:
        return rows[0], own, embedded
    return combined(rows, [part.weight for part in parts]), own, embedded


def _row(served: Served, index: Index, part: Part) -> tuple[NDArray[np.float32], list[int]]:
    corpus, value = index.corpus, part.value
    match part.kind:
        case "id":
            place = rows_of(index, [value])
            return corpus.vectors.rows(place).astype(np.float32)[0], place.tolist()
        case "query_id":
            return served.recall(value), []
        case "vector":
            return corpus.to_space(numbers(value))[0], []
        case "text":
            return served.embed(Words(value)), []
        case _:
            return served.embed(Sent(_decoded(value, "picture"))), []


def numbers(vector: list[float] | str) -> NDArray[np.float32]:
    """A vector as a request has it: (n,) float32."""
    if not isinstance(vector, str):
        with contextlib.suppress(OverflowError):  # beyond float32: not finite, which is told later
            return np.frombuffer(struct.pack(f"{len(vector)}f", *vector), np.float32)
        return np.fromiter(vector, np.float32, len(vector))
    data = _decoded(vector, "vector")
    if len(data) % 4:
        raise DataError("The vector is not of float32.", "Encode four bytes for each number.")
    return np.frombuffer(data, "<f4").astype(np.float32)


def _decoded(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise DataError(f"The {what} is not base64.", "Encode its bytes.") from error


def find(
    index: Index, query: NDArray[np.float32], own: list[int], request: SearchRequest,
    seen: StopRule | None = None,
) -> BatchHits:  # fmt: skip
    """Answer a request for one query, (dim,) float32 in the space of `index`, without rows `own`.

    `seen` is called with the hits of every stage but the last; it ends no query.
    """
    corpus, more = index.corpus, len(own)
    plan = request.plan
    if more:
        plan = plan if plan != Plan.AUTO else default_plan(corpus, request.k + more)
        request = replace(request, plan=plan.widened(more), k=request.k + more)

    def staged(corpus: Corpus, rows: Any, plan: Plan, k: int, mask: Mask | None) -> BatchHits:  # noqa: ANN401
        return replace(search(corpus, rows, plan, k, mask, stop=seen), dims=None)

    hits = answer(corpus, query[None], request, staged if seen else search)
    if not more:
        return hits
    keep = np.flatnonzero(~np.isin(hits.rows[0], own))[: request.k - more]
    expected = None if hits.expected is None else hits.expected[:, keep]
    told = hits.explanation
    if told is not None:
        told = replace(told, scores=told.scores[:, keep], ranks=told.ranks[:, keep])
    rows, scores = hits.rows[:, keep], hits.scores[:, keep]
    return replace(hits, rows=rows, scores=scores, expected=expected, explanation=told, plan=plan)


def first_of(errors: Sequence[Any]) -> str:
    """The first of some errors of pydantic as a sentence."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    return f"{where or 'The request'}: {first['msg']}."
