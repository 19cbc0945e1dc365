"""The disk is full, or another program holds a database: told in time, and over when it is over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from autodidact.store.connection import Connections
from tests.web.fakes import Learner, QueueGenerator
from tests.workplace import held


def test_a_chat_that_cannot_be_stored_now_is_busy_and_the_rest_goes_on(
    client: httpx.Client, home: Path
) -> None:
    assert client.post("/chat", json={"message": "One?"}).status_code == 200
    with held(home / "chat.db"):
        said = client.post("/chat", json={"message": "Two?"}, timeout=8)
        assert said.status_code == 503
        assert int(said.headers["Retry-After"]) > 0
        assert "another program holds it" in said.json()["detail"]
        assert client.get("/health", timeout=2).status_code == 200
        body = {"model": "autodidact", "messages": [{"role": "user", "content": "Who?"}]}
        assert client.post("/v1/chat/completions", json=body, timeout=8).status_code == 200
    assert client.post("/chat", json={"message": "Three?"}).status_code == 200


def test_a_ledger_that_is_held_costs_no_page(
    client: httpx.Client, home: Path, learner: Learner
) -> None:
    with held(home / "learner.db"):
        for path in ("/", "/health", "/learning/cycles"):
            assert client.get(path, timeout=8).status_code in (200, 503), path


def test_a_full_disk_is_507_and_over_when_there_is_room(
    client: httpx.Client, home: Path, monkeypatch: pytest.MonkeyPatch, generator: QueueGenerator
) -> None:
    assert client.post("/chat", json={"message": "One?"}).status_code == 200
    whole = Connections.write

    @contextmanager
    def narrow(store: Connections) -> Iterator[object]:
        with whole(store) as db:
            db.conn.execute("PRAGMA max_page_count=1")
            yield db

    with monkeypatch.context() as patch:
        patch.setattr(Connections, "write", narrow)
        said = client.post("/chat", json={"message": "x" * 20_000})
        assert said.status_code == 507
        assert "the disk is full" in said.json()["detail"]
    with monkeypatch.context() as patch:
        patch.setattr(Connections, "write", _wide(whole))
        assert client.post("/chat", json={"message": "Two?"}).status_code == 200


def _wide(whole: object) -> object:
    @contextmanager
    def write(store: Connections) -> Iterator[object]:
        with whole(store) as db:  # type: ignore[operator]
            db.conn.execute("PRAGMA max_page_count=100000")
            yield db

    return write
