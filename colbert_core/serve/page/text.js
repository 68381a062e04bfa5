// Texts and the places in them. The service counts Python characters, which are code points; JavaScript counts UTF-16 units, of
// which an emoji has two. Nothing here touches the page.

/** Turn offsets in code points into offsets in UTF-16 units: a Map from one to the other. */
export function unitOffsets(text, points) {
  const wanted = [...new Set(points)].sort((a, b) => a - b);
  const units = new Map();
  let point = 0;
  let unit = 0;
  for (const target of wanted) {
    while (point < target && unit < text.length) {
      unit += text.codePointAt(unit) > 0xffff ? 2 : 1;
      point += 1;
    }
    units.set(target, unit);
  }
  return units;
}

/** Count the characters as Python does. */
export function countPoints(text) {
  let count = 0;
  for (let unit = 0; unit < text.length; unit += text.codePointAt(unit) > 0xffff ? 2 : 1) count += 1;
  return count;
}

/**
 * Give the marks of a text and its window in UTF-16 units. Marks are in order, without overlap, and within the window.
 * Without evidence there are no marks, and the window is the hit's span.
 */
export function inUnits(hit) {
  const text = hit.text;
  const [first, last] = hit.evidence?.window ?? hit.span;
  const highlights = hit.evidence?.highlights ?? [];
  const units = unitOffsets(text, [first, last, ...highlights.flatMap((mark) => [mark.start, mark.end])]);
  const window = [units.get(first), units.get(last)];
  const marks = [];
  let at = window[0];
  for (const mark of highlights) {
    const start = Math.max(units.get(mark.start), at);
    const end = Math.min(units.get(mark.end), window[1]);
    if (start >= end) continue;
    marks.push({ start, end, weight: mark.weight, similarity: mark.similarity, terms: mark.terms });
    at = end;
  }
  return { text, window, marks };
}

/**
 * For each word of the question: which words of the passage answer it, and how strongly.
 * `[{word, found, answers: [{text, strength}]}]`, in the order of the question.
 */
export function wordsOf(evidence, query) {
  if (evidence.words) return evidence.words;
  const byWord = new Map();
  for (const mark of evidence.highlights) {
    for (const term of mark.terms) {
      if (!byWord.has(term)) byWord.set(term, { word: term, found: true, answers: [] });
      byWord.get(term).answers.push({ start: mark.start, end: mark.end, text: mark.text, strength: mark.weight });
    }
  }
  for (const word of evidence.unmatched) {
    if (!byWord.has(word)) byWord.set(word, { word, found: false, answers: [] });
  }
  return [...byWord.values()].sort((a, b) => query.indexOf(a.word) - query.indexOf(b.word));
}

/** Cut the tail or the head of a text where a word begins or ends, to about so many units. */
export function tail(text, length) {
  if (text.length <= length) return text;
  const cut = text.slice(-length);
  const space = cut.search(/\s/);
  return whole(space >= 0 && space < length / 2 ? cut.slice(space) : cut);
}

export function head(text, length) {
  if (text.length <= length) return text;
  const cut = text.slice(0, length);
  const space = cut.search(/\s\S*$/);
  return whole(space > length / 2 ? cut.slice(0, space) : cut);
}

/** Drop half of a character at either end. */
function whole(text) {
  return text.replace(/^[\udc00-\udfff]/, "").replace(/[\ud800-\udbff]$/, "");
}

/** Write hits as Markdown, for the context of a language model: texts are quoted, so that none of them is taken for a heading. */
export function asMarkdown(hits, query) {
  const parts = hits.map((hit) => {
    const title = titleOf(hit);
    const named = title === hit.id ? "" : ` ${oneLine(title)}`;
    const quoted = excerptOf(hit).split(/\r\n|\r|\n/).map((line) => `> ${line}`.trimEnd());
    return [`[${hit.rank}]${named} (${code(hit.id)})`, "", ...quoted].join("\n");
  });
  return [...(hits.length > 1 ? [`Passages that answer “${oneLine(query)}”:`] : []), ...parts].join("\n\n") + "\n";
}

/** The title of a hit, else its id. */
export function titleOf(hit) {
  const title = hit.metadata?.title;
  return typeof title === "string" && title.trim() ? title : hit.id;
}

/** What matched: the whole passage, or the window of a long one. */
export function excerptOf(hit) {
  const { text, window } = inUnits(hit);
  const before = window[0] > 0 ? "… " : "";
  const behind = window[1] < text.length ? " …" : "";
  return before + text.slice(...window).trim() + behind;
}

function oneLine(text) {
  return text.replace(/\s+/g, " ").trim();
}

/** Write something as code in Markdown, whatever backticks it has. */
function code(text) {
  const line = oneLine(text);
  const longest = Math.max(0, ...[...line.matchAll(/`+/g)].map((run) => run[0].length));
  const fence = "`".repeat(longest + 1);
  return longest ? `${fence} ${line} ${fence}` : `${fence}${line}${fence}`;
}

/** Write a number with a blank every three digits. */
export function grouped(number) {
  return number.toLocaleString("en-US");
}

/** "1 hit", "2 hits". */
export function counted(number, thing) {
  return `${grouped(number)} ${thing}${number === 1 ? "" : "s"}`;
}
