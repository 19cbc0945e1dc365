// Reply settings. Ranges, steps and defaults are in the HTML, which the server wrote.
import { $, $$, memory, number } from "./dom.js";

const panel = $("#settings");
const narrow = matchMedia("(max-width: 1080px)");
const openers = $$("[data-settings]");

class Knob {
  constructor(root, changed) {
    this.name = root.dataset.knob;
    this.label = $("label", root).textContent;
    this.field = $("input[type=number]", root);
    this.slider = $("input[type=range]", root);
    this.error = $(".wrong", root);
    this.value = Number(this.field.value);
    this.field.addEventListener("input", () => {
      if (this.take(this.field.value)) changed(this);
    });
    this.field.addEventListener("blur", () => {
      if (this.error.hidden) this.show();
    });
    this.slider.addEventListener("input", () => {
      this.set(Number(this.slider.value));
      changed(this);
    });
    this.show();
  }

  get high() {
    return Number(this.field.max);
  }

  /** Accept what was typed if it is in range; else say at the field why not, and keep the old. */
  take(typed) {
    const value = typed.trim() === "" ? NaN : Number(typed);
    const whole = this.field.step !== "1" || Number.isInteger(value);
    if (whole && value >= Number(this.field.min) && value <= this.high) {
      this.value = value;
      this.slider.value = value;
      this.refuse("");
      return true;
    }
    const kind = whole ? "From" : "A whole number from";
    this.refuse(`${kind} ${number(Number(this.field.min))} to ${number(this.high)}. Still ${this}.`);
    return false;
  }

  refuse(why) {
    this.error.textContent = why;
    this.error.hidden = !why;
    this.field.setAttribute("aria-invalid", why ? "true" : "false");
    this.field.setAttribute("aria-errormessage", this.error.id);
  }

  set(value) {
    this.value = value;
    this.show();
  }

  show() {
    this.field.value = this.toString();
    this.slider.value = this.value;
    this.refuse("");
  }

  toString() {
    return this.value.toFixed(Number(this.field.dataset.digits));
  }
}

const knobs = Object.fromEntries(
  $$(".knob", panel).map((root) => [root.dataset.knob, new Knob(root, changed)]),
);
const { temperature, top_p, top_k, max_length } = knobs;
let presets = {};
let defaultLength = 0;
const lookup = $("#k-retrieval");
let wantedLength = null; // null: whatever fits, up to the default
let key = "settings:new";

/** Take up the settings of a conversation (null: a new one). */
export function begin({ presets: given, default_length, conversation, context }) {
  presets = given;
  defaultLength = default_length;
  key = `settings:${conversation ?? "new"}`;
  const kept = JSON.parse(memory.get(key) ?? "null");
  if (kept) {
    for (const knob of [temperature, top_p, top_k]) knob.set(kept[knob.name] ?? knob.value);
    wantedLength = kept.max_length ?? null;
  }
  lookup.checked = kept?.retrieval ? kept.retrieval === "on" : lookup.defaultChecked;
  setRoom(context.room);
  showPreset();
  if (memory.get("panel") && !narrow.matches) open();
}

/** A new conversation got its id: its settings go with it. */
export function moveTo(conversation) {
  memory.set(`settings:${conversation}`, memory.get(key));
  memory.set(key, null);
  key = `settings:${conversation}`;
}

/** What a request carries; the longest reply and the lookup only where the reader chose. */
export function values() {
  const sent = { temperature: temperature.value, top_p: top_p.value, top_k: top_k.value };
  if (wantedLength !== null) sent.max_length = max_length.value;
  if (lookupChosen()) sent.retrieval = lookup.checked ? "on" : "off";
  return sent;
}

const lookupChosen = () => lookup.checked !== lookup.defaultChecked;

/** Whether passages are looked up unasked by now; what the reader chose for a conversation stays. */
export function setLookup(byDefault) {
  if (lookup.defaultChecked === byDefault) return;
  const kept = JSON.parse(memory.get(key) ?? "null")?.retrieval;
  lookup.defaultChecked = byDefault;
  lookup.checked = kept ? kept === "on" : byDefault;
}

/** How long a reply may be by now. A longer wish is kept for when there is room again. */
export function setRoom(room) {
  max_length.field.max = max_length.slider.max = Math.max(room, Number(max_length.field.min));
  max_length.set(Math.min(wantedLength ?? defaultLength, max_length.high));
  $("#room").textContent = number(room);
}

export function shorten(length) {
  max_length.set(length);
  changed(max_length);
}

/** Say at a field what the server said about it; false if there is no such field. */
export function refuse(name, why) {
  if (!knobs[name]) return false;
  open();
  knobs[name].refuse(why);
  knobs[name].field.focus();
  return true;
}

function changed(knob) {
  if (knob === max_length) wantedLength = knob.value;
  const kept = { ...values(), max_length: wantedLength };
  memory.set(key, isDefault() ? null : JSON.stringify(kept));
  showPreset();
}

function isDefault() {
  return presetName() === "Balanced" && wantedLength === null && !lookupChosen();
}

function presetName() {
  const now = values();
  const found = Object.entries(presets).find(
    ([, preset]) =>
      (now.temperature === 0 && preset.temperature === 0) ||
      Object.entries(preset).every(([name, value]) => now[name] === value),
  );
  return found ? found[0] : "Own";
}

function showPreset() {
  const name = presetName();
  $("#preset").textContent = name;
  for (const radio of $$("[name=preset]", panel)) radio.checked = radio.value === name;
}

function choose(name) {
  for (const [knob, value] of Object.entries(presets[name])) knobs[knob].set(value);
  changed(temperature);
}

function open() {
  if (panel.open) return;
  if (narrow.matches) panel.showModal();
  else panel.show();
  for (const opener of openers) opener.setAttribute("aria-expanded", "true");
  if (!narrow.matches) memory.set("panel", "open");
}

/** Close the panel; false if it was not open. */
export function close() {
  if (!panel.open) return false;
  panel.close();
  return true;
}

panel.addEventListener("close", () => {
  for (const opener of openers) opener.setAttribute("aria-expanded", "false");
  memory.set("panel", null);
});
panel.addEventListener("click", (event) => {
  if (event.target === panel) close(); // the backdrop
});
narrow.addEventListener("change", () => {
  if (close()) open();
});
for (const opener of openers) opener.addEventListener("click", () => close() || open());
lookup.addEventListener("change", () => changed(lookup));
$("[data-close]", panel).addEventListener("click", close);
for (const radio of $$("[name=preset]", panel)) {
  radio.addEventListener("change", () => choose(radio.value));
}
$("#balanced").addEventListener("click", () => {
  wantedLength = null;
  choose("Balanced");
  max_length.set(Math.min(defaultLength, max_length.high));
});
