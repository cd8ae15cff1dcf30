"use strict";
// The benchmark of this index as tables.

const reportView = {
  async show(main, state, signal) {
    const { tables } = await app.api.report(state.index);
    if (signal.aborted) return;
    if (!tables.length) {
      tell("");
      main.replaceChildren(emptyView(...(app.api.uploads ? [
        "This index has no benchmark yet. Measure it in the folder where the server runs: ",
        make("code", {}, `mrl-search bench INDEX --out bench-${state.index}.jsonl`), ". Then open this view again.",
      ] : ["No benchmark was exported with this page."])));
      return;
    }
    main.replaceChildren(...tables.map((table) => make("section", {},
      make("h2", {}, table.title),
      make("div", { className: "wide", tabIndex: 0, role: "region", "aria-label": table.title }, make("table", {},
        make("thead", {}, make("tr", {}, ...table.columns.map((text) => make("th", { scope: "col" }, text)))),
        make("tbody", {}, ...table.rows.map((row) => make("tr", {}, ...row.map((text) => make("td", {}, text))))))),
      table.note ? make("p", { className: "about" }, table.note) : null)));
    tell("What mrl-search bench measured on this index.");
  },
};
