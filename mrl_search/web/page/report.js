"use strict";
// The benchmark of this index as tables.

const reportView = {
  async show(main, state, signal) {
    const { tables } = await app.api.report(state.index);
    if (signal.aborted) return;
    main.replaceChildren(...tables.map((table) => make("section", {},
      make("h2", {}, table.title),
      make("div", { className: "wide", tabIndex: 0, role: "region", "aria-label": table.title }, make("table", {},
        make("thead", {}, make("tr", {}, ...table.columns.map((text) => make("th", { scope: "col" }, text)))),
        make("tbody", {}, ...table.rows.map((row) => make("tr", {}, ...row.map((text) => make("td", {}, text))))))))));
    tell("What mrl-search bench measured on this index.");
  },
};
