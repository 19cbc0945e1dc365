"""More load than there are places, and readers who leave: on a real port, with many clients."""

from __future__ import annotations

import asyncio
import collections
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from autodidact.errors import Busy
from autodidact.store.chat import MIGRATIONS, ChatStore
from autodidact.store.connection import Connections
from autodidact.types.chat import AcceptedRequest, Delta
from tests.web.fakes import Item, LiveServer, QueueGenerator
from tests.web.wire import events, run_apart, until

RUNNING, WAITING = 4, 8
LOAD = int(os.environ.get("AUTODIDACT_TEST_OVERLOAD", "10"))
"""How many times as many clients as places; `AUTODIDACT_TEST_OVERLOAD=50` for a long run."""


def word(_: object) -> str:
    time.sleep(0.01)
    return "word "


FOREVER: list[Item] = [word] * 1_000_000


class SlowGenerator(QueueGenerator):
    """A few replies at a time, a few milliseconds a token, and nobody waits for a turn for long:
    as the local model, whose queue this stands for."""

    def __init__(self, patience_s: float = 30.0) -> None:
        super().__init__()
        self._turns = threading.Semaphore(RUNNING)
        self._patience_s = patience_s
        self.most = self._running = 0
        self._lock = threading.Lock()

    def stream(self, prepared: AcceptedRequest) -> Iterator[Delta]:
        if not self._turns.acquire(timeout=self._patience_s):
            raise Busy("no turn came", 7)
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
        try:
            for delta in super().stream(prepared):
                time.sleep(0.002)
                yield delta
        finally:
            with self._lock:
                self._running -= 1
            self._turns.release()


class Cancellable:
    """A stream that any thread may cancel, as the local model's."""

    def __init__(self) -> None:
        self._told = threading.Event()
        self.cancelled = threading.Event()

    def __iter__(self) -> Cancellable:
        return self

    def __next__(self) -> Delta:
        if not self._told.wait(30):
            raise AssertionError("nobody cancelled it")
        self.cancelled.set()
        raise StopIteration

    def cancel(self) -> None:
        self._told.set()


class NeverItsTurn(QueueGenerator):
    def __init__(self) -> None:
        super().__init__()
        self.deltas = Cancellable()

    def stream(self, prepared: AcceptedRequest) -> Iterator[Delta]:
        self.begun.append(prepared)
        return self.deltas


@pytest.fixture
def slow(home: Path) -> Iterator[LiveServer]:
    server = LiveServer(home, SlowGenerator(), max_concurrent=RUNNING, max_queue=WAITING).start()
    yield server
    server.stop()


def settle(server: LiveServer) -> None:
    """Wait until no reply runs any more; fails where a place is lost."""
    deadline = time.monotonic() + 20
    while server.app.state.site.active and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.app.state.site.active == 0


def told_when(response: httpx.Response) -> None:
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert response.json()["retry_after_s"] == int(response.headers["Retry-After"])


# Ten times the load (guarantee 16) ----------------------------------------------------------------


async def one_client(
    client: httpx.AsyncClient, seen: collections.Counter[int], dice: random.Random
) -> None:
    """Asks twice; reads it all, or leaves somewhere in a stream."""
    for _ in range(2):
        body = {"message": "w " * 20, "stream": dice.random() < 0.6}
        leaves_after = dice.choice([0, 3, 10_000])
        async with client.stream("POST", "/chat", json=body) as response:
            seen[response.status_code] += 1
            if response.status_code != 200:
                await response.aread()
                told_when(response)
                continue
            lines = 0
            async for _line in response.aiter_lines():
                lines += 1
                if lines > leaves_after:
                    break


def test_ten_times_the_load(slow: LiveServer) -> None:
    dice = random.Random(16)
    seen: collections.Counter[int] = collections.Counter()

    async def all_at_once() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=slow.url, timeout=60, limits=limits) as client:
            clients = (RUNNING + WAITING) * LOAD
            await asyncio.gather(*(one_client(client, seen, dice) for _ in range(clients)))

    run_apart(all_at_once())
    assert set(seen) == {200, 503}
    assert seen[200] >= RUNNING + WAITING
    settle(slow)
    assert isinstance(slow.generator, SlowGenerator)
    assert slow.generator.most <= RUNNING
    after = httpx.post(f"{slow.url}/chat", json={"message": "still there"}, timeout=30)
    assert after.json()["reply"] == "still there"
    messages = all_messages(slow.home)
    assert messages
    assert "open" not in {message.finish for message in messages}


def all_messages(home: Path) -> list[Any]:
    store = ChatStore.__new__(ChatStore)  # as it opens, it would end the server's open replies
    store._unstored = {}
    store._db = Connections(home / "chat.db", MIGRATIONS, readonly=True)
    try:
        return [m for c in store.conversations(10_000) for m in store.messages(c.id)]
    finally:
        store.close()


def test_one_address_that_asks_too_often(home: Path) -> None:
    server = LiveServer(home, QueueGenerator(), requests_per_minute=3).start()
    try:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            answers = [client.post("/chat", json={"message": "x"}) for _ in range(5)]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
            told_when(answers[-1])
            assert answers[-1].json()["kind"] == "rate"
            openai = {"model": "autodidact", "messages": [{"role": "user", "content": "x"}]}
            for path, body in (
                ("/v1/chat/completions", openai),
                ("/v1/completions", {"model": "autodidact", "prompt": "x"}),
            ):
                refused = client.post(path, json=body)
                assert refused.status_code == 429
                assert int(refused.headers["Retry-After"]) >= 1
                assert refused.json()["error"]["type"] == "rate_limit_error"
            for free in ("/", "/health", "/ready", "/metrics", "/v1/models", "/static/app.css"):
                assert client.get(free).status_code == 200
    finally:
        server.stop()


def test_threads_come_as_they_are_needed(home: Path) -> None:
    """There may be 96 replies at a time, and a server that never had two has one thread."""

    def threads() -> int:
        return sum(thread.name.startswith("reply_") for thread in threading.enumerate())

    before = threads()
    server = LiveServer(home, QueueGenerator()).start()
    try:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for _ in range(10):
                assert client.post("/chat", json={"message": "x"}).status_code == 200
                settle(server)
        assert 1 <= threads() - before <= 2
    finally:
        server.stop()


# A turn that does not come ------------------------------------------------------------------------


@pytest.fixture
def impatient(home: Path) -> Iterator[tuple[LiveServer, threading.Event]]:
    """All turns are taken until the event is set, and nobody waits longer than an instant."""
    generator = SlowGenerator(patience_s=0.05)
    server = LiveServer(home, generator, max_concurrent=RUNNING, max_queue=WAITING).start()
    go_on = threading.Event()
    generator.replies.extend([["a", go_on, "b"] for _ in range(RUNNING)])
    with httpx.Client(base_url=server.url, timeout=30) as client:
        body = {"message": "long", "stream": True}
        streams = [client.stream("POST", "/chat", json=body) for _ in range(RUNNING)]
        told = [events(stream.__enter__()) for stream in streams]
        for one in told:  # kept: httpx hangs up when what reads a response is forgotten
            until(one, "text")
        yield server, go_on
        go_on.set()
        for stream in streams:
            stream.__exit__(None, None, None)
    server.stop()


def test_as_json_it_is_a_503_and_leaves_nothing_behind(
    impatient: tuple[LiveServer, threading.Event],
) -> None:
    server, go_on = impatient
    before = len(all_messages(server.home))
    response = httpx.post(f"{server.url}/chat", json={"message": "x"}, timeout=30)
    assert (response.status_code, response.json()["kind"]) == (503, "busy")
    assert response.headers["Retry-After"] == "7"
    assert len(all_messages(server.home)) == before
    go_on.set()
    settle(server)


def test_in_a_stream_it_is_an_error_event_and_the_question_stays(
    impatient: tuple[LiveServer, threading.Event],
) -> None:
    server, go_on = impatient
    with httpx.Client(base_url=server.url, timeout=30) as client:
        with client.stream("POST", "/chat", json={"message": "x", "stream": True}) as response:
            seen = list(events(response))
        assert [name for name, _ in seen] == ["start", "error"]
        assert seen[1][1] == {"kind": "busy", "message": "no turn came", "retry_after_s": 7}
        go_on.set()
        settle(server)
        again = {"message": "x", "again": True, "conversation_id": seen[0][1]["conversation"]}
        assert client.post("/chat", json=again).json()["reply"] == "x"


# Readers who leave --------------------------------------------------------------------------------


def test_generation_stops_within_one_token_of_a_reader_s_leaving(home: Path) -> None:
    """The model is held after a token until the reader is gone: it may yield that token's text and
    no other."""
    generator, gone = QueueGenerator(), threading.Event()
    drawn: list[str] = []

    def token(_: object) -> str:
        drawn.append("late ")
        return "late "

    server = LiveServer(home, generator).start()
    try:
        generator.replies.append(["first ", gone, *[token] * 1000])
        with httpx.Client(base_url=server.url, timeout=30) as client:
            body = {"message": "x", "stream": True}
            with client.stream("POST", "/chat", json=body) as response:
                until(events(response), "text")
        deadline = time.monotonic() + 20
        while not stopped(server) and time.monotonic() < deadline:
            time.sleep(0.01)
        gone.set()
        assert generator.closed.wait(20)
        settle(server)
        assert len(drawn) <= 1
    finally:
        server.stop()


def stopped(server: LiveServer) -> bool:
    """Whether the server has noticed that its only reader left: the response has ended."""
    return not server._server.server_state.tasks


def test_who_leaves_the_queue_frees_the_place_at_once(home: Path) -> None:
    """No token ever comes: the generator's stream is cancelled, not waited for."""
    generator = NeverItsTurn()
    server = LiveServer(home, generator, max_concurrent=1, max_queue=0).start()
    try:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            body = {"message": "x", "stream": True}
            with client.stream("POST", "/chat", json=body) as response:
                until(events(response), "start")
            assert generator.deltas.cancelled.wait(20)
            settle(server)
            generator.deltas = Cancellable()
            with pytest.raises(httpx.ReadTimeout):
                client.post("/chat", json={"message": "x"}, timeout=0.3)
            assert generator.deltas.cancelled.wait(20)
            settle(server)
        assert {m.finish for m in all_messages(home) if m.role == "assistant"} == {"stopped"}
    finally:
        server.stop()


def test_places_come_back_however_a_request_ends(home: Path) -> None:
    """Refused, failed, left, timed out, done: in any order, `active` returns to 0."""
    dice = random.Random(8)
    generator = QueueGenerator()
    server = LiveServer(home, generator, max_concurrent=3, max_queue=2).start()
    try:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for _ in range(40):
                what = dice.choice(["refused", "failed", "left", "done", "time", "missing"])
                stream = dice.random() < 0.5
                body: dict[str, Any] = {"message": "x y z", "stream": stream}
                if what == "refused":
                    generator.refusals.append(Busy("no"))
                elif what == "missing":
                    body["conversation_id"] = "none"
                elif what == "left":
                    generator.replies.append(FOREVER)
                elif what == "failed":
                    generator.replies.append(["a", RuntimeError("broken")])
                elif what == "time":
                    generator.replies.append(["a", Delta("", 0, "time")])
                patience_s = 0.3 if what == "left" and not stream else 30
                try:
                    with client.stream("POST", "/chat", json=body, timeout=patience_s) as response:
                        if what == "left" and stream:
                            until(events(response), "text")
                        else:
                            response.read()
                except httpx.ReadTimeout:
                    assert what == "left"
                if what == "left":
                    settle(server)
            settle(server)
    finally:
        server.stop()
