"use strict";
// Groups of copies side by side: what is kept and why, and "not a duplicate", which is remembered.

const EVIDENCE = { hash: "same bytes", pixels: "same pixels", look: "same picture", vector: "similar vector" };
const STEPS = { pairs: "comparing", reading: "reading the pictures", "second look": "comparing pictures that may be copies" };

const duplicatesView = {
  async show(main, state, signal) {
    const levels = Object.keys(LEVELS).filter((level) => app.api.uploads ? app.info.pictures || !["copy", "pixels"].includes(level) : level === "copy");
    const level = levels.includes(state.level) ? state.level : levels[0];
    const chosen = make("select", { onchange: () => app.change({ level: chosen.value }) },
      ...levels.map((value) => make("option", { value, selected: value === level }, LEVELS[value])));
    const groups = make("div");
    main.replaceChildren(make("p", {}, make("label", {}, "Show ", chosen)), groups);
    tell(`Looking for duplicates among ${count(app.info.items, "item")} …`);
    const onProgress = ({ what, done, total }) => {
      if (!signal.aborted) tell(`Looking for duplicates: ${STEPS[what] ?? what}, ${number.format(done)} of ${number.format(total)}`);
    };
    let found;
    try {
      found = await app.api.duplicates(state.index, level, onProgress, signal);
    } catch (error) {
      if (!signal.aborted) groups.replaceChildren(emptyView("Duplicates cannot be shown."));
      throw error;
    }
    if (signal.aborted) return;
    groups.replaceChildren(...found.groups.map((group) => this.group(group, state)));
    const copies = found.groups.reduce((sum, group) => sum + group.members.length, 0);
    const chance = level === "similar" ? found.expected : null; // else the second look decides
    tell(found.groups.length
      ? `${count(found.groups.length, "group")}, ${count(copies, "copy", "copies")}`
        + (chance === undefined || chance === null ? "" : ` · about ${byChance(chance)} pairs that are not alike are to be expected`)
      : "No duplicates.");
    if (!found.groups.length) groups.replaceChildren(emptyView(`Nothing here has ${LEVELS[level]}.`));
    else if (!app.info.write && app.api.uploads) {
      groups.prepend(make("p", { className: "about" }, "To say that pictures are no duplicates, start the server with --write."));
    }
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
