"""Reading facts by rule: a sentence about a known subject → (relation, answer, questions).

The reader knows the surface shapes of plain encyclopaedic English ("X was built in 1794", "Its
keeper is Maren Wren", "X has 43 steps"), not grammar: it has no parser and no model. A sentence
that fits no shape, whose subject is not the document's, or whose answer is long or vague gives
nothing. Precision is worth more than recall here: a wrong question teaches a wrong fact.

Every rule offers six equivalent wordings of its question; `examples` decides which are trained,
which one is the probe and which is offered to people as a suggestion.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from autodidact.curate import sentences
from autodidact.types import Chunk, Fact

MAX_ANSWER_WORDS = 6
FACTS_PER_CHUNK = 8
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
    "several", "some", "more", "all", "each", "both", "others", "something", "things",
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


@dataclass(frozen=True)
class _Reading:
    relation: str
    kind: str
    answer: str
    questions: tuple[str, ...]
    restatements: tuple[str, ...]


class _Groups(Protocol):
    """Named groups: a match, or values given by hand."""

    def __getitem__(self, name: str, /) -> str: ...


_Rule = tuple[re.Pattern[str], Callable[[str, "_Groups"], _Reading]]


def read(chunk: Chunk) -> list[Fact]:
    """The facts of a chunk, in order. Deterministic."""
    name = _name(chunk.heading, chunk.text)
    found: list[tuple[str, _Reading]] = []
    for number, (_, sentence, predicate) in enumerate(_about(name, chunk)):
        first = number == 0 and chunk.id.endswith(":0")
        reading = _read_predicate(name, predicate, first)
        if reading is not None and _sound(reading.answer, name):
            found.append((sentence, reading))
    if chunk.id.endswith(":0"):
        found += _life_span(name, chunk.text)
    facts = unambiguous([_fact(chunk, name, sentence, reading) for sentence, reading in found])
    gaps = [_fact(chunk, name, sentence, reading) for sentence, reading in _gaps(name, chunk)]
    return facts + unambiguous(gaps)[: max(0, FACTS_PER_CHUNK - len(facts))]


def _fact(chunk: Chunk, name: str, sentence: str, reading: _Reading) -> Fact:
    return Fact(
        chunk.id,
        name,
        reading.relation,
        reading.kind,
        reading.answer,
        sentence,
        reading.questions,
        reading.restatements,
    )


def _name(heading: str, text: str) -> str:
    """How the text calls its subject: the title, with "the" where the text uses it."""
    title = re.sub(r"\s*\([^)]*\)\s*$", "", heading).strip() or heading
    if title.lower().startswith("the "):
        return "the " + title[4:]
    return f"the {title}" if re.search(rf"\b[Tt]he {re.escape(title)}\b", text) else title


def _about(name: str, chunk: Chunk) -> Iterator[tuple[str, str, str]]:
    """(sentence, the same with its subject named, predicate) for each sentence about the subject.

    A pronoun stands for the subject as long as the sentence before it was about the subject too,
    and is of the kind that stood for it before: in "The mill was built by Tom Hall. It has two
    sails. He died in 1840." he is not the mill. What has an article is no person.
    """
    bare = name.removeprefix("the ")
    kind = "It" if bare != name else ""
    for paragraph in chunk.text.split("\n\n"):
        about = True
        for raw in sentences(paragraph):
            sentence = re.sub(r"\s*\([^)]*\)", "", raw).strip().rstrip(".!?")
            named = re.match(rf"(?:The |the )?{re.escape(bare)}(?P<s>'s|’s)? ", sentence)
            pronoun = re.match(r"(?P<p>It|He|She|They|Its|His|Her|Their) ", sentence)
            attribute = re.match(
                rf"The (?P<n>[a-z][a-z ]{{2,30}}?) of (?:(?:the |The )?{re.escape(bare)}"
                r"|(?P<d>its|his|her) (?P<m>[a-z]+)) (?P<r>(?:is|was|are|were) .*)",
                sentence,
            )
            if attribute and attribute["m"]:
                predicate = f"'s {attribute['m']} {attribute['n']} {attribute['r']}"
            elif attribute:
                predicate = f"'s {attribute['n']} {attribute['r']}"
            elif named:
                predicate = ("'s " if named["s"] else "") + sentence[named.end() :]
            elif pronoun and about and kind in ("", _PRONOUNS[pronoun["p"]]):
                kind = _PRONOUNS[pronoun["p"]]
                possessive = pronoun["p"] in ("Its", "His", "Her", "Their")
                predicate = ("'s " if possessive else "") + sentence[pronoun.end() :]
            else:
                about = False
                continue
            about = True
            joint = "" if predicate.startswith("'s ") else " "
            full = f"{name[0].upper()}{name[1:]}{joint}{predicate}."
            yield raw, full, predicate


def _read_predicate(name: str, predicate: str, first: bool) -> _Reading | None:
    for pattern, build in _RULES:
        match = pattern.fullmatch(predicate) or (first and pattern.fullmatch("\u0001" + predicate))
        if match:
            return build(name, match)
    return None


def _life_span(name: str, text: str) -> Iterator[tuple[str, _Reading]]:
    """Years of birth and death from "Name (12 May 1820 – 3 June 1881) was …"."""
    first = sentences(text.split("\n\n")[0])[:1]
    match = re.match(
        rf"{re.escape(name)}[^()]{{0,40}} \([^()]*?(?P<b>{YEAR})\s*[–—-]\s*[^()]*?(?P<d>{YEAR})[^()]*\) was ",
        first[0] if first else "",
    )
    if match:
        for event, year in (("was born", match["b"]), ("died", match["d"])):
            yield f"{_cap(name)} {event} in {year}.", _life_year(name, _Given(e=event, a=year))


def _gaps(name: str, chunk: Chunk) -> Iterator[tuple[str, _Reading]]:
    """Cloze facts for the sentences that no shape fits: the one year or number in it is the gap."""
    shaped = {
        raw for raw, _, predicate in _about(name, chunk) if _read_predicate(name, predicate, True)
    }
    for paragraph in chunk.text.split("\n\n"):
        for raw in sentences(paragraph):
            if raw in shaped:
                continue
            sentence = re.sub(r"\s*\([^)]*\)", "", raw).strip()
            numbers = re.findall(rf"(?<![\w.,-]){NUMBER}(?![\w,-]|\.\d)", sentence)
            digits = [number for number in numbers if number[0].isdigit()]
            if len(digits) != 1 or not 8 <= len(sentence.split()) <= 28:
                continue
            before, _, after = sentence.partition(digits[0])
            if (
                digits[0] in after
                or not re.search(r"[A-Za-z]{3}", before)
                or re.search(r"[()]", raw)
            ):
                continue
            yield sentence, _gap(name, f"{before}____{after}", digits[0], sentence)


def _gap(s: str, holed: str, answer: str, sentence: str) -> _Reading:
    about = _cap(s)
    return _Reading(
        f"gap {holed}",
        _kind(answer),
        answer,
        (
            f"{about}. Fill in the blank: {holed}",
            f"{about}. Complete the sentence: {holed}",
            f"What is missing here, in a text on {s}? {holed}",
            f"This is about {s}. Which figure belongs in the gap? {holed}",
            f"{holed} What does the gap stand for? The subject is {s}.",
            f"A sentence on {s} lacks its number. Say it. {holed}",
        ),
        (f"{about}: {sentence}",),
    )


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


# One function per shape. `s` is the subject as the text names it. --------------------------------


def _definition(s: str, m: _Groups) -> _Reading:
    be = m["be"]
    answer = _strip_article(m["a"])
    return _Reading(
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
    )


def _passive_year(s: str, m: _Groups) -> _Reading:
    be, verb, year = m["be"], m["v"], m["a"]
    return _Reading(
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
    )


def _passive_by(s: str, m: _Groups) -> _Reading:
    be, verb, answer = m["be"], m["v"], m["a"]
    return _Reading(
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
    )


def _attribute(s: str, m: _Groups) -> _Reading:
    noun, be, answer = m["n"].strip(), m["be"], _strip_article(m["a"])
    kind = _kind(answer)
    wh = "Who" if kind == "name" and _ROLE.search(noun) else "What"
    return _Reading(
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
    )


def _material(s: str, m: _Groups) -> _Reading:
    be, answer = m["be"], _strip_article(m["a"])
    return _Reading(
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
    )


def _count(s: str, m: _Groups) -> _Reading:
    verb, number, noun = m["v"], m["a"], m["n"].strip()
    do = "did" if verb in ("had", "held", "carried") else "does"
    base = {"has": "have", "had": "have", "contains": "contain", "holds": "hold", "held": "hold",
            "carries": "carry", "carried": "carry", "keeps": "keep", "employs": "employ"}[verb]  # fmt: skip
    return _Reading(
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
    )


def _measure(s: str, m: _Groups) -> _Reading:
    be, size, how = m["be"], m["a"], m["how"]
    return _Reading(
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
    )


def _place(s: str, m: _Groups) -> _Reading:
    verb, preposition, answer = m["v"] or "lies", m["p"], _strip_article(m["a"])
    past = verb in ("stood", "lay", "lived", "worked")
    do = "did" if past else "does"
    base = {"stood": "stand", "lay": "lie", "lived": "live", "worked": "work"}.get(verb)
    base = base or verb.removesuffix("s")
    where = "From where" if preposition == "from" else "Where"
    return _Reading(
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
    )


def _life_year(s: str, m: _Groups) -> _Reading:
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
    return _Reading(
        f"year {event}",
        "year",
        year,
        questions,
        (f"{_cap(s)} {event} in {year}.", f"In {year}, {s} {event}."),
    )


def _life_place(s: str, m: _Groups) -> _Reading:
    event, answer = m["e"], _strip_article(m["a"])
    born = event == "was born"
    do, verb = ("was", "born") if born else ("did", "die")
    return _Reading(
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
    )


def _active(s: str, m: _Groups) -> _Reading:
    verb, answer = m["v"], _strip_article(m["a"])
    participle = _IRREGULAR.get(verb, verb)
    wh = "Who" if verb in _LIVING_VERBS and _kind(answer) == "name" else "What"
    return _Reading(
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
    )


def _named_after(s: str, m: _Groups) -> _Reading:
    be, answer = m["be"], _strip_article(m["a"])
    wh = "Who" if _kind(answer) == "name" else "What"
    return _Reading(
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
    )


def _purpose(s: str, m: _Groups) -> _Reading:
    be, what, answer = m["be"], m["v"], _strip_article(m["a"])
    return _Reading(
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
    )


def _rule(pattern: str, build: Callable[[str, _Groups], _Reading]) -> _Rule:
    return re.compile(pattern), build


_BE = r"(?P<be>is|was|are|were)"
_PHRASE = r"(?:[\w’'-]+)(?: [\w’'-]+){0,5}"
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
        rf"(?: (?:in|of|for|from|at|on|as|with|after) .*)?",
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
    _rule(rf"'s (?P<n>[a-z]+(?: [a-z]+){{0,3}}) {_BE} (?P<a>{_PHRASE})", _attribute),
    _rule(
        rf"(?P<first>\u0001){_BE} (?P<det>an?|the) (?P<a>[\w’'-]+(?: [\w’'-]+){{0,3}}?)(?: (?:of|in|on|at|from|near|that|which|who|with|for|by|to|between|under|above|across|along|beside|made|built|written|used|located|situated|born|owned|based|founded|designed) .*|, (?:a|an|the|which|who|known|located|situated|composed|based|built|in|on|at|near|with) .*)?",
        _definition,
    ),
    _rule(rf"(?P<v>{PAST}) (?P<a>(?:(?:the|a|an|his|her|its) )?{_PHRASE})", _active),
)
