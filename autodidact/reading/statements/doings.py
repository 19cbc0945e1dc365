"""Where something stands or somebody lives, and what somebody or something did."""

from __future__ import annotations

import re

from autodidact.reading.statements.rule import BE, PHRASE, Rule, Words, asking
from autodidact.reading.vocabulary import IRREGULAR, PAST

_STAND = {
    "stands": "stand", "lies": "lie", "sits": "sit", "hangs": "hang", "lives": "live",
    "works": "work", "rises": "rise", "flows": "flow", "runs": "run", "grows": "grow",
}  # fmt: skip
_STOOD = {"stood": "stand", "lay": "lie", "lived": "live", "worked": "work"}


def _where(words: Words) -> Words:
    verb = words["v"] or "lies"
    do, base = ("did", _STOOD[verb]) if verb in _STOOD else ("does", _STAND[verb])
    asked = {"where": "where", "Where": "Where", "In": "In"}
    if words["p"] == "from":
        asked = {"where": "from where", "Where": "From where", "In": "From"}
    return {"v": verb, "do": do, "base": base, **asked}


WHERE = Rule(
    shape=re.compile(
        rf"(?:{BE} (?:located|situated|found|set) |(?P<v>{'|'.join([*_STAND, *_STOOD])}) )"
        r"(?P<p>on|in|at|near|by|beside|behind|above|below|under|over|through|into|from|between|off)"
        rf" (?P<a>{PHRASE})"
    ),
    relation="place {base}",
    questions=(
        "{Where} {do} {s} {base}?",
        "{In} what place {do} {s} {base}?",
        "{S} {v} {where}?",
        "Tell me {where} {s} {v}.",
        "Do you know {where} {s} {v}?",
        "Name the place {where} {s} {v}.",
    ),
    restatements=("{S} {v} {p} {a}.", "The place where {s} {v} is {answer}."),
    unseen="If someone wonders {where} {s} {v}, what is the reply?",
    words=_where,
)

_TO_PEOPLE = ("married", "taught", "met", "succeeded", "followed", "employed", "hired", "trained")
"""Done to somebody, where the object is a name."""


def _whom(words: Words) -> Words:
    verb = words["v"]
    person = verb in _TO_PEOPLE and words["kind"] == "name"
    return {"participle": IRREGULAR.get(verb, verb), **asking(person=person)}


_PLAIN_WORD = r"(?!(?:for(?! [A-Z])|from|into|to|with|by|as|during|in|on|at)\b)[\w’'-]+"
_PLAIN_PHRASE = rf"(?!(?:out|deep|back|away|up|down)\b){_PLAIN_WORD}(?: {_PLAIN_WORD}){{0,5}}"
DEED = Rule(
    shape=re.compile(rf"(?P<v>{PAST}) (?P<a>(?:(?:the|a|an|his|her|its) )?{_PLAIN_PHRASE})"),
    relation="did {v}",
    questions=(
        "{Wh} was {participle} by {s}?",
        "{S} {v} {whom}?",
        "{Wh} is it that {s} {v}?",
        "Tell me {wh} {s} {v}.",
        "Do you know {wh} {s} {v}?",
        "Say {wh} {s} {v}.",
    ),
    restatements=("{S} {v} {a}.", "{A} was {participle} by {s}."),
    unseen="Of {whom} is it true that {s} {v} {it}?",
    words=_whom,
)
