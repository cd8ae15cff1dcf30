"""`mrl-search join`: one index of the parts that several machines built."""

from pathlib import Path
from typing import Annotated

from mrl_search.cli.build_index import AXES_HELP, ENGINE_HELP, FACTORY_HELP, spec_of
from mrl_search.cli.options import Device, IndexModel, access_of, argument, option

__all__ = ["join"]

AXES = f"{AXES_HELP} Fitted to all parts: views and labels read up to 700 pictures again."
SOURCE_HELP = "Where the pictures are on this machine, if the parts were built elsewhere."
PARTIAL_HELP = "Join although parts are missing; sync embeds their pictures later."


def join(
    parts: Annotated[list[Path], argument("PART…", "Folders that build-index --shard wrote.")],
    out: Annotated[Path, option("--out DIR", "New index folder.")],
    dims: Annotated[str | None, option("--dims 8,16,…", "Prefix lengths. Default: all.")] = None,
    factory: Annotated[list[str] | None, option("--factory [DIMS=]KIND", FACTORY_HELP)] = None,
    axes: Annotated[str | None, option("--axes KIND", AXES)] = None,
    rotate: Annotated[
        str | None, option("--rotate pca", "For vectors: store them along their principal axes.")
    ] = None,
    engine: Annotated[str, option("--engine milvus:URI#NAME", ENGINE_HELP)] = "",
    source: Annotated[Path | None, option("--source SRC", SOURCE_HELP)] = None,
    partial: Annotated[bool, option("--partial", PARTIAL_HELP)] = False,
    model: IndexModel = None,
    device: Device = "auto",
) -> None:
    """Join parts of an index to one.

    The result is the index that one machine would have built. Parts are checked: one model, one
    source, each of them once. They stay as they are.
    """
    from mrl_search.cli.render import note, progress_bars, show_skipped
    from mrl_search.files import expanded
    from mrl_search.joining import join_parts
    from mrl_search.store.manifest import MANIFEST

    spec = spec_of(dims, factory, engine=engine)
    access, again = access_of(device), (expanded(out) / MANIFEST).exists()
    with progress_bars() as progress:
        index = join_parts(
            parts, out, spec=spec, axes=axes, rotate=rotate, source=source, partial=partial,
            model=model, access=access, progress=progress,
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
