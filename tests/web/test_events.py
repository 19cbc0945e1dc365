from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from autodidact.types.cycle import Reason
from autodidact.types.report import CycleReport
from autodidact.web import events as module
from autodidact.web.events import LearnerView, read_report
from tests.web.fakes import Learner, QueueGenerator, publish
from tests.web.wire import Event, events, until


@pytest.fixture
def stream(client: httpx.Client) -> Iterator[Iterator[Event]]:
    with client.stream("GET", "/events") as response:
        yield events(response)


def test_the_first_event_is_a_snapshot(stream: Iterator[Event]) -> None:
    hello = until(stream, "hello")
    assert hello["live"]["version"] == 42
    assert (hello["model"]["state"], hello["model"]["name"]) == ("ready", "tiny-chat")
    assert hello["learner"]["title"] == "The learner is not running"


def test_a_new_version_is_told_with_what_it_learned(
    home: Path, generator: QueueGenerator, stream: Iterator[Event]
) -> None:
    until(stream, "hello")
    publish(home, 43)
    generator.set(live=43)
    version = until(stream, "version")
    assert (version["live"], version["previous"], version["why"]) == (43, 42, "published")
    assert version["title"] == "Checkpoint 43 is live"
    assert version["text"].startswith("It passes 31 of 40 questions on 8 new documents;")
    assert len(version["suggestions"]) == 2
    generator.set(live=42)
    assert until(stream, "version")["why"] == "rolled_back"


def test_the_first_load_is_no_new_version(
    home: Path, generator: QueueGenerator, client: httpx.Client
) -> None:
    generator.set(state="loading", live=0)
    with client.stream("GET", "/events") as response:
        stream = events(response)
        if until(stream, "hello")["model"]["state"] != "loading":
            until(stream, "health")
        generator.set(state="ready", live=42)
        assert until(stream, "health")["live"] == 42
        generator.set(live=43)
        assert [next(stream)[0], next(stream)[0]] == ["health", "version"]


def test_what_the_learner_does_is_told_as_it_changes(
    learner: Learner, stream: Iterator[Event]
) -> None:
    assert until(stream, "hello")["learner"]["state"] == "offline"
    learner.say("training", cycle=43, step=1, of=10, eta_s=90)
    assert until(stream, "learner")["state"] == "training"
    learner.say("training", cycle=43, step=5, of=10, eta_s=40)
    progress = until(stream, "progress")
    assert (progress["step"], progress["share"]) == (5, 0.5)
    assert progress["detail"] == "Step 5 of 10, 0:40 left"
    learner.say(
        "idle",
        cycle=43,
        verdict=CycleReport(43, "rejected", 9, reasons=(Reason("kept", "forgot"),)),
    )
    assert until(stream, "verdict")["cycle"] == 43


def test_readers_get_the_newest_state_and_no_backlog() -> None:
    reader = module._Listener()
    for n in range(5):
        reader.put("progress", f"p{n}".encode())
    reader.put("learner", b"l")
    reader.put("progress", b"p5")
    assert b"".join(reader._waiting.values()) == b"lp5"


def test_a_learner_that_has_gone_silent_is_offline(tmp_path: Path) -> None:
    view = LearnerView(tmp_path / "learner.db")
    assert view.status(0).state == "offline"  # no file
    learner = Learner(tmp_path)
    assert view.status(0).state == "offline"  # no word
    learner.say("idle", queued=2, documents=2)
    status = view.status(time.time())
    assert (status.state, status.queued, status.documents) == ("idle", 2, 2)
    assert view.status(status.updated_at + 16).state == "offline"
    assert view.status(status.updated_at - 16).state == "offline", (
        "said before the clock was put back"
    )
    learner.say("stopped")
    assert view.status(0).state == "offline"
    learner.close()


def test_a_damaged_ledger_is_offline(tmp_path: Path) -> None:
    (tmp_path / "learner.db").write_bytes(b"not a database at all" * 100)
    assert LearnerView(tmp_path / "learner.db").status(0).state == "offline"


def test_the_report_of_a_version(tmp_path: Path) -> None:
    publish(tmp_path, 42)
    report = read_report(tmp_path, 42)
    assert report is not None
    assert report.figures.taught.k == 31
    assert read_report(tmp_path, 41) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"report": 3}', "{}", "[" * 100_000, "\xff"])
def test_an_odd_manifest_has_no_report(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "versions" / "000042"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    assert read_report(tmp_path, 42) is None


def test_a_look_that_fails_is_survived(
    generator: QueueGenerator,
    stream: Iterator[Event],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    until(stream, "hello")

    def broken(*_: object) -> None:
        monkeypatch.undo()
        raise RuntimeError("once")

    monkeypatch.setattr(LearnerView, "status", broken)
    generator.set(live=43)
    assert until(stream, "version")["live"] == 43


def test_frames_are_json_lines() -> None:
    frame = module.encode("x", {"text": "a\n\nb\u2028"}, "1-2").decode()
    event, data, id_, *end = frame.split("\n")
    assert (event, id_, end) == ("event: x", "id: 1-2", ["", ""])
    assert data.startswith("data: ")
    assert json.loads(data.removeprefix("data: ")) == {"text": "a\n\nb\u2028"}
