"""What modules meet behind: sources, filters and generators.

`Generator` is what a model in this process and one behind an HTTP API have in common. What only
some have are the protocols below it; who wants one asks with `isinstance`, and can do without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from autodidact.types.chat import (
    AcceptedRequest,
    Delta,
    Message,
    ModelStatus,
    SamplingParams,
    ServedModel,
)
from autodidact.types.documents import Document


class Source(Protocol):
    """Where documents come from. `since` is the last cursor that was stored, or None."""

    name: str

    def documents(self, since: str | None) -> Iterator[Document]: ...


@runtime_checkable
class Inventory(Protocol):
    """A source that gives all that it has each time: what it gives no more is gone from it."""

    def gone(self, uri: str) -> bool:
        """Of an address that `documents`, read to its end, has not given: whether there is nothing.
        False where it could not be looked at."""
        ...


class Filter(Protocol):
    """What judges a document before it is stored. `check` gets it normalised, and gives it back, as
    it is or with another text, or else the reason for refusing it, without the document's name."""

    name: str

    def check(self, document: Document) -> Document | str: ...


class Generator(Protocol):
    """What answers. Everything may be called from any thread; `prepare` and `stream` raise a
    `GeneratorError`."""

    def status(self) -> ModelStatus:
        """Whether it answers, and who. Never blocks: it is asked a few times a second."""
        ...

    def models(self) -> Sequence[ServedModel]:
        """What a request may ask for by name, the newest first, the base last."""
        ...

    def prepare(
        self, messages: Sequence[Message], params: SamplingParams, model: str | None = None
    ) -> AcceptedRequest:
        """Take a dialogue on. `model` None is whoever serves; another name is UnknownModel."""
        ...

    def stream(self, prepared: AcceptedRequest) -> Iterator[Delta]:
        """The reply, once. The parameters that count are those of `prepared`, which may be changed
        since. An iterator that has `close` stops the generation then."""
        ...


@runtime_checkable
class Runs(Protocol):
    """A generator with something to begin and to end: a thread, a model, a connection. The server
    calls `start` before its first request, and `close` after its last."""

    def start(self) -> None:
        """Returns at once: what takes long goes on beside it, while `status` says "loading"."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class CountsTokens(Protocol):
    """A generator that knows how long a prompt is before it answers."""

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt that these messages make, generation mark included."""
        ...


@runtime_checkable
class ContinuesText(Protocol):
    """A generator that goes on with a text as it stands."""

    def prepare_text(
        self, text: str, params: SamplingParams, model: str | None = None
    ) -> AcceptedRequest:
        """As `prepare`, to go on with a text instead of answering in a dialogue."""
        ...


@runtime_checkable
class TellsLogprobs(Protocol):
    """A generator whose deltas have `logprobs` where they are asked for."""

    most_logprobs: int
    """How many likeliest tokens it can tell at each place."""


@runtime_checkable
class TellsFigures(Protocol):
    """A generator that counts what it does."""

    def figures(self) -> Mapping[str, float]:
        """Counters and gauges, by name."""
        ...


@runtime_checkable
class Observable(Protocol):
    """A generator that tells what it measures: `observe(name, value)`, called from any thread."""

    observe: Callable[[str, float], None]


@runtime_checkable
class Cancellable(Protocol):
    """A stream of deltas that any thread may end at once; else it ends at its next delta."""

    def cancel(self) -> None: ...
