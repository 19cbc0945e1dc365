"""Capitalised names at the start of a sentence, before a verb, or behind a preposition or a verb.

What a name names is told by the lists of `reading.names` and by the place where it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from autodidact.reading.gaps.span import Span
from autodidact.reading.names import (
    CONTINENTS,
    COUNTRIES,
    GIVEN_NAMES,
    HEADS,
    HONORIFICS,
    NO_NAMES,
)
from autodidact.reading.vocabulary import FUNCTION_WORD, MONTH, NAME, PAST, capitalised

_NAME = re.compile(NAME)
_AFTER = re.compile(
    rf"(?:$|[,;]? ?(?:{FUNCTION_WORD})\b|[,;] (?!(?:and |or )?[A-Z“\"])| [a-z]+ed\b"
    r"|(?P<s>['’]s) )"
)
_PREPOSITIONS = (
    "in|on|at|of|to|by|with|for|from|into|over|under|after|before|during|through|against|near|since"
    "|until|than|toward|towards|across|along|around|behind|beyond|via|outside|inside|within"
    "|throughout|onto|upon|called|named"
)
_OBJECT = re.compile(rf"\b(?P<p>{_PREPOSITIONS}|{PAST}|became|joined) (?:the |The )?$", re.I)
_SUBJECT = re.compile(r"(?:^|\b(?:that|when|where|while|because|although|but)) (?:the )?$")
_PLACE = ("in", "at", "near", "from", "into", "across", "throughout", "outside", "within")
"""Prepositions behind which a name may be that of a place."""

# One of several names, or a name that goes on.
_MORE_AFTER = re.compile(r",? (?:and|or|&) (?:the )?[A-Z]|, [A-Z]| (?:on|for|at) (?:the )?[A-Z]")
_MORE_AFTER_OPENING = re.compile(r"(?: and| or|, wh\w+)\b")
_MORE_BEFORE = re.compile(
    r"[A-Z][\w’'.-]*(?:,| and| or|, and|, or)(?: the)? $"
    r"|[A-Z]\w+ (?:on|for|at|of|to) (?:the )?$"
)
_NO_NAME = re.compile(rf"\b{MONTH}\b|^[IVXLC]+$|^\w$|\.$|[a-z]['’]")
_ADJECTIVE = re.compile(r"(?:an|ish|ese|ic|ism|ist|ians?|ists?)$|^.{1,2}$")


def proper_names(sentence: str) -> Iterator[Span]:
    for match in _NAME.finditer(sentence):
        answer = re.sub(r"['’]s$", "", match[0])
        start, end = match.start(), match.start() + len(answer)
        before, after = sentence[:start], sentence[end:]
        opening = before in ("", "The ")
        follows = _AFTER.match(after)
        if (
            not follows
            or not _is_name(answer)
            or _MORE_AFTER.match(after)
            or _MORE_BEFORE.search(before)
            or (opening and _MORE_AFTER_OPENING.match(after))
            or (not before and " " not in answer)  # a capital that only the sentence gives it
        ):
            continue
        subject = opening or _SUBJECT.search(before)
        object_ = _OBJECT.search(before)
        if not subject and not object_:
            continue
        preposition = object_["p"].lower() if object_ else ""
        possessive = bool(follows["s"])
        noun = _noun(answer)
        wh, some = _asked(noun, bool(subject), preposition, possessive)
        if before.lower().endswith("the "):
            start -= len("the ")
        fronted, front = "", -1
        if opening:
            wh, some = capitalised(wh), capitalised(some)
        if not possessive and opening:
            fronted, front = wh, start
        elif not possessive and object_ and preposition == "by":
            fronted, front = f"by {wh}", object_.start()
        kind = noun if noun in ("person", "country") else "name"
        yield Span(start, end, answer, kind, wh, some, noun or "name", fronted, front)


def _is_name(answer: str) -> bool:
    words = answer.split()
    if words[0] in NO_NAMES or _NO_NAME.search(answer):
        return False
    if len(words) > 1:
        return True
    return answer not in HONORIFICS and (answer in COUNTRIES or not _ADJECTIVE.search(answer))


def _noun(answer: str) -> str:
    """The common noun for what a name names, as far as the name tells; else ""."""
    words = answer.split()
    if answer in CONTINENTS:
        return "continent"
    if answer in COUNTRIES:
        return "country"
    if len(words) == 1:
        return ""
    head = re.split(r" (?:of|de|for) ", answer)[0].split()[-1].lower()
    if head in HEADS:
        return head
    if words[0] in ("Lake", "Mount", "River", "Fort", "Cape"):
        return {"Mount": "mountain"}.get(words[0], words[0].lower())
    if (words[0] in GIVEN_NAMES or words[0] in HONORIFICS) and " of " not in answer:
        return "person"
    return ""


def _asked(noun: str, subject: bool, preposition: str, possessive: bool) -> tuple[str, str]:
    """What asks for a name, and what stands for it in a statement."""
    if noun == "person":
        wh = "which person" if possessive else "who" if subject else "whom"
        return wh, "someone"
    if noun:
        return f"which {noun}", f"a certain {noun}"
    if preposition in _PLACE:
        return "what place or thing", "a certain place or thing"
    if possessive:
        return "which person or thing", "a certain person or thing"
    return ("who or what" if subject else "whom or what"), "someone or something"
