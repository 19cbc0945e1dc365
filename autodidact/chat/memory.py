"""What of a conversation the model sees. Pure: no database, no model.

A turn is a question with the last reply to it; a question that got no words in reply is left out,
so that the prompt always alternates. When not everything fits, the oldest turns go first; nothing
is summarised.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autodidact.store.chat import StoredMessage
from autodidact.types.chat import Message


@dataclass(frozen=True)
class Turn:
    question: str
    answer: str


@dataclass(frozen=True)
class Window:
    """The messages of a prompt, how many tokens they make, and how many turns were left out."""

    messages: tuple[Message, ...]
    tokens: int
    dropped: int


def turns(messages: Sequence[StoredMessage], before: int | None = None) -> list[Turn]:
    """The answered questions in order; with `before`, only those asked before that question."""
    answers = {
        message.reply_to: message.content
        for message in messages
        if message.role == "assistant" and message.content.strip()
    }
    return [
        Turn(message.content, answers[message.id])
        for message in messages
        if message.role == "user"
        and message.id in answers
        and (before is None or message.id < before)
    ]


def fit(
    past: Sequence[Turn],
    question: str,
    count: Callable[[Sequence[Message]], int],
    limit: int,
) -> Window:
    """The window with the fewest turns left out whose prompt has at most `limit` tokens.

    A question that does not fit by itself is returned alone: whether it is refused is for the
    generator to say. `count` is called about log2 of the number of turns times.
    """

    def messages(dropped: int) -> tuple[Message, ...]:
        kept: list[Message] = []
        for turn in past[dropped:]:
            kept += [Message("user", turn.question), Message("assistant", turn.answer)]
        return (*kept, Message("user", question))

    def fits(dropped: int) -> bool:
        return count(messages(dropped)) <= limit

    dropped = 0
    if past and not fits(0):
        dropped = bisect_left(range(len(past)), True, lo=1, key=fits)
    kept = messages(dropped)
    return Window(kept, count(kept), dropped)
