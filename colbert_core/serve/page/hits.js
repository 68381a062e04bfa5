// Shows hits: the text with its marks, how well it matched, why, and its metadata.

import { copy, isolated, make } from "./dom.js";
import { asMarkdown, counted, countPoints, head, inUnits, tail, titleOf, wordsOf } from "./text.js";

// Characters outside of the window that are shown beside it; what is left of more is folded.
const BESIDE = 140;
const LONGEST_VALUE = 160;
const MOST_FIELDS = 24;

/**
 * Make the element of a hit.
 * `onFilter(path, operator, value)` is called when the reader wants only passages with some metadata.
 */
export function hitElement(hit, query, { open = false, onFilter }) {
  const title = `hit-${hit.rank}`;
  const article = make("article", { class: "hit", tabindex: "-1", "aria-labelledby": title });
  article.append(header(hit, query, title), passage(hit), ...why(hit, query, article, open), ...metadata(hit, onFilter));
  return make("li", {}, article);
}

function header(hit, query, id) {
  const copyButton = make("button", { type: "button", class: "quiet copy", title: "Copy as Markdown (c)" }, "Copy");
  copyButton.addEventListener("click", () => copy(asMarkdown([hit], query), `hit ${hit.rank}`));
  const title = titleOf(hit);
  const heading = make(
    "h2",
    { id },
    make("span", { class: "rank" }, make("span", { class: "hidden" }, "Hit "), `${hit.rank}`),
    isolated(title, { class: "title" }),
  );
  return make(
    "header",
    {},
    heading,
    make("div", { class: "scores" }, ...scores(hit)),
    copyButton,
    title === hit.id ? null : make("p", { class: "id" }, isolated(hit.id)),
  );
}

/** How well it matched: by the model, and by its words where these ranked. */
function scores(hit) {
  const words = hit.coverage;
  const wordsAlone = words !== undefined && words === hit.hybrid_relevance && words === hit.relevance;
  const bars = [];
  if (!wordsAlone) {
    const about = `Relevance: MaxSim ${hit.score.toFixed(2)} for each vector of the question`;
    bars.push(bar("relevance", hit.relevance, about));
  }
  if (words !== undefined) bars.push(bar("words", words, "How much of the question’s words it has, rare ones counting more"));
  return bars;
}

function bar(name, share, about) {
  const filled = make("i");
  filled.style.width = `${Math.max(0, Math.min(share, 1)) * 100}%`;
  return make(
    "span",
    { class: `score ${name}`, title: about },
    make("span", { class: "name" }, name),
    make("span", { class: "bar", "aria-hidden": "true" }, filled),
    make("span", { class: "number" }, share.toFixed(2)),
  );
}

/** The window with its marks; what is outside of it dimmed, and folded where it is long. */
function passage(hit) {
  const { text, window, marks } = inUnits(hit);
  const shown = make("p", { class: "text", dir: "auto" });
  if (window[0] > 0) shown.append(...outside(text.slice(0, window[0]), "before"));
  const inside = make("span", { class: "window" });
  let at = window[0];
  for (const mark of marks) {
    if (mark.start > at) inside.append(text.slice(at, mark.start));
    inside.append(marked(text.slice(mark.start, mark.end), mark));
    at = mark.end;
  }
  if (at < window[1]) inside.append(text.slice(at, window[1]));
  shown.append(inside);
  if (window[1] < text.length) shown.append(...outside(text.slice(window[1]), "behind"));
  const isWhole = window[0] === 0 && window[1] === text.length;
  return make("div", { class: "passage" }, isWhole ? null : windowBar(hit, text), shown);
}

function marked(text, { weight, similarity, terms }) {
  const element = make("mark", { title: `${terms.join(", ")}: ${similarity.toFixed(2)}` }, text);
  element.style.setProperty("--weight", weight.toFixed(3));
  element.terms = terms; // for `light`
  return element;
}

/** Where in a long passage the window is. */
function windowBar(hit, text) {
  const [start, end] = hit.evidence?.window ?? hit.span;
  const length = Math.max(countPoints(text), 1);
  const part = make("i");
  part.style.left = `${(start / length) * 100}%`;
  part.style.width = `${((end - start) / length) * 100}%`;
  const about = `The part that matched: characters ${start} to ${end} of ${length}`;
  return make("div", { class: "place", role: "img", "aria-label": about, title: about }, part);
}

function outside(text, side) {
  const teaser = side === "before" ? tail(text, BESIDE) : head(text, BESIDE);
  const words = make("span", { class: "outside" }, teaser);
  const n = countPoints(text) - countPoints(teaser);
  if (n <= 0) return [words];
  const button = make("button", { type: "button", class: "fold", "aria-expanded": "false" });
  const label = (isOpen) => {
    button.textContent = isOpen ? "fold" : `… ${counted(n, "character")} ${side} …`;
    button.setAttribute("aria-expanded", String(isOpen));
  };
  button.addEventListener("click", () => {
    const isOpen = button.getAttribute("aria-expanded") !== "true";
    words.textContent = isOpen ? text : teaser;
    label(isOpen);
  });
  label(false);
  return side === "before" ? [button, words] : [words, button];
}

/** Which words of the question it answers, and by which of its own. The table is made when it is first opened. */
function why(hit, query, article, open) {
  if (!hit.evidence) return [];
  const words = wordsOf(hit.evidence, query);
  if (!words.length) return [];
  const summary = make("summary", {}, make("span", { class: "why" }, "Why"), " ", ...words.map(asked));
  const details = make("details", {}, summary);
  const fill = () => {
    if (details.childElementCount === 1) details.append(whyTable(words, article));
  };
  details.addEventListener("toggle", fill);
  if (open) {
    fill();
    details.open = true;
  }
  return [details];
}

/** A word of the question, struck out if it was not found; faint if it was, but no word stands out as its answer. */
function asked({ word, found, answers }) {
  if (!found) return make("s", { class: "asked" }, isolated(word), hidden(" (not found)"));
  return isolated(word, { class: answers.length ? "asked" : "asked faint" });
}

function hidden(text) {
  return make("span", { class: "hidden" }, text);
}

function whyTable(words, article) {
  const rows = words.map((word) => {
    const answers = distinct(word.answers);
    const none = make("em", {}, word.found ? "no word in particular" : "not found");
    const row = make(
      "tr",
      {},
      make("th", { scope: "row" }, asked(word)),
      make("td", {}, ...(answers.length ? answers.flatMap((each) => [answer(each), " "]) : [none])),
    );
    row.addEventListener("pointerenter", () => light(article, word));
    row.addEventListener("pointerleave", () => light(article, null));
    return row;
  });
  const heads = make("tr", {}, make("th", { scope: "col" }, "Of the question"), make("th", { scope: "col" }, "Answered by"));
  return make("table", { class: "answers" }, make("thead", {}, heads), make("tbody", {}, ...rows));
}

/** The strongest first; a word that the passage has several times stands once, as the strongest of them. */
function distinct(answers) {
  const byText = new Map();
  for (const each of [...answers].sort((a, b) => b.strength - a.strength)) {
    const key = each.text.toLowerCase();
    if (byText.has(key)) byText.get(key).times += 1;
    else byText.set(key, { ...each, times: 1 });
  }
  return [...byText.values()];
}

function answer({ text, strength, times }) {
  const number = times > 1 ? `${strength.toFixed(2)} ×${times}` : strength.toFixed(2);
  const chip = make("span", { class: "answer" }, isolated(text, { class: "said" }), make("b", {}, number));
  chip.style.setProperty("--weight", Math.max(0, Math.min(strength, 1)).toFixed(3));
  return chip;
}

/** Have the marks that answer a word stand out, or all alike again. */
function light(article, word) {
  article.classList.toggle("lighting", word !== null && word.answers.length > 0);
  for (const mark of article.querySelectorAll("mark")) mark.classList.toggle("lit", word !== null && mark.terms.includes(word.word));
}

function metadata(hit, onFilter) {
  const fields = Object.entries(hit.metadata ?? {}).filter(([name]) => name !== "title" || titleOf(hit) === hit.id);
  if (!fields.length) return [];
  const items = fields
    .slice(0, MOST_FIELDS)
    .map(([name, value]) => make("div", {}, make("dt", {}, isolated(name)), make("dd", {}, ...values(name, value, onFilter))));
  if (fields.length > MOST_FIELDS) items.push(make("div", {}, make("dt", {}, `and ${fields.length - MOST_FIELDS} more`)));
  return [make("dl", { class: "metadata" }, ...items)];
}

function values(name, value, onFilter) {
  if (Array.isArray(value)) return value.slice(0, MOST_FIELDS).flatMap((each) => [single(name, "$contains", each, onFilter), " "]);
  return [single(name, "$eq", value, onFilter)];
}

/** One value: a link where it is an address, else a button that filters by it. */
function single(name, operator, value, onFilter) {
  const isSimple = ["string", "number", "boolean"].includes(typeof value);
  const text = typeof value === "string" ? value : JSON.stringify(value);
  const short = text.length > LONGEST_VALUE ? `${head(text, LONGEST_VALUE)}…` : text;
  if (typeof value === "string" && isAddress(value)) {
    return make("a", { href: value, target: "_blank", rel: "noopener noreferrer" }, isolated(short));
  }
  if (!isSimple || text === "" || name.includes(".") || name.startsWith("$")) return isolated(short);
  const button = make("button", { type: "button", class: "value", title: "Only passages with this" }, isolated(short));
  button.addEventListener("click", () => onFilter(name, operator, value));
  return button;
}

/** Tell whether it is an address of the web; "javascript:" and the like are not. */
function isAddress(value) {
  if (!/^https?:\/\/\S+$/.test(value)) return false;
  try {
    return ["http:", "https:"].includes(new URL(value).protocol);
  } catch {
    return false;
  }
}
