"""How probable a score is by chance: a generalised Pareto tail fitted to background scores.

Above a high threshold, the excesses of almost any distribution follow a generalised Pareto
(Pickands 1975). It is fitted as by Zhang and Stephens, "A New and Efficient Estimation Method for
the Generalized Pareto Distribution", Technometrics 51(3), 2009, section 4: a posterior on a grid of
one parameter, without iteration. They use its mean. Here the chances of the whole grid are averaged
by its weights (the posterior predictive), because a single curve promises too small chances far
beyond few scores.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrl_search.errors import ConfigError, DataError
from mrl_search.vectors import blocks

__all__ = ["Tail", "fit_tail"]

FEWEST = 20  # different scores above the threshold
GRID = 30  # points of the posterior, and the square root of the number of excesses more
PRIOR = 3  # Zhang and Stephens' constant: how far the grid reaches towards heavy tails
SMALLEST = 1e-300  # chance; a bounded tail would give 0 beyond its end
HALVINGS = 100  # of the interval in which a score is sought

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True)
class Tail:
    """The distribution of scores by chance, with a Pareto tail.

    Attributes:
        threshold: score above which the Pareto holds; below, the background itself.
        share: share of the background above the threshold.
        background: (n,) float64, ascending.
        ends: (m,) float64, one over the excess at which a Pareto curve ends; negative: it does not.
        shapes: (m,) float64, shape of each curve.
        weights: (m,) float64, of each curve; they add up to 1.
    """

    threshold: float
    share: float
    background: Floats = field(repr=False)
    ends: Floats = field(repr=False)
    shapes: Floats = field(repr=False)
    weights: Floats = field(repr=False)

    @property
    def shape(self) -> float:
        """Mean shape of the Pareto: negative if the tail ends, 0 exponential, positive heavy."""
        return float(self.weights @ self.shapes)

    def chance(self, score: ArrayLike) -> Floats:
        """Probability that a background score is at least `score`: float64, in (0, 1].

        It never rises with the score.
        """
        wanted = np.asarray(score, dtype=np.float64)
        flat = wanted.ravel()
        count = len(self.background)
        chances = (count - np.searchsorted(self.background, flat)) / count
        far = np.flatnonzero(flat > self.threshold)
        for some in blocks(len(far), len(self.ends)):
            chances[far[some]] = self.share * self._beyond(flat[far[some]] - self.threshold)
        return np.clip(chances, SMALLEST, 1).reshape(wanted.shape)

    def score(self, chance: ArrayLike) -> Floats:
        """The lowest score whose chance is at most `chance`: float64, the inverse of `chance`.

        Raises:
            ConfigError: a chance that is not above 0 and at most 1.
        """
        wanted = np.asarray(chance, dtype=np.float64)
        if not ((wanted > 0) & (wanted <= 1)).all():
            raise ConfigError(f"The chance is {wanted}; it must be above 0 and at most 1.")
        flat = np.maximum(wanted.ravel(), SMALLEST)
        low = np.zeros(len(flat))
        high = np.full(len(flat), self.background[-1] - self.threshold)
        for _ in range(HALVINGS):  # the curves without an end reach any chance
            high[self.share * self._beyond(high) > flat] *= 2
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            above = self.share * self._beyond(middle) > flat
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        scores = self.threshold + high
        near = flat >= self.share
        scores[near] = self._empirical(flat[near])
        return scores.reshape(wanted.shape)

    def _beyond(self, excess: Floats) -> Floats:
        """Probability that an excess over the threshold is at least `excess` (n,)."""
        left = 1 - excess[:, None] * self.ends
        with np.errstate(divide="ignore", invalid="ignore"):
            curves = np.where(left > 0, np.exp(-np.log(left) / self.shapes), 0)
        return curves @ self.weights

    def _empirical(self, chance: Floats) -> Floats:
        """The lowest background scores of which at most this share of the background reaches."""
        ordered, count = self.background, len(self.background)
        at = np.ceil(count * (1 - chance) - 1e-9).astype(np.int64)  # count * share is whole
        at = np.clip(at, 0, count - 1)
        tied = (at > 0) & (ordered[at] == ordered[at - 1])
        at[tied] = np.searchsorted(ordered, ordered[at[tied]], side="right")
        return ordered[np.minimum(at, count - 1)]


def fit_tail(scores: ArrayLike, share: float = 0.01) -> Tail:
    """Fit a Pareto tail to the highest `share` of background scores.

    Args:
        scores: (n,) finite numbers, such as cosines of pairs that have nothing to do with one
            another.
        share: of the scores that lie in the tail.

    Raises:
        ConfigError: a share that is not between 0 and 1.
        DataError: scores that are not finite, or too few different ones in the tail.

    Example:
        >>> tail = fit_tail(np.random.default_rng(0).standard_normal(100_000))
        >>> round(float(tail.score(1e-6)), 1)  # 4.75 would be right
        5.0
    """
    if not 0 < share < 1:
        raise ConfigError(f"The share in the tail is {share}; it must be between 0 and 1.")
    background = np.sort(np.asarray(scores, dtype=np.float64).ravel())
    if not np.isfinite(background).all():
        raise DataError("Background scores must be finite.", "Leave NaN and infinity out.")
    count = int(len(background) * share)
    if count < FEWEST:
        message = f"{len(background):,} background scores are too few for a tail of {share:.1%}"
        raise DataError(f"{message}; it takes {int(np.ceil(FEWEST / share)):,}.")
    threshold = float(background[-count - 1])
    excess = background[background > threshold] - threshold
    if len(np.unique(excess)) < FEWEST:
        raise DataError("Too many background scores are equal to fit a tail.")
    return Tail(threshold, len(excess) / len(background), background, *_posterior(excess))


def _posterior(excess: Floats) -> tuple[Floats, Floats, Floats]:
    """Curves and weights of a generalised Pareto, from ascending excesses (n,) above 0.

    The grid and the profile likelihood are those of Zhang and Stephens, section 4.
    """
    count = len(excess)
    size = GRID + int(count**0.5)
    quartile = excess[int(count / 4 + 0.5) - 1]
    reach = 1 - np.sqrt(size / (np.arange(size) + 0.5))
    ends = 1 / excess[-1] + reach / (PRIOR * quartile)
    ends[np.abs(ends) * excess[-1] < 1e-9] = 1e-9 / excess[-1]  # 0: exponential
    shapes = np.concatenate(
        [np.log1p(-ends[some, None] * excess).mean(axis=1) for some in blocks(size, count)]
    )
    likelihood = count * (np.log(-ends / shapes) - shapes - 1)
    weights = np.exp(likelihood - likelihood.max())
    return ends, shapes, weights / weights.sum()
