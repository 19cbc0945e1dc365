"""Wrong answers to choose between: of the same article, of the same type, as long.

Distractors are answers to other questions on the same article, so that knowing what kind of thing
is asked, or which article is meant, does not help: only the fact does. Types are told by a small
classifier of our own (year, number, name, phrase); like lengths keep the mean log-probability a
token from favouring short answers.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from autodidact.proof.data import Question
from autodidact.reading.answers import normalise_answer, uncited

AnswerType = Literal["year", "number", "name", "phrase"]
DISTRACTORS = 3
_NUMBERS = """
    one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty sixty
    seventy eighty ninety hundred hundreds thousand thousands million millions billion half first
    second third fourth fifth
"""
_NUMBER_WORDS = frozenset(_NUMBERS.split())
_SMALL_WORDS = frozenset(("a", "an", "the", "of", "and", "de", "la", "in", "for", "von", "on", "&"))


def answer_type(answer: str) -> AnswerType:
    """What kind of thing an answer is, by its form alone."""
    text = answer.strip().rstrip(".")
    if re.fullmatch(r"1\d{3}|20\d{2}", text):
        return "year"
    words = re.findall(r"[\w$€£%&'’.,-]+", text)
    if re.search(r"\d", text) or (words and words[0].lower() in _NUMBER_WORDS):
        return "number"
    telling = [word for word in words if word.lower() not in _SMALL_WORDS]
    if telling and all(word[0].isupper() for word in telling):
        return "name"
    return "phrase"


class Answers:
    """All answers to the questions on one article, to take wrong ones from."""

    def __init__(self, questions: Sequence[Question]) -> None:
        texts = dict.fromkeys(question.answer for question in questions)
        self._all = [
            (text, normalise_answer(text), answer_type(text), len(text.split())) for text in texts
        ]

    def distractors(self, question: Question) -> tuple[str, ...]:
        """Up to three wrong answers to one of the questions.

        Left out is whatever equals, contains or is contained in a gold answer, or stands in the
        question. The same type comes first, then the nearest length in words, then an order fixed
        by a hash.
        """
        gold = [normalise_answer(answer) for answer in question.answers]
        asked = normalise_answer(question.text)
        kind, length = answer_type(question.answer), len(question.answer.split())
        ranked: dict[str, tuple[tuple[bool, int, str], str]] = {}
        for text, plain, its_kind, its_length in self._all:
            if not plain or plain in ranked or _within(plain, asked):
                continue
            if any(_within(plain, right) or _within(right, plain) for right in gold):
                continue
            order = hashlib.sha256(f"{question.id}\x1f{plain}".encode()).hexdigest()
            ranked[plain] = ((its_kind != kind, abs(its_length - length), order), text)
        return tuple(text for _, text in sorted(ranked.values())[:DISTRACTORS])


def f1(reply: str, answers: Sequence[str]) -> float:
    """SQuAD's F1: the best overlap of words with any gold answer, after normalisation."""
    found = normalise_answer(uncited(reply)).split()
    return max(_f1(found, normalise_answer(answer).split()) for answer in answers)


def _f1(found: Sequence[str], gold: Sequence[str]) -> float:
    if not found or not gold:
        return float(list(found) == list(gold))
    common = sum((Counter(found) & Counter(gold)).values())
    return 2 * common / (len(found) + len(gold))


def holds(text: str, answers: Sequence[str]) -> bool:
    """Whether a passage contains one of the answers, as whole words after normalisation."""
    plain = normalise_answer(text)
    return any(_within(normalise_answer(answer), plain) for answer in answers)


def _within(inner: str, outer: str) -> bool:
    return bool(inner) and f" {inner} " in f" {outer} "
