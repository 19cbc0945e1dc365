"""Whom a document is about, read from its title and its text."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from autodidact.reading.vocabulary import PRONOUNS, YEAR


@dataclass(frozen=True)
class Topic:
    """Whom a document is about: how its text calls it ("the Brack Mill"), a second name at the
    start of sentences ("Stone" for Ada Stone, or ""), and the pronoun that may stand for it: It,
    He, She, or "" where the text has to show."""

    name: str
    alias: str = ""
    pronoun: str = ""

    @property
    def bare(self) -> str:
        """The name without its article."""
        return self.name.removeprefix("the ")


def subject(title: str, text: str) -> Topic:
    """Read from a document's title and text.

    A person with a life span behind the name is also called by the surname, if the text does so;
    what has an article, a small letter or a digit in its title, or a title of one word, is no
    person unless a life span says so.
    """
    name = _name(title, text)
    return _person(name, text) or Topic(name, "", "It" if _is_thing(name) else _pronoun(text))


def _name(heading: str, text: str) -> str:
    """How the text calls its subject: the title, with "the" where the text uses it."""
    title = re.sub(r"\s*\([^)]*\)\s*$", "", heading).strip() or heading
    if title.lower().startswith("the "):
        return "the " + title[4:]
    title_ = re.escape(title)
    with_article = len(
        re.findall(rf"\b[Tt]he {title_}(?= (?:is|was|has|had|are|were|in|and)\b|[.,;)])", text)
    )
    at_all = len(re.findall(rf"\b{title_}\b", text))
    return f"the {title}" if with_article and 3 * with_article >= at_all else title


def _person(name: str, text: str) -> Topic | None:
    """Somebody with a life span behind the name, and a pronoun that goes on."""
    bare = Topic(name).bare
    opening = text.split("\n\n", 1)[0][:400]
    if not re.match(
        rf"{re.escape(bare)}\b[^()]{{0,40}} \([^()]*{YEAR}[^()]*\)[^.]*? (?:was|is) an? ", opening
    ):
        return None
    he, she = (len(re.findall(rf"\b(?:{p})\b", text)) for p in ("[Hh]e|[Hh]is", "[Ss]he|[Hh]er"))
    if he + she < 3:
        return None
    alias = bare.rpartition(" ")[2]
    alone = len(re.findall(rf"(?:^|[.] |[a-z] ){re.escape(alias)}\b", text))
    beside = re.findall(rf"\b([A-Z][\w-]+) {re.escape(alias)}\b", text)
    others = sum(word not in bare for word in beside)
    clear = " " in bare and alone >= 3 and alone > others
    return Topic(name, alias if clear else "", "He" if he >= she else "She")


def _is_thing(name: str) -> bool:
    bare = Topic(name).bare
    words = [word for word in bare.split() if word not in ("of", "the", "de", "von", "van")]
    return bare != name or len(words) == 1 or not all(word[:1].isupper() for word in words)


def _pronoun(text: str) -> str:
    """It, He or She, if sentences of the text begin with it three times as often as with the
    others together, and else ""."""
    found = re.findall(r"(?:^|[.!?] |\n)(It|He|She|Its|His|Her)\b", text)
    counts = Counter(PRONOUNS[pronoun] for pronoun in found)
    best, most = max(counts.items(), key=lambda pair: pair[1], default=("", 0))
    return best if most >= 3 * (len(found) - most) and most else ""
