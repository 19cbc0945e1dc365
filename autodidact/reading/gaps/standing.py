"""The sentences of a chunk that can be understood by themselves, so that a question may be made of
them: of a fair length, without colons or lists, and leaning on nothing that another one says."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from autodidact.reading.predicates import PRONOUN, told
from autodidact.reading.topic import Topic
from autodidact.reading.vocabulary import NAME, capitalised
from autodidact.types.documents import Chunk

MIN_WORDS, MAX_WORDS = 8, 38

_CONNECTIVE = re.compile(
    r"(?:However|Moreover|Furthermore|Nevertheless|Nonetheless|Additionally|In addition|In fact"
    r"|Therefore|Thus|Hence|Consequently|For example|For instance|Today|Indeed|Also), "
)
_START_LEANS = re.compile(
    r"(?:This|These|That|Those|Such|It|Its|They|Their|He|His|She|Her|Both|Another|Other|Others|Here"
    r"|Some|Each|Neither|Either|One|Two|Three|We|I|You|Our|My|Also|Then|Thus|Therefore|Hence|So"
    r"|But|And|Or|Yet|Instead|Meanwhile|Similarly|Later|First|Second|Third|Fourth|Finally"
    r"|Afterwards?|Subsequently|Likewise|Conversely|Consequently|Additionally|If|Not|What|Which"
    r"|The (?:previous|next|new|other|second|third|final|opening|following"
    r"|remaining|rest)|There [A-Z]"
    r"|By contrast|In comparison|Unlike"
    r"|Who|In (?:this|that|addition|contrast|turn|fact|response)"
    r"|As a result|At (?:this|that|the) time|On the other)\b"
)
_LEANS = re.compile(
    r"\b(?:the (?:former|latter|same|above|following|other)|this|these|those|such|aforementioned"
    r"|[Tt]hat same|that (?:year|time|day|month|date|period|century)|there|here|we|our|I|you)\b"
)
_STANDS_FOR = re.compile(r"\b(?:he|him|his|she|her|hers|it|its|they|them|their|theirs)\b")
_OF_PERSONS = {"He": ("he", "him", "his"), "She": ("she", "her", "hers")}
_NAME = re.compile(NAME)
_ENDS = (".", ".”", '."', ")")
_UNFIT = re.compile(
    r"[()\[\]{}:;=|?!…]| [-–—] |\n|\.\."
    r"|[a-z]{3}\.['\")]? "  # a stop that ended a sentence
)


def standing(chunk: Chunk, about: Topic, taken: Collection[str]) -> Iterator[str]:
    """Each such sentence with its subject named, without its brackets, its connective and its stop.

    `taken` holds sentences, as they stand, that are left out.
    """
    for told_ in told(about, chunk):
        if told_.raw in taken or not told_.raw.endswith(_ENDS):
            continue
        sentence = told_.plain
        if PRONOUN.match(sentence):
            if not told_.full:
                continue
            sentence = told_.full.rstrip(".")
        sentence = capitalised(_CONNECTIVE.sub("", sentence))
        sentence = sentence.replace("“", '"').replace("”", '"')
        if (
            MIN_WORDS <= len(sentence.split()) <= MAX_WORDS
            and not _START_LEANS.match(sentence)
            and re.match(r"[A-Z]", sentence)
            and not _UNFIT.search(sentence)
            and sentence.count('"') % 2 == 0
            and not _leans(sentence, about, near=bool(told_.full))
        ):
            yield sentence


def _leans(sentence: str, about: Topic, *, near: bool) -> bool:
    """Whether a word stands for something that the sentence does not name. `near` is a sentence
    about the subject."""
    if _LEANS.search(sentence):
        return True
    match = _STANDS_FOR.search(sentence)
    if not match:
        return False
    pronoun, before = match[0], sentence[: match.start()]
    named = bool(_NAME.search(before[1:]))
    if pronoun in _OF_PERSONS.get(about.pronoun, ()):
        return not near and named
    if pronoun in ("him", "them"):
        return not named
    if pronoun in ("he", "his", "she", "her", "hers"):
        return not named and not re.match(r"[A-Z]\w+ (?:[A-Z]|\w+ed\b|was)", before)
    # "it" and "they" mostly stand for a noun of their own sentence, if one goes before them.
    return len(before.split()) < 4
