// The chat page: sending, and what may come of it. The other modules each know one part of the page.
import { $, $$, memory, number, plural, setIcon } from "./dom.js";
import { modelReady, whileBusy, whileLoading } from "./hold.js";
import * as knobs from "./knobs.js";
import { follow } from "./live.js";
import * as notices from "./notices.js";
import * as sidebar from "./sidebar.js";
import { read } from "./sse.js";
import * as thread from "./thread.js";

const boot = JSON.parse(document.body.dataset.boot);
const box = $("#box");
const go = $("#go");
const empty = $("#empty");

const state = {
  conversation: boot.conversation,
  model: boot.health,
  learner: boot.learner,
  asked: boot.asked,
  refusal: undefined, // the title of the notice that a cycle was refused
  run: null, // the reply that is on its way
};

// Sending -------------------------------------------------------------------------------------

async function send(text, { again = false } = {}) {
  if (state.run || !text.trim()) return;
  notices.hide("gone", "long", "refused", "loading", "busy");
  empty.hidden = true;
  thread.dropOffers();
  const run = {
    text,
    again,
    controller: new AbortController(),
    question: again ? $$("#thread .me").at(-1) : thread.addQuestion(text),
    reply: new thread.Reply(),
    swapped: null,
  };
  state.run = run;
  showBusy(true);
  if (!again) setBox("");
  try {
    await deliver(run);
  } finally {
    state.run = null;
    showBusy(false);
  }
}

async function deliver(run) {
  for (;;) {
    const refusal = await attempt(run);
    if (refusal === null) return;
    const hold = { loading: whileLoading, busy: whileBusy }[refusal.kind];
    if (hold) {
      run.reply.end(null);
      if (await hold(run.controller.signal, refusal, stop)) continue;
    }
    takeBack(run);
    tell(run, refusal);
    return;
  }
}

/** One request; null when a reply came of it (however that ended), else why there is none. */
async function attempt(run) {
  const body = { message: run.text, stream: true, ...knobs.values() };
  if (state.conversation) body.conversation_id = state.conversation;
  if (run.again) body.again = true;
  let response;
  try {
    response = await fetch("/chat", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: run.controller.signal,
    });
  } catch {
    return { kind: run.controller.signal.aborted ? "cancelled" : "gone" };
  }
  if (!response.ok) {
    const told = await response.json().catch(() => ({ detail: response.statusText }));
    return { kind: "refused", status: response.status, ...told };
  }
  return receive(run, response);
}

async function receive(run, response) {
  const { reply } = run;
  const speech = setTimeout(() => say(`${reply.name} is replying`), 1000);
  try {
    for await (const { event, data } of read(response)) {
      if (event === "start") begun(run, data);
      else if (event === "text") {
        run.question?.setAttribute("data-answered", "");
        reply.text(data);
      } else if (event === "block") reply.block(data);
      else if (event === "done") return finished(run, data);
      else if (event === "error") return failed(run, data);
    }
  } catch {
    // The connection broke, or Stop was pressed: told apart below.
  } finally {
    clearTimeout(speech);
  }
  if (!run.controller.signal.aborted) return broken(run);
  if (!reply.started) return { kind: "cancelled" };
  const after = plural(reply.tokens, "token");
  reply.close({ ended: { icon: "stop", text: `Stopped by you after ${after}.` } });
  return null;
}

function begun(run, data) {
  run.reply.start(data);
  if (!run.again) {
    state.asked.push(run.text);
    run.question.id = `m${data.question}`;
  }
  showContext(data.context);
  thread.drawCut(data.context.dropped);
  if (state.conversation !== data.conversation) {
    state.conversation = data.conversation;
    history.replaceState(null, "", `/c/${data.conversation}`);
    knobs.moveTo(data.conversation);
    memory.set("draft:new", null);
    saveDraft();
  }
  sidebar.refresh(state.conversation).then(showTitle, () => {});
}

function finished(run, data) {
  run.reply.close(data);
  showContext(data.context);
  noteSwap(run);
  say(spoken(run.reply.body.innerText));
  return null;
}

function failed(run, { kind, message }) {
  if (kind === "stopping") return broken(run);
  const help = kind === "memory" ? " A shorter “Longest reply” may help." : "";
  run.reply.close();
  run.reply.note({
    tone: "no",
    icon: "warn",
    title: `The reply failed after ${plural(run.reply.tokens, "token")}: ${message}.`,
    text: `What arrived is kept.${help}`,
    actions: { "Ask again": askAgain },
  });
  return null;
}

function broken(run) {
  if (!run.reply.started) return { kind: "gone" };
  run.reply.close();
  run.reply.note({
    tone: "no",
    icon: "warn",
    title: `The connection broke after ${plural(run.reply.tokens, "token")}.`,
    text: "What arrived is kept.",
    actions: { "Ask again": askAgain },
  });
  return null;
}

function noteSwap(run) {
  if (!run.swapped) return;
  const live = run.swapped.live;
  run.reply.note({
    icon: "rings",
    title: `Checkpoint ${live} went live while this reply was being written.`,
    text: `The reply was finished by ${run.reply.name.toLowerCase()}, which began it.`,
    actions: { [`Ask ${live}`]: askAgain },
  });
}

function askAgain() {
  const last = state.asked.at(-1);
  if (last) send(last, { again: true });
}

function stop() {
  state.run?.controller.abort();
}

// When no reply came of it -----------------------------------------------------------------------

/** Nothing came of it: the question leaves the thread and its text returns to the box. */
function takeBack(run) {
  run.reply.remove();
  if (run.again) return;
  run.question.remove();
  setBox(box.value.trim() ? `${run.text}\n${box.value}` : run.text);
  if (thread.isEmpty()) empty.hidden = false;
}

function tell(run, { kind, status, detail }) {
  if (run.controller.signal.aborted) return;
  const retry = run.again ? askAgain : () => send(box.value);
  if (kind === "gone") showGone(retry);
  else if (kind === "context") tellTooLong(detail);
  else if (kind === "conversation") {
    refuse("This conversation no longer exists.", "Your text is kept.", { "Ask in a new chat": askAnew });
  } else if (status === 413) {
    refuse("This message is too large.", "Shorten it, and send it again.");
  } else if (status === 422 && knobs.refuse(detail.split(":")[0], detail.replace(/^\w+: /, ""))) {
    return;
  } else refuse("The server did not take this message.", `It says: ${detail}.`, { "Try again": retry });
}

function refuse(title, text, actions = {}) {
  notices.show("refused", { tone: "no", icon: "warn", title, text, actions });
}

function tellTooLong(detail) {
  const [prompt, longest, limit] = (detail.match(/\d+/g) ?? []).map(Number);
  const left = limit - prompt;
  const actions = {};
  if (left >= 16) {
    actions[`Shorten the reply to ${number(left)}`] = () => {
      knobs.shorten(left);
      send(box.value);
    };
  }
  notices.show("long", {
    tone: "no",
    icon: "warn",
    title: "This message is too long for the model.",
    text: `Message ${number(prompt)} + longest reply ${number(longest)} is more than ${number(limit)} tokens.`,
    actions,
  });
}

function askAnew() {
  const text = box.value;
  state.conversation = null;
  $("#thread").replaceChildren();
  history.replaceState(null, "", "/");
  send(text);
}

function showGone(retry) {
  notices.show("gone", {
    tone: "no",
    icon: "warn",
    title: "The server does not answer.",
    text: "Your text is kept in this browser. Is python server.py running?",
    actions: { "Try now": retry },
  });
}

// What the page shows besides the thread --------------------------------------------------------

function showBusy(busy) {
  go.classList.toggle("stop", busy);
  go.setAttribute("aria-label", busy ? "Stop (Esc)" : "Send");
  go.title = busy ? "Stop (Esc)" : "Send (Enter)";
  setIcon($("svg", go), busy ? "stop" : "send");
}

function showContext({ used, limit, room }) {
  const meter = $("#context");
  meter.hidden = limit === null; // no one knows it
  $("progress", meter).max = limit;
  $("progress", meter).value = used;
  $(".used", meter).textContent = number(used);
  $(".limit", meter).textContent = number(limit);
  knobs.setRoom(room);
}

function showTitle(title) {
  if (!title) return;
  $("h1").textContent = title;
  document.title = `${title} · Autodidact`;
}

function showModel(model) {
  const chip = $("#answers");
  $(".wide", chip).textContent = model.chip[0];
  $("b", chip).textContent = model.chip[1];
  chip.title = model.name;
  for (const old of $$("#notices [data-key^=model]")) notices.hide(old.dataset.key);
  model.notes.forEach((note, i) => {
    const seen = `seen:${note.title}`;
    if (sessionStorage.getItem(seen)) return;
    const dismiss = () => sessionStorage.setItem(seen, "yes");
    notices.show(`model${i}`, { ...note, dismiss });
  });
}

async function refreshEmpty() {
  const response = await fetch("/empty").catch(() => null);
  if (response?.ok) empty.innerHTML = await response.text();
}

function say(words) {
  $("#says").textContent = words;
}

/** What a screen reader hears of a finished reply: all of it if it is short. */
function spoken(text) {
  const words = text.trim().split(/\s+/);
  if (words.length <= 60) return text.trim();
  const sentence = text.trim().match(/^[\s\S]*?[.!?](?=\s|$)/)?.[0] ?? words.slice(0, 30).join(" ");
  return `${sentence} Alt+Shift+R goes to the reply.`;
}

function setBox(text) {
  box.value = text;
  saveDraft();
}

function saveDraft() {
  memory.set(`draft:${state.conversation ?? "new"}`, box.value);
}

// Live events -----------------------------------------------------------------------------------

function onModel(model) {
  const wasReady = state.model.state === "ready";
  state.model = model;
  showModel(model);
  knobs.setLookup(model.lookup);
  if (model.state === "ready") modelReady();
  if (wasReady !== (model.state === "ready")) refreshEmpty();
}

function onVersion(version) {
  if (thread.isEmpty() && !state.run) {
    refreshEmpty();
  } else {
    thread.addLive(version, state.asked.length && !state.run ? askAgain : null);
  }
  if (state.run) state.run.swapped = version;
  say(`${version.title}. ${version.text}`);
}

/** What it means that a cycle was refused, and what comes next, until the reader dismisses it. */
function showRefusal(refused) {
  const seen = refused && `refused:${refused.cycle}`;
  if (!refused || sessionStorage.getItem(seen)) {
    notices.hide("refusal");
  } else if (refused.title !== state.refusal || !notices.shown("refusal")) {
    const dismiss = () => sessionStorage.setItem(seen, "yes");
    notices.show("refusal", { ...refused, tone: "info", icon: "redo", dismiss });
  } else {
    notices.setText("refusal", refused.text);
  }
  state.refusal = refused?.title;
}

function onLearner(learner, news = false) {
  sidebar.showLearner(learner);
  const bar = $("progress", empty);
  showRefusal(learner.refused);
  if (learner.state !== state.learner || news) {
    if (!empty.hidden && !state.model.live) refreshEmpty();
  } else if (bar) {
    bar.value = learner.share;
    bar.setAttribute("aria-label", learner.line);
    $(".cycle p", empty).textContent = learner.line;
  }
  state.learner = learner.state;
}

const reconnect = follow(
  {
    hello({ live, model, learner }) {
      const missed = state.model.state === "ready" && state.model.live !== live.version;
      onModel(model);
      onLearner(learner);
      if (missed) onVersion({ ...live, live: live.version });
    },
    health: onModel,
    version: onVersion,
    learner: (learner) => onLearner(learner, true),
    progress: onLearner,
  },
  (gone) => {
    if (!gone) notices.hide("gone");
    else if (!notices.shown("gone")) showGone(() => reconnect());
  },
);

// Hands on the keyboard -------------------------------------------------------------------------

$("#form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (state.run) stop();
  else send(box.value);
});

box.addEventListener("input", saveDraft);
box.addEventListener("keydown", (event) => {
  if (event.isComposing || event.keyCode === 229) return;  // 229: Safari's Enter that ends it
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    send(box.value);
  } else if (event.key === "ArrowUp" && box.value === "" && state.asked.length) {
    event.preventDefault();
    setBox(state.asked.at(-1));
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    if ($(":popover-open")) return; // the browser closes it
    if (state.run) {
      event.preventDefault();
      stop();
    } else if (!sidebar.closeDrawer()) knobs.close();
  } else if (event.ctrlKey && event.shiftKey && event.code === "KeyO") {
    event.preventDefault();
    location.assign("/");
  } else if (event.altKey && event.shiftKey && event.code === "KeyR") {
    event.preventDefault();
    $$("#thread .ai").at(-1)?.focus();
  }
});

empty.addEventListener("click", (event) => {
  const ask = event.target.closest("[data-ask]");
  if (ask) send(ask.dataset.ask);
});

$("#thread").addEventListener("click", async (event) => {
  const copy = event.target.closest(".copy");
  if (copy) {
    await navigator.clipboard.writeText($(".body", copy.closest(".ai")).innerText);
    setIcon($("svg", copy), "check");
    copy.setAttribute("aria-label", "Copied");
    setTimeout(() => {
      setIcon($("svg", copy), "copy");
      copy.setAttribute("aria-label", "Copy");
    }, 2000);
  } else if (event.target.closest(".again")) askAgain();
});

// Passages that open are read from their heading on; closed, the browser returns to their pill.
$("#thread").addEventListener(
  "toggle",
  (event) => {
    if (event.newState === "open") event.target.focus();
  },
  true,
);

knobs.begin(boot);
showModel(boot.health);
box.value = memory.get(`draft:${state.conversation ?? "new"}`) ?? "";
thread.toBottom();
if (!matchMedia("(pointer: coarse)").matches) box.focus(); // on a phone the keyboard would pop up
