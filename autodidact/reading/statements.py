"""Reading facts by rule: a sentence about a known subject → (relation, answer, questions).

The reader knows the surface shapes of plain encyclopaedic English ("X was built in 1794", "Its
keeper is Maren Wren", "X has 43 steps"), not grammar: it has no parser and no model. A sentence
that fits no shape, whose subject is not the document's, or whose answer is long or vague gives
nothing. Precision is worth more than recall here: a wrong question teaches a wrong fact. What the
shapes leave of an ordinary article is for `gaps`.

Every rule offers six equivalent wordings of its question; `lessons` decides which are trained,
which one is the probe and which is offered to people as a suggestion. A seventh, in another frame
or word order, is trained for no fact at all.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from autodidact.reading.chunks import sentences
from autodidact.types.documents import Chunk, Fact

MAX_ANSWER_WORDS = 6
YEAR = r"(?:1[0-9]{3}|20[0-2][0-9])"
_WORD_NUMBERS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety "
    "hundred thousand"
).split()
NUMBER = (
    r"(?:\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?|(?:"
    + "|".join(sorted(_WORD_NUMBERS, key=len, reverse=True))
    + r")(?:[- ](?:"
    + "|".join(_WORD_NUMBERS)
    + r"))*)"
)
UNIT = (
    r"(?:metres?|meters?|kilometres?|kilometers?|km|m|cm|feet|foot|ft|inches|yards|miles|leagues"
    r"|centimetres?|centimeters?|millimetres?|mm|fathoms|tonnes|tons|kilograms|kg|pounds|years|days|hours|minutes|acres|hectares)"
)
_IRREGULAR = {
    "built": "built", "made": "made", "wrote": "written", "cast": "cast", "founded": "founded",
    "found": "found", "won": "won", "taught": "taught", "led": "led", "bought": "bought",
    "sold": "sold", "sang": "sung", "drew": "drawn", "kept": "kept", "began": "begun",
    "brought": "brought", "held": "held", "lost": "lost", "gave": "given", "took": "taken",
    "grew": "grown", "wove": "woven", "carried": "carried", "met": "met", "laid": "laid",
    "sent": "sent", "cut": "cut", "spun": "spun", "bred": "bred", "dug": "dug", "hung": "hung",
    "rebuilt": "rebuilt", "stole": "stolen", "ran": "run", "chose": "chosen", "threw": "thrown",
}  # fmt: skip
_PARTICIPLES = "|".join(
    sorted({*_IRREGULAR.values(), "set", "sunk", "torn", "burnt", "shut", "hewn", "paid"})
)
PARTICIPLE = rf"(?:[a-z]+ed|{_PARTICIPLES})(?: (?:down|up|out|over|for))?"
PAST = rf"(?:[a-z]+ed|{'|'.join(_IRREGULAR)})"
_PLACE_VERBS = "stands|lies|sits|hangs|stood|lay|lived|lives|worked|works|rises|flows|runs|grows"
_PREPOSITIONS = (
    "on|in|at|near|by|beside|behind|above|below|under|over|through|into|from|between|off"
)
_VAGUE = {
    "one", "member", "type", "kind", "part", "name", "number", "group", "series", "set", "form",
    "term", "example", "result", "way", "place", "list", "only", "first", "same", "most", "it",
    "them", "him", "her", "this", "that", "there", "what", "himself", "herself", "itself", "many",
    "several", "some", "body", "process", "field", "more", "all", "each", "both", "others", "something", "things",
}  # fmt: skip
_LIVING_VERBS = (
    "married",
    "taught",
    "met",
    "succeeded",
    "followed",
    "employed",
    "hired",
    "trained",
)
_ROLE = re.compile(
    r"(?<!chapt)(?<!numb)(?<!tow)(?<!riv)(?<!wat)(?<!pap)(?<!lett)(?<!corn)(?<!bord)(?<!flow)(?<!cov)"
    r"(?<!ord)(?<!timb)(?<!chamb)(?<!lad)(?<!fi)(?<!col)(?<!harb)(?<!flo)(?<!do)(?<!interi)(?<!supp)"
    r"(?:er|or|lord|lady|ist|man|woman|ian|wife|husband|mother|father|brother|sister|son|daughter|uncle|aunt"
    r"|cousin|patron|rival|friend|pupil|heir|widow|king|queen|saint|guardian|steward|apprentice"
    r"|master|mistress|partner|clerk|captain|abbot|dean|warden|bailiff)$"
)


_PRONOUNS = {
    "It": "It", "Its": "It", "They": "It", "Their": "It",
    "He": "He", "His": "He", "She": "She", "Her": "She",
}  # fmt: skip
"""What each stands for. "They" of one person is rare."""
_EXPLETIVE = re.compile(
    r"(?:(?:is|was|has|had|would|may|can|could|might|will|must|should)\b(?: \w+){0,4}? (?:that|to|how|whether)\b"
    r"|(?:took|takes|seems|seemed|appears|appeared|follows|followed) )"
)
_CITATION = re.compile(r"(?<=[a-z.,)\"]):\d+(?:[,–-]\s?\d+)*(?= |$)|\[\d+\]")
"""Page numbers of references that text extraction leaves behind."""


@dataclass(frozen=True)
class Topic:
    """Whom a document is about: how its text calls it ("the Brack Mill"), a second name at the
    start of sentences ("Stone" for Ada Stone, or ""), and the pronoun that may stand for it: It,
    He, She, or "" where the text has to show."""

    name: str
    alias: str = ""
    pronoun: str = ""


@dataclass(frozen=True)
class Sentence:
    """A sentence of a chunk as it stands and without its brackets and its stop. Where it is about
    the subject, `full` names it and `predicate` is what follows the name; else both are ""."""

    raw: str
    plain: str
    full: str = ""
    predicate: str = ""


@dataclass(frozen=True)
class _Statement:
    relation: str
    kind: str
    answer: str
    questions: tuple[str, ...]
    restatements: tuple[str, ...]
    unseen: str


class _Groups(Protocol):
    """Named groups: a match, or values given by hand."""

    def __getitem__(self, name: str, /) -> str: ...


_Rule = tuple[re.Pattern[str], Callable[[str, "_Groups"], _Statement]]


def read(chunk: Chunk, about: Topic | None = None) -> list[Fact]:
    """The facts of a chunk, in order. Deterministic. `about` is the document's subject; without
    it, it is read from the chunk."""
    return unambiguous([fact for _, fact in _found(chunk, about or subject_of(chunk))])


def sentences_read(chunk: Chunk, about: Topic) -> set[str]:
    """The sentences of a chunk, as they stand, that some rule makes a fact of."""
    return {raw for raw, _ in _found(chunk, about)}


def _found(chunk: Chunk, about: Topic) -> list[tuple[str, Fact]]:
    found: list[tuple[str, Fact]] = []
    number = 0
    for sentence in told(about, chunk):
        if not sentence.full:
            continue
        first = number == 0 and chunk.id.endswith(":0")
        number += 1
        reading = _read_predicate(about.name, sentence.predicate, first)
        if reading is not None and _sound(reading.answer, about.name):
            found.append((sentence.raw, _fact(chunk, about.name, sentence.full, reading)))
    if chunk.id.endswith(":0"):
        found += [
            ("", _fact(chunk, about.name, sentence, reading))
            for sentence, reading in _life_span(about.name, chunk.text)
        ]
    return found


def _fact(chunk: Chunk, name: str, sentence: str, reading: _Statement) -> Fact:
    return Fact(
        chunk.id,
        name,
        reading.relation,
        reading.kind,
        reading.answer,
        sentence,
        reading.questions,
        reading.restatements,
        reading.unseen,
    )


def subject_of(chunk: Chunk) -> Topic:
    return subject(chunk.heading, chunk.text)


def subject(title: str, text: str) -> Topic:
    """Read from a document's title and text.

    A person with a life span behind the name is also called by the surname, if the text does so;
    what has an article, a small letter or a digit in its title, or a title of one word, is no
    person unless a life span says so.
    """
    name = _name(title, text)
    bare = name.removeprefix("the ")
    opening = text.split("\n\n", 1)[0][:400]
    if re.match(
        rf"{re.escape(bare)}\b[^()]{{0,40}} \([^()]*{YEAR}[^()]*\)[^.]*? (?:was|is) an? ", opening
    ):
        he, she = (
            len(re.findall(rf"\b(?:{p})\b", text)) for p in ("[Hh]e|[Hh]is", "[Ss]he|[Hh]er")
        )
        if he + she >= 3:
            alias = bare.rpartition(" ")[2]
            alone = len(re.findall(rf"(?:^|[.] |[a-z] ){re.escape(alias)}\b", text))
            beside = re.findall(rf"\b([A-Z][\w-]+) {re.escape(alias)}\b", text)
            others = sum(word not in bare for word in beside)
            clear = " " in bare and alone >= 3 and alone > others
            return Topic(name, alias if clear else "", "He" if he >= she else "She")
    words = [word for word in bare.split() if word not in ("of", "the", "de", "von", "van")]
    thing = bare != name or len(words) == 1 or not all(word[:1].isupper() for word in words)
    return Topic(name, "", "It" if thing else _leading_pronoun(text))


def _leading_pronoun(text: str) -> str:
    """It, He or She, if sentences of the text begin with it three times as often as with the
    others together, and else ""."""
    found = re.findall(r"(?:^|[.!?] |\n)(It|He|She|Its|His|Her)\b", text)
    counts = Counter(_PRONOUNS[pronoun] for pronoun in found)
    best, most = max(counts.items(), key=lambda pair: pair[1], default=("", 0))
    return best if most >= 3 * (len(found) - most) and most else ""


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


def told(about: Topic, chunk: Chunk) -> Iterator[Sentence]:
    """The sentences of a chunk, and what each says of the subject.

    A pronoun stands for the subject as long as the sentence before it was about the subject too,
    and is of the kind that stood for it before: in "The mill was built by Tom Hall. It has two
    sails. He died in 1840." he is not the mill. "They" stands for a subject of one only where its
    name is a plural. "It is said that …" is about nobody.
    """
    bare = re.escape(about.name.removeprefix("the "))
    called = rf"(?:{bare}|{re.escape(about.alias)})" if about.alias else bare
    kind = about.pronoun
    for paragraph in chunk.text.split("\n\n"):
        near = True
        for raw in sentences(_CITATION.sub("", paragraph)):
            plain = re.sub(r"\s*\([^)]*\)", "", raw).strip().rstrip(".!?")
            named = re.match(rf"(?:The |the )?{called}(?P<s>'s|’s)? ", plain)
            pronoun = re.match(r"(?P<p>It|He|She|They|Its|His|Her|Their) (?P<r>.*)", plain)
            attribute = re.match(
                rf"The (?P<n>[a-z][a-z ]{{2,30}}?) of (?:(?:the |The )?{called}"
                r"|(?P<d>its|his|her) (?P<m>[a-z]+)) (?P<r>(?:is|was|are|were) .*)",
                plain,
            )
            if attribute and attribute["m"]:
                predicate = f"'s {attribute['m']} {attribute['n']} {attribute['r']}"
            elif attribute:
                predicate = f"'s {attribute['n']} {attribute['r']}"
            elif named:
                predicate = ("'s " if named["s"] else "") + plain[named.end() :]
            elif (
                pronoun
                and near
                and kind in ("", _PRONOUNS[pronoun["p"]])
                and not (pronoun["p"] == "It" and _EXPLETIVE.match(pronoun["r"]))
                and (pronoun["p"] not in ("They", "Their") or about.name.endswith("s"))
            ):
                kind = _PRONOUNS[pronoun["p"]]
                possessive = pronoun["p"] in ("Its", "His", "Her", "Their")
                predicate = ("'s " if possessive else "") + pronoun["r"]
            else:
                near = False
                yield Sentence(raw, plain)
                continue
            near = True
            joint = "" if predicate.startswith("'s ") else " "
            full = f"{_cap(about.name)}{joint}{predicate}."
            yield Sentence(raw, plain, full, predicate)


def _read_predicate(name: str, predicate: str, first: bool) -> _Statement | None:
    for pattern, build in _RULES:
        match = pattern.fullmatch(predicate) or (first and pattern.fullmatch("\u0001" + predicate))
        if match:
            return build(name, match)
    return None


def _life_span(name: str, text: str) -> Iterator[tuple[str, _Statement]]:
    """Years of birth and death from "Name (12 May 1820 – 3 June 1881) was …"."""
    first = sentences(text.split("\n\n")[0])[:1]
    match = re.match(
        rf"{re.escape(name)}[^()]{{0,40}} \([^()]*?(?P<b>{YEAR})\s*[–—-]\s*[^()]*?(?P<d>{YEAR})[^()]*\) was ",
        first[0] if first else "",
    )
    if match:
        for event, year in (("was born", match["b"]), ("died", match["d"])):
            yield f"{_cap(name)} {event} in {year}.", _life_year(name, _Given(e=event, a=year))


class _Given(dict[str, str]):
    """Named groups without a match, for facts that come from elsewhere than a predicate."""

    def __init__(self, **groups: str) -> None:
        super().__init__(groups)


def _sound(answer: str, name: str) -> bool:
    words = answer.split()
    bare = name.removeprefix("the ").lower()
    return (
        0 < len(words) <= MAX_ANSWER_WORDS
        and words[0] not in _VAGUE
        and words[-1] not in _VAGUE
        and bare not in answer.lower()
        and not re.search(r"[\"“”;:()\[\]]|, ", answer)
    )


def unambiguous(facts: list[Fact]) -> list[Fact]:
    """Drop the facts of a subject whose question has two different answers."""
    answers: dict[str, set[str]] = {}
    for fact in facts:
        answers.setdefault(fact.relation, set()).add(fact.answer.lower())
    kept: dict[str, Fact] = {}
    for fact in facts:
        if len(answers[fact.relation]) == 1:
            kept.setdefault(fact.relation, fact)
    return list(kept.values())


def _strip_article(phrase: str) -> str:
    return re.sub(r"^(?:a|an|the|some|about|nearly|almost|exactly) ", "", phrase.strip())


def _cap(text: str) -> str:
    return text[0].upper() + text[1:]


def _kind(answer: str) -> str:
    if re.fullmatch(YEAR, answer):
        return "year"
    if re.fullmatch(NUMBER, answer.lower()):
        return "number"
    if re.fullmatch(rf"{NUMBER} {UNIT}", answer.lower()):
        return "measure"
    words = [word for word in answer.split() if word not in ("of", "the", "and", "de", "von")]
    return "name" if words and all(word[0].isupper() for word in words) else "phrase"


_DO = {"is": "does", "are": "do", "was": "did", "were": "did"}

# One function per shape. `s` is the subject as the text names it. --------------------------------


def _definition(s: str, m: _Groups) -> _Statement:
    be = m["be"]
    answer = _strip_article(m["a"])
    return _Statement(
        "definition",
        "phrase",
        answer,
        (
            f"What {be} {s}?",
            f"What sort of thing {be} {s}?",
            f"{_cap(s)} {be} what?",
            f"Say what {s} {be}.",
            f"How would you describe {s} in a word or two?",
            f"What kind of thing {be} {s}?",
        ),
        (f"{_cap(s)} {be} {m['det']} {answer}.",),
        f"To what class of things {_DO[be]} {s} belong?",
    )


def _passive_year(s: str, m: _Groups) -> _Statement:
    be, verb, year = m["be"], m["v"], m["a"]
    return _Statement(
        f"year {verb}",
        "year",
        year,
        (
            f"When {be} {s} {verb}?",
            f"In what year {be} {s} {verb}?",
            f"{_cap(s)} {be} {verb} in what year?",
            f"In which year {be} {s} {verb}?",
            f"What year {be} {s} {verb} in?",
            f"Give the year when {s} {be} {verb}.",
        ),
        (f"{_cap(s)} {be} {verb} in {year}.", f"In {year}, {s} {be} {verb}."),
        f"The year in which {s} {be} {verb} is which one?",
    )


def _passive_by(s: str, m: _Groups) -> _Statement:
    be, verb, answer = m["be"], m["v"], m["a"]
    return _Statement(
        f"by {verb}",
        _kind(answer),
        answer,
        (
            f"Who {be} {s} {verb} by?",
            f"By whom {be} {s} {verb}?",
            f"{_cap(s)} {be} {verb} by whom?",
            f"Name the one by whom {s} {be} {verb}.",
            f"Tell me who {s} {be} {verb} by.",
            f"Which person {be} {s} {verb} by?",
        ),
        (f"{_cap(s)} {be} {verb} by {answer}.", f"It is by {answer} that {s} {be} {verb}."),
        f"Whose doing is it that {s} {be} {verb}?",
    )


def _attribute(s: str, m: _Groups) -> _Statement:
    noun, be, answer = m["n"].strip(), m["be"], _strip_article(m["a"])
    kind = _kind(answer)
    wh = "Who" if kind == "name" and _ROLE.search(noun) else "What"
    return _Statement(
        f"attribute {noun}",
        kind,
        answer,
        (
            f"{wh} {be} the {noun} of {s}?",
            f"{wh} {be} {s}'s {noun}?",
            f"The {noun} of {s} {be} {wh.lower()}?",
            f"Name the {noun} of {s}.",
            f"Tell me the {noun} of {s}.",
            f"Do you know {s}'s {noun}?",
        ),
        (
            f"The {noun} of {s} {be} {answer}.",
            f"{answer[0].upper()}{answer[1:]} {be} {s}'s {noun}.",
        ),
        f"Asked about the {noun} of {s}, what would you answer?",
    )


def _material(s: str, m: _Groups) -> _Statement:
    be, answer = m["be"], _strip_article(m["a"])
    return _Statement(
        "material",
        "phrase",
        answer,
        (
            f"What {be} {s} made of?",
            f"Of what {be} {s} made?",
            f"{_cap(s)} {be} made of what?",
            f"What material {be} {s} made of?",
            f"Tell me what {s} {be} made of.",
            f"Which material {be} {s} made of?",
        ),
        (f"{_cap(s)} {be} made of {answer}.", f"The material of {s} {be} {answer}."),
        f"Which substance went into the making of {s}?",
    )


def _count(s: str, m: _Groups) -> _Statement:
    verb, number, noun = m["v"], m["a"], m["n"].strip()
    do = "did" if verb in ("had", "held", "carried") else "does"
    base = {"has": "have", "had": "have", "contains": "contain", "holds": "hold", "held": "hold",
            "carries": "carry", "carried": "carry", "keeps": "keep", "employs": "employ"}[verb]  # fmt: skip
    return _Statement(
        f"count {noun}",
        "number",
        number,
        (
            f"How many {noun} {do} {s} {base}?",
            f"What number of {noun} {do} {s} {base}?",
            f"{_cap(s)} {verb} how many {noun}?",
            f"Tell me how many {noun} {s} {verb}.",
            f"Give the number of {noun} that {s} {verb}.",
            f"Do you know how many {noun} {s} {verb}?",
        ),
        (f"{_cap(s)} {verb} {number} {noun}.", f"The number of {noun} of {s} is {number}."),
        f"Counting the {noun} of {s}, what figure would you reach?",
    )


def _measure(s: str, m: _Groups) -> _Statement:
    be, size, how = m["be"], m["a"], m["how"]
    return _Statement(
        f"measure {how}",
        "measure",
        size,
        (
            f"How {how} {be} {s}?",
            f"Tell me how {how} {s} {be}.",
            f"{_cap(s)} {be} how {how}?",
            f"Do you know how {how} {s} {be}?",
            f"Say how {how} {s} {be}.",
            f"Exactly how {how} {be} {s}?",
        ),
        (f"{_cap(s)} {be} {size} {how}.", f"At {size}, that is how {how} {s} {be}."),
        f"What figure expresses how {how} {s} {be}?",
    )


def _place(s: str, m: _Groups) -> _Statement:
    verb, preposition, answer = m["v"] or "lies", m["p"], _strip_article(m["a"])
    past = verb in ("stood", "lay", "lived", "worked")
    do = "did" if past else "does"
    base = {"stood": "stand", "lay": "lie", "lived": "live", "worked": "work"}.get(verb)
    base = base or verb.removesuffix("s")
    where = "From where" if preposition == "from" else "Where"
    return _Statement(
        f"place {base}",
        _kind(answer),
        answer,
        (
            f"{where} {do} {s} {base}?",
            f"In what place {do} {s} {base}?"
            if where == "Where"
            else f"From what place {do} {s} {base}?",
            f"{_cap(s)} {verb} {where.lower()}?",
            f"Tell me {where.lower()} {s} {verb}.",
            f"Do you know {where.lower()} {s} {verb}?",
            f"Name the place {'from ' if where != 'Where' else ''}where {s} {verb}.",
        ),
        (f"{_cap(s)} {verb} {preposition} {m['a']}.", f"The place where {s} {verb} is {answer}."),
        f"If someone wonders {where.lower()} {s} {verb}, what is the reply?",
    )


def _life_year(s: str, m: _Groups) -> _Statement:
    event, year = m["e"], m["a"]
    questions = (
        (
            f"When was {s} born?",
            f"In what year was {s} born?",
            f"{_cap(s)} was born in what year?",
            f"In which year was {s} born?",
            f"What year was {s} born in?",
            f"Give the year when {s} was born.",
        )
        if event == "was born"
        else (
            f"When did {s} die?",
            f"In what year did {s} die?",
            f"{_cap(s)} died in what year?",
            f"In which year did {s} die?",
            f"What year did {s} die in?",
            f"Give the year when {s} died.",
        )
    )
    return _Statement(
        f"year {event}",
        "year",
        year,
        questions,
        (f"{_cap(s)} {event} in {year}.", f"In {year}, {s} {event}."),
        f"The year in which {s} {event} is which one?",
    )


def _life_place(s: str, m: _Groups) -> _Statement:
    event, answer = m["e"], _strip_article(m["a"])
    born = event == "was born"
    do, verb = ("was", "born") if born else ("did", "die")
    return _Statement(
        f"place {event}",
        _kind(answer),
        answer,
        (
            f"Where {do} {s} {verb}?",
            f"In what place {do} {s} {verb}?",
            f"{_cap(s)} {event} where?",
            f"Tell me where {s} {event}.",
            f"Do you know where {s} {event}?",
            f"Name the place where {s} {event}.",
        ),
        (f"{_cap(s)} {event} in {m['a']}.", f"The place where {s} {event} is {answer}."),
        f"Which place saw the {'birth' if born else 'death'} of {s}?",
    )


def _active(s: str, m: _Groups) -> _Statement:
    verb, answer = m["v"], _strip_article(m["a"])
    participle = _IRREGULAR.get(verb, verb)
    wh = "Who" if verb in _LIVING_VERBS and _kind(answer) == "name" else "What"
    return _Statement(
        f"did {verb}",
        _kind(answer),
        answer,
        (
            f"{wh} was {participle} by {s}?",
            f"{_cap(s)} {verb} {'whom' if wh == 'Who' else 'what'}?",
            f"{wh} is it that {s} {verb}?",
            f"Tell me {wh.lower()} {s} {verb}.",
            f"Do you know {wh.lower()} {s} {verb}?",
            f"Say {wh.lower()} {s} {verb}.",
        ),
        (f"{_cap(s)} {verb} {m['a']}.", f"{_cap(m['a'])} was {participle} by {s}."),
        f"Of {'whom' if wh == 'Who' else 'what'} is it true that {s} {verb} {'this person' if wh == 'Who' else 'it'}?",
    )


def _named_after(s: str, m: _Groups) -> _Statement:
    be, answer = m["be"], _strip_article(m["a"])
    wh = "Who" if _kind(answer) == "name" else "What"
    return _Statement(
        "named after",
        _kind(answer),
        answer,
        (
            f"{wh} {be} {s} named after?",
            f"After {'whom' if wh == 'Who' else 'what'} {be} {s} named?",
            f"{_cap(s)} {be} named after {'whom' if wh == 'Who' else 'what'}?",
            f"Tell me {wh.lower()} {s} {be} named after.",
            f"Do you know {wh.lower()} {s} {be} named after?",
            f"Where does the name of {s} come from?",
        ),
        (f"{_cap(s)} {be} named after {m['a']}.", f"The name of {s} comes from {m['a']}."),
        f"To {'whom' if wh == 'Who' else 'what'} {_DO[be]} {s} owe the name?",
    )


def _purpose(s: str, m: _Groups) -> _Statement:
    be, what, answer = m["be"], m["v"], _strip_article(m["a"])
    return _Statement(
        f"{what} for",
        "phrase",
        answer,
        (
            f"What {be} {s} {what} for?",
            f"For what {be} {s} {what}?",
            f"{_cap(s)} {be} {what} for what?",
            f"Tell me what {s} {be} {what} for.",
            f"Do you know what {s} {be} {what} for?",
            f"Say what {s} {be} {what} for.",
        ),
        (f"{_cap(s)} {be} {what} for {m['a']}.", f"It is for {m['a']} that {s} {be} {what}."),
        f"What purpose {_DO[be]} {s} serve?"
        if what == "used"
        else f"What is the reason why {s} {be} {what}?",
    )


def _rule(pattern: str, build: Callable[[str, _Groups], _Statement]) -> _Rule:
    return re.compile(pattern), build


_BE = r"(?P<be>is|was|are|were)"
_PHRASE = r"(?:[\w’'-]+)(?: [\w’'-]+){0,5}"
_PLAIN_WORD = r"(?!(?:for(?! [A-Z])|from|into|to|with|by|as|during|in|on|at)\b)[\w’'-]+"
_PLAIN_PHRASE = rf"(?!(?:out|deep|back|away|up|down)\b){_PLAIN_WORD}(?: {_PLAIN_WORD}){{0,5}}"
_TAIL = r"(?:,? (?:by|for|with|from|after|near|at|on|when|while|and) .*)?"
_RULES: tuple[_Rule, ...] = (
    _rule(
        rf"(?P<e>was born|died)(?: on [\w ]+)? in (?:[A-Z][a-z]+ )?(?P<a>{YEAR})(?:,? .*)?",
        _life_year,
    ),
    _rule(
        r"(?P<e>was born|died) (?:in|at) (?P<a>(?:the )?[A-Z][\w’'-]+(?: (?:of |the )?[A-Z][\w’'-]+)*)",
        _life_place,
    ),
    _rule(
        rf"{_BE} (?:[a-z]+ly )?made (?:entirely |mostly |mainly )?(?:of|from|out of) (?P<a>{_PHRASE})",
        _material,
    ),
    _rule(rf"{_BE} named after (?P<a>{_PHRASE})", _named_after),
    _rule(
        rf"{_BE} (?:[a-z]+ly |best |chiefly )?(?P<v>used|known|famous|noted) for (?P<a>{_PHRASE})",
        _purpose,
    ),
    _rule(
        rf"{_BE} (?:[a-z]+ly )?(?P<v>(?:first |last )?{PARTICIPLE}) (?:in|about|around) (?:[A-Z][a-z]+ )?(?P<a>{YEAR}){_TAIL}",
        _passive_year,
    ),
    _rule(
        rf"{_BE} (?:[a-z]+ly )?(?P<v>(?:first |last )?{PARTICIPLE}) by (?P<a>(?:the )?[A-Z][\w’'-]+(?: (?:of |the )?[A-Z][\w’'-]+)*)"
        rf"(?: (?:in|of|for|at|on|as|with) .*)?",
        _passive_by,
    ),
    _rule(
        rf"{_BE} (?:about |nearly |almost |only |just |exactly )?(?P<a>{NUMBER} {UNIT}) (?P<how>tall|long|wide|deep|high|thick|across|old|broad)",
        _measure,
    ),
    _rule(
        rf"(?P<v>has|had|contains|holds|held|carries|carried|keeps|employs) (?:about |exactly |only |some |just )?(?P<a>{NUMBER}) (?P<n>[a-z][a-z -]{{2,30}}?)(?: (?:in|on|of|for|at|with|and) .*)?",
        _count,
    ),
    _rule(
        rf"(?:{_BE} (?:located|situated|found|set) |(?P<v>{_PLACE_VERBS}) )(?P<p>{_PREPOSITIONS}) (?P<a>{_PHRASE})",
        _place,
    ),
    _rule(
        rf"'s (?P<n>[a-z]+(?: [a-z]+){{0,3}}) {_BE} (?P<a>(?!(?:called|known|named|said|not|also|still|often|usually|now)\b){_PHRASE})",
        _attribute,
    ),
    _rule(
        rf"(?P<first>\u0001){_BE} (?P<det>an?|the) (?P<a>[\w’'-]+(?: [\w’'-]+){{0,3}}?)(?: (?:of|in|on|at|from|near|north|south|east|west|that|which|who|with|for|by|to|between|under|above|across|along|beside|made|built|written|used|located|situated|born|owned|based|founded|designed) .*|, (?:a|an|the|which|who|known|located|situated|composed|based|built|in|on|at|near|with) .*)?",
        _definition,
    ),
    _rule(rf"(?P<v>{PAST}) (?P<a>(?:(?:the|a|an|his|her|its) )?{_PLAIN_PHRASE})", _active),
)
