"""When and where somebody was born and died."""

from __future__ import annotations

import re
from collections.abc import Iterator

from autodidact.reading.chunks import sentences
from autodidact.reading.statements.rule import NAMED, Rule
from autodidact.reading.vocabulary import YEAR, capitalised
from autodidact.types.documents import Chunk, Fact

_EVENTS = {
    "was born": {"do": "was", "base": "born", "end": "birth"},
    "died": {"do": "did", "base": "die", "end": "death"},
}

WHEN = Rule(
    shape=re.compile(
        rf"(?P<e>was born|died)(?: on [\w ]+)? in (?:[A-Z][a-z]+ )?(?P<answer>{YEAR})(?:,? .*)?"
    ),
    relation="year {e}",
    questions=(
        "When {do} {s} {base}?",
        "In what year {do} {s} {base}?",
        "{S} {e} in what year?",
        "In which year {do} {s} {base}?",
        "What year {do} {s} {base} in?",
        "Give the year when {s} {e}.",
    ),
    restatements=("{S} {e} in {answer}.", "In {answer}, {s} {e}."),
    unseen="The year in which {s} {e} is which one?",
    kind="year",
    words=lambda words: _EVENTS[words["e"]],
)
WHERE = Rule(
    shape=re.compile(rf"(?P<e>was born|died) (?:in|at) (?P<a>{NAMED})"),
    relation="place {e}",
    questions=(
        "Where {do} {s} {base}?",
        "In what place {do} {s} {base}?",
        "{S} {e} where?",
        "Tell me where {s} {e}.",
        "Do you know where {s} {e}?",
        "Name the place where {s} {e}.",
    ),
    restatements=("{S} {e} in {a}.", "The place where {s} {e} is {answer}."),
    unseen="Which place saw the {end} of {s}?",
    words=lambda words: _EVENTS[words["e"]],
)


def dates(chunk: Chunk, name: str) -> Iterator[Fact]:
    """Years of birth and death from "Name (12 May 1820 – 3 June 1881) was …"."""
    first = sentences(chunk.text.split("\n\n")[0])[:1]
    match = re.match(
        rf"{re.escape(name)}[^()]{{0,40}} \([^()]*?(?P<born>{YEAR})\s*[–—-]"
        rf"\s*[^()]*?(?P<died>{YEAR})[^()]*\) was ",
        first[0] if first else "",
    )
    if match:
        for event, year in (("was born", match["born"]), ("died", match["died"])):
            told = f"{capitalised(name)} {event} in {year}."
            yield WHEN.fact(chunk, name, told, {"e": event, "answer": year})
