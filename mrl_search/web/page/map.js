"use strict";
// The map: all items by the two principal axes of a prefix. The nearer one looks, the longer the prefix.

const NEAR = 3; // magnification from which on more dims lay the points out
const INSIDE = 9; // and from which on a group is laid out by its own axes, at all dims
const GROUP = 3000; // points of a group at most
const CLOSE = 2; // magnification from which on pictures are shown, and
const FEW = 400; // points in sight that are always shown as pictures
const CELL = 60; // pixels of a cell of the map, which shows one picture
const WHOLE = { x: 0, y: 0, zoom: 0.9 }; // the camera that sees all
const TARGET = 12; // pixels around a point that hit it

/** `xy` turned, scaled and moved so that the points `rows` lie about where they lie in `to`. */
function fitted(xy, to, rows) {
  const mean = (of) => rows.reduce(([x, y], i) => [x + of[2 * i] / rows.length, y + of[2 * i + 1] / rows.length], [0, 0]);
  const [p, q] = [mean(xy), mean(to)];
  let [pp, qq, turn, side, flip, flop] = [0, 0, 0, 0, 0, 0];
  for (const i of rows) {
    const [a, b, c, d] = [xy[2 * i] - p[0], xy[2 * i + 1] - p[1], to[2 * i] - q[0], to[2 * i + 1] - q[1]];
    pp += a * a + b * b;
    qq += c * c + d * d;
    turn += a * c + b * d;
    side += a * d - b * c;
    flip += a * c - b * d;
    flop += a * d + b * c;
  }
  const mirror = Math.hypot(flip, flop) > Math.hypot(turn, side);
  const angle = mirror ? Math.atan2(flop, flip) : Math.atan2(side, turn);
  const scale = pp > 0 && qq > 0 ? Math.sqrt(qq / pp) : 1;
  const [cos, sin] = [scale * Math.cos(angle), scale * Math.sin(angle)];
  const out = new Float32Array(xy.length);
  for (let i = 0; i < xy.length; i += 2) {
    const [a, b] = [xy[i] - p[0], (mirror ? -1 : 1) * (xy[i + 1] - p[1])];
    out[i] = q[0] + cos * a - sin * b;
    out[i + 1] = q[1] + sin * a + cos * b;
  }
  return out;
}

const mapView = {
  async show(main, state, signal) {
    const key = `${state.index} ${app.info.generation}`;
    if (this.key !== key) await this.begin(main, state, signal, key);
    else if (!main.contains(this.frame)) this.put(main);
    if (signal.aborted) return;
    const { x, y, zoom } = state.at ?? WHOLE;
    if (x !== this.camera.x || y !== this.camera.y || zoom !== this.camera.zoom) this.moveCamera({ x, y, zoom });
    await this.light(state, signal);
  },

  put(main) {
    main.replaceChildren(this.frame, this.legend, this.found);
    this.redraw();
  },

  async begin(main, state, signal, key) {
    tell(`Laying out the map of ${count(app.info.items, "item")} …`);
    this.key = null;
    const canvas = make("canvas", {
      tabIndex: 0, role: "application",
      "aria-label": "Map of all items. Arrow keys move, plus and minus zoom, Enter searches for the picture in the middle.",
    });
    this.thumbs = make("div", { className: "thumbs" });
    this.level = make("output", { className: "level" });
    const zoom = (by, label, text) => action(text, label, () => this.zoomAt(by, ...this.middle()));
    this.frame = make("div", { className: "map" }, canvas, this.thumbs,
      make("div", { className: "corner" }, zoom(1.6, "Nearer", "+"), zoom(1 / 1.6, "Farther", "−"),
        action("All", "Show the whole map", () => this.moveCamera(WHOLE)), this.level));
    this.legend = make("ul", { className: "legend", "aria-label": "Colours" });
    this.found = make("ol", { className: "grid map-found", "aria-label": "Most similar to the chosen picture" });
    main.replaceChildren(this.frame, this.legend, this.found);
    this.points = new Points(canvas);
    const { dims } = app.info;
    const nearest = (want) => dims.reduce((a, b) => (Math.abs(b - want) < Math.abs(a - want) ? b : a));
    this.dims = { far: nearest(8), near: nearest(64), inside: dims.at(-1) };
    const data = await app.api.map(state.index, this.dims.far, null, signal);
    if (signal.aborted) return;
    this.key = key;
    this.raw = null;
    this.ids = data.ids;
    this.rowOf = new Map(data.ids.map((id, i) => [id, i]));
    this.layouts = { far: data.xy };
    this.points.set(data.xy, this.colours(data));
    this.camera = { ...(state.at ?? WHOLE) };
    this.lit = this.chosen = [];
    this.shown = "far";
    this.listen(canvas);
    new ResizeObserver(() => this.redraw()).observe(canvas);
    tell(`${count(data.ids.length, "point")}. Drag to move, turn the wheel to zoom, click a point.`);
    this.redraw();
    this.timer = setTimeout(() => this.rest(), 0);
  },

  /** (n, 3) colours by label: the ten most frequent ones have their own. */
  colours(data) {
    const size = new Map();
    for (const label of data.numbers) size.set(label, (size.get(label) ?? 0) + 1);
    size.delete(NOTHING);
    const first = [...size.keys()].toSorted((a, b) => size.get(b) - size.get(a)).slice(0, COLOURS.length);
    const several = first.length > 1;
    const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255);
    const palette = new Map(several ? first.map((label, i) => [label, rgb(COLOURS[i])]) : []);
    const plain = rgb(several ? "#8f8f8f" : COLOURS[0]);
    const colours = new Float32Array(3 * data.numbers.length);
    data.numbers.forEach((label, i) => colours.set(palette.get(label) ?? plain, 3 * i));
    this.legend.replaceChildren(...(several ? first : []).map((label, i) => {
      const dot = make("i");
      dot.style.background = COLOURS[i];
      return make("li", {}, dot, data.labels[label] ?? "");
    }));
    return colours;
  },

  redraw(moving = false) {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame((at) => {
      this.waiting = false;
      this.points.draw(this.camera, moving);
      this.placeThumbs();
      if (moving) requestAnimationFrame((next) => this.points.pace(next - at));
    });
  },

  moveCamera(camera) {
    Object.assign(this.camera, camera);
    this.camera.zoom = Math.min(Math.max(this.camera.zoom, 0.3), 400);
    this.redraw(true);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.rest(), 160);
  },

  /** Position on the canvas, in pixels, of a point of the map; and back. */
  toScreen(x, y) {
    const { clientWidth: w, clientHeight: h } = this.points.canvas;
    const half = this.camera.zoom * Math.min(w, h) / 2;
    return [w / 2 + (x - this.camera.x) * half, h / 2 - (y - this.camera.y) * half];
  },
  toMap(px, py) {
    const { clientWidth: w, clientHeight: h } = this.points.canvas;
    const half = this.camera.zoom * Math.min(w, h) / 2;
    return [this.camera.x + (px - w / 2) / half, this.camera.y - (py - h / 2) / half];
  },

  zoomAt(by, px = this.points.canvas.clientWidth / 2, py = this.points.canvas.clientHeight / 2) {
    const [x, y] = this.toMap(px, py);
    const zoom = Math.min(Math.max(this.camera.zoom * by, 0.3), 400);
    const keep = this.camera.zoom / zoom;
    this.moveCamera({ zoom, x: x + (this.camera.x - x) * keep, y: y + (this.camera.y - y) * keep });
  },

  /** What buttons zoom at: the chosen item, if it is in sight, else the middle. */
  middle() {
    const { clientWidth: w, clientHeight: h } = this.points.canvas;
    const [x, y] = this.chosen.length ? this.toScreen(...this.points.at(this.chosen[0])) : [-1, -1];
    return x > 0 && x < w && y > 0 && y < h ? [x, y] : [w / 2, h / 2];
  },

  /** Rows of the points in sight. */
  visible() {
    const xy = this.points.now();
    const { clientWidth: w, clientHeight: h } = this.points.canvas;
    const [[left, top], [right, bottom]] = [this.toMap(0, 0), this.toMap(w, h)];
    const rows = [];
    for (let i = 0; i < this.points.n; i++) {
      if (xy[2 * i] >= left && xy[2 * i] <= right && xy[2 * i + 1] >= bottom && xy[2 * i + 1] <= top) rows.push(i);
    }
    return rows;
  },

  /** The row of the point nearest to a place of the map, no farther than `reach`; -1: none. */
  nearest(x, y, reach = Infinity) {
    const xy = this.points.now();
    let [best, least] = [-1, reach ** 2];
    for (let i = 0; i < this.points.n; i++) {
      const far = (xy[2 * i] - x) ** 2 + (xy[2 * i + 1] - y) ** 2;
      if (far < least) {
        best = i;
        least = far;
      }
    }
    return best;
  },

  /** Write into the address where the map is looked at. */
  remember() {
    const whole = Object.keys(WHOLE).every((name) => this.camera[name] === WHOLE[name]);
    app.note({ at: whole ? null : { ...this.camera } });
  },

  /** The camera has come to rest: choose the prefix that fits, and show pictures if there is room. */
  async rest() {
    if (!this.points.canvas.isConnected) return; // another view is shown
    this.remember();
    const rows = this.visible();
    const { zoom } = this.camera;
    let want = zoom < NEAR ? "far" : "near";
    if (zoom >= INSIDE && rows.length > 2 && rows.length <= GROUP) want = "inside";
    if (zoom >= INSIDE && this.shown === "inside") want = "inside";
    if (want !== this.shown && !this.changing) {
      this.changing = true;
      try {
        await this.change(want, rows);
      } catch (error) {
        tellError(error);
      }
      this.changing = false;
    }
    const dims = { far: this.dims.far, near: this.dims.near, inside: this.dims.inside }[this.shown];
    const group = this.shown === "inside" ? `, this group of ${number.format(this.group.length)} alone` : "";
    this.level.textContent = `${dims} dims${group}`;
    this.redraw();
    this.thumbRows = app.info.pictures ? this.spread(this.visible()) : [];
    this.placeThumbs(true);
  },

  /** Of some rows, those whose pictures have room: one a cell, what is lit first; none from afar. */
  spread(rows) {
    if (this.camera.zoom < CLOSE && rows.length > FEW) return [];
    const taken = new Map();
    const xy = this.points.now();
    for (const row of rows) {
      const cell = this.toScreen(xy[2 * row], xy[2 * row + 1]).map((at) => Math.floor(at / CELL)).join();
      const weight = this.points.weight[row];
      if (weight >= 1 && weight > (this.points.weight[taken.get(cell)] ?? 0)) taken.set(cell, row);
    }
    return [...taken.values()];
  },

  async change(want, rows) {
    const now = this.points.now();
    const { index } = app.state;
    let xy = this.layouts.far;
    if (want === "near") {
      if (this.shown === "far" || !this.layouts.near) {
        this.raw ??= (await app.api.map(index, this.dims.near)).xy;
        this.layouts.near = fitted(this.raw, now, rows.length > 2 ? rows : this.ids.map((_, i) => i));
      }
      xy = this.layouts.near;
    } else if (want === "inside") {
      const own = await app.api.map(index, this.dims.inside, rows.map((i) => this.ids[i]));
      const places = own.ids.map((id) => this.rowOf.get(id));
      const spread = new Float32Array(now.length);
      places.forEach((row, i) => spread.set(own.xy.subarray(2 * i, 2 * i + 2), 2 * row));
      const moved = fitted(spread, now, places);
      xy = now.slice();
      for (const row of places) xy.set(moved.subarray(2 * row, 2 * row + 2), 2 * row);
      this.group = places;
    }
    this.shown = want;
    this.weigh();
    await this.morph(xy);
  },

  /** Let the points run to other places. */
  morph(xy) {
    this.points.moveTo(xy);
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const start = performance.now();
    return new Promise((done) => {
      const step = (at) => {
        const part = still ? 1 : Math.min(1, (at - start) / 450);
        this.points.t = part * part * (3 - 2 * part);
        this.points.draw(this.camera, part < 1);
        this.placeThumbs();
        if (part < 1) requestAnimationFrame(step);
        else done();
      };
      requestAnimationFrame(step);
    });
  },

  /** Ringed: the chosen item and its neighbours. Faint: what is outside of the group. */
  weigh() {
    const weight = new Float32Array(this.points.n).fill(this.shown === "inside" ? 0.15 : 1);
    if (this.shown === "inside") for (const row of this.group) weight[row] = 1;
    for (const row of this.lit) weight[row] = 2;
    for (const row of this.chosen) weight[row] = 3;
    this.points.upload("weight", weight);
    this.redraw();
  },

  placeThumbs(renew = false) {
    if (renew) {
      const known = new Map([...this.thumbs.children].map((image) => [image.dataset.row, image]));
      this.thumbs.replaceChildren(...(this.thumbRows ?? []).map((row) => {
        let image = known.get(String(row));
        if (!image) {
          image = thumb({ id: this.ids[row] }, "", 64);
          image.addEventListener("load", () => image.classList.add("loaded"));
        }
        image.dataset.row = row;
        image.classList.toggle("lit", this.points.weight[row] > 1.5);
        image.classList.toggle("chosen", this.points.weight[row] > 2.5);
        return image;
      }));
    }
    for (const image of this.thumbs.children) {
      const [x, y] = this.toScreen(...this.points.at(Number(image.dataset.row)));
      image.style.transform = `translate(${x}px, ${y}px)`;
    }
  },

  /** Search with the chosen item; its neighbours light up and stand below. */
  async light(state, signal) {
    this.lit = this.chosen = [];
    this.found.replaceChildren();
    if (state.plus.length || state.minus.length) {
      const answer = await app.api.search(state.index, requestOf(state, { k: mostOf(state, 20) }), signal);
      if (signal.aborted) return;
      const rows = (ids) => ids.map((id) => this.rowOf.get(id)).filter((row) => row !== undefined);
      this.chosen = rows(state.plus.map((term) => term.id));
      this.lit = rows(answer.hits.map((hit) => hit.id));
      this.found.replaceChildren(...cards(answer.hits));
      tell(`${count(answer.hits.length, "neighbour")} in ${time(answer.ms)}`);
    }
    this.weigh();
    this.placeThumbs(true);
  },

  /** Search with the point at a place of the canvas, if there is one. */
  pick(px, py) {
    const [x, y] = this.toMap(px, py);
    this.choose(this.nearest(x, y, this.toMap(px + TARGET, py)[0] - x));
  },

  choose(row) {
    this.remember();
    if (row >= 0) app.setTerms([{ id: this.ids[row] }], true);
  },

  listen(canvas) {
    const down = new Map();
    let moved = 0;
    const local = (event) => {
      const frame = canvas.getBoundingClientRect();
      return [event.clientX - frame.left, event.clientY - frame.top];
    };
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomAt(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...local(event));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      down.set(event.pointerId, local(event));
      if (down.size === 1) moved = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = down.get(event.pointerId);
      if (!before) return;
      const at = local(event);
      moved += Math.hypot(at[0] - before[0], at[1] - before[1]);
      if (down.size === 2) {
        const [other] = [...down].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
        const ratio = Math.hypot(at[0] - other[0], at[1] - other[1]) / Math.hypot(before[0] - other[0], before[1] - other[1]);
        this.zoomAt(ratio || 1, (at[0] + other[0]) / 2, (at[1] + other[1]) / 2);
      } else {
        const [a, b] = [this.toMap(...before), this.toMap(...at)];
        this.moveCamera({ x: this.camera.x + a[0] - b[0], y: this.camera.y + a[1] - b[1] });
      }
      down.set(event.pointerId, at);
    });
    const up = (event) => {
      if (down.delete(event.pointerId) && !down.size && moved < 5 && event.type === "pointerup") this.pick(...local(event));
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("keydown", (event) => {
      const step = 0.15 / this.camera.zoom;
      const move = {
        ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step],
      }[event.key];
      if (move) this.moveCamera({ x: this.camera.x + move[0], y: this.camera.y + move[1] });
      else if (event.key === "+" || event.key === "=") this.zoomAt(1.4);
      else if (event.key === "-") this.zoomAt(1 / 1.4);
      else if (event.key === "Enter") this.choose(this.nearest(this.camera.x, this.camera.y));
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
  },
};
