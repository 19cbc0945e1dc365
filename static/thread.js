// The thread: questions, replies as they stream, and what is said between them.
import { $, $$, clone, plural, setIcon } from "./dom.js";
import { inline } from "./notices.js";

const thread = $("#thread");
const scroller = $("#scroll");

export const isEmpty = () => thread.querySelector(".me, .ai, .note") === null;

/** Run a change of the page; a reader who is at the bottom stays there. */
function keepBottom(change) {
  const atBottom = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 80;
  const result = change();
  if (atBottom) toBottom();
  return result;
}

export function toBottom() {
  scroller.scrollTop = scroller.scrollHeight;
}

export function addQuestion(text) {
  const question = clone("t-question");
  question.textContent = text;
  thread.append(question);
  toBottom();
  return question;
}

/** What a notice in the thread offers is over once something else was asked. */
export function dropOffers() {
  for (const button of $$(".live button", thread)) button.remove();
}

/** The notice of a version that went live; `ask` repeats the last question, if there is one. */
export function addLive({ live: version, title, text }, ask) {
  dropOffers();
  const live = clone("t-live");
  $("b", live).textContent = title;
  $("span", live).textContent = text;
  if (ask) $("button", live).addEventListener("click", ask);
  else $("button", live).remove();
  if (version) $("a", live).href = `/learning/cycles/${version}`;
  else $("a", live).remove(); // the base has no report card
  keepBottom(() => thread.append(live));
}

/** Draw the line above which the model sees nothing any more. */
export function drawCut(dropped) {
  $("#cut")?.remove();
  const answered = $$(".me[data-answered]", thread);
  const first = answered[dropped - Number(thread.dataset.hiddenTurns)];
  if (!dropped || !first) return;
  const line = document.createElement("p");
  line.className = "cutline";
  line.id = "cut";
  const words = document.createElement("span");
  words.textContent = `The model no longer sees the ${plural(dropped, "turn")} above.`;
  line.append(words);
  keepBottom(() => first.before(line));
}

/** A reply that is being written. Text is painted once for each frame, finished blocks are HTML. */
export class Reply {
  constructor() {
    this.element = clone("t-reply");
    this.body = $(".body", this.element);
    this.open = document.createElement("div");
    this.open.className = "open caret";
    this.body.replaceChildren(this.open);
    this.tokens = 0;
    this.started = false;
    this.waiting = "";
    this.element.setAttribute("aria-busy", "true");
    $(".who", this.element).hidden = true;
    this.body.hidden = true;
    this.end({ icon: "rings", text: "No reply yet." });
    thread.append(this.element);
    toBottom();
  }

  /** The server has begun it: who answers, from what, and how much there is to read first. */
  start({ message, name, memory, badge, sources, context }) {
    this.started = true;
    this.name = name;
    this.element.id = `m${message}`;
    this.element.setAttribute("aria-label", `Reply by ${name.toLowerCase()}, being written`);
    const chip = $(".name", this.element);
    chip.textContent = name;
    const cycle = name.match(/^Checkpoint (\d+)$/)?.[1];
    if (cycle) {
      chip.href = `/learning/cycles/${cycle}`;
      chip.title = "Report card";
    }
    $(".memory span", this.element).textContent = badge;
    if (memory === "passages") {
      $(".memory", this.element).classList.add("info");
      setIcon($(".memory svg", this.element), "book");
      // Rendered and escaped by the server, as finished blocks are.
      this.body.insertAdjacentHTML("afterend", sources);
    }
    $(".who", this.element).hidden = false;
    this.end({
      icon: "rings",
      text: context.used
        ? `No reply yet. ${name} is reading ${plural(context.used, "token")}…`
        : `No reply yet. ${name} is reading…`,
    });
  }

  text({ t, n }) {
    this.tokens = n;
    if (this.body.hidden) {
      this.body.hidden = false;
      this.end(null);
    }
    if (!this.waiting) requestAnimationFrame(() => this.paint());
    this.waiting += t;
  }

  paint() {
    if (!this.waiting) return;
    keepBottom(() => this.open.append(this.waiting));
    this.open.normalize();
    this.waiting = "";
  }

  block({ html, open }) {
    this.waiting = "";
    keepBottom(() => {
      this.open.insertAdjacentHTML("beforebegin", html);
      this.open.textContent = open;
    });
  }

  /** The line under the reply: {icon, text}, or null for none. */
  end(ended) {
    const line = $(".status", this.element);
    line.hidden = !ended;
    if (!ended) return;
    setIcon($("svg", line), ended.icon);
    $(".why", line).textContent = ended.text;
  }

  /** A note under the reply. */
  note(content) {
    keepBottom(() => $(".status", this.element).before(inline(content)));
  }

  /** Nothing more will come. */
  close({ html = null, stats = "", ended = null } = {}) {
    this.paint();
    this.open.classList.remove("caret");
    keepBottom(() => {
      if (html !== null) this.body.innerHTML = html;
      this.element.setAttribute("aria-busy", "false");
      this.element.setAttribute("aria-label", `Reply by ${(this.name ?? "").toLowerCase()}`);
      $(".stats", this.element).textContent = stats;
      $(".acts", this.element).hidden = false;
      this.end(ended);
    });
  }

  remove() {
    this.element.remove();
  }
}
