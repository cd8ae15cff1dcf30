"use strict";
// The ladder: one query at every prefix, the same picture joined by lines from row to row.

const ladderView = {
  async show(main, state, signal) {
    if (!state.plus.length && !state.minus.length) {
      main.replaceChildren(emptyView("Choose a picture first, in ", make("a", { href: writeState({ ...state, view: "search" }) }, "Results"),
        ". The ladder shows what 8, 16, … dimensions find for it."));
      tell("");
      return;
    }
    const wide = matchMedia("(min-width: 40rem)").matches;
    const k = wide ? 10 : 6;
    const rows = app.info.dims.map((dims) => ({ dims, list: make("ol"), note: make("p", {}, "…") }));
    const ladder = make("div", { className: "ladder" },
      ...rows.map(({ dims, list, note }) => make("section", { className: "row", "aria-label": `${dims} dimensions` },
        make("div", {}, make("h2", {}, `${dims} dims`), note), list)));
    ladder.style.setProperty("--tiles", k);
    ladder.style.setProperty("--rows", rows.length);
    ladder.addEventListener("keydown", (event) => this.step(event, rows));
    main.replaceChildren(ladder);
    tell("Searching by every number of dimensions …");
    let refusal;
    for (const row of rows) {
      const request = requestOf({ ...state, dims: row.dims }, { k });
      let answer;
      try {
        answer = await app.api.search(state.index, request, signal);
      } catch (error) {
        if (error.status !== 400) throw error;
        refusal = error; // such as terms that cancel each other in so few dimensions
        row.note.textContent = "–";
        continue;
      }
      if (signal.aborted) return;
      row.hits = answer.hits;
      row.list.replaceChildren(...answer.hits.map((hit) => this.tile(hit, ladder)));
      this.join(ladder, rows.filter((one) => one.hits));
      row.ms = answer.ms;
      row.note.textContent = time(answer.ms);
    }
    const answered = rows.filter((row) => row.hits);
    if (!answered.length) throw refusal;
    const last = answered.at(-1).hits.map((hit) => hit.id);
    for (const row of answered) {
      const found = row.hits.filter((hit) => last.includes(hit.id)).length;
      row.note.replaceChildren(time(row.ms), make("span", { className: "dot" }, " · "), make("br"), `${found} of ${last.length}`);
      row.note.title = `${found} of the ${last.length} that all dimensions find`;
    }
    tell("Each row: what the first dimensions find, its time, and how many of them all dimensions find too.");
    this.observer?.disconnect();
    this.observer = new ResizeObserver(() => this.join(ladder, answered));
    this.observer.observe(ladder);
  },

  /** Arrow keys go along a row, and to the next one. */
  step(event, rows) {
    const [x, y] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1], j: [1, 0], k: [-1, 0] }[event.key] ?? [];
    const at = rows.findIndex((row) => row.list.contains(document.activeElement));
    if (x === undefined || at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const place = [...rows[at].list.children].findIndex((one) => one.contains(document.activeElement));
    const tiles = rows[at + y]?.list.querySelectorAll("button") ?? [];
    tiles[Math.min(Math.max(place + x, 0), tiles.length - 1)]?.focus();
    event.preventDefault();
  },

  tile(hit, ladder) {
    const light = (on) => {
      ladder.classList.toggle("chosen", on);
      for (const path of ladder.querySelectorAll("path")) path.classList.toggle("on", on && path.dataset.id === String(hit.id));
    };
    const button = make("button", {
      type: "button", onclick: () => app.setTerms([{ id: hit.id }]),
      onmouseenter: () => light(true), onmouseleave: () => light(false),
      onfocus: () => light(true), onblur: () => light(false),
      "aria-label": `${hit.rank}. ${nameOf(hit)}, similarity ${hit.score.toFixed(2)}`,
      title: `${hit.rank}. ${nameOf(hit)} ${hit.score.toFixed(3)}`,
    }, thumb(hit, ""));
    button.dataset.id = hit.id;
    return make("li", {}, button);
  },

  /** Draw a line for every picture that two neighbouring rows share. */
  join(ladder, rows) {
    ladder.querySelector("svg")?.remove();
    const svg = makeSvg("svg", { "aria-hidden": "true" });
    const frame = ladder.getBoundingClientRect();
    const order = [...new Set(rows.toReversed().flatMap((row) => row.hits.map((hit) => hit.id)))];
    const joined = order.filter((id) => rows.some((row, i) => [row, rows[i + 1]].every((one) => one?.hits.some((hit) => hit.id === id))));
    const place = new Map(joined.map((id, i) => [String(id), i])); // after ten colours come ten dashed ones
    for (const button of ladder.querySelectorAll("button")) button.style.borderColor = "transparent";
    for (let i = 0; i + 1 < rows.length; i++) {
      for (const from of rows[i].list.querySelectorAll("button")) {
        const to = rows[i + 1].list.querySelector(`button[data-id="${from.dataset.id}"]`);
        if (!to) continue;
        const [a, b] = [from.getBoundingClientRect(), to.getBoundingClientRect()];
        const [x, y] = [a.left + a.width / 2 - frame.left, a.bottom - frame.top];
        const [u, v] = [b.left + b.width / 2 - frame.left, b.top - frame.top];
        const bend = Math.max(10, (v - y) / 2);
        const line = makeSvg("path", { d: `M${x},${y} C${x},${y + bend} ${u},${v - bend} ${u},${v}` });
        line.dataset.id = from.dataset.id;
        const at = place.get(from.dataset.id);
        line.style.stroke = from.style.borderColor = to.style.borderColor = COLOURS[at % COLOURS.length];
        if (at >= COLOURS.length) {
          line.style.strokeDasharray = "7 5";
          from.style.borderStyle = to.style.borderStyle = "dashed";
        }
        svg.append(line);
      }
    }
    ladder.append(svg);
  },
};
