"use strict";
// The same calls as `Server`, answered from data.js: a page that `mrl-search serve --export` wrote
// opens from a file, and searches by itself. Vectors are kept as bytes, so scores have two digits.

const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

class Exported {
  uploads = false;

  /** @param data {info, items, vectors, maps, duplicates, report}, as web/export.py writes it */
  constructor(data) {
    this.data = data;
    this.dim = data.info.dims.at(-1);
    this.rows = new Int8Array(bytesOf(data.vectors).buffer);
    this.rowOf = new Map(data.items.map((item, row) => [item.id, row]));
    this.norms = new Map();
  }

  async indexes() {
    return [{ name: this.data.info.name, items: this.data.items.length }];
  }

  async info() {
    return this.data.info;
  }

  /** (n,) norms of a prefix of all rows. */
  normsOf(dims) {
    if (!this.norms.has(dims)) {
      const norms = new Float32Array(this.data.items.length);
      for (let row = 0; row < norms.length; row++) {
        let sum = 0;
        for (let d = 0, at = row * this.dim; d < dims; d++, at++) sum += this.rows[at] ** 2;
        norms[row] = Math.sqrt(sum);
      }
      this.norms.set(dims, norms);
    }
    return this.norms.get(dims);
  }

  /** Conditions as functions of an item; they mean what `--where` does: no value meets none, `*` is any text. */
  conditions(where) {
    return where.map((condition) => {
      const [, name, operator, wanted] = /^(.*?)(>=|<=|!=|==?|>|<)(.*)$/s.exec(condition) ?? [];
      const column = this.data.info.columns.find((one) => one.name === name);
      if (!column) throw new Refusal(`The filter ${condition} is not understood.`, "For example label=cat.", 400);
      const period = column.kind === "time" && /^\d{4}(-\d\d){0,2}$/.test(wanted);
      const pattern = column.kind === "text" && wanted.includes("*") && operator.endsWith("=")
        && new RegExp(`^${wanted.split("*").map((text) => text.replace(/[\\^$.|?+()[\]{}]/g, "\\$&")).join(".*")}$`, "s");
      return (item) => {
        let value = { label: item.label, path: item.path, ...item.columns }[name];
        if (value === undefined || value === null) return false;
        if (pattern) return pattern.test(value) === (operator !== "!=");
        if (period) value = value.slice(0, wanted.length);
        const [a, b] = typeof value === "number" ? [value, Number(wanted)] : [String(value), wanted];
        return { "=": a === b, "==": a === b, "!=": a !== b, ">": a > b, "<": a < b, ">=": a >= b, "<=": a <= b }[operator];
      };
    });
  }

  async search(index, request) {
    const start = performance.now();
    const dims = request.dims ?? this.dim;
    const query = new Float32Array(dims);
    const full = this.normsOf(this.dim);
    for (const [sign, terms] of [[1, request.plus], [-1, request.minus]]) {
      for (const term of terms) {
        const row = this.rowOf.get(term.id);
        if (row === undefined) throw new Refusal("An exported page searches for its own pictures alone.", "Click one.", 400);
        for (let d = 0; d < dims; d++) query[d] += sign * this.rows[row * this.dim + d] / full[row];
      }
    }
    const norms = this.normsOf(dims);
    const norm = Math.hypot(...query) || 1;
    const asked = new Set(request.plus.map((term) => term.id));
    const hits = [];
    const conditions = this.conditions(request.where);
    this.data.items.forEach((item, row) => {
      if (asked.has(item.id) || !conditions.every((meets) => meets(item))) return;
      let product = 0;
      for (let d = 0, at = row * this.dim; d < dims; d++, at++) product += query[d] * this.rows[at];
      hits.push({ ...item, score: product / norm / (norms[row] || 1) });
    });
    hits.sort((a, b) => b.score - a.score || a.id - b.id);
    hits.length = Math.min(hits.length, request.k);
    hits.forEach((hit, i) => { hit.rank = i + 1; });
    return { hits, plan: dims === this.dim ? "exact" : String(dims), ms: performance.now() - start };
  }

  async stream(index, request) {
    return this.search(index, request);
  }

  async item(index, id) {
    const item = this.data.items[this.rowOf.get(Number(id))];
    if (!item) throw new Refusal(`There is no item ${id}.`, "", 404);
    return item;
  }

  thumb(index, id) {
    return `thumbs/${id}.jpg`;
  }

  picture(index, id) {
    return `thumbs/${id}.jpg`;
  }

  async map(index, dims, ids = null) {
    if (ids) return { ids, xy: this.principal(ids) };
    return pointsOf(bytesOf(this.data.maps[dims]).buffer, this.data.labels);
  }

  /** Positions of `ids` along the two principal axes of all dims, by power iteration. */
  principal(ids) {
    const rows = ids.map((id) => this.rowOf.get(id));
    const norms = this.normsOf(this.dim);
    const vectors = rows.map((row) => Float32Array.from(
      this.rows.subarray(row * this.dim, (row + 1) * this.dim), (value) => value / (norms[row] || 1)));
    const mean = new Float32Array(this.dim);
    for (const one of vectors) one.forEach((value, d) => { mean[d] += value / vectors.length; });
    for (const one of vectors) mean.forEach((value, d) => { one[d] -= value; });
    const xy = new Float32Array(2 * rows.length);
    for (let axis = 0; axis < 2; axis++) {
      let direction = Float32Array.from(mean, (_, d) => Math.cos(d * (axis + 1)));
      for (let round = 0; round < 12; round++) {
        const next = new Float32Array(this.dim);
        for (const one of vectors) {
          const product = one.reduce((sum, value, d) => sum + value * direction[d], 0);
          one.forEach((value, d) => { next[d] += product * value; });
        }
        const norm = Math.hypot(...next) || 1;
        direction = next.map((value) => value / norm);
      }
      vectors.forEach((one, i) => {
        xy[2 * i + axis] = one.reduce((sum, value, d) => sum + value * direction[d], 0);
        direction.forEach((value, d) => { one[d] -= xy[2 * i + axis] * value; });
      });
    }
    const most = xy.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-9);
    return xy.map((value) => value / most);
  }

  async duplicates(index, level) { // found when the page was exported
    const found = this.data.duplicates[level];
    if (!found) throw new Refusal("These duplicates were not exported.", "Choose changed copies.", 404);
    return found;
  }

  async report() {
    return this.data.report ?? { tables: [] };
  }
}
