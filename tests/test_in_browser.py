"""The page in a real browser: everything on it is used, and it asks nobody but this machine."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import PATIENCE, PHONE, WIDE, choose, launched, names, needs_browser, opened
from fakes import FakeJointEncoder
from playwright.sync_api import Browser, Page, expect
from served import build, running

from mrl_search.index import Index
from mrl_search.web.export import export_page

pytestmark = needs_browser


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


def test_click_more_less_and_back(page: Page) -> None:
    choose(page)
    expect(page.locator("#status")).to_contain_text("Searched 26 items in")
    assert "cat-0003.jpg" not in names(page) and len(names(page)) == 25
    first = names(page)[0]
    page.get_by_role("button", name=f"Less like {first}").click()
    expect(page.locator(".chip.minus")).to_have_count(1)
    expect(page.locator(".results .name").first).not_to_have_text(first)
    page.get_by_role("button", name=f"Also like {names(page)[3]}").click()
    expect(page.locator(".chip")).to_have_count(3)
    link = page.url
    page.locator(".results .picture").first.click()
    expect(page.locator(".chip")).to_have_count(1)
    page.go_back()
    expect(page.locator(".chip")).to_have_count(3)
    assert page.url == link
    page.goto("about:blank")
    page.goto(link)
    expect(page.locator(".chip.minus")).to_have_count(1)
    page.get_by_role("button", name="Take it out of the search").last.click()
    expect(page.locator(".chip")).to_have_count(2)


def test_drop_paste_and_pick_a_picture(page: Page, folder: Path) -> None:
    picture = folder.parent / "pictures/dog/dog-0005.jpg"
    data = list(picture.read_bytes())
    page.locator("#file").set_input_files(picture)
    expect(page.locator(".results .name").first).to_have_text("dog-0005.jpg")
    send = """([kind, data]) => {
      const files = new DataTransfer();
      files.items.add(new File([new Uint8Array(data)], "mine.jpg", {type: "image/jpeg"}));
      const event = kind === "drop" ? new DragEvent("drop", {dataTransfer: files, bubbles: true})
        : new ClipboardEvent("paste", {clipboardData: files, bubbles: true});
      document.body.dispatchEvent(event);
    }"""
    for kind in ("drop", "paste"):
        page.reload()
        expect(page.locator(".card").first).to_be_visible()
        page.evaluate("location.hash = ''")
        expect(page.locator(".chip")).to_have_count(0)
        page.evaluate(send, [kind, data])
        expect(page.locator(".results .name").first).to_have_text("dog-0005.jpg")
        expect(page.get_by_alt_text("your picture")).to_be_visible()
    page.locator("#file").set_input_files({"name": "x", "mimeType": "image/png", "buffer": b"no"})
    expect(page.locator("#status.error")).to_contain_text("not an image")


def test_words_filters_plan_and_cutoff(page: Page) -> None:
    page.get_by_label("Words").fill("red")
    page.keyboard.press("Enter")
    expect(page.locator(".chip")).to_contain_text("red")
    expect(page.locator(".results .name")).to_have_count(26)
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("Value").fill("dog")
    page.get_by_role("button", name="Add filter").click()
    expect(page.locator(".results .name")).to_have_count(12)
    assert all(name.startswith("dog") for name in names(page)) and "where=label%3Ddog" in page.url
    page.get_by_label("Plan").fill("8:20,64")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("plan 8:20,64")
    page.get_by_role("button", name="Remove the filter label=dog").click()
    expect(page.locator(".results .name")).to_have_count(20)  # as many as its shortlist
    page.get_by_label("Plan").fill("9")
    page.keyboard.press("Enter")
    expect(page.locator("#status.error")).to_contain_text("8, 16, 64")


def test_the_slider_searches_at_every_tick(page: Page) -> None:
    choose(page)
    slider = page.get_by_label("Dimensions")
    slider.focus()
    for dims in ("16", "8"):
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#dims-value")).to_have_text(f"{dims} dims")
        expect(page.locator("#status")).to_contain_text(f"plan {dims}")
    assert "dims=8" in page.url
    page.keyboard.press("Escape")
    page.locator("body").press("a")
    expect(page.locator("#dims-value")).to_have_text("automatic")


def test_open_and_copy_a_picture(page: Page) -> None:
    choose(page)
    first = names(page)[0]
    page.get_by_role("button", name=f"Open {first}").click()
    expect(page.get_by_role("dialog")).to_contain_text(first)
    expect(page.locator("#item-picture")).to_have_js_property("naturalWidth", 96)
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name=f"Copy the path of {first}").click()
    expect(page.locator("#status")).to_contain_text(f"Copied: {first[:3]}/{first}")
    assert page.evaluate("navigator.clipboard.readText()").endswith(first)


def test_the_ladder_joins_the_same_picture(page: Page) -> None:
    choose(page)
    page.get_by_role("button", name="Ladder").click()
    expect(page.locator(".ladder .row")).to_have_count(3)
    expect(page.locator(".ladder .row p").last).to_contain_text("10 of 10")
    ids = [
        {b.get_attribute("data-id") for b in row.locator("button").all()}
        for row in page.locator(".ladder .row").all()
    ]
    shared = len(ids[0] & ids[1]) + len(ids[1] & ids[2])
    expect(page.locator(".ladder path")).to_have_count(shared)
    page.locator(".ladder button").first.hover()
    expect(page.locator(".ladder.chosen")).to_be_visible()


def test_the_map_is_drawn_zoomed_and_clicked(page: Page) -> None:
    choose(page)
    page.keyboard.press("3")
    expect(page.locator(".map .level")).to_have_text("8 dims")
    expect(page.locator("#status")).to_contain_text("20 neighbours")
    drawn = "c => {const t = document.createElement('canvas'); t.width = c.width;"
    drawn += "t.height = c.height; const x = t.getContext('2d'); x.drawImage(c, 0, 0);"
    drawn += "return x.getImageData(0, 0, t.width, t.height).data.some((v) => v)}"
    assert page.locator(".map canvas").evaluate(drawn)
    expect(page.locator(".map .thumbs img").first).to_be_visible()
    expect(page.locator(".legend li")).to_have_text(["cat", "dog"])
    for _ in range(4):
        page.get_by_role("button", name="Nearer").click()
    expect(page.locator(".map .level")).to_contain_text("64 dims")
    page.get_by_role("button", name="Show the whole map").click()
    expect(page.locator(".map .level")).to_have_text("8 dims")
    before = page.url
    page.locator(".map canvas").press("Enter")
    expect(page.locator(".map-found .card")).to_have_count(20)
    assert page.url != before and "view=map" in page.url


def test_duplicates_are_shown_and_decided(page: Page) -> None:
    page.keyboard.press("4")
    page.get_by_label("Show").select_option("exact")
    expect(page.locator(".group")).to_have_count(2)
    expect(page.locator(".kept .tag").first).to_contain_text("kept:")
    expect(page.locator("#status")).to_contain_text("2 groups")
    page.get_by_role("button", name="is not a duplicate of").first.click()
    expect(page.locator("#status.error")).to_contain_text("same bytes")  # it cannot be otherwise


def test_the_report_says_how_to_get_one(page: Page) -> None:
    page.keyboard.press("5")
    expect(page.locator("#main")).to_contain_text("mrl-search bench INDEX")


def test_keys_alone_do_all(page: Page) -> None:
    page.keyboard.press("j")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator(".card b").first).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("m")
    expect(page.locator(".chip.minus")).to_have_count(1)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("from picture to picture")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(page.locator("#words")).to_be_focused()


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
    for key in "12345":
        page.locator("body").press(key)
        page.wait_for_timeout(400)
        serious = [
            (one["id"], one["nodes"][0]["html"])
            for one in Axe().run(page).response["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == [], key
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], key
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
