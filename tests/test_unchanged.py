"""A sync with nothing to do is answered by one walk; whatever differs is looked at closer."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import FakeEncoder, png

from mrl_search import synced as module
from mrl_search.index import Index
from mrl_search.synced import WALKED, unchanged

OLD = time.time() - 1e5


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (OLD, OLD))


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Four pictures and a table, two roots, one broken picture, one removed; synchronised."""
    root = tmp_path / "pictures"
    for number, name in enumerate(("a.png", "sub/b.png", "sub/c.png", "out.png")):
        put(root / name, png(number + 1))
    put(root / "bad.png", b"not a picture")
    put(root / "metadata.csv", b"file_name,label\na.png,ant\n")
    put(tmp_path / "more" / "d.png", png(9))
    index = Index.build(root, tmp_path / "index", model=FakeEncoder())
    index = Index.open(index.folder, FakeEncoder())
    index.add(tmp_path / "more")
    index.remove(root / "out.png")
    (root / "link.png").symlink_to("/etc")
    assert unchanged(index.folder) is None
    index.sync()
    return index


def test_it_tells_what_a_sync_would(index: Index) -> None:
    found = unchanged(index.folder)
    assert found is not None and not found.changed
    (index.folder / WALKED).unlink()
    closer = index.sync()
    assert (found.same, found.items, found.generation) == (4, 4, index.generation)
    assert (found.left_out, found.outside, len(found.skipped)) == (1, 1, 1)
    assert (str(found), found.skipped[0].path) == (str(closer), closer.skipped[0].path)
    assert (closer.same, closer.left_out, closer.outside, closer.items) == (4, 1, 1, 4)


CHANGES: dict[str, Callable[[Path], object]] = {
    "new": lambda root: put(root / "new.png", png(20)),
    "new in the other root": lambda root: put(root.parent / "more" / "new.png", png(20)),
    "gone": lambda root: (root / "a.png").unlink(),
    "renamed": lambda root: (root / "a.png").rename(root / "z.png"),
    "edited": lambda root: put(root / "a.png", png(21, 30, 30)),
    "edited just now": lambda root: (root / "a.png").write_bytes(png(1)),
    "touched": lambda root: os.utime(root / "sub" / "b.png", (OLD + 5, OLD + 5)),
    "another table": lambda root: put(root / "metadata.csv", b"file_name,label\na.png,bee!\n"),
    "another link": lambda root: (root / "more links").symlink_to("/etc"),
    "a root is gone": lambda root: root.rename(root.parent / "away"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_changed_is_looked_at(index: Index, change: Callable[[Path], object]) -> None:
    assert unchanged(index.folder) is not None
    root = Path(index.manifest.places[0])
    change(root)
    assert unchanged(index.folder) is None


def test_other_decoders_or_a_changed_index_are_looked_at(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "DECODERS", ("PIL", "pyarrow"))
        assert unchanged(index.folder) is None
    assert unchanged(index.folder) is not None
    note = (index.folder / WALKED).read_text()
    for damaged in ("", "[]", "{}", note[:-9], json.dumps({**json.loads(note), "skipped": 3})):
        (index.folder / WALKED).write_text(damaged)
        assert unchanged(index.folder) is None
    (index.folder / WALKED).write_text(note)
    index.remove(ids=[0])
    assert unchanged(index.folder) is None
    assert index.sync().left_out == 2 and unchanged(index.folder) is not None


def test_nothing_that_is_slow_is_imported(index: Index) -> None:
    code = (
        "import sys; from mrl_search.cli.start import main\n"
        f"sys.argv = ['mrl-search', 'sync', {str(index.folder)!r}]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "slow = {'numpy', 'pyarrow', 'PIL', 'typer', 'rich', 'faiss', 'pydantic', 'torch'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert done.stdout == f"+0 −0 →0 ~0  4 items, generation {index.generation}\n"
    assert "1 skipped as before" in done.stderr and "1 links lead out" in done.stderr
