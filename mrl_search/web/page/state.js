"use strict";
// What is shown: one value, all of it in the address, so that a search is a link.

const VIEWS = ["search", "ladder", "map", "duplicates", "report"];
const LEVELS = {
  copy: "changed copies", pixels: "the same pixels", exact: "the same bytes", similar: "similar pictures",
};

/**
 * @property {string} index name of the index
 * @property {string} view one of VIEWS
 * @property {object[]} plus what is searched for: {id}, {query_id} or {text}, with a `weight` perhaps
 * @property {object[]} minus the same: what hits shall not look like
 * @property {number|null} dims one prefix; null: the plan
 * @property {string} plan "" is automatic
 * @property {string[]} where conditions on columns
 * @property {boolean} cutoff whether hits that chance explains are hidden
 * @property {string} level one of LEVELS: which duplicates are shown
 * @property {{x: number, y: number, zoom: number}|null} at where the map is looked at; null: all of it
 */
const EMPTY = {
  index: "", view: "search", plus: [], minus: [], dims: null, plan: "", where: [], cutoff: false, level: "copy", at: null,
};

const termText = (term) => {
  if ("id" in term) return `id:${term.id}`;
  if ("query_id" in term) return `picture:${term.query_id}`;
  return `text:${term.text}`;
};

function termOf(text) {
  const [kind, ...rest] = text.split(":");
  const value = rest.join(":");
  if (kind === "id" && /^\d+$/.test(value)) return { id: Number(value) };
  if (kind === "picture" && value) return { query_id: value };
  if (kind === "text" && value) return { text: value };
  return null;
}

/** A place on the map from `X,Y,ZOOM`. */
function placeOf(text) {
  const [x, y, zoom, ...rest] = text.split(",").map(Number);
  return [x, y, zoom].every(Number.isFinite) && zoom > 0 && !rest.length ? { x, y, zoom } : null;
}

function readState(hash) {
  const values = new URLSearchParams(hash.replace(/^#/, ""));
  const terms = (name) => values.getAll(name).map(termOf).filter(Boolean);
  const view = values.get("view");
  return {
    index: values.get("index") ?? "",
    view: VIEWS.includes(view) ? view : "search",
    plus: terms("plus"),
    minus: terms("minus"),
    dims: /^\d+$/.test(values.get("dims") ?? "") ? Number(values.get("dims")) : null,
    plan: values.get("plan") ?? "",
    where: values.getAll("where"),
    cutoff: values.get("cutoff") === "auto",
    level: Object.hasOwn(LEVELS, values.get("level") ?? "") ? values.get("level") : EMPTY.level,
    at: placeOf(values.get("at") ?? ""),
  };
}

function writeState(state) {
  const values = new URLSearchParams();
  if (state.index) values.set("index", state.index);
  if (state.view !== "search") values.set("view", state.view);
  for (const term of state.plus) values.append("plus", termText(term));
  for (const term of state.minus) values.append("minus", termText(term));
  if (state.dims) values.set("dims", state.dims);
  if (state.plan) values.set("plan", state.plan);
  for (const condition of state.where) values.append("where", condition);
  if (state.cutoff) values.set("cutoff", "auto");
  if (state.level !== EMPTY.level) values.set("level", state.level);
  if (state.at) values.set("at", [state.at.x, state.at.y, state.at.zoom].map((value) => Number(value.toPrecision(6))).join());
  return `#${values}`;
}

/** The part of a state that the API takes. */
function requestOf(state, more = {}) {
  const request = { plus: state.plus, minus: state.minus, where: state.where, ...more };
  if (state.dims) request.dims = state.dims;
  else if (state.plan) request.plan = state.plan;
  if (state.cutoff) request.cutoff = "auto";
  return request;
}

/** How many hits a state can have: no more than the shortest shortlist of its plan. */
function mostOf(state, wanted) {
  const shortlists = state.dims ? [] : [...state.plan.matchAll(/:(\d+)/g)].map(([, keep]) => Number(keep));
  return Math.max(1, Math.min(wanted, ...shortlists));
}
