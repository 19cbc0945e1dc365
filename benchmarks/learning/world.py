"""The synthetic world: an endless, seeded supply of documents on what no model can know.

    python benchmarks/learning/world.py --seed 0 --documents 20 --out DIR

Invented people, buildings, towns, rivers, events and objects, each in a document of its own: a few
facts in shuffled order, each in one of several wordings, among sentences that state nothing. Names
are syllables, none a real name on purpose; every relation has at least 100 possible answers, so
that a guess is worth little. Document i of a seed is the same however many are made.

A question is asked in a wording "seen" for other facts (the learner's own probe, trained for other
subjects, never for this one) or in one "never" seen: templates of this file that no rule of the
learner generates. The patterns are kept to what `reading.statements` reads; how much of it is read
is measured by the tests. Not covered: facts on one subject across documents, and changing facts.

As a program it writes a .txt file a document, named by its title, into DIR (what the file source
reads), `documents.jsonl` ({title, text}) and `questions.jsonl` ({document, question, answers}).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

from autodidact.lessons.probes import probe_id, write_probes  # noqa: E402
from autodidact.lessons.wordings import wordings  # noqa: E402
from autodidact.reading.answers import exact_match  # noqa: E402
from autodidact.reading.document import read_document  # noqa: E402
from autodidact.types.documents import (  # noqa: E402
    Document,
    Fact,
    Findings,
    Probe,
    Split,
)

Wording = Literal["seen", "never"]
MIN_WORDS, MAX_WORDS = 60, 190
"""Words of a text: long enough to read, short enough for one chunk."""

# Names -------------------------------------------------------------------------------------------

Draw = Callable[[random.Random], str]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_HEADS = _words(
    "Ba Be Bo Bra Bre Bru Da De Do Dra Fa Fe Fo Ga Ge Gri Ha He Ho Ja Ka Ke Kla La Le Lo Ma Me Mo "
    "Na Ora Pa Pe Ra Ro Sa Se Ta Ve Wa"
)
_MIDDLES = _words("b d l m n r s t v z br dr gr kr ld lm ln lv mb nd nv rb rd rl rm rn rv sk st th")
_TAILS = _words(
    "an ane ard arn ash aven eck el elby elow en endy erby ern ery eth ey ill in ine ish isk itt "
    "old om on one or ordy orn osk oth ove ow uld um und ur urn ush usk uth y yle yn ander ersey "
    "ingham ington ister omere orough ova umber unster upton utter ybridge yford ymond yton"
)
_FIRST_ENDS = _words("an bel da dric fa len lin mar na ra rin sa so ta ven vi wyn zo")
STEMS = len(_HEADS) * len(_MIDDLES) * len(_TAILS)
FIRST_NAMES = len(_HEADS) * len(_FIRST_ENDS)


def stem(number: int) -> str:
    """The name of this number, one word below `STEMS` and more words above; all different."""
    words = []
    while True:
        number, rest = divmod(number, STEMS)
        rest, tail = divmod(rest, len(_TAILS))
        head, middle = divmod(rest, len(_MIDDLES))
        words.append(_HEADS[head] + _MIDDLES[middle] + _TAILS[tail])
        if not number:
            return " ".join(words)
        number -= 1


def _stem(rng: random.Random) -> str:
    return stem(rng.randrange(STEMS))


def _first(rng: random.Random) -> str:
    return rng.choice(_HEADS) + rng.choice(_FIRST_ENDS)


def _person(rng: random.Random) -> str:
    return f"{_first(rng)} {_stem(rng)}"


def _joined(*lists: str) -> Draw:
    """One word (or, with _ for a space, several) out of each list."""
    parts = [words.split() for words in lists]
    return lambda rng: " ".join(rng.choice(words) for words in parts).replace("_", " ")


def _number(least: int, most: int, unit: str = "") -> Draw:
    return lambda rng: f"{rng.randint(least, most)} {unit}".strip()


def _stemmed(before: str, after: str = "") -> Draw:
    """A name with a word before or after it, one of several."""

    first, last = before.split() or [""], after.split() or [""]
    return lambda rng: f"{rng.choice(first)} {_stem(rng)} {rng.choice(last)}".strip()


_COLOUR = _joined(
    "pale dark dull bright deep faded soft light dusty warm",
    "copper amber crimson violet olive ochre teal silver scarlet plum russet ivory",
)
_MATERIAL = _joined(
    "grey black red white green rough smooth old blue brown",
    "slate granite oak larch flint brick limestone cedar marble elm pewter sandstone",
)
_DISH = _joined(
    "smoked pickled baked salted stewed roasted honeyed peppered",
    "eel plum onion trout barley quince goose turnip walnut herring leek",
    "pie soup pudding cake broth",
)
_PRIZE = _joined(
    "Amber Silver Copper Golden Crooked Velvet Painted Broken Iron Ivory Scarlet Paper",
    "Ladle Kettle Thimble Anchor Feather Spindle Lantern Acorn Whistle Saddle Compass Ribbon",
)
_HILL = _stemmed("", "Fell Hill Moor Crag Heath")
_LAKE = _stemmed("Lake")
_RIVER = _stemmed("River")
_HALL = _stemmed("", "Hall Museum Library Chapel Castle")
_YEAR = _number(1500, 1899)
_MONTHS = ("March", "April", "May", "June", "August", "October")

# Relations ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Relation:
    """`says`: predicates with {a} for the answer; one that begins with 's can be turned round
    ("The keeper of …"). `never`: questions with {s} for the subject inside a sentence."""

    name: str
    draw: Draw
    says: tuple[str, ...]
    never: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    name: str
    title: Callable[[random.Random, str], str]
    article: bool
    relations: tuple[Relation, ...]


def _ending(words: str) -> Callable[[random.Random, str], str]:
    return lambda rng, name: f"{name} {rng.choice(words.split())}"


_R = Relation
_PERSON = Kind("person", lambda rng, name: f"{_first(rng)} {name}", False, (
    _R("year born", _YEAR,
       (" was born in {a}", " was born in {month} {a}",
        " was born in {a}, the youngest of a large family"),
       ("Which year saw the birth of {s}?", "From what year on was {s} alive?",
        "The cradle of {s} was first rocked in which year?")),
    _R("birthplace", _stem,
       (" was born in {a}", " was born at {a}", "'s birthplace was {a}", "'s native town was {a}"),
       ("Which town can call itself the cradle of {s}?", "From which town did {s} come into life?",
        "A plaque to the birth of {s} would hang in which town?")),
    _R("teacher", _person,
       (" was taught by {a}", " was trained by {a}", "'s teacher was {a}"),
       ("Whose lessons did {s} attend?", "To whom does {s} owe an education?",
        "Under which tutor did {s} learn?")),
    _R("spouse", _person,
       (" married {a}", "'s spouse was {a}", "'s partner in marriage was {a}"),
       ("With whom did {s} share a wedding day?", "Who stood beside {s} at the altar?",
        "Whose ring did {s} wear?")),
    _R("prize", _PRIZE,
       (" won the {a}", " received the {a}", "'s highest honour was the {a}"),
       ("Which award went to {s}?", "What trophy could {s} show to guests?",
        "Which distinction did a jury hand to {s}?")),
    _R("home", _stem,
       (" lived in {a}", "'s home was {a}", " worked in {a}"),
       ("In which town would a letter have reached {s}?", "Which town had {s} among its people?",
        "Where was the daily life of {s}?")),
    _R("pupils", _number(11, 399),
       (" had {a} pupils", " had about {a} pupils", " had {a} pupils in all"),
       ("How large was the school of {s}, counted in pupils?", "How many learners sat before {s}?",
        "What was the size of the class that {s} gathered?")),
    _R("apprentice", _person,
       ("'s apprentice was {a}", "'s best pupil was {a}", "'s assistant was {a}"),
       ("Who learned the craft at the side of {s}?", "To whom did {s} pass on the craft?",
        "Which young helper did {s} take in?")),
))  # fmt: skip
_BUILDING = Kind("building", _ending("Mill Light Inn Bridge Tower Chapel Granary Lodge"), True, (
    _R("year built", _YEAR,
       (" was built in {a}", " was completed in {a}", " was opened in {a} after a long quarrel",
        " was first used in {a}"),
       ("Since which year has there been {s}?", "What date is carved over the door of {s}?",
        "How far back does {s} go, as a year?")),
    _R("builder", _person,
       (" was built by {a}", " was designed by {a}", "'s architect was {a}"),
       ("Whose plans gave {s} its shape?", "Which architect stands behind {s}?",
        "Whose work is {s}?")),
    _R("patron", _person,
       (" was paid for by {a}", " was ordered by {a}", "'s patron was {a}"),
       ("Whose money made {s} possible?", "Out of whose purse did {s} come?",
        "Who asked for {s} and bore the cost?")),
    _R("keeper", _person,
       ("'s keeper is {a}", " is tended by {a}", "'s warden is {a}"),
       ("Who looks after {s} from day to day?", "In whose care is {s}?",
        "Who carries the keys to {s}?")),
    _R("steps", _number(21, 399),
       (" has {a} steps", " contains {a} steps", " has exactly {a} stone steps"),
       ("How many stairs must one climb in {s}?", "To reach the top of {s}, count how far?",
        "How long is the staircase of {s}, in steps?")),
    _R("height", _number(20, 299, "feet"),
       (" is {a} tall", " is about {a} high", "'s height is {a}"),
       ("How far does {s} reach into the sky?", "What does a ruler say of the height of {s}?",
        "From the ground to the very top, how much is {s}?")),
    _R("material", _MATERIAL,
       (" is made of {a}", " is made entirely of {a}", " is made from {a}"),
       ("What did the masons use for {s}?", "Touching the walls of {s}, what would one feel?",
        "Out of which stuff did they raise {s}?")),
    _R("door", _COLOUR,
       ("'s door colour is {a}", "'s doors are {a}", "'s front door is {a}"),
       ("In which paint does the entrance of {s} shine?", "How is the door of {s} painted?",
        "What colour greets a visitor at {s}?")),
    _R("neighbour", _stem,
       (" stands near {a}", " stands beside {a}", " lies near {a}"),
       ("Which town is a short walk from {s}?", "Next to which town would you find {s}?",
        "Of which town is {s} a neighbour?")),
))  # fmt: skip
_TOWN = Kind("town", lambda rng, name: name, False, (
    _R("year founded", _YEAR,
       (" was founded in {a}", " was first settled in {a}", " was chartered in {a}"),
       ("How old is {s}, by the year of its beginning?", "Which year is the birthday of {s}?",
        "Since which year is {s} on the map?")),
    _R("founder", _person,
       (" was founded by {a}", " was established by {a}", "'s founder was {a}"),
       ("Who laid the first stone of {s}?", "To whom does {s} owe its beginning?",
        "Whose settlement grew into {s}?")),
    _R("mayor", _person,
       ("'s mayor is {a}", " is governed by {a}", "'s present mayor is {a}"),
       ("Who wears the chain of office in {s}?", "Who sits at the head of the council of {s}?",
        "Whose word is law in {s}?")),
    _R("houses", _number(101, 999),
       (" has {a} houses", " contains {a} houses", " has about {a} houses"),
       ("How many homes would a postman of {s} visit?", "How large is {s}, counted in houses?",
        "Count the roofs of {s}: how many?")),
    _R("sister town", _stem,
       ("'s nearest neighbour is {a}", "'s sister town is {a}", "'s old rival is {a}"),
       ("Which other town is tied to {s}?", "With which town is {s} always compared?",
        "Next to {s}, which town comes to mind?")),
    _R("dish", _DISH,
       (" is known for {a}", " is famous for {a}", "'s best dish is {a}"),
       ("What should a hungry guest order in {s}?", "Which meal do the cooks of {s} boast of?",
        "What is on every table in {s}?")),
    _R("river", _RIVER,
       (" lies on the {a}", " stands on the {a}", " sits on the {a}"),
       ("Which water runs past {s}?", "On the banks of what was {s} put up?",
        "Whose floods does {s} fear?")),
))  # fmt: skip
_RIVER_KIND = Kind("river", lambda rng, name: f"River {name}", True, (
    _R("length", _number(11, 399, "miles"),
       (" is {a} long", " is about {a} long", "'s length is {a}"),
       ("From spring to mouth, what is the distance along {s}?",
        "How far would a boat drift down the whole of {s}?", "How much ground does {s} cover?")),
    _R("source", _HILL,
       (" rises on {a}", " rises near {a}", "'s source is {a}"),
       ("On which height is the spring of {s}?", "Where does {s} begin its way?",
        "Which hill gives birth to {s}?")),
    _R("mouth", _LAKE,
       (" flows into {a}", " runs into {a}", "'s outlet is {a}"),
       ("Where does {s} end its way?", "Which lake swallows {s}?",
        "Following {s} to the end, one sees which lake?")),
    _R("bridges", _number(11, 199),
       (" has {a} bridges", " has exactly {a} stone bridges", " has {a} bridges in all"),
       ("How often can {s} be crossed with dry feet?", "How many spans reach over {s}?",
        "Count the crossings of {s}: how many?")),
    _R("year mapped", _YEAR,
       (" was first mapped in {a}", " was charted in {a}", " was surveyed in {a}"),
       ("Since which year has {s} been drawn on paper?", "Which year did map makers get to {s}?",
        "What year is on the oldest chart of {s}?")),
    _R("surveyor", _person,
       (" was mapped by {a}", " was explored by {a}", "'s first surveyor was {a}"),
       ("Whose chart shows {s} for the first time?", "Who followed {s} with a compass?",
        "Which traveller drew the course of {s}?")),
    _R("namesake", _person,
       (" is named after {a}", " was named after {a}", "'s namesake is {a}"),
       ("Whose memory lives on in the name of {s}?", "Who lent a name to {s}?",
        "In whose honour is {s} called so?")),
))  # fmt: skip
_EVENT = Kind("event", _ending("Fair Race Regatta Feast Parade Contest"), True, (
    _R("year begun", _YEAR,
       (" was first held in {a}", " was founded in {a}", " was begun in {a}"),
       ("How long has there been {s}, as a starting year?", "Which year saw the earliest {bare}?",
        "In which year did people gather for {s} the first time?")),
    _R("founder", _person,
       (" was founded by {a}", " was started by {a}", "'s founder was {a}"),
       ("Whose idea was {s}?", "Who brought {s} into being?",
        "To whom do people owe {s}?")),
    _R("host town", _stem,
       ("'s host town is {a}", "'s home is {a}", "'s venue is {a}"),
       ("To which town does one travel for {s}?", "Whose streets are full during {s}?",
        "Which town opens its gates for {s}?")),
    _R("prize", _PRIZE,
       ("'s prize is the {a}", "'s top prize is the {a}", "'s main trophy is the {a}"),
       ("What does the best of {s} take home?", "For which award do they strive at {s}?",
        "What is handed over at the end of {s}?")),
    _R("winner", _person,
       (" was won by {a}", "'s last winner was {a}", "'s champion is {a}"),
       ("Who beat all others at {s}?", "Whose triumph did the crowd see at {s}?",
        "Who went home from {s} with the laurels?")),
    _R("entrants", _number(21, 499),
       (" has {a} entrants", " has about {a} entrants", " has {a} regular entrants"),
       ("How many take part in {s}?", "How large is the field at {s}?",
        "How many names are on the list of {s}?")),
    _R("judge", _person,
       ("'s judge is {a}", " is judged by {a}", "'s chief judge is {a}"),
       ("Whose verdict counts at {s}?", "Who decides the outcome of {s}?",
        "Before whose eyes must one shine at {s}?")),
))  # fmt: skip
_OBJECT = Kind("object", _ending("Bell Harp Clock Lantern Loom Anchor Globe"), True, (
    _R("year made", _YEAR,
       (" was made in {a}", " was finished in {a}", " was first displayed in {a}"),
       ("Which year is stamped on {s}?", "Since which year has {s} existed?",
        "What age is {s}, told by its year?")),
    _R("maker", _person,
       (" was made by {a}", " was crafted by {a}", "'s maker was {a}"),
       ("Whose hands gave form to {s}?", "In whose workshop did {s} come about?",
        "Whose mark does {s} bear?")),
    _R("owner", _person,
       ("'s owner is {a}", " is owned by {a}", "'s present owner is {a}"),
       ("To whom does {s} belong?", "Who may sell {s}?", "Whose property is {s}?")),
    _R("weight", _number(11, 499, "pounds"),
       ("'s weight is {a}", "'s full weight is {a}", "'s total weight is {a}"),
       ("How heavy is {s}?", "What do the scales show under {s}?",
        "How much would one lift with {s}?")),
    _R("material", _MATERIAL,
       (" is made of {a}", " is made mostly of {a}", " is made from {a}"),
       ("What did the craftsman take for {s}?", "Which stuff has {s} for a body?",
        "Touching {s}, what would one feel?")),
    _R("place", _HALL,
       (" stands in the {a}", " sits in the {a}", "'s home is the {a}"),
       ("Which house shows {s} to visitors?", "Under which roof is {s} today?",
        "Where must one go to see {s}?")),
    _R("colour", _COLOUR,
       ("'s colour is {a}", "'s main colour is {a}", "'s outer colour is {a}"),
       ("In which shade does {s} shine?", "What would a painter mix for {s}?",
        "How does {s} look in daylight, by its shade?")),
))  # fmt: skip
KINDS = (_PERSON, _BUILDING, _TOWN, _RIVER_KIND, _EVENT, _OBJECT)

# Sentences that state nothing --------------------------------------------------------------------

_WHEN = (
    "On market mornings", "After the first frost", "In a dry summer", "When the wind turns east",
    "Before the harvest", "On the longest evenings", "As soon as the snow melts", "On quiet days",
    "At the turn of the year", "While the kettles boil", "When the fog comes down", "In the spring",
)  # fmt: skip
_WHO = (
    "the older children", "the carters", "a few neighbours", "the bakers", "travellers",
    "the fishermen", "some of the farmers", "the lamplighters", "curious visitors", "the weavers",
    "the street musicians", "old friends",
)  # fmt: skip
_DO = (
    "bring baskets of apples to the gate", "tell the same stories as ever", "sweep the yard",
    "argue about the price of wool", "sit by the fire and mend their nets", "wait for the post",
    "sing until the candles burn low", "look for mushrooms under the beeches", "feed the geese",
    "carry water up from the pump", "hope for better weather", "hang their coats up to dry",
    "share bread and cheese on the wall", "watch the clouds roll in over the fields",
)  # fmt: skip
_ASIDES = (
    "Nobody has ever made much of a fuss about that.",
    "Opinions on the matter differ from house to house.",
    "Good weather helps, but rain has never kept people away for long.",
    "Children hear all of this early and seldom forget any of it.",
    "Much more could be told, if only somebody had written everything down.",
    "People who come from far away are often surprised by how quiet things are.",
    "Old letters and account books tell the rest of the story.",
)


def _filler(rng: random.Random) -> str:
    if rng.random() < 0.2:
        return rng.choice(_ASIDES)
    return f"{rng.choice(_WHEN)}, {rng.choice(_WHO)} {rng.choice(_DO)}."


# Documents ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StatedFact:
    """A fact as the world knows it: what a document says in `sentence`."""

    relation: str
    answer: str
    sentence: str
    never: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    question: str
    answer: str
    relation: str
    wording: Wording


@dataclass(frozen=True)
class WorldDocument:
    number: int
    kind: str
    title: str
    text: str
    facts: tuple[StatedFact, ...]

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """Of each fact the learner's own probe, if its rules read the fact, and all "never"s."""
        read = matched(self, reading(self))
        made: list[Question] = []
        for number, stated in enumerate(self.facts):
            if number in read:
                asked = wordings(read[number]).probe
                made.append(Question(asked, stated.answer, stated.relation, "seen"))
            for asked in stated.never:
                made.append(Question(asked, stated.answer, stated.relation, "never"))
        return tuple(made)


class World:
    """All documents of one seed. Titles are unique, whatever the number."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        rng = random.Random(f"world:{seed}")
        self._shift = rng.randrange(STEMS)
        self._factor = next(
            factor
            for factor in iter(lambda: rng.randrange(STEMS // 4, STEMS), 0)
            if math.gcd(factor, STEMS) == 1
        )

    def documents(
        self, n: int, facts: tuple[int, int] = (3, 6), start: int = 0
    ) -> list[WorldDocument]:
        """Documents number `start` to `start + n − 1`, with that many facts each, both inclusive.

        Raises ValueError for a range of facts that no kind of subject can fill.
        """
        return [self.document(i, facts) for i in range(start, start + n)]

    def document(self, number: int, facts: tuple[int, int] = (3, 6)) -> WorldDocument:
        most = min(len(kind.relations) for kind in KINDS)
        if not 1 <= facts[0] <= facts[1] <= most:
            raise ValueError(f"facts {facts}: take a range between 1 and {most}")
        rng = random.Random(f"world:{self.seed}:{number}")
        kind = rng.choice(KINDS)
        name = self._name(number)
        title = kind.title(rng, name)
        subject = f"the {title}" if kind.article else title
        relations = rng.sample(kind.relations, rng.randint(*facts))
        answers = _answers(rng, relations, name)
        text, sentences = _write(rng, kind, subject, relations, answers)
        stated = tuple(
            StatedFact(
                relation.name,
                answer,
                sentence,
                tuple(_ask(template, subject) for template in relation.never),
            )
            for relation, answer, sentence in zip(relations, answers, sentences, strict=True)
        )
        return WorldDocument(number, kind.name, title, text, stated)

    def _name(self, number: int) -> str:
        """A permutation of the names, so that no two documents share one."""
        lap, place = divmod(number, STEMS)
        return stem(lap * STEMS + (self._factor * place + self._shift) % STEMS)


def _answers(rng: random.Random, relations: Sequence[Relation], name: str) -> list[str]:
    """One answer a relation, all different and none that holds the subject's own name."""
    answers: list[str] = []
    for relation in relations:
        while (answer := relation.draw(rng)) in answers or name in answer:
            pass
        answers.append(answer)
    return answers


def _ask(template: str, subject: str) -> str:
    return template.format(s=subject, bare=subject.removeprefix("the "))


def _write(
    rng: random.Random,
    kind: Kind,
    subject: str,
    relations: Sequence[Relation],
    answers: Sequence[str],
) -> tuple[str, list[str]]:
    """The text, and the sentence that states each fact. A pronoun stands only where the sentence
    before it is about the subject too."""
    pronouns = rng.choice((("He", "His"), ("She", "Her"))) if kind is _PERSON else ("It", "Its")
    wanted = rng.randint(MIN_WORDS + 10, MIN_WORDS + 50 + 10 * len(relations))
    paragraphs: list[list[str]] = [[]]
    stated = []
    named = True
    words = 0
    for i, (relation, answer) in enumerate(zip(relations, answers, strict=True)):
        says = rng.choice(relation.says).replace("{a}", answer)
        says = says.replace("{month}", rng.choice(_MONTHS))
        stated.append(_sentence(rng, says, subject, None if named else pronouns))
        paragraphs[-1].append(stated[-1])
        words += len(stated[-1].split())
        due = (i + 1) * wanted // len(relations)
        named = rng.random() < 0.4
        while words < due and (rng.random() < 0.6 or i + 1 == len(relations)):
            filler = _filler(rng)
            if any(filler in paragraph for paragraph in paragraphs):
                continue
            paragraphs[-1].append(filler)
            words += len(filler.split())
            named = True
        if i + 1 < len(relations) and rng.random() < 0.2:
            paragraphs.append([])
            named = True
    return "\n\n".join(" ".join(sentences) for sentences in paragraphs), stated


def _sentence(rng: random.Random, says: str, subject: str, pronouns: tuple[str, str] | None) -> str:
    """A predicate with its subject: by name, by pronoun, or turned round ("The keeper of …")."""
    start = subject[0].upper() + subject[1:]
    possessive = says.startswith("'s ")
    if pronouns:
        return (pronouns[1] + says[2:] if possessive else pronouns[0] + says) + "."
    if possessive and rng.random() < 0.5:
        verb = next(v for v in (" is ", " was ", " are ") if v in says)
        noun, _, answer = says[3:].partition(verb)
        return f"The {noun} of {subject}{verb}{answer}."
    return f"{start}{says}."


# What the learner makes of it --------------------------------------------------------------------


def reading(document: WorldDocument, document_id: int = 0) -> Findings:
    """What the learner's rules read in it."""
    raw = Document("files:world", f"world/{document.title}.txt", document.title, document.text,
                   "", "", "")  # fmt: skip
    return read_document(document_id, raw)


def matched(document: WorldDocument, read: Findings) -> dict[int, Fact]:
    """The fact that was read with the right answer for each stated one, by its place in
    `document.facts`; what was not read is left out. Answers of a document are all different."""
    found: dict[int, Fact] = {}
    for number, stated in enumerate(document.facts):
        for fact in read.facts:
            if exact_match(fact.answer, stated.answer):
                found.setdefault(number, fact)
    return found


def probes(
    documents: Sequence[tuple[int, WorldDocument]],
    split: Literal["taught", "control"],
    others: Sequence[tuple[int, WorldDocument]] = (),
) -> list[tuple[Wording, Probe]]:
    """Both kinds of probe on every fact that was read, as (wording, probe); documents come with
    their ids in the ledger, `others` lend distractors.

    The id of a "never" probe is that of the learner's own with "-never1" … added.
    """
    readings = {number: reading(document, number) for number, document in documents}
    lent = [reading(document, number) for number, document in others]
    own = {p.id: p for p in write_probes(list(readings.values()), lent, split)}
    made: list[tuple[Wording, Probe]] = []
    for number, document in documents:
        for place, fact in matched(document, readings[number]).items():
            probe = own.get(probe_id(number, fact))
            if probe is None:  # no distractor anywhere
                continue
            made.append(("seen", probe))
            for i, asked in enumerate(document.facts[place].never, start=1):
                made.append(("never", _never(probe, i, asked, split)))
    return made


def _never(probe: Probe, number: int, asked: str, split: Split) -> Probe:
    name = f"never{number}"
    return replace(
        probe, id=f"{probe.id}-{name}", question=asked, wording=f"world/{name}", split=split
    )


# Files -------------------------------------------------------------------------------------------


def write_texts(documents: Sequence[WorldDocument], folder: Path) -> None:
    """A .txt file a document. The file source takes the file's name for the title."""
    folder.mkdir(parents=True, exist_ok=True)
    for document in documents:
        (folder / f"{document.title}.txt").write_text(document.text + "\n", encoding="utf-8")


def _lines(documents: Sequence[WorldDocument], wording: str) -> Iterator[dict[str, object]]:
    for document in documents:
        for asked in document.questions:
            if wording in ("all", asked.wording):
                yield {
                    "document": document.title,
                    "question": asked.question,
                    "answers": [asked.answer],
                }


def _write_jsonl(path: Path, rows: Iterator[dict[str, object]]) -> int:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return len(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--start", type=int, default=0, help="number of the first document")
    parser.add_argument("--facts", type=int, nargs=2, default=(3, 6), metavar=("LEAST", "MOST"))
    parser.add_argument("--wording", choices=("all", "seen", "never"), default="all")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    try:
        made = World(args.seed).documents(
            args.documents, (args.facts[0], args.facts[1]), args.start
        )
    except ValueError as error:
        parser.error(str(error))
    write_texts(made, args.out)
    rows: Iterator[dict[str, object]] = ({"title": d.title, "text": d.text} for d in made)
    _write_jsonl(args.out / "documents.jsonl", rows)
    asked = _write_jsonl(args.out / "questions.jsonl", _lines(made, args.wording))
    print(f"{args.out}: {len(made)} documents, {asked} questions")


if __name__ == "__main__":
    main()
