"""Scripts of this folder, loaded for their tests."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Load a script by its name, such as `serve`."""

    def loaded(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(HERE))
        spec = importlib.util.spec_from_file_location(f"{name}_benchmark", HERE / f"{name}.py")
        assert spec is not None and spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
        return found

    return loaded
