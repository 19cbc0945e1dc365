"""Going back, in a running server: at once, for good, and no reply under way suffers.

A real server process, real HTTP, real adapters on a tiny model. Replies are greedy, so each can be
compared to the letter with what its version said when it was asked alone.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from autodidact import checkpoints
from autodidact.checkpoints import REPORT
from autodidact.home import prepare_home
from autodidact.models import bases, loading
from autodidact.settings import PROJECT
from tests.guarantees import full
from tests.tiny_models import tiny
from tests.versions import save_adapter
from tests.workplace import child_environment, wait_for

CLIENTS = 3
ASKED = {"message": "Tell me about the harbour.", "temperature": 0, "max_length": 48}
TWO_LOOKS_S = 1.5


class Place:
    """A home with a tiny base, what publishes into it, and a server beside it."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.folder = folder
        prepare_home(self.home)
        self.model = tiny(folder / "model", "smollm2")
        self.found = bases.resolve(str(self.model), "", self.home, lambda line: None)
        self.base = loading.load(self.model, 1)
        self.address = ""

    def publish(self, version: int) -> None:
        staged = checkpoints.staging(self.home, version) / "adapter"
        shutil.copytree(save_adapter(self.base, self.folder / str(version), version), staged)
        (staged / REPORT).write_text("{}")
        base = {"name": self.found.name, "sha256": self.found.sha256, "revision": ""}
        parent = checkpoints.current(self.home) or None
        checkpoints.publish(self.home, staged, version, {"parent": parent, "base": base})

    @contextmanager
    def server(self) -> Iterator[httpx.Client]:
        port = free_port()
        environment = {
            **child_environment(),
            "AUTODIDACT_HOME": str(self.home),
            "AUTODIDACT_MODEL": str(self.model),
        }
        command = [sys.executable, str(PROJECT / "server.py"), "--port", str(port)]
        process = subprocess.Popen(command, env=environment)
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False
            ) as client:
                yield client
        finally:
            process.terminate()
            assert process.wait(60) == 0

    def command(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "autodidact", *words, "--home", str(self.home)],
            env=child_environment(), cwd=self.folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def live(client: httpx.Client) -> int | None:
    try:
        health = client.get("/health").json()
    except httpx.TransportError:
        return None
    return int(health["version"]) if health["status"] == "ok" else None


def wait_live(client: httpx.Client, version: int) -> None:
    begun = time.monotonic()
    wait_for(lambda: live(client) == version, 120, f"version {version}")
    if full() and version:
        print(f"version {version} answered after {time.monotonic() - begun:.2f} s")


def streamed(client: httpx.Client) -> tuple[int, str]:
    """A whole streamed reply, and the version that its header names."""
    with client.stream("POST", "/chat", json={**ASKED, "stream": True}) as response:
        assert response.status_code == 200
        rows = [row for row in response.iter_lines() if row]
        version = int(response.headers["X-Model-Version"])
    names = [row.partition(": ")[2] for row in rows if row.startswith("event:")]
    data = [json.loads(row.partition(": ")[2]) for row in rows if row.startswith("data:")]
    assert names[-1] == "done", rows[-2:]
    return version, "".join(d["t"] for n, d in zip(names, data, strict=True) if n == "text")


class Clients:
    """Keep streaming until told to stop."""

    def __init__(self, client: httpx.Client) -> None:
        self.replies: list[tuple[int, str]] = []
        self.faults: list[BaseException] = []
        self._client = client
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                self.replies.append(streamed(self._client))
        except BaseException as error:
            self.faults.append(error)

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_rollback_is_quick_and_for_good_and_harms_no_reply(tmp_path: Path) -> None:
    place = Place(tmp_path)
    alone: dict[int, str] = {}
    with place.server() as client:
        for version in (1, 2, 3):
            place.publish(version)
            wait_live(client, version)
            answered, alone[version] = streamed(client)
            assert answered == version
        assert len(set(alone.values())) == 3
        clients = Clients(client)
        try:
            wait_for(lambda: len(clients.replies) >= CLIENTS, 60, "the first replies")
            begun = time.monotonic()
            assert client.post("/admin/rollback", json={}).json()["serving"] == 2
            wait_live(client, 2)
            took = time.monotonic() - begun
            before = len(clients.replies)
            wait_for(lambda: len(clients.replies) >= before + 2 * CLIENTS, 60, "more replies")
        finally:
            clients.stop()
        assert not clients.faults, clients.faults[0]
        assert {version for version, _ in clients.replies} == {2, 3}
        assert [r for r in clients.replies if r[1] != alone[r[0]]] == [], "none mixes two"
        if full():
            assert took <= 2.0
        place.publish(4)
        time.sleep(TWO_LOOKS_S)
        assert live(client) == 2, "newer ones do not go live"

    with place.server() as client:
        wait_live(client, 2)
        assert streamed(client) == (2, alone[2]), "nor after a restart"
        assert "rolled back from 2 to 1" in place.command("rollback")
        wait_live(client, 1)
        place.publish(5)
        time.sleep(TWO_LOOKS_S)
        assert live(client) == 1
        assert checkpoints.read(place.home, 5).parent == 1, "the chain goes on from there"
        place.command("unpin")
        wait_live(client, 5)
