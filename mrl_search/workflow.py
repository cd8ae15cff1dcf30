"""The whole jobs, which join the torch side and the FAISS side: build an index, search it with images, evaluate it.

The command line and the Python interface call these.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mrl_search.bench.accuracy import Copies, PrefixAccuracy, accuracy_per_prefix, adaptive_accuracy, thumbnail_recall
from mrl_search.bench.measure import measure_instances
from mrl_search.bench.queries import QuerySet
from mrl_search.bench.records import Journal
from mrl_search.bench.settings import BenchSettings, about
from mrl_search.cascade import TradeOff
from mrl_search.config import FLAT_UP_TO, SCAN, DataConfig, IndexSpec, Plan, from_mapping
from mrl_search.data.copies import STANDARD, CopyProtocol, changed_copy
from mrl_search.data.images import content_hash, decode, square
from mrl_search.data.reading import Picture, read_pictures
from mrl_search.data.sources import ItemSource, Source, open_source, read_path, subset
from mrl_search.data.splits import digest, split_rows
from mrl_search.embed import clear_progress, embed, embed_pictures
from mrl_search.errors import BrokenImage, ConfigError, DataError, Skipped
from mrl_search.index import Index, add_prefix_indexes, check_factories
from mrl_search.manifest import Manifest, write_manifest
from mrl_search.models.encoder import Encoder, NetworkEncoder, load_encoder
from mrl_search.progress import Progress, silent
from mrl_search.results import BatchHits, Queries
from mrl_search.search import search
from mrl_search.search.tune import Goal, exact_others
from mrl_search.storage import building_folder, claim, publish
from mrl_search.vectors import check_dims

__all__ = [
    "Answers", "Evaluation", "bench_pictures", "build_index", "changed_copies", "embed_queries", "evaluate", "held_out_rows",
    "instance_goal", "part_of", "search_images",
]  # fmt: skip

THUMBNAIL = 8  # pixels a side
COPIED = 256  # pictures that are in memory together
TIMED = 31  # query pictures that are embedded one by one, for their time


def build_index(
    source: Source | str, encoder: Encoder, out: str | Path, spec: IndexSpec | None = None, progress: Progress = silent
) -> Index:
    """Embed the images of `source` and build the prefix indexes of `spec` over them, in the new folder `out`.

    An unfinished build of the same images by the same encoder is continued. `spec` defaults to the encoder's dims, each with the kind of
    index that suits so many images.

    Raises:
        IndexFolderError: `out` exists, or is being built by another process.
        ConfigError: a dim that the encoder does not have.
        DataError: there is nothing in `source` that can be read.
    """
    if isinstance(source, str):
        source = open_source(source)
    out = Path(out).expanduser()
    spec = spec or IndexSpec(dims=encoder.dims)
    dim = encoder.dims[-1]
    spec = replace(spec, dims=check_dims({*spec.dims, dim}, dim))
    check_factories(spec, len(source.paths))
    building = building_folder(out)
    with claim(building):
        count = embed(source, encoder, building, spec.dtype, lambda done, total: progress("embedding", done, total))
        factory = add_prefix_indexes(building, spec, lambda d, done, total: progress(f"indexing {d} dims", done, total))
        manifest = Manifest(
            encoder=encoder.name, fingerprint=encoder.fingerprint, dim=dim, dims=spec.dims, count=count, dtype=spec.dtype,
            source=source.name, model=encoder.model, classes=encoder.classes, unit_heads=encoder.unit_heads, factory=factory,
        )  # fmt: skip
        write_manifest(building, manifest)
        publish(building, out)
        clear_progress(out)
    return Index.open(out)


def embed_queries(index: Index, encoder: Encoder, paths: Sequence[str | Path]) -> Queries:
    """Embed image files to search `index` with; one that cannot be read is skipped.

    Raises:
        IndexFolderError: the index was built with another model.
    """
    index.check_encoder(encoder.fingerprint)
    start = time.perf_counter()
    rows, good, skipped = [np.empty((0, index.dim), dtype=np.float32)], [], []
    names = [str(path) for path in paths]
    for first in range(0, len(names), COPIED):
        pictures = []
        for path in names[first : first + COPIED]:
            try:
                image, _ = decode(read_path(path), encoder.size)
            except BrokenImage as error:
                skipped.append(Skipped(path, error.message))
                continue
            pictures.append(square(image, encoder.size))
            good.append(path)
        if pictures:
            rows.append(index.to_space(embed_pictures(encoder, np.stack(pictures))))
    return Queries(good, np.concatenate(rows), tuple(skipped), (time.perf_counter() - start) * 1e3)


@dataclass(frozen=True, eq=False, slots=True)
class Answers:
    """What a search with image files gave: `hits[i]` belongs to `paths[i]`; times in milliseconds for all of them together."""

    paths: list[str]
    hits: BatchHits
    skipped: Sequence[Skipped]
    embed_ms: float
    search_ms: float


def search_images(
    index: Index, encoder: Encoder, paths: Sequence[str | Path], plan: Plan, allowed: NDArray[np.int64] | None = None
) -> Answers:
    """Search `index` with image files; one that cannot be read is skipped. Only the ids `allowed` may be answers, if they are given.

    Raises:
        IndexFolderError: the index was built with another model.
        ConfigError: the plan names a dim that the index does not have.
    """
    for d in plan.dims:
        index.check_dims(d)
    queries = embed_queries(index, encoder, paths)
    start = time.perf_counter()
    hits = search(index, queries.rows, plan, allowed)
    return Answers(queries.names, hits, queries.skipped, queries.embed_ms or 0.0, (time.perf_counter() - start) * 1e3)


def part_of(source: Source, part: str | None, encoder: NetworkEncoder, progress: Progress = silent) -> Source:
    """The `train` or `validation` part of a source, as the training of `encoder` divides it; all of it for None.

    Raises:
        ConfigError: another part, or an encoder that was not trained by a recipe.
        DataError: the pictures are not those that it was trained on; an older model does not say.
    """
    if part is None:
        return source
    if part not in ("train", "validation"):
        raise ConfigError(f"There is no {part!r} part of a source.", "It is train or validation.")
    if "recipe" not in encoder.training:
        raise ConfigError(f"The model {encoder.name} does not say how its training data was divided.", "Leave --split out.")
    how = from_mapping(DataConfig, encoder.training["recipe"]["data"], f"model {encoder.name}")
    kept, labels, hashes, paths = [], [], [], []
    for done, picture in enumerate(read_pictures(source, THUMBNAIL, min_side=how.min_side), 1):
        if isinstance(picture, Picture):
            kept.append(picture.row)
            labels.append(picture.label)
            hashes.append(picture.hash)
            paths.append(picture.path)
        progress("splitting", done, len(source.paths))
    pictures = digest(labels, hashes)
    if encoder.training.get("pictures", pictures) != pictures:
        raise DataError(
            f"{source.name} does not hold the same pictures as when {encoder.name} was trained, so nobody knows which of them trained.",
            "Leave --split out, or name the pictures as they were.",
        )
    train, held_out = split_rows(labels, hashes, how, paths)
    return subset(source, [kept[i] for i in (train if part == "train" else held_out)], f"{part} part")


def held_out_rows(index: Index, encoder: NetworkEncoder) -> NDArray[np.int64] | None:
    """The items of `index` that validated when `encoder` was trained: (n,) ids; None where they are not the pictures of that training."""
    labels, hashes = index.embeddings.labels.tolist(), index.embeddings.hashes.tolist()
    if encoder.training.get("pictures") != digest(labels, hashes):
        return None
    how = from_mapping(DataConfig, encoder.training["recipe"]["data"], f"model {encoder.name}")
    return split_rows(labels, hashes, how, index.embeddings.paths.tolist())[1]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Accuracy of each prefix, and images that could not be read.

    Instance recall@1 of 8x8 thumbnails is None where not asked for, or where pictures of the corpus are gone; `adaptive` is empty where not
    asked for.
    """

    prefixes: list[PrefixAccuracy]
    thumbnail_recall_at_1: float | None
    skipped: Sequence[Skipped] = ()
    adaptive: Sequence[TradeOff] = ()


def evaluate(
    source: Source | str,
    encoder: Encoder,
    index: Index | None = None,
    *,
    k: int = 20,
    instance: CopyProtocol | None = None,
    adaptive: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Accuracy per prefix of searching the images of `source` in `index`, or in themselves, each left out of its own answer.

    With `instance`, changed copies of those images that are in the corpus are searched, too, and must find their original first. With
    `adaptive`, what it gains and costs to read longer prefixes only where the vote is not sure.

    Raises:
        IndexFolderError: the index was built with another model.
        DataError: no labels and no `instance`, or no image of `source` is in the corpus.
    """
    if isinstance(source, str):
        source = open_source(source)
    if index:
        index.check_encoder(encoder.fingerprint)
    with tempfile.TemporaryDirectory(prefix="mrl-search-") as folder:
        exact = "auto" if len(source.paths) <= FLAT_UP_TO else SCAN
        spec = IndexSpec((encoder.dims[-1],) if index else encoder.dims, exact)
        own = build_index(source, encoder, Path(folder) / "queries", spec, progress)
        corpus = index or own
        trades = adaptive_accuracy(corpus, own.embeddings, k) if adaptive else ()
        if instance is None:
            return Evaluation(accuracy_per_prefix(corpus, own.embeddings, k), None, own.embeddings.skipped, trades)
        known = set(corpus.embeddings.hashes)
        wanted = [path for path, h in zip(own.embeddings.paths, own.embeddings.hashes, strict=True) if h in known]
        if not wanted:
            raise DataError(
                f"No image of {source.name} is in {corpus.folder}, so no copy can find its original.",
                "Evaluate images that are in the index.",
            )
        copies, thumbnails = changed_copies(source, encoder, set(wanted), instance, progress)
        prefixes = accuracy_per_prefix(corpus, own.embeddings, k, copies)
        small, hashes = _thumbnails(corpus, progress)
        whole = len(small) == len(corpus)
        thumbnail = thumbnail_recall(small, hashes, thumbnails, copies.originals) if whole else None
        return Evaluation(prefixes, thumbnail, own.embeddings.skipped, trades)


def bench_pictures(
    index: Index, settings: BenchSettings, out: Path, source: Source | str | None, progress: Progress = silent
) -> tuple[QuerySet, Journal]:
    """The part of a bench that needs the model: embed the pictures of `source` to search with, time that, and search changed copies.

    Args:
        index: what is measured.
        settings: with `copies` over 0, so many changed copies of pictures that are in the corpus are searched.
        out: file of records, begun or gone on with.
        source: the pictures; None: the index's own, which need not be embedded again.
        progress: is told what is being done.

    Returns:
        the queries, and the journal for `measure`.

    Raises:
        IndexFolderError: the index was built with another model than the one that opens now.
        DataError: too few pictures; or copies are wanted, and no picture is in the corpus.
    """
    index.check_takes_images()
    encoder = load_encoder(index.manifest.model)
    index.check_encoder(encoder.fingerprint)
    if source is None:
        pictures: Source = _corpus(index)
        queries = QuerySet.of_index(index, settings.sample, settings.seed)
    else:
        pictures = open_source(source) if isinstance(source, str) else source
        with tempfile.TemporaryDirectory(prefix="mrl-search-") as folder:
            own = build_index(pictures, encoder, Path(folder) / "queries", IndexSpec(dims=(encoder.dims[-1],)), progress).embeddings
            own = replace(own, vectors=np.array(own.vectors))  # no longer a file, which is gone in a moment
        queries = QuerySet.of_set(own, settings.sample, settings.seed, pictures.name, index=index)
    journal = Journal.open(out, about(index, queries, settings))
    rng = np.random.default_rng(settings.seed)
    some = queries.embeddings.paths[rng.permutation(queries.rows)[:TIMED]]  # drawn in any case: a bench that goes on copies the same ones
    if not journal.has("embedding"):
        embedded = [embed_queries(index, encoder, [path]) for path in some if path]
        times = [one.embed_ms for one in embedded if one.names and one.embed_ms is not None]  # the others are gone
        if len(times) > 1:
            journal.add("embedding", ms=[round(ms, 3) for ms in times[1:]])  # the first one warms up
    if settings.copies and not all(journal.has("instance", dims=d) for d in index.dims):
        known = set(index.embeddings.hashes)
        rows = [i for i in queries.rows if queries.embeddings.hashes[i] in known]
        wanted = {str(path) for path in queries.embeddings.paths[rng.permutation(rows)[: settings.copies]] if path} if rows else set()
        if not wanted:
            raise DataError(
                f"No picture of {pictures.name} is in {index.folder}, so no copy can find its original.", "Leave --instance out."
            )
        measure_instances(index, changed_copies(pictures, encoder, wanted, STANDARD, progress)[0], journal)
    return queries, journal


def instance_goal(index: Index, rows: NDArray[np.int64], k: int = 1, progress: Progress = silent) -> Goal:
    """What `tune` works for where a changed copy of an image is to find its original first.

    The images of the items at `rows` are read and embedded for that.

    Raises:
        IndexFolderError: an index of own vectors, or of another model than the one it names.
    """
    index.check_takes_images()
    encoder = load_encoder(index.manifest.model)
    index.check_encoder(encoder.fingerprint)
    items = subset(_corpus(index), rows.tolist(), "sample")
    copies, _ = changed_copies(items, encoder, set(items.paths), STANDARD, progress)
    hashes = index.embeddings.hashes

    def first(asked: NDArray[np.int64], hits: BatchHits) -> NDArray[np.float64]:
        ids = hits.ids[:, 0]
        right: NDArray[np.float64] = np.asarray((hashes[ids] == copies.originals[asked]) & (ids >= 0), dtype=np.float64)
        return right

    queries, own = index.to_space(copies.rows), np.full(len(copies.rows), -1)
    return Goal("instance", k, queries, own, exact_others(index, queries, own, k), first)


def changed_copies(
    source: Source, encoder: Encoder, wanted: set[str], protocol: CopyProtocol, progress: Progress = silent
) -> tuple[Copies, NDArray[np.uint8]]:
    """One changed copy of each image whose path is wanted, drawn from its full size, as rows of the encoder and as 8x8 thumbnails.

    An image that cannot be read is left out.

    Raises:
        DataError: not one can be read.
    """
    rows, small, originals, broken = [], [], [], []
    todo = [i for i, path in enumerate(source.paths) if path in wanted]
    for start in range(0, len(todo), COPIED):
        pictures = []
        for done, i in enumerate(todo[start : start + COPIED], start + 1):
            try:
                data = source.read(i)
                image, _ = decode(data)
            except BrokenImage as error:
                broken.append(Skipped(source.paths[i], error.message))
            else:
                originals.append(content_hash(data))
                pictures.append(changed_copy(image, encoder.size, seed=i, protocol=protocol))
            progress("changed copies", done, len(todo))
        if pictures:
            rows.append(embed_pictures(encoder, np.stack(pictures)))
            small += [_thumbnail(p) for p in pictures]
    if not rows:
        raise DataError(
            f"No image of {source.name} can be read to be copied; the first: {broken[0].path}: {broken[0].reason}.",
            "Are they still where they were?",
        )
    return Copies(np.concatenate(rows), np.array(originals, dtype=object)), np.stack(small)


def _corpus(index: Index) -> ItemSource:
    """The images of an index, by the paths it remembers."""
    return ItemSource("corpus", list(index.embeddings.paths), list(index.embeddings.labels))


def _thumbnails(index: Index, progress: Progress) -> tuple[NDArray[np.uint8], NDArray[np.object_]]:
    """8x8 thumbnails of the whole corpus, and the content hash of each; files that are gone are left out."""
    items = _corpus(index)
    small, hashes = [], []
    for done, picture in enumerate(read_pictures(items, THUMBNAIL), 1):
        if isinstance(picture, Picture):
            small.append(picture.pixels)
            hashes.append(picture.hash)
        progress("thumbnails", done, len(index))
    return np.array(small, dtype=np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL, 3), np.array(hashes, dtype=object)


def _thumbnail(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return square(Image.fromarray(picture), THUMBNAIL)
