"""A generator as one behind an HTTP API would be: it answers, and knows nothing beforehand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from autodidact.errors import ContextExceeded, GeneratorError, UnknownModel
from autodidact.types.chat import (
    AcceptedRequest,
    Delta,
    Message,
    ModelStatus,
    SamplingParams,
    ServedModel,
    Usage,
)

NAME = "acme/large-7"


class RemoteLikeGenerator:
    """A `Generator` with none of the capabilities: no versions, no count, no context known.

    It echoes the last message, word by word; `usage` comes with the last delta, if at all. What it
    was asked is in `asked`. `refusal`, once set, is raised at the first delta. It takes at most
    `longest` words, and says so when it is asked, as such an API does.
    """

    def __init__(self, *, usage: bool = True, longest: int = 100_000) -> None:
        self.asked: list[tuple[tuple[Message, ...], SamplingParams]] = []
        self.refusal: GeneratorError | None = None
        self._usage = usage
        self._longest = longest
        self._since = time.time()

    def status(self) -> ModelStatus:
        return ModelStatus("ready", NAME, False, None, None, self._since)

    def models(self) -> Sequence[ServedModel]:
        return [ServedModel(NAME, None, self._since, None)]

    def prepare(
        self, messages: Sequence[Message], params: SamplingParams, model: str | None = None
    ) -> AcceptedRequest:
        if model not in (None, NAME):
            raise UnknownModel(f"model: there is {NAME}")
        return AcceptedRequest(NAME, None, None, None, params, tuple(messages))

    def stream(self, prepared: AcceptedRequest) -> Iterator[Delta]:
        self.asked.append((prepared.handle, prepared.params))
        return _Plain(self._deltas(prepared))

    def _deltas(self, prepared: AcceptedRequest) -> Iterator[Delta]:
        if self.refusal is not None:
            raise self.refusal
        prompt = sum(len(message.content.split()) for message in prepared.handle)
        if prompt + prepared.params.max_new_tokens > self._longest:
            raise ContextExceeded(f"{NAME}: too long")
        words = prepared.handle[-1].content.split(" ")[: prepared.params.max_new_tokens]
        for number, word in enumerate(words):
            yield Delta(f" {word}" if number else word, 0)
        yield Delta("", 0, "stop", usage=Usage(prompt, len(words)) if self._usage else None)


class _Plain:
    """An iterator and nothing else: it cannot be closed or cancelled."""

    def __init__(self, deltas: Iterator[Delta]) -> None:
        self._deltas = deltas

    def __iter__(self) -> _Plain:
        return self

    def __next__(self) -> Delta:
        return next(self._deltas)
