"""The rooms of the design, checked by reading the source: imports point down one ladder."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import mrl_search

ROOT = Path(mrl_search.__file__).parent
ORDER = (
    "errors", "progress", "provenance", "text", "files", "leases", "arrays",
    "parquet", "vectors", "metrics", "mapping", "images", "encoders", "training", "store",
    "engines", "search", "capacity", "axes", "mirror", "building", "copied", "living",
    "changes", "described", "synced", "sync", "by_hand", "duplicates", "changing",
    "index", "parts", "joining", "shrink", "measure", "report", "web", "cli",
    "__init__", "__main__",
)  # fmt: skip
TORCH = {"encoders", "training", "measure", "cli"}
FAISS_NAME = re.compile(
    r"\bfaiss\b|\bIVF\d|HNSW\d|x4fs|nprobe|efSearch|IndexFlat|IndexIVF|IndexHNSW"
)
FILES = sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> frozenset[str]:
    names = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = node.module == "mrl_search"
            names |= {f"mrl_search.{a.name}" for a in node.names} if inside else {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return frozenset(names)


def rooms_used(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("mrl_search.")}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_imports_only_rooms_above_it(path: Path) -> None:
    own = room(path)
    for other in rooms_used(path) - {own}:
        assert ORDER.index(other) < ORDER.index(own), f"{own} imports {other}"


def test_no_two_rooms_import_each_other() -> None:
    used = {room(path): set() for path in FILES}
    for path in FILES:
        used[room(path)] |= rooms_used(path) - {room(path)}

    def reached(start: str) -> set[str]:
        found, todo = set(), list(used[start])
        while todo:
            if (name := todo.pop()) not in found:
                found.add(name)
                todo += used[name]
        return found

    assert [name for name in used if name in reached(name)] == []


def code_of(path: Path) -> str:
    """The source of a file without its strings and comments."""
    tree = tree_of(path)
    names = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name)]
    names += [n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
    return " ".join([*names, *imports(path)])


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_faiss_is_named_in_the_engines_alone(path: Path) -> None:
    if room(path) != "engines":
        assert not FAISS_NAME.search(code_of(path)), FAISS_NAME.search(code_of(path))


def test_torch_stays_on_its_side() -> None:
    for path in FILES:
        names = {name.split(".")[0] for name in imports(path)}
        assert not names & {"torch", "accelerate"} or room(path) in TORCH, path


def test_no_file_is_a_warehouse() -> None:
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 400, path


@pytest.mark.parametrize("module", ["mrl_search", "mrl_search.cli.app"])
def test_importing_costs_neither_torch_nor_faiss(module: str) -> None:
    heavy = {"torch", "faiss", "datasets", "accelerate", "torchvision"}
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    for name in mrl_search.__all__:
        assert getattr(mrl_search, name) is not None
    assert sorted(mrl_search.__all__) == dir(mrl_search)
    with pytest.raises(AttributeError):
        mrl_search.nothing  # noqa: B018
