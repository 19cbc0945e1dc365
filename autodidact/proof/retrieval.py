"""Passages for the open book: BM25 over the taught articles' chunks, the best three.

BM25 as SQLite's FTS5 computes it (Robertson and Zaragoza 2009; k1 1.2, b 0.75, an inverse document
frequency that is never negative), in memory, independent of the learner's own index. Words are
lower case with a plural's s cut off; English stop words do not count. Passages reach the model in
the very form in which the server puts them before a question.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from autodidact.chat import retrieval as replies
from autodidact.proof.choices import holds
from autodidact.types.documents import Chunk, Passage

PASSAGES = 3
CHUNK_WORDS = 80
K1, B = 1.2, 0.75
_STOPPED = """
    a about an and are as at be been by did do does for from had has have he her his how i if in
    into is it its of on or question s she that than the their them there these they this those to
    was were what when where which while who whom whose why will with
"""
_STOP_WORDS = frozenset(_STOPPED.split())


class ChunkIndex:
    """A fixed set of chunks to search."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._chunks = list(chunks)
        rows = [terms(f"{chunk.heading} {chunk.text}") for chunk in self._chunks]
        self._counts = [Counter(row) for row in rows]
        self._lengths = [len(row) for row in rows]
        self._mean = sum(self._lengths) / max(1, len(rows))
        self._holders: dict[str, list[int]] = {}
        for i, row in enumerate(rows):
            for word in set(row):
                self._holders.setdefault(word, []).append(i)

    def search(self, query: str, limit: int = PASSAGES) -> list[Chunk]:
        """The best chunks for any of the query's words, best first; ties by position."""
        scores: dict[int, float] = {}
        for word in dict.fromkeys(terms(query)):
            holders = self._holders.get(word, [])
            rarity = math.log((len(self._chunks) - len(holders) + 0.5) / (len(holders) + 0.5))
            for i in holders:
                count = self._counts[i][word]
                long = K1 * (1 - B + B * self._lengths[i] / self._mean)
                gain = max(1e-6, rarity) * count * (K1 + 1) / (count + long)
                scores[i] = scores.get(i, 0.0) + gain
        best = sorted(scores, key=lambda i: (-scores[i], i))[:limit]
        return [self._chunks[i] for i in best]

    def holding(self, document_id: int, answers: Sequence[str]) -> Chunk | None:
        """The first chunk of a document that holds one of the answers."""
        for chunk in self._chunks:
            if chunk.document_id == document_id and holds(chunk.text, answers):
                return chunk
        return None


def terms(text: str) -> list[str]:
    """The words that count, as they are compared."""
    words = re.findall(r"[^\W_]+", text.lower())
    return [_stem(word) for word in words if word not in _STOP_WORDS]


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def fitting(
    found: Sequence[tuple[str, str]], question: str, budget: int, tokens: Callable[[str], int]
) -> tuple[Passage, ...]:
    """The passages (title, text) that go before a question: whole ones, as long as `budget` tokens
    last. Only a first one that is too long is cut, at a word."""
    placed: list[Passage] = []

    def used(candidates: Sequence[Passage]) -> int:
        return tokens(replies.prompt(question, candidates)) - tokens(question)

    for title, text in found:
        passage = Passage(len(placed) + 1, 0, replies.quoted(title), "", "", replies.quoted(text))
        if used([*placed, passage]) <= budget:
            placed.append(passage)
            continue
        words = passage.text.split()
        while not placed and len(words) > 1:
            words = words[: int(len(words) * 0.95)]
            shorter = replace(passage, text=" ".join(words))
            if used([shorter]) <= budget:
                return (shorter,)
        break
    return tuple(placed)
