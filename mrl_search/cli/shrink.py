"""`mrl-search shrink`: a smaller index from a larger one, and what it costs in recall before anything is written."""

from pathlib import Path
from typing import Annotated

import typer

from mrl_search.cli.options import bytes_of, open_index
from mrl_search.errors import ConfigError

__all__ = ["shrink"]


def shrink(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The index to shrink; it stays as it is.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="New index folder; default: DIR-DIMS."),
    ] = None,
    dims: Annotated[
        int | None, typer.Option("--dims", min=1, help="Keep so many numbers of every vector.")
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(
            "--fit",
            metavar="SIZE",
            help="Keep what gives the best recall in so much: 200MB, 1.5GB, 800kB.",
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            help="float16 or float32; default: that of DIR, with --fit the better of both.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write it without asking.")] = False,
) -> None:
    """Make a smaller index from DIR without embedding again; the recall it keeps is measured and told first."""
    from mrl_search.cli.render import note, percent, progress_bars, show_table
    from mrl_search.engines.shrink import best_that_fits, candidates, shrink_index
    from mrl_search.files import refuse_existing

    if (dims is None) == (fit is None):
        raise ConfigError("Give one of --dims and --fit.", "For example --dims 64, or --fit 200MB.")
    size = bytes_of(fit) if fit is not None else None
    index = open_index(folder)
    if out:
        refuse_existing(out)
    dtypes = (
        (dtype,) if dtype else (index.manifest.dtype,) if size is None else ("float16", "float32")
    )
    lengths = sorted({*index.dims, dims or index.dim})
    with progress_bars() as progress:
        found = candidates(index, lengths, dtypes, progress)
    chosen = (
        best_that_fits(found, size)
        if size is not None
        else next(c for c in found if c.dims == dims)
    )
    out = out or folder.resolve().with_name(f"{folder.resolve().name}-{chosen.dims}")
    refuse_existing(out)
    rows = [
        (
            str(c.dims),
            c.dtype,
            f"{c.bytes / 1e6:,.2f}",
            percent(c.recall),
            "←" if c == chosen else "",
        )
        for c in found
    ]
    show_table(("dims", "dtype", "MB", "recall@10", ""), rows, str(index.folder))
    note(
        f"recall@10: of the 10 true neighbours in {index.folder}, {sum(f.bytes for f in index.manifest.files.values()) / 1e6:,.2f} MB, "
        f"exact search in the smaller index finds so many; {chosen.queries} of {len(index):,} rows asked"
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
    except typer.Abort:  # nobody there to answer
        typer.echo(err=True)
        return False
