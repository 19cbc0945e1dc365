"""What is read, refused, asked, and offered as a wrong answer."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from autodidact.errors import SettingError, SourceError
from autodidact.proof import choices, data, plan
from autodidact.proof.overlap import HumanQuestions, without_overlap
from autodidact.proof.retrieval import ChunkIndex, fitting
from autodidact.types.chat import Message
from autodidact.types.documents import Chunk, Example
from tests.proof import made_up


def asked(text: str, *answers: str, title: str = "Ardle Mill") -> data.Question:
    return data.Question(text, title, text, answers, "")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 2: not valid JSON"),
        ("[]", "line 2: not a JSON object"),
        ('{"document": "Ardle Mill"}', "line 2: question must be a text"),
        ('{"document": "Ardle Mill", "question": "Who?", "answers": []}', "line 2: answers must"),
        ('{"document": "Ardle Mill", "question": "Who?", "answers": [7]}', "line 2: every answer"),
        ('{"document": "A", "question": "Who?", "answers": ["x"], "id": "0-0"}', "second question"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    documents, questions = made_up.write(tmp_path)
    lines = questions.read_text().splitlines()
    questions.write_text("\n".join([lines[0], line, *lines[1:]]))
    titles = [article.title for article in data.read_articles(documents)]
    with pytest.raises(SourceError) as caught:
        data.read_questions(questions, titles)
    assert str(questions) in str(caught.value)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_document_that_is_too_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"title": "A", "text": "Short."}))
    with pytest.raises(SourceError, match=r"d\.jsonl, line 1.*words"):
        data.read_articles(path)


def test_the_topic_is_named_unless_it_is_in_the_question() -> None:
    assert asked("Who built it?", "x").asked == "Question about Ardle Mill: Who built it?"
    assert asked("Who built the mill of Ardle?", "x").asked == "Who built the mill of Ardle?"


def test_the_shortest_gold_answer_is_scored() -> None:
    assert asked("When?", "10 July 1856", "1856", "1857").answer == "1856"


def test_questions_are_spread_over_the_article() -> None:
    rows = [asked(f"{i}?", "x") for i in range(100)]
    chosen = [rows.index(row) for row in data.spread(rows, 10)]
    assert chosen == sorted(set(chosen))
    assert {b - a for a, b in itertools.pairwise(chosen)} <= {9, 10, 11}
    assert data.spread(rows, 0) == rows


@pytest.mark.parametrize(
    ("answer", "kind"),
    [("1856", "year"), ("12 million", "number"), ("three", "number"), ("10 July 1856", "number"),
     ("Nikola Tesla", "name"), ("the Bank of England", "name"), ("by steam", "phrase")],
)  # fmt: skip
def test_answers_have_types(answer: str, kind: str) -> None:
    assert choices.answer_type(answer) == kind


def test_distractors_are_wrong_and_alike() -> None:
    rows = [asked("When was it built?", "1701"), asked("When was it sold?", "1850"),
            asked("When did it burn?", "1790"), asked("Who built it?", "Heron Holt"),
            asked("Was it in 1702?", "the year 1701"), asked("When not?", "1950")]  # fmt: skip
    found = choices.Answers(rows).distractors(rows[0])
    assert set(found) == {"1850", "1790", "1950"}


def test_f1_takes_the_best_gold_answer() -> None:
    assert choices.f1("the red mill", ["blue mill", "Red Mill!"]) == 1.0
    assert choices.f1("mill by the sea", ["old mill"]) == pytest.approx(2 / 5)
    assert choices.f1("", ["mill"]) == 0.0


def test_questions_that_people_asked_are_not_trained_on() -> None:
    human = HumanQuestions(["When was the old mill of Ardle built?", "a b c d e f g h i j k"])

    def example(question: str) -> Example:
        return Example("question", "1:0", 1, (Message("user", question), Message("assistant", "x")))

    same = example("When was the mill of Ardle built?")
    run = example("well b c d e f g h i and something quite different follows here at the end")
    other = example("Who owns the mill?")
    text = Example("text", "1:0", 1, text="When was the old mill of Ardle built?")
    assert without_overlap([same, run, other, text], human) == ([other, text], 2)


def test_search_finds_the_rare_word_and_passages_keep_to_the_budget() -> None:
    chunks = [
        Chunk("1:0", 1, "Mill", "The mill has a wheel and a roof."),
        Chunk("1:1", 1, "Mill", "The weathercock was made of copper."),
        Chunk("1:2", 1, "Mill", "The mill has a door."),
    ]
    library = ChunkIndex(chunks)
    assert library.search("What is the weathercock made of?")[0].id == "1:1"
    assert library.search("the of and") == []
    holding = library.holding(1, ["copper"])
    assert holding is not None
    assert holding.id == "1:1"
    found = [("Mill", "one two three"), ("Mill", "four five six seven eight nine ten")]
    placed = fitting(found, "Q?", 12, lambda text: len(text.split()))
    assert [p.text for p in placed] == ["one two three"]
    [cut] = fitting([("Mill", "word " * 50)], "Q?", 12, lambda text: len(text.split()))
    assert 1 <= len(cut.text.split()) < 12


def test_lots_are_swapped_and_repeatable() -> None:
    titles = [f"t{i}" for i in range(10)]
    arms = plan.arms(titles, 6, 2, 3, ["naive", "placebo"])
    assert arms == plan.arms(list(reversed(titles)), 6, 2, 3, ["naive", "placebo"])
    a, b = arms[:2]
    assert (a.taught, a.control) == (b.control, b.taught)
    assert [len(group) for group in a.cycles] == [1, 1, 1]
    assert [arm.kind for arm in arms if arm.seed == 1] == [
        "learned", "learned", "naive", "naive", "placebo"
    ]  # fmt: skip
    assert {t for arm in arms if arm.seed == 0 for t in arm.taught} != {
        t for arm in arms if arm.seed == 1 for t in arm.taught
    }


@pytest.mark.parametrize(("articles", "cycles"), [(5, 1), (12, 1), (2, 1), (6, 4)])
def test_what_cannot_be_drawn_is_refused(articles: int, cycles: int) -> None:
    with pytest.raises(SettingError):
        plan.arms([f"t{i}" for i in range(10)], articles, 1, cycles, [])
