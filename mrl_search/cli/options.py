"""The options that several commands share, and what they mean together."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrl_search.config import Plan
from mrl_search.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mrl_search.index import Index

__all__ = [
    "Dims",
    "Ids",
    "IndexFolder",
    "Json",
    "K",
    "Model",
    "PlanText",
    "Src",
    "Where",
    "allowed_of",
    "dims_of",
    "ladder_of",
    "open_index",
    "plan_of",
]

Src = Annotated[str, typer.Argument(metavar="SRC", help="An image folder, a data set on disk (folder or Parquet file), or hub:OWNER/NAME.")]
Model = Annotated[str, typer.Option("--model", help="bundled, a run folder, or torchvision:NAME.")]
IndexFolder = Annotated[Path | None, typer.Option("--index", metavar="DIR", help="Index to use; default: the newest in indexes/.")]
Dims = Annotated[int | None, typer.Option("--dims", min=1, help="Search at this prefix length alone.")]
PlanText = Annotated[str | None, typer.Option("--plan", metavar="PLAN", help="Stages DIMS:KEEP, coarse to fine, as in 8:200,64:50,1024.")]
K = Annotated[int, typer.Option("-k", min=1, help="Neighbours to find.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where", metavar="CONDITION", help="Only pictures of which this is true, as in label=cat or width>=200; may be repeated."
    ),
]
Ids = Annotated[Path | None, typer.Option("--ids", metavar="FILE", help="Only these rows of the index: one number a line, or a .npy file.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]


SHORTLIST = 200  # what an early stop re-scores: so many, or 20 times k


def open_index(folder: Path | None) -> "Index":
    """The index that `--index` names, or the newest."""
    from mrl_search.index import Index, newest_index

    return Index.open(folder or newest_index())


def plan_of(index: "Index", dims: int | None, plan: str | None, k: int) -> Plan:
    """The plan that `--dims` or `--plan` asks for, or the index's own; every dim of it is one that the index has."""
    from mrl_search.workflow import default_plan

    if dims is not None and plan is not None:
        raise ConfigError("--dims and --plan were both given.", "--dims 64 is short for --plan 64; give one of them.")
    result = Plan.single(dims, k) if dims is not None else Plan.parse(plan, k) if plan is not None else default_plan(index, k)
    for d in result.dims:
        index.check_dims(d)
    return result


def ladder_of(index: "Index", dims: int | None, plan: str | None, k: int, first: int) -> Plan:
    """The plan that `--adaptive` climbs: the one given, or all prefixes of the index from `first` dims on."""
    if dims is not None:
        raise ConfigError("--adaptive needs more than one prefix, and --dims names one.", "Leave --dims out, or give a --plan.")
    if plan is not None:
        return plan_of(index, None, plan, k)
    steps = [d for d in index.dims if d >= first] or list(index.dims)
    return Plan.ladder(steps, max(SHORTLIST, 20 * k), k)


def allowed_of(index: "Index", where: list[str] | None, ids: Path | None) -> "NDArray[np.int64] | None":
    """The rows that `--where` and `--ids` leave; None where neither is given."""
    from mrl_search.search import allowed_rows, read_ids

    return allowed_rows(index.items, where or (), read_ids(ids) if ids else None)


def dims_of(text: str) -> tuple[int, ...]:
    """Read `8,16,32`."""
    from mrl_search.vectors import check_dims

    try:
        return check_dims(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a list of dims.", "For example --dims 8,16,64,1024.") from error
