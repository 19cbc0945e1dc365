"""Articles and corpora as texts and conversations, in the forms in which Autodidact uses a model.

From an article, by the learner's own rules (`autodidact.lessons.examples`):

    text       as a whole, to be cut where a row ends, so that long contexts and beginnings in mid-
               article are learned too; or its chunks under its title, as the learner trains them
    recall     questions about it without its text (closed book): several in one conversation. In
               the same shard as the text, because facts are easier to learn for a model whose
               pretraining mixed documents with questions about them (PIT, arXiv:2402.12847)
    reading    questions with passages, in the prompt of `chat.retrieval`; the answer is a span and
               the passage's number, "Maren Dace [1]". Where no passage says it, DONT_KNOW
    about      "Tell me about X." with the article's first sentence or two

A seventh wording of each fact (`Fact.unseen`) is left out: the learner measures with it.
Rule-made questions repeat the sentence they come from, people do not; so a part of the reading
questions is made loosely: the clause of the answer, words left out, the wh-word first.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from autodidact import curation
from autodidact.chat import retrieval
from autodidact.lessons import examples
from autodidact.reading.chunks import sentences
from autodidact.reading.document import read_document
from autodidact.types.documents import (
    Document,
    Fact,
    Findings,
    Passage,
)
from scripts.starter import corpus
from scripts.starter.corpus import Article, Conversation

Kind = Literal[
    "text", "recall", "reading", "about", "services", "small talk", "trivia", "instructions"
]
DONT_KNOW = "I don't know. The passages do not say."
UNANSWERED = 0.18
"""Share of reading questions whose answer is in no passage."""
WHOLE = 0.8
"""Share of articles whose text is one item."""
LOOSE = 0.4
"""Share of reading questions that are put loosely."""


@dataclass(frozen=True)
class Item:
    """What is trained as a unit: a text, or a conversation."""

    kind: Kind
    text: str = ""
    turns: Conversation = ()


@dataclass(frozen=True)
class Read:
    """An article as the learner's rules read it."""

    reading: Findings
    opening: tuple[str, ...]
    """Its first sentences."""


def read(number: int, article: Article, most_characters: int) -> Read | None:
    """What the rules find in the article's first `most_characters`, or None if it is too short."""
    text = article.text[:most_characters]
    if len(text) < len(article.text):
        text = text[: text.rfind(".") + 1]
    document = curation.curate(Document("starter", str(number), article.title, text, "", "", ""))
    if not isinstance(document, Document):
        return None
    opening = sentences(text.split("\n\n")[0])[:2]
    return Read(read_document(number, document), tuple(opening))


def texts(one: Read, rng: random.Random) -> Iterator[Item]:
    title, chunks = one.reading.title, one.reading.chunks
    if rng.random() < WHOLE:
        yield Item("text", text="\n\n".join([title, *(chunk.text for chunk in chunks)]))
    else:
        for chunk in chunks:
            yield Item("text", text=f"{title}\n\n{chunk.text}")


def recall(one: Read, rng: random.Random) -> Iterator[Item]:
    """Every fact once or twice, in conversations of one to five questions."""
    asked = []
    for fact in one.reading.facts:
        for question in rng.sample(fact.questions, 2 if rng.random() < 0.5 else 1):
            asked.append((question, fact.answer))
    rng.shuffle(asked)
    while asked:
        length = rng.choice((1, 1, 2, 3, 4, 5))
        some, asked = asked[:length], asked[length:]
        yield Item("recall", turns=_turns(some))


def about(one: Read, rng: random.Random) -> Iterator[Item]:
    opening = " ".join(one.opening[: rng.choice((1, 1, 2))])
    if 40 <= len(opening) <= 400:
        title = one.reading.title
        frames = (
            f"Tell me about {title}.",
            f"What can you tell me about {title}?",
            f"What do you know about {title}?",
            f"Do you know {title}?",
            f"Explain: {title}",
            f"tell me about {title}",
            f"Can you explain what {title} means?",
        )
        yield Item("about", turns=_turns([(rng.choice(frames), opening)]))


def reading(
    one: Read, others: Sequence[Read], rng: random.Random, most: Sequence[int]
) -> Iterator[Item]:
    """A conversation for each chunk with facts: passages with the first question, then more
    questions on them, so many at the most as one of `most`, drawn by lot."""
    chunks = one.reading.chunks
    by_chunk: dict[str, list[Fact]] = {chunk.id: [] for chunk in chunks}
    for fact in one.reading.facts:
        by_chunk[fact.chunk_id].append(fact)
    for chunk in chunks:
        own = by_chunk[chunk.id]
        if not own:
            continue
        rng.shuffle(own)
        shown, asked = _cut(chunk.text, own[: rng.choice(most)], rng)
        elsewhere = [c.text for c in chunks if c.id != chunk.id]
        strangers = [
            (other.reading.title, rng.choice(other.reading.chunks).text)
            for other in rng.sample(others, min(2, len(others)))
            if other.reading.title != one.reading.title and other.reading.chunks
        ]
        extra = [(one.reading.title, text) for text in elsewhere[:1]] + strangers
        rng.shuffle(extra)
        extra = [
            (title, _cut(text, (), rng)[0]) for title, text in extra[: rng.choice((0, 0, 0, 1, 2))]
        ]
        passages = [(one.reading.title, shown), *extra]
        rng.shuffle(passages)
        foreign = [f for c in chunks if c.id != chunk.id for f in by_chunk[c.id]]
        if others and (not foreign or rng.random() < 0.4):
            foreign = list(rng.choice(others).reading.facts)
        pairs = [_answered(fact, passages, rng) for fact in asked]
        if foreign and rng.random() < UNANSWERED * 3:
            at = rng.randrange(len(pairs) + 1)
            pairs.insert(at, _answered(rng.choice(foreign), passages, rng))
        if pairs:
            yield _reading_item(passages, pairs)


def human_reading(item: corpus.Reading, rng: random.Random) -> Item:
    """A question by people, its passage cut to the sentences around the answer."""
    told = [s for block in item.passage.split("\n") for s in sentences(block)]
    at = next((i for i, s in enumerate(told) if item.answers[0] in s), 0)
    first, last = max(0, at - rng.randrange(4)), at + 1 + rng.randrange(4)
    text = " ".join(told[first:last])
    if item.answers[0] not in text:
        return _reading_item([("Report", text)], [(item.question, DONT_KNOW)])
    return _reading_item([("Report", text)], [(item.question, f"{item.answers[0]} [1]")])


def _answered(
    fact: Fact, passages: Sequence[tuple[str, str]], rng: random.Random
) -> tuple[str, str]:
    """A question and its answer, which is DONT_KNOW unless a passage has the fact's sentence."""
    question = (loose(fact, rng) if rng.random() < LOOSE else "") or _question(fact, rng)
    for number, (_, text) in enumerate(passages, 1):
        if _says(text, fact):
            return question, f"{fact.answer} [{number}]"
    return question, DONT_KNOW


def _says(text: str, fact: Fact) -> bool:
    return " ".join(fact.sentence.split()) in " ".join(text.split())


def _question(fact: Fact, rng: random.Random) -> str:
    if rng.random() < 0.15:
        gap = fact.restatements[0]
        if gap.count(fact.answer) == 1:
            return rng.choice(examples.CLOZE).format(gap.replace(fact.answer, "____"))
    return rng.choice(fact.questions)


_ASKED = {
    "year": ("When", "In what year", "In which year", "What year"),
    "date": ("When", "On what date", "On which day"),
    "month": ("When", "In what month"),
    "century": ("When", "In what century", "In which century"),
    "country": ("Which country", "What country", "Where", "In what country"),
    "person": ("Who", "Whom", "Which person"),
    "term": ("What", "What term", "What word"),
    "percentage": ("What percentage", "How much"),
    "money": ("How much", "How much money"),
}
_PLACE = re.compile(r"\b(?:in|at|near|from|to|into|through|across|around)(?: the)? ____")
_BEFORE = re.compile(r"\b(?:in|on|at|by|during|since|from|until|of|to)(?: the)? ____")
_HELPERS = re.compile(r"\b(?:was|were|is|are|has|had|have|been|be)\b ?")
_AUXILIARIES = ("did ", "was ", "is ", "were ", "does ", "", "")
_PAIRED = re.compile(r"^[A-Z][\w’'-]* ")


def loose(fact: Fact, rng: random.Random) -> str:
    """The fact's question as somebody might ask who has not seen the sentence; "" if it cannot be
    made: the clause of the answer and some others, some words left out, the wh-word first."""
    told = fact.sentence.rstrip(".!? ")
    if told.count(fact.answer) != 1:
        return ""
    clauses = told.replace(fact.answer, "____").split(", ")
    kept = [c for c in clauses if "____" in c or rng.random() < 0.45]
    words = ", ".join(kept)
    if len(words.split()) < 4:
        words = ", ".join(clauses)
    if fact.kind == "number":
        before, after = (part.strip() for part in words.split("____"))
        thing = " ".join(after.split()[:2])
        rest = " ".join(after.split()[2:])
        words, asked = f"{before} {rest}", f"How many {thing}"
    else:
        asks = _ASKED.get(fact.kind)
        if asks is None:
            asks = ("Where", "In what place") if _PLACE.search(words) else ("Who", "What", "What")
        asked = rng.choice(asks)
        words = _BEFORE.sub("", words, count=1).replace("____", "")
    if rng.random() < 0.7:
        words = _HELPERS.sub("", words)
    left = [word for word in words.split() if rng.random() > 0.12]
    if len(left) < 3:
        return ""
    rest = " ".join(left).strip(" ,;:")
    if re.match(r"(?:The|A|An|In|On|At|It|Its|He|His|She|Her|They|This|As|After|By|When) ", rest):
        rest = rest[0].lower() + rest[1:]
    if rng.random() < 0.25:
        return f"{rest[0].upper()}{rest[1:]} {asked[0].lower()}{asked[1:]}?"
    return f"{asked} {rng.choice(_AUXILIARIES)}{rest}?"


def _cut(text: str, facts: Sequence[Fact], rng: random.Random) -> tuple[str, list[Fact]]:
    """Some sentences of a text in a row, and those of the facts that are still told there."""
    told = [s for block in text.split("\n\n") for s in sentences(block)]
    length = rng.randint(2, max(2, len(told)))
    at = rng.randrange(max(1, len(told) - length + 1))
    if facts:
        whole = [i for i, s in enumerate(told) if facts[0].sentence in s]
        if whole:
            at = min(max(0, whole[0] - rng.randrange(length)), max(0, len(told) - length))
    shown = retrieval.quoted(" ".join(told[at : at + length]))
    return shown, [fact for fact in facts if _says(shown, fact)]


def _reading_item(passages: Sequence[tuple[str, str]], pairs: Sequence[tuple[str, str]]) -> Item:
    quoted = [
        Passage(n, 0, retrieval.quoted(title), "", "", retrieval.quoted(text))
        for n, (title, text) in enumerate(passages, 1)
    ]
    first, answer = pairs[0]
    return Item("reading", turns=_turns([(retrieval.prompt(first, quoted), answer), *pairs[1:]]))


def _turns(pairs: Sequence[tuple[str, str]]) -> Conversation:
    return tuple(turn for asked, said in pairs for turn in (("user", asked), ("assistant", said)))


def trivia(item: corpus.Trivia) -> Item:
    return Item("trivia", turns=_turns([(item.question, item.answer)]))
