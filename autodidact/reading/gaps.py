"""Facts by gaps: a clear-cut answer inside a sentence that no shape of `statements` fits.

An answer is a year, date, century, decade, percentage, sum of money, number with its noun, quoted
term, or capitalised name of at most six words. Its question is the sentence itself: with a
wh-phrase where the answer stood ("Tesla emigrated to the United States in which year?"), with a
gap, turned round ("In which year was it that …?"), or cut down to its telling words in order. The
subject of the document is always named.

There is no parser, so a span is taken only where the words beside it say what it is: a name
between a preposition and a comma, a number before a plural. A sentence that leans on one before it
("This was …", "he", unless that is the subject), lists names, or has too few telling words gives
nothing. What a name names is said only if it tells so itself ("River", a country, a given name);
else the question asks "whom or what". A first name in the list may mislead: Virginia is a state.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from autodidact.reading.names import (
    CONTINENTS,
    COUNTRIES,
    GIVEN_NAMES,
    HEADS,
    HONORIFICS,
    NO_NAMES,
)
from autodidact.reading.statements import NUMBER, PAST, YEAR, Topic, told
from autodidact.types.documents import Chunk, Fact


def _listed(text: str) -> list[str]:
    return text.split()


PER_SENTENCE = 2
PER_CHUNK = 10
MIN_WORDS, MAX_WORDS = 8, 38
MIN_TELLING, MAX_TELLING = 3, 10
MAX_ANSWER_WORDS = 6

_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_START_LEANS = re.compile(
    r"(?:This|These|That|Those|Such|It|Its|They|Their|He|His|She|Her|Both|Another|Other|Others|Here"
    r"|Some|Each|Neither|Either|One|Two|Three|We|I|You|Our|My|Also|Then|Thus|Therefore|Hence|So"
    r"|But|And|Or|Yet|Instead|Meanwhile|Similarly|Later|First|Second|Third|Fourth|Finally"
    r"|Afterwards?|Subsequently|Likewise|Conversely|Consequently|Additionally|If|Not|What|Which"
    r"|The (?:previous|next|new|other|second|third|final|opening|following"
    r"|remaining|rest)|There [A-Z]"
    r"|By contrast|In comparison|Unlike"
    r"|Who|In (?:this|that|addition|contrast|turn|fact|response)"
    r"|As a result|At (?:this|that|the) time|On the other)\b"
)
_CONNECTIVE = re.compile(
    r"(?:However|Moreover|Furthermore|Nevertheless|Nonetheless|Additionally|In addition|In fact"
    r"|Therefore|Thus|Hence|Consequently|For example|For instance|Today|Indeed|Also), "
)
_LEANING = re.compile(
    r"\b(?:the (?:former|latter|same|above|following|other)|this|these|those|such|aforementioned"
    r"|[Tt]hat same|that (?:year|time|day|month|date|period|century)|there|here|we|our|I|you)\b"
)
_PRONOUN = re.compile(r"\b(?:he|him|his|she|her|hers|it|its|they|them|their|theirs)\b")
_CAPITAL = r"(?:[A-Z]\.(?:[A-Z]\.)*|[A-Z][\w’'-]*\w)"
_NAME = re.compile(
    rf"(?<![\w.’'-]){_CAPITAL}(?: (?:of (?:the )?|de (?:la )?|von |van |der |del |al-)?{_CAPITAL})*"
)
_FUNCTION = _listed(
    """
    and or but in on at of to by with for from as into over under after before during through
    against every each once between among near since until when while where which who whose
    whom that than
    because although though if was were is are had has have did do does would could will can
    may might must should became become becomes began begins came went made took gave got left
    ran led won lost held kept met sent wrote said says found built fell grew rose saw knew
    not also then there only both either about around within without toward towards across
    along so still never later again he she it they
    """
)
_AFTER_NAME = re.compile(
    rf"(?:$|[,;]? ?(?:{'|'.join(_FUNCTION)})\b|[,;] (?!(?:and |or )?[A-Z“\"])| [a-z]+ed\b"
    r"|(?P<s>['’]s) )"
)
_PREPOSITIONS = (
    "in|on|at|of|to|by|with|for|from|into|over|under|after|before|during|through|against|near|since"
    "|until|than|toward|towards|across|along|around|behind|beyond|via|outside|inside|within"
    "|throughout|onto|upon|called|named"
)
_BEFORE_OBJECT = re.compile(
    rf"\b(?P<p>{_PREPOSITIONS}|{PAST}|became|joined) (?P<the>the |The )?$", re.I
)
_BEFORE_SUBJECT = re.compile(
    r"(?:^|\b(?:that|when|where|while|because|although|but)) (?P<the>the )?$"
)
_BEFORE_TIME = re.compile(
    r"\b(?P<p>in|since|until|till|by|from|after|before|around|during|circa|on) $", re.I
)
_FRONTS = frozenset(
    _listed(
        "in on at by with to for from during since near against under after before into through"
    )
)
_PLACE_PREPOSITIONS = frozenset(_listed("in at near from into across throughout outside within"))
_APPROXIMATE = re.compile(
    r"\b(?:about|nearly|almost|some|approximately|roughly|around|exactly) $", re.I
)
_AFTER_NUMBER = re.compile(
    r" (?P<n>(?:[a-z-]+ ){0,2}?"
    r"(?:[a-z-]{2,}(?<!s)s|people|men|women|children|feet|sheep|cattle|fish|percent|km|kilometres))\b"
    r"(?! ?['’])"
)
_NOT_BEFORE_NUMBER = re.compile(
    r"(?:\b(?:the|these|those|his|her|its|their|all|any|first|last|next|other|and|or|to|between|from"
    r"|a|an|every|no|number|age|aged|[Aa]rticle|[Cc]hapter|[Ss]ection"
    r"|page|part|level|type|group"
    r"|stage|phase|class|grade|figure|table|route|highway|channel|week|day|round|top|between)"
    r"|[A-Z][\w’'.-]*|\d|[-–—/$£€:,±]) ?$"
)
_NOT_BEFORE_SHARE = re.compile(
    r"\b(?:a|an|the|another|its|their|his|her|and|or|[a-z]+ing|[a-z]+al|estimated|extra) $", re.I
)
_TERM = re.compile(
    r"\b(?:called|termed|named|dubbed|titled|entitled|nicknamed|term|word|phrase|slogan|motto"
    r"|meaning|means|known as|referred to as|described as)(?: (?:the|a|an))? $"
)
_OTHER_STOPS = _listed(
    """
    the a an be been being his her its their this these those more most many much some such
    other all one first used well very him them out up having per any no each
    """
)
_STOP = frozenset([*_FUNCTION, *_OTHER_STOPS])


@dataclass(frozen=True)
class _Span:
    """Where an answer stands, and the words that ask for it.

    `start` and `end` enclose what the question replaces, which may be more than the answer (an
    article, an "about"). `wh` asks in place, `some` stands for it in a statement, `noun` is what
    it is called. `fronted` is the wh-phrase with its preposition, to begin a question with, and
    `front` is where the replaced phrase begins then; "" if that would not be English. `short` asks
    in front of the telling words, where `wh` would not say of what.
    """

    start: int
    end: int
    answer: str
    kind: str
    wh: str
    some: str
    noun: str
    fronted: str = ""
    front: int = -1
    short: str = ""


def read(chunk: Chunk, about: Topic, taken: Collection[str] = ()) -> list[Fact]:
    """The gap facts of a chunk, in order of the text: at most two of a sentence, ten of a chunk.

    `taken` holds the sentences, as they stand, that need none. Deterministic.
    """
    made: list[list[Fact]] = []
    for plain, sentence in _sentences(chunk, about, taken):
        spans = _choose(sentence, about)
        made.append([_fact(chunk, about, plain, sentence, span) for span in spans])
    firsts = [(i, 0) for i, facts in enumerate(made) if facts]
    seconds = [(i, 1) for i, facts in enumerate(made) if len(facts) > 1]
    return [made[i][n] for i, n in sorted([*firsts, *seconds][:PER_CHUNK])]


def _sentences(chunk: Chunk, about: Topic, taken: Collection[str]) -> Iterator[tuple[str, str]]:
    """(the sentence without brackets, the same with its subject named and without its stop)."""
    for told_sentence in told(about, chunk):
        plain, full = told_sentence.plain, told_sentence.full.rstrip(".")
        if told_sentence.raw in taken or not told_sentence.raw.endswith((".", ".”", '."', ")")):
            continue
        if re.match(r"(?:It|He|She|They|Its|His|Her|Their) ", plain):
            if not full:
                continue
            sentence = re.sub(rf"^({re.escape(about.name)})(?=')", r"\1", full, flags=re.I)
        else:
            sentence = plain
        sentence = _upper(_CONNECTIVE.sub("", sentence))
        sentence = sentence.replace("“", '"').replace("”", '"')
        words = len(sentence.split())
        if (
            MIN_WORDS <= words <= MAX_WORDS
            and not _START_LEANS.match(sentence)
            and re.match(r"[A-Z]", sentence)
            and not re.search(r"[()\[\]{}:;=|?!…]| [-–—] |\n|\.\.", sentence)
            and not re.search(r"[a-z]{3}\.['\")]? ", sentence)  # a stop that ended a sentence
            and sentence.count('"') % 2 == 0
            and not _leans(sentence, about, bool(full))
        ):
            yield plain, sentence


def _leans(sentence: str, about: Topic, near: bool) -> bool:
    """Whether a word stands for something that the sentence does not name."""
    if _LEANING.search(sentence):
        return True
    pronoun = _PRONOUN.search(sentence)
    if not pronoun:
        return False
    before = sentence[: pronoun.start()]
    if about.pronoun in ("He", "She") and pronoun[0] in (
        ("he", "him", "his") if about.pronoun == "He" else ("she", "her", "hers")
    ):
        others = {match[0] for match in _NAME.finditer(before[1:])}
        return not near and bool(others)
    if pronoun[0] in ("him", "them"):
        return not _NAME.search(before[1:])
    if pronoun[0] in ("he", "his", "she", "her", "hers"):
        return not _NAME.search(before[1:]) and not re.match(
            r"[A-Z]\w+ (?:[A-Z]|\w+ed\b|was)", before
        )
    # "it" and "they" mostly stand for a noun of their own sentence, if one goes before them.
    return len(before.split()) < 4


def _choose(sentence: str, about: Topic) -> list[_Span]:
    """At most two answers of a sentence, of different kinds where there are."""
    found = [
        span
        for finder in (_times, _numbers, _terms, _names)
        for span in finder(sentence, about)
        if _clear(sentence, span, about)
    ]
    chosen: list[_Span] = []
    for span in found:
        if len(chosen) < PER_SENTENCE and all(
            span.kind != other.kind and (span.end <= other.start or span.start >= other.end)
            for other in chosen
        ):
            chosen.append(span)
    return chosen


def _clear(sentence: str, span: _Span, about: Topic) -> bool:
    rest = f"{sentence[: span.start]} {sentence[span.end :]}"
    telling = _telling(rest, about)
    answer = span.answer.lower()
    bare = about.name.removeprefix("the ").lower()
    return (
        1 <= len(answer.split()) <= MAX_ANSWER_WORDS
        and answer not in rest.lower()
        and answer not in bare
        and bare not in answer
        and not (about.alias and about.alias in span.answer)
        and len(telling) >= MIN_TELLING
        and (len(telling) >= 5 or any(re.match(r"[A-Z\d]", word) for word in telling[1:]))
    )


# Finding ------------------------------------------------------------------------------------------


def _times(sentence: str, about: Topic) -> Iterator[_Span]:
    for match in re.finditer(
        rf"(?<![\w-])(?:(?P<date>\d{{1,2}} {_MONTH}(?: {YEAR})?|{_MONTH} \d{{1,2}}(?:, {YEAR})?)"
        rf"|(?P<month>{_MONTH} {YEAR})|(?P<century>\d{{1,2}}(?:st|nd|rd|th) century)"
        rf"|(?P<decade>(?:1\d|20)\d0s)|(?P<year>{YEAR}))(?![\w–-]| BC| AD)",
        sentence,
    ):
        kind = next(k for k in ("date", "month", "century", "decade", "year") if match[k])
        answer = match[kind]
        noun = {"month": "month of which year"}.get(kind, kind)
        before = sentence[: match.start()]
        after = sentence[match.start() + len(answer) :]
        article = kind in ("century", "decade")
        if article:
            if not before.endswith("the "):
                continue
            before = before[:-4]
        time = _BEFORE_TIME.search(before)
        if not time or not re.match(
            rf"$|,| [a-z]+\b|(?: (?:the|The)\b)|(?: {_CAPITAL} [a-z])", after
        ):
            continue
        if re.match(r"(?:,| (?:and|or|to)) (?:\w+ )?\d|–", after) or re.search(
            r"\d[^,]{0,12}$", before
        ):
            continue
        if kind in ("year", "decade", "century") and re.match(
            r" (?!(?:"
            + "|".join(_FUNCTION)
            + r"|[a-z]+ed|the|a|an|his|its|their|[a-z]+ly)\b)[a-z]",
            after,
        ):
            continue
        some = "a certain month of a certain year" if kind == "month" else f"a certain {kind}"
        preposition = time["p"].lower()
        yield _Span(
            len(before),
            match.start() + len(answer),
            answer,
            kind,
            f"which {noun}",
            some,
            "month and year" if kind == "month" else kind,
            f"{preposition} which {noun}" if preposition in _FRONTS and preposition != "to" else "",
            time.start(),
        )


def _numbers(sentence: str, about: Topic) -> Iterator[_Span]:
    for match in re.finditer(
        rf"(?<![\w.,$£€–/-])(?P<m>(?:US)?[$£€])?(?P<n>{NUMBER})"
        r"(?P<b> (?:million|billion|trillion))?"
        r"(?P<p>%| ?percent| per cent)?(?![\w%/–-]|[.,]\d)",
        sentence,
    ):
        before, after = sentence[: match.start()], sentence[match.end() :]
        whole = match[0]
        if re.search(rf"(?<!\w){NUMBER}(?: \w+)? ?(?:to|and|or|–|,)? ?$", before) or re.match(
            r"(?: \w+)? (?:to|or|and) \d", after
        ):
            continue
        approximate = _APPROXIMATE.search(before)
        start = approximate.start() if approximate else match.start()
        before = sentence[:start]
        ends = re.match(r"$|,| (?:" + "|".join(_FUNCTION) + r"|a year|per)\b", after)
        if match["p"] or match["m"]:
            joined = re.match(r",? (?:and|or|to) ?[$£€\d]", after)
            if not ends or joined or _NOT_BEFORE_SHARE.search(before):
                continue
            kind, wh = (
                ("percentage", "what percentage") if match["p"] else ("sum", "how much money")
            )
            yield _Span(start, match.end(), whole, kind, wh, f"a certain {kind}", kind)
            continue
        year = re.fullmatch(YEAR, whole) and re.search(r"\b(?:in|since|by|of|until) $", before)
        if (
            year
            or whole.lower() in ("one", "two", "hundred", "thousand")
            or _NOT_BEFORE_NUMBER.search(before)
        ):
            continue
        noun = _AFTER_NUMBER.match(after)
        first = noun["n"].split()[0] if noun else ""
        if noun and not set(noun["n"].split()) & set(_FUNCTION) and not first.endswith("ly"):
            front = "how many" if not before else ""
            some = "a certain number of" if before else "A certain number of"
            wh = front.capitalize() or "how many"
            yield _Span(start, match.end(), whole, "number", wh, some, "number",
                        short=f"how many {noun['n']}")  # fmt: skip


def _terms(sentence: str, about: Topic) -> Iterator[_Span]:
    for match in re.finditer(r'"([^"]{3,60}?)[,.]?"', sentence):
        lead = _TERM.search(sentence[: match.start()])
        after = sentence[match.end() :]
        if lead and not re.match(r" (?:and|or|[\"A-Z])", after):
            start = match.start() - len(re.search(r"(?:(?:the|a|an) )?$", lead[0])[0])  # type: ignore[index]
            yield _Span(start, match.end(), match[1], "term", "what", "a certain term", "term")


def _names(sentence: str, about: Topic) -> Iterator[_Span]:
    for match in _NAME.finditer(sentence):
        start, end = match.span()
        answer = re.sub(r"['’]s$", "", match[0])
        end = start + len(answer)
        before, after = sentence[:start], sentence[end:]
        nexts = _AFTER_NAME.match(after)
        if not nexts or _no_name(answer):
            continue
        if re.match(r",? (?:and|or|&) (?:the )?[A-Z]|, [A-Z]| (?:on|for|at) (?:the )?[A-Z]", after):
            continue
        if re.search(r"[A-Z][\w’'.-]*(?:,| and| or|, and|, or)(?: the)? $", before):
            continue
        opening = before in ("", "The ")
        if (opening and re.match(r"(?: and| or|, wh\w+)\b", after)) or re.search(
            r"[A-Z]\w+ (?:on|for|at|of|to) (?:the )?$", before
        ):
            continue
        if opening and not before and not (" " in answer and answer.split()[0] not in NO_NAMES):
            continue
        subject = _BEFORE_SUBJECT.search(before) if not opening else None
        place = _BEFORE_OBJECT.search(before)
        if not (opening or subject or place):
            continue
        article = 4 if before.lower().endswith("the ") else 0
        preposition = place["p"].lower() if place and not opening else ""
        yield _named(answer, start - article, end, opening, bool(opening or subject), preposition,
                     place.start() if place else -1, bool(nexts["s"]))  # fmt: skip


def _no_name(answer: str) -> bool:
    words = answer.split()
    return (
        words[0] in NO_NAMES
        or (len(words) == 1 and words[0] in HONORIFICS)
        or bool(re.search(rf"\b{_MONTH}\b|^[IVXLC]+$|^\w$|\.$|[a-z]['’]", answer))
        or (
            len(words) == 1
            and answer not in COUNTRIES
            and bool(re.search(r"(?:an|ish|ese|ic|ism|ist|ians?|ists?)$|^.{1,2}$", answer))
        )
    )


def _named(
    answer: str,
    start: int,
    end: int,
    opening: bool,
    subject: bool,
    preposition: str,
    front: int,
    possessive: bool,
) -> _Span:
    """A name with the wh-word for what it names and for where it stands."""
    noun = _what(answer)
    verb = preposition not in _PREPOSITIONS.split("|")
    if noun == "person":
        wh, some = ("who" if subject else "whom"), "someone"
        if possessive:
            wh = "which person"
    elif noun:
        wh, some = f"which {noun}", f"a certain {noun}"
    elif preposition in _PLACE_PREPOSITIONS:
        wh, some = "what place or thing", "a certain place or thing"
    elif possessive:
        wh, some = "which person or thing", "a certain person or thing"
    else:
        wh, some = ("who or what" if subject else "whom or what"), "someone or something"
    kind = noun if noun in ("person", "country") else "name"
    if opening:
        fronted = "" if possessive else wh
        return _Span(
            start, end, answer, kind, _upper(wh), _upper(some), noun or "name", fronted, start
        )
    fits = preposition == "by" and not verb and not possessive
    return _Span(start, end, answer, kind, wh, some, noun or "name",
                 f"{preposition} {wh}" if fits else "", front if fits else -1)  # fmt: skip


def _what(answer: str) -> str:
    """The common noun for what a name names, as far as the name tells; else ""."""
    words = answer.split()
    if answer in CONTINENTS:
        return "continent"
    if answer in COUNTRIES:
        return "country"
    head = re.split(r" (?:of|de|for) ", answer)[0].split()[-1].lower()
    if head in HEADS and len(words) > 1:
        return head
    if words[0] in ("Lake", "Mount", "River", "Fort", "Cape") and len(words) > 1:
        return {"Mount": "mountain"}.get(words[0], words[0].lower())
    if (
        len(words) > 1
        and (words[0] in GIVEN_NAMES or words[0] in HONORIFICS)
        and " of " not in answer
    ):
        return "person"
    return ""


# Asking -------------------------------------------------------------------------------------------


def _fact(chunk: Chunk, about: Topic, plain: str, sentence: str, span: _Span) -> Fact:
    s, cap = about.name, _upper(about.name)
    before, after = sentence[: span.start], sentence[span.end :]
    gap_start = sentence.index(span.answer, span.start)
    holed = f"{sentence[:gap_start]}____{sentence[gap_start + len(span.answer) :]}."
    inside = f"{before}{span.wh}{after}"
    turned = _turned(sentence, span)
    if re.match(r"(?:In|On|By|Since|During|After|Before|From|At) $", before) and turned:
        inside = turned
        simple = not re.search(r"\d| (?:and|but|when|which|who) ", after)
        short = simple and len(sentence.split()) <= 16
        again = f"{_upper(_clean(after))} {span.fronted}" if short else turned
    else:
        again = turned or inside
    telling = ", ".join(_telling(f"{before} {after}", about, len(before)))
    some = f"{before}{span.some}{after}"
    called = "it" if span.noun == "name" else f"that {span.noun}"
    return Fact(
        chunk.id,
        s,
        f"span {holed}",
        span.kind,
        span.answer,
        f"{sentence}.",
        (
            f"About {s}: {inside}?",
            f"{cap}. Fill in the blank: {holed}",
            f"{cap}, {_lower_first(span.short or span.wh)}: {telling}?",
            f"What is missing here, in a text on {s}? {holed}",
            f"This is about {s}. {again}?",
            f"{holed} What does the gap stand for? The subject is {s}.",
        ),
        (f"{cap}: {sentence}.", f"{cap}, {telling}: {span.answer}."),
        f"{_upper(some)}. Name {called}; the topic is {s}.",
    )


def _turned(sentence: str, span: _Span) -> str:
    """The question with its wh-phrase in front: "In which year was it that …", or ""."""
    if not span.fronted or re.search(
        r"\b(?:which|who|whom|whose|that|where|when|while|until|since|from|after)\b|,.*,",
        sentence[: span.start],
    ):
        return ""
    if span.start == 0 and sentence[span.end : span.end + 1] != " ":
        return ""
    before, after = sentence[: span.front], sentence[span.end :]
    rest = _clean(f"{_small(before)}{after}")
    return f"{_upper(span.fronted)} was it that {rest}"


def _clean(text: str) -> str:
    return re.sub(r" +,", ",", re.sub(r"\s+", " ", text)).strip(" ,")


def _small(text: str) -> str:
    """A sentence's beginning as it stands after "that": a word that is no name in lower case."""
    first = text.split(" ", 1)[0].rstrip(",").lower()
    plain = first in _STOP or first in ("early", "several", "although", "despite", "according")
    return text[:1].lower() + text[1:] if plain else text


def _telling(text: str, about: Topic, near: int = 0) -> list[str]:
    """The words that tell a sentence from others, names in one piece, in order: at most ten, those
    nearest to the character `near`."""
    own = {*about.name.lower().split()}
    found: dict[str, int] = {}
    for match in re.finditer(rf"{_NAME.pattern}|[\w’'-]+", text):
        word = re.sub(r"['’]s$", "", match[0])
        plain = word.lower()
        if (
            plain in _STOP
            or (len(plain) < 3 and not word[:1].isupper())
            or set(plain.split()) <= own
            or word in found
        ):
            continue
        if plain in ("which", "certain") or (match.start() == 0 and plain in _STOP):
            continue
        found[word] = abs(match.start() - near)
    nearest = set(sorted(found, key=found.__getitem__)[:MAX_TELLING])
    return [word for word in found if word in nearest]


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
