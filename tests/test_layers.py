"""Imports point down: the layers of the design, held by reading the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mrl_search

ROOT = Path(mrl_search.__file__).parent
LAYERS = {
    "errors": 0, "vectors": 0, "results": 0, "config": 0, "mapping": 0, "mapped_rows": 0, "progress": 0, "recipes": 1,
    "storage": 0,
    "manifest": 1, "items": 1, "embeddings": 1, "metrics": 1, "cascade": 1, "rotation": 1, "vector_files": 1,
    "data": 2, "models": 2, "losses": 2, "index": 2,
    "axes": 3, "objective": 3, "initial": 3, "training": 3, "embed": 3, "sheet": 3, "search": 3,
    "bench": 4, "workflow": 5, "study": 5, "own_vectors": 5, "shrink": 5, "cli": 6, "__init__": 7, "__main__": 7,
}  # fmt: skip
TORCH_SIDE = {"data", "models", "losses", "axes", "objective", "initial", "training", "embed"}
FAISS_SIDE = {"index", "search"}


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"mrl_search.{alias.name}" for alias in node.names} if node.module == "mrl_search" else {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down_and_the_two_sides_never_meet(path: Path) -> None:
    own = room(path)
    for name in imports(path):
        if not name.startswith("mrl_search."):
            continue
        other = name.split(".")[1]
        assert LAYERS[other] <= LAYERS[own], f"{own} imports {other}"
        assert not (own in TORCH_SIDE and other in FAISS_SIDE), f"{own} imports {other}"
        assert not (own in FAISS_SIDE and other in TORCH_SIDE), f"{own} imports {other}"


def test_only_the_faiss_side_imports_faiss_and_only_the_torch_side_torch() -> None:
    for path in FILES:
        names = {name.split(".")[0] for name in imports(path)}
        assert "faiss" not in names or room(path) in {"index", "search", "bench"}, path
        assert not names & {"torch", "accelerate", "datasets"} or room(path) in TORCH_SIDE | {"cli"}, path


def test_no_file_is_a_warehouse() -> None:
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 400, path


@pytest.mark.parametrize("module", ["mrl_search", "mrl_search.cli.app"])
def test_importing_costs_neither_torch_nor_faiss(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'faiss', 'datasets', 'accelerate', 'torchvision'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    for name in mrl_search.__all__:
        assert getattr(mrl_search, name) is not None
    assert sorted(mrl_search.__all__) == dir(mrl_search)
    with pytest.raises(AttributeError):
        mrl_search.nothing  # noqa: B018
