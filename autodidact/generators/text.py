"""A reply's tokens as text, which ends before a stop string."""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers.decoders import DecodeStream

from autodidact.engine.tickets import Ticket
from autodidact.engine.tokens import explain
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


def _deltas(base: LoadedBase, ticket: Ticket) -> Iterator[Delta]:
    tokenizer = base.tokenizer._tokenizer
    # What a reply says is what its tokens add to the prompt's text: SentencePiece's decoders take
    # the first space of a text away, which is the reply's only if nothing stands before it.
    before = list(ticket.prompt[-BEFORE:])
    if tokenizer.decode(before).endswith("\ufffd"):  # taken for the beginning of a character
        before = []
    decoder = DecodeStream(before, skip_special_tokens=True)
    stops = StopStrings(ticket.params.stop)
    pending = 0
    explained: list[TokenLogprob] = []
    for drawn in ticket.draws():
        pending += 1
        if drawn.logprob is not None:
            explained.append(explain(base, drawn))
        text = stops.feed(decoder.step(tokenizer, drawn.token) or "")
        if stops.met:
            ticket.leave("stop")
            yield Delta(text, pending, "stop", tuple(explained))
            return
        if text:
            yield Delta(text, pending, None, tuple(explained))
            pending, explained = 0, []
    if not ticket.cancelled:
        yield Delta(stops.rest(), pending, ticket.finish or "stop", tuple(explained))
