"""Examples as token sequences with labels, alone and woven into conversations.

Loss is on answers and on text, never on prompts or padding. Packing is not used: it leaks between
documents without FlashAttention.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autodidact.models.loading import LoadedBase
from autodidact.models.prompts import dialogue_ids, neutral
from autodidact.types.chat import Message
from autodidact.types.documents import Example

MAX_TOKENS = 384


ASKED = ("question", "cloze", "reversed")


TURN_WEIGHTS = (5, 2, 2, 1)


HISTORY_SHARE = 0.1


WOVEN_TOKENS = 192


@dataclass(frozen=True)
class TrainingSequence:
    """One training sequence: labels are the ids, or -100 where no loss is due. `weight` is how
    often it is drawn as replay, against the other sequences that are replayed."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    kind: str
    document_id: int
    fact: str = ""
    weight: float = 1.0


def tokenise(
    base: LoadedBase, examples: Sequence[Example], *, sentences: bool = False
) -> list[TrainingSequence]:
    """Examples as sequences; `sentences`: the assistant answers by the sentence of a fact that has
    one. A dialogue that is too long is left out rather than cut in its answer; a text is cut at
    MAX_TOKENS."""
    limit = min(MAX_TOKENS, base.context)
    made = []
    for example in examples:
        if example.messages:
            messages = example.messages
            if sentences and example.sentence:
                messages = (*messages[:-1], Message("assistant", example.sentence))
            ids, start = dialogue_ids(base, messages)
            if len(ids) > limit:
                continue
            labels = [-100] * start + ids[start:]
        else:
            ids = [
                base.start_id,
                *base.tokenizer(neutral(base, example.text), add_special_tokens=False).input_ids,
            ]
            ids = ids[:limit]
            labels = [-100, *ids[1:]]
        made.append(
            TrainingSequence(
                tuple(ids), tuple(labels), example.kind, example.document_id, example.fact
            )
        )
    return made


def weighted(
    rows: Sequence[TrainingSequence], shares: Mapping[str, float]
) -> list[TrainingSequence]:
    """The sequences of these facts, each fact's share spread evenly over its sequences."""
    count = Counter(row.fact for row in rows)
    return [
        replace(row, weight=shares[row.fact] / count[row.fact])
        for row in rows
        if shares.get(row.fact, 0) > 0
    ]


@dataclass(frozen=True)
class Weave:
    """How single questions are woven into conversations of several turns.

    People ask the next question in the same chat: trained on single turns only, the starter
    answered second questions wrong that it answered right alone. Between two dialogues stands
    `separator`; the second one's first `skip` tokens (a preamble of the template) are left out.
    `histories` are chats that the base wrote, put before some conversations without a loss.
    """

    separator: tuple[int, ...]
    skip: int
    histories: tuple[TrainingSequence, ...]
    limit: int

    def apply(
        self, rows: Sequence[TrainingSequence], order: random.Random
    ) -> list[TrainingSequence]:
        """The rows as conversations of one to four questions, each row in exactly one."""
        woven = [row for row in rows if row.kind not in ASKED]
        asked = [row for row in rows if row.kind in ASKED]
        order.shuffle(asked)
        while asked:
            turns = order.choices((1, 2, 3, 4), TURN_WEIGHTS)[0]
            talk = order.choice(self.histories) if self._begins_with_history(order) else asked.pop()
            for _ in range(turns if talk.kind == "history" else turns - 1):
                if not asked or len(talk.ids) + len(asked[-1].ids) > self.limit:
                    break
                talk = self._join(talk, asked.pop())
            if talk.kind == "history":  # not even one question fitted behind it
                talk = asked.pop()
            woven.append(talk)
        return woven

    def _begins_with_history(self, order: random.Random) -> bool:
        return bool(self.histories) and order.random() < HISTORY_SHARE

    def _join(self, first: TrainingSequence, second: TrainingSequence) -> TrainingSequence:
        gap = (-100,) * len(self.separator)
        return TrainingSequence(
            (*first.ids, *self.separator, *second.ids[self.skip :]),
            (*first.labels, *gap, *second.labels[self.skip :]),
            second.kind,
            second.document_id,
        )


def weave(base: LoadedBase, chats: Sequence[Sequence[int]]) -> Weave | None:
    """How this base's template joins turns, found by rendering one; None if it cannot be told.

    `chats` are anchors; those that begin like a chat become histories.
    """
    talk = [
        Message("user", "Where is the mill?"), Message("assistant", "North"),
        Message("user", "Name its owner."), Message("assistant", "Nobody knows"),
    ]  # fmt: skip
    first, second = dialogue_ids(base, talk[:2])[0], dialogue_ids(base, talk[2:])[0]
    whole = dialogue_ids(base, talk)[0]
    if whole[: len(first)] != first:
        return None
    rest = whole[len(first) :]
    for skip in range(len(second)):
        tail = second[skip:]
        if rest[-len(tail) :] == tail:
            same = [a == b for a, b in zip(first, second, strict=False)]
            opening = first[: same.index(False)]
            limit = min(WOVEN_TOKENS, base.context)
            histories = tuple(
                TrainingSequence(tuple(row), (-100,) * len(row), "history", 0)
                for row in chats
                if list(row[: len(opening)]) == opening
                and row[-1] in base.stop_ids
                and len(row) <= limit // 2
            )
            return Weave(tuple(rest[: len(rest) - len(tail)]), skip, histories, limit)
    return None
