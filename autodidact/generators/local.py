"""The model in this process as a `Generator`: any version of it, with every capability.

What is in memory and which version serves is the `Follower`'s business; here a request picks its
version by name and holds it until it ends. Kept versions and the bare base can be asked for.

Every program imports this module to know what may be set: torch loads when a `LocalGenerator` is
made, not before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autodidact import checkpoints
from autodidact.errors import CheckpointError, ContextExceeded, NotReady, UnknownModel
from autodidact.generators import ServingContext
from autodidact.settings import Section
from autodidact.types.chat import AcceptedRequest, Message, ModelStatus, SamplingParams, ServedModel

if TYPE_CHECKING:
    from autodidact.engine import Version
    from autodidact.engine.batcher import Observe
    from autodidact.generators.follower import Runtime
    from autodidact.generators.text import TextStream
    from autodidact.models.bases import Base

log = logging.getLogger(__name__)
ANSWERS = "autodidact"
"""What the newest version is called where a request names a model."""


class LocalSettings(Section):
    """The model in the server itself. What it may be told stands under `[server]`."""


@dataclass(frozen=True)
class _Prompt:
    """What `prepare` keeps for `stream`: the version it picked, and the prompt's tokens."""

    version: Version
    ids: tuple[int, ...]


class LocalGenerator:
    """Start it with `start`, end it with `close`; everything else is for any thread.

    `observe(name, value)` is told the seconds of queues, first tokens, gaps and replies. `resolve`
    finds the base; None finds the one that the settings name.
    """

    name = "local"
    settings = LocalSettings
    most_logprobs = 20

    def __init__(
        self,
        settings: LocalSettings,
        context: ServingContext,
        resolve: Callable[[], Base] | None = None,
    ) -> None:
        from autodidact.generators.follower import Follower

        self.observe: Observe = lambda name, value: None
        self._home = context.home
        self._follower = Follower(
            context.home,
            context.server,
            resolve or (lambda: _named_base(context)),
            lambda name, value: self.observe(name, value),
        )

    def start(self) -> None:
        self._follower.start()

    def close(self) -> None:
        self._follower.close()

    def status(self) -> ModelStatus:
        return self._follower.status

    def models(self) -> list[ServedModel]:
        """What a request may ask for by name, the newest first, the base last."""
        _, live = self._follower.ready()
        since = self._follower.status.since
        newest, pinned = checkpoints.current(self._home), checkpoints.pinned(self._home)
        found = [ServedModel(ANSWERS, live.number, since, "newest")]
        for number in reversed(checkpoints.versions(self._home)):
            role: Any = "pinned" if number == pinned else "newest" if number == newest else "kept"
            manifest = checkpoints.folder(self._home, number) / checkpoints.MANIFEST
            with suppress(FileNotFoundError):  # retention deletes while we look
                if number not in self._follower.refused:
                    made = manifest.stat().st_mtime
                    found.append(ServedModel(name_of(number), number, made, role))
        return [*found, ServedModel("base", 0, since, "base")]

    def prepare(
        self, messages: Sequence[Message], params: SamplingParams, model: str | None = None
    ) -> AcceptedRequest:
        loaded, live = self._follower.ready()
        version = self._choose(loaded, live, model)
        return _fitting(loaded, version, loaded.dialogue_ids(messages), params)

    def prepare_text(
        self, text: str, params: SamplingParams, model: str | None = None
    ) -> AcceptedRequest:
        loaded, live = self._follower.ready()
        version = self._choose(loaded, live, model)
        return _fitting(loaded, version, loaded.text_ids(text), params)

    def stream(self, prepared: AcceptedRequest) -> TextStream:
        """The reply's deltas; the request waits for its turn from now on, and is ended by Busy
        where that does not come in time."""
        loaded, _ = self._follower.ready()
        prompt: _Prompt = prepared.handle
        return loaded.reply(prompt.version, prompt.ids, prepared.params)

    def count(self, messages: Sequence[Message]) -> int:
        return len(self._follower.ready()[0].dialogue_ids(messages))

    def figures(self) -> dict[str, float]:
        """Counters and gauges, by name; nothing before the base has loaded."""
        loaded = self._follower.loaded
        if loaded is None:
            return {}
        batcher = loaded.batcher
        return {
            **{name: float(count) for name, count in batcher.counts.items()},
            **self._follower.counts,
            "running": batcher.running,
            "waiting": batcher.waiting,
            "cache_bytes": batcher.cache_bytes,
            "prefix_bytes": batcher.prefix_bytes,
            "reused_tokens_total": float(batcher.reused),
            "versions_in_memory": len(loaded.shelf),
            "live": float(self.status().live or 0),
        }

    def _choose(self, loaded: Runtime, live: Version, asked: str | None) -> Version:
        if asked in (None, "", ANSWERS, f"{ANSWERS}@{live.number}"):
            return live
        if asked == "base":
            return loaded.engine.untouched
        name, _, number = (asked or "").partition("@")
        if name == ANSWERS and number.isdecimal() and len(number) < 10:
            refused = self._follower.refused
            if int(number) in refused:
                raise UnknownModel(f"model: {refused[int(number)]}")
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


def name_of(number: int) -> str:
    """The name under which a version can be asked for."""
    return f"{ANSWERS}@{number}" if number else "base"


def _fitting(
    loaded: Runtime, version: Version, ids: Sequence[int], params: SamplingParams
) -> AcceptedRequest:
    context = loaded.engine.base.context
    room = context - len(ids)
    if room < 1 or params.max_new_tokens > room:
        raise ContextExceeded(
            f"prompt {len(ids)} + max_length {params.max_new_tokens} exceeds {context} tokens",
            context,
            len(ids),
        )
    handle = _Prompt(version, tuple(ids))
    return AcceptedRequest(name_of(version.number), version.number, len(ids), room, params, handle)


def _named_base(context: ServingContext) -> Base:
    from autodidact.models import bases

    return bases.resolve(context.model, context.revision, context.home, log.info, context.rounding)
