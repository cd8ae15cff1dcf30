"""The options that several commands share, and what they mean together."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrl_search.errors import ConfigError, DataError
from mrl_search.search.plan import Plan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mrl_search.engines import Index
    from mrl_search.search.results import Queries

__all__ = [
    "Dims", "Ids", "Images", "IndexFolder", "IndexModel", "Json", "K", "PlanText", "Src", "VectorFile", "Where",
    "allowed_of", "bytes_of", "dims_of", "ladder_of", "open_index", "plan_of", "queries_of",
]  # fmt: skip

Src = Annotated[
    str,
    typer.Argument(
        metavar="SRC",
        help="An image folder, a data set on disk (folder or Parquet file), or hub:OWNER/NAME.",
    ),
]
IndexFolder = Annotated[
    Path | None,
    typer.Option("--index", metavar="DIR", help="Index to use; default: the newest in indexes/."),
]
Dims = Annotated[
    int | None, typer.Option("--dims", min=1, help="Search at this prefix length alone.")
]
PlanText = Annotated[
    str | None,
    typer.Option(
        "--plan", metavar="PLAN", help="Stages DIMS:KEEP, coarse to fine, as in 8:200,64:50,1024."
    ),
]
K = Annotated[int, typer.Option("-k", min=1, help="Neighbours to find.")]
Images = Annotated[
    list[str] | None, typer.Argument(metavar="[IMAGE…]", help="Pictures to search with.")
]
VectorFile = Annotated[
    str | None,
    typer.Option(
        "--vector",
        metavar="FILE",
        help="Search with the rows of a .npy file or a Parquet column instead of pictures.",
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="Only pictures of which this is true, as in label=cat or width>=200; may be repeated.",
    ),
]
Ids = Annotated[
    Path | None,
    typer.Option(
        "--ids",
        metavar="FILE",
        help="Only these rows of the index: one number a line, or a .npy file.",
    ),
]
IndexModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="The model that built the index, where it lies elsewhere now; default: where it was then.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]


SHORTLIST = 200  # what an early stop re-scores: so many, or 20 times k


def open_index(folder: Path | None) -> "Index":
    """The index that `--index` names, or the newest."""
    from mrl_search.engines import Index, newest_index

    return Index.open(folder or newest_index())


def plan_of(index: "Index", dims: int | None, plan: str | None, k: int, use: str = "query") -> Plan:
    """The plan that `--dims` or `--plan` asks for, or the index's own; every dim of it is one that the index has."""
    from mrl_search.search.tune import default_plan

    if dims is not None and plan is not None:
        raise ConfigError(
            "--dims and --plan were both given.",
            "--dims 64 is short for --plan 64; give one of them.",
        )
    result = (
        Plan.single(dims, k)
        if dims is not None
        else Plan.parse(plan, k)
        if plan is not None
        else default_plan(index, k, use)
    )
    for d in result.dims:
        index.check_dims(d)
    return result


def queries_of(
    index: "Index", images: list[str] | None, vector: str | None, model: str | None
) -> "Queries":
    """What to search `index` with: the pictures, embedded by its model, which may be at `model` now, or the rows of `--vector`."""
    if (not images) == (vector is None):
        raise ConfigError(
            "Give pictures to search with, or --vector FILE."
            if vector is None
            else "Pictures and --vector were both given."
        )
    if vector is not None:
        if model is not None:
            raise ConfigError(
                "--model is for pictures, and --vector was given.", "Leave one of them out."
            )
        from mrl_search.search.results import Queries
        from mrl_search.store.vector_files import read_queries

        rows = index.to_space(read_queries(vector))
        return Queries(
            [vector] if len(rows) == 1 else [f"{vector}[{i}]" for i in range(len(rows))], rows
        )
    index.check_takes_images()
    from mrl_search.encoders.registry import load_encoder
    from mrl_search.index import embed_queries

    queries = embed_queries(index, load_encoder(model or index.manifest.model), images or [])
    if not queries.names:
        from mrl_search.cli.render import show_skipped

        show_skipped(queries.skipped)
        raise DataError(
            "None of the images could be read.",
            "Name pictures in JPEG, PNG, WebP, GIF, BMP or TIFF.",
        )
    return queries


def ladder_of(index: "Index", dims: int | None, plan: str | None, k: int, first: int) -> Plan:
    """The plan that `--adaptive` climbs: the one given, or all prefixes of the index from `first` dims on."""
    if dims is not None:
        raise ConfigError(
            "--adaptive needs more than one prefix, and --dims names one.",
            "Leave --dims out, or give a --plan.",
        )
    if plan is not None:
        return plan_of(index, None, plan, k)
    steps = [d for d in index.dims if d >= first] or list(index.dims)
    return Plan.ladder(steps, max(SHORTLIST, 20 * k), k)


def allowed_of(
    index: "Index", where: list[str] | None, ids: Path | None
) -> "NDArray[np.int64] | None":
    """The rows that `--where` and `--ids` leave; None where neither is given."""
    from mrl_search.search import allowed_rows, read_ids

    return allowed_rows(index.items, where or (), read_ids(ids) if ids else None)


def dims_of(text: str) -> tuple[int, ...]:
    """Read `8,16,32`."""
    from mrl_search.vectors import check_dims

    try:
        return check_dims(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is not a list of dims.", "For example --dims 8,16,64,1024."
        ) from error


def bytes_of(text: str) -> int:
    """Read a size: `200MB`, `1.5GB`, `800kB`, or bytes; units are decimal."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip(), re.IGNORECASE)
    if not match:
        raise ConfigError(f"{text!r} is not a size.", "For example 200MB, 1.5GB or 800kB.")
    return int(float(match[1]) * 1000 ** " kmgt".index(match[2].lower() or " "))
