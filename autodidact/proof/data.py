"""Articles and human questions on them: read, checked line by line, asked by name of the topic.

A document is a JSON object a line with `title` and `text`; a question one with `document` (a
title), `question`, `answers` (texts, at least one) and perhaps `id` and `context` (the passage that
holds the answer). That is the form of SQuAD (Rajpurkar et al. 2016, arXiv:1606.05250) flattened.
Files are untrusted: a line that does not fit is an error that names file and line.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodidact import curation
from autodidact.errors import SourceError
from autodidact.types.cycle import Verdict
from autodidact.types.documents import Document


@dataclass(frozen=True)
class Article:
    """A document and its number, by which examples and chunks name it."""

    number: int
    title: str
    document: Document


@dataclass(frozen=True)
class Question:
    """`answers` are all gold answers, as given; `context` is "" where the file has none."""

    id: str
    title: str
    text: str
    answers: tuple[str, ...]
    context: str

    @property
    def answer(self) -> str:
        """The answer whose likelihood is measured: the shortest in words, the first of equals."""
        return min(self.answers, key=lambda answer: len(answer.split()))

    @property
    def asked(self) -> str:
        """The question with its topic named, unless the title's words are all in it."""
        missing = _words(self.title) - _words(self.text)
        return f"Question about {self.title}: {self.text}" if missing else self.text


def read_articles(path: Path) -> list[Article]:
    """All documents of a file, in its order. Raises SourceError with file and line."""
    articles: list[Article] = []
    for number, where, row in _rows(path):
        title, text = (_text(row, key, where) for key in ("title", "text"))
        if any(title == article.title for article in articles):
            raise SourceError(f"{where}: a second document titled {_short(title)}")
        document = Document("prove", f"{path.name}:{number}", title, text, "", "", "")
        curated = curation.curate(document)
        if isinstance(curated, Verdict):
            raise SourceError(f"{where}: {'; '.join(curated.lines)}")
        articles.append(Article(len(articles) + 1, title, curated))
    if not articles:
        raise SourceError(f"{path}: no documents in it")
    return articles


def read_questions(path: Path, titles: Sequence[str]) -> dict[str, list[Question]]:
    """Questions by title, in the file's order; those on other titles are left out.

    Raises SourceError with file and line, or if no question is on any of `titles`.
    """
    found: dict[str, list[Question]] = {title: [] for title in titles}
    ids: set[str] = set()
    for number, where, row in _rows(path):
        title, text = (_text(row, key, where) for key in ("document", "question"))
        answers = row.get("answers")
        if not isinstance(answers, list) or not answers:
            raise SourceError(f"{where}: answers must be a list with at least one text")
        if not all(isinstance(answer, str) and answer.strip() for answer in answers):
            raise SourceError(f"{where}: every answer must be a text that is not blank")
        identity = str(row.get("id") or f"line-{number}")
        if identity in ids:
            raise SourceError(f"{where}: a second question with the id {_short(identity)}")
        ids.add(identity)
        context = row.get("context") or ""
        if not isinstance(context, str):
            raise SourceError(f"{where}: context must be a text")
        if title in found:
            gold = tuple(dict.fromkeys(answer.strip() for answer in answers))
            found[title].append(Question(identity, title, " ".join(text.split()), gold, context))
    if not any(found.values()):
        raise SourceError(f"{path}: no question in it is on a title of the documents")
    return found


def spread(questions: Sequence[Question], limit: int) -> list[Question]:
    """At most `limit` questions, evenly over the article; where to begin is drawn by the title.

    `limit` 0 takes all.
    """
    count = len(questions)
    if not limit or count <= limit:
        return list(questions)
    offset = random.Random(f"spread {questions[0].title}").random()
    return [questions[int((i + offset) * count / limit)] for i in range(limit)]


def digest(path: Path) -> str:
    """sha256 of a file, which says whether a later run reads the same data."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _rows(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SourceError(f"{path}: not UTF-8") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise SourceError(f"{where}: not valid JSON") from None
        if not isinstance(row, dict):
            raise SourceError(f"{where}: not a JSON object")
        yield number, where, row


def _text(row: dict[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise SourceError(f"{where}: {key} must be a text that is not blank")
    return value.strip()


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")


def _words(text: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", text.lower()))
