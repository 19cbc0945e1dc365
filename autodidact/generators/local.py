"""The local model as a `Generator`: loads in the background, follows what is published.

One watcher thread resolves and loads the base, then the version that serves (the pinned one, else
what `CURRENT` names), and from then on looks twice a second. A new version is verified, built and
tried beside the old one; then one reference is switched. A request holds the version that `prepare`
gave it until it ends. A version that does not load is noted in `REJECTED`, said once, and never
tried again; the old one goes on. Kept versions and the bare base can be asked for by name.

Tokens come from the `Batcher`; here they become text, which ends before a stop string.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autodidact import checkpoints
from autodidact.engine import Engine, Version
from autodidact.engine.batcher import Batcher, Observe
from autodidact.engine.tokens import text_ids
from autodidact.errors import (
    AutodidactError,
    CheckpointError,
    ContextExceeded,
    NotReady,
    UnknownModel,
)
from autodidact.generators.shelf import Shelf
from autodidact.generators.text import TextStream
from autodidact.models import bases
from autodidact.models import loading as models
from autodidact.models.prompts import prompt_ids
from autodidact.settings import ServerSettings
from autodidact.types.chat import Message, ModelStatus, Prepared, SamplingParams, ServedModel

log = logging.getLogger(__name__)
POLL_S = 0.5
RETRY_S = 30
SMALL_MODEL = 30_000_000
"""Below this many parameters one thread is fastest: forward passes are too short to share."""
NAME = "autodidact"


@dataclass(frozen=True)
class _Loaded:
    """What exists once the base is in memory."""

    engine: Engine
    batcher: Batcher
    shelf: Shelf
    base_sha256: str


@dataclass(frozen=True)
class _Prompt:
    """What `prepare` keeps for `stream`: the version it picked, and the prompt's tokens."""

    version: Version
    ids: tuple[int, ...]


class LocalGenerator:
    """A `Generator` with every capability. Start it with `start`, end it with `close`; everything
    else may be called from any thread.

    `observe(name, value)` is told the seconds of queues, first tokens, gaps and replies.
    """

    def __init__(
        self,
        home: Path,
        settings: ServerSettings,
        resolve: Callable[[], bases.Base],
    ) -> None:
        self._home = home
        self._settings = settings
        self._resolve = resolve
        self._loaded: _Loaded | None = None
        self._live: Version | None = None
        self._status = ModelStatus("loading", "", False, 0, 0, time.time())
        self._refused: dict[int, str] = {}
        self._reloads = {"reloads_total": 0.0, "rejected_total": 0.0, "reload_seconds_sum": 0.0}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="checkpoint-watcher", daemon=True)
        self.observe: Observe = lambda name, value: None

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._loaded is not None:
            self._loaded.batcher.close()

    # Generator, and what it can besides ----------------------------------------------------

    most_logprobs = 20

    def status(self) -> ModelStatus:
        return self._status

    @property
    def running(self) -> int:
        """Replies in the batch."""
        return self._loaded.batcher.running if self._loaded else 0

    @property
    def waiting(self) -> int:
        """Requests that wait for a place in it."""
        return self._loaded.batcher.waiting if self._loaded else 0

    def active(self) -> int:
        """Replies being generated or waiting for their turn."""
        return self.running + self.waiting

    def figures(self) -> dict[str, float]:
        """Counters and gauges, by name; nothing before the base has loaded."""
        if self._loaded is None:
            return {}
        batcher = self._loaded.batcher
        return {
            **{name: float(count) for name, count in batcher.counts.items()},
            **self._reloads,
            "running": batcher.running,
            "waiting": batcher.waiting,
            "cache_bytes": batcher.cache_bytes,
            "versions_in_memory": len(self._loaded.shelf),
            "live": float(self._status.live or 0),
        }

    def count(self, messages: Sequence[Message]) -> int:
        return len(prompt_ids(self._ready()[0].engine.base, messages))

    def prepare(
        self, messages: Sequence[Message], params: SamplingParams, model: str | None = None
    ) -> Prepared:
        loaded, live = self._ready()
        loaded.batcher.check()
        version = self._choose(loaded, live, model)
        return self._fitting(loaded, version, prompt_ids(loaded.engine.base, messages), params)

    def prepare_text(self, text: str, params: SamplingParams, model: str | None = None) -> Prepared:
        loaded, live = self._ready()
        loaded.batcher.check()
        version = self._choose(loaded, live, model)
        return self._fitting(loaded, version, text_ids(loaded.engine.base, text), params)

    def _fitting(
        self, loaded: _Loaded, version: Version, ids: Sequence[int], params: SamplingParams
    ) -> Prepared:
        context = loaded.engine.base.context
        room = context - len(ids)
        if room < 1 or params.max_new_tokens > room:
            raise ContextExceeded(
                f"prompt {len(ids)} + max_length {params.max_new_tokens} exceeds {context} tokens"
            )
        handle = _Prompt(version, tuple(ids))
        return Prepared(name_of(version.number), version.number, len(ids), room, params, handle)

    def models(self) -> list[ServedModel]:
        """What a request may ask for by name, the newest first, the base last."""
        _, live = self._ready()
        newest, pinned = checkpoints.current(self._home), checkpoints.pinned(self._home)
        found = [ServedModel(NAME, live.number, self._status.since, "newest")]
        for number in reversed(checkpoints.versions(self._home)):
            role: Any = "pinned" if number == pinned else "newest" if number == newest else "kept"
            manifest = checkpoints.folder(self._home, number) / checkpoints.MANIFEST
            with suppress(FileNotFoundError):  # retention deletes while we look
                if number not in self._refused:
                    made = manifest.stat().st_mtime
                    found.append(ServedModel(f"{NAME}@{number}", number, made, role))
        return [*found, ServedModel("base", 0, self._status.since, "base")]

    def stream(self, prepared: Prepared) -> TextStream:
        """The reply's deltas; the request waits for its turn from now on. Raises Busy."""
        loaded, _ = self._ready()
        prompt: _Prompt = prepared.handle
        ticket = loaded.batcher.submit(prompt.version, prompt.ids, prepared.params)
        return TextStream(loaded.engine.base, ticket)

    def _ready(self) -> tuple[_Loaded, Version]:
        if self._loaded is None or self._live is None:
            if self._status.state == "failed":
                raise NotReady(f"no model: {self._status.reason}", retry_after_s=RETRY_S)
            raise NotReady("the model is loading", retry_after_s=2)
        return self._loaded, self._live

    def _choose(self, loaded: _Loaded, live: Version, asked: str | None) -> Version:
        if asked in (None, "", NAME, f"{NAME}@{live.number}"):
            return live
        if asked == "base":
            return loaded.engine.untouched
        name, _, number = (asked or "").partition("@")
        if name == NAME and number.isdecimal() and len(number) < 10:
            if int(number) in self._refused:
                raise UnknownModel(f"model: {self._refused[int(number)]}")
            try:
                return loaded.shelf.get(int(number))
            except CheckpointError as error:
                log.info("asked for a version that cannot be had: %s", error)
                if int(number) in checkpoints.versions(self._home):
                    raise UnknownModel(f"model: {error}") from None
            except OSError as error:
                raise NotReady(f"model: cannot be read now: {error.strerror}", 5) from None
        there = [one.id for one in self.models()]
        raise UnknownModel(f"no such model; there are {', '.join(there)}")

    # Watching ------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._load_base_or_say_why():
            if self._closing.wait(RETRY_S):
                return
        while not self._closing.wait(POLL_S):
            try:
                self._follow()
            except (OSError, CheckpointError) as error:
                log.warning("%s", error)

    def _load_base_or_say_why(self) -> bool:
        try:
            self._load_base()
            return True
        except AutodidactError as error:
            reason = str(error)
            if reason != self._status.reason:
                log.error("%s; trying again every %d s", reason, RETRY_S)
        except Exception as error:
            log.exception("the base model could not be loaded")
            reason = type(error).__name__
        self._status = replace(self._status, state="failed", reason=reason)
        return False

    def _load_base(self) -> None:
        loaded = self._loaded or self._load()
        self._loaded = loaded
        version = self._first(loaded)
        loaded.shelf.keep(version.number)
        base = loaded.engine.base
        self._switch(
            version,
            state="ready",
            context=base.context,
            parameters=base.parameters,
            reason="",
        )
        log.info("serving %s: %s", _call(version.number), base.description)

    def _load(self) -> _Loaded:
        """The base in memory and a running batcher on it."""
        settings = self._settings
        found = self._resolve()
        self._status = replace(self._status, name=found.name, fallback=found.fallback)
        base = models.load(found.path, 1, dtype=settings.dtype, quantisation=settings.quantisation)
        models.use_threads(self._threads(base.parameters))
        engine = Engine(base)
        batcher = Batcher(
            engine,
            max_concurrent=settings.max_concurrent,
            max_queue=settings.max_queue,
            prefill_tokens=settings.prefill_tokens,
            queue_seconds=settings.queue_seconds,
            reply_seconds=settings.reply_seconds,
            observe=lambda name, value: self.observe(name, value),
        )
        batcher.start()
        shelf = Shelf(self._home, engine, found.sha256, settings.versions_in_memory)
        return _Loaded(engine, batcher, shelf, found.sha256)

    def _threads(self, parameters: int) -> int:
        most = min(2, models.threads_for(0, spare=False))
        return self._settings.threads or (1 if parameters < SMALL_MODEL else most)

    def _first(self, loaded: _Loaded) -> Version:
        """What serves at the start: the newest that loads, going from parent to parent."""
        try:
            number = checkpoints.serving(self._home)
        except CheckpointError as error:  # PIN or CURRENT is damaged
            log.error("%s; serving the newest version", error)
            self._status = replace(self._status, rejected=str(error))
            number = max(checkpoints.versions(self._home), default=checkpoints.BASE_VERSION)
        while number != checkpoints.BASE_VERSION:
            found = self._try_load(loaded, number)
            if found is not None:
                return found
            try:
                number = checkpoints.read(self._home, number).parent or checkpoints.BASE_VERSION
            except CheckpointError:
                break
        return loaded.engine.untouched

    def _follow(self) -> None:
        loaded, live = self._ready()
        number = checkpoints.serving(self._home)
        if number == live.number and self._status.rejected:
            self._status = replace(self._status, rejected="")
        if number == live.number or number in self._refused:
            return
        begun = time.monotonic()
        version = self._try_load(loaded, number)
        if version is None:
            return
        loaded.shelf.keep(number)
        self._switch(version, rejected="")
        self._reloads["reloads_total"] += 1
        self._reloads["reload_seconds_sum"] += time.monotonic() - begun
        log.info("%s is live", _call(number))

    def _try_load(self, loaded: _Loaded, number: int) -> Version | None:
        """The version, or None when it has just been refused for good."""
        try:
            return loaded.shelf.get(number)
        except OSError:
            raise  # a passing fault of the disk: the next look tries again
        except Exception as error:
            if checkpoints.serving(self._home) != number:
                return None
            reason = str(error)
            if not isinstance(error, CheckpointError):
                log.exception("%s could not be loaded", _call(number))
                reason = f"{checkpoints.name(number)}: could not be loaded ({type(error).__name__})"
            self._refused[number] = reason
            self._reloads["rejected_total"] += 1
            serving = _call(self._live.number) if self._live else "an older version"
            log.error("%s; serving %s", reason, serving)
            self._status = replace(self._status, rejected=reason)
            checkpoints.reject(self._home, number, reason)
            return None

    def _switch(self, version: Version, **status: object) -> None:
        self._live = version
        self._status = replace(
            self._status,
            live=version.number,
            since=time.time(),
            **status,  # type: ignore[arg-type]
        )


def name_of(number: int) -> str:
    """The name under which a version can be asked for."""
    return f"{NAME}@{number}" if number else "base"


def _call(number: int) -> str:
    return f"checkpoint {number}" if number else "the untouched base"
