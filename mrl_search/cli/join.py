"""`mrl-search join`: one index of the parts that several machines built."""

from pathlib import Path
from typing import Annotated

from mrl_search.cli import options
from mrl_search.cli.build_index import spec_of
from mrl_search.cli.options import argument, option
from mrl_search.cli.render import note, progress_bars, show_skipped

__all__ = ["join"]

AXES = f"{options.AXES_HELP} Fitted to all parts: views and labels read up to 700 pictures again."
SOURCE_HELP = "Where the pictures are on this machine, if the parts were built elsewhere."
PARTIAL_HELP = "Join although parts are missing; sync embeds their pictures later."


def join(
    parts: Annotated[list[Path], argument("PART…", "Folders that build-index --shard wrote.")],
    out: Annotated[Path, option("--out DIR", "New index folder.")],
    dims: Annotated[str | None, option("--dims 8,16,…", "Prefix lengths. Default: all.")] = None,
    factory: options.Factory = None,
    axes: Annotated[str | None, option("--axes KIND", AXES)] = None,
    rotate: options.Rotate = None,
    engine: options.Engine = "",
    source: Annotated[Path | None, option("--source SRC", SOURCE_HELP)] = None,
    partial: Annotated[bool, option("--partial", PARTIAL_HELP)] = False,
    model: options.IndexModel = None,
    device: options.Device = "auto",
) -> None:
    """Join parts of an index to one.

    The result is the index that one machine would have built. Parts are checked: one model, one
    source, each of them once. They stay as they are.
    """
    from mrl_search.files import expanded
    from mrl_search.joining import join_parts
    from mrl_search.store.manifest import MANIFEST

    spec = spec_of(dims, factory, engine=engine)
    again = (expanded(out) / MANIFEST).exists()
    with progress_bars() as progress:
        index = join_parts(
            parts, out, spec=spec, axes=axes, rotate=rotate, source=source, partial=partial,
            model=model, access=options.access_of(device), progress=progress,
        )  # fmt: skip
    m = index.manifest
    if again:
        note(f"{out} was joined of these parts before; it is complete.")
    show_skipped(index.corpus.collection.skipped, str(out / "skipped.json"))
    chosen = m.axes.get("choice", "none")
    note(f"dims {', '.join(map(str, index.dims))}, {m.dtype}, axes {chosen}")
    what = "vectors" if m.own_vectors else "images"
    note(f"{len(index):,} {what} of {len(parts)} parts in {out}")
    note(f"next: mrl-search info {out} --check")
