"""`mrl-search build-index`: embed pictures once, or take vectors, and index every prefix."""

import os
from collections.abc import Mapping
from contextlib import ExitStack, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mrl_search.cli import options
from mrl_search.cli.options import argument, option
from mrl_search.cli.render import note, progress_bars, show_skipped, show_source
from mrl_search.errors import ConfigError
from mrl_search.files import expanded

if TYPE_CHECKING:
    from mrl_search.encoders.base import Encoder
    from mrl_search.engines.spec import IndexSpec
    from mrl_search.images.sources import Source
    from mrl_search.store.shard import Shard
    from mrl_search.store.vector_files import VectorSource

__all__ = ["build_index", "spec_of"]

SRC_HELP = (
    "Pictures: a folder, a data set on disk, or hub:OWNER/NAME. "
    "Vectors: a .npy file, FILE.parquet#COLUMN, or a folder of such files."
)
MODEL_HELP = (
    "For pictures: general (the default where it is installed), bundled, a run folder, or "
    "timm:NAME, torchvision:NAME and others (mrl-search models)."
)
SHARD_HELP = (
    "Build one part on one of several machines, such as 3/16; mrl-search join makes them one index."
)


def build_index(
    src: Annotated[str, argument("SRC", SRC_HELP)],
    out: Annotated[
        Path | None, option("--out DIR", "New index folder. Default: indexes/NAME of SRC.")
    ] = None,
    model: Annotated[str | None, option("--model", MODEL_HELP)] = None,
    dims: Annotated[
        str | None,
        option("--dims 8,16,…", "Prefix lengths. Default: all of the model; 8, 16, 32, …"),
    ] = None,
    factory: options.Factory = None,
    dtype: Annotated[
        str, option("--dtype", "Of the stored vectors: float16 or float32.")
    ] = "float16",
    axes: Annotated[str | None, option("--axes KIND", options.AXES_HELP)] = None,
    device: options.Device = "auto",
    offline: options.Offline = False,
    yes: options.Yes = False,
    split: options.Split = None,
    labels: options.Labels = "",
    column: options.Column = None,
    hidden: options.Hidden = False,
    items: options.Items = None,
    rotate: options.Rotate = None,
    shard: Annotated[str | None, option("--shard NUMBER/COUNT", SHARD_HELP)] = None,
    engine: options.Engine = "",
) -> None:
    """Index pictures, or vectors of your own, at every prefix.

    Pictures are embedded by a model. A stopped build continues where it was. Started by accelerate
    launch, all GPUs of the machine embed.
    """
    from mrl_search.encoders.ranks import launched, one_by_one
    from mrl_search.engines.milvus_client import Place
    from mrl_search.store.numbered_files import split_column, split_pattern
    from mrl_search.store.source_kind import holds_vectors

    given: dict[str, dict[str, object]] = {
        "vectors": {"--items": items, "--rotate": rotate},
        "pictures": {
            "--model": model, "--axes": axes, "--split": split, "--labels": labels or None,
            "--column": column,
        },
    }  # fmt: skip
    wanted = [kind for kind, values in given.items() if set(values.values()) - {None}]
    vectors = holds_vectors(src, wanted[0] if len(wanted) == 1 else "")
    what, other = ("vectors", "pictures") if vectors else ("pictures", "vectors")
    for name, value in given[other].items():
        if value is not None:
            raise ConfigError(f"{name} is for {other}; {src} holds {what}.", "Leave it out.")
    file = split_pattern(split_column(src)[0])[0] if vectors else Path(src.removeprefix("hub:"))
    place = file.resolve()
    name = place.name.split(".")[0] if place.is_file() else place.name.lstrip(".")
    later = {
        "--dims": dims, "--factory": factory, "--axes": axes, "--rotate": rotate,
        "--engine": engine or None,
    }  # fmt: skip
    share = _shard(shard, later)
    name += (f"-{split}" if split else "") + (f"-{share.number}-of-{share.count}" if share else "")
    out = out or Path("indexes") / name
    if Place.is_one(str(out)):
        hint = f"Name Milvus so: --engine '{out}'"
        raise ConfigError(f"--out is {out}; it must be a folder of this machine.", hint)
    first = launched()[0] == 0
    if vectors and not first:
        return
    spec = spec_of(dims, factory, dtype, engine)
    if vectors and share:
        _vector_part(src, out, share, items, dtype)
    elif vectors:
        _from_vectors(src, out, spec, items, rotate)
    else:
        from mrl_search.building import refuse_index
        from mrl_search.encoders.registry import default_model, load_encoder
        from mrl_search.images.sources import open_source

        refuse_index(expanded(out), None if share else spec)
        with ExitStack() as stack:
            if not first:  # one process tells what happens
                silent = stack.enter_context(Path(os.devnull).open("w"))
                stack.enter_context(redirect_stderr(silent))
            with one_by_one():
                access = options.access_of(device, offline, yes)
                encoder = load_encoder(model or default_model(), access)
                source = open_source(src, labels=labels, column=column, hidden=hidden)
            show_source(source)
            if share:
                _picture_part(source, out, share, encoder, split, dtype)
            else:
                _from_images(source, out, spec, encoder, split, axes)


def _shard(text: str | None, later: Mapping[str, object]) -> "Shard | None":
    """The share that `--shard` names; the options `later` are of the joined index."""
    from mrl_search.store.shard import Shard

    if text is None:
        return None
    for name, value in later.items():
        if value is not None:
            hint = f"Give it to: mrl-search join PART… {name} …"
            raise ConfigError(f"{name} depends on all parts, and --shard builds one.", hint)
    return Shard.parse(text)


def spec_of(
    dims: str | None, factory: list[str] | None, dtype: str = "float16", engine: str = ""
) -> "IndexSpec":
    """The spec that `--dims`, `--factory`, `--dtype` and `--engine` describe."""
    from mrl_search.engines.spec import IndexSpec

    kinds: dict[str, str] = {}
    for text in factory or ():
        first, equals, rest = text.partition("=")
        prefix, kind = (first, rest) if equals and first.isdecimal() else ("", text)
        if prefix in kinds:
            which = f"for {prefix} dims" if prefix else "for all prefixes"
            message = f"--factory names two kinds {which}: {kinds[prefix]} and {kind}."
            raise ConfigError(message, "Leave one out.")
        kinds[prefix] = kind
    every = kinds.pop("", "auto")
    return IndexSpec(options.dims_of(dims) if dims else (), every, kinds, dtype, engine)


def _from_images(
    source: "Source", out: Path, spec: "IndexSpec", encoder: "Encoder", split: str | None,
    axes: str | None,
) -> None:  # fmt: skip
    from mrl_search.index import Index
    from mrl_search.training.split import part_of

    note(f"model {encoder.name} ({encoder.fingerprint[:12]}) on {encoder.device}")
    with progress_bars() as progress:
        part = part_of(source, split, encoder, progress)
        index = Index.build(part, out, model=encoder, spec=spec, axes=axes, progress=progress)
    show_skipped(index.corpus.collection.skipped, str(out / "skipped.json"))
    prefixes, chosen = ", ".join(map(str, index.dims)), index.manifest.axes
    note(f"dims {prefixes}, {index.manifest.dtype}, axes {chosen.get('choice', 'none')}")
    if chosen.get("recommended", "") not in ("", chosen.get("choice")):
        note(f"The axes {chosen['recommended']} keep more here: mrl-search info {out} --check")
    note(f"{len(index):,} images in {out}\nnext: mrl-search query IMAGE --index {out}")


def _picture_part(
    source: "Source", out: Path, shard: "Shard", encoder: "Encoder", split: str | None, dtype: str
) -> None:
    from mrl_search.encoders.ranks import launched
    from mrl_search.parts import build_part
    from mrl_search.store.collection import Collection
    from mrl_search.training.split import part_of

    note(f"model {encoder.name} ({encoder.fingerprint[:12]}) on {encoder.device}")
    with progress_bars() as progress:
        whole = part_of(source, split, encoder, progress)
        build_part(whole, out, encoder, shard, dtype=dtype, progress=progress)
    if launched()[0] == 0:
        part = Collection.open(out)
        show_skipped(part.skipped, str(out / "skipped.json"))
        note(f"part {shard}: {len(part):,} images in {out}")
        note("next, with all parts: mrl-search join PART… --out DIR")


def _opened(src: str, items: Path | None) -> "VectorSource":
    """Vectors of a user's own, and notes of what they are."""
    from mrl_search.store.own_vectors import item_notes
    from mrl_search.store.vector_files import open_vectors

    source = open_vectors(src)
    note(f"{source.count:,} vectors of {source.dim:,} dims ({source.dtypes}) in {source.name}")
    for text in (*source.notes, *item_notes(source, items)):
        note(f"  {text}")
    return source


def _vector_part(src: str, out: Path, shard: "Shard", items: Path | None, dtype: str) -> None:
    from mrl_search.parts import build_vector_part

    source = _opened(src, items)
    with progress_bars() as progress:
        build_vector_part(source, out, shard, items=items, dtype=dtype, progress=progress)
    rows = shard.range_of(source.count)
    note(f"part {shard}: {len(rows):,} vectors, from row {rows.start:,} on, in {out}")
    note("next, with all parts: mrl-search join PART… --out DIR")


def _from_vectors(
    src: str, out: Path, spec: "IndexSpec", items: Path | None, rotate: str | None
) -> None:
    from mrl_search.index import Index
    from mrl_search.vectors import default_dims

    source = _opened(src, items)
    spec = spec.over(default_dims(source.dim))
    rotated = f", rotated by {rotate}" if rotate else ""
    note(f"dims {', '.join(map(str, spec.dims))}, {spec.dtype}{rotated}")
    with progress_bars() as progress:
        index = Index.from_vectors(
            source, out, items=items, rotate=rotate, spec=spec, progress=progress
        )
    note(f"{len(index):,} vectors in {out}")
    note(f"next: mrl-search info {out} --check")
    note(f"      mrl-search query --vector QUERY.npy --index {out}")
