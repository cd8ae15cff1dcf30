"use strict";
// The server, as the rest of the page sees it. `Exported` (exported.js) answers the same calls from data.

class Refusal extends Error {
  /** @param status that of the answer; 0: there was none */
  constructor(message, hint, status = 0) {
    super(message);
    Object.assign(this, { hint, status });
  }
}

class Server {
  uploads = true;

  constructor(base = "api/indexes") {
    this.base = base;
  }

  url(index, ...rest) {
    return [this.base, encodeURIComponent(index), ...rest].join("/");
  }

  /** The answer to a request, or a `Refusal` with the server's own words. */
  async fetch(url, options = {}) {
    let response;
    try {
      response = await fetch(url, { credentials: "same-origin", ...options });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refusal("The server does not answer.", "Is mrl-search serve still running?");
    }
    if (response.ok) return response;
    const said = await response.json().catch(() => ({}));
    throw new Refusal(said.error ?? `The server answered ${response.status}.`, said.hint, response.status);
  }

  async json(url, options) {
    return (await this.fetch(url, options)).json();
  }

  post(url, body, signal) {
    if (body instanceof FormData) return this.fetch(url, { method: "POST", body, signal });
    const headers = { "Content-Type": "application/json" };
    return this.fetch(url, { method: "POST", headers, body: JSON.stringify(body), signal });
  }

  indexes() {
    return this.json(this.base);
  }

  info(index) {
    return this.json(this.url(index));
  }

  async search(index, request, signal) {
    return (await this.post(this.url(index, "search"), request, signal)).json();
  }

  /** Search with a picture of the user's own; the answer has a `query_id` to search with again. */
  async upload(index, file, request) {
    const form = new FormData();
    form.append("image", file);
    for (const [name, value] of Object.entries(request)) {
      for (const one of [value].flat()) form.append(name, one);
    }
    return (await this.post(this.url(index, "search"), form)).json();
  }

  /** Search; `onStage` sees the hits of every stage as it ends. Returns the answer. */
  async stream(index, request, onStage, signal) {
    return this.answer(await this.post(this.url(index, "search", "stream"), request, signal), onStage);
  }

  /** The answer at the end of server-sent events; `onEvent` sees the data of those before. */
  async answer(response, onEvent) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    let answer = null;
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const events = (rest + value).split(/\r?\n\r?\n/);
      rest = events.pop();
      for (const event of events) {
        const kind = /^event: *(.*)$/m.exec(event)?.[1];
        const data = JSON.parse(/^data: *(.*)$/m.exec(event)?.[1] ?? "null");
        if (kind === "error") throw new Refusal(data.error, data.hint, 400);
        if (kind === "answer") answer = data;
        else onEvent(data);
      }
    }
    if (!answer) throw new Refusal("The server stopped in the middle of an answer.", "Try it again.");
    return answer;
  }

  item(index, id) {
    return this.json(this.url(index, "items", id));
  }

  thumb(index, id, size = 192) {
    return `${this.url(index, "thumbs", id)}?size=${size}`;
  }

  picture(index, id) {
    return this.url(index, "pictures", id);
  }

  /** Points of all items, or of `ids`: {ids, xy, labels, names}, xy from -1 to 1. */
  async map(index, dims, ids = null, signal = undefined) {
    const url = this.url(index, "map");
    const response = ids
      ? await this.post(url, { dims, ids: [...ids] }, signal)
      : await this.fetch(`${url}?dims=${dims}`, { signal });
    const data = await response.arrayBuffer();
    return pointsOf(data, JSON.parse(response.headers.get("X-Labels") ?? "[]"));
  }

  /** Groups of copies; `onProgress` sees {what, done, total} while the server looks for them. */
  async duplicates(index, level, onProgress, signal) {
    return this.answer(await this.fetch(`${this.url(index, "duplicates", "stream")}?level=${level}`, { signal }), onProgress);
  }

  notDuplicate(index, ids) {
    return this.post(this.url(index, "duplicates", "decisions"), { ids });
  }

  report(index) {
    return this.json(this.url(index, "report"));
  }
}
