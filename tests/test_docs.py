"""The examples in docstrings run, and public names have types that find a user's mistakes."""

import doctest
import importlib
import importlib.util
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import mrl_search

OPTIONAL = {"mrl_search.__main__", "mrl_search.engines.compiled"}  # the latter is not Python
MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages(mrl_search.__path__, "mrl_search.")
    if m.name not in OPTIONAL
)
WITH_EXAMPLES = [
    name
    for name in ["mrl_search", *MODULES]
    if ">>> " in Path(importlib.util.find_spec(name).origin or "").read_text()  # type: ignore[union-attr]
]
USER = """
import numpy as np
import mrl_search as mrl

index = mrl.Index.open("indexes/mine")
for hit in index.search("photo.jpg", k=3):
    print(hit.rank + 1, hit.path, hit["width"])
batch = index.search(["a.jpg", b"bytes"], plan="8:200,1024", where="label=cat")
print(batch[0][0].score, batch.ids.shape, batch.plan)
vectors = mrl.Index.from_vectors(np.eye(8, dtype=np.float32))
tuned: mrl.Plan = vectors.tune(target=0.9).chosen.plan
request = mrl.SearchRequest(mrl.Plan.parse("8:200,64"), k=5)
reveal_type(index.search("photo.jpg"))
reveal_type(batch)
mrl.Plan.parse(3)
mrl.Index.opne("indexes/mine")
mrl.nothing
index.search("photo.jpg", k="3")
"""


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_in_docstrings_run(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_public_classes_that_people_use_have_examples() -> None:
    for name in ("Index", "Plan", "Ballot"):
        assert ">>> " in (getattr(mrl_search, name).__doc__ or ""), name


@pytest.mark.slow
def test_mypy_finds_the_mistakes_of_a_user(tmp_path: Path) -> None:
    script = tmp_path / "user.py"
    script.write_text(USER)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(script)]
    root = Path(mrl_search.__file__).parents[1]
    done = subprocess.run(  # with the cache of `make check`
        [*command, "--config-file", str(root / "pyproject.toml")],
        capture_output=True,
        text=True,
        cwd=root,
    )
    lines = [
        line.partition("user.py:")[2] for line in done.stdout.splitlines() if "user.py" in line
    ]
    place = {text: number for number, text in enumerate(USER.splitlines(), 1)}
    found = {int(line.split(":")[0]) for line in lines if " error: " in line}
    assert found == {
        place[text]
        for text in (
            "mrl.Plan.parse(3)", 'mrl.Index.opne("indexes/mine")', "mrl.nothing",
            'index.search("photo.jpg", k="3")',
        )
    }, done.stdout  # fmt: skip
    types = [line for line in lines if "Revealed type" in line]
    assert "Hits" in types[0] and "BatchHits" not in types[0] and "BatchHits" in types[1]
