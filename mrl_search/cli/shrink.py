"""`mrl-search shrink`: a smaller index from a larger one, and its cost in recall beforehand."""

from pathlib import Path
from typing import Annotated

import typer

from mrl_search.cli.opening import open_index
from mrl_search.cli.options import argument, bytes_of, option
from mrl_search.cli.render import note, percent, progress_bars, show_table
from mrl_search.errors import ConfigError
from mrl_search.files import refuse_existing

__all__ = ["shrink"]

DTYPE_HELP = "float16 or float32. Default: as in DIR; with --fit the better one."


def shrink(
    folder: Annotated[Path, argument("DIR", "The index; it stays as it is.")],
    out: Annotated[Path | None, option("--out DIR", "New index folder. Default: DIR-DIMS.")] = None,
    dims: Annotated[int | None, option("--dims", "Dims of the new vectors.", min=1)] = None,
    fit: Annotated[
        str | None, option("--fit SIZE", "Largest size, such as 200MB or 1.5GB.")
    ] = None,
    dtype: Annotated[str | None, option("--dtype", DTYPE_HELP)] = None,
    yes: Annotated[bool, option("--yes -y", "Do not ask before writing.")] = False,
) -> None:
    """Make a smaller index from DIR without embedding again.

    The recall that it keeps is measured and shown first.
    """
    from mrl_search.shrink import best_that_fits, candidates, shrink_index

    if (dims is None) == (fit is None):
        raise ConfigError("Give --dims or --fit.", "For example --dims 64, or --fit 200MB.")
    size = bytes_of(fit) if fit is not None else None
    index = open_index(folder)
    if out:
        refuse_existing(out)
    dtypes = ("float16", "float32") if size is not None else (index.manifest.dtype,)
    dtypes = (dtype,) if dtype else dtypes
    with progress_bars() as progress:
        every = sorted({*index.dims, dims or index.corpus.dim})
        found = candidates(index, every, dtypes, progress)
    if size is not None:
        chosen = best_that_fits(found, size)
    else:
        chosen = next(c for c in found if c.dims == dims)
    out = out or folder.resolve().with_name(f"{folder.resolve().name}-{chosen.dims}")
    refuse_existing(out)
    rows = []
    for c in found:
        mark = "chosen" if c == chosen else ""
        rows.append((str(c.dims), c.dtype, f"{c.bytes / 1e6:,.2f}", percent(c.recall), mark))
    show_table(("dims", "dtype", "MB, about", "recall@10", ""), rows, str(index.folder))
    note(
        f"recall@10: share of the 10 true neighbours in {index.folder} that exact search in the "
        f"smaller index finds; n = {chosen.queries}. Now {index.manifest.nbytes / 1e6:,.2f} MB."
    )
    note(f"{chosen.dims} dims in {chosen.dtype} lose {1 - chosen.recall:.1%} of the neighbours")
    if not yes and not _agreed(out):
        note("nothing was written; --yes writes without asking")
        raise typer.Exit(1)
    with progress_bars() as progress:
        shrink_index(index, out, chosen.dims, chosen.dtype, progress)
    note(f"{len(index):,} items in {out}\nnext: mrl-search info {out}")


def _agreed(out: Path) -> bool:
    try:
        return typer.confirm(f"Write {out}?", err=True)
    except typer.Abort:  # no terminal
        typer.echo(err=True)
        return False
