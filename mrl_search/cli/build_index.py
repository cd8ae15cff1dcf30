"""`mrl-search build-index`: embed a corpus once, or take vectors as they are, and index it at every prefix."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from mrl_search.cli.options import dims_of
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import ConfigError

__all__ = ["build_index"]

Kinds: TypeAlias = Callable[[tuple[int, ...]], IndexSpec]


def build_index(
    src: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="Images: a folder, a data set on disk (folder or Parquet file), or hub:OWNER/NAME. "
            "Vectors: a .npy file, a folder of them, or FILE.parquet#COLUMN.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="New index folder; default: indexes/NAME, after SRC."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Of images: bundled, a run folder, or torchvision:NAME; default: bundled.",
        ),
    ] = None,
    dims: Annotated[
        str | None,
        typer.Option(
            "--dims",
            metavar="8,16,…",
            help="Prefix lengths to index; default: all that the model has; of vectors, 8, 16, 32, …",
        ),
    ] = None,
    factory: Annotated[
        list[str] | None,
        typer.Option(
            "--factory",
            metavar="[DIMS=]KIND",
            help="Kind of index, for all prefixes or one: a FAISS factory string such as Flat or 64=HNSW16,SQ8, or Scan for none; "
            "default: by the size of the corpus. May be repeated.",
        ),
    ] = None,
    dtype: Annotated[
        str,
        typer.Option("--dtype", help="How the full-length vectors are stored: float16 or float32."),
    ] = "float16",
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="PART",
            help="Of images: only the train or validation part, as the model's training divided SRC.",
        ),
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option(
            "--items",
            metavar="PARQUET",
            help="Of vectors: a table with one row a vector: path, label, and columns of your own.",
        ),
    ] = None,
    rotate: Annotated[
        str | None,
        typer.Option(
            "--rotate",
            metavar="pca",
            help="Of vectors: store them along their principal axes (see info --check).",
        ),
    ] = None,
) -> None:
    """Embed the images of SRC, or take its vectors, and build an index for every prefix; embedding that was stopped goes on."""
    from mrl_search.store.vector_files import holds_vectors

    vectors = holds_vectors(src)
    given = (
        {"--model": model, "--split": split} if vectors else {"--items": items, "--rotate": rotate}
    )
    for option, value in given.items():
        if value is not None:
            what, other = ("vectors", "images") if vectors else ("images", "vectors of your own")
            raise ConfigError(
                f"{src} holds {what}; {option} is for {other}.", f"Leave {option} out."
            )
    place = Path((src.partition("#")[0] if vectors else src).removeprefix("hub:")).resolve()
    name = (place.name.split(".")[0] if place.is_file() else place.name.lstrip(".")) + (
        f"-{split}" if split else ""
    )
    out = out or Path("indexes") / name
    if vectors:
        _from_vectors(src, out, dims, _kinds(factory, dtype), items, rotate)
    else:
        _from_images(src, out, dims, _kinds(factory, dtype), model or "bundled", split)


def _kinds(factory: list[str] | None, dtype: str) -> Kinds:
    """The spec that `--factory` and `--dtype` ask for, once the dims are known."""
    given: dict[str, str] = {}
    for text in factory or ():
        dims, equals, kind = text.partition("=")
        prefix, kind = (dims, kind) if equals and dims.isdecimal() else ("", text)
        if prefix in given:
            which = f"for {prefix} dims" if prefix else "for all prefixes"
            raise ConfigError(
                f"--factory gives two kinds of index {which}: {given[prefix]} and {kind}.",
                "Leave one of them out.",
            )
        given[prefix] = kind
    every = given.pop("", "auto")
    return lambda dims: IndexSpec(dims, every, given, dtype)


def _from_images(
    src: str, out: Path, dims: str | None, kinds: Kinds, model: str, split: str | None
) -> None:
    from mrl_search.cli.render import note, progress_bars, show_skipped
    from mrl_search.encoders.registry import load_encoder
    from mrl_search.files import refuse_existing
    from mrl_search.images.sources import open_source
    from mrl_search.index import build_index as build
    from mrl_search.measure.parts import part_of
    from mrl_search.vectors import check_dims

    refuse_existing(out.expanduser())
    encoder = load_encoder(model)
    spec = kinds(
        check_dims({*dims_of(dims), encoder.dims[-1]}, encoder.dims[-1]) if dims else encoder.dims
    )
    source = open_source(src)
    note(f"{len(source.paths):,} images of {source.name}")
    note(
        f"model {encoder.name} ({encoder.fingerprint[:12]}), dims {', '.join(map(str, spec.dims))}, {spec.dtype}"
    )
    with progress_bars() as progress:
        index = build(part_of(source, split, encoder, progress), encoder, out, spec, progress)
    show_skipped(index.embeddings.skipped, str(out / "skipped.json"))
    note(f"{len(index):,} images in {out}\nnext: mrl-search query IMAGE --index {out}")


def _from_vectors(
    src: str, out: Path, dims: str | None, kinds: Kinds, items: Path | None, rotate: str | None
) -> None:
    from mrl_search.cli.render import note, progress_bars
    from mrl_search.store.own_vectors import index_vectors
    from mrl_search.store.vector_files import open_vectors
    from mrl_search.vectors import check_dims, default_dims

    source = open_vectors(src)
    spec = kinds(
        check_dims({*dims_of(dims), source.dim}, source.dim) if dims else default_dims(source.dim)
    )
    note(f"{source.count:,} vectors of {source.dim:,} numbers ({source.dtypes}) in {source.name}")
    note(
        f"dims {', '.join(map(str, spec.dims))}, {spec.dtype}"
        + (f", rotated by {rotate}" if rotate else "")
    )
    with progress_bars() as progress:
        index = index_vectors(source, out, spec, items=items, rotation=rotate, progress=progress)
    note(f"{len(index):,} vectors in {out}")
    note(
        f"next: mrl-search info {out} --check\n      mrl-search query --vector QUERY.npy --index {out}"
    )
