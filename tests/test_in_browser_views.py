"""The other views in a real browser: ladder, map, duplicates and report."""

import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import shown
from browsing import choose, needs_browser, opened
from fakes import FakeJointEncoder
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from served import build, running

from mrl_search.index import Index
from mrl_search.progress import Progress
from mrl_search.web import served as module
from mrl_search.web.told import report_of

pytestmark = needs_browser
BENCH = Path(__file__).parents[1] / "benchmarks/reports/animals.jsonl"
browser, folder, address, page = shown.browser, shown.folder, shown.address, shown.page


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


@pytest.mark.parametrize("width", [390, 320])
def test_on_a_phone_a_table_of_the_report_scrolls_in_its_own_box(
    browser: Browser, folder: Path, width: int
) -> None:
    tables = report_of(BENCH)["tables"]
    with (
        running(folder, report=lambda name: {"tables": tables}) as address,
        opened(browser, f"{address}#view=report") as page,
    ):
        page.set_viewport_size({"width": width, "height": 844})
        expect(page.get_by_role("table")).to_have_count(len(tables))
        box = page.get_by_role("region", name=tables[0]["title"])
        shown, whole = box.evaluate("(box) => [box.clientWidth, box.scrollWidth]")
        assert shown < width < whole
        assert box.evaluate("(box) => { box.scrollLeft = 300; return box.scrollLeft; }") == 300
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("() => { scrollTo(300, 0); return scrollX; }") == 0
