// The sidebar: rows, deleting with Undo, the learner's line, the theme, and the drawer on phones.
import { $, $$, memory } from "./dom.js";

const UNDO_MS = 10000;
const rows = $("#rows");
const main = $("main");
let undoTimer = 0;

/** Fetch the list anew; returns the title of the current conversation, if it is in it. */
export async function refresh(current) {
  const response = await fetch(`/conversations?current=${encodeURIComponent(current ?? "")}`);
  if (!response.ok) return null;
  rows.innerHTML = await response.text();
  return $("[aria-current] .cut", rows)?.textContent ?? null;
}

/** Show what the learner does. */
export function showLearner({ title, detail, share }) {
  const root = $("#learner");
  $("b", root).textContent = title;
  $("small", root).textContent = detail;
  $(".v", root).setAttribute("stroke-dasharray", `${Math.round(share * 100)} 100`);
}

/** Close the drawer; false if it was not open. */
export function closeDrawer() {
  if (!document.body.classList.contains("drawer")) return false;
  toggleDrawer(false);
  return true;
}

function toggleDrawer(open) {
  document.body.classList.toggle("drawer", open);
  main.inert = open;
  $("#open-chats").setAttribute("aria-expanded", String(open));
  $(open ? "#close-chats" : "#open-chats").focus();
}

$("#open-chats").addEventListener("click", () => toggleDrawer(true));
$("#close-chats").addEventListener("click", closeDrawer);
document.addEventListener("click", (event) => {
  if (main.inert && !event.target.closest("#chats, #open-chats")) closeDrawer();
});
matchMedia("(max-width: 700px)").addEventListener("change", () => {
  if (main.inert) toggleDrawer(false);
});

rows.addEventListener("click", async (event) => {
  const older = event.target.closest(".older");
  if (!older) return;
  const response = await fetch(`/conversations?before=${encodeURIComponent(older.dataset.before)}`);
  if (!response.ok) return;
  const more = document.createElement("div");
  more.innerHTML = await response.text();
  const last = $$("section", rows).at(-1);
  const first = $("section", more);
  if (last && first && $("h2", last).textContent === $("h2", first).textContent) {
    $("ul", last).append(...$$("li", first));
    first.remove();
  }
  older.replaceWith(...more.childNodes);
});

rows.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const row = form.closest("li");
  const here = $("[aria-current]", row) !== null;
  const path = new URL(form.action).pathname.replace("/delete", "");
  if (!(await post(`${path}/delete`))) return;
  const until = Date.now() + UNDO_MS;
  if (here) {
    sessionStorage.setItem("deleted", JSON.stringify({ path, until }));
    location.assign("/");
    return;
  }
  row.remove();
  offerUndo(path, until);
});

async function post(path) {
  const headers = { Accept: "application/json" };
  const response = await fetch(path, { method: "POST", headers }).catch(() => null);
  return response?.ok ?? false;
}

function offerUndo(path, until) {
  const line = $("#undo");
  clearTimeout(undoTimer);
  line.hidden = false;
  undoTimer = setTimeout(() => (line.hidden = true), until - Date.now());
  $("button", line).onclick = async () => {
    if (await post(`${path}/restore`)) location.assign(path);
  };
}

const deleted = JSON.parse(sessionStorage.getItem("deleted") ?? "null");
sessionStorage.removeItem("deleted");
if (deleted && deleted.until > Date.now()) offerUndo(deleted.path, deleted.until);

const THEMES = { auto: "automatic", light: "light", dark: "dark" };

function showTheme() {
  const words = `Theme: ${THEMES[document.documentElement.dataset.theme]}`;
  $("#theme").setAttribute("aria-label", words);
  $("#theme").title = words;
}

$("#theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const root = document.documentElement;
  root.dataset.theme = names[(names.indexOf(root.dataset.theme) + 1) % names.length];
  memory.set("theme", root.dataset.theme);
  showTheme();
});
showTheme();
