"""What modules meet behind: sources, filters and generators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from autodidact.types.chat import Delta, Message, ModelStatus, Prepared, SamplingParams, ServedModel
from autodidact.types.documents import Document


class Source(Protocol):
    """Where documents come from. `since` is the last cursor that was stored, or None."""

    name: str

    def documents(self, since: str | None) -> Iterator[Document]: ...


class Filter(Protocol):
    """What judges a document before it is stored. `check` gets it normalised, and gives it back, as
    it is or with another text, or else the reason for refusing it, without the document's name."""

    name: str

    def check(self, document: Document) -> Document | str: ...


class Generator(Protocol):
    """What answers. `prepare` raises a `GeneratorError`; closing the iterator of `stream` stops
    the generation within one token."""

    def status(self) -> ModelStatus: ...

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt that these messages make, generation mark included."""
        ...

    def prepare(
        self, messages: Sequence[Message], params: SamplingParams, model: str | None = None
    ) -> Prepared: ...

    def prepare_text(self, text: str, params: SamplingParams, model: str | None = None) -> Prepared:
        """As `prepare`, to go on with a text instead of answering in a dialogue."""
        ...

    def models(self) -> Sequence[ServedModel]:
        """What a request may ask for by name, the newest first, the base last."""
        ...

    def stream(self, prepared: Prepared) -> Iterator[Delta]: ...
