"""Axes of a corpus in closed form, for the vectors of any encoder.

Image axes tell the pictures of a corpus apart and ignore changes of a picture, which are measured
on changed views of a sample. Class axes predict labels. See `mrl_search.training.closed_form`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mrl_search.encoders.base import Encoder
from mrl_search.encoders.embed import embed_pictures, usable
from mrl_search.images.reading import Picture, read_pictures
from mrl_search.images.sources import Source
from mrl_search.progress import Progress
from mrl_search.training.closed_form import arrange, class_axes, image_axes
from mrl_search.training.config import AugmentConfig
from mrl_search.training.views import GREY, views
from mrl_search.vectors import default_dims

__all__ = ["KINDS", "Sample", "changed_views", "closed_form_axes"]

LONGEST = 1024  # dims of image and class axes
RIDGE = 0.5  # added to the variance within a picture, as a share of the variance of a feature
CLASS_RIDGE = 0.1
TOGETHER = 8  # pictures that are changed at once
SHARE = 0.3  # of the squared norm of every prefix that class axes have
VIEWS = (
    AugmentConfig(scale=(0.25, 0.7)),
    AugmentConfig(scale=(0.5, 0.9), aspect=(0.8, 1.25), rotate=0, jitter=(0.3, 0.3, 0.3, 0.02)),
    AugmentConfig(
        scale=(0.6, 1.0), aspect=(0.9, 1.11), rotate=20, flip=0, jitter=(0.3, 0.3, 1.0, 0.1),
        blur=1, outside="zeros",
    ),
    AugmentConfig(
        scale=(0.25, 0.6), rotate=20, jitter=(0.5, 0.5, 0.5, 0.05), blur=1, jpeg=10,
        outside="zeros",
    ),
    AugmentConfig(scale=(0.9, 1.0), rotate=0, jitter=(0, 0, 0, 0), shrink=3),
)  # fmt: skip
KINDS = len(VIEWS) + 2  # turned by a right angle, and grey


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """Pictures that axes are fitted to or measured on.

    Attributes:
        rows: (n, dim) float32, as the encoder gives them.
        labels: (n,) of str, or None where unknown.
        viewed: (m,) int64, the rows whose changed views were embedded.
        changed: (m, views, dim) float32, these views.
    """

    rows: NDArray[np.float32]
    labels: NDArray[np.object_]
    viewed: NDArray[np.int64]
    changed: NDArray[np.float32]


def closed_form_axes(
    sample: Sample, use_labels: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Image axes of a sample, after class axes if labels are used.

    Returns:
        (d, dim) axes, of up to 1024 dims, and (dim,) the centre of the rows, both float32: a row is
        stored as `(row - centre) @ axes.T`. Of fewer pictures than dims, the last axes are zero.
    """
    raw = torch.from_numpy(sample.rows).double()
    variance, mean = torch.var_mean(raw, 0, correction=0)
    deviation = (variance + 1e-5 * variance.mean()).clamp(min=1e-12).sqrt()
    basis = _principal_axes((raw - mean) / deviation) / deviation
    rows = (raw - mean) @ basis.T
    within = RIDGE * torch.eye(len(basis), dtype=torch.float64)
    kinds = sample.changed.shape[1]
    for i in range(kinds):
        change = torch.from_numpy(sample.changed[:, i] - sample.rows[sample.viewed]).double()
        change = change @ basis.T
        within += change.T @ change / (kinds * max(1, len(change)))
    labels = rows[:, :0]
    if use_labels:
        known = np.flatnonzero([label is not None for label in sample.labels])
        names, numbers = np.unique(sample.labels[known].astype(str), return_inverse=True)
        labels = torch.zeros(len(rows), len(names), dtype=torch.float64)
        labels[torch.from_numpy(known), torch.from_numpy(numbers)] = 1
    classes = class_axes(rows, labels, CLASS_RIDGE * within)
    share = SHARE if use_labels else 0.0
    dims = default_dims(len(basis))
    axes = arrange(classes, *image_axes(rows, labels, within), dims, share) @ basis
    padded = torch.zeros(min(raw.shape[1], LONGEST), raw.shape[1], dtype=torch.float64)
    padded[: len(axes)] = axes
    return padded.float().numpy(), mean.float().numpy()


def _principal_axes(x: Tensor) -> Tensor:
    """The first principal axes of centred rows (n, dim): (r, dim), where r is below n."""
    n, dim = x.shape
    count = min(n - 1, dim, LONGEST)
    if n < dim:
        _, vectors = torch.linalg.eigh(x @ x.T)
        return F.normalize(vectors[:, -count:].flip(1).T @ x, dim=1)
    _, vectors = torch.linalg.eigh(x.T @ x / n)
    axes: Tensor = vectors[:, -count:].flip(1).T
    return axes


def changed_views(
    encoder: Encoder, source: Source, rows: Sequence[int], progress: Progress
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Embed a changed view of each kind of the pictures at some rows of a source.

    Returns:
        (m,) the positions in `rows` of the pictures that can be read, and (m, views, dim) float32.
    """
    generator = torch.Generator().manual_seed(len(rows))
    size, dim = encoder.preprocessing.size, encoder.dims[-1]
    read, embedded = list[int](), [np.empty((0, KINDS, dim), np.float32)]
    pictures = enumerate(read_pictures(source, encoder.preprocessing.decode, rows=rows))
    while some := list(islice(pictures, TOGETHER)):
        known = [(at, one.pixels) for at, one in some if isinstance(one, Picture)]
        if known:
            content = _changed(np.stack([pixels for _, pixels in known]), size, generator)
            found = embed_pictures(encoder, content).reshape(len(known), KINDS, dim)
            good = usable(found.reshape(-1, dim)).reshape(len(known), KINDS).all(axis=1)
            embedded.append(found[good])
            read += [known[i][0] for i in np.flatnonzero(good)]
        progress(f"embedding {KINDS} changed views of each", some[-1][0] + 1, len(rows))
    return np.array(read, dtype=np.int64), np.concatenate(embedded)


def _changed(
    pictures: NDArray[np.uint8], size: int, generator: torch.Generator
) -> NDArray[np.uint8]:
    """A changed view of each kind of pictures (n, side, side, 3): (n * KINDS, size, size, 3)."""
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    kinds = [((views(images, size, kind, generator) + 1) * 127.5).round() for kind in VIEWS]
    turns = torch.randint(1, 4, (len(images),), generator=generator).tolist()
    turned = [torch.rot90(image, turn, (1, 2)) for image, turn in zip(images, turns, strict=True)]
    grey = (images * torch.tensor(GREY).view(3, 1, 1)).sum(1, keepdim=True).round()
    every = [*kinds, torch.stack(turned), grey.expand(images.shape)]
    pixels = torch.stack([kind.to(torch.uint8) for kind in every], 1).permute(0, 1, 3, 4, 2)
    return pixels.reshape(-1, size, size, 3).contiguous().numpy()
