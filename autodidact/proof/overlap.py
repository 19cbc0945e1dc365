"""Training questions that people asked too are not trained on.

A made question overlaps a human one if both share eight words in a row, or if the sets of their
words are alike (Jaccard at least 0.6). What is left out is counted and reported.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from autodidact.types.documents import Example

WORDS_IN_A_ROW = 8
ALIKE = 0.6


class HumanQuestions:
    """What made questions are compared with: the words of every human question."""

    def __init__(self, questions: Sequence[str]) -> None:
        rows = [_words(question) for question in questions]
        self._runs = {run for row in rows for run in _runs(row)}
        self._sizes = np.array([len(set(row)) for row in rows], dtype=np.int64)
        holders: dict[str, list[int]] = {}
        for i, row in enumerate(rows):
            for word in set(row):
                holders.setdefault(word, []).append(i)
        self._holders = {word: np.array(rows) for word, rows in holders.items()}

    def overlap(self, question: str) -> bool:
        row = _words(question)
        if any(run in self._runs for run in _runs(row)):
            return True
        words = set(row)
        shared = [self._holders[word] for word in words if word in self._holders]
        if not shared:
            return False
        common = np.bincount(np.concatenate(shared), minlength=len(self._sizes))
        together = self._sizes + len(words) - common
        return bool((common >= ALIKE * together - 1e-9).any())


def without_overlap(
    examples: Sequence[Example], human: HumanQuestions
) -> tuple[list[Example], int]:
    """The examples whose question no person asked, and how many were left out. Running text is no
    question and stays."""
    kept = [
        example
        for example in examples
        if not example.messages or not human.overlap(example.messages[0].content)
    ]
    return kept, len(examples) - len(kept)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _runs(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + WORDS_IN_A_ROW]) for i in range(len(words) - WORDS_IN_A_ROW + 1)}
