"""Numbers with the noun they count, percentages, and sums of money."""

from __future__ import annotations

import re
from collections.abc import Iterator

from autodidact.reading.gaps.span import Span
from autodidact.reading.vocabulary import FUNCTION, FUNCTION_WORD, NUMBER, YEAR, capitalised

_NUMBER = re.compile(
    rf"(?<![\w.,$£€–/-])(?P<money>(?:US)?[$£€])?{NUMBER}"
    r"(?: (?:million|billion|trillion))?"
    r"(?P<percent>%| ?percent| per cent)?(?![\w%/–-]|[.,]\d)"
)
_APPROXIMATE = re.compile(
    r"\b(?:about|nearly|almost|some|approximately|roughly|around|exactly) $", re.I
)
_NUMBER_BEFORE = re.compile(rf"(?<!\w){NUMBER}(?: \w+)? ?(?:to|and|or|–|,)? ?$")
_NUMBER_AFTER = re.compile(r"(?: \w+)? (?:to|or|and) \d")
"""Another number nearby: a range, or a list."""
_ENDS = re.compile(rf"$|,| (?:{FUNCTION_WORD}|a year|per)\b")
_AMOUNT_AFTER = re.compile(r",? (?:and|or|to) ?[$£€\d]")
_NOT_BEFORE_AMOUNT = re.compile(
    r"\b(?:a|an|the|another|its|their|his|her|and|or|[a-z]+ing|[a-z]+al|estimated|extra) $", re.I
)
_BEFORE_YEAR = re.compile(r"\b(?:in|since|by|of|until) $")
_NOT_BEFORE_COUNT = re.compile(
    r"(?:\b(?:the|these|those|his|her|its|their|all|any|first|last|next|other|and|or|to|between|from"
    r"|a|an|every|no|number|age|aged|[Aa]rticle|[Cc]hapter|[Ss]ection"
    r"|page|part|level|type|group"
    r"|stage|phase|class|grade|figure|table|route|highway|channel|week|day|round|top)"
    r"|[A-Z][\w’'.-]*|\d|[-–—/$£€:,±]) ?$"
)
_COUNTED = re.compile(
    r" (?P<n>(?:[a-z-]+ ){0,2}?"
    r"(?:[a-z-]{2,}(?<!s)s|people|men|women|children|feet|sheep|cattle|fish|percent|km|kilometres))\b"
    r"(?! ?['’])"
)


def numbers(sentence: str) -> Iterator[Span]:
    for match in _NUMBER.finditer(sentence):
        before, after = sentence[: match.start()], sentence[match.end() :]
        if _NUMBER_BEFORE.search(before) or _NUMBER_AFTER.match(after):
            continue
        approximate = _APPROXIMATE.search(before)
        before = before[: approximate.start()] if approximate else before
        asked = _amount if match["percent"] or match["money"] else _count
        span = asked(match, before, after)
        if span:
            yield span


def _amount(match: re.Match[str], before: str, after: str) -> Span | None:
    """A percentage or a sum of money."""
    if not _ENDS.match(after) or _AMOUNT_AFTER.match(after) or _NOT_BEFORE_AMOUNT.search(before):
        return None
    kind, wh = ("percentage", "what percentage") if match["percent"] else ("sum", "how much money")
    return Span(len(before), match.end(), match[0], kind, wh, f"a certain {kind}", kind)


def _count(match: re.Match[str], before: str, after: str) -> Span | None:
    """A number before the noun that it counts."""
    number = match[0]
    if number.lower() in ("one", "two", "hundred", "thousand") or _NOT_BEFORE_COUNT.search(before):
        return None
    if re.fullmatch(YEAR, number) and _BEFORE_YEAR.search(before):
        return None
    noun = _COUNTED.match(after)
    words = noun["n"].split() if noun else []
    if not words or FUNCTION.intersection(words) or words[0].endswith("ly"):
        return None
    wh, some = "how many", "a certain number of"
    if not before:
        wh, some = capitalised(wh), capitalised(some)
    short = f"how many {' '.join(words)}"
    return Span(len(before), match.end(), number, "number", wh, some, "number", short=short)
