"""A smaller index from a larger one: what it holds, what it loses, and about how large it is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run
from conftest import Rows
from typer.testing import CliRunner

from mrl_search.cli.app import app
from mrl_search.cli.options import bytes_of
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import ConfigError, DataError, IndexFolderError, Skipped
from mrl_search.index import Index
from mrl_search.search.plan import Plan
from mrl_search.search.run import search
from mrl_search.shrink import Candidate, best_that_fits, candidates, shrink_index
from mrl_search.store.intact import verify


def size_of(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.iterdir())


def answered(answer: str, *args: object) -> object:
    return CliRunner().invoke(app, [str(a) for a in args], input=answer)


@pytest.fixture
def rich_index(small_set: Rows, make_index: Callable[..., Index]) -> Index:
    """`small_set` with a column of its own and a skipped image."""
    items = small_set.items.append_column("price", pa.array(np.arange(500.0)))
    return make_index(
        replace(small_set, items=items, skipped=(Skipped("bad.jpg", "It is empty."),)), name="rich"
    )


def test_a_shrunk_index_is_the_prefix_and_all_that_goes_with_it(
    rich_index: Index, tmp_path: Path
) -> None:
    small = shrink_index(rich_index, tmp_path / "small", 16)
    old, new = rich_index.corpus.collection, small.corpus.collection
    assert (small.corpus.dim, small.dims, small.corpus.rows_dim, small.manifest.dtype) == (
        16,
        (8, 16),
        64,
        "float16",
    )
    np.testing.assert_array_equal(new.vectors.rows(), old.vectors.prefix(16).astype(np.float16))
    assert (
        new.items.table().drop(["norm"]).equals(old.items.table().drop(["norm"]))
        and new.items["price"][7].as_py() == 7
    )
    assert new.skipped == old.skipped and sorted(new.heads) == [8, 16]
    for name in ("fingerprint", "encoder", "model", "source", "classes"):
        assert getattr(small.manifest, name) == getattr(rich_index.manifest, name)
    for d in (8, 16):  # heads read the raw prefix, which is what the old index gave them
        np.testing.assert_allclose(new.linear_scores(d), old.linear_scores(d), rtol=2e-3, atol=0.1)
    assert small.manifest.factory == {"8": "Flat", "16": "Flat"}
    verify(small.folder)
    assert not list(tmp_path.glob(".*building"))


def test_a_length_that_the_kind_of_index_cannot_have_gets_a_flat_one(
    small_set: Rows, make_index: Callable[..., Index], tmp_path: Path
) -> None:
    index = make_index(small_set, dims=(64,), factory="PQ16x4np")
    assert shrink_index(index, tmp_path / "other", 50).manifest.factory == {"50": "Flat"}
    assert shrink_index(index, tmp_path / "fits", 48).manifest.factory == {"48": "PQ16x4np"}


def test_queries_of_the_same_model_go_on_working(
    small_index: Index, queries: np.ndarray, tmp_path: Path
) -> None:
    small = shrink_index(small_index, tmp_path / "cut", 16, "float32")
    for plan in ("16", "8:50,16"):
        np.testing.assert_array_equal(
            small.search(queries, 5, plan=plan).ids, small_index.search(queries, 5, plan=plan).ids
        )
    smaller = shrink_index(small, tmp_path / "smaller", 8)
    assert (smaller.corpus.rows_dim, smaller.dims) == (64, (8,))
    assert smaller.corpus.to_space(queries[0]).shape == (1, 8)
    assert "shrink" in smaller.manifest.rebuild(smaller.folder)


def test_a_length_without_an_index_gets_one_of_the_nearest_kind(
    small_set: Rows, make_index: Callable[..., Index], tmp_path: Path
) -> None:
    index = make_index(small_set, factory="SQ8", name="sq")
    small = shrink_index(index, tmp_path / "small", 20)
    assert small.manifest.factory == {"8": "SQ8", "16": "SQ8", "20": "SQ8"}
    assert small.corpus.prefix_index(20).count == 500
    assert shrink_index(index, tmp_path / "same", 64, "float32").corpus.rows_dim == 64


def test_every_prefix_keeps_its_own_kind(tmp_path: Path, queries: np.ndarray) -> None:
    spec = IndexSpec((8, 16, 64), "Flat", {"16": "SQ8"})
    mixed = Index.from_vectors(queries, tmp_path / "mixed", spec=spec)
    small = shrink_index(mixed, tmp_path / "cut", 20)
    assert small.manifest.factory == {"8": "Flat", "16": "SQ8", "20": "SQ8"}
    assert small.dims == (8, 16, 20)


def test_a_rotated_index_stays_rotated(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((200, 24)) * np.geomspace(4, 0.1, 24)[::-1]
    spec = IndexSpec((8, 24), dtype="float32")
    index = Index.from_vectors(x, tmp_path / "i", spec=spec, rotate="pca")
    small = shrink_index(index, tmp_path / "small", 8)
    rotation = small.corpus.collection.transform.rotation
    assert rotation is not None and rotation.shape == (8, 24)
    assert small.manifest.created > index.manifest.created  # the newest index of a folder
    found = small.search(x[:20], 5).ids
    np.testing.assert_array_equal(found[:, 0], np.arange(20))
    np.testing.assert_array_equal(small.search(x[:20] * 1e25, 5).ids, found)
    assert (found == index.search(x[:20], 5, plan=8).ids).mean() > 0.95


def test_a_large_index_keeps_its_sieve(
    small_set: Rows,
    make_index: Callable[..., Index],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for place in ("building", "shrink"):
        monkeypatch.setattr(f"mrl_search.{place}.CLUSTERED_FROM", 100)
    index = make_index(small_set, name="large")
    (c,) = candidates(index, [20], ["float16"])
    small = shrink_index(index, tmp_path / "cut", 20)
    sieve, vectors = small.corpus.sieve, small.corpus.vectors
    assert sieve is not None and sieve.dims == (8, 16, 20)
    for d in small.dims:
        tail = np.linalg.norm(vectors.prefix(20)[:, d:], axis=1)
        np.testing.assert_allclose(sieve.norms_at(d), tail, atol=1e-3)
    assert c.bytes == pytest.approx(size_of(small.folder), rel=0.05)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("factory", ["Flat", "SQ8", "HNSW8", "Scan"])
def test_the_size_is_about_known_before(
    small_set: Rows, make_index: Callable[..., Index], tmp_path: Path, dtype: str, factory: str
) -> None:
    skipped = (Skipped("bad.jpg", "It is empty."),)
    index = make_index(replace(small_set, skipped=skipped), factory=factory, name="i")
    for c in candidates(index, [8, 16, 20, 64], [dtype]):
        shrink_index(index, tmp_path / str(c.dims), c.dims, dtype)
        assert c.bytes == pytest.approx(size_of(tmp_path / str(c.dims)), rel=0.05)


def test_the_size_of_a_rotated_index_with_columns(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((300, 40))
    columns = {"label": ["a", "b"] * 150, "note": [f"note {i}" for i in range(300)]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    items = tmp_path / "t.parquet"
    index = Index.from_vectors(x, tmp_path / "i", items=items, rotate="pca")
    (c,) = candidates(index, [20], ["float16"])  # a length that has no index yet
    shrink_index(index, tmp_path / "small", 20)
    assert c.bytes == pytest.approx(size_of(tmp_path / "small"), rel=0.1)


def test_one_vector_has_no_neighbour(tmp_path: Path) -> None:
    index = Index.from_vectors(np.ones((1, 8), np.float32), tmp_path / "one")
    with pytest.raises(DataError, match="holds one vector"):
        candidates(index, [4], ["float16"])


def test_recall_is_measured_against_the_original(small_index: Index, tmp_path: Path) -> None:
    found = candidates(small_index, [8, 64], ["float16", "float32"])
    assert [(c.dims, c.dtype) for c in found] == [
        (8, "float16"),
        (8, "float32"),
        (64, "float16"),
        (64, "float32"),
    ]
    assert (
        found[0].recall < 0.9
        and found[3].recall == 1
        and found[2].recall > 0.97
        and {c.queries for c in found} == {200}
    )
    small = shrink_index(small_index, tmp_path / "cut", 8)
    rows = np.sort(np.random.default_rng(0).choice(500, 200, replace=False))
    queries = small_index.corpus.vectors.rows(rows).astype(np.float32)
    truth = search(small_index.corpus, queries, Plan.EXACT, 11).ids
    answer = search(small.corpus, small.corpus.to_space(queries), Plan.EXACT, 11).ids
    by_hand = [
        np.isin(t[t != r][:10], a[a != r][:10]).mean()
        for r, t, a in zip(rows, truth, answer, strict=True)
    ]
    assert found[0].recall == pytest.approx(np.mean(by_hand))


def test_the_best_that_fits() -> None:
    found = [Candidate(8, "float16", 100, 0.5, 9), Candidate(8, "float32", 150, 0.6, 9),
             Candidate(64, "float16", 200, 0.9, 9),
             Candidate(64, "float32", 300, 0.9, 9)]  # fmt: skip
    assert [best_that_fits(found, size) for size in (100, 199, 200, 1000)] == [
        found[0],
        found[1],
        found[2],
        found[2],
    ]
    with pytest.raises(ConfigError, match=r"Nothing fits in 99 bytes\.") as error:
        best_that_fits(found, 99)
    assert "8 dims in float16, takes about 100 and keeps 50.0%" in error.value.hint


def test_what_cannot_be_made(small_index: Index, tmp_path: Path) -> None:
    for dims, dtype, said in (
        (65, None, "no prefix of 65"),
        (0, None, "positive"),
        (8, "int8", "float16 or float32"),
    ):
        with pytest.raises(ConfigError, match=said):
            shrink_index(small_index, tmp_path / "n", dims, dtype)
    with pytest.raises(IndexFolderError, match="exists already"):
        shrink_index(small_index, small_index.folder, 8)
    assert not (tmp_path / "n").exists() and not list(tmp_path.glob(".*building"))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("200MB", 200_000_000),
        ("1.5GB", 1_500_000_000),
        ("800kB", 800_000),
        ("800 KB", 800_000),
        ("12", 12),
        ("7b", 7),
        ("2t", 2 * 10**12),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-3MB", "3 apples", "1e6"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a size"):
        bytes_of(text)


def test_the_command_tells_the_loss_and_asks_before_it_writes(
    small_index: Index, tmp_path: Path
) -> None:
    out = tmp_path / "small-12"
    for answer in ("", "n\n"):
        refused = answered(answer, "shrink", small_index.folder, "--dims", "12")
        assert (
            refused.exit_code == 1 and not out.exists() and "nothing was written" in refused.stderr
        )
        assert (
            "recall@10" in refused.stdout
            and "chosen" in refused.stdout
            and "12 dims in float16 lose" in refused.stderr
        )
    assert answered("y\n", "shrink", small_index.folder, "--dims", "12").exit_code == 0
    assert Index.open(out).dims == (8, 12)
    assert (
        run("shrink", small_index.folder, "--dims", "12", "-y").exit_code == 1
    )  # it is there already


def test_the_command_fits_and_each_option_matters(small_index: Index, tmp_path: Path) -> None:
    shown = run("shrink", small_index.folder, "--fit", "100kB", "--out", tmp_path / "fit", "--yes")
    assert shown.exit_code == 0 and size_of(tmp_path / "fit") <= 100_000
    assert Index.open(tmp_path / "fit").corpus.dim == 16
    run(
        "shrink",
        small_index.folder,
        "--dims",
        "8",
        "--dtype",
        "float32",
        "--out",
        tmp_path / "wide",
        "-y",
    )
    assert Index.open(tmp_path / "wide").manifest.dtype == "float32"
    table = [
        (["--dims", "8", "--fit", "1MB"], "Give --dims or --fit."),
        ([], "Give --dims or --fit."),
        (["--fit", "1kB"], "Nothing fits in 1,000 bytes"),
        (["--fit", "much"], "'much' is not a size."),
        (["--dims", "65"], "no prefix of 65"),
        (["--dims", "8", "--dtype", "int8"], "it must be float16 or float32"),
        (["--dims", "8", "--out", small_index.folder], "exists already"),
    ]
    for args, said in table:
        result = run("shrink", small_index.folder, "-y", *args)
        assert result.exit_code == 1 and said in result.stderr, result.output
    assert not list(tmp_path.glob("small-*"))
