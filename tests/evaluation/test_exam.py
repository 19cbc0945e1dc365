"""The exam on the library: its questions, how it is read and marked, and that nothing learns it."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from autodidact import curation
from autodidact.errors import SourceError
from autodidact.evaluation import exam
from autodidact.evaluation.exam import ExamQuestion, Mark, marked, read
from autodidact.lessons import examples
from autodidact.reading.answers import MAX_ANSWER_WORDS, normalise_answer
from autodidact.reading.document import read_document
from autodidact.settings import PROJECT
from autodidact.sources.files import Files
from autodidact.types.documents import Document, Findings

LEARNS = ("learning", "lessons", "training", "reading", "sources", "curation", "engine")
NEAR = 0.8
"""Words that two questions share, of all their words: from here on one is a copy of the other."""


@pytest.fixture(scope="module")
def questions() -> tuple[ExamQuestion, ...]:
    return read(exam.QUESTIONS)


@pytest.fixture(scope="module")
def library() -> dict[str, tuple[Document, Findings]]:
    """What the source delivers of the library, and what the rules read in it, by address."""
    found = {}
    for number, raw in enumerate(Files(PROJECT / "library").documents(None), start=1):
        document = curation.curate(raw)
        assert isinstance(document, Document)
        found[document.uri] = document, read_document(number, document)
    return found


def words(text: str) -> set[str]:
    return set(normalise_answer(text).split())


def stands(text: str, within: str) -> bool:
    return f" {normalise_answer(text)} " in f" {normalise_answer(within)} "


# The questions ------------------------------------------------------------------------------------


def test_there_are_two_hundred_and_at_least_three_on_each_article(
    questions: tuple[ExamQuestion, ...], library: dict[str, tuple[Document, Findings]]
) -> None:
    assert len(questions) == 200
    assert len({normalise_answer(q.question) for q in questions}) == 200
    of_one = Counter(q.uris[0] for q in questions if len(q.articles) == 1)
    assert of_one.keys() == library.keys()
    assert min(of_one.values()) >= 3
    assert sum(len(q.articles) == 2 for q in questions) == 200 - of_one.total() == 20


def test_every_answer_is_short_and_stands_in_its_article_and_not_in_its_question(
    questions: tuple[ExamQuestion, ...], library: dict[str, tuple[Document, Findings]]
) -> None:
    for question in questions:
        texts = [f"{d.title} {d.text}" for d in (library[uri][0] for uri in question.uris)]
        assert any(stands(question.answers[0], text) for text in texts), question
        for answer in question.answers:
            assert len(answer.split()) < MAX_ANSWER_WORDS
            assert not stands(answer, question.question), question
        assert len({normalise_answer(a) for a in question.answers}) == len(question.answers)


def test_every_question_names_its_articles(
    questions: tuple[ExamQuestion, ...], library: dict[str, tuple[Document, Findings]]
) -> None:
    for question in questions:
        for uri in question.uris:
            assert library[uri][0].title in question.question, question


def test_no_answer_is_that_of_two_facts_of_its_article(
    questions: tuple[ExamQuestion, ...], library: dict[str, tuple[Document, Findings]]
) -> None:
    """Else the page could suggest a question for having known another fact."""
    for question in questions:
        for uri in question.uris:
            facts = library[uri][1].facts
            assert sum(marked(question, fact.answer).exact for fact in facts) <= 1, question


def test_no_question_is_worded_as_the_rules_word_theirs(
    questions: tuple[ExamQuestion, ...], library: dict[str, tuple[Document, Findings]]
) -> None:
    theirs = set()
    for _, findings in library.values():
        for fact in findings.facts:
            theirs |= {*fact.questions, fact.unseen}
        theirs |= {m.messages[0].content for m in examples.examples(findings) if m.messages}
    assert len(theirs) > 2000
    ruled = [words(text) for text in theirs]
    for question in questions:
        own = words(question.question)
        nearest = max(len(own & other) / len(own | other) for other in ruled)
        assert nearest < NEAR, question


# Kept apart ---------------------------------------------------------------------------------------


def test_it_is_no_document_to_learn(library: dict[str, tuple[Document, Findings]]) -> None:
    assert exam.QUESTIONS.is_relative_to(PROJECT / "library")
    assert all(uri.count("/") == 1 for uri in library)
    assert list(Files(exam.QUESTIONS.parent).documents(None)) == []


def test_nothing_that_learns_knows_of_it() -> None:
    """Neither by its module nor by its file; `reports` may, for what the page suggests."""
    names = re.compile(r"evaluation\.exam\b|evaluation import .*\bexam\b|exam/|questions\.jsonl")
    knows = [
        str(path.relative_to(PROJECT))
        for path in sorted((PROJECT / "autodidact").rglob("*.py"))
        if names.search(path.read_text("utf-8"))
    ]
    assert knows == ["autodidact/evaluation/exam.py", "autodidact/reports/build.py"]


# Reading ------------------------------------------------------------------------------------------

GOOD = {"id": "a-1", "articles": ["a.md"], "question": "What is it?", "answers": ["a boat"]}
OTHER = {**GOOD, "id": "a-2"}


def test_a_question_is_read_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "exam.jsonl"
    path.write_text(json.dumps(GOOD) + "\n")
    [question] = read(path)
    assert question == ExamQuestion("a-1", ("a.md",), "What is it?", ("a boat",))
    assert question.uris == ("library/a.md",)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "Invalid JSON"),
        ("", "Invalid JSON"),
        ("[]", "object"),
        (json.dumps({**OTHER, "more": 1}), "more: "),
        (json.dumps({**OTHER, "answers": "a boat"}), "answers: "),
        (json.dumps({**OTHER, "answers": []}), "answers must be"),
        (json.dumps({**OTHER, "answers": ["the"]}), "answers must be"),
        (json.dumps({**OTHER, "articles": []}), "articles must be"),
        (json.dumps({**OTHER, "articles": ["../a.md"]}), "articles must be"),
        (json.dumps({**GOOD, "id": " "}), "id must not"),
        (json.dumps({**OTHER, "question": ""}), "question must not"),
        (json.dumps(GOOD), "a second question with the id 'a-1'"),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "exam.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n")
    with pytest.raises(SourceError) as raised:
        read(path)
    assert str(raised.value).startswith(f"{path}, line 2: ")
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "exam.jsonl"
    with pytest.raises(SourceError, match=r"exam\.jsonl: No such file"):
        read(path)
    path.write_bytes(b"\xff")
    with pytest.raises(SourceError, match=r"exam\.jsonl: not UTF-8"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(SourceError, match=r"exam\.jsonl: no questions"):
        read(path)


def test_without_the_file_there_are_none_and_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(exam, "QUESTIONS", tmp_path / "exam.jsonl")
    exam.bundled.cache_clear()
    try:
        assert exam.bundled() == exam.bundled() == ()
    finally:
        exam.bundled.cache_clear()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


# Marking ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "exact", "contained"),
    [
        ("The Camel.", True, True),
        ("camel [1]", True, True),
        ("People call it the Camel.", False, True),
        ("Its nickname is “the Camel” [2].", False, True),
        ("Camels", False, False),
        ("It is the caramel one.", False, False),
        ("The Sedge Bridge", False, False),
        ("", False, False),
    ],
)
def test_a_reply_is_marked(reply: str, exact: bool, contained: bool) -> None:
    question = ExamQuestion("q", ("a.md",), "What is the Sedge Bridge called?", ("the Camel",))
    assert marked(question, reply) == Mark(exact, contained)


def test_what_the_question_says_counts_only_where_nothing_else_is_said() -> None:
    text = "Which is longer, Candle Row or the Sedge Bridge?"
    question = ExamQuestion("q", ("a.md", "b.md"), text, ("Candle Row", "the former"))
    assert marked(question, "Candle Row") == Mark(True, True)
    assert marked(question, text) == Mark(False, False)
    assert marked(question, "It is the former.") == Mark(False, True)
