"""What a starter is trained on, read from a data folder, and what is kept out of it.

The folder holds, as JSON lines (xz) unless said otherwise:

    wikipedia/pretraining.jsonl.xz     {title, text}: articles
    dialogue/sgd.jsonl.xz              {turns: [[USER | SYSTEM, text], …]}
    dialogue/chatterbot/english/*.yml  {conversations: [[said, replied, …], …]}
    qa/opentriviaqa.jsonl.xz           {question, answer, choices}
    qa/self_instruct/*.jsonl           {instruction, instances: [{input, output}]}
    finance/tatqa.jsonl.xz             {question, answer, answer_type, answer_from, text}

Only the articles are required; what is absent is left out and said. Never read for training: the
folders `squad`, `wikitext2` and the unseen articles. Their titles are read, so that an article that
found its way into the pretraining file by mistake is dropped. Of the trivia questions the
`HELD_TRIVIA` with the smallest SHA-256 are kept out, and every other one with the same words.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from autodidact.curation import normalise
from autodidact.errors import AutodidactError

HELD_TRIVIA = 2000
ARTICLES = Path("wikipedia", "pretraining.jsonl.xz")
TATQA = ("question", "answer", "answer_type", "answer_from", "text")
_WIKITEXT_TITLE = re.compile(r"^ = ([^=].*?) = $", re.MULTILINE)
Conversation = tuple[tuple[str, str], ...]
"""(role, text) in order; roles are user and assistant."""


class CorpusError(AutodidactError):
    """The data folder cannot be used: what, where, and what to do."""


@dataclass(frozen=True)
class Article:
    title: str
    text: str


@dataclass(frozen=True)
class Trivia:
    question: str
    answer: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """A question that people wrote about a passage; the answer stands in the passage."""

    title: str
    passage: str
    question: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """One corpus, for the model card."""

    name: str
    what: str
    licence: str
    items: int


@dataclass(frozen=True)
class Corpus:
    articles: tuple[Article, ...]
    services: tuple[Conversation, ...]
    small_talk: tuple[Conversation, ...]
    trivia: tuple[Trivia, ...]
    instructions: tuple[Conversation, ...]
    readings: tuple[Reading, ...]
    sources: tuple[Source, ...]
    dropped: tuple[str, ...]
    """Titles of articles that were kept out because they are held-out material."""


def load(folder: Path) -> Corpus:
    """Everything that may be trained on. Raises CorpusError where there are no articles or a file
    is damaged."""
    held = held_titles(folder)
    every = [
        Article(" ".join(normalise.normalise(row["title"]).split()), _paragraphs(row["text"]))
        for row in _rows(
            folder / "wikipedia" / "pretraining.jsonl.xz", "title", "text", required=True
        )
    ]
    articles = tuple(article for article in every if article.title.casefold() not in held)
    services = tuple(
        tuple(
            ("user" if who == "USER" else "assistant", text.strip()) for who, text in row["turns"]
        )
        for row in _rows(folder / "dialogue" / "sgd.jsonl.xz", "turns")
    )
    small_talk = tuple(_chatterbot(folder / "dialogue" / "chatterbot" / "english"))
    trivia = training_trivia(read_trivia(folder))
    instructions = tuple(
        conversation
        for path in sorted((folder / "qa" / "self_instruct").glob("*.jsonl"))
        for row in _rows(path, "instruction", "instances")
        for conversation in _instructions(row)
    )
    readings = tuple(
        Reading("", row["text"], row["question"].strip(), (row["answer"].strip(),))
        for row in _rows(folder / "finance" / "tatqa.jsonl.xz", *TATQA)
        if row["answer_type"] == "span"
        and row["answer_from"] == "text"
        and row["answer"].strip() in row["text"]
    )
    sources = (
        Source("English Wikipedia, 2015", "articles on core topics", "CC BY-SA 3.0", len(articles)),
        Source("Schema-Guided Dialogue", "service dialogues", "CC BY-SA 4.0", len(services)),
        Source("ChatterBot corpus", "exchanges of small talk", "BSD-3-Clause", len(small_talk)),
        Source("OpenTriviaQA", "trivia questions", "CC BY-SA 4.0", len(trivia)),
        Source("Self-Instruct", "instructions", "Apache-2.0", len(instructions)),
        Source("TAT-QA", "questions on passages of financial reports", "CC BY 4.0", len(readings)),
    )  # fmt: skip
    return Corpus(
        articles,
        services,
        small_talk,
        trivia,
        instructions,
        readings,
        tuple(source for source in sources if source.items),
        tuple(sorted(a.title for a in every if a.title.casefold() in held)),
    )


def held_titles(folder: Path) -> frozenset[str]:
    """Titles, in lower case, of the articles that are measured with and never trained on."""
    titles = set(read_titles(folder / "wikipedia" / "unseen.jsonl.xz"))
    for name in ("documents.jsonl", "full_articles.jsonl"):
        titles |= set(read_titles(folder / "squad" / name))
    for path in sorted((folder / "wikitext2").glob("*.txt")):
        titles |= set(_WIKITEXT_TITLE.findall(path.read_text("utf-8")))
    return frozenset(" ".join(normalise.normalise(title).split()).casefold() for title in titles)


def read_titles(path: Path) -> list[str]:
    """The titles in a file of articles, in its order."""
    return [row["title"] for row in _rows(path, "title")]


def read_trivia(folder: Path) -> list[Trivia]:
    return [
        Trivia(row["question"].strip(), row["answer"].strip(), tuple(row["choices"]))
        for row in _rows(folder / "qa" / "opentriviaqa.jsonl.xz", "question", "answer", "choices")
        if row["question"].strip() and row["answer"].strip()
    ]


def held_trivia(every: list[Trivia]) -> tuple[Trivia, ...]:
    """The questions kept for measuring: one for each wording, in the order of their hashes."""
    by_words = {_words(item.question): item for item in reversed(every)}
    return tuple(by_words[key] for key in sorted(by_words, key=_hash)[:HELD_TRIVIA])


def training_trivia(every: list[Trivia]) -> tuple[Trivia, ...]:
    """The rest: no question with the words of a held one."""
    held = {_words(item.question) for item in held_trivia(every)}
    return tuple(item for item in every if _words(item.question) not in held)


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _paragraphs(text: str) -> str:
    """Lines are paragraphs in these files."""
    return normalise.normalise(re.sub(r"\n+", "\n\n", text))


def _rows(path: Path, *fields: str, required: bool = False) -> Iterator[dict[str, Any]]:
    """The lines of a file as objects with at least these fields; none where there is no file."""
    opened = lzma.open if path.suffix == ".xz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _row(line, fields, f"{path}, line {number}")
    except FileNotFoundError:
        if required:
            raise CorpusError(
                f"{path}: no such file; the starter is trained on JSON lines of title and text"
            ) from None
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise CorpusError(f"{path}: cannot be read: {error}") from None


def _row(line: str, fields: Sequence[str], where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise CorpusError(f"{where}: not JSON ({error})") from None
    for field in fields:
        if not isinstance(row, dict) or field not in row:
            raise CorpusError(f"{where}: no {field}")
    return dict(row)


def _chatterbot(folder: Path) -> Iterator[Conversation]:
    for path in sorted(folder.glob("*.yml")):
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise CorpusError(f"{path}: no list of conversations: {error}") from None
        for turns in found:
            said = [str(turn).strip() for turn in turns]
            said = said[: len(said) // 2 * 2]
            if said and all(said):
                roles = ("user", "assistant") * (len(said) // 2)
                yield tuple(zip(roles, said, strict=True))


def _instructions(row: dict[str, Any]) -> Iterator[Conversation]:
    for instance in row["instances"]:
        asked = "\n\n".join(
            part.strip() for part in (row["instruction"], instance["input"]) if part.strip()
        )
        if asked and instance["output"].strip():
            yield (("user", asked), ("assistant", instance["output"].strip()))
