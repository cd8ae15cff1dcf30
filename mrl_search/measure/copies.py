"""Changed copies of images, the queries of instance recall: can a search find the original of a picture that was altered?"""

import io
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mrl_search.encoders.base import Encoder, Preprocessing
from mrl_search.encoders.embed import embed_pictures
from mrl_search.encoders.registry import load_encoder
from mrl_search.encoders.torchvision_import import import_torchvision
from mrl_search.engines import Index
from mrl_search.errors import BrokenImage, DataError, Skipped
from mrl_search.images.decode import content_hash, decode, square
from mrl_search.images.reading import Picture, read_pictures
from mrl_search.images.sources import ItemSource, Source, subset
from mrl_search.measure.accuracy import Copies
from mrl_search.progress import Progress, silent
from mrl_search.search.results import BatchHits
from mrl_search.search.tune import Goal, exact_others

__all__ = [
    "HARD",
    "PROTOCOLS",
    "STANDARD",
    "CopyProtocol",
    "changed_copies",
    "changed_copy",
    "corpus_of",
    "instance_goal",
    "thumbnails",
]

THUMBNAIL = 8  # pixels a side
COPIED = 256  # pictures in memory at once
KERNEL, SIGMA = 5, (0.1, 2.0)  # of the blur, in pixels: torchvision's usual deviations


@dataclass(frozen=True, slots=True)
class CopyProtocol:
    """How a copy is changed, in the order of what happens to it.

    Attributes:
        area: share of the area that the crop keeps, from and to.
        aspect: width over height of the crop, from and to.
        flip: probability of a horizontal flip.
        jitter: of the colours, as in torchvision.
        rotate: before the crop, at most so many degrees either way; corners that open up are black.
        blur: last but one, whether to blur by a Gaussian of 5x5 pixels with a deviation of 0.1 to 2.
        quality: of a JPEG that the copy is saved as in the end; 0: it is not.
    """

    area: tuple[float, float]
    aspect: tuple[float, float]
    flip: float
    jitter: tuple[float, float, float, float]
    rotate: float = 0.0
    blur: bool = False
    quality: int = 0


STANDARD = CopyProtocol(area=(0.5, 0.9), aspect=(0.8, 1.25), flip=0.5, jitter=(0.3, 0.3, 0.3, 0.02))
HARD = CopyProtocol(
    area=(0.25, 0.5), aspect=(0.75, 4 / 3), flip=0.5, jitter=(0.5, 0.5, 0.5, 0.05), rotate=20.0, blur=True, quality=30,
)  # fmt: skip
PROTOCOLS = {"standard": STANDARD, "hard": HARD}


def changed_copy(
    image: Image.Image, side: int, seed: int, protocol: CopyProtocol = STANDARD
) -> NDArray[np.uint8]:
    """A changed copy of `image`, squashed to (side, side, 3) uint8; the same seed gives the same copy."""
    v2 = import_torchvision("torchvision.transforms.v2")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        turn = (
            [v2.RandomRotation(protocol.rotate, v2.InterpolationMode.BILINEAR)]
            if protocol.rotate
            else []
        )
        crop = v2.RandomResizedCrop(side, scale=protocol.area, ratio=protocol.aspect)
        blur = [v2.GaussianBlur(KERNEL, SIGMA)] if protocol.blur else []
        changes = [
            *turn,
            crop,
            v2.RandomHorizontalFlip(protocol.flip),
            v2.ColorJitter(*protocol.jitter),
            *blur,
        ]
        copy: Image.Image = v2.Compose(changes)(image)
    if protocol.quality:
        file = io.BytesIO()
        copy.save(file, "JPEG", quality=protocol.quality)
        copy = Image.open(file)
    return np.asarray(copy)


def instance_goal(
    index: Index, rows: NDArray[np.int64], k: int = 1, progress: Progress = silent
) -> Goal:
    """What `tune` works for where a changed copy of an image is to find its original first.

    The images of the items at `rows` are read and embedded for that.

    Raises:
        IndexFolderError: an index of own vectors, or of another model than the one it names.
    """
    index.check_takes_images()
    encoder = load_encoder(index.manifest.model)
    index.check_encoder(encoder.fingerprint)
    items = subset(corpus_of(index), rows.tolist(), "sample")
    copies, _ = changed_copies(items, encoder, set(items.paths), STANDARD, progress)
    hashes = index.embeddings.hashes

    def first(asked: NDArray[np.int64], hits: BatchHits) -> NDArray[np.float64]:
        ids = hits.ids[:, 0]
        right: NDArray[np.float64] = np.asarray(
            (hashes[ids] == copies.originals[asked]) & (ids >= 0), dtype=np.float64
        )
        return right

    queries, own = index.to_space(copies.rows), np.full(len(copies.rows), -1)
    return Goal("instance", k, queries, own, exact_others(index, queries, own, k), first)


def changed_copies(
    source: Source,
    encoder: Encoder,
    wanted: set[str],
    protocol: CopyProtocol,
    progress: Progress = silent,
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
                pictures.append(changed_copy(image, encoder.preprocessing.size, seed=i, protocol=protocol))
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


def corpus_of(index: Index) -> ItemSource:
    """The images of an index, by the paths it remembers."""
    return ItemSource("corpus", list(index.embeddings.paths), list(index.embeddings.labels))


def thumbnails(index: Index, progress: Progress) -> tuple[NDArray[np.uint8], NDArray[np.object_]]:
    """8x8 thumbnails of the whole corpus, and the content hash of each; files that are gone are left out."""
    items = corpus_of(index)
    small, hashes = [], []
    for done, picture in enumerate(read_pictures(items, Preprocessing(THUMBNAIL).decode), 1):
        if isinstance(picture, Picture):
            small.append(picture.pixels)
            hashes.append(picture.hash)
        progress("thumbnails", done, len(index))
    return np.array(small, dtype=np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL, 3), np.array(
        hashes, dtype=object
    )


def _thumbnail(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return square(Image.fromarray(picture), THUMBNAIL)
