"""A reply's tokens as text, which ends before a stop string."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Iterator, Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from autodidact.engine.tickets import Ticket
from autodidact.engine.tokens import byte_of, explain
from autodidact.generators.stops import StopStrings
from autodidact.models.loading import LoadedBase
from autodidact.types.chat import Delta, TokenLogprob


class TextStream(Iterator[Delta]):
    """The deltas of a ticket. Text that may be the beginning of a character or of a stop string is
    held back. `close` and `cancel` stop the generation within one token, from any thread."""

    def __init__(self, base: LoadedBase, ticket: Ticket) -> None:
        self._ticket = ticket
        self._deltas = _deltas(base, ticket)

    def __next__(self) -> Delta:
        return next(self._deltas)

    def cancel(self) -> None:
        self._ticket.cancel()

    close = cancel

    def __del__(self) -> None:
        """Who drops it, read or not, has gone."""
        self.cancel()


BEFORE = 16
"""Tokens of the prompt that the reply's text follows on."""


class _Spelling:
    """What a reply's tokens say, as they come: what they add to the prompt's text. SentencePiece's
    decoders take the first space of a text away, which is the reply's only if nothing stands before
    it.

    Tokens that stand for single bytes are put together here: `tokenizers` reads a run of them as a
    whole, so that one that is no UTF-8 changes what was sent before, and its stream ends in an
    error. A character that is not complete is held back, and lost at the end.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        before = list(prompt[-BEFORE:])
        said = tokenizer.decode(before)
        if said.endswith("\ufffd"):  # taken for the beginning of a character
            before = self._something()
        self._words = DecodeStream(before, skip_special_tokens=True)
        self._begun = bool(said)
        self._bytes = getincrementaldecoder("utf-8")("replace")

    def step(self, token: int) -> str:
        byte = byte_of(self._tokenizer, token)
        if byte is not None:
            text = self._bytes.decode(bytes([byte]))
            if not self._begun:  # what comes next has something before it
                self._words = DecodeStream(self._something(), skip_special_tokens=True)
                self._begun = True
            return text
        cut_off = self._bytes.decode(b"", final=True)
        text = self._words.step(self._tokenizer, token) or ""
        self._begun = self._begun or bool(text)
        return cut_off + text

    def _something(self) -> list[int]:
        return list(self._tokenizer.encode("a", add_special_tokens=False).ids)


def _deltas(base: LoadedBase, ticket: Ticket) -> Iterator[Delta]:
    spelling = _Spelling(base.tokenizer._tokenizer, ticket.prompt)
    stops = StopStrings(ticket.params.stop)
    pending = 0
    explained: list[TokenLogprob] = []
    for drawn in ticket.draws():
        pending += 1
        if drawn.logprob is not None:
            explained.append(explain(base, drawn))
        text = stops.feed(spelling.step(drawn.token))
        if stops.met:
            ticket.leave("stop")
            yield Delta(text, pending, "stop", tuple(explained))
            return
        if text:
            yield Delta(text, pending, None, tuple(explained))
            pending, explained = 0, []
    if not ticket.cancelled:
        yield Delta(stops.rest(), pending, ticket.finish or "stop", tuple(explained))
