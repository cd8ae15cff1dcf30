"use strict";
// Small means of making and finding elements.

const byId = (id) => document.getElementById(id);

/** An element: properties, `on…` listeners and attributes with a dash or `role`; then its children. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

function makeSvg(tag, attributes = {}) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** Ten colours that are told apart on light and dark ground, by people with any colour vision too. */
const COLOURS = [
  "#3b8fd0", "#d9792b", "#2f9e77", "#c65ba5", "#b3a125",
  "#7b6fd6", "#d4504f", "#5aa7a7", "#8f8f8f", "#a5743f",
];

const number = new Intl.NumberFormat("en-US");
const count = (n, one, many = `${one}s`) => `${number.format(n)} ${n === 1 ? one : many}`;
const time = (ms) => (ms < 10 ? `${ms.toFixed(2)} ms` : ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(1)} s`);

/** A number of bytes with two digits, such as 2.1 MB. */
function byteCount(n) {
  const [unit, size] = [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]].find(([, least]) => n >= least) ?? ["bytes", 1];
  return `${number.format(size === 1 ? n : Number((n / size).toPrecision(2)))} ${unit}`;
}

/** A date, or a time as ISO 8601 writes it: by its own clock, or by that of the reader where it names a zone. */
function dateText(text) {
  const plain = /^\d{4}-\d\d-\d\d$/.test(text);
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return text;
  return at.toLocaleString("en-GB", plain ? { dateStyle: "long", timeZone: "UTC" } : { dateStyle: "long", timeStyle: "short" });
}

/** How many unrelated pictures would score as high, shortly. */
function byChance(expected) {
  if (expected < 0.001) return "<0.001";
  return expected < 1 ? expected.toPrecision(1) : number.format(Math.round(expected));
}

/** A name for an item: the last part of its path. */
const nameOf = (item) => (item.path ? item.path.split(/[/\\]/).pop() : item.name) || `item ${item.id}`;

/** Told in the line above the results; screen readers say it. */
function tell(text, isError = false) {
  const line = byId("status");
  line.textContent = text;
  line.classList.toggle("error", isError);
}

/** An error of the server or the network, as `message. hint`; `again` is offered where nothing answered. */
function tellError(error, again) {
  if (error.name === "AbortError") return;
  tell([error.message, error.hint].filter(Boolean).join(" "), true);
  if (again && error.status === 0) byId("status").append(" ", make("button", { type: "button", onclick: again }, "Try again"));
}

/** A view that has nothing to show says why. */
const emptyView = (...text) => make("p", { className: "empty" }, ...text);
