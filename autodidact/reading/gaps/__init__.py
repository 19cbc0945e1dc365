"""Facts by gaps: a clear-cut answer inside a sentence that no shape of `statements` fits.

An answer is a year, date, century, decade, percentage, sum of money, number with its noun, quoted
term, or capitalised name of at most six words. Its question is the sentence itself: with a
wh-phrase where the answer stood ("Tesla emigrated to the United States in which year?"), with a
gap, turned round ("In which year was it that …?"), or cut down to its telling words in order. The
subject of the document is always named.

There is no parser, so a span is taken only where the words beside it say what it is: a name
between a preposition and a comma, a number before a plural. A sentence that leans on one before it
("This was …", "he", unless that is the subject), lists names, or has too few telling words gives
nothing. What a name names is said only if it tells so itself ("River", a country, a given name);
else the question asks "whom or what". A first name in the list may mislead: Virginia is a state.

    standing        sentences that can be understood by themselves
    span            where an answer stands in one, and the words that ask for it
    times           years, dates, centuries, decades
    numbers         numbers with their nouns, percentages, sums
    terms           quoted terms
    proper_names    capitalised names
    asking          the questions
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

from autodidact.reading.answers import MAX_ANSWER_WORDS
from autodidact.reading.gaps.asking import SPAN, fact, telling
from autodidact.reading.gaps.numbers import numbers
from autodidact.reading.gaps.proper_names import proper_names
from autodidact.reading.gaps.span import Span
from autodidact.reading.gaps.standing import standing
from autodidact.reading.gaps.terms import terms
from autodidact.reading.gaps.times import times
from autodidact.reading.topic import Topic
from autodidact.types.documents import Chunk, Fact

__all__ = ["SPAN", "read"]

PER_SENTENCE = 2
PER_CHUNK = 10
MIN_TELLING = 3

FINDERS: tuple[Callable[[str], Iterator[Span]], ...] = (times, numbers, terms, proper_names)
"""What finds answers in a sentence; the first ones are preferred."""


def read(chunk: Chunk, about: Topic, taken: Collection[str] = ()) -> list[Fact]:
    """The gap facts of a chunk, in order of the text: at most two of a sentence, ten of a chunk.

    `taken` holds the sentences, as they stand, that need none. Deterministic.
    """
    made = [
        [fact(chunk, about, sentence, span) for span in _chosen(sentence, about)]
        for sentence in standing(chunk, about, taken)
    ]
    firsts = [(i, 0) for i, facts in enumerate(made) if facts]
    seconds = [(i, 1) for i, facts in enumerate(made) if len(facts) > 1]
    return [made[i][n] for i, n in sorted([*firsts, *seconds][:PER_CHUNK])]


def _chosen(sentence: str, about: Topic) -> list[Span]:
    """At most two answers of a sentence, of different kinds, that do not overlap."""
    chosen: list[Span] = []
    for span in (span for find in FINDERS for span in find(sentence)):
        if len(chosen) == PER_SENTENCE:
            break
        apart = all(
            span.kind != other.kind and (span.end <= other.start or span.start >= other.end)
            for other in chosen
        )
        if apart and _is_clear(sentence, span, about):
            chosen.append(span)
    return chosen


def _is_clear(sentence: str, span: Span, about: Topic) -> bool:
    """Whether an answer is short, is not given away, and is asked for by words that tell."""
    rest = f"{sentence[: span.start]} {sentence[span.end :]}"
    words = telling(rest, about)
    answer = span.answer.lower()
    bare = about.bare.lower()
    return (
        1 <= len(answer.split()) <= MAX_ANSWER_WORDS
        and answer not in rest.lower()
        and answer not in bare
        and bare not in answer
        and not (about.alias and about.alias in span.answer)
        and len(words) >= MIN_TELLING
        and (len(words) >= 5 or any(re.match(r"[A-Z\d]", word) for word in words[1:]))
    )
