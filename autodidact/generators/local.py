"""The local model as a `Generator`: loads in the background, follows `CURRENT`, streams text.

One watcher thread resolves and loads the base, then the published version, and from then on reads
`CURRENT` twice a second. A new version is verified, built and tried beside the old one; then one
reference is switched. A request holds the version that `prepare` gave it until it ends. A version
that does not load is noted in `REJECTED`, said once, and never tried again; the old one goes on.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tokenizers.decoders import DecodeStream

from autodidact import checkpoints, hub
from autodidact import model as models
from autodidact.engine import Engine, Version
from autodidact.errors import (
    AutodidactError,
    Busy,
    CheckpointError,
    ContextExceeded,
    NotReady,
    UnknownModel,
)
from autodidact.settings import ServerSettings
from autodidact.types import Delta, Message, ModelStatus, Prepared, SamplingParams

log = logging.getLogger(__name__)
POLL_S = 0.5
RETRY_S = 30
SMALL_MODEL = 30_000_000
"""Below this many parameters one thread is fastest: forward passes are too short to share."""


class LocalGenerator:
    """Start it with `start`, end it with `close`; everything else may be called from any thread."""

    def __init__(
        self,
        home: Path,
        settings: ServerSettings,
        resolve: Callable[[], hub.Base],
    ) -> None:
        self._home = home
        self._settings = settings
        self._resolve = resolve
        self._engine: Engine | None = None
        self._live: Version | None = None
        self._status = ModelStatus("loading", "", False, 0, 0, time.time())
        self._base_sha256 = ""
        self._refused: dict[int, str] = {}
        self._slots = threading.BoundedSemaphore(settings.max_concurrent)
        self._count_lock = threading.Lock()
        self._active = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="checkpoint-watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()

    # Generator -----------------------------------------------------------------------------

    def status(self) -> ModelStatus:
        return self._status

    def active(self) -> int:
        """Replies being generated or waiting for a slot."""
        return self._active

    def count(self, messages: Sequence[Message]) -> int:
        return len(models.prompt_ids(self._ready()[0].base, messages))

    def prepare(
        self, messages: Sequence[Message], params: SamplingParams, model: str | None = None
    ) -> Prepared:
        engine, live = self._ready()
        version = self._choose(engine, live, model)
        limit = self._settings.max_concurrent + self._settings.max_queue
        if self._active >= limit:
            raise Busy(f"the server is busy with {self._active} other replies", retry_after_s=4)
        ids = models.prompt_ids(engine.base, messages)
        room = engine.base.context - len(ids)
        if room < 1 or params.max_new_tokens > room:
            raise ContextExceeded(
                f"prompt {len(ids)} + max_length {params.max_new_tokens} exceeds "
                f"{engine.base.context} tokens"
            )
        return Prepared(version.number, tuple(ids), room, params, version)

    def stream(self, prepared: Prepared) -> Iterator[Delta]:
        engine, _ = self._ready()
        with self._count_lock:
            self._active += 1
        try:
            with self._slots:
                yield from self._stream(engine, prepared)
        finally:
            with self._count_lock:
                self._active -= 1

    def _stream(self, engine: Engine, prepared: Prepared) -> Iterator[Delta]:
        decoder = DecodeStream(skip_special_tokens=True)
        tokenizer = engine.base.tokenizer._tokenizer
        tokens = pending = 0
        replies = engine.stream(prepared.handle, prepared.prompt_ids, prepared.params)
        try:
            for token in replies:
                tokens += 1
                pending += 1
                text = decoder.step(tokenizer, token)
                if text:
                    yield Delta(text, pending)
                    pending = 0
        finally:
            replies.close()  # type: ignore[attr-defined]
        finish = "length" if tokens >= prepared.params.max_new_tokens else "stop"
        yield Delta("", pending, finish)  # type: ignore[arg-type]

    def _ready(self) -> tuple[Engine, Version]:
        if self._engine is None or self._live is None:
            if self._status.state == "failed":
                raise NotReady(f"no model: {self._status.reason}", retry_after_s=RETRY_S)
            raise NotReady("the model is loading", retry_after_s=2)
        return self._engine, self._live

    def _choose(self, engine: Engine, live: Version, asked: str | None) -> Version:
        if asked in (None, "", "autodidact", f"autodidact@{live.number}"):
            return live
        if asked in ("base", "autodidact@0"):
            return engine.untouched
        there = ["autodidact", f"autodidact@{live.number}", "base"]
        raise UnknownModel(f"no such model; there are {', '.join(dict.fromkeys(there))}")

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
        base = self._resolve()
        self._status = replace(self._status, name=base.name, fallback=base.fallback)
        loaded = models.load(base.path, 1)
        threads = self._settings.threads or (
            1 if loaded.parameters < SMALL_MODEL else min(2, models.threads_for(0, spare=False))
        )
        models.use_threads(threads)
        self._base_sha256 = base.sha256
        engine = Engine(loaded)
        self._engine = engine
        version = engine.untouched
        number = checkpoints.current(self._home)
        while number != checkpoints.BASE_VERSION:
            found = self._try_load(engine, number)
            if found is not None:
                version = found
                break
            try:
                number = checkpoints.read(self._home, number).parent or checkpoints.BASE_VERSION
            except CheckpointError:
                break
        self._switch(
            version,
            state="ready",
            context=loaded.context,
            parameters=loaded.parameters,
            reason="",
        )
        log.info("serving %s: %s", _call(version.number), loaded.description)

    def _follow(self) -> None:
        engine, live = self._ready()
        number = checkpoints.current(self._home)
        if number == live.number and self._status.rejected:
            self._status = replace(self._status, rejected="")
        if number == live.number or number in self._refused:
            return
        version = engine.untouched if number == 0 else self._try_load(engine, number)
        if version is None:
            return
        self._switch(version, rejected="")
        gc.collect()
        log.info("%s is live", _call(number))

    def _try_load(self, engine: Engine, number: int) -> Version | None:
        try:
            files = checkpoints.verify(self._home, number, self._base_sha256)
            return engine.load(number, files.config, files.weights)
        except OSError:
            raise  # a passing fault of the disk: the next look tries again
        except Exception as error:
            if checkpoints.current(self._home) != number:
                return None
            reason = str(error)
            if not isinstance(error, CheckpointError):
                log.exception("%s could not be loaded", _call(number))
                reason = f"{checkpoints.name(number)}: could not be loaded ({type(error).__name__})"
            self._refused[number] = reason
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


def _call(number: int) -> str:
    return f"checkpoint {number}" if number else "the untouched base"
