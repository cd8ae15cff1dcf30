"""Find the copies in a collection, or in one of the pictures of another.

Equal bytes are found by their hash. For the other levels, pairs of vectors above a threshold get a
second look. The threshold follows from a rate of false pairs, by a tail fitted to random pairs; if
no rate is asked for, the nearest pairs get the second look, as many as are seen through quickly.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mrl_search.duplicates.decisions import read_decisions
from mrl_search.duplicates.groups import Content, Duplicates, Edge, Level, stars
from mrl_search.duplicates.keeping import RULES, Item, Keep
from mrl_search.duplicates.pictures import CHANGED, UNREADABLE, Pictures, content_of, files_of
from mrl_search.encoders.base import Encoder
from mrl_search.errors import BrokenImage, ConfigError, DataError, require
from mrl_search.images.decode import decode
from mrl_search.images.exif import exif_columns
from mrl_search.images.look import SAME, likeness, look_of, pixel_hash
from mrl_search.images.sources import Source
from mrl_search.images.traces import Traces, enlarged, traces_of
from mrl_search.progress import Progress
from mrl_search.search.corpus import Corpus
from mrl_search.search.exact.pairs import Side, close_pairs, random_cosines
from mrl_search.search.tail import fit_tail

__all__ = ["find_duplicates"]

FPR = 1e-6  # false pairs for each pair of unrelated pictures
LOOKS, MOST_LOOKS = 5, 500  # at unrelated pairs that are always affordable: a picture, in all
BACKGROUND = 200_000  # random pairs that the tail is fitted to
FEWEST = 64  # different pictures that a tail needs; of fewer, every pair gets the second look
SURE, SURE_ALONE = 0.95, 0.98  # cosines that are always enough, with a second look and without


@dataclass(frozen=True, eq=False, slots=True)
class _Candidates:
    """Pairs of contents for the second look, and how they were chosen."""

    pairs: Sequence[tuple[int, int, float]] = ()
    fpr: float = FPR
    threshold: float | None = None
    compared: int = 0
    expected: float = 0.0


@dataclass(frozen=True, eq=False, slots=True)
class _Seen:
    """What the second look sees of a content."""

    look: NDArray[np.float32]
    pixels: str  # their hash
    traces: Traces
    camera: str

    @classmethod
    def of(cls, data: bytes) -> "_Seen":
        """What is seen of the bytes of a file; raises BrokenImage."""
        image, _ = decode(data)
        exif = exif_columns(data)
        camera = str(exif.get("camera") or ("time taken" if "taken" in exif else ""))
        return cls(look_of(image), pixel_hash(image), traces_of(image), camera)


def find_duplicates(
    corpus: Corpus, encoder: Callable[[], Encoder], level: str, fpr: float | None, keep: str,
    against: Source | str | Path | None, progress: Progress,
) -> Duplicates:  # fmt: skip
    """Group the copies in an index; see `Index.duplicates`. Pairs that people decided stay apart.

    Without `fpr`, the levels with a second look take a rate above 1e-6 while that means five looks
    a picture and 500 in all at most.
    """
    wanted, rule = Level.named(level), Keep(keep)
    message = f"--fpr is {fpr}; it must be between 0 and 1."
    require(fpr is None or 0 < fpr < 1, message, "For example 1e-6.")
    pictures, decided = Pictures.of_index(corpus), read_decisions(corpus.folder)
    if pictures.own_vectors and wanted in (Level.PIXELS, Level.COPY):
        message = f"This index holds your own vectors: there are no pictures for level {level}."
        raise ConfigError(message, "--level exact finds equal vectors, similar near ones.")
    sides = [pictures]
    if against is not None:
        needed = None if wanted is Level.EXACT else encoder
        sides.append(Pictures.of_others(against, corpus, needed, progress))
    _check_pattern(rule, sides)
    rows = [side.contents() for side in sides]
    hashes = list(dict.fromkeys(name for side in rows for name in side))
    chosen = _Candidates()
    if wanted is not Level.EXACT:
        chosen = _candidates(sides, rows, hashes, wanted, fpr, progress)
    pairs = [p for p in chosen.pairs if frozenset((hashes[p[0]], hashes[p[1]])) not in decided]
    left_out = Counter({UNREADABLE: sum(side.unread for side in sides)})
    paired = {i for a, b, _ in pairs for i in (a, b)}
    contents = [Content((), ()) for _ in hashes]
    for i, name in enumerate(hashes):
        places = [side.get(name, []) for side in rows]
        if i in paired or sum(map(len, places)) > 1:
            contents[i] = _content(sides, places, left_out)
    looked_at = set[int]() if pictures.own_vectors else paired
    seen = _seen(contents, looked_at, left_out, progress)
    with threadpool_limits(1, "blas"):  # of such small arrays, threads would wait for each other
        edges = list(_edges(seen, pairs, wanted, progress))
    described = _described(contents, seen, edges)
    number = {name: i for i, name in enumerate(hashes)}
    apart = {frozenset(number[h] for h in pair) for pair in decided if pair <= number.keys()}
    groups = stars(described, edges, rule, against is None, apart)
    groups.sort(key=lambda group: (-len(group.copies), group.keep.path))
    return Duplicates(
        tuple(groups), wanted, chosen.fpr, chosen.threshold, chosen.compared, len(chosen.pairs),
        chosen.expected, left_out, sum(map(len, sides[1:])),
    )  # fmt: skip


def _check_pattern(keep: Keep, sides: Sequence[Pictures]) -> None:
    """Raise ConfigError for a pattern that no path fits."""
    paths = (side.path(i) for side in sides for i in range(len(side)))
    if keep.pattern and not any(map(keep.fits, paths)):
        message = f"--keep is {keep.pattern!r}; no picture has such a path."
        hint = f"Rules: {', '.join(RULES)}. A pattern fits a whole path, such as '*/originals/*';"
        raise ConfigError(message, f"{hint} a path is {sides[0].path(0)}.")


def _candidates(
    sides: Sequence[Pictures], rows: Sequence[dict[str, list[int]]], hashes: Sequence[str],
    level: Level, fpr: float | None, progress: Progress,
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
    threshold, expected, rate, affordable = None, 0.0, FPR if fpr is None else fpr, 0
    if fpr is None and level is not Level.SIMILAR:
        affordable = min(LOOKS * min(map(len, parts)), MOST_LOOKS)
        rate = max(FPR, affordable / max(1, compared))
    if count >= FEWEST and compared > affordable:
        tail = fit_tail(random_cosines(parts[0], BACKGROUND))
        sure = SURE_ALONE if level is Level.SIMILAR else SURE
        threshold = min(float(tail.score(rate)), sure)
        expected = compared * float(tail.chance(threshold))
    elif level is Level.SIMILAR:
        message = f"{count} different pictures are too few to say what is similar."
        raise DataError(message, f"It takes {FEWEST}; --level copy works with fewer.")
    least = -np.inf if threshold is None else threshold
    found = close_pairs(parts[0], least, parts[1] if len(parts) > 1 else None, progress)
    a, b = numbers[0][found.left], numbers[-1][found.right]
    pairs = zip(a.tolist(), b.tolist(), found.scores.tolist(), strict=True)
    return _Candidates([p for p in pairs if p[0] != p[1]], rate, threshold, compared, expected)


def _content(
    sides: Sequence[Pictures], places: Sequence[list[int]], left_out: Counter[str]
) -> Content:
    """The files of one content that are there; of a second side, those that the first lacks."""
    named = [[s.file(i) for i in at] for s, at in zip(sides, places, strict=True)]
    if sides[0].own_vectors:
        return Content(named[0], named[-1])
    first, *rest = (files_of(files, left_out) for files in named)
    keepers = list(first.values())
    if not rest:
        return Content(keepers, keepers)
    offered = [file for key, file in rest[0].items() if key not in first]
    return Content(keepers, offered, [file for key, file in rest[0].items() if key in first])


def _edges(
    seen: Mapping[int, _Seen], pairs: Sequence[tuple[int, int, float]], level: Level,
    progress: Progress,
) -> Iterator[Edge]:  # fmt: skip
    """The pairs that are alike enough, after the second look at those that were `seen`."""
    for done, (a, b, score) in enumerate(pairs, 1):
        one, other = seen.get(a), seen.get(b)
        edge = Edge(a, b, Level.SIMILAR, score)
        if one is not None and other is not None:
            if one.pixels == other.pixels:
                edge = Edge(a, b, Level.PIXELS, score, 1.0)
            elif level is not Level.PIXELS:
                alike = likeness(one.look, other.look)
                edge = Edge(a, b, Level.COPY if alike >= SAME else Level.SIMILAR, score, alike)
        if edge.level.rank <= level.rank:
            yield edge
        progress("second look", done, len(pairs))


def _described(
    contents: Sequence[Content], seen: Mapping[int, _Seen], edges: Sequence[Edge]
) -> list[Content]:
    """The contents, whose files say what was seen of them; edges show which are enlarged."""
    originals: dict[int, int] = {}
    for edge in edges:
        for a, b in ((edge.a, edge.b), (edge.b, edge.a)):
            if edge.level is Level.COPY and enlarged(seen[a].traces, seen[b].traces):
                pixels = seen[b].traces.pixels
                originals[a] = min(pixels, originals.get(a, pixels))

    def described(i: int, files: Sequence[Item]) -> list[Item]:
        one, original = seen[i], originals.get(i, 0)
        return [
            replace(file, camera=one.camera, step=one.traces.step, original=original)
            for file in files
        ]

    found = list(contents)
    for i in seen:
        content, keepers = contents[i], described(i, contents[i].keepers)
        same = content.offered is content.keepers  # `stars` tells files apart by identity
        offered = keepers if same else described(i, content.offered)
        found[i] = Content(keepers, offered, content.present)
    return found


def _seen(
    contents: Sequence[Content], wanted: Collection[int], left_out: Counter[str],
    progress: Progress,
) -> dict[int, _Seen]:  # fmt: skip
    """What is seen of each wanted content that can be read."""
    found = {}
    for done, i in enumerate(sorted(wanted), 1):
        for file in dict.fromkeys([*contents[i].keepers, *contents[i].offered]):
            try:
                found[i] = _Seen.of(content_of(file))
            except BrokenImage as error:
                left_out[CHANGED if error.message == CHANGED else UNREADABLE] += 1
                continue
            break
        progress("reading", done, len(wanted))
    return found
