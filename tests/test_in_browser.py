"""The page in a real browser: everything on it is used, and it asks nobody but this machine."""

import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import PATIENCE, PHONE, WIDE, choose, launched, names, needs_browser, opened
from fakes import FakeJointEncoder
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from served import build, running

from mrl_search.index import Index
from mrl_search.progress import Progress
from mrl_search.web import served as module
from mrl_search.web.export import export_page
from mrl_search.web.told import report_of

pytestmark = needs_browser
BENCH = Path(__file__).parents[1] / "benchmarks/reports/animals.jsonl"


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
    page.locator("#file").set_input_files({"name": "x.p", "mimeType": "image/png", "buffer": b"no"})
    expect(page.locator("#status.error")).to_contain_text("x.p: not an image")


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


def test_bytes_and_dates_are_written_for_people(page: Page, folder: Path) -> None:
    page.get_by_label("Words").fill("#3")
    page.keyboard.press("Enter")
    expect(page.locator("#item-title")).to_have_text("cat-0003.jpg")
    told = page.locator("#item-columns dd")
    expect(told.first).to_be_visible()
    picture = folder.parent / "pictures/cat/cat-0003.jpg"
    shown = dict(
        zip(
            page.locator("#item-columns dt").all_text_contents(),
            told.all_text_contents(),
            strict=True,
        )
    )
    assert shown["bytes"] == f"{float(f'{picture.stat().st_size / 1e3:.2g}'):,g} kB"
    page.evaluate("app.info.columns = [{name: 'seen', kind: 'time'}, {name: 'note', kind: 'text'}]")
    texts = {
        "byteCount(7)": "7 bytes", "byteCount(2_060_000)": "2.1 MB", "byteCount(31e9)": "31 GB",
        "dateText('2021-05-03T14:05:59')": "3 May 2021 at 14:05",  # the clock of the place
        "shown('seen', '2021-05-03T14:05:59')": "3 May 2021 at 14:05",
        "shown('note', '2021-05-03T14:05:59')": "2021-05-03T14:05:59",
        "dateText('2021-05-03')": "3 May 2021", "dateText('long ago')": "long ago",
    }  # fmt: skip
    assert {call: page.evaluate(call) for call in texts} == texts


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
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.get_by_role("button", name=f"Copy the path of {first}").click()  # as from another machine
    expect(page.locator("#status")).to_contain_text(f"The path: {first[:3]}/{first}")


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
    expect(page.locator(".group").first.locator("li")).to_have_count(2)  # side by side
    expect(page.locator(".kept .tag").first).to_contain_text("kept:")
    expect(page.locator("#status")).to_contain_text("2 groups")
    page.get_by_role("button", name="is not a duplicate of").first.click()
    expect(page.locator("#status.error")).to_contain_text("same bytes")  # it cannot be otherwise


def test_a_look_for_duplicates_shows_how_far_it_is_and_ends_when_one_leaves(
    browser: Browser, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def endless(index: Index, level: str, progress: Progress) -> dict[str, Any]:
        try:
            while True:
                progress("pairs", 12_000, 22_998)
                time.sleep(0.05)
        finally:
            ended.set()

    monkeypatch.setattr(module, "duplicates", endless)
    with running(folder) as address, opened(browser, f"{address}#view=duplicates") as page:
        expect(page.locator("#status")).to_contain_text("comparing, 12,000 of 22,998")
        assert not ended.is_set()
        page.keyboard.press("1")
        expect(page.locator("#status")).to_contain_text("Click a picture")
        assert ended.wait(60)


def test_what_is_not_a_duplicate_is_remembered(browser: Browser, tmp_path: Path) -> None:
    folder = build(tmp_path, 2)
    with Image.open(tmp_path / "pictures/cat/cat-0000.jpg") as picture:
        picture.save(tmp_path / "pictures/cat/again.jpg", quality=60)
    Index.open(folder, FakeJointEncoder()).sync()
    with (
        running(folder, write=True) as address,
        opened(browser, f"{address}#view=duplicates") as page,
    ):
        expect(page.locator(".kept .name")).to_have_text(["cat/cat-0000.jpg"])
        expect(page.locator(".tag").last).to_contain_text("same picture, cosine")
        page.get_by_role("button", name="again.jpg is not a duplicate of cat-0000.jpg").click()
        expect(page.locator("#status")).to_contain_text("Remembered: again.jpg")
        expect(page.locator(".group")).to_have_count(0)
        page.reload()
        expect(page.locator("#status")).to_have_text("No duplicates.")
    with running(folder) as address, opened(browser, f"{address}#view=duplicates") as page:
        expect(page.locator("#status")).to_have_text("No duplicates.")


def test_the_report_is_the_bench_of_this_index(browser: Browser, folder: Path) -> None:
    silent = re.compile(".*GPU stall|.*no longer repeat")  # no benchmark is no error
    with running(folder) as address, opened(browser, address, quiet=silent) as page:
        page.keyboard.press("5")
        expect(page.locator("#main")).to_contain_text("mrl-search bench INDEX")
    tables = report_of(BENCH)["tables"]
    with (
        running(folder, report=lambda name: {"tables": tables}) as address,
        opened(browser, f"{address}#view=report") as other,
    ):
        expect(other.get_by_role("heading", level=2)).to_have_text([one["title"] for one in tables])
        for table, one in zip(tables, other.get_by_role("table").all(), strict=True):
            shown = [
                row.locator("th, td").all_text_contents() for row in one.get_by_role("row").all()
            ]
            assert shown == [list(row) for row in (table["columns"], *table["rows"])]


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
