"use strict";
// Many points on a canvas, by WebGL 2 or, where there is none, by plain 2D drawing.

const NOTHING = 65535; // number of no label
const [FEWEST, MANY] = [2000, 50000]; // points drawn while the map moves, as the machine manages; all when it rests
const FRAME = 18; // ms that a frame may take

/** The points of `GET …/map`: n and generation, ids, positions, numbers of labels. */
function pointsOf(buffer, labels) {
  const [n] = new Uint32Array(buffer, 0, 2);
  return {
    ids: Array.from(new BigInt64Array(buffer, 8, n), Number),
    xy: new Float32Array(buffer, 8 + 8 * n, 2 * n),
    numbers: new Uint16Array(buffer, 8 + 16 * n, n),
    labels,
  };
}

const VERTEX = `#version 300 es
in vec2 start; in vec2 end; in vec3 colour; in float weight;
uniform float t; uniform vec2 centre; uniform vec2 scale; uniform float size;
out vec4 ink; out float ring;
void main() {
  bool lit = weight > 1.5;
  gl_Position = vec4((mix(start, end, t) - centre) * scale, 0.0, 1.0);
  gl_PointSize = lit ? size * weight + 4.0 : size;
  ink = vec4(colour, lit ? 1.0 : weight * 0.75);
  ring = lit ? 1.0 : 0.0;
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
in vec4 ink; in float ring; out vec4 pixel;
uniform vec3 around;
void main() {
  float far = distance(gl_PointCoord, vec2(0.5));
  vec3 colour = mix(ink.rgb, around, ring * smoothstep(0.26, 0.34, far));
  pixel = vec4(colour, 1.0) * ink.a * (1.0 - smoothstep(0.38, 0.5, far));
}`;

class Points {
  /** @param canvas an element whose size is that of the map */
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl2", { antialias: false, preserveDrawingBuffer: true });
    if (this.gl) this.compile();
    else this.flat = canvas.getContext("2d");
    this.n = 0;
    this.ringed = [];
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault()); // it comes back
    canvas.addEventListener("webglcontextrestored", () => this.restore());
  }

  /** The graphics card was reset, or slept: tell it everything again. */
  restore() {
    this.compile();
    for (const name of Object.keys(this.buffers)) if (this[name]) this.upload(name, this[name]);
    this.shuffle();
    this.draw(this.camera);
  }

  compile() {
    const gl = this.gl;
    this.program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(this.program, shader);
    }
    gl.linkProgram(this.program);
    if (!gl.getProgramParameter(this.program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(this.program));
    gl.useProgram(this.program);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.buffers = {};
    for (const [name, width] of [["start", 2], ["end", 2], ["colour", 3], ["weight", 1]]) {
      const place = gl.getAttribLocation(this.program, name);
      this.buffers[name] = gl.createBuffer();
      gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[name]);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, width, gl.FLOAT, false, 0, 0);
    }
    const places = ["t", "centre", "scale", "size", "around"].map((name) => [name, gl.getUniformLocation(this.program, name)]);
    this.uniforms = Object.fromEntries(places);
  }

  upload(name, values) {
    this[name] = values;
    if (name === "weight") this.ringed = values.reduce((rows, weight, row) => { if (weight > 1.5) rows.push(row); return rows; }, []);
    if (!this.gl) return;
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, this.buffers[name]);
    this.gl.bufferData(this.gl.ARRAY_BUFFER, values, this.gl.DYNAMIC_DRAW);
  }

  /** @param xy (n, 2) positions; @param colours (n, 3) from 0 to 1 */
  set(xy, colours) {
    this.n = xy.length / 2;
    this.upload("start", xy);
    this.upload("end", xy);
    this.upload("colour", colours);
    this.upload("weight", new Float32Array(this.n).fill(1));
    this.t = 1;
    this.most = Math.min(this.n, MANY);
    if (this.gl) this.shuffle();
    if (this.flat) this.css = this.names(colours);
  }

  /** (n,) colours as CSS; the same colour is the same text. */
  names(colours) {
    const known = new Map();
    return Array.from({ length: this.n }, (_, i) => {
      const rgb = [...colours.subarray(3 * i, 3 * i + 3)].map((value) => Math.round(255 * value)).join(" ");
      if (!known.has(rgb)) known.set(rgb, `rgb(${rgb})`);
      return known.get(rgb);
    });
  }

  /** An order in which the first points are any of them. */
  shuffle() {
    const order = Uint32Array.from({ length: this.n }, (_, i) => i);
    for (let i = this.n - 1; i > 0; i--) {
      const j = Math.floor(Math.random() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    this.gl.bindBuffer(this.gl.ELEMENT_ARRAY_BUFFER, this.gl.createBuffer());
    this.gl.bufferData(this.gl.ELEMENT_ARRAY_BUFFER, order, this.gl.STATIC_DRAW);
  }

  /** Begin to move to other positions; `t` goes from 0 to 1 then. */
  moveTo(xy) {
    this.upload("start", this.now());
    this.upload("end", xy);
    this.t = 0;
  }

  /** Where the points are at this moment. */
  now() {
    if (this.t >= 1) return this.end;
    const xy = new Float32Array(2 * this.n);
    for (let i = 0; i < xy.length; i++) xy[i] = this.start[i] + (this.end[i] - this.start[i]) * this.t;
    return xy;
  }

  /** Where one point is at this moment. */
  at(row) {
    return [2 * row, 2 * row + 1].map((i) => this.start[i] + (this.end[i] - this.start[i]) * this.t);
  }

  /** Draw fewer points while the map moves if a frame took too long, else a few more. */
  pace(ms) {
    this.most = Math.min(Math.max(this.most * (ms > FRAME ? 0.75 : 1.05), FEWEST), this.n, MANY);
  }

  /** @param moving whether it is drawn again soon: some of the points are enough then */
  draw(camera, moving = false) {
    this.camera = camera;
    if (!this.canvas.isConnected) return; // another view is shown
    const ratio = devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.canvas;
    const [width, height] = [Math.round(clientWidth * ratio), Math.round(clientHeight * ratio)];
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    const size = Math.min(14, 2.2 + 1.2 * Math.log2(1 + camera.zoom) + 120 / Math.sqrt(this.n + 100)) * ratio;
    if (this.gl) this.drawFast(camera, size, moving);
    else this.drawFlat(camera, size, ratio, moving);
  }

  drawFast(camera, size, moving) {
    const gl = this.gl;
    const short = Math.min(this.canvas.width, this.canvas.height);
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform1f(this.uniforms.t, this.t);
    gl.uniform2f(this.uniforms.centre, camera.x, camera.y);
    gl.uniform2f(this.uniforms.scale, camera.zoom * short / this.canvas.width, camera.zoom * short / this.canvas.height);
    gl.uniform1f(this.uniforms.size, size);
    const text = getComputedStyle(this.canvas).color.match(/[\d.]+/g).slice(0, 3).map((value) => value / 255);
    gl.uniform3f(this.uniforms.around, ...text);
    if (moving) gl.drawElements(gl.POINTS, this.most, gl.UNSIGNED_INT, 0);
    else gl.drawArrays(gl.POINTS, 0, this.n);
    for (const row of this.ringed) gl.drawArrays(gl.POINTS, row, 1); // above all others
  }

  drawFlat(camera, size, ratio, moving) {
    const { width, height } = this.canvas;
    const half = camera.zoom * Math.min(width, height) / 2;
    const { flat, weight, css, n } = this;
    const xy = this.now();
    const x = (i) => width / 2 + (xy[2 * i] - camera.x) * half;
    const y = (i) => height / 2 - (xy[2 * i + 1] - camera.y) * half;
    flat.clearRect(0, 0, width, height);
    const every = moving ? Math.ceil(n / this.most) : 1;
    let [style, alpha] = ["", 0];
    for (let i = 0; i < n; i += every) {
      const [left, top] = [x(i) - size / 2, y(i) - size / 2];
      if (left < -size || top < -size || left > width || top > height) continue;
      if (css[i] !== style) flat.fillStyle = style = css[i];
      if (weight[i] !== alpha) flat.globalAlpha = 0.75 * Math.min(1, alpha = weight[i]);
      flat.fillRect(left, top, size, size);
    }
    flat.globalAlpha = 1;
    flat.strokeStyle = getComputedStyle(this.canvas).color;
    for (const i of this.ringed) {
      flat.fillStyle = css[i];
      flat.lineWidth = weight[i] * ratio;
      flat.beginPath();
      flat.arc(x(i), y(i), size * weight[i] / 2, 0, 7);
      flat.fill();
      flat.stroke();
    }
  }
}
