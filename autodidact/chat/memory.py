"""What of a conversation the model sees. Pure: no database, no model.

A turn is a question with the last reply to it; a question that got no words in reply is left out,
so that the prompt always alternates. When not everything fits, the oldest turns go first; nothing
is summarised. A prompt is measured in tokens where the generator can count them, else in
characters (`budget` says which, and how much fits).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autodidact.store.chat import StoredMessage
from autodidact.types.chat import Message
from autodidact.types.protocols import CountsTokens, Generator

Size = Callable[[Sequence[Message]], int]
"""How long the prompt is that messages make: in tokens or in characters."""
OPEN_CHARS = 24_000
"""Characters of a prompt where the context is not known: about 6,000 tokens of English, which
leaves room for a reply in the smallest contexts that are served over HTTP (8,192 tokens)."""
CHARS_PER_TOKEN = 3
"""Characters that a token is taken for where no one counts: English text has more than four."""
MESSAGE_CHARS = 16
"""What the marks around a message are taken for, so that a window has a bounded number of turns."""


@dataclass(frozen=True)
class Budget:
    """How long a prompt may be, and how much of it passages may take, as `size` measures."""

    size: Size
    prompt: int
    passages: int


def budget(generator: Generator, context: int | None, kept_free: int) -> Budget:
    """Room for a prompt beside a reply of `kept_free` tokens. Passages take at most half."""
    if context is None:
        return Budget(characters, OPEN_CHARS, OPEN_CHARS // 2)
    if isinstance(generator, CountsTokens):
        return Budget(generator.count, context - kept_free, context // 2)
    fits = CHARS_PER_TOKEN * (context - kept_free)
    return Budget(characters, fits, CHARS_PER_TOKEN * context // 2)


def characters(messages: Sequence[Message]) -> int:
    """The size of a prompt where tokens cannot be counted."""
    return sum(len(message.content) + MESSAGE_CHARS for message in messages)


@dataclass(frozen=True)
class Turn:
    question: str
    answer: str


@dataclass(frozen=True)
class Window:
    """The messages of a prompt, their size, and how many turns were left out."""

    messages: tuple[Message, ...]
    size: int
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
    size: Size,
    limit: int,
) -> Window:
    """The window with the fewest turns left out whose prompt has at most the size `limit`.

    A question that does not fit by itself is returned alone: whether it is refused is for the
    generator to say. `size` is called about log2 of the number of turns times.
    """

    def messages(dropped: int) -> tuple[Message, ...]:
        kept: list[Message] = []
        for turn in past[dropped:]:
            kept += [Message("user", turn.question), Message("assistant", turn.answer)]
        return (*kept, Message("user", question))

    def fits(dropped: int) -> bool:
        return size(messages(dropped)) <= limit

    dropped = 0
    if past and not fits(0):
        dropped = bisect_left(range(len(past)), True, lo=1, key=fits)
    kept = messages(dropped)
    return Window(kept, size(kept), dropped)
