"""The whole loop, as people see it: files in a folder, a learner, a server that was there first.

The bundled starter learns four small documents in well under a minute. It is rushed: a high
learning rate, no KL term, and a gate that does not look at general text. The point is the way from
a file to a reply, not the recipe.
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
from autodidact.examples import exact_match
from autodidact.hub import STARTER
from tests.workplace import Workplace, ended, prepare, wait_for


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    place = prepare(tmp_path, STARTER)
    text = place.config.read_text()
    for before, after in {
        "cycle_minutes = 0.02": "cycle_minutes = 1.2",
        "rank = 8": "rank = 64\nmin_exposures = 20\nmax_exposures = 45",
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
        """A greedy reply and the version that gave it."""
        response = self.client.post("/chat", json={"message": question, "temperature": 0})
        response.raise_for_status()
        body = response.json()
        assert response.headers["X-Model-Version"] == str(body["version"])
        return str(body["reply"]), int(body["version"])


@pytest.fixture
def server(place: Workplace) -> Iterator[Server]:
    running = Server(place)
    yield running
    running.client.close()
    running.process.terminate()
    running.process.wait(timeout=30)


@pytest.mark.slow
def test_what_a_file_says_is_learned_published_and_answered(
    place: Workplace, server: Server
) -> None:
    wait_for(lambda: server.version() == 0, 90, "the untouched base to answer")
    question = "Who was the Tolk Bridge designed by?"
    before, version = server.ask(question)
    assert version == 0
    assert not exact_match(before, "Abel Crewe")

    code, out = ended(place.start("web_learner.py", "--once", "--plain"), 150)
    assert code == 0, out
    assert "published 000001" in out

    wait_for(lambda: server.version() == 1, 20, "the server to notice")

    manifest = checkpoints.read(place.home, 1).manifest
    report = manifest["report"]
    assert report["learned"]["k"] >= 3, "it answers questions that it was never asked that way"
    assert report["learned"]["before"] == 0
    assert report["control"]["k"] <= 1, "and none of those about what it has not read"
    titles = {document["title"] for document in report["documents"]}
    assert titles <= {"Brack Mill", "Tolk Bridge", "Wend Tower", "Sable House"}

    whole = json.loads((checkpoints.folder(place.home, 1) / checkpoints.REPORT).read_text())
    known = [p for p in whole["probes"] if p["split"] == "taught" and p["now"]["correct"]]
    for probe in known[:3]:
        reply, version = server.ask(probe["question"])
        assert version == 1
        assert exact_match(reply, probe["answer"]), (probe["question"], reply)
        assert exact_match(reply, probe["now"]["reply"]), "the server says what the gate measured"

    html = server.client.get("/").text
    assert f"{report['learned']['k']} of {report['learned']['n']} questions" in html

    rolled = subprocess.run(
        place.command("-m", "autodidact", "rollback"),
        cwd=place.folder,
        env=place.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert rolled.returncode == 0, rolled.stderr
    wait_for(lambda: server.version() == 0, 20, "the server to go back")
    assert server.ask(question) == (before, 0), "the base is what it was"
