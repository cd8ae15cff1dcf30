"""Random changes of an index, each killed at a random write point: what is lost.

    OMP_NUM_THREADS=1 python benchmarks/living/kills.py --kills 1000

An index of vectors is changed by `add`, `remove`, `compact`, `restore` and `tune`, and one of
pictures by `sync`, with thresholds so small that tails are folded and indexes trained again. A
change ends by SIGKILL before a write, a flush, a new name or a removed one, by a full disk, or
undisturbed. After each: the index verifies, it is as before the change or after it, and exact
answers are those of brute force; a reader opened some changes before answers as it did. After an
undisturbed change no file is left that no generation names. Appends a record to `kills.jsonl`.
"""

import argparse
import errno
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from fakes import png  # noqa: E402
from living_folder import check_folder  # noqa: E402
from torture.commands import import_everything, run  # noqa: E402
from torture.points import Seam  # noqa: E402

from mrl_search import Index, IndexSpec, living, sync  # noqa: E402
from mrl_search.measure.environment import environment  # noqa: E402
from mrl_search.store.intact import verify  # noqa: E402

DIM, ROWS = 16, 80
LABELS = "abcd"
SMALL = {"FEW": 5, "TAIL": 0.3, "DEAD": 0.4, "GROWN": 2}
READ = 7  # changes that a reader stays
FULL_DISK = 0.15  # share of changes that end by it
State = dict[int, tuple[str, str | None]]  # id to path or hash, and label


class Lost(Exception):
    """Something that a change lost."""


class Vectors:
    """An index of vectors, and what it should hold."""

    def __init__(self, place: Path, rng: random.Random) -> None:
        self.place, self.rng, self.folder = place, rng, place / "vectors"
        self.number = 0
        self.write_rows(ROWS)
        spec = IndexSpec((8, DIM), "auto", {"8": "IVF4,Flat"}, "float32")
        index = Index.from_vectors(place / "new.npy", self.folder, items=self.items, spec=spec)
        self.state = self.held(index)
        self.ever = dict(self.state)
        self.history = {0: self.state}

    @property
    def items(self) -> Path:
        return self.place / "new.parquet"

    def write_rows(self, count: int) -> None:
        """A file of new vectors, and their labels."""
        self.number += 1
        rows = np.random.default_rng(self.rng.randrange(2**40)).standard_normal
        np.save(self.place / "new.npy", rows((count, DIM), np.float32))
        labels = [self.rng.choice(LABELS) for _ in range(count)]
        paths = [f"{self.number}/{i}" for i in range(count)]
        pq.write_table(pa.table({"path": paths, "label": labels}), self.items)
        self.new = Counter(zip(paths, labels, strict=True))

    def held(self, index: Index) -> State:
        rows, c = index.corpus.live_rows, index.corpus.collection
        values = zip(c.paths[rows].tolist(), c.labels[rows].tolist(), strict=True)
        return dict(zip(index.items.all_ids[rows].tolist(), values, strict=True))

    def choose(self) -> tuple[str, Counter[tuple[str, str | None]]]:
        """A command, and what the index holds after it, without ids."""
        values = Counter(self.state.values())
        kind = self.rng.choice(["add"] * 4 + ["remove"] * 3 + ["compact", "restore", "tune"])
        if kind == "remove" and len(self.state) > 30:
            label = self.rng.choice(sorted({v[1] or "" for v in self.state.values()}))
            kept = Counter({v: n for v, n in values.items() if v[1] != label})
            return f"remove vectors --where label={label}", kept
        if kind == "compact":
            return "compact vectors", values
        if kind == "tune" and len(self.state) > 30:
            return "tune vectors --queries 20 -k 3", values
        if kind == "restore" and (kept_ones := Index.open(self.folder).generations):
            chosen = self.rng.choice(kept_ones)
            return f"restore vectors {chosen}", Counter(self.history[chosen].values())
        self.write_rows(self.rng.randint(1, 25))
        return "add vectors new.npy --items new.parquet", values + self.new

    def check(self, after: Counter[tuple[str, str | None]], must: bool) -> None:
        """Compare the index with what it was and what it should be."""
        verify(self.folder)
        index = Index.open(self.folder)
        state = self.held(index)
        if must and Counter(state.values()) != after:
            raise Lost("an acknowledged change is lost")
        if state != self.state and Counter(state.values()) != after:
            raise Lost(f"{len(state)} items, neither as before nor as after")
        for i, values in state.items():
            if self.ever.setdefault(i, values) != values:
                raise Lost(f"id {i} was {self.ever[i]} and is {values}")
        self.state = state
        for generation in index.generations:
            self.history.setdefault(generation, state)
        self.history[index.generation] = state
        check_exact(index)


class Pictures:
    """An index of pictures, and their folder."""

    def __init__(self, place: Path, rng: random.Random) -> None:
        self.rng, self.folder, self.root = rng, place / "pictures-index", place / "pictures"
        self.grey = 0
        for _ in range(12):
            self.write()
        (self.root / "stays.png").write_bytes(png(1, 9, 9))
        code, shown = run("build-index pictures --out pictures-index", place, Seam(place))
        assert code == 0, shown
        self.state = self.held(Index.open(self.folder))
        self.before = Counter(self.state.values())

    def write(self, path: Path | None = None) -> None:
        """A new picture, or another at a path."""
        self.grey += 1
        path = path or self.root / self.rng.choice("ab") / f"{self.grey}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(self.grey % 256, 10 + self.grey // 256))

    def held(self, index: Index) -> State:
        rows, c = index.corpus.live_rows, index.corpus.collection
        values = zip(c.paths[rows].tolist(), c.hashes[rows].tolist(), strict=True)
        return dict(zip(index.items.all_ids[rows].tolist(), values, strict=True))

    def choose(self) -> tuple[str, Counter[tuple[str, str | None]]]:
        """Change the folder; the command that follows it, and what the index holds then."""
        import xxhash

        self.before = Counter(self.state.values())
        for _ in range(self.rng.randint(1, 6)):
            there = sorted(self.root.glob("[ab]/*.png"))
            kind = self.rng.choice(["new", "new", "delete", "move", "edit", "copy"])
            if kind == "new" or len(there) < 6:
                self.write()
                continue
            path = self.rng.choice(there)
            other = self.root / self.rng.choice("ab") / f"{kind}-{self.rng.random():.6f}.png"
            if kind == "delete":
                path.unlink()
            elif kind == "edit":
                self.write(path)
            elif kind == "move":
                path.rename(other)
            else:
                other.write_bytes(path.read_bytes())
        files = (p for p in self.root.rglob("*.png"))
        hashed = Counter((str(p), xxhash.xxh3_128_hexdigest(p.read_bytes())) for p in files)
        return "sync pictures-index", hashed

    def check(self, after: Counter[tuple[str, str | None]], must: bool) -> None:
        """Every item is as before or as after; the items that stay are there."""
        verify(self.folder)
        index = Index.open(self.folder)
        self.state = self.held(index)
        values = Counter(self.state.values())
        if must and values != after:
            raise Lost("a sync ended, and the index is not as its folder")
        if values - (self.before | after):
            raise Lost(f"items that were never there: {values - (self.before | after)}")
        if lost := (self.before & after) - values:
            raise Lost(f"items that stay are lost: {lost}")
        check_exact(index)


def check_exact(index: Index) -> None:
    """Compare exact answers with brute force."""
    rows = index.corpus.live_rows
    vectors = index.corpus.vectors.rows(rows).astype(np.float64)
    queries = np.random.default_rng(0).standard_normal((2, vectors.shape[1])).astype(np.float32)
    found = index.search(queries, 5, plan="exact")
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(queries, axis=1)[:, None]
    truth = -np.sort(-(queries @ vectors.T) / norms, axis=1)[:, :5]
    if found.scores.shape != truth.shape or abs(found.scores - truth).max(initial=0) > 1e-5:
        raise Lost("exact answers differ from brute force")


def told(reader: Index) -> list[object]:
    """What a reader answers, by an exact plan and by a prefix."""
    queries = np.random.default_rng(1).standard_normal((2, reader.manifest.dim), np.float32)
    exact = reader.search(queries, 5, plan="exact")
    by_prefix = reader.search(queries, 5, plan=f"8:10,{reader.manifest.dim}")
    return [exact.ids.tolist(), exact.scores.tolist(), by_prefix.ids.tolist(), len(reader)]


def main() -> None:
    """Change and kill until there were `--kills` kills; exit 1 if anything was lost."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9, help="ends before, if that is less")
    options = parser.parse_args()
    rng, start = random.Random(options.seed), time.monotonic()
    import_everything()
    living.CLUSTERED_FROM, sync.CHUNK = 60, 2
    for name, value in SMALL.items():
        setattr(living, name, value)
    counts: Counter[str] = Counter()
    points: dict[str, int] = {}
    lost: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve() / "place"
        place.mkdir()
        kinds = (Vectors(place, rng), Pictures(place, rng))
        readers: dict[int, tuple[Index, list[object], int]] = {}
        while counts["killed"] < options.kills and time.monotonic() - start < options.seconds:
            which = rng.random() < 0.3
            chosen = kinds[which]
            command, after = chosen.choose()
            verb = command.split()[0]
            number = errno.ENOSPC if rng.random() < FULL_DISK else 0
            at = rng.randint(1, int(1.15 * points.get(verb, 40)))
            (place / "out.txt").write_text("")
            seam = Seam(place, at, number, rng.choice((0.0, 0.5, 1.0)))
            code, shown = run(command, place, seam, place.with_suffix(".seam"))
            said = bool((place / "out.txt").read_text().strip())
            counts["changes"] += 1
            counts[f"{verb}: {'killed' if code == -9 else 'refused' if code else 'done'}"] += 1
            counts["killed" if code == -9 else "refused" if code else "done"] += 1
            try:
                if code not in (0, -9) and ("error: " not in shown or "Traceback" in shown):
                    raise Lost(f"exit code {code}: {shown[-1500:]}")
                chosen.check(after, must=code == 0 or (said and verb in ("add", "sync")))
                if code == 0:
                    passed = json.loads(place.with_suffix(".seam").read_text())[0]
                    points[verb] = max(points.get(verb, 0), len(passed))
                    if not number:  # on a full disk, files may stay until the next change
                        check_folder(chosen.folder)
                if which in readers:
                    reader, answers, since = readers[which]
                    if told(reader) != answers:
                        raise Lost(f"a reader of generation {reader.generation} answers otherwise")
                    if counts["changes"] - since > READ:
                        del readers[which], reader
                if which not in readers:
                    reader = Index.open(chosen.folder)
                    again = Index.open(chosen.folder)
                    readers[which] = (again, told(reader), counts["changes"])
            except Exception as error:
                lost.append(f"change {counts['changes']}, {command}, point {at}, {code}: {error!r}")
                print(lost[-1], file=sys.stderr, flush=True)
                chosen.state = chosen.held(Index.open(chosen.folder))
            if counts["changes"] % 50 == 0:
                print(dict(counts), len(lost), file=sys.stderr, flush=True)
        generation = [Index.open(chosen.folder).generation for chosen in kinds]
    record = {
        "kind": "kills", "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seed": options.seed, "kills": counts.pop("killed"),
        **dict(sorted(counts.items())), "generations": sum(generation), "lost": lost,
        "seconds": round(time.monotonic() - start, 1), "environment": environment(),
    }  # fmt: skip
    with (HERE / "kills.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(json.dumps({k: v for k, v in record.items() if k != "environment"}))
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
