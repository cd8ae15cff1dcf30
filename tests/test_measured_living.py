"""Measuring and shrinking an index with deleted rows, a tail and parts: as one of what is left."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run
from fakes import FakeJointEncoder, write_corpus

from mrl_search import living
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import DataError
from mrl_search.index import Index
from mrl_search.measure.bench import measure
from mrl_search.measure.contestants import BRUTE
from mrl_search.measure.copies import STANDARD
from mrl_search.measure.evaluate import evaluate
from mrl_search.measure.prefixes import check_prefixes
from mrl_search.measure.queries import QuerySet
from mrl_search.measure.records import Journal
from mrl_search.measure.settings import BenchSettings, about
from mrl_search.progress import silent
from mrl_search.shrink import candidates, shrink_index
from mrl_search.store.collection import LeftOut, left_out_of
from mrl_search.store.intact import verify

QUICK = BenchSettings(k=5, neighbours=7, timed=4, rounds=1, batch=4)
SPEC = IndexSpec((4, 16), "Flat", dtype="float32")
FIRST, FOLDED, TAIL = 300, 60, 8
GONE = [0, 1, 2, 3, 50, *range(100, 130), 299, 310, 311, 363, 367]
MEASURES = ("nearest", "vote", "found", "precision", "linear", "confidence")


def rows() -> tuple[np.ndarray, list[str]]:
    """Vectors around five centres of very different size, which are their labels."""
    rng = np.random.default_rng(5)
    count = FIRST + FOLDED + TAIL
    of = np.sort(rng.integers(0, 5, count))  # so that a wrong row has a wrong label
    centres = rng.standard_normal((5, 16)) * np.geomspace(4, 0.2, 16)
    x = centres[of] + 1.5 * rng.standard_normal((count, 16)) * np.geomspace(2, 0.2, 16)
    return x.astype(np.float32), [f"class {i}" for i in of]


def table(place: Path, labels: list[str], start: int) -> Path:
    paths = [f"picture {start + i}" for i in range(len(labels))]
    pq.write_table(pa.table({"path": paths, "label": labels}), place)
    return place


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """An index of two indexed parts and a tail, of which some rows are deleted."""
    x, labels = rows()
    steps = [slice(0, FIRST), slice(FIRST, FIRST + FOLDED), slice(FIRST + FOLDED, len(x))]
    names = [table(tmp_path / f"{s.start}.parquet", labels[s], s.start) for s in steps]
    index = Index.from_vectors(x[steps[0]], tmp_path / "changed", items=names[0], spec=SPEC)
    monkeypatch.setattr(living, "FEW", 20)
    index.add(x[steps[1]], items=names[1])
    monkeypatch.undo()
    index.add(x[steps[2]], items=names[2])
    index.remove(ids=np.array(GONE))
    parts = [(part.rows, part.indexed) for part in index.manifest.all_parts]
    assert parts == [(FIRST, True), (FOLDED, True), (TAIL, False)]
    assert index.manifest.deleted == len(GONE)
    return index


@pytest.fixture
def fresh(tmp_path: Path) -> Index:
    """An index of the rows that are left in `changed`."""
    x, labels = rows()
    left = np.delete(np.arange(len(x)), GONE)
    place = tmp_path / "left.parquet"
    paths = [f"picture {i}" for i in left]
    pq.write_table(pa.table({"path": paths, "label": [labels[i] for i in left]}), place)
    return Index.from_vectors(x[left], tmp_path / "fresh", items=place, spec=SPEC)


def benched(index: Index, out: Path) -> list[dict[str, object]]:
    """What a benchmark found, without times and what depends on the machine."""
    corpus = index.corpus
    queries = QuerySet.of_corpus(corpus)
    journal = Journal.open(out, about(corpus, queries, QUICK))
    made = measure(corpus, queries, QUICK, journal, silent)
    journal.close()
    records = [r for kind in ("prefix", "plan", "control") for r in made.of(kind)]
    found = [
        {name: value for name, value in r.items() if name in ("name", "dims", *MEASURES)}
        for r in records
    ]
    mislabels = made.one("mislabels") or {}
    paths = [one["path"] for one in mislabels["shown"]]
    ids = [one["id"] for one in mislabels["shown"]]
    by_path = dict(zip(index.items["path"].to_pylist(), index.items.all_ids, strict=True))
    assert ids == [by_path[path] for path in paths]
    scatter = [sorted(r["labels"]) for r in made.of("scatter")]
    (brute,) = (r["multiply_adds"] for r in made.of("plan", name=BRUTE))
    return [
        {"n": made.about["corpus"]["n"], "brute": brute},
        *found,
        {"paths": paths, "scatter": scatter},
    ]


def test_a_benchmark_counts_only_what_is_left(changed: Index, fresh: Index, tmp_path: Path) -> None:
    wanted = benched(fresh, tmp_path / "fresh.jsonl")
    count = FIRST + FOLDED + TAIL - len(GONE)
    assert wanted[0] == {"n": count, "brute": 16 * count}
    assert benched(changed, tmp_path / "changed.jsonl") == wanted


def test_a_benchmark_of_a_compacted_index_looks_up_rows_and_not_ids(
    changed: Index, fresh: Index, tmp_path: Path
) -> None:
    changed.compact()
    assert changed.items.all_ids[0] != 0
    wanted = benched(fresh, tmp_path / "fresh.jsonl")
    assert benched(changed, tmp_path / "compacted.jsonl") == wanted


def test_prefixes_are_checked_over_what_is_left(changed: Index, fresh: Index) -> None:
    wanted, found = asdict(check_prefixes(fresh.corpus)), asdict(check_prefixes(changed.corpus))
    shares = [tuple(p.values()) for p in wanted.pop("prefixes")]
    np.testing.assert_allclose([tuple(p.values()) for p in found.pop("prefixes")], shares, 1e-5)
    assert found == wanted


def test_a_shrunk_index_has_no_deleted_rows(changed: Index, fresh: Index, tmp_path: Path) -> None:
    wanted = candidates(fresh, [4, 8, 16], ["float16", "float32"])
    found = candidates(changed, [4, 8, 16], ["float16", "float32"])
    assert [c.recall for c in found] == [c.recall for c in wanted]
    small = shrink_index(changed, tmp_path / "small", 8)
    verify(small.folder)
    assert (len(small), small.manifest.count, small.manifest.deleted) == (len(fresh),) * 2 + (0,)
    np.testing.assert_array_equal(
        small.items.all_ids, np.delete(np.arange(FIRST + FOLDED + TAIL), GONE)
    )
    whole = shrink_index(fresh, tmp_path / "whole", 8).corpus.collection
    got = small.corpus.collection
    np.testing.assert_array_equal(got.vectors.rows(), whole.vectors.rows())
    assert got.paths.tolist() == whole.paths.tolist()
    np.testing.assert_allclose(got.norms, whole.norms)
    (estimate,) = [c for c in found if (c.dims, c.dtype) == (8, "float32")]
    size = sum(path.stat().st_size for path in small.folder.iterdir())
    assert estimate.bytes == pytest.approx(size, rel=0.5)


def test_a_shrunk_index_still_leaves_out_what_was_removed(changed: Index, tmp_path: Path) -> None:
    before = left_out_of(changed.folder, changed.manifest)
    small = shrink_index(changed, tmp_path / "small", 8)
    assert left_out_of(small.folder, small.manifest) == before
    assert all(isinstance(one, LeftOut) for one in before.values())


def test_clusters_that_the_rest_cannot_train_become_flat(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((200, 16)).astype(np.float32)
    index = Index.from_vectors(x, tmp_path / "i", spec=IndexSpec((8, 16), "IVF50,Flat"))
    index.remove(ids=np.arange(170))
    small = shrink_index(index, tmp_path / "small", 12)
    assert small.manifest.factory == {"8": "Flat", "12": "Flat"} and len(small) == 30


def test_one_item_that_is_left_has_no_neighbours(tmp_path: Path) -> None:
    x = np.eye(4, 8, dtype=np.float32)
    index = Index.from_vectors(x, tmp_path / "i", spec=IndexSpec((4, 8), "Flat"))
    index.remove(ids=[0, 1, 2])
    for job in (lambda: check_prefixes(index.corpus), lambda: candidates(index, [4], ["float16"])):
        with pytest.raises(DataError, match="holds one vector, which has no neighbour"):
            job()
    index.remove(ids=[3])
    with pytest.raises(DataError, match="holds no vector"):
        check_prefixes(index.corpus)


def test_the_commands_take_an_index_with_deleted_rows(changed: Index, tmp_path: Path) -> None:
    checked = run("info", changed.folder, "--check")
    assert checked.exit_code == 0 and f"of {len(changed):,} rows" in checked.stderr
    out = tmp_path / "small"
    assert run("shrink", changed.folder, "--dims", 4, "--yes", "--out", out).exit_code == 0
    assert len(Index.open(out)) == len(changed)
    records = tmp_path / "b.jsonl"
    assert run("bench", changed.folder, "--out", records, "--rounds", 1).exit_code == 0


def test_pictures_are_evaluated_in_what_is_left(tmp_path: Path) -> None:
    write_corpus(tmp_path / "pictures", 10, size=96)
    encoder, place = FakeJointEncoder(), str(tmp_path / "pictures")
    index = Index.build(place, tmp_path / "index", model=encoder, axes="none")
    gone = index.items["path"].to_pylist()[::4]
    index.remove(gone)
    for path in gone:
        Path(path).unlink()
    rest = Index.build(place, tmp_path / "rest", model=encoder, axes="none")
    found = evaluate(index, place, encoder, k=5, instance=STANDARD)
    wanted = evaluate(rest, place, encoder, k=5, instance=STANDARD)
    assert found.prefixes == wanted.prefixes and found.prefixes[0].n == len(rest)
    assert found.thumbnail_recall_at_1 == wanted.thumbnail_recall_at_1 is not None
