"""FAISS's own indexes as contestants: exact ones, clusters with fast-scan codes, and graphs."""

import json
import time
from pathlib import Path

import faiss
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

__all__ = ["FAISS"]

LEVELS = (8, 16, 32, 64, 128)
REFINE_LEVELS = 16
PROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)
SHORT = (20, 40, 80, 160)  # candidates that a graph of coded rows passes on
EF_BUILD = 200
PER_CLUSTER, ROUNDS = 64, 10  # rows that train a cluster; rounds of k-means
IP = faiss.METRIC_INNER_PRODUCT


class Exact(Contestant):
    """IndexFlatIP, or IndexFlatIPPanorama with the number of levels that is fastest here."""

    exact = True

    def __init__(self, panorama: bool) -> None:
        self.panorama = panorama
        self.name = "IndexFlatIPPanorama" if panorama else "IndexFlatIP"

    def made(self, work: Work, levels: int) -> faiss.Index:
        rows = work.rows()
        dim = rows.shape[1]
        flat = faiss.IndexFlatIPPanorama(dim, levels) if self.panorama else faiss.IndexFlatIP(dim)
        for block in blocks_of(len(rows)) if not self.panorama else [slice(None)]:
            flat.add(rows[block])
        return flat

    def build(self, work: Work, folder: Path, cores: int) -> None:
        seconds = {}
        queries = work.queries("tuning")[:40]
        for levels in LEVELS if self.panorama else ():
            flat = self.made(work, levels)
            flat.search(queries[:5], K)
            start = time.perf_counter()
            for query in queries:
                flat.search(query[None], K)
            seconds[levels] = time.perf_counter() - start
        best = min(seconds, key=seconds.__getitem__, default=0)
        (folder / "levels.json").write_text(json.dumps({"best": best, "seconds": seconds}))

    def open(self, work: Work, folder: Path) -> None:
        levels = json.loads((folder / "levels.json").read_text())["best"]
        self.flat = self.made(work, levels)
        self.effort = f"{levels} levels" if levels else "none"
        self.coarse_bytes = 4 * self.flat.d * self.flat.ntotal

    def ladders(self, n: int) -> list[Ladder]:
        return []

    def use(self, setting: Setting) -> None:
        pass

    def search(self, queries: Rows) -> Ids:
        return self.flat.search(queries, K)[1]


class Coded(Contestant):
    """A FAISS index of a view, and whole rows that re-rank what it finds.

    Args:
        name: of the contestant.
        factory: of the view; `{lists}` becomes the number of clusters.
        view: what the index sees.
        refine: `flat` (float32), `fp16` or `panorama`; none for an index that holds whole rows.
    """

    def __init__(self, name: str, factory: str, view: View = ALL, refine: str = "") -> None:
        self.name, self.factory, self.view, self.refine = name, factory, view, refine
        self.graph = "HNSW" in factory
        self.harder = not self.graph
        build = f"efConstruction {EF_BUILD}" if self.graph else f"{PER_CLUSTER} rows a cluster"
        self.effort = f"{factory}; {build}"

    def build(self, work: Work, folder: Path, cores: int) -> None:
        rows = work.rows()
        dim = self.view.dims or rows.shape[1]
        text = self.factory.format(lists=lists_for(len(rows)), dim=dim)
        inner = faiss.index_factory(dim, text, IP)
        wrapped = isinstance(inner, faiss.IndexPreTransform)
        bare = faiss.downcast_index(inner.index) if wrapped else inner
        if self.graph:
            bare.hnsw.efConstruction = EF_BUILD
            needed = 65_536
        else:
            bare.cp.spherical, bare.cp.niter = True, ROUNDS
            needed = bare.nlist * PER_CLUSTER
        index = inner
        if self.view.dims:
            index = faiss.IndexPreTransform(inner)
            index.prepend_transform(faiss.NormalizationTransform(dim, 2.0))
            index.prepend_transform(self.cut(work, rows.shape[1], dim))
        chosen = np.random.default_rng(4).choice(len(rows), min(needed, len(rows)), replace=False)
        index.train(rows[np.sort(chosen)])
        for block in blocks_of(len(rows)):
            index.add(rows[block])
        faiss.write_index(index, str(folder / "coarse.faiss"))

    def cut(self, work: Work, whole: int, dim: int) -> faiss.VectorTransform:
        """From whole rows to the view."""
        axes = self.view.matrix(work)
        if axes is None:
            return faiss.RemapDimensionsTransform(whole, dim, False)
        turn = faiss.LinearTransform(whole, dim, False)
        faiss.copy_array_to_vector(axes.ravel(), turn.A)
        turn.is_trained = True
        return turn

    def open(self, work: Work, folder: Path) -> None:
        self.coarse = faiss.read_index(str(folder / "coarse.faiss"))
        self.coarse_bytes, self.index = bytes_in(folder), self.coarse
        rows, whole = work.rows(), {
            "flat": faiss.IndexFlatIP,
            "fp16": lambda d: faiss.IndexScalarQuantizer(d, faiss.ScalarQuantizer.QT_fp16, IP),
            "panorama": lambda d: faiss.IndexFlatIPPanorama(d, REFINE_LEVELS, 1),
        }  # fmt: skip
        if self.refine:
            self.whole = whole[self.refine](rows.shape[1])
            for block in blocks_of(len(rows)):
                self.whole.add(rows[block])
            kind = faiss.IndexRefinePanorama if self.refine == "panorama" else faiss.IndexRefine
            self.index = kind(self.coarse, self.whole)
            self.rows_bytes = len(rows) * rows.shape[1] * (2 if self.refine == "fp16" else 4)

    def ladders(self, n: int) -> list[Ladder]:
        if not self.graph:
            return [Ladder({"nprobe": p}, "keep", KEEP) for p in PROBES if p <= lists_for(n)]
        ef = rising(K, 1500)
        if not self.refine:
            return [Ladder({}, "ef", ef)]
        return [Ladder({"keep": s}, "ef", tuple(e for e in ef if e >= s)) for s in SHORT]

    def use(self, setting: Setting) -> None:
        if self.graph:
            inner = faiss.SearchParametersHNSW(efSearch=setting["ef"])
        else:
            inner = faiss.SearchParametersIVF(nprobe=setting["nprobe"])
        held = [inner]
        if isinstance(self.coarse, faiss.IndexPreTransform):
            held.append(faiss.SearchParametersPreTransform(index_params=inner))
        if self.refine:
            held.append(faiss.IndexRefineSearchParameters(
                k_factor=setting["keep"] / K, base_index_params=held[-1]
            ))  # fmt: skip
        self.held, self.params = held, held[-1]

    def search(self, queries: Rows) -> Ids:
        return self.index.search(queries, K, params=self.params)[1]


FIRST, TURNED = View(128), View(128, turned=True)
CODES = "RR128,IVF{lists},PQ128x4fsr"
FAISS = [
    Exact(panorama=False),
    Exact(panorama=True),
    Coded("faiss HNSW32", "HNSW32"),
    Coded("faiss HNSW32 fp16", "HNSW32_SQfp16"),
    Coded("faiss HNSW32 SQ8 + refine", "HNSW32_SQ8", refine="flat"),
    Coded("faiss HNSW32 SQ8 128 dims + refine", "HNSW32_SQ8", FIRST, "flat"),
    Coded("faiss HNSW32 SQ8 128 PCA dims + refine", "HNSW32_SQ8", TURNED, "flat"),
    Coded("faiss IVF PQfs 128 dims + refine", CODES, FIRST, "flat"),
    Coded("faiss IVF PQfs 128 dims + Panorama refine", CODES, FIRST, "panorama"),
    Coded("faiss IVF PQfs 128 PCA dims + refine", CODES, TURNED, "flat"),
    Coded("faiss IVF PQfs 128 PCA dims + fp16 refine", CODES, TURNED, "fp16"),
    Coded("faiss IVF RaBitQfs + refine", "RR{dim},IVF{lists},RaBitQfs", refine="flat"),
    Coded("faiss IVF RaBitQfs 256 dims + refine", "RR256,IVF{lists},RaBitQfs", View(256), "flat"),
    Coded(
        "faiss IVF RaBitQfs 256 PCA dims + refine", "RR256,IVF{lists},RaBitQfs",
        View(256, turned=True), "flat",
    ),
]  # fmt: skip
