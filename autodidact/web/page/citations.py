"""Passages as a reader is shown them: their badge, their pill and where they came from. Pure.

Titles, addresses and texts were written by others. Here they are only chosen and counted; the
template escapes them. An address becomes a link only if it is one of the web (`link`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import Any

from autodidact.types.documents import Passage
from autodidact.web.page.words import plural

_WEB_ADDRESS = re.compile(r"https?://[^\s\x00-\x1f\x7f\\]+", re.ASCII | re.IGNORECASE)

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def memory(passages: Sequence[Passage]) -> str:
    """What a reply was made from, in one word for programs."""
    return "passages" if passages else "memory"


def badge(passages: Sequence[Passage]) -> str:
    """The same for people."""
    return f"With {plural(len(passages), 'passage')}" if passages else "From memory"


def citations(passages: Sequence[Passage]) -> list[dict[str, Any]]:
    """The passages as `/chat` cites them; `excerpt` is all of the text that the model was given."""
    return [
        {
            "number": passage.number,
            "title": passage.title,
            "uri": passage.uri,
            "date": passage.date,
            "excerpt": passage.text,
        }
        for passage in passages
    ]


def summary(passages: Sequence[Passage]) -> str:
    """The words on the pill: how many passages, and from which documents."""
    titles = list(dict.fromkeys(passage.title for passage in passages))
    return f"{plural(len(passages), 'passage')} from {', '.join(titles)}"


def link(uri: str) -> str:
    """The address if a browser may be sent there (http and https only), else \"\"."""
    return uri if _WEB_ADDRESS.fullmatch(uri) else ""


def day(iso: str) -> str:
    """An ISO 8601 day for people: 20 Nov 2026. What is no day is shown as it is."""
    try:
        found = date.fromisoformat(iso)
    except ValueError:
        return iso
    return f"{found.day} {_MONTHS[found.month - 1]} {found.year}"
