"""The page in a real browser, with thousands of items: chance, stages, scrolling, and the map."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from browsing import NO_WEBGL, choose, ids, launched, needs_browser, opened, started
from playwright.sync_api import Browser, Page, expect
from served import running

from mrl_search.engines.spec import IndexSpec
from mrl_search.index import Index

pytestmark = needs_browser

N, NEAR = 3000, 4  # items, and those that are nearly the first one
PLAN = "8:300,64"
DARK = """c => {
  const copy = document.createElement("canvas");
  Object.assign(copy, {width: c.width, height: c.height});
  const flat = copy.getContext("2d");
  flat.drawImage(c, 0, 0);
  const {data} = flat.getImageData(0, 0, copy.width, copy.height);
  let [drawn, dark] = [0, 0];
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3]) drawn++;
    if (data[i + 3] > 200 && data[i] + data[i + 1] + data[i + 2] < 150) dark++;
  }
  return [drawn, dark];
}"""  # pixels that are drawn, and those in the colour of a ring


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Random directions; the first items are nearly one."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((N, 64)).astype(np.float32)
    rows[1 : NEAR + 1] = rows[0] + 0.05 * rng.standard_normal((NEAR, 64))
    folder = tmp_path_factory.mktemp("many") / "index"
    return Index.from_vectors(rows, folder, spec=IndexSpec((8, 16, 64), "Flat"))


@pytest.fixture(scope="module")
def address(index: Index) -> Iterator[str]:
    with running(index.folder) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with opened(browser, address) as page:
        yield page


def expected_ids(index: Index, k: int, **how: Any) -> list[int]:
    """What the library finds for the first item."""
    row = index.corpus.vectors.rows(np.array([0]))
    found: list[int] = index.search(row, k=k + 1, **how).ids[0, 1:].tolist()
    return found


def test_a_grey_line_stands_where_chance_begins(page: Page, index: Index) -> None:
    choose(page, "item 0")
    order = page.locator(".results > li").evaluate_all("all => all.map((one) => one.className)")
    assert order[: NEAR + 2] == ["card"] * NEAR + ["cut", "card chance"]
    assert order.count("cut") == 1
    row = index.corpus.vectors.rows(np.array([0]))
    hits = index.search(row, k=NEAR + 2, expected=True)[0]
    last = hits[NEAR + 1].expected
    assert last is not None and 0.1 < last < 1
    chances = page.locator(".by-chance").all_text_contents()
    assert chances[:NEAR] == ["chance <0.001"] * NEAR and chances[NEAR] == f"chance {last:.1g}"
    assert f"{hits[1].score:.3f}" in page.locator(".card").first.inner_text()
    page.get_by_label("hide hits that chance explains").check()
    expect(page.locator(".results .card")).to_have_count(NEAR)
    expect(page.locator(".results .cut")).to_have_count(0)
    assert "cutoff=auto" in page.url
    page.get_by_label("hide hits that chance explains").uncheck()
    expect(page.locator(".results .cut")).to_have_count(1)


def test_results_fill_in_as_stages_arrive(page: Page, index: Index) -> None:
    choose(page, "item 0")
    page.evaluate("""() => {
      window.seen = [];
      new MutationObserver(() => window.seen.push([document.querySelector("#status").textContent,
        [...document.querySelectorAll(".results li[data-id]")].map((one) => +one.dataset.id)]))
        .observe(document.querySelector("#status"), {childList: true});
    }""")
    page.get_by_label("Plan").fill(PLAN)
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text(f"plan {PLAN}")
    (first,) = [hits for text, hits in page.evaluate("seen") if text.startswith("Stage 1 of 2: 8")]
    assert first[:50] == expected_ids(index, 50, plan=8) != expected_ids(index, 50, plan=PLAN)
    assert ids(page)[:50] == expected_ids(index, 50, plan=PLAN)


def test_thousands_of_results_by_scrolling(page: Page, index: Index) -> None:
    choose(page, "item 0")
    expect(page.locator(".results .card")).to_have_count(60)
    for count in (180, 540, 1620, N - 1):
        page.keyboard.press("End")
        expect(page.locator(".results .card")).to_have_count(count)
    assert ids(page) == expected_ids(index, N - 1)
    expect(page.locator(".results .cut")).to_have_count(1)
    page.keyboard.press("Home")
    page.locator("[data-id='2']").get_by_text("−").click()  # a new search begins anew
    expect(page.locator(".results .card")).to_have_count(60)


def click_point(page: Page, row: int) -> None:
    """Click where an item lies on the map."""
    x, y = page.evaluate(f"mapView.toScreen(...mapView.points.at({row}))")
    page.locator(".map canvas").click(position={"x": x, "y": y})


def check_map(page: Page, index: Index) -> None:
    """Click the outermost point of the map: its neighbours light up."""
    page.keyboard.press("3")
    expect(page.locator(".map .level")).to_have_text("8 dims")
    canvas = page.locator(".map canvas")
    before, _ = canvas.evaluate(DARK)
    assert before > N / 2
    row = page.evaluate("""() => {
      const x = mapView.points.now().filter((_, i) => i % 2 === 0);
      return x.indexOf(Math.max(...x));
    }""")
    click_point(page, row)
    expect(page.locator("#status")).to_contain_text("20 neighbours")
    assert f"id%3A{row}" in page.url
    query = index.corpus.vectors.rows(np.array([row]))
    near = index.search(query, k=21).ids[0, 1:].tolist()
    assert page.evaluate("mapView.lit") == near and page.evaluate("mapView.chosen") == [row]
    assert page.locator(".map-found .card").count() == 20
    page.wait_for_timeout(300)  # it is drawn
    assert canvas.evaluate(DARK)[1] > 20 * 15  # rings


def test_a_click_on_the_map_lights_the_neighbours(page: Page, index: Index) -> None:
    check_map(page, index)
    assert page.evaluate("mapView.points.gl instanceof WebGL2RenderingContext")
    page.evaluate("""() => {
      const {canvas, gl} = mapView.points;
      const lost = gl.getExtension("WEBGL_lose_context");
      canvas.addEventListener("webglcontextlost", () => setTimeout(() => lost.restoreContext()));
      canvas.addEventListener("webglcontextrestored", () => { document.body.id = "back"; });
      lost.loseContext();
    }""")
    expect(page.locator("#back")).to_be_attached()
    assert page.locator(".map canvas").evaluate(DARK)[1] > 20 * 15


def test_the_map_shows_more_dims_the_nearer_one_looks(page: Page) -> None:
    page.keyboard.press("3")
    level = page.locator(".map .level")
    expect(level).to_have_text("8 dims")
    canvas = page.locator(".map canvas")
    canvas.focus()
    far = page.evaluate("[...mapView.points.end]")
    for _ in range(4):
        page.keyboard.press("+")
    expect(level).to_have_text("64 dims")
    for _ in range(4):
        page.keyboard.press("+")
    expect(level).to_contain_text("64 dims, this group of")
    group = page.evaluate("mapView.group")
    assert 2 < len(group) < N / 4
    near, inside = page.evaluate("[[...mapView.layouts.near], [...mapView.points.end]]")
    moved = {i // 2 for i in range(2 * N) if near[i] != inside[i]}
    assert moved == set(group) and far != near  # the others stay where they are
    page.keyboard.press("ArrowRight")
    expect(page.locator("#status")).not_to_have_class("error")
    assert "at=" in page.url


def test_plus_and_minus_zoom_and_pictures_are_shown_from_twice_as_near(page: Page) -> None:
    page.keyboard.press("3")
    expect(page.locator(".map .level")).to_have_text("8 dims")

    def zoom() -> float:
        return float(page.evaluate("mapView.camera.zoom"))

    def places() -> list[str]:
        """The cells of the map in which a picture would be shown."""
        return page.evaluate("""mapView.spread(mapView.visible()).map((row) => mapView
            .toScreen(...mapView.points.at(row)).map((at) => Math.floor(at / CELL)).join())""")

    assert zoom() == 0.9 and len(page.evaluate("mapView.visible()")) == N and places() == []
    page.keyboard.press("+")  # wherever the focus is
    assert zoom() == pytest.approx(0.9 * 1.4)
    page.get_by_role("button", name="Nearer").click()
    assert zoom() == pytest.approx(0.9 * 1.4 * 1.6) and zoom() > 2
    shown = places()
    assert len(shown) > 20 and len(set(shown)) == len(shown)  # one a cell
    page.get_by_role("button", name="Farther").click()
    assert zoom() < 2 and len(page.evaluate("mapView.visible()")) > 400 and places() == []
    page.locator(".map canvas").press("-")
    assert zoom() == pytest.approx(0.9)
    few = page.evaluate("mapView.spread(mapView.visible().slice(0, FEW)).length")
    assert few > 20  # so few are shown from any distance
    page.keyboard.press("1")
    page.keyboard.press("+")  # elsewhere it is no key
    assert zoom() == pytest.approx(0.9)


def test_an_item_is_opened_by_its_id(page: Page) -> None:
    page.keyboard.press("/")
    box = page.get_by_label("# and an id")
    expect(box).to_be_focused()
    page.keyboard.type("#7")
    page.keyboard.press("Enter")
    expect(page.locator("#item")).to_be_visible()
    expect(page.locator("#item-title")).to_have_text("item 7")
    expect(page.locator("#item-columns dt").first).to_be_visible()
    assert "pixels" not in page.locator("#item-columns dt").all_text_contents()  # a vector
    page.keyboard.press("Escape")
    box.fill(f"# {N}")
    page.keyboard.press("Enter")
    expect(page.locator("#status.error")).to_contain_text(f"no item {N}")
    box.fill("a dog")
    page.keyboard.press("Enter")
    expect(page.locator("#status.error")).to_contain_text("does not read words")


def test_a_slow_machine_draws_fewer_points_while_the_map_moves(page: Page) -> None:
    page.keyboard.press("3")
    expect(page.locator(".map .level")).to_have_text("8 dims")
    count = f"() => ({DARK})(mapView.points.canvas)[0]"
    page.evaluate("() => { for (let i = 0; i < 20; i++) mapView.points.pace(100); }")
    page.evaluate("mapView.points.draw(mapView.camera, true)")
    some = page.evaluate(count)
    page.evaluate("mapView.points.draw(mapView.camera)")
    every = page.evaluate(count)
    assert 0.5 * every < some < 0.9 * every
    page.evaluate("() => { for (let i = 0; i < 99; i++) mapView.points.pace(16); }")
    page.evaluate("mapView.points.draw(mapView.camera, true)")
    assert page.evaluate(count) == every


def test_the_map_is_drawn_without_webgl(browser: Browser, address: str, index: Index) -> None:
    other = started(browser.browser_type, *NO_WEBGL)
    with contextlib.closing(other), opened(other, address) as page:
        assert page.evaluate("document.createElement('canvas').getContext('webgl2')") is None
        check_map(page, index)
        assert page.evaluate("mapView.points.flat instanceof CanvasRenderingContext2D")
