"""The working folder of a contest: rows, queries, true neighbours, and a folder a contestant."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from vectors import Kind, Tree, noisy_items, some_items

from mrl_search.search.corpus import Corpus
from mrl_search.search.plan import Plan
from mrl_search.search.run import search

__all__ = ["QUERIES", "TUNING", "K", "Work", "hits", "prepare"]

K, QUERIES = 10, 1000  # fresh ones
TUNING = 4000  # as many as `tune` draws for recall of .999
TIES = 40  # true neighbours that are kept, so that equal scores at the tenth place all count
SAME_SCORE = 1e-6  # float32 summation error
TURNED = 256  # principal axes that are kept
SAMPLE = 50_000  # rows that the axes are learnt from
PEERS_UP_TO = 2_000_000  # rows that others are built over: they keep them as float32
SEEDS = {"fresh": 1, "tuning": 2}  # of queries; the corpus is seed 100 and up
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Work:
    """Where a contest keeps what it needs.

    Attributes:
        folder: rows.npy (n, dim) float32; fresh.npy, QUERIES queries, tuning.npy, and the rows and
            scores of their neighbours; axes.npy (TURNED, dim); a folder a contestant.
        index: of mrl-search, with the same rows.
    """

    folder: Path
    index: Path

    @cached_property
    def about(self) -> dict[str, Any]:
        """Name of the `vectors`, `n`, `dim`, `wanted`, and whether `peers` take part.

        `wanted` is the number of true neighbours that recall is about: K, or one less where
        queries are noised items, which find themselves.
        """
        return json.loads((self.folder / "about.json").read_text())

    def rows(self) -> Rows:
        """The rows, mapped."""
        return np.load(self.folder / "rows.npy", mmap_mode="r")

    def queries(self, which: str) -> Rows:
        return np.load(self.folder / f"{which}.npy")

    def hits(self, which: str, part: slice, found: NDArray[np.int64]) -> NDArray[np.float64]:
        """Recall of each answer (n, K) to the queries `which` in `part`."""
        rows, scores = self.truth(which)
        return hits(found, (rows[part], scores[part]), self.about.get("wanted", K))

    def truth(self, which: str) -> tuple[NDArray[np.int64], Rows]:
        """Rows and scores of the true neighbours, both (queries, TIES), noised items left out."""
        stored = np.load(self.folder / f"{which}-truth.npz")
        return stored["rows"], stored["scores"]

    def axes(self, dims: int) -> Rows:
        """The first `dims` principal axes (dims, dim) of the rows, not centred."""
        return np.load(self.folder / "axes.npy")[:dims]

    def of(self, contestant: str) -> Path:
        return self.folder / "contestants" / contestant.replace(" ", "-").replace("/", "-")


def hits(
    found: NDArray[np.int64], truth: tuple[NDArray[np.int64], Rows], wanted: int = K
) -> NDArray[np.float64]:
    """Share of the `wanted` nearest that each answer (n, K) has; ties with the last count."""
    rows, scores = truth
    accepted = np.where(scores >= scores[:, wanted - 1 : wanted] - SAME_SCORE, rows, -2)
    same = (found[:, :, None] == accepted[:, None, :]).any(axis=2)
    return np.minimum(same.sum(axis=1), wanted) / wanted


def prepare(work: Work, given: Path | None, tuning: int) -> None:
    """Write what all contestants need, unless it is there: rows, queries, truth and axes."""
    if (work.folder / "about.json").exists():
        return
    work.folder.mkdir(parents=True, exist_ok=True)
    corpus = Corpus.open(work.index)
    name, own = corpus.manifest.fingerprint.split("-")[0], None
    if given:
        both = np.load(given).astype(np.float32)
        queries = {"fresh": both[:QUERIES], "tuning": both[QUERIES : QUERIES + tuning]}
        name = work.index.name
    elif name in set(Kind):
        counts, tree = {"fresh": QUERIES, "tuning": tuning}, Tree.of(Kind(name))
        queries = {which: tree.rows(count, SEEDS[which]) for which, count in counts.items()}
    else:
        own = some_items(corpus, QUERIES + tuning)
        both = noisy_items(corpus, QUERIES + tuning)
        queries = {"fresh": both[:QUERIES], "tuning": both[QUERIES:]}
        name = Path(corpus.manifest.source).name
    for which, x in queries.items():
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        np.save(work.folder / f"{which}.npy", x)
    peers = len(corpus) <= PEERS_UP_TO
    rows = _write_rows(work, corpus) if peers else None
    for which, x in queries.items():
        scores, found = _nearest(x, corpus, rows)
        if own is not None:
            items = own[:QUERIES] if which == "fresh" else own[QUERIES:]
            scores, found = _without(items, scores, found)
        np.savez(work.folder / f"{which}-truth.npz", rows=found, scores=scores)
    wanted = K if own is None else K - 1
    about = {
        "vectors": name, "n": len(corpus), "dim": corpus.dim, "peers": peers, "wanted": wanted,
        "tuning": len(queries["tuning"]),
    }  # fmt: skip
    (work.folder / "about.json").write_text(json.dumps(about))


def _without(
    own: NDArray[np.int64], scores: Rows, found: NDArray[np.int64]
) -> tuple[Rows, NDArray[np.int64]]:
    """The lists (n, TIES) without the row `own` (n,) of each, or without their last place."""
    kept = found != own[:, None]
    kept[kept.all(axis=1), -1] = False
    shape = (len(found), found.shape[1] - 1)
    return scores[kept].reshape(shape), found[kept].reshape(shape)


def _write_rows(work: Work, corpus: Corpus) -> Rows:
    """Write rows.npy and axes.npy; the rows, mapped."""
    shape = (len(corpus), corpus.dim)
    rows = np.lib.format.open_memmap(work.folder / "rows.npy", "w+", np.float32, shape)
    for start in range(0, len(rows), SAMPLE):
        block = slice(start, start + SAMPLE)
        rows[block] = corpus.vectors.prefix(corpus.dim, np.arange(len(rows))[block])
    rows.flush()
    chosen = np.random.default_rng(5).choice(len(rows), min(SAMPLE, len(rows)), replace=False)
    some = rows[np.sort(chosen)]
    axes = np.linalg.eigh(some.T @ some)[1][:, ::-1][:, :TURNED].T
    np.save(work.folder / "axes.npy", np.ascontiguousarray(axes, dtype=np.float32))
    return rows


def _nearest(queries: Rows, corpus: Corpus, rows: Rows | None) -> tuple[Rows, NDArray[np.int64]]:
    """Scores and rows of the TIES nearest: all rows compared in blocks, or exact search."""
    if rows is None:
        found = search(corpus, queries, Plan.EXACT, TIES)
        return found.scores, found.rows
    kept = faiss.ResultHeap(len(queries), min(TIES, len(rows)), keep_max=True)
    for start in range(0, len(rows), SAMPLE):
        block = rows[start : start + SAMPLE]
        count = min(kept.k, len(block))
        scores, ids = faiss.knn(queries, block, count, faiss.METRIC_INNER_PRODUCT)
        kept.add_result(scores, ids + start)
    kept.finalize()
    return kept.D, kept.I
