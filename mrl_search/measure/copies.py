"""Changed copies of pictures, the queries of instance recall: does a search find the original?"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mrl_search.encoders.base import Encoder, Preprocessing
from mrl_search.encoders.embed import embed_pictures
from mrl_search.encoders.torchvision_import import import_torchvision
from mrl_search.errors import BrokenImage, DataError
from mrl_search.images.decode import content_hash, decode, square
from mrl_search.images.reading import Picture, read_pictures
from mrl_search.images.sources import RecordedSource, Source
from mrl_search.index import Index
from mrl_search.measure.accuracy import Copies, finds_original
from mrl_search.measure.bench import measure_copies
from mrl_search.measure.queries import QuerySet, shuffled, temporary_index
from mrl_search.measure.records import Journal
from mrl_search.measure.settings import BenchSettings, about
from mrl_search.progress import Progress, silent
from mrl_search.search.corpus import Corpus
from mrl_search.search.goal import Goal
from mrl_search.search.others import exact_others
from mrl_search.search.results import BatchHits
from mrl_search.store.rows import Ids

__all__ = [
    "HARD", "PROTOCOLS", "STANDARD", "CopyProtocol", "bench_pictures", "changed_copies",
    "changed_copy", "corpus_of", "instance_goal", "thumbnails",
]  # fmt: skip

THUMBNAIL = 8  # pixels a side
BATCH = 256  # pictures in memory at once
TIMED = 31  # query pictures that are embedded one by one; the first one warms up
KERNEL, SIGMA = 5, (0.1, 2.0)  # of the blur, in pixels


@dataclass(frozen=True, slots=True)
class CopyProtocol:
    """How a copy is changed: rotated, cropped, flipped, in other colours, blurred, saved."""

    area: tuple[float, float]  # range of the share of the area that a crop keeps
    aspect: tuple[float, float]  # range of the crop's width over its height
    flip: float  # probability of a horizontal flip
    jitter: tuple[float, float, float, float]  # brightness, contrast, saturation, hue
    rotate: float = 0.0  # degrees at most; uncovered corners are black
    blur: bool = False
    quality: int = 0  # of a JPEG that the copy is saved as; 0: it is not


STANDARD = CopyProtocol(area=(0.5, 0.9), aspect=(0.8, 1.25), flip=0.5, jitter=(0.3, 0.3, 0.3, 0.02))
HARD = CopyProtocol(
    area=(0.25, 0.5), aspect=(0.75, 4 / 3), flip=0.5, jitter=(0.5, 0.5, 0.5, 0.05),
    rotate=20.0, blur=True, quality=30,
)  # fmt: skip
PROTOCOLS = {"standard": STANDARD, "hard": HARD}


def changed_copy(
    image: Image.Image, side: int, seed: int, protocol: CopyProtocol = STANDARD
) -> NDArray[np.uint8]:
    """A changed copy of `image`, squashed to (side, side, 3) uint8; it follows from the seed."""
    v2 = import_torchvision("torchvision.transforms.v2")
    bilinear = v2.InterpolationMode.BILINEAR
    changes = [v2.RandomRotation(protocol.rotate, bilinear)] if protocol.rotate else []
    changes += [
        v2.RandomResizedCrop(side, scale=protocol.area, ratio=protocol.aspect),
        v2.RandomHorizontalFlip(protocol.flip),
        v2.ColorJitter(*protocol.jitter),
    ]
    if protocol.blur:
        changes.append(v2.GaussianBlur(KERNEL, SIGMA))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        copy: Image.Image = v2.Compose(changes)(image)
    if protocol.quality:
        file = io.BytesIO()
        copy.save(file, "JPEG", quality=protocol.quality)
        copy = Image.open(file)
    return np.asarray(copy)


def instance_goal(index: Index, rows: Ids, k: int = 1, progress: Progress = silent) -> Goal:
    """The goal of `tune` that a changed copy of an item finds its original first.

    The pictures of the items `rows` are read and embedded.
    """
    corpus = index.corpus
    items = corpus_of(corpus, rows)
    copies, _ = changed_copies(items, index.encoder, set(items.paths), STANDARD, progress)

    def score(at: Ids, hits: BatchHits) -> NDArray[np.float64]:
        found = finds_original(hits, corpus.collection.hashes, copies.originals[at])
        return found.astype(np.float64)

    queries, own = corpus.to_space(copies.rows), np.full(len(copies.rows), -1)
    return Goal("instance", k, queries, own, exact_others(corpus, queries, own, k), score)


def changed_copies(
    source: Source,
    encoder: Encoder,
    wanted: set[str],
    protocol: CopyProtocol,
    progress: Progress = silent,
) -> tuple[Copies, NDArray[np.uint8]]:
    """One changed copy of each picture whose path is wanted, embedded and as 8x8 thumbnail.

    A copy is cropped from the picture at full size. Pictures that cannot be read are left out.

    Raises:
        DataError: none can be read.
    """
    rows, small, originals, broken = [], [], [], []
    side = max(encoder.preprocessing.size, encoder.preprocessing.resize)
    todo = [i for i, path in enumerate(source.paths) if path in wanted]
    for start in range(0, len(todo), BATCH):
        pictures = []
        for done, i in enumerate(todo[start : start + BATCH], start + 1):
            try:
                data = source.read(i)
                image, _ = decode(data)
            except BrokenImage as error:
                broken.append(f"{source.paths[i]}: {error.message}")
            else:
                originals.append(content_hash(data))
                copy = Image.fromarray(changed_copy(image, side, seed=i, protocol=protocol))
                small.append(square(copy, THUMBNAIL))
                pictures.append(encoder.preprocessing.pixels(copy))
            progress("changed copies", done, len(todo))
        if pictures:
            rows.append(embed_pictures(encoder, np.stack(pictures)))
    if not rows:
        hint = "Check that the pictures are still where they were."
        raise DataError(f"No picture of {source.name} can be read; the first: {broken[0]}.", hint)
    return Copies(np.concatenate(rows), np.array(originals, dtype=object)), np.stack(small)


def corpus_of(corpus: Corpus, rows: Ids | None = None) -> Source:
    """The pictures of some rows (default: all that are not deleted), by their recorded paths."""
    rows = corpus.live_rows if rows is None else rows
    paths, labels = list(corpus.collection.paths[rows]), list(corpus.collection.labels[rows])
    m = corpus.manifest
    return RecordedSource(m.root, paths, labels, places=m.places)


def thumbnails(corpus: Corpus, progress: Progress) -> tuple[NDArray[np.uint8], NDArray[np.object_]]:
    """8x8 thumbnails of the corpus and their content hashes, without pictures that are gone."""
    tiny = Preprocessing(THUMBNAIL).decode
    small, hashes = [np.empty((0, THUMBNAIL, THUMBNAIL, 3), np.uint8)], []
    for done, picture in enumerate(read_pictures(corpus_of(corpus), tiny), 1):
        if isinstance(picture, Picture):
            small.append(picture.pixels[None])
            hashes.append(picture.hash)
        progress("thumbnails", done, len(corpus.live_rows))
    return np.concatenate(small), np.array(hashes, dtype=object)


def bench_pictures(
    index: Index,
    settings: BenchSettings,
    out: Path,
    source: Source | None,
    progress: Progress = silent,
) -> tuple[QuerySet, Journal]:
    """Embed the query pictures, time that, and search with `settings.copies` changed copies.

    The pictures of `source` are the queries; without it, those of the index, which are embedded
    already. Returns the queries, and the journal in the file `out` that `measure` goes on with.

    Raises:
        IndexFolderError: the index was built with another model.
        DataError: too few pictures; or none is in the index, so that no copy has an original.
    """
    corpus, encoder, seed = index.corpus, index.encoder, settings.seed
    if source is None:
        pictures: Source = corpus_of(corpus)
        queries = QuerySet.of_corpus(corpus, settings.sample, seed)
    else:
        pictures = source
        with temporary_index(pictures, encoder, encoder.dims[-1:], progress) as own:
            collection = own.corpus.collection
            queries = QuerySet.of_collection(
                collection, pictures.name, corpus, settings.sample, seed
            )
            _ = queries.vectors, queries.paths  # read before the folder goes
    journal = Journal.open(out, about(corpus, queries, settings))
    if not journal.has("embedding"):
        paths = [path for path in queries.paths[shuffled(len(queries), TIMED, seed)] if path]
        embedded = [index.embed([path], skip_broken=True) for path in paths]
        times = [one.embed_ms for one in embedded if one.names and one.embed_ms is not None]
        if len(times) > 1:
            journal.add("embedding", ms=[round(ms, 3) for ms in times[1:]])
    if settings.copies and not all(journal.has("instance", dims=d) for d in corpus.dims):
        known = queries.paths_in(corpus)
        chosen = {known[i] for i in shuffled(len(known), settings.copies, seed)}
        copies, _ = changed_copies(pictures, encoder, chosen, STANDARD, progress)
        measure_copies(corpus, copies, journal)
    return queries, journal
