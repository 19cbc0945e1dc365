"""Quoted terms, behind a word that says that they are one."""

from __future__ import annotations

import re
from collections.abc import Iterator

from autodidact.reading.gaps.span import Span

_QUOTED = re.compile(r'"([^"]{3,60}?)[,.]?"')
_BEFORE = re.compile(
    r"\b(?:called|termed|named|dubbed|titled|entitled|nicknamed|term|word|phrase|slogan|motto"
    r"|meaning|means|known as|referred to as|described as)(?: (?:the|a|an))? $"
)
_ARTICLE = re.compile(r"(?:(?:the|a|an) )?$")
_NOT_AFTER = re.compile(r" (?:and|or|[\"A-Z])")


def terms(sentence: str) -> Iterator[Span]:
    for match in _QUOTED.finditer(sentence):
        before, after = sentence[: match.start()], sentence[match.end() :]
        if _BEFORE.search(before) and not _NOT_AFTER.match(after):
            # The end of "slogan" passes for an article too: mending it changes questions, and waits
            # for the next `RULES`.
            start = len(_ARTICLE.sub("", before, count=1))
            yield Span(start, match.end(), match[1], "term", "what", "a certain term", "term")
