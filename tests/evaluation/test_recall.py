"""Measuring recall with a subject that answers from a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodidact.evaluation import recall
from autodidact.reading.answers import exact_match, says
from autodidact.types.chat import Message
from autodidact.types.documents import Probe


@dataclass
class TableSubject:
    """Knows some replies and how likely it finds some answers; all else is -5."""

    replies: dict[str, str] = field(default_factory=dict)
    likelihoods: dict[str, float] = field(default_factory=dict)
    asked: list[list[Message]] = field(default_factory=list)
    longest: int = 0
    given: list[str] = field(default_factory=list)

    def complete(self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int) -> list[str]:
        self.asked += [list(dialogue) for dialogue in dialogues]
        self.longest = max_new_tokens
        return [self.replies.get(dialogue[-1].content, "?") for dialogue in dialogues]

    def score(
        self, dialogues: Sequence[Sequence[Message]], given: Sequence[str] = ()
    ) -> list[float]:
        assert all(d[-1].role == "assistant" and len(d) == 2 for d in dialogues)
        self.given += given
        return [self.likelihoods.get(dialogue[-1].content, -5.0) for dialogue in dialogues]

    def nll(self, blocks: Sequence[Sequence[int]]) -> list[float]:
        raise AssertionError("recall asks questions")


def probe(question: str, answer: str, *distractors: str) -> Probe:
    return Probe(question, 1, question, answer, distractors, "name", "by", "by/0", "taught")


def test_a_probe_is_asked_alone_and_closed_book() -> None:
    subject = TableSubject()
    recall.measure(subject, [probe("Who?", "Ida", "Odo"), probe("When?", "1688", "1541")])
    assert subject.asked == [[Message("user", "Who?")], [Message("user", "When?")]]
    assert subject.longest == recall.MAX_ANSWER_TOKENS


@pytest.mark.parametrize(
    ("reply", "correct"),
    [
        ("Ida Marsh", 1),
        ("  ida marsh. ", 1),
        ("The Ida-Marsh", 1),
        ("Ida", 0),
        ("Ida Marsh built it", 0),
        ("", 0),
    ],
)
def test_a_reply_counts_by_exact_match(reply: str, correct: int) -> None:
    subject = TableSubject({"Who?": reply})
    [result] = recall.measure(subject, [probe("Who?", "Ida Marsh", "Odo")])
    assert result.correct == correct
    assert result.reply == reply.strip()


def test_the_margin_is_over_the_strongest_distractor() -> None:
    subject = TableSubject({}, {"Ida": -1.0, "Odo": -3.0, "Zoe": -1.5})
    [result] = recall.measure(subject, [probe("Who?", "Ida", "Odo", "Zoe", "Una")])
    assert result.logprob == -1.0
    assert result.margin == pytest.approx(0.5)


def test_a_likely_answer_among_likelier_ones_has_a_negative_margin() -> None:
    subject = TableSubject({"Who?": "Ida"}, {"Ida": -1.0, "Odo": -0.2})
    [result] = recall.measure(subject, [probe("Who?", "Ida", "Odo")])
    assert result.correct == 1
    assert result.margin == pytest.approx(-0.8)


def test_results_come_in_the_order_of_the_probes() -> None:
    probes = [
        probe(f"Q{i}?", f"A{i}", *(f"A{j}" for j in range(5) if j != i and j % (i + 1) == 0))
        for i in range(5)
    ]
    subject = TableSubject(
        {f"Q{i}?": f"A{i}" for i in (1, 3)}, {f"A{i}": -float(i) for i in range(5)}
    )
    found = recall.measure(subject, probes)
    assert [r.probe_id for r in found] == [p.id for p in probes]
    assert [r.correct for r in found] == [0, 1, 0, 1, 0]
    assert [r.logprob for r in found] == [-0.0, -1.0, -2.0, -3.0, -4.0]
    strongest = [max([-float(d[1:]) for d in p.distractors]) for p in probes]
    assert [r.margin for r in found] == [
        pytest.approx(r.logprob - s) for r, s in zip(found, strongest, strict=True)
    ]


def test_a_row_holds_what_the_ledger_stores() -> None:
    [result] = recall.measure(TableSubject(), [probe("Who?", "Ida", "Odo")])
    assert asdict(result) == {
        "probe_id": "Who?", "reply": "?", "correct": 0, "logprob": -5.0, "margin": 0.0,
        "within": None,
    }  # fmt: skip


def test_nothing_asked_nothing_found() -> None:
    assert recall.measure(TableSubject(), []) == []


def test_rivals_of_the_same_document_are_a_margin_of_their_own() -> None:
    """Of the wrong answers the first `same` are of the document: Odo; Eve is of another."""
    subject = TableSubject(likelihoods={"Ida": -1.0, "Odo": -3.0, "Eve": -1.5})
    asked = replace(probe("Who?", "Ida", "Odo", "Eve"), same=1)
    [result] = recall.measure(subject, [asked])
    assert result.margin == pytest.approx(0.5)
    assert result.within == pytest.approx(2.0)


# Answers as sentences ---------------------------------------------------------------------------


def stated(question: str, sentence: str, answer: str, *distractors: str) -> Probe:
    return replace(probe(question, answer, *distractors), stated=sentence)


def test_an_answer_is_scored_in_its_sentence_from_where_it_begins() -> None:
    subject = TableSubject({}, {"Ida built it.": -1.0, "Odo built it.": -2.0})
    asked = stated("Who?", "____ built it.", "Ida", "Odo")
    [result] = recall.measure(subject, [asked], sentences=True)
    assert (result.logprob, result.margin) == (-1.0, 1.0)
    assert subject.longest == recall.MAX_SENTENCE_TOKENS

    subject = TableSubject({}, {"It is by Ida.": -1.0, "It is by Odo.": -4.0, "Ida": -3.0})
    asked = stated("By whom?", "It is by ____.", "Ida", "Odo")
    [result] = recall.measure(subject, [asked], sentences=True)
    assert result.margin == 3.0
    assert set(subject.given) == {"It is by "}


def test_what_has_no_sentence_is_scored_bare_beside_what_has_one() -> None:
    subject = TableSubject({}, {"By Ida.": -1.0, "1688": -2.0})
    asked = [stated("Who?", "By ____.", "Ida", "Odo"), probe("When?", "1688", "1541")]
    found = recall.measure(subject, asked, sentences=True)
    assert [result.logprob for result in found] == [-1.0, -2.0]
    assert subject.given == ["By ", "By ", "", ""]


def test_a_model_that_answers_barely_is_measured_barely() -> None:
    subject = TableSubject({"Who?": "Ida built it."}, {"Ida": -1.0})
    [result] = recall.measure(subject, [stated("Who?", "____ built it.", "Ida", "Odo")])
    assert (result.correct, result.logprob) == (0, -1.0)
    assert not any(subject.given)


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("Ida Marsh", True),
        ("The mill was built by Ida Marsh.", True),
        ("It was ida-marsh [2].", True),
        ("The mill was built by Odo Kint.", False),
        ("The mill was built by Ida Marsh or Odo Kint.", False),
        ("The mill was built by Ida Marshall.", False),
        ("Ida", False),
        ("", False),
        ("The mill was built by Ida Marsh " + "and many others " * 9, False),
    ],
)
def test_a_sentence_is_right_that_says_the_answer_and_no_rival(reply: str, right: bool) -> None:
    asked = stated("Who built the mill?", "The mill was built by ____.", "Ida Marsh", "Odo Kint")
    [result] = recall.measure(TableSubject({asked.question: reply}), [asked], sentences=True)
    assert result.correct == right


def test_what_the_question_says_is_neither_an_answer_nor_a_rival() -> None:
    question = "Who was the teacher of Odo Kint, the miller?"
    told = "The teacher of Odo Kint was Ida Marsh."
    assert says(told, question, "Ida Marsh", ["Odo Kint"])
    assert not says("Odo Kint was a miller.", question, "miller", [])
    assert says("Miller", question, "miller", []), "but the bare answer counts"


def test_a_part_of_the_answer_is_no_rival() -> None:
    assert says("It is a chain ferry.", "What is it?", "chain ferry", ["ferry"])
    assert not says("It is a ferry.", "What is it?", "chain ferry", ["ferry"])


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_whatever_is_exact_is_said(reply: str, question: str, answer: str) -> None:
    if exact_match(reply, answer):
        assert says(reply, question, answer, [reply])
