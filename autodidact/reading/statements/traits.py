"""What something is, what it has and measures, and what it is used or known for."""

from __future__ import annotations

import re
from dataclasses import replace

from autodidact.reading.statements.rule import BE, DO, PHRASE, Rule, Words, asking
from autodidact.reading.vocabulary import NUMBER, UNIT

DEFINITION = Rule(
    shape=re.compile(
        rf"{BE} (?P<det>an?|the) (?P<a>[\w’'-]+(?: [\w’'-]+){{0,3}}?)"
        r"(?: (?:of|in|on|at|from|near|north|south|east|west|that|which|who|with|for|by|to|between"
        r"|under|above|across|along|beside|made|built|written|used|located|situated|born|owned"
        r"|based|founded|designed) .*"
        r"|, (?:a|an|the|which|who|known|located|situated|composed|based|built|in|on|at|near|with)"
        r" .*)?"
    ),
    relation="definition",
    questions=(
        "What {be} {s}?",
        "What sort of thing {be} {s}?",
        "{S} {be} what?",
        "Say what {s} {be}.",
        "How would you describe {s} in a word or two?",
        "What kind of thing {be} {s}?",
    ),
    restatements=("{S} {be} {det} {answer}.",),
    unseen="To what class of things {do} {s} belong?",
    kind="phrase",
    words=lambda words: {"do": DO[words["be"]]},
    opening=True,
)
SIZE = Rule(
    shape=re.compile(
        rf"{BE} (?:about |nearly |almost |only |just |exactly )?(?P<answer>{NUMBER} {UNIT})"
        r" (?P<how>tall|long|wide|deep|high|thick|across|old|broad)"
    ),
    relation="measure {how}",
    questions=(
        "How {how} {be} {s}?",
        "Tell me how {how} {s} {be}.",
        "{S} {be} how {how}?",
        "Do you know how {how} {s} {be}?",
        "Say how {how} {s} {be}.",
        "Exactly how {how} {be} {s}?",
    ),
    restatements=("{S} {be} {answer} {how}.", "At {answer}, that is how {how} {s} {be}."),
    unseen="What figure expresses how {how} {s} {be}?",
    kind="measure",
)
_HAVE = {
    "has": {"do": "does", "base": "have"},
    "had": {"do": "did", "base": "have"},
    "contains": {"do": "does", "base": "contain"},
    "holds": {"do": "does", "base": "hold"},
    "held": {"do": "did", "base": "hold"},
    "carries": {"do": "does", "base": "carry"},
    "carried": {"do": "did", "base": "carry"},
    "keeps": {"do": "does", "base": "keep"},
    "employs": {"do": "does", "base": "employ"},
}
COUNT = Rule(
    shape=re.compile(
        rf"(?P<v>{'|'.join(_HAVE)}) (?:about |exactly |only |some |just )?(?P<answer>{NUMBER})"
        r" (?P<n>[a-z][a-z -]{2,30}?)(?: (?:in|on|of|for|at|with|and) .*)?"
    ),
    relation="count {n}",
    questions=(
        "How many {n} {do} {s} {base}?",
        "What number of {n} {do} {s} {base}?",
        "{S} {v} how many {n}?",
        "Tell me how many {n} {s} {v}.",
        "Give the number of {n} that {s} {v}.",
        "Do you know how many {n} {s} {v}?",
    ),
    restatements=("{S} {v} {answer} {n}.", "The number of {n} of {s} is {answer}."),
    unseen="Counting the {n} of {s}, what figure would you reach?",
    kind="number",
    words=lambda words: _HAVE[words["v"]],
)


def _known_for(known: str) -> re.Pattern[str]:
    return re.compile(rf"{BE} (?:[a-z]+ly |best |chiefly )?(?P<v>{known}) for (?P<a>{PHRASE})")


USE = Rule(
    shape=_known_for("used"),
    relation="{v} for",
    questions=(
        "What {be} {s} {v} for?",
        "For what {be} {s} {v}?",
        "{S} {be} {v} for what?",
        "Tell me what {s} {be} {v} for.",
        "Do you know what {s} {be} {v} for?",
        "Say what {s} {be} {v} for.",
    ),
    restatements=("{S} {be} {v} for {a}.", "It is for {a} that {s} {be} {v}."),
    unseen="What purpose {do} {s} serve?",
    kind="phrase",
    words=lambda words: {"do": DO[words["be"]]},
)
FAME = replace(
    USE,
    shape=_known_for("known|famous|noted"),
    unseen="What is the reason why {s} {be} {v}?",
)

_ROLE = re.compile(
    r"(?<!chapt)(?<!numb)(?<!tow)(?<!riv)(?<!wat)(?<!pap)(?<!lett)(?<!corn)(?<!bord)(?<!flow)"
    r"(?<!cov)(?<!ord)(?<!timb)(?<!chamb)(?<!lad)(?<!fi)(?<!col)(?<!harb)(?<!flo)(?<!do)"
    r"(?<!interi)(?<!supp)"
    r"(?:er|or|lord|lady|ist|man|woman|ian|wife|husband|mother|father|brother|sister|son|daughter"
    r"|uncle|aunt|cousin|patron|rival|friend|pupil|heir|widow|king|queen|saint|guardian|steward"
    r"|apprentice|master|mistress|partner|clerk|captain|abbot|dean|warden|bailiff)$"
)
"""Nouns that only a person can be: a keeper, and no tower."""


def _who_has_the_role(words: Words) -> Words:
    return asking(person=words["kind"] == "name" and bool(_ROLE.search(words["n"])))


ATTRIBUTE = Rule(
    shape=re.compile(
        rf"'s (?P<n>[a-z]+(?: [a-z]+){{0,3}}) {BE} "
        rf"(?P<a>(?!(?:called|known|named|said|not|also|still|often|usually|now)\b){PHRASE})"
    ),
    relation="attribute {n}",
    questions=(
        "{Wh} {be} the {n} of {s}?",
        "{Wh} {be} {s}'s {n}?",
        "The {n} of {s} {be} {wh}?",
        "Name the {n} of {s}.",
        "Tell me the {n} of {s}.",
        "Do you know {s}'s {n}?",
    ),
    restatements=("The {n} of {s} {be} {answer}.", "{Answer} {be} {s}'s {n}."),
    unseen="Asked about the {n} of {s}, what would you answer?",
    words=_who_has_the_role,
)
