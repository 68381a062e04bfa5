// The filter: rows of field, operator and value, and the same as JSON. Which fields there are the service says.

import { byId, make } from "./dom.js";
import { ask } from "./service.js";

// What an operator says, and which types of values it is for; none: all.
const OPERATORS = [
  ["$eq", "is", ["string", "number", "boolean"]],
  ["$ne", "is not", ["string", "number", "boolean"]],
  ["$gte", "is at least", ["string", "number"]],
  ["$lte", "is at most", ["string", "number"]],
  ["$gt", "is more than", ["string", "number"]],
  ["$lt", "is less than", ["string", "number"]],
  ["$in", "is one of", ["string", "number"]],
  ["$nin", "is none of", ["string", "number"]],
  ["$itext", "has the text", ["string"]],
  ["$contains", "has the element", ["list"]],
  ["$any", "has one of", ["list"]],
  ["$all", "has all of", ["list"]],
  ["$exists", "is there", []],
  ["$missing", "is not there", []], // written as {"$exists": false}
];
const LISTS = new Set(["$in", "$nin", "$any", "$all"]);
const WITHOUT_VALUE = new Set(["$exists", "$missing"]);
const MOST_FIELDS = 1000;

let fields = [];
let changed = () => {};

/** Connect the elements; `onChange` is called after the reader has changed the filter. */
export function setUp(onChange) {
  changed = onChange;
  byId("add-filter").addEventListener("click", () => {
    addRow().querySelector("select").focus();
    write();
  });
  byId("clear-filters").addEventListener("click", () => {
    setWhere(null);
    changed();
  });
  byId("where").addEventListener("input", () => {
    showRows(parsed().where);
    count();
  });
}

/** Ask which fields an index has. */
export async function loadFields(name, signal) {
  fields = [];
  let after = null;
  do {
    const query = after === null ? "?limit=100" : `?limit=100&after=${encodeURIComponent(after)}`;
    const page = await ask(`v1/indexes/${encodeURIComponent(name)}/fields${query}`, { signal });
    fields.push(...page.fields);
    after = page.next;
  } while (after !== null && fields.length < MOST_FIELDS);
  byId("no-fields").hidden = fields.length > 0;
  showRows(parsed().where);
}

/** The filter as the service takes it, null for none; `problem` says what is wrong with the JSON. */
export function parsed() {
  const text = byId("where").value.trim();
  if (!text) return { where: null };
  try {
    const where = JSON.parse(text);
    if (where === null || typeof where !== "object" || Array.isArray(where)) {
      return { where: null, problem: 'The filter must be a JSON object, such as {"year": {"$gte": 2020}}.' };
    }
    return { where };
  } catch (error) {
    return { where: null, problem: `The filter is no valid JSON: ${error.message}` };
  }
}

/** Put a filter into the elements: JSON as text, an object, or null. */
export function setWhere(where) {
  byId("where").value = where === null ? "" : typeof where === "string" ? where : JSON.stringify(where);
  showRows(parsed().where);
  count();
}

/** Ask for one thing more; the same field and operator are asked for anew. */
export function addCondition(path, operator, value) {
  const kept = conditionsOf(parsed().where) ?? [];
  const others = kept.filter((each) => each.path !== path || each.operator !== operator || operator === "$contains");
  setWhere(joined([...others, { path, operator, value }]));
  changed();
}

function count() {
  const { where, problem } = parsed();
  const n = where === null ? 0 : (conditionsOf(where)?.length ?? 1);
  const button = byId("filters-toggle");
  button.textContent = n || problem ? `Filter (${problem ? "!" : n})` : "Filter";
  button.classList.toggle("active", n > 0);
  byId("where-problem").textContent = problem ?? "";
}

// Rows

function showRows(where) {
  const conditions = where === null ? [] : conditionsOf(where);
  byId("by-hand").hidden = conditions !== null;
  byId("rows").replaceChildren();
  for (const condition of conditions ?? []) addRow(condition);
}

function addRow(condition = null) {
  const path = make("select", { "aria-label": "Field" });
  const known = fields.map((field) => field.path);
  if (condition && !known.includes(condition.path)) known.push(condition.path);
  path.append(...known.map((each) => make("option", { value: each }, each)));
  const operator = make("select", { "aria-label": "Operator" });
  const list = make("datalist", { id: `values-${(addRow.number = (addRow.number ?? 0) + 1)}` });
  const value = make("input", { "aria-label": "Value", list: list.id, autocomplete: "off" });
  const remove = make("button", { type: "button", class: "quiet", "aria-label": "Remove this condition", title: "Remove" }, "×");
  const row = make("div", { class: "row" }, path, operator, value, list, remove);
  const adapt = (chosen) => {
    const field = fields.find((each) => each.path === path.value);
    const types = Object.keys(field?.types ?? {});
    const fitting = OPERATORS.filter(
      ([name, , fits]) => name === chosen || !fits.length || !field || fits.some((type) => types.includes(type)),
    );
    operator.replaceChildren(...fitting.map(([name, label]) => make("option", { value: name }, label)));
    if (chosen) operator.value = chosen;
    list.replaceChildren(...(field?.examples ?? []).map((each) => make("option", { value: asText(each) })));
    value.hidden = WITHOUT_VALUE.has(operator.value);
    value.placeholder = LISTS.has(operator.value) ? "one, another" : "value";
  };
  path.addEventListener("change", () => (adapt(), write()));
  operator.addEventListener("change", () => (adapt(operator.value), write()));
  value.addEventListener("input", write);
  remove.addEventListener("click", () => {
    row.remove();
    write();
    changed();
  });
  if (condition) path.value = condition.path;
  adapt(condition?.operator);
  if (condition && !value.hidden) {
    const types = fields.find((each) => each.path === path.value)?.types ?? {};
    const values = Array.isArray(condition.value) ? condition.value : [condition.value];
    value.value = values.map((each) => asTyped(each, types, condition.operator)).join(", ");
  }
  byId("rows").append(row);
  return row;
}

/** Write the rows as JSON. Rows without a value wait for one. */
function write() {
  const conditions = [...byId("rows").children].flatMap((row) => {
    const [path, operator] = [...row.querySelectorAll("select")].map((each) => each.value);
    const text = row.querySelector("input").value;
    if (!path || (!WITHOUT_VALUE.has(operator) && text.trim() === "")) return [];
    const types = fields.find((each) => each.path === path)?.types ?? {};
    const value = LISTS.has(operator)
      ? text.split(",").filter((each) => each.trim()).map((each) => asValue(each, types, operator))
      : asValue(text, types, operator);
    return [{ path, operator, value: operator === "$exists" ? true : value }];
  });
  byId("where").value = conditions.length ? JSON.stringify(joined(conditions)) : "";
  count();
}

function asText(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** Write a value so that it is read as the same: a string that looks like a number is quoted where there are numbers. */
function asTyped(value, types, operator) {
  return typeof value === "string" && asValue(value, types, operator) !== value ? JSON.stringify(value) : asText(value);
}

/** Read a value as what the field has: "5" is a number where it has numbers, and a string where it has strings alone. */
function asValue(text, types, operator) {
  const trimmed = text.trim();
  if (operator === "$itext") return text;
  const hasElements = "list" in types;
  if (("number" in types || hasElements) && /^-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(trimmed)) return Number(trimmed);
  if (("boolean" in types || hasElements) && /^(true|false)$/.test(trimmed)) return trimmed === "true";
  if (/^".*"$/.test(trimmed)) {
    try {
      return JSON.parse(trimmed);
    } catch {
      return trimmed; // a string that happens to begin and end so
    }
  }
  return trimmed;
}

// From conditions to a filter and back

function joined(conditions) {
  const parts = conditions.map(({ path, operator, value }) => {
    if (operator === "$missing") return [path, { $exists: false }];
    if (operator === "$exists") return [path, { $exists: true }];
    return [path, operator === "$eq" ? value : Object.fromEntries([[operator, value]])];
  });
  const names = parts.map(([path]) => path);
  if (new Set(names).size === names.length) return Object.fromEntries(parts);
  return { $and: parts.map((part) => Object.fromEntries([part])) };
}

/** The conditions of a filter that rows can show, null for one that was written by hand. */
function conditionsOf(where) {
  const conditions = [];
  for (const [path, test] of Object.entries(where ?? {})) {
    if (path === "$and" && Array.isArray(test)) {
      const parts = test.map((part) => (part !== null && typeof part === "object" ? conditionsOf(part) : null));
      if (parts.includes(null)) return null;
      conditions.push(...parts.flat());
    } else if (path.startsWith("$") || test === null || Array.isArray(test)) {
      return null;
    } else if (typeof test !== "object") {
      conditions.push({ path, operator: "$eq", value: test });
    } else {
      for (const [operator, value] of Object.entries(test)) {
        if (operator === "$exists") conditions.push({ path, operator: value ? "$exists" : "$missing", value });
        else if (OPERATORS.some(([name]) => name === operator) && isPlain(value)) conditions.push({ path, operator, value });
        else return null;
      }
    }
  }
  return conditions;
}

function isPlain(value) {
  const values = Array.isArray(value) ? value : [value];
  return values.every((each) => ["string", "number", "boolean"].includes(typeof each) && !(Array.isArray(value) && asText(each).includes(",")));
}
