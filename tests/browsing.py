"""A real browser for the tests of the page: it must log no error and ask no other machine."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserType, Page, expect, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--enable-unsafe-swiftshader",
]  # fmt: skip
NO_WEBGL = ["--disable-webgl", "--disable-3d-apis"]
QUIET = re.compile(r"Failed to load resource: .* status of 4|.*GPU stall|.*no longer repeat")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PATIENCE = 120_000  # ms: a test may wait for a machine that does other work
expect.set_options(timeout=PATIENCE)

needs_browser = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("NEED_BROWSER"),
        reason="no chromium: install it, or name one by CHROMIUM=PATH",
    ),
]


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """Chromium without a window."""
    with sync_playwright() as playwright:
        browser = started(playwright.chromium)
        yield browser
        browser.close()


def started(chromium: BrowserType, *flags: str) -> Browser:
    """One more browser."""
    assert CHROMIUM, "NEED_BROWSER is set, but there is no chromium"
    return chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags], timeout=PATIENCE)


@contextlib.contextmanager
def opened(
    browser: Browser, address: str, allowed: str | None = None, quiet: re.Pattern[str] = QUIET
) -> Iterator[Page]:
    """A page, whose log and requests are checked at the end.

    Args:
        browser: that opens it.
        address: of the page.
        allowed: how the address of every request begins; default: as that of the page.
        quiet: what may be logged.
    """
    context = browser.new_context(viewport=WIDE)
    context.set_default_timeout(PATIENCE)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page, said, asked = context.new_page(), list[str](), list[str]()
    page.on("console", lambda message: quiet.match(message.text) or said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    expect(page.locator("#status")).not_to_be_empty()
    yield page
    context.close()
    assert said == []
    own = (allowed or address.partition("#")[0], "blob:", "data:")
    assert [url for url in asked if not url.startswith(own)] == []


def names(page: Page) -> list[str]:
    """The names of the hits."""
    return page.locator(".results .name").all_text_contents()


def choose(page: Page, name: str = "cat-0003.jpg") -> None:
    """Search for more like a picture."""
    page.get_by_role("button", name=f"Show more like {name}").click()
    expect(page.locator(".card b").first).to_be_visible()


def ids(page: Page) -> list[int]:
    """The ids of the hits."""
    own = "all => all.map((one) => Number(one.dataset.id))"
    found: list[int] = page.locator(".results li[data-id]").evaluate_all(own)
    return found
