"""The questions for an answer in a sentence, and the fact they are asked for."""

from __future__ import annotations

import re

from autodidact.reading.gaps.span import Span
from autodidact.reading.topic import Topic
from autodidact.reading.vocabulary import NAME, STOP, capitalised
from autodidact.types.documents import GAP, Chunk, Fact

MAX_TELLING = 10
SPAN = "span "
"""With it the relation of a gap fact begins."""

_WORD = re.compile(rf"{NAME}|[\w’'-]+")
_FRONT = re.compile(r"(?:In|On|By|Since|During|After|Before|From|At) $")
_CLAUSE_AFTER = re.compile(r"\d| (?:and|but|when|which|who) ")
_CLAUSE_BEFORE = re.compile(
    r"\b(?:which|who|whom|whose|that|where|when|while|until|since|from|after)\b|,.*,"
)


def fact(chunk: Chunk, about: Topic, sentence: str, span: Span) -> Fact:
    """Asked for in place, with a gap, turned round, and by telling words."""
    s, cap = about.name, capitalised(about.name)
    before, after = sentence[: span.start], sentence[span.end :]
    answer_at = sentence.index(span.answer, span.start)
    holed = f"{sentence[:answer_at]}{GAP}{sentence[answer_at + len(span.answer) :]}."
    inside, again = _asked(sentence, span)
    words = ", ".join(telling(f"{before} {after}", about, len(before)))
    some = f"{before}{span.some}{after}"
    called = "it" if span.noun == "name" else f"that {span.noun}"
    return Fact(
        chunk.id,
        s,
        f"{SPAN}{holed}",
        span.kind,
        span.answer,
        f"{sentence}.",
        (
            f"About {s}: {inside}?",
            f"{cap}. Fill in the blank: {holed}",
            f"{cap}, {_small(span.short or span.wh)}: {words}?",
            f"What is missing here, in a text on {s}? {holed}",
            f"This is about {s}. {again}?",
            f"{holed} What does the gap stand for? The subject is {s}.",
        ),
        (f"{cap}: {sentence}.", f"{cap}, {words}: {span.answer}."),
        f"{capitalised(some)}. Name {called}; the topic is {s}.",
    )


def telling(text: str, about: Topic, near: int = 0) -> list[str]:
    """The words that tell a sentence from others, names in one piece, in order: at most ten, those
    nearest to the character `near`."""
    own = set(about.name.lower().split())
    found: dict[str, int] = {}
    for match in _WORD.finditer(text):
        word = re.sub(r"['’]s$", "", match[0])
        plain = word.lower()
        if not (
            plain in STOP
            or plain == "certain"
            or (len(plain) < 3 and not word[:1].isupper())
            or set(plain.split()) <= own
            or word in found
        ):
            found[word] = abs(match.start() - near)
    nearest = set(sorted(found, key=found.__getitem__)[:MAX_TELLING])
    return [word for word in found if word in nearest]


def _asked(sentence: str, span: Span) -> tuple[str, str]:
    """The sentence as a question, and once more the other way round where there is one."""
    before, after = sentence[: span.start], sentence[span.end :]
    inside = f"{before}{span.wh}{after}"
    turned = _turned(sentence, span)
    if not turned or not _FRONT.match(before):
        return inside, turned or inside
    if len(sentence.split()) <= 16 and not _CLAUSE_AFTER.search(after):
        return turned, f"{capitalised(_clean(after))} {span.fronted}"
    return turned, turned


def _turned(sentence: str, span: Span) -> str:
    """The question with its wh-phrase in front: "In which year was it that …", or ""."""
    if not span.fronted or _CLAUSE_BEFORE.search(sentence[: span.start]):
        return ""
    if span.start == 0 and sentence[span.end : span.end + 1] != " ":
        return ""
    rest = _clean(f"{_inner(sentence[: span.front])}{sentence[span.end :]}")
    return f"{capitalised(span.fronted)} was it that {rest}"


def _inner(text: str) -> str:
    """A sentence's beginning as it stands after "that": a word that is no name in lower case."""
    first = text.split(" ", 1)[0].rstrip(",").lower()
    plain = first in STOP or first in ("early", "several", "although", "despite", "according")
    return _small(text) if plain else text


def _clean(text: str) -> str:
    return re.sub(r" +,", ",", re.sub(r"\s+", " ", text)).strip(" ,")


def _small(text: str) -> str:
    return text[:1].lower() + text[1:]
