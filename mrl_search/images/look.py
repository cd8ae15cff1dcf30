"""The second look: whether two pictures are one picture, cropped, flipped, turned or recoloured.

Both are reduced to small squares of luminance. Of the one, every window whose sides are intervals
of a grid, upright or leaning, is compared with all of the other one in its eight orientations. The
best windows are aligned to a fraction of a pixel by an affine map, with gain and offset of the
luminance (Lucas and Kanade 1981). What counts then is the agreement of details: of luminance less
its mean over the neighbourhood. Two shots of one scene agree in their broad areas, but not in their
details.
"""

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image

__all__ = ["SAME", "SIDE", "likeness", "look_of", "pixel_hash"]

SAME = 0.88  # likeness from which two pictures are copies of one (benchmarks/living/README.md)
SIDE, FINE, COARSE = 64, 32, 12  # pixels a side: of a look, of the comparison, of the search
CROPS = (1, 0.86, 0.74, 0.64, 0.55, 0.47)  # sides of windows, of the whole
STEP = 0.08  # from one window to the next, of the whole
LEANING = (0, -14, 14)  # degrees
TRIED = 2  # windows that are aligned, each way
HOPELESS = 0.6  # correlation of the best window; copies that pass had .73 or more
ROUNDS, STILL = 8, 1e-3  # of the alignment at each size, and the step that ends it
NEIGHBOURHOOD = 2  # pixels each way

Grey = NDArray[np.float32]


def pixel_hash(image: Image.Image) -> str:
    """A hash of the size and the pixels of a decoded picture: no metadata, no container."""
    state = xxhash.xxh3_128(f"{image.mode} {image.size}".encode())
    state.update(image.tobytes())
    return state.hexdigest()


def look_of(image: Image.Image) -> Grey:
    """A decoded picture squashed to (SIDE, SIDE) float32 luminance."""
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small, dtype=np.float32)


def likeness(a: Grey, b: Grey) -> float:
    """How well the details of two looks agree where they fit best: at most 1, of one picture.

    A picture of one colour has no details: its likeness to any picture is 0.

    Example:
        >>> grey = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
        >>> round(likeness(grey, 9 * grey[::-1, ::-1] + 50), 3)  # lighter and turned
        1.0
    """
    whole = _details(_reduced(a, FINE))
    best = max(_agreement(whole, _details(_reduced(g, FINE))) for g in _orientations(b))
    for of, other in ((a, b), (b, a)):
        if best < SAME:
            best = max(best, _best_window(of, other))
    return best


def _intervals() -> NDArray[np.float64]:
    """Sides of windows, (n, 2): where they begin and end, of the whole."""
    counts = [int(np.ceil((1 - side) / STEP - 1e-9)) + 1 for side in CROPS]
    starts = [np.linspace(0, 1 - side, n) for side, n in zip(CROPS, counts, strict=True)]
    pairs = [np.stack([s, s + side], axis=1) for s, side in zip(starts, CROPS, strict=True)]
    return np.concatenate(pairs)


def _operator(intervals: NDArray[np.float64], count: int) -> Grey:
    """Means of `count` equal parts of intervals (n, 2): (n * count, SIDE)."""
    low, high = intervals[:, :1], intervals[:, 1:]
    edges = (low + (high - low) * np.arange(count + 1) / count) * SIDE
    pixel = np.arange(SIDE)
    stop = np.minimum(edges[:, 1:, None], pixel + 1)
    weights = np.maximum(stop - np.maximum(edges[:, :-1, None], pixel), 0)
    weights /= weights.sum(axis=-1, keepdims=True)
    operator: Grey = weights.reshape(-1, SIDE).astype(np.float32)
    return operator


INTERVALS = _intervals()
COUNT = len(INTERVALS)
WINDOWS = np.concatenate(
    [np.repeat(INTERVALS, COUNT, axis=0), np.tile(INTERVALS, (COUNT, 1))], axis=1
)  # (n, 4): top, bottom, left, right, of the whole
REDUCE = _operator(INTERVALS, COARSE)
WHOLE = {n: _operator(np.array([[0.0, 1.0]]), n) for n in (COARSE, FINE)}


def _reduced(grey: Grey, side: int) -> Grey:
    """A picture as (side, side) means."""
    reduced: Grey = np.linalg.multi_dot([WHOLE[side], grey, WHOLE[side].T])
    return reduced


def _orientations(grey: Grey) -> list[Grey]:
    """The four rotations of a square and their mirror images."""
    turned = [np.rot90(grey, quarter) for quarter in range(4)]
    return [*turned, *(one[:, ::-1] for one in turned)]


def _unit(rows: Grey) -> Grey:
    """Rows less their mean, at norm 1; rows of one value stay near 0."""
    rows = rows - rows.mean(axis=-1, keepdims=True)
    norms = np.sqrt(np.vecdot(rows, rows))[..., None]
    unit: Grey = rows / np.maximum(norms, 1e-3 * rows.shape[-1] ** 0.5)
    return unit


def _agreement(a: Grey, b: Grey) -> float:
    """Correlation of two pictures of one size."""
    return float(_unit(a.ravel()) @ _unit(b.ravel()))


def _details(patch: Grey) -> Grey:
    """A picture less its mean over the neighbourhood of each pixel."""
    width = 2 * NEIGHBOURHOOD + 1
    padded = np.pad(patch, NEIGHBOURHOOD, mode="edge")
    box = np.lib.stride_tricks.sliding_window_view(padded, (width, width)).mean(axis=(2, 3))
    details: Grey = patch - box
    return details


def _best_window(of: Grey, whole: Grey) -> float:
    """The agreement of details where `of` fits all of `whole` best."""
    turned = _orientations(whole)
    targets = _unit(np.stack([_reduced(grey, COARSE).ravel() for grey in turned]))
    scores = np.stack([_windows(_leant(of, angle)) @ targets.T for angle in LEANING])
    best = (-1.0, 0.0)  # agreement of the whole pictures, and of their details
    for _ in range(TRIED):
        lean, at, orientation = np.unravel_index(int(scores.argmax()), scores.shape)
        if scores[lean, at, orientation] < HOPELESS:
            break
        target = turned[orientation]
        patch = _aligned(of, target, _affine(WINDOWS[at], LEANING[lean]))
        goal = _reduced(target, FINE)
        best = max(best, (_agreement(patch, goal), _agreement(_details(patch), _details(goal))))
        near = np.abs(WINDOWS - WINDOWS[at]).max(axis=1) < STEP * 1.5
        scores[lean, near, orientation] = -1
    return best[1]


def _windows(grey: Grey) -> Grey:
    """All windows of a picture, each as a unit row: (n, COARSE * COARSE)."""
    parts: Grey = np.linalg.multi_dot([REDUCE, grey, REDUCE.T])
    parts = parts.reshape(COUNT, COARSE, COUNT, COARSE)
    return _unit(parts.transpose(0, 2, 1, 3).reshape(COUNT * COUNT, -1))


def _affine(window: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """The map of a point (1, y, x), each from -1 to 1, to a leaning window: (2, 3)."""
    top, bottom, left, right = 2 * window - 1
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    upright = np.array([
        [(top + bottom) / 2, (bottom - top) / 2, 0], [(left + right) / 2, 0, (right - left) / 2],
    ])  # fmt: skip
    turned: NDArray[np.float64] = np.array([[cosine, -sine], [sine, cosine]]) @ upright
    return turned


def _grid(side: int) -> NDArray[np.float64]:
    """Centres of pixels as (1, y, x): (3, side * side)."""
    centres = (2 * np.arange(side) + 1) / side - 1
    y, x = np.meshgrid(centres, centres, indexing="ij")
    return np.stack([np.ones(side * side), y.ravel(), x.ravel()])


GRIDS = {n: _grid(n) for n in (COARSE, FINE, SIDE)}


def _sampled(layers: Grey, at: NDArray[np.float64]) -> Grey:
    """Layers (m, SIDE, SIDE) between their pixels, at points (2, n) from -1 to 1: (m, n)."""
    place = np.clip((at + 1) * SIDE / 2 - 0.5, 0, SIDE - 1.001)
    y, x = place.astype(np.intp)
    down, across = (place - np.floor(place)).astype(np.float32)
    upper = layers[:, y, x] * (1 - across) + layers[:, y, x + 1] * across
    lower = layers[:, y + 1, x] * (1 - across) + layers[:, y + 1, x + 1] * across
    sampled: Grey = upper * (1 - down) + lower * down
    return sampled


def _leant(grey: Grey, degrees: float) -> Grey:
    """A picture whose leaning windows are upright."""
    if not degrees:
        return grey
    whole = _affine(np.array([0.0, 1, 0, 1]), degrees)
    return _sampled(grey[None], whole @ GRIDS[SIDE]).reshape(SIDE, SIDE)


def _aligned(of: Grey, target: Grey, affine: NDArray[np.float64]) -> Grey:
    """The part of `of` that fits `target` best, near a map: (FINE, FINE)."""
    for side in (COARSE, FINE):
        smooth = _smooth(of, SIDE // side)
        layers = np.stack([smooth, *np.gradient(smooth, 2 / SIDE)])
        points, goal = GRIDS[side], _reduced(target, side).ravel()
        constant = np.stack([goal, np.ones_like(goal)])
        for _ in range(ROUNDS):
            values, down, across = _sampled(layers, affine @ points)
            slopes = np.concatenate([down * points, across * points, -constant])
            normal = slopes @ slopes.T
            normal[np.diag_indices(6)] *= 1.01
            normal[np.diag_indices(8)] += 1e-6
            step = np.linalg.solve(normal, slopes @ values)[:6].reshape(2, 3)
            affine = affine - step
            if np.abs(step).max() < STILL:
                break
    return _sampled(layers[:1], affine @ points).reshape(FINE, FINE)


def _smooth(grey: Grey, width: int) -> Grey:
    """Means over `width` pixels each way."""
    pad = ((width - 1) // 2, width // 2)
    padded = np.pad(grey, (pad, pad), mode="edge").astype(np.float64)
    sums = np.pad(padded.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    box = sums[width:, width:] - sums[:-width, width:] - sums[width:, :-width]
    smooth: Grey = ((box + sums[:-width, :-width]) / width**2).astype(np.float32)
    return smooth
