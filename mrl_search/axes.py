"""Along which axes the rows of an index are stored: each choice fitted, measured, and one taken.

- `none`: rows as they are.
- `pca`: the principal axes. Cosines at full length stay.
- `views`: image axes, which ignore changes of a picture (`mrl_search.training.corpus_axes`).
- `labels`: class axes, then image axes.

All are fitted to at most 20,000 pictures. They are measured on pictures that are held out; the axes
that are stored are then fitted to these, too.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import ConfigError, DataError
from mrl_search.metrics import recall_at_k
from mrl_search.progress import Progress
from mrl_search.search.nearest import nearest_rows, row_neighbours
from mrl_search.store.rows import VectorStore
from mrl_search.store.transform import Transform, check_rotatable, principal_axes_of
from mrl_search.vectors import default_dims, l2_normalize

if TYPE_CHECKING:
    from mrl_search.training.corpus_axes import Sample

__all__ = [
    "CHOICES", "LONGEST", "Kept", "check_choice", "choose_axes", "default_choice", "fit_axes",
    "measure_axes", "recommended",
]  # fmt: skip

CHOICES = ("none", "pca", "views", "labels")
FITTED = 20_000  # rows that axes are fitted to, at most
MEASURED = 10_000  # rows that held-out pictures search, at most
HELD_OUT = 1_000  # pictures, at most, and a tenth of them
VIEWED = 600  # pictures whose changed views are embedded to fit axes, at most
TESTED = 100  # held-out pictures whose changed views are embedded, at most
ALIKE = 1e-6  # variance of rows that differ by rounding alone, as a share of their mean square
ENOUGH = 30  # held-out pictures from which a choice is recommended
FEWEST = 20  # pictures that axes can be fitted to
NEIGHBOURS, VOTERS = 10, 20
LONGEST = 1024  # dims of rows along image and class axes
SHORT = 128  # dims of the prefixes that decide

Rows: TypeAlias = NDArray[np.float32]
Changed: TypeAlias = Callable[[NDArray[np.int64]], tuple[NDArray[np.int64], Rows]]


@dataclass(frozen=True, slots=True)
class Kept:
    """What a prefix keeps, as shares from 0 to 1; None where it cannot be measured.

    Attributes:
        dims: of the prefix.
        energy: mean share of a vector's squared norm.
        recall: share of the ten nearest by all dims that are the ten nearest by the prefix.
        instance: share of changed views whose nearest picture is their original.
        accuracy: share of pictures whose label the 20 nearest vote for.
    """

    dims: int
    energy: float
    recall: float
    instance: float | None
    accuracy: float | None


def check_choice(choice: str, dim: int, labels: Collection[str | None]) -> None:
    """Raise ConfigError unless vectors of `dim` dims with these labels can have these axes."""
    if choice not in CHOICES:
        raise ConfigError(f"There are no axes {choice!r}.", f"Use one of {', '.join(CHOICES)}.")
    if choice != "none":
        check_rotatable(dim)
    if choice in ("views", "labels") and len(labels) < FEWEST:
        message = f"The axes {choice} need at least {FEWEST} pictures; there are {len(labels)}."
        raise ConfigError(message, "Use --axes pca.")
    if choice == "labels" and len({label for label in labels if label is not None}) < 2:
        message = "The axes labels need pictures of at least two labels."
        raise ConfigError(message, "Use --axes views.")


def default_choice(choice: str, count: int) -> str:
    """The default `choice` of an encoder, or `pca` for too few pictures."""
    return "pca" if choice == "views" and count < FEWEST else choice


def choose_axes(
    choice: str, store: VectorStore, norms: NDArray[np.float32], labels: NDArray[np.object_],
    changed: Changed, progress: Progress,
) -> tuple[Transform, dict[str, Any]]:  # fmt: skip
    """Fit every choice to the rows of a corpus, and measure it on rows that are held out.

    The store has the rows as the encoder gave them, at norm 1, and `norms` (n,) those they had;
    labels (n,) are None where unknown. `changed` takes row numbers, and gives the positions of
    those whose pictures can be read, and their changed views, (m, views, dim) float32.

    Returns:
        The transform of `choice`, and a record for the manifest: the choice, the numbers of
        pictures, what each choice keeps, and the recommended choice, if enough were held out.

    Raises:
        ConfigError: the pictures differ too little for image axes.
        DataError: none of them can be read again, for image axes.
    """
    from mrl_search.training.corpus_axes import Sample

    shuffled = np.random.default_rng(0).permutation(len(store))
    held = min(HELD_OUT, len(store) // 10)

    rows = shuffled[held : held + FITTED]
    first, then = rows[:VIEWED], shuffled[: min(held, TESTED)]
    read, views = changed(np.concatenate([first, then]))
    fits = read < len(first)

    def sample_of(rows: NDArray[np.int64], viewed: NDArray[np.int64], views: Rows) -> Sample:
        raw = store.prefix(store.dim, rows) * norms[rows, None]
        return Sample(raw, labels[rows], viewed, views)

    fitted = sample_of(rows, read[fits], views[fits])
    tested = sample_of(shuffled[:held], read[~fits] - len(first), views[~fits])
    search = Sample(fitted.rows[:MEASURED], fitted.labels[:MEASURED], tested.viewed, tested.changed)
    alike = float(fitted.rows.var(0).mean()) <= ALIKE * float(np.square(fitted.rows).mean())
    if alike and choice in ("views", "labels"):
        message = "The pictures are too much alike for axes that tell them apart."
        raise ConfigError(message, "Build the index with --axes pca.")
    if choice in ("views", "labels") and not len(fitted.viewed):
        message = f"None of the pictures can be read again, as the axes {choice} need."
        raise DataError(message, "Name where they are, or use --axes pca.")
    names = [name for name in CHOICES if name == choice or _possible(name, fitted, alike)]
    kept: dict[str, list[Kept]] = {}
    for done, name in enumerate(names, 1):
        if held:
            kept[name] = measure_axes(fit_axes(name, fitted), search, tested)
        progress("fitting axes", done, len(names))
    record = {
        "choice": choice,
        "fitted": len(fitted.rows),
        "viewed": len(fitted.viewed),
        "held_out": held,
        "views_held_out": tested.changed.shape[0] * tested.changed.shape[1],
        "kept": {name: [asdict(k) for k in ks] for name, ks in kept.items()},
        "recommended": recommended(kept) if held >= ENOUGH else "",
    }
    both = Sample(  # what is stored need hold none out
        np.concatenate([fitted.rows, tested.rows]),
        np.concatenate([fitted.labels, tested.labels]),
        np.concatenate([fitted.viewed, len(fitted.rows) + tested.viewed]),
        np.concatenate([fitted.changed, tested.changed]),
    )
    return fit_axes(choice, both), record


def _possible(choice: str, fitted: "Sample", alike: bool) -> bool:
    classes = {label for label in fitted.labels if label is not None}
    if choice in ("none", "pca"):
        return True
    return bool(len(fitted.viewed)) and not (alike or (choice == "labels" and len(classes) < 2))


def recommended(kept: Mapping[str, list[Kept]]) -> str:
    """The choice whose prefixes find and classify best: the highest mean over prefixes to 128 dims.

    The mean of recall of changed views and, where there are labels, accuracy.
    """

    def value(prefixes: list[Kept]) -> float:
        short = [k for k in prefixes if k.dims <= SHORT] or prefixes
        shares = [s for k in short for s in (k.instance, k.accuracy) if s is not None]
        return sum(shares) / len(shares) if shares else 0.0

    return max(kept, key=lambda name: value(kept[name]))


def fit_axes(choice: str, fitted: "Sample") -> Transform:
    """The transform of a choice, fitted to a sample."""
    from mrl_search.training.corpus_axes import closed_form_axes

    dim = fitted.rows.shape[1]
    if choice == "none":
        return Transform(dim, dim)
    if choice == "pca":
        unit = l2_normalize(fitted.rows).astype(np.float64)
        return Transform(dim, dim, principal_axes_of(unit))
    axes, centre = closed_form_axes(fitted, choice == "labels")
    return Transform(dim, len(axes), axes, centre)


def measure_axes(transform: Transform, fitted: "Sample", held_out: "Sample") -> list[Kept]:
    """What every prefix keeps of held-out pictures, which search the fitted and each other."""
    corpus = transform(np.concatenate([held_out.rows, fitted.rows]))
    labels = np.concatenate([held_out.labels, fitted.labels])
    n, dim = len(held_out.rows), corpus.shape[1]
    changed = transform(held_out.changed.reshape(-1, held_out.rows.shape[1]))
    originals = np.repeat(held_out.viewed, held_out.changed.shape[1])
    squared = np.square(corpus[:n])
    squared = squared[squared.any(axis=1)]  # a vector of norm 0 has no energy to share
    voters = min(VOTERS, len(corpus) - 1)
    found: dict[int, tuple[NDArray[np.int64], float | None]] = {}
    for d in default_dims(dim):
        cut, share = corpus[:, :d], None
        if len(changed):
            share = float((nearest_rows([cut], changed[:, :d], 1).rows[:, 0] == originals).mean())
        near = row_neighbours(VectorStore(cut), np.arange(n), voters, lambda rows: rows)
        found[d] = near, share
    truth = found[dim][0][:, :NEIGHBOURS]
    return [
        Kept(
            d,
            float((squared[:, :d].sum(1) / squared.sum(1)).mean()) if len(squared) else 1.0,
            recall_at_k(near[:, :NEIGHBOURS], truth),
            share,
            _accuracy(labels, near),
        )
        for d, (near, share) in found.items()
    ]


def _accuracy(labels: NDArray[np.object_], near: NDArray[np.int64]) -> float | None:
    """Share of the first rows, those of `near`, whose label most of their neighbours have."""
    votes, total = 0, 0
    for own, others in zip(labels, labels[near], strict=False):
        known = [label for label in others if label is not None]
        if own is not None and known:
            total += 1
            votes += max(known, key=known.count) == own
    return votes / total if total else None
