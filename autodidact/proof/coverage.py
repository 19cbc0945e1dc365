"""Which human questions a made example covers. Pure: documents and questions in, no score read.

The rules make examples of what they can read in an article, which is a small part of it, while
people ask about all of it. A question is covered if some fact of its article has an answer that
equals a gold answer (after SQuAD's normalisation) and was read in a sentence that shares at least
two telling words with the question; the title's words do not count, for every sentence of the
article may hold them. A fact counts only if an example that answers with it was trained: those left
out because a person asked the same (`overlap`) cover nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autodidact.lessons import examples
from autodidact.lessons.probes import probe_id
from autodidact.proof.data import Article, Question
from autodidact.proof.overlap import HumanQuestions, without_overlap
from autodidact.reading.answers import normalise_answer
from autodidact.reading.document import read_document
from autodidact.store.passages import telling
from autodidact.types.documents import Fact

LEAST_WORDS = 2
"""Telling words that question and sentence share at least."""


@dataclass(frozen=True)
class Standing:
    """What was trained of one question: whether it is covered, whether its true answer is a trained
    answer (to whatever question), and how many of its distractors are."""

    covered: bool
    answer: bool
    distractors: int


GROUPS: Mapping[str, Callable[[Standing], bool]] = {
    "covered": lambda q: q.covered,
    "covered_contested": lambda q: q.covered and q.distractors > 0,
    "not_covered": lambda q: not q.covered,
    "answer_trained": lambda q: not q.covered and q.answer,
    "distractor_trained": lambda q: not q.answer and q.distractors > 0,
    "nothing_trained": lambda q: not q.answer and not q.distractors,
}
"""Covered questions, those of them with a trained distractor; the others, and the three parts they
fall into."""


@dataclass(frozen=True)
class Taught:
    """What made examples teach of one article: normalised answer -> words of each sentence that a
    fact with this answer was read in."""

    title: str
    sentences: Mapping[str, Sequence[frozenset[str]]]

    def covers(self, question: Question) -> bool:
        """Whether a trained fact answers this question, as far as words can tell."""
        wanted = frozenset(telling(question.text)) - _words(self.title)
        return any(
            len(wanted & sentence) >= LEAST_WORDS
            for answer in question.answers
            for sentence in self.sentences.get(normalise_answer(answer), ())
        )

    def standing(self, question: Question, distractors: Sequence[str]) -> Standing:
        """What was trained of a question that is asked with these distractors."""
        return Standing(
            self.covers(question),
            self.answers(question.answers),
            sum(self.answers([text]) for text in distractors),
        )

    def answers(self, texts: Sequence[str]) -> bool:
        """Whether one of these texts is a trained answer, to whatever question."""
        return any(normalise_answer(text) in self.sentences for text in texts)


def taught(article: Article, human: HumanQuestions) -> Taught:
    """What the examples made of an article teach, less those that overlap a human question."""
    reading = read_document(article.number, article.document)
    kept, _ = without_overlap(examples.examples(reading), human)
    answered = {(e.fact, e.messages[-1].content) for e in kept if e.messages}
    facts = [
        fact for fact in reading.facts if (probe_id(article.number, fact), fact.answer) in answered
    ]
    return of_facts(article.title, facts)


def of_facts(title: str, facts: Sequence[Fact]) -> Taught:
    """The same for facts that are known to be trained."""
    sentences: dict[str, list[frozenset[str]]] = {}
    for fact in facts:
        answer = normalise_answer(fact.answer)
        if answer:
            sentences.setdefault(answer, []).append(_words(fact.sentence))
    return Taught(title, sentences)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[^\W_]+", unicodedata.normalize("NFC", text).lower()))
