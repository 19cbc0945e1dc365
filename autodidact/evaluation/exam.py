"""The exam on `library/`: questions written by hand, and whether a reply to one is right.

They stand in `library/exam/questions.jsonl`, a JSON object a line: `id`, `articles` (names of files
in `library/`, several where a question is about more than one), `question`, and `answers` (all that
count as right, the first as the article has it). They are worded apart from the rules that read
facts, so they tell what somebody who asks in words of his own would get. They are for asking only:
nothing that learns may import this module (`tests/evaluation/test_exam.py`).

Two measures of a reply. *Exact*: one of the answers and nothing else, by the normalisation of
`reading.answers`. *Contained*: one of the answers stands in it as whole words, and the question
did not say it already. The second is lenient: it does not see a reply that denies the answer, or
names it beside a wrong one.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from pathlib import Path

from autodidact.errors import Misfit, SourceError
from autodidact.reading.answers import normalise_answer, stands, uncited
from autodidact.types import wire

QUESTIONS = Path(__file__).resolve().parents[2] / "library" / "exam" / "questions.jsonl"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExamQuestion:
    """One question. `articles` are names of files in `library/`."""

    id: str
    articles: tuple[str, ...]
    question: str
    answers: tuple[str, ...]

    @property
    def uris(self) -> tuple[str, ...]:
        """The articles by the addresses that the source `files` gives them."""
        return tuple(f"{QUESTIONS.parents[1].name}/{article}" for article in self.articles)


@dataclass(frozen=True)
class Mark:
    """Whether a reply is right; what is exact is contained, too."""

    exact: bool
    contained: bool


def read(path: Path) -> tuple[ExamQuestion, ...]:
    """All questions of a file, in its order. Raises SourceError with file and line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise SourceError(f"{path}: not UTF-8") from None
    found: dict[str, ExamQuestion] = {}
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        try:
            question = wire.from_json(ExamQuestion, line, where)
        except Misfit as error:
            raise SourceError(str(error)) from None
        repeated = f"a second question with the id {question.id!r}" if question.id in found else ""
        fault = _fault(question) or repeated
        if fault:
            raise SourceError(f"{where}: {fault}")
        found[question.id] = question
    if not found:
        raise SourceError(f"{path}: no questions in it")
    return tuple(found.values())


@functools.cache
def bundled() -> tuple[ExamQuestion, ...]:
    """The questions that come with the project; none, and a warning, where their file is gone or
    damaged: no cycle ends for that."""
    try:
        return read(QUESTIONS)
    except SourceError as error:
        log.warning("%s: the page suggests the rules' own questions", error)
        return ()


def marked(question: ExamQuestion, reply: str) -> Mark:
    """What a reply is worth; citation marks do not count."""
    said, asked = normalise_answer(uncited(reply)), normalise_answer(question.question)
    answers = [normalise_answer(answer) for answer in question.answers]
    exact = said in answers
    contained = any(stands(a, said) and not stands(a, asked) for a in answers)
    return Mark(exact, exact or contained)


def _fault(question: ExamQuestion) -> str:
    """What is wrong with a question that has all its fields, or ""."""
    if not question.id.strip():
        return "id must not be blank"
    if not question.question.strip():
        return "question must not be blank"
    if not question.articles or not all(_is_file_name(name) for name in question.articles):
        return "articles must be a list of names of files, at least one"
    if not question.answers or not all(normalise_answer(answer) for answer in question.answers):
        return "answers must be a list of texts with a word in each, at least one"
    return ""


def _is_file_name(name: str) -> bool:
    return bool(name.strip()) and "/" not in name and "\\" not in name
