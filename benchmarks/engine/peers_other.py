"""SVS, hnswlib, usearch and ScaNN as contestants.

The graphs return a shortlist; where that has fewer dims or bits, numpy scores it with whole rows of
a mapped file. ScaNN re-ranks by itself. SVS's LVQ and LeanVec end the process on processors that
are not Intel's: they are tried, and absent there.
"""

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from contestants import (
    ALL,
    KEEP,
    Contestant,
    Ids,
    Ladder,
    Setting,
    View,
    blocks_of,
    bytes_in,
    lists_for,
    rising,
)  # fmt: skip
from work import K, Rows, Work

if TYPE_CHECKING:
    from usearch.index import Index

__all__ = ["OTHERS"]

EF_BUILD, LINKS = 200, 32
SHORT = (20, 40, 80, 160)  # candidates that are scored with whole rows


class Graph(Contestant):
    """A graph over a view of the rows; `keep` over K means that numpy re-ranks."""

    reranks = False  # even where the view has all dims

    def __init__(self, name: str, view: View = ALL) -> None:
        self.name, self.view = name, view
        self.reranks = view.dims is not None
        self.effort = f"{2 * LINKS} links, window {EF_BUILD}"

    @abstractmethod
    def make(self, x: Rows, folder: Path, cores: int) -> None:
        """Build a graph over `x` and save it."""

    @abstractmethod
    def load(self, folder: Path, dims: int) -> None:
        """Load the graph."""

    @abstractmethod
    def find(self, x: Rows, count: int) -> Ids:
        """(n, count) rows for queries of the view."""

    def build(self, work: Work, folder: Path, cores: int) -> None:
        rows, matrix = work.rows(), self.view.matrix(work)
        x = rows if self.view == ALL else np.concatenate([
            self.view.of(rows[block], matrix) for block in blocks_of(len(rows))
        ])  # fmt: skip
        self.make(x, folder, cores)

    def open(self, work: Work, folder: Path) -> None:
        dim = int(work.about["dim"])
        self.matrix = self.view.matrix(work)
        self.load(folder, self.view.dims or dim)
        self.coarse_bytes, self.keep = bytes_in(folder), K
        if self.reranks:
            self.rows = work.rows()
            self.mapped_bytes = self.rows.nbytes

    def ladders(self, n: int) -> list[Ladder]:
        ef, short = rising(K, 1500), SHORT if self.reranks else (K,)
        return [Ladder({"keep": s}, "ef", tuple(e for e in ef if e >= s)) for s in short]

    def use(self, setting: Setting) -> None:
        self.keep = int(setting["keep"])

    def search(self, queries: Rows) -> Ids:
        found = self.find(self.view.of(queries, self.matrix), self.keep)
        if not self.reranks:
            return found
        best = np.empty((len(queries), K), dtype=np.int64)
        for i, query in enumerate(queries):
            best[i] = found[i][np.argsort(-(self.rows[found[i]] @ query))[:K]]
        return best


class Svs(Graph):
    """Vamana of SVS over float16 rows."""

    packages = ("scalable-vs",)

    def make(self, x: Rows, folder: Path, cores: int) -> None:
        import svs

        how = svs.VamanaBuildParameters(
            alpha=1.2, graph_max_degree=2 * LINKS, window_size=EF_BUILD
        )  # fmt: skip
        graph = svs.Vamana.build(how, x.astype(np.float16), svs.DistanceType.L2, num_threads=cores)
        graph.save(*(str(folder / part) for part in ("config", "graph", "data")))

    def load(self, folder: Path, dims: int) -> None:
        import svs

        config, graph, data = (str(folder / part) for part in ("config", "graph", "data"))
        loader = svs.VectorDataLoader(data, svs.DataType.float16)
        self.graph = svs.Vamana(config, svs.GraphLoader(graph), loader, svs.DistanceType.L2)

    def ladders(self, n: int) -> list[Ladder]:
        return [
            Ladder({**ladder.fixed, "prefetch": ahead, "visited": visited}, "ef", ladder.values)
            for ladder in super().ladders(n)
            for ahead in (4, 12)
            for visited in (0, 1)
        ]

    def use(self, setting: Setting) -> None:
        import svs

        super().use(setting)
        params = self.graph.search_parameters
        params.buffer_config = svs.SearchBufferConfig(setting["ef"])
        params.search_buffer_visited_set = bool(setting["visited"])
        params.prefetch_lookahead = setting["prefetch"]
        self.graph.search_parameters = params

    def use_threads(self, count: int) -> None:
        super().use_threads(count)
        self.graph.num_threads = count

    def find(self, x: Rows, count: int) -> Ids:
        return self.graph.search(x, count)[0].astype(np.int64)


class SvsCoded(Svs):
    """Vamana over rows of SVS's codes, which only processors of Intel run.

    Args:
        name: of the contestant.
        lean: dims of LeanVec, 8 bits each, for the first pass; float16 rows re-rank. None: LVQ,
            8 bits a dim and no second pass.
    """

    def __init__(self, name: str, lean: int | None = None) -> None:
        super().__init__(name)
        self.lean = lean

    def make(self, x: Rows, folder: Path, cores: int) -> None:
        import svs

        file = folder / "all.fvecs"
        svs.write_vecs(np.ascontiguousarray(x), str(file))
        plain, kinds = svs.VectorDataLoader(str(file), svs.DataType.float32), svs.LeanVecKind
        coded = (
            svs.LeanVecLoader(plain, self.lean, kinds.lvq8, kinds.float16)
            if self.lean
            else svs.LVQLoader(plain, primary=8)
        )
        how = svs.VamanaBuildParameters(
            alpha=1.2, graph_max_degree=2 * LINKS, window_size=EF_BUILD
        )  # fmt: skip
        graph = svs.Vamana.build(how, coded, svs.DistanceType.L2, num_threads=cores)
        graph.save(*(str(folder / part) for part in ("config", "graph", "data")))
        file.unlink()

    def load(self, folder: Path, dims: int) -> None:
        import svs

        config, graph, data = (str(folder / part) for part in ("config", "graph", "data"))
        loader = svs.LeanVecLoader(data) if self.lean else svs.LVQLoader(data)
        self.graph = svs.Vamana(config, svs.GraphLoader(graph), loader, svs.DistanceType.L2)

    def open(self, work: Work, folder: Path) -> None:
        super().open(work, folder)
        if self.lean:
            self.rows_bytes = 2 * int(work.about["n"]) * int(work.about["dim"])
            self.coarse_bytes -= self.rows_bytes


class Hnswlib(Graph):
    """hnswlib over float32 rows."""

    packages = ("hnswlib",)

    def make(self, x: Rows, folder: Path, cores: int) -> None:
        import hnswlib

        graph = hnswlib.Index("ip", x.shape[1])
        graph.init_index(len(x), M=LINKS, ef_construction=EF_BUILD)
        for block in blocks_of(len(x)):
            graph.add_items(x[block], np.arange(block.start, block.stop), num_threads=cores)
        graph.save_index(str(folder / "graph.bin"))

    def load(self, folder: Path, dims: int) -> None:
        import hnswlib

        self.graph = hnswlib.Index("ip", dims)
        self.graph.load_index(str(folder / "graph.bin"))

    def use(self, setting: Setting) -> None:
        super().use(setting)
        self.graph.set_ef(setting["ef"])

    def find(self, x: Rows, count: int) -> Ids:
        return self.graph.knn_query(x, count, num_threads=self._threads)[0].astype(np.int64)


class Usearch(Graph):
    """usearch over rows of a dtype; numpy re-ranks what 8 bits find."""

    packages = ("usearch",)

    def __init__(self, dtype: str, view: View = ALL) -> None:
        reranks, over = dtype == "i8" or view != ALL, "" if view == ALL else f" {view}"
        super().__init__(f"usearch {dtype}{over}" + " + rerank" * reranks, view)
        self.dtype, self.reranks = dtype, reranks

    def empty(self, dims: int) -> "Index":
        from usearch.index import Index

        return Index(
            ndim=dims, metric="cos" if self.dtype == "i8" else "ip", dtype=self.dtype,
            connectivity=LINKS, expansion_add=EF_BUILD,
        )  # fmt: skip

    def make(self, x: Rows, folder: Path, cores: int) -> None:
        graph = self.empty(x.shape[1])
        for block in blocks_of(len(x)):
            keys = np.arange(block.start, block.stop, dtype=np.uint64)
            graph.add(keys, np.ascontiguousarray(x[block]), threads=cores)
        graph.save(str(folder / "graph.usearch"))

    def load(self, folder: Path, dims: int) -> None:
        self.graph = self.empty(dims)
        self.graph.load(str(folder / "graph.usearch"))

    def use(self, setting: Setting) -> None:
        super().use(setting)
        self.graph.expansion_search = setting["ef"]

    def find(self, x: Rows, count: int) -> Ids:
        found = self.graph.search(x, count, threads=self._threads)
        return found.keys.reshape(len(x), -1).astype(np.int64)


class Scann(Contestant):
    """ScaNN: a tree, codes of two dims a block, whole float32 rows last."""

    packages, harder = ("scann",), True
    BLOCK, THRESHOLD = 2, 0.2

    def __init__(self, name: str, view: View = ALL) -> None:
        self.name, self.view = name, view

    def build(self, work: Work, folder: Path, cores: int) -> None:
        import scann

        rows = work.rows()
        leaves = lists_for(len(rows)) // 2
        builder = scann.scann_ops_pybind.builder(np.asarray(rows), K, "dot_product")
        builder.set_n_training_threads(cores)
        if self.view.turned:
            builder.pca(self.view.dims, None)
        elif self.view.dims:
            builder.truncate(self.view.dims)
        builder.tree(leaves, max(1, leaves // 20), training_sample_size=250_000)
        builder.score_ah(self.BLOCK, anisotropic_quantization_threshold=self.THRESHOLD)
        builder.reorder(200).build().serialize(str(folder))
        (folder / "leaves.txt").write_text(str(leaves))

    def open(self, work: Work, folder: Path) -> None:
        import scann

        self.searcher = scann.scann_ops_pybind.load_searcher(str(folder))
        leaves = (folder / "leaves.txt").read_text()
        self.effort = f"{leaves} leaves, {self.BLOCK} dims a block, threshold {self.THRESHOLD}"
        self.rows_bytes = 4 * int(work.about["n"]) * int(work.about["dim"])
        self.coarse_bytes = bytes_in(folder) - self.rows_bytes

    def ladders(self, n: int) -> list[Ladder]:
        leaves = lists_for(n) // 2
        return [Ladder({"leaves": p}, "keep", KEEP) for p in rising(1, leaves, 1.4)]

    def use(self, setting: Setting) -> None:
        self.keep, self.leaves = int(setting["keep"]), int(setting["leaves"])

    def search(self, queries: Rows) -> Ids:
        if len(queries) == 1:
            return self.searcher.search(queries[0], K, self.keep, self.leaves)[0][None]
        one = self._threads == 1
        ask = self.searcher.search_batched if one else self.searcher.search_batched_parallel
        return ask(queries, K, self.keep, self.leaves)[0].astype(np.int64)

    def use_threads(self, count: int) -> None:
        super().use_threads(count)
        self.searcher.set_num_threads(count)


FIRST, TURNED = View(128), View(128, turned=True)
OTHERS = [
    Svs("SVS f16"),
    Svs("SVS f16 128 dims + rerank", FIRST),
    Svs("SVS f16 128 PCA dims + rerank", TURNED),
    SvsCoded("SVS LVQ8"),
    SvsCoded("SVS LeanVec 128 dims", 128),
    SvsCoded("SVS LeanVec 256 dims", 256),
    Scann("ScaNN"),
    Scann("ScaNN 128 dims", FIRST),
    Scann("ScaNN 128 PCA dims", TURNED),
    Hnswlib("hnswlib"),
    Hnswlib("hnswlib 128 dims + rerank", FIRST),
    Hnswlib("hnswlib 128 PCA dims + rerank", TURNED),
    *(Usearch(dtype) for dtype in ("f32", "f16", "i8")),
    *(Usearch("f16", view) for view in (FIRST, TURNED)),
]
