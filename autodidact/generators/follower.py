"""`Follower`: the base in memory, and the version that serves, as versions are published.

One thread resolves and loads the base, then the version that serves (the pinned one, else what
`CURRENT` names), and from then on looks twice a second. A new version is verified, built and tried
beside the old one; then one reference is switched. A version that does not load is noted in
`REJECTED`, said once, and never tried again; the old one goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autodidact import checkpoints
from autodidact.engine import Engine, Version, runtime
from autodidact.engine.batcher import Batcher, Observe
from autodidact.engine.exactness import require_exact
from autodidact.engine.runtime import RuntimeChoice
from autodidact.engine.tokens import text_ids
from autodidact.errors import (
    AutodidactError,
    BaseUnfit,
    CheckpointError,
    NotReady,
    SettingError,
)
from autodidact.generators.shelf import Shelf
from autodidact.generators.text import TextStream
from autodidact.models import loading, quantisation
from autodidact.models.bases import GRAPHS, Base
from autodidact.models.loading import LoadedBase
from autodidact.models.prompts import prompt_ids
from autodidact.replying import Replying
from autodidact.settings import ServerSettings
from autodidact.types.chat import Message, ModelStatus, SamplingParams

log = logging.getLogger(__name__)
POLL_S = 0.5
RETRY_S = 30


@dataclass(frozen=True)
class Runtime:
    """What exists once the base is in memory."""

    engine: Engine
    batcher: Batcher
    shelf: Shelf

    def dialogue_ids(self, messages: Sequence[Message]) -> list[int]:
        """The prompt that a dialogue makes, generation mark included."""
        return prompt_ids(self.engine.base, messages)

    def text_ids(self, text: str) -> list[int]:
        return text_ids(self.engine.base, text)

    def reply(self, version: Version, prompt: Sequence[int], params: SamplingParams) -> TextStream:
        """The reply's deltas; the request waits for its turn from now on."""
        return TextStream(self.engine.base, self.batcher.submit(version, prompt, params))


class Follower:
    """Start it with `start`, end it with `close`; everything else is for any thread.

    Raises SettingError where the machine has not what `server.quantisation` needs.
    """

    def __init__(
        self,
        home: Path,
        settings: ServerSettings,
        resolve: Callable[[], Base],
        observe: Observe,
    ) -> None:
        if settings.quantisation != "none":
            quantisation.require(settings.quantisation)
        self._home = home
        self._settings = settings
        self._resolve = resolve
        self._observe = observe
        self.status = ModelStatus("loading", "", False, 0, 0, time.time())
        self.refused: dict[int, str] = {}
        """Versions that do not load, and why."""
        self.counts = {"reloads_total": 0.0, "rejected_total": 0.0, "reload_seconds_sum": 0.0}
        self.loaded: Runtime | None = None
        self._live: Version | None = None
        self._unfit = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="checkpoint-watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self.loaded is not None:
            self.loaded.batcher.close()

    def ready(self) -> tuple[Runtime, Version]:
        """The base and the version that serves. Raises NotReady until there are both."""
        if self.loaded is None or self._live is None:
            if self.status.state == "failed":
                raise NotReady(f"no model: {self.status.reason}", retry_after_s=RETRY_S)
            raise NotReady("the model is loading", retry_after_s=2)
        return self.loaded, self._live

    # The thread ----------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._load_base_or_say_why():
            if self._unfit or self._closing.wait(RETRY_S):
                return
        while not self._closing.wait(POLL_S):
            try:
                self.look()
            except (OSError, CheckpointError) as error:
                log.warning("%s", error)

    def _load_base_or_say_why(self) -> bool:
        try:
            self._load_base()
            return True
        except BaseUnfit as error:
            log.error("%s", error)
            self._unfit, reason = True, str(error)
        except AutodidactError as error:
            reason = str(error)
            if reason != self.status.reason:
                log.error("%s; trying again every %d s", reason, RETRY_S)
        except Exception as error:
            log.exception("the base model could not be loaded")
            reason = type(error).__name__
        self.status = replace(self.status, state="failed", reason=reason)
        return False

    def _load_base(self) -> None:
        loaded = self.loaded or self._load()
        self.loaded = loaded
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
        told = f"{base.description}; {self.status.runtime}"
        log.info("serving %s: %s", _call(version.number), told)

    def _load(self) -> Runtime:
        """The base in memory and a running batcher on it."""
        chosen = self._settings
        found = self._resolve()
        self.status = replace(
            self.status,
            name=found.name,
            fallback=found.fallback,
            origin=found.origin,
            choice=found.reason,
        )
        base, choice = self._base(found)
        self.status = replace(self.status, runtime=choice.why)
        engine = Engine(base, graph=choice.passes)
        if choice.passes is None:
            require_exact(engine)
        sign = Replying(self._home)
        on_cpu = base.device.type == "cpu"  # what a study would take from it
        batcher = Batcher(
            engine,
            max_concurrent=chosen.max_concurrent,
            prefill_tokens=chosen.prefill_tokens,
            prefix_bytes=chosen.prefix_cache_mb * 1_000_000,
            queue_seconds=chosen.queue_seconds,
            reply_seconds=chosen.reply_seconds,
            observe=self._observe,
            replying=sign.say if on_cpu else lambda at_work: None,
        )
        batcher.start()
        return Runtime(
            engine, batcher, Shelf(self._home, engine, found.sha256, chosen.versions_in_memory)
        )

    def _base(self, found: Base) -> tuple[LoadedBase, RuntimeChoice]:
        """The base, and what computes its passes. Of a base that a graph computes only the shapes
        stay in memory."""
        chosen, folder = self._settings, found.path
        wanted = chosen.wanted_runtime
        settings = (wanted, chosen.threads, chosen.dtype, chosen.quantisation)
        where = runtime.measured_on(found.sha256, *settings)
        known = runtime.known(self._home, where)
        reason = ""
        if wanted != "torch" and loading.on_cpu() and runtime.may_fit(folder):
            base = loading.load(folder, 0, dtype="float32")
            files = runtime.graph_folder(self._home / GRAPHS, found.sha256)
            choice = runtime.choose(base, wanted, chosen.threads, known, files)
            if choice.passes is not None:
                loading.use_threads(choice.threads)
                base.model.to("meta")  # type: ignore[arg-type]
                loading.return_memory()
                told = f"{base.parameters / 1e6:.1f}M parameters, context {base.context}"
                base = replace(base, description=told)
                return base, self._keep(choice, where)
            reason = choice.why
            del base
        if chosen.runtime == "onnx":
            raise SettingError(
                "server.runtime: onnx is for a base of 4- or 8-bit weights (a GGUF file, or one "
                'rounded as the setting "rounding" says) on a CPU, '
                'with server.dtype at "auto", no server.quantisation, and onnxruntime; set "auto"'
            )
        base = loading.load(folder, 0, dtype=chosen.dtype, quantisation=chosen.quantisation)
        threads = known.threads if known and known.runtime == "torch" else chosen.threads
        choice = runtime.by_torch(base, threads, reason)
        loading.use_threads(choice.threads)
        return base, self._keep(choice, where)

    def _keep(self, choice: RuntimeChoice, where: str) -> RuntimeChoice:
        try:
            runtime.keep(self._home, where, choice)
        except OSError as error:  # it is measured again at the next start
            log.warning("%s: %s", runtime.FILE, error)
        return choice

    def _first(self, loaded: Runtime) -> Version:
        """What serves at the start: the newest that loads, going from parent to parent."""
        try:
            number = checkpoints.serving(self._home)
        except CheckpointError as error:  # PIN or CURRENT is damaged
            log.error("%s; serving the newest version", error)
            self.status = replace(self.status, rejected=str(error))
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

    def look(self) -> None:
        """Switch to what serves now by the files of the home, if it is another and it loads."""
        loaded, live = self.ready()
        number = checkpoints.serving(self._home)
        if number == live.number and self.status.rejected:
            self.status = replace(self.status, rejected="")
        if number == live.number or number in self.refused:
            return
        begun = time.monotonic()
        version = self._try_load(loaded, number)
        if version is None:
            return
        loaded.shelf.keep(number)
        self._switch(version, rejected="")
        self.counts["reloads_total"] += 1
        self.counts["reload_seconds_sum"] += time.monotonic() - begun
        log.info("%s is live", _call(number))

    def _try_load(self, loaded: Runtime, number: int) -> Version | None:
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
            self.refused[number] = reason
            self.counts["rejected_total"] += 1
            serving = _call(self._live.number) if self._live else "an older version"
            log.error("%s; serving %s", reason, serving)
            self.status = replace(self.status, rejected=reason)
            checkpoints.reject(self._home, number, reason)
            return None

    def _switch(self, version: Version, **status: object) -> None:
        self._live = version
        self.status = replace(
            self.status,
            live=version.number,
            since=time.time(),
            **status,  # type: ignore[arg-type]
        )


def _call(number: int) -> str:
    return f"checkpoint {number}" if number else "the untouched base"
