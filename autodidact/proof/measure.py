"""Asking: one row a question, closed book or with passages, through the serving engine.

Greedy replies are scored by SQuAD's exact match and F1 against all gold answers (the best counts);
likelihoods are mean log-probabilities a token of an answer and its end mark. `nll` is that of the
shortest gold answer; `margin` is its log-probability minus that of the likeliest distractor;
`choice` is 1 where the margin is above 0, that is the right one of up to four.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from autodidact.evaluation.recall import MAX_ANSWER_TOKENS, Subject
from autodidact.proof.choices import f1
from autodidact.reading.answers import exact_match
from autodidact.types.chat import Message

METRICS = ("margin", "choice", "em", "f1", "nll")
PIECE = 32


@dataclass(frozen=True)
class Item:
    """A question as it is put to a model. `message` is the user's turn."""

    id: str
    title: str
    message: str
    answers: tuple[str, ...]
    answer: str
    distractors: tuple[str, ...]


def ask(
    subject: Subject, items: Sequence[Item], progress: Callable[[int, int], None]
) -> list[dict[str, Any]]:
    """One row an item, in their order: id, em, f1, nll, margin, choice, reply."""
    rows: list[dict[str, Any]] = []
    for begin in range(0, len(items), PIECE):
        progress(begin, len(items))
        rows += _piece(subject, items[begin : begin + PIECE])
    return rows


def _piece(subject: Subject, items: Sequence[Item]) -> list[dict[str, Any]]:
    asked = [[Message("user", item.message)] for item in items]
    replies = subject.complete(asked, MAX_ANSWER_TOKENS)
    pairs = [
        [*messages, Message("assistant", answer)]
        for messages, item in zip(asked, items, strict=True)
        for answer in (item.answer, *item.distractors)
    ]
    scores = iter(subject.score(pairs))
    rows = []
    for item, reply in zip(items, replies, strict=True):
        true = next(scores)
        margin = true - max(next(scores) for _ in item.distractors)
        rows.append(
            {
                "id": item.id,
                "em": int(any(exact_match(reply, answer) for answer in item.answers)),
                "f1": f1(reply, item.answers),
                "nll": -true,
                "margin": margin,
                "choice": int(margin > 0),
                "reply": reply.strip(),
            }
        )
    return rows


def general(
    subject: Subject, blocks: Sequence[Sequence[int]], text: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Mean NLL a token, in nats, on the base's own held-out text and on WikiText-2 (None without
    the data)."""
    return {
        "anchors": statistics.fmean(subject.nll(blocks)) if blocks else None,
        "wikitext": statistics.fmean(subject.nll(text)) if text else None,
        "blocks": len(blocks),
        "wikitext_blocks": len(text),
    }
