"""What the page says about the learner and about checkpoints. Pure functions over plain data.

The words of a claim are a ladder: queued, read, studying, measuring, learned. "Learned" is never
said of what was only trained.
"""

from __future__ import annotations

import re
import time
from typing import Any

from autodidact.types.chat import ModelStatus
from autodidact.types.report import CycleReport
from autodidact.types.status import OFFLINE, LearnerStatus

NOT_RUNNING = {
    "title": "The learner is not running",
    "detail": "Chat works; nothing new is being learned. Start it with python web_learner.py.",
}
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
    step, of, eta = status.step, status.of, status.eta_s
    if state in ("training", "measuring") and step is not None and of:
        detail = f"Step {number(step)} of {number(of)}"
        if eta:
            detail += f", {span(eta)} left"
    return {"title": title, "detail": detail}


def _idle(status: LearnerStatus, now: float) -> dict[str, str]:
    queued, next_at = status.queued or 0, status.next_at
    if next_at and next_at > now:
        title = f"Reads again in {span(next_at - now)}"
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
    return f"{line}: step {number(step)} of {number(of)}" if step is not None and of else line


def share(status: LearnerStatus) -> float:
    """How much of the present phase is done, 0 to 1."""
    step, of = status.step, status.of
    if status.state not in ("training", "measuring") or step is None or not of:
        return 0.0
    return min(1.0, max(0.0, float(step) / float(of)))


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
        text += f"The first cycle reads {plural(documents, 'document')}. "
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
