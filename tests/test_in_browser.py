"""The page in a real browser: everything on it is used, and it asks nobody but this machine."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import shown
from axe_playwright_python.sync_playwright import Axe
from browsing import PATIENCE, PHONE, WIDE, choose, names, needs_browser, opened
from fakes import FakeJointEncoder
from playwright.sync_api import Browser, Page, expect

from mrl_search.index import Index
from mrl_search.web.export import export_page

pytestmark = needs_browser
browser, folder, address, page = shown.browser, shown.folder, shown.address, shown.page


@pytest.mark.parametrize(
    "state",
    [
        {"plus": [{"id": 3}, {"text": "a: b&c"}], "minus": [{"id": 5}], "cutoff": True},
        {"view": "ladder", "dims": 16, "where": ["label=cat", "path!=a*"], "plus": [{"id": 1}]},
        {"plan": "8:20,64", "plus": [{"query_id": "a-b_c"}], "where": ["width>=100"]},
        {"view": "map", "at": {"x": 0.25, "y": -0.5, "zoom": 3}},
        {"view": "duplicates", "level": "pixels"},
    ],
)
def test_the_address_holds_the_whole_state(page: Page, state: dict[str, Any]) -> None:
    whole = page.evaluate("(state) => ({...EMPTY, index: 'mine', ...state})", state)
    assert page.evaluate("(state) => readState(writeState(state))", whole) == whole
    assert set(state) - {"plus"} <= set(page.evaluate("EMPTY"))


def test_a_link_shows_the_same_again(page: Page, browser: Browser) -> None:
    page.goto(page.url.partition("#")[0] + "#plus=id:3&minus=id:14&where=label=cat&dims=16")
    page.reload()
    expect(page.locator("#status")).to_contain_text("plan 16")
    link, found = page.url, names(page)
    assert len(found) == 13 and "cat-0003.jpg" not in found
    with opened(browser, link, link.partition("#")[0]) as other:
        expect(other.locator("#status")).to_contain_text("plan 16")
        assert names(other) == found
        expect(other.locator(".chip")).to_have_count(3)
        expect(other.locator("#dims-value")).to_have_text("16 dims")


def test_keys_alone_do_all(page: Page) -> None:
    keys = page.keyboard
    keys.press("j")
    keys.press("ArrowRight")
    keys.press("Enter")
    expect(page.locator(".card b").first).to_be_visible()
    keys.press("j")
    keys.press("m")
    expect(page.locator(".chip.minus")).to_have_count(1)
    keys.press("j")
    keys.press("o")
    expect(page.locator("#item")).to_be_visible()
    keys.press("Escape")
    expect(page.locator("#item")).to_be_hidden()
    keys.press("j")
    keys.press("c")
    expect(page.locator("#status")).to_contain_text("Copied:")
    keys.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("from picture to picture")
    keys.press("Escape")
    keys.press("2")
    expect(page.locator(".ladder .row p")).to_have_text(["–"] * 3)
    expect(page.locator("#status.error")).to_contain_text("cancel each other")  # these vectors do
    keys.press("1")
    expect(page.locator("#status.error")).to_contain_text("cancel each other")
    page.goto(page.url.replace("minus", "other"))
    keys.press("2")
    expect(page.locator(".ladder .row p").last).to_contain_text("of 10")
    keys.press("j")
    keys.press("ArrowDown")
    focused = page.locator(":focus")
    assert focused.evaluate("(one) => one.closest('.row').ariaLabel") == "16 dimensions"
    name = focused.get_attribute("data-id")
    keys.press("Enter")
    expect(page.locator(".chip")).to_have_count(1)
    assert f"plus=id%3A{name}" in page.url
    keys.press("/")
    expect(page.locator("#words")).to_be_focused()


def test_everything_is_reached_by_tab(page: Page) -> None:
    choose(page)
    page.evaluate("document.activeElement.blur()")
    page.get_by_text("Filter", exact=True).click()
    page.locator("h1").click()
    reached = list[str]()
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        if focused.count():
            line = focused.evaluate("(one) => getComputedStyle(one).outlineStyle")
            reached.append(focused.evaluate("(one) => one.id || one.ariaLabel || one.textContent"))
            assert line != "none", reached[-1]  # one sees where one is
    order = ["index", "Results", "Ladder", "Map", "Duplicates", "Report", "help"]
    order += ["Take it out of the search", "pick", "words", "dims", "plan", "Filter"]
    order += ["column", "operator", "value", "add"]
    assert [one.strip() for one in reached if one.strip() in order] == order
    assert any(one.startswith("1. ") for one in reached)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_everybody_can_use_it(
    browser: Browser, address: str, scheme: str, size: dict[str, int]
) -> None:
    context = browser.new_context(viewport=size, color_scheme=scheme)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(address)
    choose(page)
    for key in "?o12345":
        if key == "o":
            page.get_by_role("button", name="Open ").first.click()
        else:
            page.locator("body").press(key)
        page.wait_for_timeout(400)
        serious = [
            (one["id"], one["nodes"][0]["html"])
            for one in Axe().run(page).response["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == [], key
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], key
        page.keyboard.press("Escape")
        if shots := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=Path(shots) / f"{key}-{size['width']}-{scheme}.png")
    context.close()


def test_an_exported_page_opens_from_a_file(browser: Browser, folder: Path, tmp_path: Path) -> None:
    export_page(Index.open(folder, FakeJointEncoder()), tmp_path / "site")
    here = (tmp_path / "site").as_uri()
    with opened(browser, f"{here}/index.html", here) as page:
        choose(page)
        expected = Index.open(folder, FakeJointEncoder()).search(
            str(folder.parent / "pictures/cat/cat-0003.jpg"), k=4
        )
        own = "all => all.map((one) => Number(one.dataset.id))"
        found = page.locator(".results li").evaluate_all(own)
        assert set(found[:3]) == set(expected.ids.tolist()[1:])
        page.keyboard.press("2")
        expect(page.locator(".ladder path").first).to_be_attached()
        page.keyboard.press("3")
        expect(page.locator(".map .thumbs img").first).to_be_visible()
        page.keyboard.press("4")
        expect(page.locator(".group")).to_have_count(2)
        expect(page.get_by_text(re.compile("Not a duplicate"))).to_have_count(0)
