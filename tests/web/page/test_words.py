from __future__ import annotations

import time
from dataclasses import replace

import pytest

from autodidact.types.chat import ModelStatus
from autodidact.types.cycle import Reason
from autodidact.types.report import CycleReport, Suggestion, TaughtDocument
from autodidact.types.status import LearnerStatus
from autodidact.web.page import words
from tests.ledgers import figures

NOW = time.mktime((2026, 11, 20, 14, 30, 0, 0, 0, -1))
REPORT = CycleReport(
    43, "published", 9,
    parent=42,
    figures=figures(31, 40, before=4),
    documents=tuple(TaughtDocument(n, "", "") for n in range(8)),
    suggestions=(Suggestion("Who?", "library/x.md"),),
)  # fmt: skip


def model(**values: object) -> ModelStatus:
    given = {
        "state": "ready",
        "name": "tiny",
        "fallback": False,
        "context": 1024,
        "live": 43,
        "since": NOW - 1680,
    }
    return ModelStatus(**{**given, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "title", "detail"),
    [
        (
            {"state": "training", "cycle": 44, "step": 312, "of": 480, "eta_s": 118},
            "Studying, cycle 44",
            "Step 312 of 480, 1:58 left",
        ),
        (
            {"state": "training", "step": 3, "of": 48, "eta_s": 118, "left_s": 190},
            "Studying",
            "Step 3 of 48, 1:58 left, 3:10 of the cycle",
        ),
        (
            {"state": "preparing", "phase": "loading", "cycle": 1, "left_s": 275},
            "Preparing, cycle 1",
            "Loading the model, 4:35 of the cycle left",
        ),
        (
            {"state": "preparing", "phase": "planning", "cycle": 1, "left_s": -40},
            "Preparing, cycle 1",
            "Timing a few steps, to see what fits, 0:40 over the cycle's time",
        ),
        (
            {"state": "training", "cycle": 44, "step": 312, "of": 480, "waits": True},
            "Studying, cycle 44",
            "Step 312 of 480; waits for the chat",
        ),
        (
            {"state": "preparing", "cycle": 44, "step": 128, "of": 6000, "waits": True},
            "Preparing, cycle 44",
            "Waits for the chat",
        ),
        (
            {"state": "measuring", "cycle": 44},
            "Measuring, cycle 44",
            "Asking what it has not seen in these words",
        ),
        (
            {"state": "idle", "queued": 5, "next_at": NOW + 240},
            "Next cycle in 4 min",
            "5 documents queued",
        ),
        (
            {"state": "idle", "queued": 0, "next_at": NOW + 240},
            "Reads again in 4 min",
            "Nothing is queued",
        ),
        ({"state": "idle", "queued": 1}, "Next cycle soon", "1 document queued"),
        ({"state": "idle", "queued": 0}, "Nothing to learn yet", "Nothing is queued"),
        (
            {
                "state": "idle",
                "queued": 2,
                "verdict": CycleReport(
                    44, "rejected", 9, reasons=(Reason("", "it forgot too much"),)
                ),
            },
            "Next cycle soon",
            "2 documents queued; cycle 44 was not published: it forgot too much",
        ),
        (
            {"state": "offline"},
            "The learner is not running",
            "Chat works; nothing new is being learned. Start it with python web_learner.py.",
        ),
    ],
)
def test_the_learners_line(status: dict[str, object], title: str, detail: str) -> None:
    assert words.learner(LearnerStatus(**status), NOW) == {"title": title, "detail": detail}


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (40, "40 s"), (59.9, "1 min"), (118, "2 min"), (7300, "2 h")],
)
def test_spans_are_said_to_one_unit(seconds: float, said: str) -> None:
    assert words.span(seconds) == said


def test_a_version_that_goes_live_says_what_it_learned() -> None:
    assert words.went_live(43, 42, REPORT) == {
        "title": "Checkpoint 43 is live",
        "text": "It passes 31 of 40 questions on 8 new documents; checkpoint 42 passed 4. "
        "Replies from here on are its own.",
    }
    first = words.went_live(1, 0, replace(REPORT, parent=None))
    assert "; the base model passed 4." in first["text"]


@pytest.mark.parametrize("report", [None, CycleReport(43, "published", 9)])
def test_a_version_without_a_report_claims_nothing(report: CycleReport | None) -> None:
    assert words.went_live(43, 42, report)["text"] == "Replies from here on are its own."
    assert words.suggestions(report) == []


def test_going_back_claims_nothing_new() -> None:
    assert "passes" not in words.went_live(42, 43, REPORT)["text"]
    assert words.went_live(0, 43, None)["title"] == "The base model answers now"


def test_the_empty_page_before_anything_was_learned() -> None:
    said = words.empty(model(live=0), None, LearnerStatus("training", documents=40), NOW)
    assert said["title"] == "It has not learned anything yet"
    assert said["progress"]
    assert "The first cycle reads 40 documents." in said["text"]
    offline = words.empty(model(live=0), None, LearnerStatus("offline"), NOW)
    assert "python web_learner.py" in offline["text"]


def test_the_empty_page_of_a_version() -> None:
    said = words.empty(model(), REPORT, LearnerStatus("idle"), NOW)
    assert said["text"] == (
        "Checkpoint 43, live since 14:02, passes 31 of 40 questions on 8 new documents."
    )
    assert said["asks"] == [{"question": "Who?", "source": "library/x.md"}]
    older = words.empty(model(since=NOW - 12 * 86400), None, LearnerStatus("idle"), NOW)
    assert older["text"] == "Checkpoint 43, live since 8 Nov 2026, 14:30."


def test_the_empty_page_without_a_model() -> None:
    assert (
        "loading" in words.empty(model(state="loading"), None, LearnerStatus("idle"), NOW)["title"]
    )
    failed = words.empty(model(state="failed", reason="no space"), None, LearnerStatus("idle"), NOW)
    assert failed["text"].startswith("no space.")


def test_lasting_notices() -> None:
    assert words.notes(model()) == []
    fallback, rejected = words.notes(
        model(
            fallback=True,
            choice="the Hub was out of reach; for a larger one: pip install it",
            rejected="000044 rejected: sha256 mismatch adapter_model.safetensors",
        )
    )
    assert fallback["title"] == "Answered by the small bundled model."
    assert fallback["text"] == "The Hub was out of reach; for a larger one: pip install it."
    assert rejected["title"] == (
        "Checkpoint 44 did not load: sha256 mismatch adapter_model.safetensors."
    )
    assert rejected["text"] == "43 goes on serving. Nothing you asked is lost."
    odd = words.notes(model(rejected="something else", live=0))[0]
    assert odd["title"] == "A checkpoint did not load: something else."


def test_how_replies_end() -> None:
    assert words.ended("stop", "text", 512, 9) is None
    assert words.ended("stop", " ", 512, 0) is not None
    stopped = words.ended("stopped", "x", 512, 41)
    cut = words.ended("length", "x", 512, 512)
    assert stopped is not None
    assert stopped["text"] == "Stopped by you after 41 tokens."
    assert cut is not None
    assert cut["text"] == "Cut off at 512 tokens, the longest reply you set."


def test_figures_of_a_reply() -> None:
    assert words.stats(28.2, 210) == "28 tok/s, first token 0.21 s"
    assert words.stats(3.44, 1210) == "3.4 tok/s, first token 1.21 s"
    assert words.stats(None, 10) == "first token 0.01 s"
    assert words.stats(None, None) == ""


def test_shares_and_lines() -> None:
    training = LearnerStatus("training", cycle=1, step=96, of=480)
    assert words.share(training) == 0.2
    assert words.cycle_line(training) == "Cycle 1, training: step 96 of 480"
    timed = LearnerStatus("training", cycle=1, step=96, of=480, left_s=75, cycle_s=300)
    assert words.share(timed) == 0.75
    assert words.cycle_line(timed) == "Cycle 1, training: step 96 of 480, 1:15 of the cycle left"
    loading = LearnerStatus("preparing", cycle=1, eta_s=20, left_s=275, cycle_s=300)
    assert words.cycle_line(loading) == "Cycle 1, preparing: 0:20 left, 4:35 of the cycle"
    assert words.share(LearnerStatus("measuring", left_s=-9, cycle_s=300)) == 1
    waits = replace(training, waits=True)
    assert words.cycle_line(waits) == "Cycle 1, training: step 96 of 480, waits for the chat"
    assert words.share(LearnerStatus("idle", step=5, of=5)) == 0
    assert words.cycle_line(LearnerStatus("idle")) == ""
