// The page: reads what the reader wants, asks the service, shows what it answers, and keeps the address in step.

import { byId, copy, make } from "./dom.js";
import * as filters from "./filters.js";
import { hitElement } from "./hits.js";
import { ask, ServiceError } from "./service.js";
import { asMarkdown, counted } from "./text.js";

const DEFAULT_K = 10;

let indexes = [];
let answer = null; // {hits, query} of what is shown
let asking = null; // of the search that is under way
let current = -1; // place of the hit that has the focus

// What the reader wants, as elements hold it and as the address does

function wanted() {
  return {
    q: byId("query").value.trim(),
    index: byId("index").value,
    mode: document.querySelector("input[name=mode]:checked").value,
    k: byId("k").value,
    where: byId("where").value.trim(),
  };
}

function asHash({ q, index, mode, k, where }) {
  const parts = new URLSearchParams({ q });
  if (index && (indexes.length > 1 || index !== indexes[0]?.name)) parts.set("index", index);
  if (mode) parts.set("mode", mode);
  if (Number(k) !== DEFAULT_K) parts.set("k", k);
  if (where) parts.set("where", where);
  return `#${parts}`;
}

/** Put what the address says into the elements; returns whether it is a search. */
function readHash() {
  const parts = new URLSearchParams(location.hash.slice(1));
  byId("query").value = parts.get("q") ?? "";
  const mode = parts.get("mode") ?? "";
  const radio = [...document.querySelectorAll("input[name=mode]")].find((each) => each.value === mode);
  (radio ?? document.querySelector("input[name=mode]")).checked = true;
  byId("k").value = parts.get("k") ?? DEFAULT_K;
  const name = parts.get("index");
  if (name !== null && !indexes.some((each) => each.name === name)) {
    showProblem(`There is no index “${name}” here.`);
    return false;
  }
  const before = byId("index").value;
  byId("index").value = name ?? indexes[0]?.name ?? "";
  if (byId("index").value !== before || !readHash.once) loadFields();
  readHash.once = true;
  filters.setWhere(parts.get("where"));
  if (parts.get("where")) showFilters(true);
  return byId("query").value.trim() !== "";
}

// Searching

async function search({ remember = true } = {}) {
  const want = wanted();
  if (!want.q) {
    showStatus("Type a question first.");
    byId("query").focus();
    return;
  }
  const { where, problem } = filters.parsed();
  const k = Number(want.k);
  showProblem(problem ?? (Number.isInteger(k) && k > 0 ? "" : `Hits must be a whole number from 1 on, not “${want.k}”.`));
  if (byId("problem").textContent) return;
  const hash = asHash(want);
  if (remember && hash !== location.hash) history.pushState(null, "", hash);
  asking?.abort();
  const mine = (asking = new AbortController());
  byId("hits").setAttribute("aria-busy", "true");
  showStatus("Searching…");
  try {
    const body = { query: want.q, k, evidence: true };
    if (want.mode) body.mode = want.mode;
    if (where !== null) body.where = where;
    if (!indexes.length) await loadIndexes(); // the reader was quicker, or gave no token before
    want.index ||= byId("index").value;
    const begun = performance.now();
    const { hits } = await ask(`v1/indexes/${encodeURIComponent(want.index)}/search`, { body, signal: mine.signal });
    show(hits, want, performance.now() - begun, where);
  } catch (error) {
    if (error.name === "AbortError") return; // a newer search took its place
    show([], want, null, where);
    showStatus("");
    fail(error);
  } finally {
    if (asking === mine) byId("hits").removeAttribute("aria-busy");
  }
}

function show(hits, want, milliseconds, where) {
  answer = { hits, query: want.q };
  current = -1;
  const onFilter = (path, operator, value) => {
    showFilters(true);
    filters.addCondition(path, operator, value);
  };
  const elements = hits.map((hit, place) => hitElement(hit, want.q, { open: place === 0, onFilter }));
  byId("hits").replaceChildren(...elements);
  for (const id of ["copy-all", "copy-link"]) byId(id).hidden = hits.length === 0;
  document.title = `${want.q} · colbert`;
  if (milliseconds !== null) showStatus(hits.length ? found(hits.length, milliseconds) : nothing(want, where));
}

function found(n, milliseconds) {
  const time = milliseconds < 1000 ? `${Math.max(1, Math.round(milliseconds))} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
  return `${counted(n, "hit")} in ${time}`;
}

function nothing({ index, mode }, where) {
  const about = indexes.find((each) => each.name === index);
  if (about?.passages === 0) return "Nothing was found: the index has no passages yet.";
  if (where !== null && mode === "words") return "Nothing was found: no passage that the filter lets through has any of these words.";
  if (where !== null) return "Nothing was found: the filter lets no passage through.";
  if (mode === "words") return "Nothing was found: no passage has any of these words. Auto looks for the meaning as well.";
  return "Nothing was found.";
}

function showStatus(text) {
  byId("status").textContent = text;
}

function showProblem(text) {
  byId("problem").textContent = text;
}

/** Say what went wrong. What is no error of the service is one of this page, and belongs on the console as well. */
function fail(error) {
  showProblem(error.message);
  if (!(error instanceof ServiceError)) throw error;
}

// Indexes

async function loadIndexes() {
  showStatus("Asking which indexes there are…");
  ({ indexes } = await ask("v1/indexes"));
  byId("index").replaceChildren(...indexes.map((each) => make("option", { value: each.name }, each.name)));
  if (!indexes.length) throw new ServiceError("This service has no indexes.");
}

function describeIndex() {
  const about = indexes.find((each) => each.name === byId("index").value);
  if (!about) return;
  showStatus(`${counted(about.passages, "passage")} to search.`);
  for (const radio of document.querySelectorAll("input[name=mode]")) {
    const needsWords = radio.value === "hybrid" || radio.value === "words";
    radio.disabled = needsWords && !about.has_words;
    if (radio.disabled && radio.checked) document.querySelector("input[name=mode]").checked = true;
  }
}

function loadFields() {
  describeIndex();
  loadFields.asking?.abort();
  loadFields.asking = new AbortController();
  filters.loadFields(byId("index").value, loadFields.asking.signal).catch((error) => {
    if (error.name !== "AbortError") fail(error);
  });
}

function showFilters(open) {
  byId("filters").hidden = !open;
  byId("filters-toggle").setAttribute("aria-expanded", String(open));
}

// Keys

function move(step) {
  const articles = byId("hits").querySelectorAll("article");
  if (!articles.length) return;
  const inside = document.activeElement?.closest?.("article");
  if (inside) current = [...articles].indexOf(inside);
  current = Math.max(0, Math.min(current + step, articles.length - 1));
  articles[current].focus({ preventScroll: true });
  articles[current].scrollIntoView({ block: "nearest" });
}

/** The hit that has the focus, else null. */
function focused() {
  const article = document.activeElement?.closest?.("article");
  return article ? answer.hits[[...byId("hits").querySelectorAll("article")].indexOf(article)] : null;
}

function copyAll() {
  if (answer?.hits.length) copy(asMarkdown(answer.hits, answer.query), counted(answer.hits.length, "hit"));
}

function onKey(event) {
  if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const isTyping = event.target.matches?.("input:not([type=radio]), textarea, select");
  const done = isTyping ? keyWhileTyping(event) : keyElsewhere(event);
  if (done) event.preventDefault();
}

function keyWhileTyping({ key, target }) {
  if (key === "Escape" && target !== byId("query")) byId("query").focus();
  else if (key === "ArrowDown" && target === byId("query")) move(1);
  else return false;
  return true;
}

function keyElsewhere({ key, target }) {
  const isOnHit = target.matches?.("article");
  if (key === "/") byId("query").select();
  else if (key === "Escape") byId("query").focus();
  else if (key === "j" || (key === "ArrowDown" && isOnHit)) move(1);
  else if (key === "ArrowUp" && isOnHit && current === 0) byId("query").focus();
  else if (key === "k" || (key === "ArrowUp" && isOnHit)) move(-1);
  else if (key === "Enter" && isOnHit) target.querySelector("details")?.toggleAttribute("open");
  else if (key === "c" && focused()) copy(asMarkdown([focused()], answer.query), `hit ${focused().rank}`);
  else if (key === "C") copyAll();
  else if (key === "?") byId("keys-dialog").showModal();
  else return false;
  return true;
}

// The beginning

function connect() {
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  for (const radio of document.querySelectorAll("input[name=mode]")) radio.addEventListener("change", searchAgain);
  byId("k").addEventListener("change", searchAgain);
  byId("index").addEventListener("change", () => {
    loadFields();
    searchAgain();
  });
  byId("filters-toggle").addEventListener("click", () => showFilters(byId("filters").hidden));
  byId("copy-all").addEventListener("click", copyAll);
  byId("copy-link").addEventListener("click", () => copy(location.href, "a link to this search"));
  byId("keys").addEventListener("click", () => byId("keys-dialog").showModal());
  document.addEventListener("keydown", onKey);
  window.addEventListener("popstate", arrive);
  filters.setUp(searchAgain);
}

function searchAgain() {
  if (byId("query").value.trim()) search();
}

/** Show what the address says: at the beginning, and when the reader goes back or changes it. */
function arrive() {
  showProblem("");
  if (readHash()) search({ remember: false });
  else {
    asking?.abort();
    byId("hits").replaceChildren();
    byId("copy-all").hidden = byId("copy-link").hidden = true;
    document.title = "colbert";
    answer = null;
    describeIndex();
  }
}

async function begin() {
  connect();
  try {
    await loadIndexes();
  } catch (error) {
    showStatus("");
    fail(error);
    return;
  }
  arrive();
}

begin();
