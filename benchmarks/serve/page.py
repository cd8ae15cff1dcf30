"""How smoothly the page of a server runs: frames in a real browser.

    python benchmarks/serve/page.py INDEX OUT [--points N] [--no-webgl] [--note TEXT]

Starts `mrl-search serve INDEX` and Chromium without a window (software WebGL; the processor draws
all), and appends records to OUT (JSON lines):

- `slider`: it moves by one tick every 6th frame, to and fro. The frames while it moves, and the
  time from a tick to the frame that shows its hits; `work_ms`: script, style and layout of a tick.
- `map`: all points, moved by a hand that drags, as far out and as near as the names say. The
  frames, and `whole_ms`: to draw all points once, as when the map comes to rest.

A frame is the time between two calls of requestAnimationFrame; the screen has 60 a second, so one
of 16.7 ms is on time. With `--points`, INDEX is first made: N random vectors in groups.
"""

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import CDPSession, Page, sync_playwright
from serve import served

from mrl_search.engines.spec import IndexSpec
from mrl_search.index import Index
from mrl_search.measure.environment import check_clean, environment
from mrl_search.store.manifest import now

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-background-networking", "--enable-unsafe-swiftshader"]
NO_WEBGL = ["--disable-webgl", "--disable-3d-apis"]
WIDTH, HEIGHT = 1280, 900
PATIENCE = 120_000  # ms
TICKS, FRAMES = 60, 150
WORK = ("Script", "RecalcStyle", "Layout")
LATE = 17.7  # ms: a frame that took longer missed its turn
GROUPS, DIM, SEED = 40, 64, 1
SLIDE = """async (ticks) => {
  const slider = document.querySelector("#dims");
  const frames = [], turn = () => new Promise(requestAnimationFrame);
  performance.clearMeasures("search");
  let last = await turn(), place = Number(slider.max), step = -1;
  for (let i = 0; i < 6 * ticks; i++) {
    if (i % 6 === 0) {
      if (place + step < 0 || place + step > Number(slider.max)) step = -step;
      slider.value = place += step;
      slider.dispatchEvent(new Event("input", {bubbles: true}));
    }
    const at = await turn();
    frames.push(at - last);
    last = at;
  }
  await new Promise((done) => setTimeout(done, 500));
  return [frames, performance.getEntriesByName("search").map((one) => one.duration)];
}"""
DRAG = """async ([count, zoom]) => {
  const {points} = mapView, turn = () => new Promise(requestAnimationFrame);
  const whole = [], pixel = new Uint8Array(4);
  for (let i = 0; i < 5; i++) {
    const start = performance.now();
    points.draw({x: 0, y: 0, zoom});
    if (points.gl) points.gl.readPixels(0, 0, 1, 1, points.gl.RGBA, points.gl.UNSIGNED_BYTE, pixel);
    else points.flat.getImageData(0, 0, 1, 1);
    whole.push(performance.now() - start);
  }
  const frames = [];
  let last = await turn();
  for (let i = 0; i < count; i++) {
    mapView.moveCamera({x: 0.3 * Math.sin(i / 20), y: 0.3 * Math.cos(i / 20), zoom});
    const at = await turn();
    frames.push(at - last);
    last = at;
  }
  return [frames, whole];
}"""


def main(given: argparse.Namespace) -> None:
    about = {"part": "page", "note": given.note, "created": now(), "environment": environment()}
    if not given.try_out:
        check_clean(about["environment"]["commit"], given.out)
    if given.points:
        make_index(given.index, given.points)
    index = Index.open(given.index)
    about |= {"index": given.index.name, "items": len(index), "webgl": not given.no_webgl}
    with served(given.index) as (port, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*FLAGS, *(NO_WEBGL if given.no_webgl else [])]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(PATIENCE)
        about["browser"] = browser.version
        for record in measured(page, f"http://127.0.0.1:{port}/", given.no_webgl):
            print(json.dumps(record), flush=True)
            with given.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**record, **about}) + "\n")
        browser.close()


def measured(page: Page, address: str, flat: bool) -> list[dict[str, Any]]:
    """The records of one index."""
    found = []
    page.goto(address)
    page.locator(".card .picture").nth(5).click()
    page.locator(".card b").first.wait_for()
    if not flat:
        page.evaluate(SLIDE, TICKS // 4)  # not counted: what comes first, and the pictures
        page.wait_for_timeout(2000)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")
        before = work(session)
        frames, searches = page.evaluate(SLIDE, TICKS)
        found.append({
            "what": "slider", "ticks": TICKS, "work_ms": round((work(session) - before) / TICKS, 2),
            **figures("frame", frames), **figures("search", searches),
        })  # fmt: skip
    page.locator("body").press("3")
    page.locator(".map .level").get_by_text("dims").wait_for()
    page.wait_for_timeout(1000)
    assert page.evaluate("Boolean(mapView.points.gl)") is not flat
    for what, zoom in (("map, all of it", 0.9), ("map, 2.9 times as near", 2.6)):
        frames, whole = page.evaluate(DRAG, [FRAMES, zoom])
        whole_ms = round(float(np.median(whole)), 2)
        found.append({"what": what, "whole_ms": whole_ms, **figures("frame", frames)})
        page.wait_for_timeout(1500)
    return found


def work(session: CDPSession) -> float:
    """Milliseconds of script, style and layout so far."""
    found = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    return 1e3 * float(sum(found[f"{kind}Duration"] for kind in WORK))


def figures(name: str, ms: Sequence[float]) -> dict[str, Any]:
    """Median, tail and most of some times; how many frames missed their turn."""
    p50, p95 = np.percentile(ms, [50, 95])
    late = {"late": sum(one > LATE for one in ms)} if name == "frame" else {}
    return {
        f"{name}_n": len(ms), f"{name}_p50_ms": round(float(p50), 2),
        f"{name}_p95_ms": round(float(p95), 2), f"{name}_max_ms": round(max(ms), 2), **late,
    }  # fmt: skip


def make_index(folder: Path, count: int) -> None:
    """Random vectors around random centres."""
    rng = np.random.default_rng(SEED)
    centres = rng.standard_normal((GROUPS, DIM)).astype(np.float32)
    rows = centres[rng.integers(0, GROUPS, count)]
    rows += rng.standard_normal(rows.shape, dtype=np.float32)
    Index.from_vectors(
        rows, folder, rotate="pca", spec=IndexSpec((8, DIM), "Flat", dtype="float16")
    )


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--points", type=int, default=0)
    parser.add_argument("--no-webgl", action="store_true")
    parser.add_argument("--note", default="")
    parser.add_argument("--try-out", action="store_true", help="uncommitted code, no record")
    return parser.parse_args(given)


if __name__ == "__main__":
    main(arguments())
