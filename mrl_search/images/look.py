"""The second look: whether two pictures are one picture, cropped, flipped, turned or recoloured.

Both are reduced to small squares of luminance. Of the one, every window whose sides are intervals of
a grid is compared with the whole other one in its eight orientations; the best window is refined.
What counts is the agreement of details: of luminance less its mean over the neighbourhood. Two shots
of one scene agree in their broad areas, but not in their details.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image

__all__ = ["SAME", "SIDE", "Look", "likeness", "pixel_hash"]

SAME = 0.88  # likeness from which two pictures are copies of one (benchmarks/living/README.md)
SIDE, FINE, COARSE = 64, 32, 16  # pixels a side: of a look, of the comparison, of the search
CROPS = (1, 0.9, 0.81, 0.73, 0.66, 0.59, 0.53, 0.48, 0.43)  # sides of windows, of the whole
STEP = 0.06  # from one window to the next, of the whole
TRIED = 2  # windows that are refined, each way
LARGEST, LEAST = 0.04, 0.003  # first and last step of the refinement, of the whole
SMALLEST = 0.3  # side of a refined window, of the whole
NEIGHBOURHOOD = 2  # pixels each way

Grey = NDArray[np.float32]
MOVES = np.array([  # shift, grow, and move one side: of top, bottom, left, right
    [1, 1, 0, 0], [0, 0, 1, 1], [1, -1, 0, 0], [0, 0, 1, -1],
    [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1],
])  # fmt: skip


def pixel_hash(image: Image.Image) -> str:
    """A hash of the size and the pixels of a decoded picture: no metadata, no container."""
    state = xxhash.xxh3_128(f"{image.mode} {image.size}".encode())
    state.update(image.tobytes())
    return state.hexdigest()


@dataclass(frozen=True, eq=False, slots=True)
class Look:
    """A picture squashed to (SIDE, SIDE) float32 luminance."""

    grey: Grey

    @classmethod
    def of(cls, image: Image.Image) -> Self:
        """The look of a decoded picture."""
        small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
        return cls(np.asarray(small, dtype=np.float32))


def likeness(a: Look, b: Look) -> float:
    """How well the details of two pictures agree where they fit best: at most 1, of one picture.

    A picture of one colour has no details: its likeness to any picture is 0.

    Example:
        >>> grey = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
        >>> round(likeness(Look(grey), Look(100 - 5 * grey[::-1, ::-1])), 3)  # darker and turned
        -1.0
    """
    whole = _patch(a.grey, np.array([0.0, 1, 0, 1]))
    turned = [_patch(grey, np.array([0.0, 1, 0, 1])) for grey in _orientations(b.grey)]
    best = max(_agreement(_details(whole), _details(other)) for other in turned)
    if best >= SAME:  # nothing was cropped
        return best
    _, one, other = max((_best_window(a.grey, b.grey), _best_window(b.grey, a.grey)), key=_score)
    return max(best, _agreement(_details(one), _details(other)))


def _score(found: tuple[float, Grey, Grey]) -> float:
    return found[0]


def _operator(low: NDArray[np.float64], high: NDArray[np.float64], count: int) -> Grey:
    """Mean of `count` equal parts of the intervals from `low` to `high`: (…, count, SIDE)."""
    edges = (low[..., None] + (high - low)[..., None] * np.arange(count + 1) / count) * SIDE
    pixel = np.arange(SIDE)
    stop = np.minimum(edges[..., 1:, None], pixel + 1)
    weights = np.maximum(stop - np.maximum(edges[..., :-1, None], pixel), 0)
    operator: Grey = (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)
    return operator


def _intervals() -> NDArray[np.float64]:
    counts = [int(np.ceil((1 - side) / STEP - 1e-9)) + 1 for side in CROPS]
    starts = [np.linspace(0, 1 - side, n) for side, n in zip(CROPS, counts, strict=True)]
    pairs = [np.stack([s, s + side], axis=1) for s, side in zip(starts, CROPS, strict=True)]
    return np.concatenate(pairs)


INTERVALS = _intervals()
WINDOWS = np.concatenate(
    [np.repeat(INTERVALS, len(INTERVALS), axis=0), np.tile(INTERVALS, (len(INTERVALS), 1))], axis=1
)  # (n, 4): top, bottom, left, right, of the whole
REDUCE = _operator(INTERVALS[:, 0], INTERVALS[:, 1], COARSE).reshape(-1, SIDE)


def _orientations(grey: Grey) -> list[Grey]:
    """The four rotations of a square and their mirror images."""
    turned = [np.rot90(grey, quarter) for quarter in range(4)]
    return [*turned, *(one[:, ::-1] for one in turned)]


def _unit(rows: Grey) -> Grey:
    """Rows less their mean, at norm 1; rows of one value stay near 0."""
    rows = rows - rows.mean(axis=-1, keepdims=True)
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: Grey = rows / np.maximum(norms, 1e-3 * rows.shape[-1] ** 0.5)
    return unit


def _agreement(a: Grey, b: Grey) -> float:
    """Correlation of two pictures of one size."""
    return float(_unit(a.reshape(1, -1))[0] @ _unit(b.reshape(1, -1))[0])


def _patch(grey: Grey, window: NDArray[np.float64]) -> Grey:
    """A window of a picture as (FINE, FINE)."""
    down, across = _operator(window[[0, 2]], window[[1, 3]], FINE)
    return down @ grey @ across.T


def _details(patch: Grey) -> Grey:
    """A picture less its mean over the neighbourhood of each pixel."""
    width = 2 * NEIGHBOURHOOD + 1
    padded = np.pad(patch, NEIGHBOURHOOD, mode="edge").cumsum(axis=0).cumsum(axis=1)
    sums = np.pad(padded, ((1, 0), (1, 0)))
    box = sums[width:, width:] - sums[:-width, width:] - sums[width:, :-width]
    details: Grey = patch - (box + sums[:-width, :-width]) / width**2
    return details


def _best_window(of: Grey, whole: Grey) -> tuple[float, Grey, Grey]:
    """Where `of` fits all of `whole` best: their correlation, the window, and `whole`, turned."""
    count = len(INTERVALS)
    parts = (REDUCE @ of @ REDUCE.T).reshape(count, COARSE, count, COARSE)
    windows = _unit(parts.transpose(0, 2, 1, 3).reshape(count * count, -1))
    turned = _orientations(whole)
    every = np.array([0.0, 1, 0, 1])
    down, across = _operator(every[[0, 2]], every[[1, 3]], COARSE)
    targets = _unit(np.stack([(down @ grey @ across.T).ravel() for grey in turned]))
    scores, found = windows @ targets.T, []
    for _ in range(TRIED):
        at, orientation = divmod(int(scores.argmax()), len(turned))
        target = _patch(turned[orientation], every)
        found.append((*_refined(of, target, WINDOWS[at]), target))
        near = np.abs(WINDOWS - WINDOWS[at]).max(axis=1) < STEP * 1.5
        scores[near, orientation] = -1
    return max(found, key=_score)


def _refined(grey: Grey, target: Grey, window: NDArray[np.float64]) -> tuple[float, Grey]:
    """The best window near `window`: its correlation with `target`, and its pixels."""
    patch, step = _patch(grey, window), LARGEST
    best = _agreement(patch, target)
    while step > LEAST:
        improved = False
        for move in (*MOVES, *-MOVES):
            moved = np.clip(window + step * move, 0, 1)
            if min(moved[1] - moved[0], moved[3] - moved[2]) < SMALLEST:
                continue
            other = _patch(grey, moved)
            score = _agreement(other, target)
            if score > best + 1e-5:
                best, patch, window, improved = score, other, moved, True
        step = step if improved else step / 2
    return best, patch
