"""What the page says about the learner and about checkpoints. Pure functions over plain data.

The words of a claim are a ladder: queued, read, studying, measuring, learned. "Learned" is never
said of what was only trained.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from autodidact.reports.cards import why_refused
from autodidact.types.chat import ModelStatus
from autodidact.types.report import CycleReport
from autodidact.types.status import OFFLINE, WAITS, LearnerStatus

NOT_RUNNING = {
    "title": "The learner is not running",
    "detail": "Chat works; nothing new is being learned. Start it with python web_learner.py.",
}
_STEPS = {"loading": "Loading the model", "planning": "Timing a few steps, to see what fits"}
_PHASES = {
    "fetching": ("Reading", "Looking for something new"),
    "preparing": ("Preparing", "Making questions to study and to be asked"),
    "training": ("Studying", ""),
    "measuring": ("Measuring", "Asking what it has not seen in these words"),
    "publishing": ("Publishing", "It has passed"),
}


def number(value: float) -> str:
    return f"{value:,.0f}"


def plural(count: int, noun: str) -> str:
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def span(seconds: float) -> str:
    """A length of time to one unit: 40 s, 2 min, 3 h."""
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    if seconds < 3600 - 30:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h"


def countdown(seconds: float) -> str:
    """A length of time that is watched: 1:58."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{number(minutes)}:{rest:02d}"


def name_of(version: int | None, answers: str = "") -> str:
    """What a reply is signed with; `answers` where there are no versions."""
    if version is None and answers:
        return answers
    return f"Checkpoint {version}" if version else "Base"


def stats(tok_s: float | None, first_token_ms: int | None) -> str:
    """How fast a reply came: "28 tok/s, first token 0.21 s", as far as it is known."""
    parts = [f"{tok_s:,.{0 if tok_s >= 10 else 1}f} tok/s"] if tok_s is not None else []
    if first_token_ms is not None:
        parts.append(f"first token {first_token_ms / 1000:.2f} s")
    return ", ".join(parts)


def ended(finish: str, text: str, longest: int, tokens: int) -> dict[str, str] | None:
    """What is said below a reply that did not simply end; None if it did."""
    if finish == "stopped":
        return {"icon": "stop", "text": f"Stopped by you after {plural(tokens, 'token')}."}
    if finish == "failed":
        return {
            "icon": "warn",
            "text": f"The reply failed after {plural(tokens, 'token')}. What arrived is kept.",
        }
    if finish == "length":
        return {
            "icon": "edit",
            "text": f"Cut off at {plural(longest, 'token')}, the longest reply you set.",
        }
    if finish == "time":
        return {
            "icon": "clock",
            "text": f"Out of time after {plural(tokens, 'token')}. What arrived is kept.",
        }
    if finish == "open":
        return {"icon": "rings", "text": "No reply yet."}
    if not text.strip():
        return {"icon": "rings", "text": "The model ended its reply without a word."}
    return None


def chip(model: ModelStatus) -> list[str]:
    """Who answers now, for the header: a part that narrow pages leave out, and the rest."""
    if model.state == "loading":
        return ["", "Loading"]
    if model.state == "failed":
        return ["", "No model"]
    if model.live is None:
        return ["", model.name]
    return ["Newest, ", str(model.live)] if model.live else ["", "Base"]


def notes(model: ModelStatus) -> list[dict[str, str]]:
    """Lasting notices about the model: tone, icon, what happened, what that means."""
    found = []
    if model.state == "failed":
        found.append(_note("no", "warn", "The model did not load.", _sentence(model.reason)))
    if model.fallback:
        text = _sentence(model.choice[:1].upper() + model.choice[1:])
        found.append(_note("info", "file", "Answered by the small bundled model.", text))
    if model.rejected:
        who = f"{model.live} goes on serving" if model.live else "The base model goes on serving"
        found.append(
            _note("no", "warn", _rejection(model.rejected), f"{who}. Nothing you asked is lost.")
        )
    return found


def _note(tone: str, icon: str, title: str, text: str) -> dict[str, str]:
    return {"tone": tone, "icon": icon, "title": title, "text": text}


def _rejection(text: str) -> str:
    """The engine's line, such as "000044 rejected: sha256 mismatch; serving 000043"."""
    line = text.partition("; serving")[0].strip().rstrip(".")
    found = re.match(r"(?:checkpoint |version )?0*(\d+)(?: rejected| did not load)?:? +(.+)", line)
    if found:
        return f"Checkpoint {found[1]} did not load: {found[2]}."
    return f"A checkpoint did not load: {line}."


def learner(status: LearnerStatus, now: float) -> dict[str, str]:
    """Title and detail of the learner's status line."""
    state, cycle = status.state, status.cycle
    if state == OFFLINE:
        return NOT_RUNNING
    if state == "idle":
        return _idle(status, now)
    title, detail = _PHASES.get(state, (state.capitalize(), ""))
    if cycle:
        title = f"{title}, cycle {cycle}"
    detail = _STEPS.get(status.phase or "", detail) if state == "preparing" else detail
    if state in ("training", "measuring") and status.step is not None and status.of:
        detail = f"Step {number(status.step)} of {number(status.of)}"
    if status.waits:
        detail = f"{detail}; {WAITS}" if detail.startswith("Step") else WAITS.capitalize()
        return {"title": title, "detail": detail}
    return {"title": title, "detail": ", ".join(part for part in (detail, _left(status)) if part)}


def _left(status: LearnerStatus) -> str:
    """How long the phase and the cycle still take, as far as it is known: "1:58 left, 3:10 of the
    cycle"."""
    eta, left = status.eta_s, status.left_s
    parts = [f"{countdown(eta)} left"] if eta else []
    if left is not None and left < 0:
        parts.append(f"{countdown(-left)} over the cycle's time")
    elif left is not None:
        parts.append(f"{countdown(left)} of the cycle" + ("" if parts else " left"))
    return ", ".join(parts)


def _idle(status: LearnerStatus, now: float) -> dict[str, str]:
    queued, next_at = status.queued or 0, status.next_at
    if next_at and next_at > now:
        title = f"{'Next cycle' if queued else 'Reads again'} in {span(next_at - now)}"
    else:
        title = "Next cycle soon" if queued else "Nothing to learn yet"
    detail = f"{plural(queued, 'document')} queued" if queued else "Nothing is queued"
    verdict = status.verdict
    if verdict and not verdict.ok:
        detail += f"; cycle {verdict.cycle} was not published"
        if verdict.reasons:
            detail += f": {verdict.reasons[0].line}"
    return {"title": title, "detail": detail}


def cycle_line(status: LearnerStatus) -> str:
    """One line under the first cycle's progress bar."""
    state, step, of = status.state, status.step, status.of
    cycle = status.cycle or 1
    if state in (OFFLINE, "idle"):
        return ""
    line = f"Cycle {cycle}, {state}"
    counted = state in ("training", "measuring") and step is not None and of
    done = f"step {number(step or 0)} of {number(of or 0)}" if counted else ""
    left = WAITS if status.waits else _left(status)
    told = ", ".join(part for part in (done, left) if part)
    return f"{line}: {told}" if told else line


def share(status: LearnerStatus) -> float:
    """How much of the cycle's time is gone, 0 to 1; of the present phase where that is unknown."""
    step, of = status.step, status.of
    if status.left_s is not None and status.cycle_s:
        return min(1.0, max(0.0, 1 - status.left_s / status.cycle_s))
    if status.state not in ("training", "measuring") or step is None or not of:
        return 0.0
    return min(1.0, max(0.0, float(step) / float(of)))


def refused(
    status: LearnerStatus, states: Mapping[str, int], untried: int, now: float
) -> dict[str, str] | None:
    """What it means that the last cycle was not published, and what comes next: title and text;
    None if it was, or where nothing is known of it. `states` counts the documents that it taught by
    what they are now, `untried` those in the queue that come before them.
    """
    report = status.verdict
    if report is None or report.ok:
        return None
    who = "The first cycle" if report.cycle == 1 else f"Cycle {report.cycle}"
    what = "was not finished" if report.state == "interrupted" else "was not published"
    why = _sentence(why_refused(report.state, report.reasons))
    answers = f"checkpoint {report.parent}" if report.parent else "the base model"
    text = [f"Nothing is lost: {answers} goes on answering.", _next(status, states, untried, now)]
    if gone := states.get("given_up", 0):
        text.append(
            f"{plural(gone, 'document')} of it {'was' if gone == 1 else 'were'} refused too often "
            "and will not be tried again, unless you say: python -m autodidact retry."
        )
    return {
        "cycle": str(report.cycle),
        "title": f"{who} {what}: {why}",
        "text": " ".join(part for part in text if part),
    }


def _next(status: LearnerStatus, states: Mapping[str, int], untried: int, now: float) -> str:
    """When the documents of a refused cycle are tried again."""
    report = status.verdict
    running = status.state not in ("idle", "fetching", OFFLINE)
    cycle = status.cycle or 0
    begun = running and report is not None and cycle > report.cycle
    studying, queued = states.get("studying", 0), states.get("queued", 0)
    behind = f", after {plural(untried, 'document')} not tried yet" if untried else ""
    if begun and studying:
        return f"Cycle {cycle} runs now and trains on {number(studying)} of its documents again."
    if status.state == OFFLINE:
        when = "When the learner runs again, the next cycle begins"
    elif begun:
        when = f"Cycle {cycle} runs now"
    elif status.state == "idle" and status.next_at and status.next_at > now:
        when = f"The next cycle begins at {clock(status.next_at, now)}"
    else:
        when = "The next cycle begins now"
    if queued and begun:
        return f"{when}; these documents are in the queue again{behind}."
    if queued:
        return f"{when} and trains on these documents again{behind}."
    return "" if states else f"{when}."


def proof(report: CycleReport | None) -> str:
    """What a version has shown: "31 of 40 questions on 8 new documents"; "" without a report."""
    if report is None or report.figures is None:
        return ""
    learned = report.figures.taught
    text = f"{number(learned.k)} of {plural(learned.n, 'question')}"
    if report.documents:
        text += f" on {plural(len(report.documents), 'new document')}"
    return text


def went_live(version: int, previous: int, report: CycleReport | None) -> dict[str, str]:
    """The notice of a version that answers from now on."""
    if not version:
        return {"title": "The base model answers now", "text": "Replies from here on are its own."}
    shown = proof(report)
    if not shown or version < previous:
        text = "Replies from here on are its own."
    else:
        text = f"It passes {shown}{_before(report)}. Replies from here on are its own."
    return {"title": f"{name_of(version)} is live", "text": text}


def _before(report: CycleReport | None) -> str:
    before = report.figures.taught.before if report and report.figures else None
    if report is None or before is None:
        return ""
    who = f"checkpoint {report.parent}" if report.parent else "the base model"
    return f"; {who} passed {number(before)}"


def suggestions(report: CycleReport | None) -> list[dict[str, str]]:
    """Up to three questions that the live version should know, with where it learned them."""
    given = report.suggestions if report else ()
    return [{"question": s.question, "source": s.source} for s in given if s.question][:3]


def empty(
    model: ModelStatus, report: CycleReport | None, status: LearnerStatus, now: float
) -> dict[str, Any]:
    """The page before the first question: title, text, suggestions, whether to show progress."""
    if model.state == "loading":
        return _empty(
            "The model is loading", "Write already: your message goes out as soon as it is ready."
        )
    if model.state == "failed":
        return _empty(
            "The model did not load",
            f"{_sentence(model.reason)} Nothing can be asked until it does.",
        )
    if model.live is None:
        return _empty("Ask something", f"{model.name} answers.")
    if not model.live:
        return {**_empty("It has not learned anything yet", _first_cycle(status)), "progress": True}
    shown = proof(report)
    text = f"{name_of(model.live)}, live since {clock(model.since, now)}"
    text += f", passes {shown}." if shown else "."
    return {**_empty("Ask what it has just learned", text), "asks": suggestions(report)}


def _empty(title: str, text: str) -> dict[str, Any]:
    return {"title": title, "text": text, "asks": [], "progress": False}


def _first_cycle(status: LearnerStatus) -> str:
    text = "You can chat with the base model now. "
    if status.state == OFFLINE:
        return text + "The learner is not running. Start it with python web_learner.py."
    documents = status.documents or status.queued
    if documents:
        which = f"Cycle {status.cycle}" if (status.cycle or 1) > 1 else "The first cycle"
        text += f"{which} reads {plural(documents, 'document')}. "
    return text + "Nothing is published unless it is proved."


def clock(at: float, now: float) -> str:
    """14:02, with the date if it is not today's; in the server's time zone."""
    then, today = time.localtime(at), time.localtime(now)
    same_day = then[:3] == today[:3]
    return time.strftime("%H:%M" if same_day else "%d %b %Y, %H:%M", then).lstrip(
        "0" if not same_day else ""
    )


def _sentence(text: str) -> str:
    text = text.strip() or "The server's log says why."
    return text if text.endswith((".", "!", "?")) else text + "."
