"""Years, dates, months, centuries and decades behind a preposition."""

from __future__ import annotations

import re
from collections.abc import Iterator

from autodidact.reading.gaps.span import Span
from autodidact.reading.vocabulary import CAPITAL, FUNCTION_WORD, MONTH, YEAR

_TIME = re.compile(
    rf"(?<![\w-])(?:(?P<date>\d{{1,2}} {MONTH}(?: {YEAR})?|{MONTH} \d{{1,2}}(?:, {YEAR})?)"
    rf"|(?P<month>{MONTH} {YEAR})|(?P<century>\d{{1,2}}(?:st|nd|rd|th) century)"
    rf"|(?P<decade>(?:1\d|20)\d0s)|(?P<year>{YEAR}))(?![\w–-]| BC| AD)"
)
_BEFORE = re.compile(
    r"\b(?P<p>in|since|until|till|by|from|after|before|around|during|circa|on) $", re.I
)
_FRONTS = ("in", "on", "by", "from", "during", "since", "after", "before")
"""Prepositions that may begin a question."""
_AFTER = re.compile(rf"$|,| [a-z]+\b| The\b| {CAPITAL} [a-z]")
_NOT_BEFORE = re.compile(r"\d[^,]{0,12}$")
_NOT_AFTER = re.compile(r"(?:,| (?:and|or|to)) (?:\w+ )?\d|–")
"""Another figure nearby: a range, or a list."""
_NOUN_AFTER = re.compile(
    rf" (?!(?:{FUNCTION_WORD}|[a-z]+ed|the|a|an|his|its|their|[a-z]+ly)\b)[a-z]"
)
"""The noun that a year belongs to: "in the 1990 census"."""


def times(sentence: str) -> Iterator[Span]:
    for match in _TIME.finditer(sentence):
        kind = match.lastgroup or ""
        before, after = sentence[: match.start()], sentence[match.end() :]
        if kind in ("century", "decade"):
            if not before.endswith("the "):
                continue
            before = before.removesuffix("the ")
        lead = _BEFORE.search(before)
        if not lead or not _AFTER.match(after):
            continue
        if _NOT_AFTER.match(after) or _NOT_BEFORE.search(before):
            continue
        if kind in ("year", "decade", "century") and _NOUN_AFTER.match(after):
            continue
        wh, some, noun = f"which {kind}", f"a certain {kind}", kind
        if kind == "month":
            wh, noun = "which month of which year", "month and year"
            some = "a certain month of a certain year"
        preposition = lead["p"].lower()
        yield Span(
            len(before),
            match.end(),
            match[0],
            kind,
            wh,
            some,
            noun,
            fronted=f"{preposition} {wh}" if preposition in _FRONTS else "",
            front=lead.start(),
        )
