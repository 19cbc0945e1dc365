"""A version of the local model as the examiner of `evaluation` sees it: text in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat, takewhile

from autodidact.engine import Engine, Version
from autodidact.models.prompts import dialogue_ids, prompt_ids
from autodidact.types.chat import Message


class Examinee:
    """Implements `recall.Subject` and `well_formed.Talker` for one version."""

    def __init__(self, engine: Engine, version: Version) -> None:
        self._engine = engine
        self._version = version

    def complete(self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int) -> list[str]:
        prompts = [prompt_ids(self._engine.base, messages) for messages in dialogues]
        replies = self._engine.complete(self._version, prompts, max_new_tokens)
        decode = self._engine.base.tokenizer.decode
        return [str(decode(reply, skip_special_tokens=True)) for reply in replies]

    def replies(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int
    ) -> list[tuple[str, bool]]:
        """Greedy replies to prompts given as token ids, and whether each ended by itself. Special
        tokens stay visible: in a reply they are a fault."""
        replies = self._engine.complete(self._version, prompts, max_new_tokens)
        decode = self._engine.base.tokenizer.decode
        return [(str(decode(ids)), len(ids) < max_new_tokens) for ids in replies]

    def score(
        self, dialogues: Sequence[Sequence[Message]], given: Sequence[str] = ()
    ) -> list[float]:
        pairs = []
        for messages, begun in zip(dialogues, given or repeat(""), strict=False):
            ids, start = dialogue_ids(self._engine.base, messages)
            if begun:
                start = self._begun(messages, begun, ids, start)
            pairs.append((ids[:start], ids[start:]))
        return self._engine.score(self._version, pairs)

    def _begun(self, messages: Sequence[Message], begun: str, ids: list[int], start: int) -> int:
        """Where in the ids of a dialogue the beginning of its last turn is over."""
        told = [*messages[:-1], Message("assistant", begun.rstrip())]
        same = zip(ids, dialogue_ids(self._engine.base, told)[0], strict=False)
        return max(start, sum(takewhile(bool, (a == b for a, b in same))))

    def nll(self, blocks: Sequence[Sequence[int]]) -> list[float]:
        pairs = [(block[:1], block[1:]) for block in blocks]
        return [-value for value in self._engine.score(self._version, pairs)]
