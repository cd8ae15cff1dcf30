"use strict";
// Controls and the address become a state; the state becomes a view.

const KEYS = [
  ["/", "words, or # and the id of an item"], ["p", "choose a picture"], ["d", "the dimensions"],
  ["a", "automatic plan"], ["1 … 5", "the views"], ["arrows, j, k", "go from picture to picture"],
  ["Enter", "more like this"], ["o", "open the picture"], ["m", "less like this"], ["c", "copy the path"],
  ["+, −", "zoom the map"],
];
const TITLES = { search: "Results", ladder: "Ladder", map: "Map", duplicates: "Duplicates", report: "Report" };
const OPERATORS = { text: ["=", "!="], number: [">=", "<=", "=", "!="], time: [">=", "<=", "="] };

const app = {
  views: { search: searchView, ladder: ladderView, map: mapView, duplicates: duplicatesView, report: reportView },
  own: new Map(), // pictures that were dropped: query_id to the file
  state: EMPTY,

  async start() {
    this.api = typeof EXPORT === "undefined" ? new Server() : new Exported(EXPORT);
    this.listen();
    try {
      const indexes = await this.api.indexes();
      byId("index").replaceChildren(...indexes.map(({ name, items }) => make("option", { value: name }, `${name} (${number.format(items)})`)));
      this.state = { ...readState(location.hash) };
      if (!indexes.some(({ name }) => name === this.state.index)) this.state.index = indexes[0]?.name ?? "";
      if (!this.state.index) return tell("This server has no index.", true);
      await this.open();
    } catch (error) {
      tellError(error, () => location.reload());
    }
  },

  /** Learn what the chosen index holds, and offer what it can. */
  async open() {
    const info = this.info = await this.api.info(this.state.index);
    byId("index").value = this.state.index;
    byId("dims").max = info.dims.length - 1;
    byId("ticks").replaceChildren(...info.dims.map((dims, i) => make("option", { value: i, label: dims })));
    byId("pick").hidden = !(info.embeds && this.api.uploads);
    this.words = info.words && this.api.uploads;
    byId("words").previousElementSibling.textContent = this.words ? "Words, or # and an id" : "# and an id";
    byId("words").placeholder = this.words ? "Words, such as: a dog on a beach; or #12" : "#12 opens item 12";
    byId("plan").parentElement.hidden = !this.api.uploads;
    byId("cutoff").parentElement.hidden = !info.has_expected;
    byId("hint").textContent = info.embeds && this.api.uploads
      ? `Drop or paste a picture${info.words ? ", type words" : ""}, or click one below.`
      : `Click ${info.pictures ? "a picture" : "an item"} below.`;
    byId("column").replaceChildren(...info.columns.map(({ name }) => make("option", { value: name }, name)));
    this.offerValues();
    await this.show();
  },

  /** Change the state, remember it in the address, show it. */
  change(patch, { replace = false, quick = false } = {}) {
    this.state = { ...this.state, ...patch };
    history[replace ? "replaceState" : "pushState"](null, "", writeState(this.state));
    return quick ? this.showSoon() : this.show();
  },

  setTerms(plus, stay = false) {
    const view = stay || ["search", "ladder", "map"].includes(this.state.view) ? this.state.view : "search";
    return this.change({ plus, minus: [], view });
  },

  addTerm(kind, term) {
    const key = termText(term);
    const others = (terms) => terms.filter((one) => termText(one) !== key);
    const { plus, minus } = this.state;
    const terms = { plus: others(plus), minus: others(minus) };
    terms[kind].push(term);
    return this.change({ ...terms, view: this.views[this.state.view] === mapView ? "map" : "search" });
  },

  async show(quick = false) {
    this.running?.abort();
    const { signal } = (this.running = new AbortController());
    const view = this.views[this.state.view];
    this.render();
    if (this.shown !== view) byId("main").replaceChildren();
    this.shown = view;
    if (view !== searchView) searchView.stopScrolling();
    try {
      await view.show(byId("main"), this.state, signal, quick);
    } catch (error) {
      if (!signal.aborted && !(await this.sendAgain(error).catch(() => false))) tellError(error, () => this.show());
    }
  },

  /** A server that was started again does not know pictures any more: send those that are still here. */
  async sendAgain(error) {
    const lost = [...this.state.plus, ...this.state.minus].filter((term) => this.own.has(term.query_id));
    if (error.status !== 400 || !error.message.includes("does not know the picture") || !lost.length) return false;
    const renewed = new Map();
    for (const term of lost) renewed.set(term, { ...term, query_id: await this.embed(this.own.get(term.query_id)) });
    const renew = (terms) => terms.map((term) => renewed.get(term) ?? term);
    await this.change({ plus: renew(this.state.plus), minus: renew(this.state.minus) }, { replace: true });
    return true;
  },

  /** Change what the address remembers, where the view shows it already. */
  note(patch) {
    this.state = { ...this.state, ...patch };
    history.replaceState(null, "", writeState(this.state));
  },

  /** For a slider that moves: one search at a time, and always the latest. */
  async showSoon() {
    this.render();
    this.again = true;
    if (this.sliding) return;
    this.sliding = true;
    while (this.again) {
      this.again = false;
      await this.show(true);
    }
    this.sliding = false;
  },

  /** Make the controls say what the state is. */
  render() {
    const { state, info } = this;
    document.title = `${TITLES[state.view]} · ${state.index} · mrl-search`;
    [...byId("views").children].forEach((button, i) => {
      if (VIEWS[i] === state.view) button.setAttribute("aria-current", "page");
      else button.removeAttribute("aria-current");
    });
    const at = state.dims ? info.dims.indexOf(state.dims) : info.dims.length - 1;
    byId("dims").value = at < 0 ? info.dims.length - 1 : at;
    const text = state.dims ? `${state.dims} dims` : state.plan ? "by plan" : "automatic";
    byId("dims-value").textContent = text;
    byId("dims").setAttribute("aria-valuetext", text);
    byId("auto").classList.toggle("unused", !state.dims && !state.plan);
    if (document.activeElement !== byId("plan")) byId("plan").value = state.plan;
    byId("cutoff").checked = state.cutoff;
    byId("ask").hidden = ["duplicates", "report"].includes(state.view);
    const terms = JSON.stringify([state.index, state.plus, state.minus, state.where]);
    if (terms === this.rendered) return; // a slider that moves leaves pictures and focus where they are
    this.rendered = terms;
    byId("chips").replaceChildren(
      ...state.plus.map((term) => this.chip(term, "plus")), ...state.minus.map((term) => this.chip(term, "minus")));
    byId("conditions").replaceChildren(...state.where.map((condition) => make("li", { className: "chip" }, condition,
      action("×", `Remove the filter ${condition}`, () => this.change({ where: state.where.filter((one) => one !== condition) })))));
  },

  chip(term, kind) {
    let face = term.text;
    if ("id" in term) face = thumb({ id: term.id }, `item ${term.id}`);
    if ("query_id" in term) {
      const preview = sessionStorage.getItem(`picture ${term.query_id}`);
      face = preview ? make("img", { src: preview, alt: "your picture" }) : "your picture";
    }
    const without = (terms) => terms.filter((one) => one !== term);
    const remove = () => this.change({ plus: without(this.state.plus), minus: without(this.state.minus) });
    return make("li", { className: `chip ${kind}` }, kind === "minus" ? "less " : null, face, action("×", "Take it out of the search", remove));
  },

  /** Embed a picture of the user's own, and search with it. */
  async upload(file) {
    if (!file) return;
    if (!this.api.uploads || !this.info.embeds) return tell("This page cannot take pictures in; click one.", true);
    tell(`Embedding ${file.name || "the picture"} …`);
    try {
      await this.setTerms([{ query_id: await this.embed(file) }]);
    } catch (error) {
      tellError(error, () => this.upload(file));
    }
  },

  /** Let the server embed a picture; returns its query_id. A small copy survives a reload of the page. */
  async embed(file) {
    const { query_id } = await this.api.upload(this.state.index, file, { k: 1 });
    this.own.set(query_id, file);
    try {
      const whole = await createImageBitmap(file, { resizeWidth: 96, resizeQuality: "medium" });
      const canvas = make("canvas", { width: whole.width, height: whole.height });
      canvas.getContext("2d").drawImage(whole, 0, 0);
      sessionStorage.setItem(`picture ${query_id}`, canvas.toDataURL("image/jpeg"));
    } catch { /* a format that browsers do not show, or no room: the chip says "your picture" */ }
    return query_id;
  },

  offerValues() {
    const column = this.info.columns.find(({ name }) => name === byId("column").value);
    byId("operator").replaceChildren(...(OPERATORS[column?.kind] ?? OPERATORS.text).map((text) => make("option", {}, text)));
    byId("values").replaceChildren(...(column?.values ?? []).map((value) => make("option", { value })));
    byId("value").placeholder = { number: "100", time: "2024-05" }[column?.kind] ?? column?.values?.[0] ?? "";
  },

  addFilter() {
    const value = byId("value").value.trim();
    if (!value) return byId("value").focus();
    const condition = byId("column").value + byId("operator").value + value;
    byId("value").value = "";
    if (!this.state.where.includes(condition)) this.change({ where: [...this.state.where, condition] });
  },

  listen() {
    byId("views").append(...VIEWS.map((view) => make("button", { type: "button", onclick: () => this.change({ view }) }, TITLES[view])));
    byId("ask").addEventListener("submit", (event) => event.preventDefault());
    byId("index").addEventListener("change", async (event) => {
      this.state = { ...EMPTY, index: event.target.value, view: this.state.view };
      history.pushState(null, "", writeState(this.state));
      await this.open().catch(tellError);
    });
    addEventListener("popstate", () => {
      const index = this.state.index;
      this.state = { ...readState(location.hash) };
      this.state.index ||= index;
      (this.state.index === index ? this.show() : this.open()).catch(tellError);
    });
    byId("pick").addEventListener("click", () => byId("file").click());
    byId("file").addEventListener("change", (event) => {
      this.upload(event.target.files[0]);
      event.target.value = "";
    });
    byId("words").addEventListener("keydown", (event) => {
      const text = event.target.value.trim();
      if (event.key !== "Enter" || !text) return;
      const id = /^#\s*(\d+)$/.exec(text)?.[1];
      if (!id && !this.words) return tell("The model of this index does not read words. # and an id, such as #12, opens an item.", true);
      event.target.value = "";
      if (id) this.api.item(this.state.index, id).then(openItem).catch(tellError);
      else this.addTerm("plus", { text });
    });
    byId("dims").addEventListener("input", (event) => {
      this.change({ dims: this.info.dims[event.target.value], plan: "" }, { replace: true, quick: this.state.view === "search" });
    });
    byId("dims").addEventListener("change", () => { if (this.state.view === "search") this.show(); });
    byId("auto").addEventListener("click", () => this.change({ dims: null, plan: "" }));
    byId("plan").addEventListener("change", (event) => this.change({ plan: event.target.value.trim(), dims: null }));
    byId("cutoff").addEventListener("change", (event) => this.change({ cutoff: event.target.checked }));
    byId("column").addEventListener("change", () => this.offerValues());
    byId("add").addEventListener("click", () => this.addFilter());
    byId("value").addEventListener("keydown", (event) => { if (event.key === "Enter") this.addFilter(); });
    byId("item-close").addEventListener("click", () => byId("item").close());
    byId("help").addEventListener("click", () => byId("keys").showModal());
    byId("keys-list").append(...KEYS.flatMap(([key, text]) => [make("dt", {}, make("kbd", {}, key)), make("dd", {}, text)]));
    addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dragging"); });
    addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragging"); });
    addEventListener("drop", (event) => {
      event.preventDefault();
      document.body.classList.remove("dragging");
      this.upload(event.dataTransfer.files[0]);
    });
    addEventListener("paste", (event) => this.upload(event.clipboardData?.files[0]));
    addEventListener("keydown", (event) => this.key(event));
  },

  key(event) {
    if (event.defaultPrevented) return; // a grid or the map has acted
    const typing = event.target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const own = event.target.closest?.("li[data-id]");
    const press = (text) => [...(own?.querySelectorAll(".actions button") ?? [])].find((one) => one.textContent === text)?.click();
    const zoom = (by) => this.state.view === "map" && mapView.key && mapView.zoomAt(by, ...mapView.middle());
    const act = {
      "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4),
      "/": () => byId("words").focus(), p: () => byId("pick").click(), d: () => byId("dims").focus(),
      a: () => byId("auto").click(), "?": () => byId("help").click(),
      o: () => press("open"), m: () => press("−"), c: () => press("copy"),
      j: () => byId("main").querySelector(".picture, .ladder button, canvas")?.focus(),
    }[event.key];
    if (act) act();
    else if (/^[1-5]$/.test(event.key)) this.change({ view: VIEWS[event.key - 1] });
    else return;
    event.preventDefault();
  },
};

app.start();
