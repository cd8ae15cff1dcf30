"""The fixtures of a page that shows 26 drawn animals; see `browsing` for the browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import launched, opened
from fakes import FakeJointEncoder
from playwright.sync_api import Browser, Page, expect
from served import build, running

from mrl_search.index import Index


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 drawn animals, two of them twice."""
    folder = tmp_path_factory.mktemp("shown")
    index = Index.open(build(folder), FakeJointEncoder())
    for name in ("cat-0001", "cat-0002"):
        original = folder / f"pictures/cat/{name}.jpg"
        (folder / f"pictures/cat/copy-{name}.jpg").write_bytes(original.read_bytes())
    index.sync()
    return index.folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with running(folder, write=True) as address:
        yield address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page that must not log an error, nor ask another machine."""
    with opened(browser, address) as page:
        expect(page.locator(".card").first).to_be_visible()
        yield page
