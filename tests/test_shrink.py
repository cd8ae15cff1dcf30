"""A smaller index from a larger one: what it holds, what it loses, and that its size is known before it is written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mrl_search.engines.shrink import Candidate, best_that_fits, candidates, shrink_index
from typer.testing import CliRunner, Result

from mrl_search.cli.app import app
from mrl_search.cli.options import bytes_of
from mrl_search.engines import Index, add_prefix_indexes
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import ConfigError, IndexFolderError, Skipped
from mrl_search.measure.accuracy import Copies, accuracy_per_prefix
from mrl_search.search import exact
from mrl_search.search.plan import Plan
from mrl_search.search.run import search
from mrl_search.store.items import as_table
from mrl_search.store.manifest import verify
from mrl_search.store.own_vectors import index_vectors
from mrl_search.store.rows import EmbeddingSet


def run(*args: str | Path, answer: str = "") -> Result:
    return CliRunner().invoke(app, [str(a) for a in args], input=answer)


def size_of(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.iterdir())


@pytest.fixture
def rich_index(small_set: EmbeddingSet, make_index: Callable[..., Index]) -> Index:
    """`small_set` with a column of its own and a skipped image."""
    items = small_set.items.append_column("price", pa.array(np.arange(500.0)))
    return make_index(
        replace(small_set, items=items, skipped=(Skipped("bad.jpg", "It is empty."),)), name="rich"
    )


def test_a_shrunk_index_is_the_prefix_and_all_that_goes_with_it(
    rich_index: Index, tmp_path: Path
) -> None:
    small = shrink_index(rich_index, tmp_path / "small", 16)
    old, new = rich_index.embeddings, small.embeddings
    assert (small.dim, small.dims, small.rows_dim, small.manifest.dtype) == (
        16,
        (8, 16),
        64,
        "float16",
    )
    np.testing.assert_array_equal(new.vectors, old.prefix(16).astype(np.float16))
    assert (
        as_table(new.items).drop(["norm"]).equals(as_table(old.items).drop(["norm"]))
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
    small_set: EmbeddingSet, make_index: Callable[..., Index], tmp_path: Path
) -> None:
    index = make_index(small_set, dims=(64,), factory="PQ16x4")
    assert shrink_index(index, tmp_path / "other", 50).manifest.factory == {"50": "Flat"}
    assert shrink_index(index, tmp_path / "fits", 48).manifest.factory == {"48": "PQ16x4"}


def test_queries_of_the_same_model_go_on_working(
    small_index: Index, queries: np.ndarray, tmp_path: Path
) -> None:
    small = shrink_index(small_index, tmp_path / "cut", 16, "float32")
    assert small.to_space(queries).shape == (40, 16)
    for plan in (Plan.single(16, 5), Plan.parse("8:50,16", 5)):
        np.testing.assert_array_equal(
            search(small, small.to_space(queries), plan).ids,
            search(small_index, small_index.to_space(queries), plan).ids,
        )
    smaller = shrink_index(small, tmp_path / "smaller", 8)
    assert (smaller.rows_dim, smaller.dims) == (64, (8,))
    assert smaller.to_space(queries[0]).shape == (1, 8)
    assert "shrink" in smaller.manifest.rebuild(smaller.folder)


def test_evaluating_with_full_length_rows_of_the_same_model(
    small_index: Index, tmp_path: Path
) -> None:
    small = shrink_index(small_index, tmp_path / "cut", 16, "float32")
    queries = replace(small_index.embeddings)  # the same rows, but not the corpus itself
    copies = Copies(
        small_index.embeddings.vectors[:30].astype(np.float32), small_index.embeddings.hashes[:30]
    )
    old, new = (accuracy_per_prefix(index, queries, 5, copies) for index in (small_index, small))
    assert [p.dims for p in new] == [8, 16]
    for a, b in zip(old, new, strict=False):
        assert (a.n, a.linear_top1, a.knn_top1, a.instance_recall_at_1) == (
            b.n,
            b.linear_top1,
            b.knn_top1,
            b.instance_recall_at_1,
        )


def test_a_length_without_an_index_gets_one_of_the_nearest_kind(
    small_set: EmbeddingSet, make_index: Callable[..., Index], tmp_path: Path
) -> None:
    index = make_index(small_set, factory="SQ8", name="sq")
    small = shrink_index(index, tmp_path / "small", 20)
    assert small.manifest.factory == {"8": "SQ8", "16": "SQ8", "20": "SQ8"}
    assert small.prefix_index(20).ntotal == 500
    assert shrink_index(index, tmp_path / "same", 64, "float32").rows_dim == 64


def test_every_prefix_keeps_its_own_kind(small_index: Index, tmp_path: Path) -> None:
    add_prefix_indexes(small_index.folder, IndexSpec((16,), "SQ8"))
    mixed = Index.open(small_index.folder)
    (c,) = candidates(mixed, [20], ["float16"])
    small = shrink_index(mixed, tmp_path / "cut", 20)
    assert (small.manifest.factory, small.dims) == (
        {"8": "Flat", "16": "SQ8", "20": "SQ8"},
        (8, 16, 20),
    )
    assert c.bytes == pytest.approx(size_of(small.folder), rel=0.01)
    for d in small.dims:
        tail = np.linalg.norm(small.embeddings.prefix(20)[:, d:], axis=1)
        np.testing.assert_allclose(small.sieve.norms_at(d), tail, atol=1e-3)


def test_a_rotated_index_stays_rotated(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((200, 24)) * np.geomspace(4, 0.1, 24)[::-1]
    np.save(tmp_path / "x.npy", x)
    index = index_vectors(
        tmp_path / "x.npy", tmp_path / "i", IndexSpec((8, 24), dtype="float32"), rotation="pca"
    )
    small = shrink_index(index, tmp_path / "small", 8)
    assert small.embeddings.rotation is not None and small.embeddings.rotation.shape == (8, 24)
    found = exact(small, small.to_space(x[:20]), 5).ids
    np.testing.assert_array_equal(found[:, 0], np.arange(20))
    assert (found == exact(index, index.to_space(x[:20]), 5, 8).ids).mean() > 0.95


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("factory", ["Flat", "SQ8", "HNSW8"])
def test_the_size_is_known_before(
    small_set: EmbeddingSet,
    make_index: Callable[..., Index],
    tmp_path: Path,
    dtype: str,
    factory: str,
) -> None:
    index = make_index(
        replace(small_set, skipped=(Skipped("bad.jpg", "It is empty."),)), factory=factory, name="i"
    )
    for c in candidates(index, [8, 16], [dtype]):
        shrink_index(index, tmp_path / str(c.dims), c.dims, dtype)
        assert c.bytes == size_of(tmp_path / str(c.dims))


def test_the_size_of_a_rotated_index_with_columns(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((300, 40)))
    pq.write_table(
        pa.table({"label": ["a", "b"] * 150, "note": [f"note {i}" for i in range(300)]}),
        tmp_path / "t.parquet",
    )
    index = index_vectors(
        tmp_path / "x.npy", tmp_path / "i", items=tmp_path / "t.parquet", rotation="pca"
    )
    (c,) = candidates(index, [20], ["float16"])  # a length that has no index yet
    shrink_index(index, tmp_path / "small", 20)
    assert c.bytes == size_of(tmp_path / "small")


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
    asked = small_index.embeddings.vectors[rows].astype(np.float32)
    truth, answer = exact(small_index, asked, 11).ids, exact(small, small.to_space(asked), 11).ids
    by_hand = [
        np.isin(t[t != r][:10], a[a != r][:10]).mean()
        for r, t, a in zip(rows, truth, answer, strict=True)
    ]
    assert found[0].recall == pytest.approx(np.mean(by_hand))


def test_the_best_that_fits() -> None:
    found = [Candidate(8, "float16", 100, 0.5, 9), Candidate(8, "float32", 150, 0.6, 9), Candidate(64, "float16", 200, 0.9, 9),
             Candidate(64, "float32", 300, 0.9, 9)]  # fmt: skip
    assert [best_that_fits(found, size) for size in (100, 199, 200, 1000)] == [
        found[0],
        found[1],
        found[2],
        found[2],
    ]
    with pytest.raises(
        ConfigError, match=r"Nothing fits in 99 bytes: the smallest, 8 dims in float16, takes 100."
    ) as error:
        best_that_fits(found, 99)
    assert "recall@10 is 50.0%" in error.value.hint


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
        refused = run("shrink", small_index.folder, "--dims", "12", answer=answer)
        assert (
            refused.exit_code == 1 and not out.exists() and "nothing was written" in refused.stderr
        )
        assert (
            "recall@10" in refused.stdout
            and "←" in refused.stdout
            and "12 dims in float16 lose" in refused.stderr
        )
    assert run("shrink", small_index.folder, "--dims", "12", answer="y\n").exit_code == 0
    assert Index.open(out).dims == (8, 12)
    assert (
        run("shrink", small_index.folder, "--dims", "12", "-y").exit_code == 1
    )  # it is there already


def test_the_command_fits_and_each_option_matters(small_index: Index, tmp_path: Path) -> None:
    shown = run("shrink", small_index.folder, "--fit", "100kB", "--out", tmp_path / "fit", "--yes")
    assert shown.exit_code == 0 and size_of(tmp_path / "fit") <= 100_000
    assert Index.open(tmp_path / "fit").dim == 16
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
        (["--dims", "8", "--fit", "1MB"], "Give one of --dims and --fit."),
        ([], "Give one of --dims and --fit."),
        (["--fit", "1kB"], "Nothing fits in 1,000 bytes"),
        (["--fit", "much"], "'much' is not a size."),
        (["--dims", "65"], "There is no prefix of 65 dims"),
        (["--dims", "8", "--dtype", "int8"], "float16 or float32, not 'int8'"),
        (["--dims", "8", "--out", small_index.folder], "exists already"),
    ]
    for args, said in table:
        result = run("shrink", small_index.folder, "-y", *args)
        assert result.exit_code == 1 and said in result.stderr and "hint: " in result.stderr, (
            result.output
        )
    assert not list(tmp_path.glob("small-*"))
