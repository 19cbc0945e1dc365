"""Reading facts by rule: a sentence about a known subject → (relation, answer, questions).

The reader knows the surface shapes of plain encyclopaedic English ("X was built in 1794", "Its
keeper is Maren Wren", "X has 43 steps"), not grammar: it has no parser and no model. A sentence
that fits no shape, whose subject is not the document's, or whose answer is long or vague gives
nothing. Precision is worth more than recall here: a wrong question teaches a wrong fact. What the
shapes leave of an ordinary article is for `gaps`.

Every rule offers six equivalent wordings of its question; `lessons` decides which are trained,
which one is the probe and which is offered to people as a suggestion. A seventh, in another frame
or word order, is trained for no fact at all.

    rule       what a rule is: a shape, and the wordings of what it says
    life       when and where somebody was born and died
    origins    when, by whom and of what something was made, and after whom it is named
    traits     what something is, has, measures and is used for
    doings     where something stands, and what somebody did
"""

from __future__ import annotations

import re

from autodidact.reading.answers import MAX_ANSWER_WORDS
from autodidact.reading.predicates import Sentence, told
from autodidact.reading.statements import doings, life, origins, traits
from autodidact.reading.statements.rule import Rule
from autodidact.reading.topic import Topic, subject
from autodidact.types.documents import Chunk, Fact

RULES: tuple[Rule, ...] = (
    life.WHEN,
    life.WHERE,
    origins.MATERIAL,
    origins.NAMESAKE,
    traits.USE,
    traits.FAME,
    origins.WHEN,
    origins.MAKER,
    traits.SIZE,
    traits.COUNT,
    doings.WHERE,
    traits.ATTRIBUTE,
    traits.DEFINITION,
    doings.DEED,
)
"""In the order in which they are tried: the first that fits a sentence reads it."""


def read(chunk: Chunk, about: Topic | None = None) -> list[Fact]:
    """The facts of a chunk, in order. Deterministic. `about` is the document's subject; without
    it, it is read from the chunk."""
    about = about or subject(chunk.heading, chunk.text)
    facts = [fact for _, fact in _found(chunk, about)]
    if _is_first(chunk):
        facts += life.dates(chunk, about.name)
    return unambiguous(facts)


def sentences_read(chunk: Chunk, about: Topic) -> set[str]:
    """The sentences of a chunk, as they stand, that some rule makes a fact of."""
    return {raw for raw, _ in _found(chunk, about)}


def _found(chunk: Chunk, about: Topic) -> list[tuple[str, Fact]]:
    """Each sentence, as it stands, that a rule reads, and the fact."""
    found: list[tuple[str, Fact]] = []
    opening = _is_first(chunk)
    for sentence in told(about, chunk):
        if sentence.full:
            fact = _stated(chunk, about, sentence, opening)
            if fact and _is_sound(fact.answer, about):
                found.append((sentence.raw, fact))
            opening = False
    return found


def _stated(chunk: Chunk, about: Topic, sentence: Sentence, opening: bool) -> Fact | None:
    for rule in RULES:
        if opening or not rule.opening:
            match = rule.shape.fullmatch(sentence.predicate)
            if match:
                return rule.fact(chunk, about.name, sentence.full, match.groupdict(""))
    return None


def unambiguous(facts: list[Fact]) -> list[Fact]:
    """Drop the facts of a subject whose question has two different answers."""
    answers: dict[str, set[str]] = {}
    for fact in facts:
        answers.setdefault(fact.relation, set()).add(fact.answer.lower())
    kept: dict[str, Fact] = {}
    for fact in facts:
        if len(answers[fact.relation]) == 1:
            kept.setdefault(fact.relation, fact)
    return list(kept.values())


def _is_first(chunk: Chunk) -> bool:
    return chunk.id.endswith(":0")


_VAGUE = {
    "one", "member", "type", "kind", "part", "name", "number", "group", "series", "set", "form",
    "term", "example", "result", "way", "place", "list", "only", "first", "same", "most", "it",
    "them", "him", "her", "this", "that", "there", "what", "himself", "herself", "itself", "many",
    "several", "some", "body", "process", "field", "more", "all", "each", "both", "others",
    "something", "things",
}  # fmt: skip


def _is_sound(answer: str, about: Topic) -> bool:
    words = answer.split()
    return (
        0 < len(words) <= MAX_ANSWER_WORDS
        and words[0] not in _VAGUE
        and words[-1] not in _VAGUE
        and about.bare.lower() not in answer.lower()
        and not re.search(r"[\"“”;:()\[\]]|, ", answer)
    )
