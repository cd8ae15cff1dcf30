"""`mrl-search build-index`: embed a corpus once and index it at every prefix."""

from pathlib import Path
from typing import Annotated

import typer

from mrl_search.cli.options import Model, Src, dims_of

__all__ = ["build_index"]


def build_index(
    src: Src,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="New index folder; default: indexes/NAME, after SRC.")] = None,
    model: Model = "bundled",
    dims: Annotated[
        str | None, typer.Option("--dims", metavar="8,16,…", help="Prefix lengths to index; default: all that the model has.")
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="How the full-length vectors are stored: float16 or float32.")] = "float16",
    split: Annotated[
        str | None, typer.Option("--split", metavar="PART", help="Only the train or validation part, as the model's training divided SRC.")
    ] = None,
) -> None:
    """Embed the images of SRC and build an index for every prefix; a build that was stopped goes on where it was."""
    from mrl_search.cli.render import note, progress_bars, show_skipped
    from mrl_search.config import IndexSpec
    from mrl_search.data.sources import open_source
    from mrl_search.models.encoder import load_encoder
    from mrl_search.storage import building_folder
    from mrl_search.workflow import build_index as build
    from mrl_search.workflow import part_of

    out = out or Path("indexes") / (Path(src.removeprefix("hub:")).resolve().name.split(".")[0] + (f"-{split}" if split else ""))
    building_folder(out)
    encoder = load_encoder(model)
    spec = IndexSpec(dims=dims_of(dims) if dims else encoder.dims, dtype=dtype)
    source = open_source(src)
    note(f"{len(source.paths):,} images of {source.name}")
    note(f"model {encoder.name} ({encoder.fingerprint[:12]}), dims {', '.join(map(str, spec.dims))}, {dtype}")
    with progress_bars() as progress:
        index = build(part_of(source, split, encoder, progress), encoder, out, spec, progress)
    show_skipped(index.embeddings.skipped, str(out / "skipped.json"))
    note(f"{len(index):,} images in {out}\nnext: mrl-search query IMAGE --index {out}")
