// Makes elements. What comes from the service becomes text nodes and attributes that hold text, never markup.

/** Make an element: `make("p", { class: "note", title: "…" }, "text", child)`. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Make a text from outside that cannot turn its surroundings around, whichever way its letters run. */
export function isolated(text, attributes = {}) {
  return make("bdi", attributes, text);
}

export function byId(id) {
  return document.getElementById(id);
}

/** Tell the reader something for a moment, on screen and to a screen reader. */
export function notify(message) {
  const notice = byId("notice");
  notice.textContent = message;
  notice.classList.add("shown");
  clearTimeout(notify.timer);
  notify.timer = setTimeout(() => notice.classList.remove("shown"), 2400);
}

/** Put a text on the clipboard. Browsers allow it on this machine and over HTTPS; elsewhere the old way is tried. */
export async function copy(text, what) {
  try {
    if (navigator.clipboard) await navigator.clipboard.writeText(text);
    else copyBySelection(text);
    notify(`Copied ${what}.`);
  } catch {
    notify(`The browser did not let the page copy ${what}.`);
  }
}

function copyBySelection(text) {
  const field = make("textarea", { class: "hidden", "aria-hidden": "true" });
  field.value = text;
  const focused = document.activeElement;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  focused?.focus();
  if (!done) throw new Error("not allowed");
}
