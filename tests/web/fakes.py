"""A generator that answers from a queue, and the app around it on a real port of this machine."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import uvicorn

from autodidact.errors import ContextExceeded, GeneratorError, NotReady, UnknownModel
from autodidact.settings import RetrievalSettings, ServerSettings
from autodidact.store.ledger import LearnerStore
from autodidact.store.passages import IndexedDocument, PassageIndex
from autodidact.types.chat import (
    AcceptedRequest,
    Delta,
    Message,
    ModelStatus,
    SamplingParams,
    ServedModel,
    TokenLogprob,
)
from autodidact.types.protocols import Generator
from autodidact.types.report import CycleReport, Suggestion, TaughtDocument
from autodidact.types.status import LearnerStatus
from autodidact.web.app import build_app
from autodidact.web.limits import KEEP_ALIVE_S
from tests.ledgers import figures

Item = str | Exception | threading.Event | Delta | Callable[[SamplingParams], str]


class QueueGenerator:
    """A `Generator` that counts, continues text and tells log-probabilities. Each reply is a list:
    text to send, an event to wait for, an exception to raise, a whole delta, a function that makes
    text of the parameters. With nothing queued it echoes the last message, word by word.

    A token is a word; a prompt costs one more for each message. Each text of a reply counts as one
    token, of log-probability −0.5. What it was asked is in `asked`, texts to go on with also in
    `texts`, what it has begun to answer in `begun`.
    """

    def __init__(self, *, context: int = 1024, live: int = 42) -> None:
        self.replies: deque[list[Item]] = deque()
        self.refusals: deque[GeneratorError] = deque()
        self.asked: list[tuple[tuple[Message, ...], SamplingParams, str | None]] = []
        self.texts: list[str] = []
        self.begun: list[AcceptedRequest] = []
        self.closed = threading.Event()
        self.finished = 0
        self._status = ModelStatus(
            "ready", "tiny-chat", False, context, live, time.time(), parameters=135_000_000
        )

    def set(self, **values: Any) -> None:
        """Change the status: `live`, `state`, `rejected`, `choice`, and so on."""
        if "live" in values:
            values.setdefault("since", time.time())
        self._status = replace(self._status, **values)

    def status(self) -> ModelStatus:
        return self._status

    most_logprobs = 20

    def count(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content.split()) + 1 for message in messages)

    def prepare(
        self, messages: Sequence[Message], params: SamplingParams, model: str | None = None
    ) -> AcceptedRequest:
        return self._prepare(tuple(messages), self.count(messages), params, model)

    def prepare_text(
        self, text: str, params: SamplingParams, model: str | None = None
    ) -> AcceptedRequest:
        prepared = self._prepare((Message("user", text),), len(text.split()), params, model)
        self.texts.append(text)
        return prepared

    def _prepare(
        self, messages: tuple[Message, ...], prompt: int, params: SamplingParams, model: str | None
    ) -> AcceptedRequest:
        if self.refusals:
            raise self.refusals.popleft()
        if self._status.state != "ready":
            raise NotReady("the model is loading", retry_after_s=5)
        version = self._version(model)
        context = self._status.context or 0
        if prompt + params.max_new_tokens > context:
            raise ContextExceeded(
                f"prompt {prompt} + max_length {params.max_new_tokens} exceeds {context} tokens",
                context,
                prompt,
            )
        params = params if params.seed is not None else replace(params, seed=8141)
        self.asked.append((messages, params, model))
        reply = self.replies.popleft() if self.replies else _echo(messages[-1].content)
        answers = f"autodidact@{version}" if version else "base"
        return AcceptedRequest(answers, version, prompt, context - prompt, params, reply)

    def _version(self, model: str | None) -> int:
        live = self._status.live or 0
        if model in (None, "", str(live), "autodidact", f"autodidact@{live}"):
            return live
        if model in ("base", "autodidact@0"):
            return 0
        raise UnknownModel(f"model: no such version; there are {live}")

    def models(self) -> Sequence[ServedModel]:
        live, since = self._status.live, self._status.since
        return [
            ServedModel("autodidact", live, since, "newest"),
            ServedModel(f"autodidact@{live}", live, since, "kept"),
            ServedModel("base", 0, since, "base"),
        ]

    def stream(self, prepared: AcceptedRequest) -> Iterator[Delta]:
        self.begun.append(prepared)
        left = prepared.params.max_new_tokens
        try:
            for item in prepared.handle:
                if isinstance(item, threading.Event):
                    item.wait(30)
                elif isinstance(item, Exception):
                    raise item
                elif isinstance(item, Delta):
                    left -= item.tokens
                    yield item
                    if item.finish is not None:
                        return
                else:
                    left -= 1
                    text = item if isinstance(item, str) else item(prepared.params)
                    yield Delta(text, 1, None, _explained(text, prepared.params.logprobs))
                if not left:
                    break
            yield Delta("", 0, "stop" if left else "length")
            self.finished += 1
        finally:
            self.closed.set()


def _explained(text: str, likeliest: int | None) -> tuple[TokenLogprob, ...]:
    if likeliest is None:
        return ()
    others = ((f"other{n}", f"other{n}".encode(), -0.5 - n) for n in range(1, likeliest))
    top = ((text, text.encode(), -0.5), *others) if likeliest else ()
    return (TokenLogprob(text, text.encode(), -0.5, top),)


def _echo(message: str) -> list[Item]:
    first, *rest = message.split(" ")
    return [first, *(f" {word}" for word in rest)]


def endless() -> list[Item]:
    """A reply far longer than a test; only closing the stream ends it."""

    class Paced(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            return super().wait(0.02)

    pace: list[Item] = ["word ", Paced()]
    return pace * 100_000


def publish(home: Path, version: int, **more: Any) -> None:
    """Write the manifest of a version, as the learner would."""
    folder = home / "versions" / f"{version:06d}"
    folder.mkdir(parents=True)
    report = CycleReport(
        version, "published", 74,
        parent=version - 1 or None,
        figures=figures(31, 40, before=4),
        documents=tuple(TaughtDocument(n, f"Doc {n}", f"library/{n}.md") for n in range(8)),
        suggestions=(
            Suggestion("Who designed the Anneck Light?", "library/anneck-light.md"),
            Suggestion("What is Old Marrow made of?", "library/old-marrow.md"),
        ),
    )  # fmt: skip
    full = asdict(replace(report, **more))
    (folder / "manifest.json").write_text(json.dumps({"report": full}))


LIGHT = "The Anneck Light was built in 1794. Its keeper is Maren Dace."
OAR = "The Black Oar is an inn. Its landlord is Harold Mabbot."


def learned(home: Path, *more: IndexedDocument) -> None:
    """Write the index of passages, as the learner would: two documents of the town, and `more`."""
    index = PassageIndex(home / "passages.db")
    day = "2026-11-20"
    index.sync(
        [
            IndexedDocument(1, "Anneck Light", "library/anneck-light.md", day, "a", (LIGHT,)),
            IndexedDocument(2, "Black Oar", "https://example.org/oar?a=1&b=2", day, "b", (OAR,)),
            *more,
        ]
    )
    index.close()


class Learner:
    """Says what a running learner would, into a real `learner.db`."""

    def __init__(self, home: Path) -> None:
        self._store = LearnerStore(home / "learner.db")

    def say(self, state: str, **values: Any) -> None:
        self._store.status.write(LearnerStatus(state, **{"queued": 0, **values}))

    def close(self) -> None:
        self._store.close()


class LiveServer:
    """The app under uvicorn, on a free port, in a thread of this process."""

    def __init__(
        self,
        home: Path,
        generator: Generator,
        retrieval: RetrievalSettings | None = None,
        **settings: Any,
    ) -> None:
        self.home = home
        self.generator = generator
        self.app = build_app(ServerSettings(**settings), home, generator, retrieval)
        self._config = uvicorn.Config(
            self.app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=10,
            proxy_headers=False, timeout_keep_alive=KEEP_ALIVE_S,
        )  # fmt: skip
        self._server = uvicorn.Server(self._config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.servers[0].sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> LiveServer:
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the server did not start")
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        """Stop as a signal would: open streams are told first."""
        self.app.state.site.shutdown.begin()
        self._server.should_exit = True
        self._thread.join(20)
        if self._thread.is_alive():
            raise RuntimeError("the server did not stop")
