"use strict";
// Pictures in a grid: how a hit looks, and what can be done with it.

const CUT = 0.01; // unrelated pictures expected at a score, from which on chance explains a hit

/** A picture of an item; one that cannot be shown leaves its tile empty. Vectors have their name instead. */
function thumb(item, alt, size) {
  if (!app.info.pictures) return make("span", { className: "name-tile" }, alt || nameOf(item));
  const image = make("img", {
    alt, loading: "lazy", decoding: "async", src: app.api.thumb(app.state.index, item.id, size),
  });
  image.addEventListener("error", () => image.classList.add("missing"));
  return image;
}

function action(text, label, onclick) {
  return make("button", { type: "button", onclick, "aria-label": label, title: label }, text);
}

/** What can be done with an item, as buttons. */
function actionsOf(item) {
  const name = nameOf(item);
  const copy = async (event) => {
    const text = item.path ?? name;
    try {
      await navigator.clipboard.writeText(text); // there is none on a page over http from elsewhere
      tell(`Copied: ${text}`);
    } catch {
      tell(`This browser does not allow copying. The path: ${text}`, true);
    }
    event.target.focus();
  };
  return [
    action("+", `Also like ${name}`, () => app.addTerm("plus", { id: item.id })),
    action("−", `Less like ${name}`, () => app.addTerm("minus", { id: item.id })),
    action("open", `Open ${name}`, () => openItem(item)),
    action("copy", item.path ? `Copy the path of ${name}` : `Copy the name of ${name}`, copy),
  ];
}

/** A hit as a list item; clicking the picture searches for more like it. */
function card(hit) {
  const name = nameOf(hit);
  const picture = make("button", {
    className: "picture", type: "button", onclick: () => app.setTerms([{ id: hit.id }]),
  }, thumb(hit, ""));
  const element = make("li", { className: "card" }, picture, make("p", { className: "about" }),
    make("p", { className: "about" }, make("span", { className: "name", title: hit.path ?? name }, name),
      hit.label ? make("span", { className: "label", title: hit.label }, hit.label) : null),
    make("div", { className: "actions" }, ...actionsOf(hit)));
  element.dataset.id = hit.id;
  return element;
}

/** Rank, score and what chance explains, on a card. */
function mark(element, hit) {
  const name = nameOf(hit);
  const [picture, about] = element.children;
  picture.setAttribute("aria-label", `${hit.rank}. ${name}, similarity ${hit.score.toFixed(2)}: show more like this`);
  const told = [make("span", {}, make("span", { className: "rank" }, `${hit.rank} · `), make("b", {}, hit.score.toFixed(3)))];
  if (hit.expected !== undefined) {
    const title = `Expected by chance: ${byChance(hit.expected)} unrelated ${hit.expected === 1 ? "item" : "items"} of this index score as high`;
    told.push(make("span", { className: "by-chance", title }, `chance ${byChance(hit.expected)}`));
  }
  about.replaceChildren(...told);
  element.classList.toggle("chance", hit.expected >= CUT);
  return element;
}

/** The hits as list items, with a grey line where chance begins to explain them; `known` cards stay. */
function cards(hits, lineDrawn = false, known = new Map()) {
  const elements = [];
  for (const hit of hits) {
    if (!lineDrawn && hit.expected >= CUT) {
      lineDrawn = true;
      elements.push(make("li", { className: "cut" }, elements.length
        ? "From here on, chance explains the similarity: unrelated items of this index score as high."
        : "Chance explains the similarity of all of these: unrelated items of this index score as high."));
    }
    elements.push(mark(known.get(String(hit.id)) ?? card(hit), hit));
  }
  return elements;
}

/** A value of a column as people read it. */
function shown(name, value) {
  if (name === "bytes" && typeof value === "number") return byteCount(value);
  return app.info.columns.find((one) => one.name === name)?.kind === "time" ? dateText(value) : String(value);
}

/** The large picture with all that is known of it. */
async function openItem(item) {
  const dialog = byId("item");
  byId("item-title").textContent = nameOf(item);
  const picture = byId("item-picture");
  byId("item-link").hidden = !app.info.pictures;
  picture.removeAttribute("src"); // the one before does not stay in sight
  picture.hidden = false;
  picture.onerror = () => { picture.hidden = true; };
  if (app.info.pictures) picture.src = byId("item-link").href = app.api.picture(app.state.index, item.id);
  picture.alt = `The whole picture ${nameOf(item)}`;
  const [more, less, , copy] = actionsOf(item);
  for (const [button, text] of [[more, "Also like this"], [less, "Less like this"], [copy, item.path ? "Copy the path" : "Copy the name"]]) button.textContent = text;
  const only = action("More like this", `Search for more like ${nameOf(item)}`, () => app.setTerms([{ id: item.id }]));
  for (const button of [only, more, less]) button.addEventListener("click", () => dialog.close());
  byId("item-buttons").replaceChildren(only, more, less, copy);
  byId("item-columns").replaceChildren();
  if (!dialog.open) dialog.showModal();
  try {
    const known = await app.api.item(app.state.index, item.id);
    const pixels = known.width && known.height ? `${number.format(known.width)} × ${number.format(known.height)}` : null;
    const values = { id: known.id, label: known.label, path: known.path, pixels, ...known.columns };
    for (const [name, value] of Object.entries(values)) {
      if (value === null || value === undefined) continue;
      byId("item-columns").append(make("dt", {}, name), make("dd", { title: String(value) }, shown(name, value)));
    }
  } catch (error) {
    tellError(error);
  }
}

/** Arrow keys go from picture to picture, as the eye does. */
function moveInGrid(event, grid) {
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 0, ArrowUp: 0, j: 1, k: -1 }[event.key];
  if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  const pictures = [...grid.querySelectorAll(".picture")];
  const at = pictures.findIndex((one) => one.closest("li").contains(document.activeElement));
  if (at < 0) return;
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const move = { ArrowDown: columns, ArrowUp: -columns }[event.key] ?? step;
  pictures[Math.min(Math.max(at + move, 0), pictures.length - 1)].focus();
  event.preventDefault();
}
