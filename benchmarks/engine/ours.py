"""mrl-search as a contestant: exact, as `tune` chooses, and swept over its settings like others."""

import time
from pathlib import Path

import numpy as np
from contestants import KEEP, Choice, Contestant, Ids, Ladder, Setting
from work import K, Rows, Work, hits

from mrl_search.engines.spec import SCAN
from mrl_search.errors import ConfigError
from mrl_search.search.corpus import Corpus
from mrl_search.search.goal import Goal, enough_to_tune
from mrl_search.search.plan import Plan
from mrl_search.search.results import BatchHits
from mrl_search.search.run import search
from mrl_search.search.tune import tune
from mrl_search.store.manifest import CODES, SUFFIX

__all__ = ["OURS", "Ours"]


class Ours(Contestant):
    """An index folder of mrl-search.

    Args:
        how: `exact`, `tuned` (the plans that `tune` chooses) or `swept` (two stages, every start).
    """

    packages, harder = ("faiss-cpu",), True

    def __init__(self, how: str) -> None:
        self.name, self.how, self.exact = f"mrl-search {how}", how, how == "exact"
        self.effort = "index folder"

    def build(self, work: Work, folder: Path, cores: int) -> None:
        """The index folder is there; `corpus.py` told the seconds."""

    def open(self, work: Work, folder: Path) -> None:
        self.corpus = Corpus.open(work.index)
        self.plan = Plan.EXACT
        self.mapped_bytes = self.corpus.vectors.nbytes

    def ladders(self, n: int) -> list[Ladder]:
        return [
            Ladder({"dims": d, "effort": effort}, "keep", KEEP, group=d)
            for d in self.corpus.dims[:-1]
            if self.corpus.prefix_index(d).kind != SCAN
            for effort in (self.corpus.prefix_index(d).efforts or (0,))
        ]

    def use(self, setting: Setting) -> None:
        if "dims" in setting:
            effort = f"@{setting['effort']}" * bool(setting["effort"])
            first = f"{setting['dims']}:{setting['keep']}{effort}"
            self.plan = Plan.parse(f"{first},{self.corpus.dim}")
        else:
            self.plan = Plan.parse(str(setting.get("plan", "exact")))
        if self.plan.stages:
            self.coarse_bytes = self.corpus.prefix_index(self.plan.dims[0]).ram_bytes
        else:
            files = self.corpus.manifest.files
            self.coarse_bytes = sum(files[f].bytes for f in (SUFFIX, CODES) if f in files)

    def search(self, queries: Rows) -> Ids:
        return search(self.corpus, queries, self.plan, K).rows

    def choose(self, work: Work, targets: list[float]) -> list[Choice] | None:
        if self.how != "tuned":
            return None
        every, (rows, scores) = work.queries("tuning"), work.truth("tuning")

        def score(at: Ids, found: BatchHits) -> np.ndarray:
            return hits(found.rows, (rows[at], scores[at]), work.about.get("wanted", K))

        chosen: list[Choice] = []
        for target in targets:
            queries = every[: enough_to_tune(target)]
            truth = BatchHits(rows[: len(queries), :K], scores[: len(queries), :K])
            goal = Goal("recall", K, queries, np.full(len(queries), -1), truth, score)
            start = time.perf_counter()
            search(self.corpus, queries, Plan.EXACT, K)  # `tune` would find the truth so
            try:
                found = tune(self.corpus, goal, target)
                how = {"setting": {"plan": str(found.chosen.plan)}, "tuning_recall": found.held_out}
                seconds = time.perf_counter() - start
                chosen.append({"target": target, **how, "tune_s": seconds})
            except ConfigError as error:
                chosen.append({"target": target, "setting": None, "reason": str(error)})
        return chosen


OURS = [Ours("tuned"), Ours("swept"), Ours("exact")]
