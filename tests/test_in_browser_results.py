"""The results in a real browser: searching by pictures, words, filters and the slider; items."""

from pathlib import Path

import shown
from browsing import choose, names, needs_browser
from playwright.sync_api import Page, expect

pytestmark = needs_browser
browser, folder, address, page = shown.browser, shown.folder, shown.address, shown.page


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
    assert shown["pixels"] == "96 × 96"
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
