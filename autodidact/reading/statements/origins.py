"""When, by whom and of what something was made, and after whom or what it is named."""

from __future__ import annotations

import re

from autodidact.reading.statements.rule import BE, DO, NAMED, PHRASE, Rule, asking
from autodidact.reading.vocabulary import PARTICIPLE, YEAR

_DONE = rf"{BE} (?:[a-z]+ly )?(?P<v>(?:first |last )?{PARTICIPLE})"

WHEN = Rule(
    shape=re.compile(
        rf"{_DONE} (?:in|about|around) (?:[A-Z][a-z]+ )?(?P<answer>{YEAR})"
        r"(?:,? (?:by|for|with|from|after|near|at|on|when|while|and) .*)?"
    ),
    relation="year {v}",
    questions=(
        "When {be} {s} {v}?",
        "In what year {be} {s} {v}?",
        "{S} {be} {v} in what year?",
        "In which year {be} {s} {v}?",
        "What year {be} {s} {v} in?",
        "Give the year when {s} {be} {v}.",
    ),
    restatements=("{S} {be} {v} in {answer}.", "In {answer}, {s} {be} {v}."),
    unseen="The year in which {s} {be} {v} is which one?",
    kind="year",
)
MAKER = Rule(
    shape=re.compile(rf"{_DONE} by (?P<answer>{NAMED})(?: (?:in|of|for|at|on|as|with) .*)?"),
    relation="by {v}",
    questions=(
        "Who {be} {s} {v} by?",
        "By whom {be} {s} {v}?",
        "{S} {be} {v} by whom?",
        "Name the one by whom {s} {be} {v}.",
        "Tell me who {s} {be} {v} by.",
        "Which person {be} {s} {v} by?",
    ),
    restatements=("{S} {be} {v} by {answer}.", "It is by {answer} that {s} {be} {v}."),
    unseen="Whose doing is it that {s} {be} {v}?",
)
MATERIAL = Rule(
    shape=re.compile(
        rf"{BE} (?:[a-z]+ly )?made (?:entirely |mostly |mainly )?(?:of|from|out of) (?P<a>{PHRASE})"
    ),
    relation="material",
    questions=(
        "What {be} {s} made of?",
        "Of what {be} {s} made?",
        "{S} {be} made of what?",
        "What material {be} {s} made of?",
        "Tell me what {s} {be} made of.",
        "Which material {be} {s} made of?",
    ),
    restatements=("{S} {be} made of {answer}.", "The material of {s} {be} {answer}."),
    unseen="Which substance went into the making of {s}?",
    kind="phrase",
)
NAMESAKE = Rule(
    shape=re.compile(rf"{BE} named after (?P<a>{PHRASE})"),
    relation="named after",
    questions=(
        "{Wh} {be} {s} named after?",
        "After {whom} {be} {s} named?",
        "{S} {be} named after {whom}?",
        "Tell me {wh} {s} {be} named after.",
        "Do you know {wh} {s} {be} named after?",
        "Where does the name of {s} come from?",
    ),
    restatements=("{S} {be} named after {a}.", "The name of {s} comes from {a}."),
    unseen="To {whom} {do} {s} owe the name?",
    words=lambda words: {**asking(person=words["kind"] == "name"), "do": DO[words["be"]]},
)
