// Notices above the message box: what happened, then what can be done. One for each key.
import { $, clone, setIcon } from "./dom.js";

const region = $("#notices");

/** Show a notice, in place of the one with the same key. `actions` maps words to functions. */
export function show(key, { tone = "", icon, title, text, actions = {}, dismiss = false }) {
  const note = clone("t-note");
  if (tone) note.classList.add(tone);
  note.dataset.key = key;
  note.setAttribute("role", tone === "no" ? "alert" : "status");
  setIcon($("svg", note), icon);
  $("b", note).textContent = title;
  $(".text", note).textContent = text;
  addActions($(".do", note), actions);
  if (dismiss) note.append(closeButton(note, dismiss));
  const old = find(key);
  if (old) old.replaceWith(note);
  else region.append(note);
  return note;
}

export function setText(key, text) {
  const note = find(key);
  if (note) $(".text", note).textContent = text;
}

export function hide(...keys) {
  for (const key of keys) find(key)?.remove();
}

export const shown = (key) => find(key) !== null;

/** A note inside the thread, under the reply that it is about. */
export function inline({ tone = "", icon, title, text, actions = {} }) {
  const note = clone("t-note");
  if (tone) note.classList.add(tone);
  if (tone === "no") note.setAttribute("role", "alert");
  setIcon($("svg", note), icon);
  $("b", note).textContent = title;
  $(".text", note).textContent = text;
  addActions($(".do", note), actions);
  return note;
}

function find(key) {
  return region.querySelector(`[data-key="${key}"]`);
}

function addActions(row, actions) {
  for (const [words, act] of Object.entries(actions)) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "link";
    button.textContent = words;
    button.addEventListener("click", act);
    row.append(button);
  }
}

function closeButton(note, after) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "ib";
  button.setAttribute("aria-label", "Dismiss");
  const icon = $("svg", note).cloneNode(true);
  icon.classList.add("s");
  setIcon(icon, "x");
  button.append(icon);
  button.addEventListener("click", () => {
    note.remove();
    after();
  });
  return button;
}
