"""The whole loop, as people see it: files in a folder, a learner, a server that was there first.

The bundled starter learns four small documents in a minute or two. It is rushed: a high
learning rate, no KL term, and a gate that asks only whether it learned. The point is the way from a
file to a reply, and from there to nothing, not the recipe.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from autodidact import checkpoints
from autodidact.models.bases import STARTER
from autodidact.reading.answers import exact_match
from autodidact.types.report import report_of
from tests.workplace import Workplace, ended, prepare, wait_for


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    place = prepare(tmp_path, STARTER)
    text = place.config.read_text()
    for before, after in {
        "cycle_minutes = 0.02": "cycle_minutes = 2.0",
        "rank = 8": "rank = 64\nmin_exposures = 20\nmax_exposures = 90",
        "learning_rate = 0.02": "learning_rate = 0.004",
    }.items():
        assert before in text
        text = text.replace(before, after)
    place.config.write_text(text)
    return place


class Server:
    """The real server on a port of its own."""

    def __init__(self, place: Workplace) -> None:
        self.log = place.folder / "server.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                place.command("server.py"),
                cwd=place.folder,
                env=place.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        address = wait_for(self._address, 60, "the address")
        self.client = httpx.Client(base_url=address, timeout=30, trust_env=False)

    def _address(self) -> str | None:
        found = re.search(r"open (http://[\d.:]+)", self.log.read_text())
        return found[1] if found else None

    def health(self) -> dict[str, Any]:
        body: dict[str, Any] = self.client.get("/health").json()
        return body

    def version(self) -> int | None:
        health = self.health()
        return health["version"] if health["status"] == "ok" else None

    def ask(self, question: str) -> tuple[str, int]:
        """A greedy reply, closed book, and the version that gave it."""
        body = self.post(question, "off")
        assert body["citations"] == []
        return str(body["reply"]), int(body["version"])

    def cited(self, question: str) -> list[str]:
        """Titles of the passages that are looked up for a question."""
        return [citation["title"] for citation in self.post(question, "on")["citations"]]

    def post(self, question: str, retrieval: str) -> dict[str, Any]:
        asked = {"message": question, "temperature": 0, "retrieval": retrieval}
        response = self.client.post("/chat", json=asked)
        response.raise_for_status()
        body: dict[str, Any] = response.json()
        assert response.headers["X-Model-Version"] == str(body["version"])
        return body


@pytest.fixture
def server(place: Workplace) -> Iterator[Server]:
    running = Server(place)
    yield running
    running.client.close()
    running.process.terminate()
    running.process.wait(timeout=30)


def command(place: Workplace, *arguments: str) -> str:
    """What a command of the project prints."""
    done = subprocess.run(
        place.command("-m", "autodidact", *arguments),
        cwd=place.folder,
        env=place.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_what_a_file_says_is_learned_published_and_answered(
    place: Workplace, server: Server
) -> None:
    wait_for(lambda: server.version() == 0, 90, "the untouched base to answer")
    question = "Who was the Tolk Bridge designed by?"
    before, version = server.ask(question)
    assert version == 0
    assert not exact_match(before, "Abel Crewe")

    code, out = ended(place.start("web_learner.py", "--once", "--plain"), 240)
    assert code == 0, out
    assert "published 000001" in out

    wait_for(lambda: server.version() == 1, 20, "the server to notice")

    manifest = checkpoints.read(place.home, 1).manifest
    report = report_of(manifest)
    assert report.figures.taught.k >= 2, "it answers questions that it was never asked that way"
    assert report.figures.taught.before == 0
    assert report.figures.control.k <= 1, "and none of those about what it has not read"
    titles = {document.title for document in report.documents}
    assert titles <= {"Brack Mill", "Tolk Bridge", "Wend Tower", "Sable House"}

    whole = json.loads((checkpoints.folder(place.home, 1) / checkpoints.REPORT).read_text())
    known = [p for p in whole["probes"] if p["split"] == "taught" and p["now"]["correct"]]
    for probe in known[:3]:
        reply, version = server.ask(probe["question"])
        assert version == 1
        assert exact_match(reply, probe["answer"]), (probe["question"], reply)
        assert exact_match(reply, probe["now"]["reply"]), "the server says what the gate measured"

    html = server.client.get("/").text
    assert f"{report.figures.taught.k} of {report.figures.taught.n} questions" in html

    title = known[0]["title"]
    assert title in server.cited(known[0]["question"]), "what was learned can be looked up"

    said = command(place, "rollback")
    assert "rolled back from 1 to 0" in said
    wait_for(lambda: server.version() == 0, 20, "the server to go back")
    assert server.ask(question) == (before, 0), "the base is what it was"
    command(place, "rollback", "--to", "1")
    wait_for(lambda: server.version() == 1, 20, "the server to come back")

    told = command(place, "forget", "files:notes", "--yes")
    assert {f"{d.id}  {d.title}  (learned)" for d in report.documents} <= {
        line.strip() for line in told.splitlines()
    }
    code, out = ended(place.start("web_learner.py", "--once", "--plain"), 60)
    assert code == 0, out
    assert "4 documents forgotten" in out
    assert "nothing new to learn" in out
    wait_for(lambda: server.version() == 0, 20, "the base to serve")
    assert checkpoints.versions(place.home) == []
    assert server.ask(question) == (before, 0)
    assert server.cited(known[0]["question"]) == []
