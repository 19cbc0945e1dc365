"""The local model behind the web: one bound on how many, one place that says when to come again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from autodidact.errors import Busy
from autodidact.generators import ServingContext
from autodidact.generators.local import LocalGenerator, LocalSettings
from autodidact.models.bases import Base
from autodidact.settings import ServerSettings
from tests.versions import BASE_SHA
from tests.web.fakes import LiveServer, QueueGenerator
from tests.web.wire import events, until
from tests.workplace import wait_for

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
LIMITS: dict[str, Any] = {"max_concurrent": 1, "max_queue": 1, "queue_seconds": 0.5}
LONG = {"message": "Who keeps it?", "stream": True, "temperature": 0, "max_length": 200}
WHO = [{"role": "user", "content": "Who keeps it?"}]


class Held:
    """A server around the local model, whose batches stand still from the third pass on."""

    def __init__(self, server: LiveServer, generator: LocalGenerator) -> None:
        loaded = generator._follower.loaded
        assert loaded is not None
        self.server, self.generator = server, generator
        self.still, self.go_on = threading.Event(), threading.Event()
        self._passes = 0
        self._real = loaded.engine.forward
        loaded.engine.forward = self._forward  # type: ignore[method-assign]

    def _forward(self, versions: Any, **inputs: Any) -> Any:
        self._passes += 1
        if self._passes >= 3:
            self.still.set()
            assert self.go_on.wait(60)
        return self._real(versions, **inputs)


@pytest.fixture
def held(
    home: Path, tiny_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Held]:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    base = Base("tiny", tiny_folder("llama"), "folder", "", BASE_SHA, "")
    context = ServingContext(home, ServerSettings(threads=1, **LIMITS), "auto", "")
    generator = LocalGenerator(LocalSettings(), context, lambda: base)
    generator.start()
    wait_for(lambda: generator.status().state == "ready", 60, "the base")
    server = LiveServer(home, generator, **LIMITS).start()
    made = Held(server, generator)
    yield made
    made.go_on.set()
    server.stop()
    generator.close()
    generator._follower._thread.join(30)


def told_when(answer: httpx.Response) -> int:
    assert answer.status_code == 503
    wait_s = int(answer.headers["Retry-After"])
    assert 1 <= wait_s <= 60
    return wait_s


def test_the_places_bound_the_local_model_and_its_queue_ends_who_waits_too_long(
    held: Held,
) -> None:
    with httpx.Client(base_url=held.server.url, timeout=60) as client:
        with client.stream("POST", "/chat", json=LONG) as running:
            told = events(running)
            until(told, "text")
            assert held.still.wait(30)
            with client.stream("POST", "/chat", json=LONG) as waiting:
                its = events(waiting)
                until(its, "start")
                assert client.get("/ready").json()["status"] == "full"
                told_when(client.post("/chat", json={"message": "one too many"}))
                openai = client.post("/v1/chat/completions", json={"messages": WHO})
                assert told_when(openai) * 1000 == int(openai.headers["retry-after-ms"])
                wait_for(lambda: held.generator.figures()["waiting"] == 1, 30, "the second")
                figures = held.generator.figures()
                assert figures["running"] == 1
                assert figures["requests_total"] == 2, "who is refused never comes so far"
                threading.Timer(1.0, held.go_on.set).start()
                error = until(its, "error")
            assert error["kind"] == "busy"
            assert error["message"].startswith("no turn came within 0.5 s")
            assert 1 <= error["retry_after_s"] <= 60
            assert until(told, "done")["tokens"] > 2
        assert held.generator.figures()["refused_total"] == 1
        assert client.post("/chat", json={**LONG, "stream": False}).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_when_to_come_again_is_told_for_whatever_generator(home: Path, stream: bool) -> None:
    """One that does not say itself, before it takes a request on or after."""
    generator = QueueGenerator()
    server = LiveServer(home, generator).start()
    try:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for path, body in (
                ("/chat", {"message": "x", "stream": stream}),
                ("/v1/chat/completions", {"messages": WHO, "stream": stream}),
            ):
                generator.refusals.append(Busy("no"))
                told_when(client.post(path, json=body))
                generator.replies.append([Busy("no turn came")])
                answer = client.post(path, json=body)
                if stream and path == "/chat":
                    assert '"retry_after_s": ' in answer.text
                else:
                    told_when(answer)
    finally:
        server.stop()
