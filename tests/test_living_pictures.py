"""An index of pictures that is synchronised with its folders: against an index built afresh."""

import os
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder, png
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from living_folder import check_folder
from test_living import KEPT, small_thresholds

from mrl_search import sync
from mrl_search.errors import ConfigError, DataError
from mrl_search.images.decode import content_hash
from mrl_search.index import Index
from mrl_search.store.collection import LeftOut, left_out_of
from mrl_search.synced import Synced

EXAMPLES = int(os.environ.get("LIVING_EXAMPLES", "6"))
PHASES = (Phase.explicit, Phase.generate)
NAMES = [f"{folder}/{i}.png" for folder in ("cat", "dog", "dog/deep") for i in range(4)]
names = st.sampled_from(NAMES)
greys = st.integers(1, 12)
BROKEN = b"not a picture, but of some bytes"


def told(index: Index) -> dict[str, tuple[object, ...]]:
    """Path to the columns of each item, and its vector."""
    rows = index.corpus.live_rows
    columns = [index.items[n].to_pylist() for n in ("path", "label", "hash", "width", "folder")]
    vectors = index.corpus.vectors.rows(rows).astype(np.float32)
    return {
        columns[0][row]: (*(column[row] for column in columns[1:]), vector.tobytes())
        for row, vector in zip(rows.tolist(), vectors, strict=True)
    }


def ids_of(index: Index) -> dict[str, int]:
    """Path to id."""
    rows = index.corpus.live_rows
    return dict(
        zip(index.corpus.collection.paths[rows], index.items.all_ids[rows].tolist(), strict=True)
    )


class Pictures(RuleBasedStateMachine):
    """Two folders of pictures, and an index of them."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory(prefix="living-")
        self.base = Path(self.place.name).resolve()
        self.root, self.other = self.base / "pictures", self.base / "other"
        self.left_out: set[str] = set()
        self.contents: set[str] = set()  # that were ever removed by hand
        self.roots = [self.root]
        self.used: dict[int, str] = {}

    def teardown(self) -> None:
        self.place.cleanup()

    @initialize(chosen=st.dictionaries(names, greys, min_size=1))
    def build(self, chosen: dict[str, int]) -> None:
        for name, grey in chosen.items():
            self.put(name, png(grey))
        put(self.other / "bird" / "x.png", png(77))
        put(self.root / "cat" / "stays.png", png(99))
        Index.build(self.root, self.base / "index", model=FakeEncoder())
        self.open()
        self.before = ids_of(self.index)

    def open(self) -> None:
        self.encoder = FakeEncoder()
        self.index = Index.open(self.base / "index", self.encoder)

    def put(self, name: str, data: bytes) -> None:
        put(self.root / name, data)

    @rule(name=names, grey=greys)
    def write(self, name: str, grey: int) -> None:
        self.put(name, png(grey))

    @rule(name=names)
    def spoil(self, name: str) -> None:
        self.put(name, BROKEN + name.encode())

    @rule(name=names)
    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    @rule(name=names, to=names)
    def rename(self, name: str, to: str) -> None:
        if (self.root / name).exists():
            (self.root / to).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).rename(self.root / to)

    @rule(name=names, to=names)
    def copy(self, name: str, to: str) -> None:
        if (self.root / name).exists() and name != to:
            self.put(to, (self.root / name).read_bytes())

    @rule(name=names, to=names)
    def swap(self, name: str, to: str) -> None:
        one, two = self.root / name, self.root / to
        if one.exists() and two.exists() and name != to:
            one.rename(self.base / "aside")
            two.rename(one)
            (self.base / "aside").rename(two)

    @precondition(lambda self: self.other not in self.roots)
    @rule()
    def add_root(self) -> None:
        self.check_synced(self.index.sync())
        self.index.add(self.other)
        self.roots.append(self.other)
        self.check_content()

    @rule()
    def add_nested(self) -> None:
        """A folder within a root: what was removed by hand there is taken again."""
        if any((self.root / "dog").rglob("*.png")):
            try:
                self.index.add(self.root / "dog")
            except DataError:  # none can be read
                return
            assert len(self.index.manifest.roots) == len(self.roots)
            self.left_out = {p for p in self.left_out if not p.startswith(f"{self.root}/dog/")}
            self.check_synced(self.index.sync())

    @rule(name=names)
    def remove(self, name: str) -> None:
        path = str(self.root / name)
        if path in ids_of(self.index):
            assert self.index.remove(path) == 1
            self.left_out.add(path)
            self.contents |= {one.hash for one in self.known_left_out().values()}

    def known_left_out(self) -> dict[str, LeftOut]:
        return left_out_of(self.index.folder, self.index.manifest)

    @rule()
    def lose_the_root(self) -> None:
        self.check_synced(self.index.sync())
        known = told(self.index)
        self.root.rename(self.base / "away")
        done = self.index.sync()
        assert list(done.lost) == [str(self.root)] and not done.removed
        assert told(self.index) == known
        (self.base / "away").rename(self.root)
        assert not self.index.sync().changed

    @rule()
    def empty_the_root_and_mean_it(self) -> None:
        self.check_synced(self.index.sync())
        self.root.rename(self.base / "away")
        self.index.sync(meant=True)
        assert not any(path.startswith(str(self.root)) for path in told(self.index))
        (self.base / "away").rename(self.root)
        self.check_synced(self.index.sync())

    @rule()
    def reopen(self) -> None:
        self.open()

    @rule()
    def compact(self) -> None:
        self.index.compact()

    @rule(seed=st.integers(0, 99))
    def restore_and_sync(self, seed: int) -> None:
        kept = self.index.generations
        if kept:
            generation = random.Random(seed).choice(kept)
            self.index.restore(generation)
            self.roots = [Path(root) for root in self.index.manifest.roots]
            self.left_out = set(self.known_left_out())
            self.before = {}
            self.check_synced(self.index.sync())

    @rule()
    def synchronise(self) -> None:
        planned = self.index.sync(dry_run=True)
        assert planned.generation == self.index.generation
        before, batches = self.before, len(self.encoder.batches)
        done = self.index.sync()
        for kind in ("removed", "moved", "copied"):
            assert set(getattr(planned, kind)) <= set(getattr(done, kind)), kind
        self.check_synced(done)
        after = ids_of(self.index)
        for path in before.keys() & after.keys():
            moved = {p for pair in done.moved for p in pair}
            if path not in moved and path not in {*done.removed, *done.added, *done.copied}:
                assert before[path] == after[path], path  # the same, or edited
        for old, new in done.moved:
            assert before.get(old, after[new]) == after[new]
        if not done.added and not done.edited and not done.skipped:
            assert len(self.encoder.batches) == batches  # nothing was embedded
        again = self.index.sync()
        assert not again.changed and not again.lost  # it may note times of files that were new
        self.before = after

    def check_synced(self, done: Synced) -> None:
        assert done.generation == self.index.generation
        assert not done.lost
        self.check_content()
        self.before = ids_of(self.index)

    def check_content(self) -> None:
        """The index is as one that is built afresh, but for what was removed by hand."""
        found, fresh = told(self.index), {}
        for root in self.roots:
            out = self.base / "fresh"
            Index.build(root, out, model=FakeEncoder())
            fresh |= told(Index.open(out))
            shutil.rmtree(out)
        assert found.keys() <= fresh.keys()
        for path in fresh.keys() - found.keys() - self.left_out:
            assert content_hash(Path(path).read_bytes()) in self.contents, path
        for path, values in found.items():
            assert values == fresh[path], path
        ids = ids_of(self.index)
        assert len(set(ids.values())) == len(ids)
        broken = {str(p) for p in self.root.rglob("*.png") if p.read_bytes().startswith(BROKEN)}
        skipped = [entry.path for entry in self.index.corpus.collection.skipped]
        assert max(Counter(skipped).values(), default=1) == 1
        left_out = self.left_out | set(self.known_left_out())
        assert broken - left_out <= set(skipped) <= broken

    @invariant()
    def whole(self) -> None:
        check_folder(self.index.folder)
        assert len(self.index.generations) <= KEPT + 3
        for path, i in ids_of(self.index).items():  # an id is of one content, or of one path
            self.used[i] = path


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.mark.parametrize("chunk", [2, 2048])
def test_a_sync_gives_what_a_build_gives(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "CHUNK", chunk)
    with small_thresholds():
        run_state_machine_as_test(
            Pictures,
            settings=settings(
                max_examples=EXAMPLES, stateful_step_count=15, deadline=None, phases=PHASES,
                suppress_health_check=list(HealthCheck),
            ),
        )  # fmt: skip


def test_pictures_that_stay_broken_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "CHUNK", 2)
    put(tmp_path / "pictures" / "good.png", png(5))
    index = Index.build(tmp_path / "pictures", tmp_path / "index", model=FakeEncoder())
    for i in range(6):
        put(tmp_path / "pictures" / f"{i}.png", BROKEN + bytes([i]))
    for _ in range(2):
        done = index.sync()
        assert len(done.skipped) == 6 and not done.changed
        check_folder(index.folder)
    assert index.generation == 1  # they are recorded once, when all are looked at


def test_a_broken_picture_is_looked_at_once(tmp_path: Path) -> None:
    put(tmp_path / "pictures" / "good.png", png(5))
    index = Index.build(tmp_path / "pictures", tmp_path / "index", model=FakeEncoder())
    broken = tmp_path / "pictures" / "broken.png"
    put(broken, BROKEN)
    os.utime(broken, (1e9, 1e9))
    assert [entry.path for entry in index.sync().skipped] == [str(broken)]

    def never() -> FakeEncoder:
        raise AssertionError("there is nothing to embed")

    done = sync.sync(index.folder, never)
    assert [entry.path for entry in done.skipped] == [str(broken)] and done.generation == 1
    put(broken, png(7))
    assert index.sync().added == (str(broken),) and not index.corpus.collection.skipped


def test_a_known_root_takes_no_other_labels(tmp_path: Path) -> None:
    put(tmp_path / "pictures" / "cat" / "a.png", png(5))
    index = Index.build(tmp_path / "pictures", tmp_path / "index", model=FakeEncoder())
    put(tmp_path / "pictures" / "cat" / "b.png", png(6))
    with pytest.raises(ConfigError, match="walks as it was built"):
        index.add(tmp_path / "pictures" / "cat", labels="none")
    assert len(index.add(tmp_path / "pictures" / "cat").added) == 1
    assert index.corpus.collection.labels.tolist() == ["cat", "cat"]


def test_strange_files_stop_no_change(tmp_path: Path) -> None:
    index = Index.from_vectors(np.eye(8, dtype=np.float32), tmp_path / "index")
    for _ in range(2):
        index.add(np.eye(8, dtype=np.float32)[:2])
        (tmp_path / "index" / "parts" / ".DS_Store").write_text("")
        (tmp_path / "index" / "generations" / "notes").mkdir(exist_ok=True)
    assert len(index) == 12 and index.generation == 2


def test_an_index_of_vectors_is_not_synchronised(tmp_path: Path) -> None:
    index = Index.from_vectors(np.eye(8, dtype=np.float32), tmp_path / "index")
    with pytest.raises(ConfigError, match="nothing to walk"):
        index.sync()
