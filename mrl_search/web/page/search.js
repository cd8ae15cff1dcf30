"use strict";
// The view of results: they fill in as stages arrive, and go on as one scrolls.

const FIRST = 60; // hits of a first answer
const QUICK = 24; // and of one while the slider moves
const MOST = 5000; // hits that scrolling reaches

const searchView = {
  /** Show the answer to the state; `quick` (the slider moves) skips stages and expected numbers. */
  async show(main, state, signal, quick = false) {
    if (!state.plus.length && !state.minus.length) return this.begin(main, state, signal);
    const grid = this.gridIn(main);
    const options = { k: mostOf(state, quick ? QUICK : FIRST), expected: app.info.has_expected && !quick };
    const start = performance.now();
    let answer;
    if (quick) {
      answer = await app.api.search(state.index, requestOf(state, options), signal);
    } else {
      answer = await app.api.stream(state.index, requestOf(state, options), (stage) => {
        if (stage.stage === stage.stages || signal.aborted) return;
        tell(`Stage ${stage.stage} of ${stage.stages}: ${stage.dims} dims, ${time(stage.ms)}, ${count(stage.keep, "candidate")}`);
        this.fill(grid, stage.hits);
      }, signal);
    }
    if (signal.aborted) return;
    this.fill(grid, answer.hits);
    if (quick) this.stopScrolling();
    else this.scrolling(main, grid, state, answer, signal);
    const embedded = answer.embed_ms ? `, embedding ${time(answer.embed_ms)}` : "";
    const plan = answer.plan === "exact" ? "exact, all dims" : `plan ${answer.plan}`;
    tell(answer.hits.length
      ? `Searched ${count(app.info.items, "item")} in ${time(answer.ms)}${embedded} · ${plan}`
      : this.nothing(state));
    requestAnimationFrame(() => performance.measure("search", { start }));
  },

  /** Why there is no hit. */
  nothing(state) {
    if (state.cutoff) return "Nothing is more similar than chance explains. Show hits that chance explains to see the nearest.";
    return state.where.length ? "No other item passes the filters." : "There is nothing else in this index.";
  },

  /** Before anything is asked: some pictures of the index to click. */
  async begin(main, state, signal) {
    const ids = app.info.sample ?? [];
    const grid = this.gridIn(main);
    const items = await Promise.all(ids.map((id) => app.api.item(state.index, id)));
    if (signal.aborted) return;
    grid.replaceChildren(...items.map((item) => make("li", { className: "card" },
      make("button", {
        className: "picture", type: "button", onclick: () => app.setTerms([{ id: item.id }]),
        "aria-label": `Show more like ${nameOf(item)}`,
      }, thumb(item, "")),
      make("p", { className: "about name" }, nameOf(item)))));
    this.stopScrolling();
    if (!items.length) grid.replaceChildren(make("li", { className: "cut" }, "This index is empty. Add pictures: mrl-search add INDEX PICTURES"));
    tell(`${count(app.info.items, "item")}.${items.length ? ` Click ${app.info.pictures ? "a picture" : "an item"} to see what is most similar.` : ""}`);
  },

  gridIn(main) {
    const known = main.querySelector(":scope > .grid.results");
    if (known) return known;
    const grid = make("ol", { className: "grid results", "aria-label": "Results" });
    grid.addEventListener("keydown", (event) => moveInGrid(event, grid));
    main.replaceChildren(grid, make("div", { id: "more" }));
    return grid;
  },

  /** Put hits into the grid; cards that are there already only move, so that nothing flickers. */
  fill(grid, hits) {
    const known = new Map();
    for (const one of grid.querySelectorAll("li[data-id]")) known.set(one.dataset.id, one);
    const focused = document.activeElement?.closest?.("li[data-id]")?.dataset.id;
    grid.replaceChildren(...cards(hits, false, known));
    if (focused) grid.querySelector(`li[data-id="${focused}"] .picture`)?.focus({ preventScroll: true });
  },

  stopScrolling() {
    this.observer?.disconnect();
  },

  /** Ask for three times as many whenever the end comes near. */
  scrolling(main, grid, state, answer, signal) {
    this.stopScrolling();
    let shown = answer.hits;
    const most = mostOf(state, MOST);
    let asked = mostOf(state, FIRST);
    let busy = false;
    const end = main.querySelector("#more");
    this.observer = new IntersectionObserver(async ([entry]) => {
      if (!entry.isIntersecting || busy || shown.length < asked || asked >= most) return;
      busy = true;
      try {
        asked = Math.min(3 * asked, most);
        const options = { k: asked, expected: app.info.has_expected };
        const more = await app.api.search(state.index, requestOf(state, options), signal);
        const known = new Set(shown.map((hit) => hit.id));
        grid.append(...cards(more.hits.filter((hit) => !known.has(hit.id)), shown.some((hit) => hit.expected >= CUT)));
        shown = more.hits;
      } catch (error) {
        tellError(error, () => app.show());
        return;
      }
      busy = false;
      this.observer.unobserve(end);
      this.observer.observe(end); // it may still be in sight
    }, { rootMargin: "800px" });
    this.observer.observe(end);
  },
};
