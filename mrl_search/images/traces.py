"""What the pixels of a picture show of its past: JPEG compression, and enlargement."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Traces", "enlarged", "traces_of"]

BLOCK = 8  # pixels a side: of what a JPEG compresses as one
FREQUENCIES = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (2, 1), (1, 2))  # those that all JPEGs keep
COARSEST = 40  # quantisation step that is sought
CLEAR = 0.5  # mean cosine of the phases from which a step shows
BLOCKS, FEWEST = 64, 20  # a side, that are looked at; and with values above half a step
BANDS = 32  # of frequencies, from 0 to the highest one
TILES, TILE = 4, 256  # each way, and their pixels a side
LARGER = 1.15  # ratio of the sides from which an enlargement shows
LOST = 0.2  # power beyond the original's highest frequency, of that just below it; see `enlarged`

Grey = NDArray[np.float32]
FREQUENCY = (np.arange(BANDS) + 0.5) / BANDS  # of a band, of the highest one


@dataclass(frozen=True, eq=False, slots=True)
class Traces:
    """What a picture shows of its past.

    Attributes:
        pixels: width times height.
        step: the coarsest quantisation step of a JPEG that the pixels went through, in grey levels;
            1: none shows. Another container, or a finer JPEG, leaves it as it is.
        power: (BANDS,) float64, by frequency, times the frequency squared: flat for most pictures.
    """

    pixels: int
    step: float
    power: NDArray[np.float64]


def traces_of(image: Image.Image) -> Traces:
    """The traces of a decoded picture."""
    grey = np.asarray(image.convert("L"), np.float32)
    return Traces(grey.size, _step(grey), _power(grey))


def enlarged(large: Traces, small: Traces) -> bool:
    """Whether the larger of two copies of a picture shows no more detail than the smaller one.

    Both have the same power in low frequencies. Just above the highest one of the smaller picture,
    its original goes on nearly as before: -7 dB or more in photographs. An enlargement of 1.35
    times or more has less.
    """
    ratio = (large.pixels / max(1, small.pixels)) ** 0.5
    if ratio < LARGER:
        return False
    scale = _mean(large, 0.1 / ratio, 0.5 / ratio) / max(_mean(small, 0.1, 0.5), 1e-9)
    return _mean(large, 1 / ratio + 0.04, 0.97) < LOST * scale * _mean(small, 0.6, 0.97)


def _mean(traces: Traces, low: float, high: float) -> float:
    """Mean power between two frequencies."""
    at = FREQUENCY
    chosen = (at >= low) & (at <= high)
    chosen |= np.abs(at - (low + high) / 2) <= 0.5 / BANDS  # never none
    return float(traces.power[chosen].mean())


def _step(grey: Grey) -> float:
    """The median over some frequencies of the step that their coefficients are multiples of.

    A picture that was turned has its blocks counted from another corner.
    """
    height, width = grey.shape
    steps = [1.0]
    for top in {0, height % BLOCK}:
        for left in {0, width % BLOCK}:
            part = grey[top:, left:]
            down, across = (min(side // BLOCK, BLOCKS) for side in part.shape)
            part = part[: down * BLOCK, : across * BLOCK]
            blocks = part.reshape(down, BLOCK, across, BLOCK).swapaxes(1, 2)
            found = COSINES @ blocks @ COSINES.T
            steps.append(float(np.median([_period(found[..., u, v]) for u, v in FREQUENCIES])))
    return max(steps)


def _period(values: NDArray[np.floating]) -> int:
    """The largest step of which values are multiples; 1 if there is none of 3 or more."""
    values, best = np.abs(values.ravel()), 1
    for step in range(3, COARSEST + 1):
        values = values[values > step / 2]
        if len(values) < FEWEST:
            break
        if np.cos(2 * np.pi / step * values).mean() > CLEAR:
            best = step
    return best


def _cosines() -> Grey:
    """The discrete cosine transform of a block."""
    k = np.arange(BLOCK)
    rows = np.cos((2 * k + 1) * k[:, None] * np.pi / (2 * BLOCK))
    rows[0] *= np.sqrt(0.5)
    rows *= np.sqrt(2 / BLOCK)
    return rows.astype(np.float32)


COSINES = _cosines()


def _power(grey: Grey) -> NDArray[np.float64]:
    """The power of each band, a mean over tiles that are spread over the picture."""
    side = min(TILE, *grey.shape)
    tiles = np.ix_(*(_starts(length, side) for length in grey.shape))
    view = np.lib.stride_tricks.sliding_window_view(grey, (side, side))[tiles]
    window = np.hanning(side + 2)[1:-1].astype(np.float32)
    weighted = (view - view.mean(axis=(-2, -1), keepdims=True)) * np.outer(window, window)
    power = (np.abs(np.fft.rfft2(weighted)) ** 2).mean(axis=(0, 1)) / np.square(window).sum() ** 2
    at = np.hypot(*np.meshgrid(np.fft.rfftfreq(side), np.fft.fftfreq(side)))
    band = np.minimum((2 * BANDS * at).astype(int), BANDS).ravel()
    sums, counts = (np.bincount(band, w, BANDS + 1)[:BANDS] for w in (power.ravel(), None))
    means = sums / np.maximum(counts, 1)
    empty = counts == 0  # a small picture has few frequencies
    means[empty] = np.interp(np.flatnonzero(empty), np.flatnonzero(~empty), means[~empty])
    return means * FREQUENCY**2


def _starts(length: int, side: int) -> NDArray[np.int64]:
    count = min(TILES, length // side)
    return np.linspace(0, length - side, count).astype(np.int64)
