"use strict";
// Groups of copies side by side: what is kept and why, and "not a duplicate", which is remembered.

const LEVELS = {
  exact: "the same bytes", pixels: "the same pixels", copy: "changed copies", similar: "similar pictures",
};

const EVIDENCE = { hash: "same bytes", pixels: "same pixels", look: "same picture", vector: "similar vector" };

const duplicatesView = {
  level: "copy",

  async show(main, state, signal) {
    const chosen = make("select", { onchange: () => { this.level = chosen.value; app.show(); } },
      ...Object.entries(LEVELS).map(([value, text]) => make("option", { value, selected: value === this.level }, text)));
    const groups = make("div");
    main.replaceChildren(make("p", {}, make("label", {}, "Show ", chosen)), groups);
    tell("Looking for duplicates …");
    const found = await app.api.duplicates(state.index, this.level, signal);
    if (signal.aborted) return;
    groups.replaceChildren(...found.groups.map((group) => this.group(group, state)));
    const copies = found.groups.reduce((sum, group) => sum + group.members.length, 0);
    const chance = found.expected;
    tell(found.groups.length
      ? `${count(found.groups.length, "group")}, ${count(copies, "copy", "copies")}`
        + (chance === undefined || chance === null ? "" : ` · by vectors alone, about ${byChance(chance)} false pairs were to be expected; the second look sorts them out`)
      : "No duplicates.");
  },

  group(group, state) {
    const list = make("ul", { className: "grid" }, this.member(group.keep, `kept: ${group.keep.why}`, true));
    for (const member of group.members) {
      const element = this.member(member, `${EVIDENCE[member.evidence] ?? ""}, cosine ${member.score.toFixed(3)}`, false);
      if (app.info.write) {
        element.append(make("button", {
          type: "button", onclick: () => this.decide(state, group, member, element),
          "aria-label": `${nameOf(member)} is not a duplicate of ${nameOf(group.keep)}`,
        }, "Not a duplicate"));
      }
      list.append(element);
    }
    return make("section", { className: "group", "aria-label": `Copies of ${nameOf(group.keep)}` }, list);
  },

  member(item, text, kept) {
    return make("li", { className: kept ? "card kept" : "card" },
      make("button", {
        className: "picture", type: "button", onclick: () => openItem(item), "aria-label": `Open ${nameOf(item)}`,
      }, thumb(item, "", 320)),
      make("p", { className: "about tag" }, text),
      make("p", { className: "about name", title: item.path ?? "" }, item.path ?? nameOf(item)));
  },

  async decide(state, group, member, element) {
    try {
      await app.api.notDuplicate(state.index, [group.keep.id, member.id]);
    } catch (error) {
      return tellError(error);
    }
    const section = element.closest(".group");
    element.remove();
    if (section.querySelectorAll("li").length < 2) section.remove();
    tell(`Remembered: ${nameOf(member)} is not a duplicate of ${nameOf(group.keep)}.`);
  },
};
