"use strict";
// Many points on a canvas, by WebGL 2 or, where there is none, by plain 2D drawing.

const NOTHING = 65535; // number of no label
const MANY = 50000; // points that are drawn while the map moves; all when it rests

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
uniform float t; uniform vec2 centre; uniform vec2 scale; uniform float size; uniform bool litOnly;
out vec4 ink; out float ring;
void main() {
  bool lit = weight > 1.5;
  gl_Position = litOnly && !lit ? vec4(9.0) : vec4((mix(start, end, t) - centre) * scale, 0.0, 1.0);
  gl_PointSize = lit ? size * 2.0 + 4.0 : size;
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
    this.uniform = (name) => gl.getUniformLocation(this.program, name);
  }

  upload(name, values) {
    this[name] = values;
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
    if (this.gl && this.n > MANY) this.shuffle();
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

  /** @param moving whether it is drawn again soon: of very many points, some are enough then */
  draw(camera, moving = false) {
    if (!this.canvas.isConnected) return; // another view is shown
    const ratio = devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.canvas;
    const [width, height] = [Math.round(clientWidth * ratio), Math.round(clientHeight * ratio)];
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    const size = Math.min(14, 2.2 + 1.2 * Math.log2(1 + camera.zoom) + 120 / Math.sqrt(this.n + 100)) * ratio;
    if (this.gl) this.drawFast(camera, size, moving);
    else this.drawFlat(camera, size);
  }

  drawFast(camera, size, moving) {
    const gl = this.gl;
    const short = Math.min(this.canvas.width, this.canvas.height);
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform1f(this.uniform("t"), this.t);
    gl.uniform2f(this.uniform("centre"), camera.x, camera.y);
    gl.uniform2f(this.uniform("scale"), camera.zoom * short / this.canvas.width, camera.zoom * short / this.canvas.height);
    gl.uniform1f(this.uniform("size"), size);
    const text = getComputedStyle(this.canvas).color.match(/[\d.]+/g).slice(0, 3).map((value) => value / 255);
    gl.uniform3f(this.uniform("around"), ...text);
    for (const litOnly of [0, 1]) {
      gl.uniform1i(this.uniform("litOnly"), litOnly);
      if (this.n > MANY) gl.drawElements(gl.POINTS, moving ? MANY : this.n, gl.UNSIGNED_INT, 0);
      else gl.drawArrays(gl.POINTS, 0, this.n);
    }
  }

  drawFlat(camera, size) {
    const { width, height } = this.canvas;
    const half = camera.zoom * Math.min(width, height) / 2;
    const xy = this.now();
    this.flat.clearRect(0, 0, width, height);
    for (let i = 0; i < this.n; i++) {
      const side = this.weight[i] > 1.5 ? 2 * size : size;
      const x = width / 2 + (xy[2 * i] - camera.x) * half - side / 2;
      const y = height / 2 - (xy[2 * i + 1] - camera.y) * half - side / 2;
      if (x < -side || y < -side || x > width || y > height) continue;
      const [r, g, b] = this.colour.subarray(3 * i, 3 * i + 3);
      this.flat.fillStyle = `rgb(${255 * r} ${255 * g} ${255 * b} / ${Math.min(1, this.weight[i])})`;
      this.flat.fillRect(x, y, side, side);
    }
  }
}
