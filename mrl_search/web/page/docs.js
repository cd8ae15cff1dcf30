"use strict";
// The API, as openapi.json describes it.

/** A schema with its references followed. */
function resolved(schema, all) {
  const name = schema?.$ref?.split("/").pop();
  return name ? all[name] : schema ?? {};
}

/** The type of a value in few words. */
function typeOf(schema, all) {
  const one = resolved(schema, all);
  if (one.anyOf) return one.anyOf.map((part) => typeOf(part, all)).filter((text) => text !== "null").join(" or ");
  if (one.enum || one.const) return [one.enum ?? one.const].flat().map((value) => JSON.stringify(value)).join(" | ");
  if (one.type === "array") return `list of ${typeOf(one.items, all)}`;
  return one.format === "binary" ? "file" : one.type ?? "object";
}

function rowsOf(schema, all) {
  return Object.entries(resolved(schema, all).properties ?? {}).map(([name, one]) => make("tr", {},
    make("td", {}, make("code", {}, name)), make("td", {}, typeOf(one, all)),
    make("td", {}, [
      one.description, one.default !== undefined && one.default !== null ? `default ${JSON.stringify(one.default)}` : null,
      one.examples ? `for example ${JSON.stringify(one.examples[0])}` : null,
    ].filter(Boolean).join("; "))));
}

function operation(path, method, one, all) {
  const rows = (one.parameters ?? []).map(({ name, schema, description }) => make("tr", {},
    make("td", {}, make("code", {}, name)), make("td", {}, typeOf(schema, all)), make("td", {}, description ?? "")));
  const body = one.requestBody?.content ?? {};
  const title = `${method.toUpperCase()} ${path}`;
  const codes = Object.entries(one.responses).map(([status, { description }]) => `${status} ${description}`);
  return make("section", { className: "group", "aria-label": title },
    make("h2", {}, make("code", {}, title)),
    make("p", {}, one.description ?? one.summary ?? ""),
    ...[["Parameters", rows], ...Object.entries(body).map(([kind, { schema }]) => [kind, rowsOf(schema, all)])]
      .filter(([, some]) => some.length)
      .map(([name, some]) => make("table", { className: "plain" }, make("caption", {}, name), make("tbody", {}, ...some))),
    make("p", { className: "about" }, codes.join(" · ")));
}

fetch("openapi.json").then((response) => response.json()).then(({ paths, components }) => {
  const all = components?.schemas ?? {};
  byId("main").append(...Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, one]) => operation(path, method, one, all))));
}).catch((error) => tell(error.message, true));
