"""Find the copies in a collection, or in one of the pictures of another.

Equal bytes are found by their hash. For the other levels, pairs of vectors above a threshold get a
second look. The threshold follows from a rate of false pairs, by a tail fitted to random pairs.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mrl_search.duplicates.groups import Content, Duplicates, Edge, Level, stars
from mrl_search.duplicates.keeping import File, Keep
from mrl_search.duplicates.pictures import CHANGED, UNREADABLE, Pictures, content_of, files_of
from mrl_search.errors import BrokenImage, ConfigError, DataError, require
from mrl_search.images.decode import decode
from mrl_search.images.look import SAME, Look, likeness, pixel_hash
from mrl_search.progress import Progress, silent
from mrl_search.search.exact.pairs import Side, close_pairs, random_cosines
from mrl_search.search.tail import fit_tail
from mrl_search.vectors import blocks

__all__ = ["FPR", "find_duplicates"]

FPR = 1e-6  # false pairs for each pair of unrelated pictures
BACKGROUND = 200_000  # random pairs that the tail is fitted to
FEWEST = 64  # different pictures that a tail needs; of fewer, every pair gets the second look
SURE = 0.98  # cosine that is always enough: pictures that were saved again have more


@dataclass(frozen=True, eq=False, slots=True)
class _Candidates:
    """Pairs of contents for the second look, and how they were chosen."""

    pairs: Sequence[tuple[int, int, float]] = ()
    threshold: float | None = None
    compared: int = 0
    expected: float = 0.0


def find_duplicates(
    pictures: Pictures, level: Level = Level.COPY, *, fpr: float = FPR, keep: Keep | None = None,
    against: Pictures | None = None, decided: Collection[frozenset[str]] = (),
    progress: Progress = silent,
) -> Duplicates:  # fmt: skip
    """Group the copies among pictures.

    Args:
        pictures: of an index.
        level: the least strict one that counts.
        fpr: false pairs for each pair of unrelated pictures that is compared, by vectors alone.
        keep: which file of a group is kept.
        against: other pictures: only their copies in `pictures` are found, and these are kept.
        decided: pairs of hashes that are no copies of each other.
        progress: called with what is being done, how far, and of how much.

    Raises:
        ConfigError: a rate that is not between 0 and 1, or a level that own vectors do not have.
        DataError: too few pictures for `similar`, or too many pairs above the threshold.
    """
    require(0 < fpr < 1, f"--fpr is {fpr}; it must be between 0 and 1.", "For example 1e-6.")
    if pictures.own_vectors and level in (Level.PIXELS, Level.COPY):
        message = f"This index holds your own vectors: there are no pictures for level {level}."
        raise ConfigError(message, "--level exact finds equal vectors, similar near ones.")
    sides = [pictures] if against is None else [pictures, against]
    rows = [side.contents() for side in sides]
    hashes = list(dict.fromkeys(name for side in rows for name in side))
    chosen = _Candidates()
    if level is not Level.EXACT:
        chosen = _candidates(sides, rows, hashes, level, fpr, progress)
    pairs = [p for p in chosen.pairs if frozenset((hashes[p[0]], hashes[p[1]])) not in decided]
    left_out = Counter({UNREADABLE: sum(side.unread for side in sides)})
    wanted = {i for a, b, _ in pairs for i in (a, b)}
    wanted |= {
        i for i, name in enumerate(hashes) if sum(len(side.get(name, ())) for side in rows) > 1
    }
    contents = [Content((), ()) for _ in hashes]
    for i in wanted:
        contents[i] = _content(sides, [side.get(hashes[i], []) for side in rows], left_out)
    edges = _edges(contents, pairs, level, pictures.own_vectors, left_out, progress)
    every = Keep() if keep is None else keep
    groups = [
        replace(group, diameter=_diameter(sides, rows, [hashes[i] for i in numbers]))
        for group, numbers in stars(contents, edges, every, against is None)
    ]
    groups.sort(key=lambda group: (-len(group.copies), group.keep.path))
    return Duplicates(
        tuple(groups), level, fpr, chosen.threshold, chosen.compared, len(chosen.pairs),
        chosen.expected, left_out,
    )  # fmt: skip


def _candidates(
    sides: Sequence[Pictures], rows: Sequence[dict[str, list[int]]], hashes: Sequence[str],
    level: Level, fpr: float, progress: Progress,
) -> _Candidates:  # fmt: skip
    """The pairs of different contents whose vectors are near enough, of all or of two sides."""
    number = {name: i for i, name in enumerate(hashes)}
    parts, numbers = [], []
    for side, own in zip(sides, rows, strict=True):
        if side.vectors is None:
            raise DataError(f"The pictures of {side.sources[0]} are not embedded.")
        parts.append(Side(side.vectors, side.rows[[places[0] for places in own.values()]]))
        numbers.append(np.array([number[name] for name in own]))
    count = len(parts[0])
    compared = count * len(parts[1]) if len(parts) > 1 else count * (count - 1) // 2
    threshold, expected = None, 0.0
    if count >= FEWEST:
        tail = fit_tail(random_cosines(parts[0], BACKGROUND))
        threshold = min(float(tail.score(fpr)), SURE)
        expected = compared * float(tail.chance(threshold))
    elif level is Level.SIMILAR:
        message = f"{count} different pictures are too few to say what is similar."
        raise DataError(message, f"It takes {FEWEST}; --level copy works with fewer.")
    least = -np.inf if threshold is None else threshold
    found = close_pairs(parts[0], least, parts[1] if len(parts) > 1 else None, progress)
    a, b = numbers[0][found.left], numbers[-1][found.right]
    pairs = zip(a.tolist(), b.tolist(), found.scores.tolist(), strict=True)
    return _Candidates([p for p in pairs if p[0] != p[1]], threshold, compared, expected)


def _content(
    sides: Sequence[Pictures], places: Sequence[list[int]], left_out: Counter[str]
) -> Content:
    """The files of one content that are there; of a second side, those that the first lacks."""
    named = [[s.file(i) for i in at] for s, at in zip(sides, places, strict=True)]
    if sides[0].own_vectors:
        return Content(named[0], named[-1])
    found: list[dict[object, File]] = []
    for files in named:
        found.append(files_of(files, left_out, found[0] if found else ()))
    kept, offered = (list(files.values()) for files in (found[0], found[-1]))
    return Content(kept, offered)


def _edges(
    contents: Sequence[Content], pairs: Sequence[tuple[int, int, float]], level: Level,
    blind: bool, left_out: Counter[str], progress: Progress,
) -> Iterable[Edge]:  # fmt: skip
    """The pairs that are alike enough, after the second look; a `blind` one sees no pictures."""
    wanted = set() if blind else {i for a, b, _ in pairs for i in (a, b)}
    looks = _looks(contents, wanted, left_out, progress)
    for done, (a, b, score) in enumerate(pairs, 1):
        one, other = looks.get(a), looks.get(b)
        edge = Edge(a, b, Level.SIMILAR, score)
        if one is not None and other is not None:
            if one[1] == other[1]:
                edge = Edge(a, b, Level.PIXELS, score, 1.0)
            elif level is not Level.PIXELS:
                seen = likeness(one[0], other[0])
                edge = Edge(a, b, Level.COPY if seen >= SAME else Level.SIMILAR, score, seen)
        if edge.level.rank <= level.rank:
            yield edge
        progress("second look", done, len(pairs))


def _looks(
    contents: Sequence[Content], wanted: Collection[int], left_out: Counter[str],
    progress: Progress,
) -> dict[int, tuple[Look, str]]:  # fmt: skip
    """The look and the hash of the pixels of each wanted content that can be read."""
    found = {}
    for done, i in enumerate(sorted(wanted), 1):
        for file in dict.fromkeys([*contents[i].keepers, *contents[i].offered]):
            try:
                image, _ = decode(content_of(file))
            except BrokenImage as error:
                left_out[CHANGED if error.message == CHANGED else UNREADABLE] += 1
                continue
            found[i] = Look.of(image), pixel_hash(image)
            break
        progress("reading", done, len(wanted))
    return found


def _diameter(
    sides: Sequence[Pictures], rows: Sequence[dict[str, list[int]]], hashes: Sequence[str]
) -> float:
    """One less the lowest cosine among some contents."""
    units = []
    for side, own in zip(sides, rows, strict=True):
        at = [own[name][0] for name in hashes if name in own]
        if side.vectors is not None and at:
            units.append(side.vectors.prefix(side.vectors.dim, side.rows[at]))
    unit: NDArray[np.float32] = np.concatenate(units) if units else np.ones((1, 1), np.float32)
    lowest = min(float((unit[some] @ unit.T).min()) for some in blocks(len(unit), len(unit)))
    return max(0.0, 1 - lowest) if len(unit) > 1 else 0.0
