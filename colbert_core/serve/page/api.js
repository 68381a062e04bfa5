// Lists the routes of the service from its openapi.json: what each does, what it takes, and how to call it.

import { byId, copy, make } from "./dom.js";
import { ask, ServiceError } from "./service.js";

const METHODS = ["get", "post", "put", "patch", "delete"];

let schemas = {};

async function begin() {
  byId("about").textContent = "Asking for the routes…";
  try {
    const api = await ask("openapi.json");
    schemas = api.components?.schemas ?? {};
    byId("about").textContent = `${api.info.title} ${api.info.version}. ${api.info.description ?? ""}`;
    byId("routes").replaceChildren(...groups(api.paths));
  } catch (error) {
    byId("about").textContent = "";
    byId("problem").textContent = error.message;
    if (!(error instanceof ServiceError)) throw error;
  }
}

function groups(paths) {
  const byTag = new Map();
  for (const [path, item] of Object.entries(paths)) {
    for (const method of METHODS.filter((each) => item[each])) {
      const tag = item[method].tags?.[0] ?? "other";
      if (!byTag.has(tag)) byTag.set(tag, []);
      byTag.get(tag).push(route(method, path, item[method]));
    }
  }
  return [...byTag].map(([tag, routes]) => make("section", {}, make("h2", {}, capitalized(tag)), ...routes));
}

function route(method, path, about) {
  const [first, ...rest] = (about.description ?? about.summary ?? "").split(/(?<=\.)\s+/);
  const summary = make(
    "summary",
    {},
    make("span", { class: "method" }, method.toUpperCase()),
    make("code", {}, path),
    make("span", {}, plain(first)),
  );
  const inside = make("div", { class: "inside" });
  if (rest.length) inside.append(make("p", {}, plain(rest.join(" "))));
  const parameters = about.parameters ?? [];
  if (parameters.length) inside.append(make("h3", {}, "Parameters"), parameterTable(parameters));
  const schema = resolved(about.requestBody?.content?.["application/json"]?.schema);
  if (schema) inside.append(make("h3", {}, "Body"), make("p", { class: "note" }, plain(schema.description ?? "")), bodyTable(schema));
  const line = command(method, path, schema);
  const button = make("button", { type: "button", class: "quiet" }, "Copy");
  button.addEventListener("click", () => copy(line, "the command"));
  inside.append(make("h3", {}, "On the command line ", button), make("pre", {}, line));
  return make("details", { class: "route" }, summary, inside);
}

function parameterTable(parameters) {
  return table(parameters.map(({ name, in: place, required, schema, description }) => [name, `${typeOf(schema)}, in the ${place}`, needed(required, schema), description ?? ""]));
}

function bodyTable(schema) {
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {});
  return table(rows.map(([name, each]) => [name, typeOf(each), needed(required.has(name), each), each.description ?? ""]));
}

function table(rows) {
  const cells = rows.map(([name, type, need, about]) =>
    make("tr", {}, make("th", { scope: "row" }, make("code", {}, name)), make("td", {}, type), make("td", {}, need), make("td", {}, plain(about))),
  );
  const heads = ["Name", "Type", "Default", "About"].map((each) => make("th", { scope: "col" }, each));
  return make("table", { class: "answers" }, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...cells));
}

function needed(required, schema) {
  if (required) return "needed";
  return schema?.default === undefined ? "" : JSON.stringify(schema.default);
}

function resolved(schema) {
  return schema?.$ref ? schemas[schema.$ref.split("/").at(-1)] : schema;
}

function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return choices.map(typeOf).join(" or ");
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(", ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  return schema.type ?? "anything";
}

/** Write a call that can be run as it is, but for the names in braces. */
function command(method, path, schema) {
  const verb = method === "get" || (method === "post" && schema) ? "" : `-X ${method.toUpperCase()} `;
  const address = new URL(`.${path}`, document.baseURI).href.replaceAll("%7B", "{").replaceAll("%7D", "}").replace(":path}", "}");
  const json = schema ? ` \\\n  --json '${JSON.stringify(exampleOf(schema)).replaceAll("'", "'\\''")}'` : "";
  return `curl ${verb}'${address}'${json}`;
}

function exampleOf(schema) {
  const found = resolved(schema) ?? {};
  if (found.type === "array") return [exampleOf(found.items)];
  if (found.type === "object" && found.properties) {
    const required = new Set(found.required ?? []);
    return Object.fromEntries(
      Object.entries(found.properties).filter(([name]) => required.has(name)).map(([name, each]) => [name, exampleOf(each)]),
    );
  }
  if (found.enum) return found.enum[0];
  return { string: "…", integer: 10, number: 0.5, boolean: true, object: {} }[found.type] ?? null;
}

/** Docstrings come with the marks of reStructuredText around code. */
function plain(text) {
  return text.replaceAll("``", "");
}

function capitalized(text) {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

begin();
