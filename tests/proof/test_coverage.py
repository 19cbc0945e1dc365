"""Which questions a made example covers, and what is counted on them, worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autodidact.lessons import examples
from autodidact.proof import coverage, data, page, plan, results
from autodidact.proof.measure import Item
from autodidact.proof.overlap import HumanQuestions
from autodidact.proof.protocol import TrialMaterial
from autodidact.proof.work import Work
from autodidact.reading.document import read_document
from autodidact.types.documents import Fact
from tests.proof import made_up

BUILT = "The mill was built in 1701 by the river Ardle."
OWNED = "The Heron Trust owns it."
TEACHES = coverage.of_facts(
    "Ardle Mill",
    [
        Fact("1:0", "Ardle Mill", "r", "year", "1701", BUILT, (), ()),
        Fact("1:0", "Ardle Mill", "s", "name", "the Heron Trust", OWNED, (), ()),
    ],
)


def asked(text: str, *answers: str) -> data.Question:
    return data.Question(text, "Ardle Mill", text, answers, "")


@pytest.mark.parametrize(
    ("question", "answers", "covered"),
    [
        ("When was it built by the river?", ("1701",), True),  # built, river
        ("When was it BUILT by the River?", ("in spring", "1701."), True),  # any gold answer
        ("When was it built?", ("1701",), False),  # one word only
        ("When was the mill of Ardle built?", ("1701",), False),  # the title's words do not count
        ("When was it built by the river?", ("1702",), False),  # no such answer
        ("When was it built by the river?", ("Heron Trust",), False),  # the other fact's sentence
        ("By what was it and the in?", ("1701",), False),  # words that tell nothing
        ("Which trust, the Heron one, owns it?", ("Heron Trust",), True),  # trust, heron, owns
    ],
)
def test_a_fact_covers_by_its_answer_and_two_telling_words(
    question: str, answers: tuple[str, ...], covered: bool
) -> None:
    assert TEACHES.covers(asked(question, *answers)) is covered


def test_trained_answers_are_known_whatever_was_asked() -> None:
    assert TEACHES.answers(["heron trust!"])
    assert not TEACHES.answers(["Heron", "1702"])
    assert not TEACHES.answers(["the"])  # nothing is left of it


def article(folder: Path) -> data.Article:
    documents, _ = made_up.write(folder)
    return data.read_articles(documents)[0]


def test_facts_whose_examples_people_asked_cover_nothing(tmp_path: Path) -> None:
    first = article(tmp_path)
    question = asked("In what year was it built by Heron Holt?", "1701")
    free = coverage.taught(first, HumanQuestions(["Who else?"]))
    assert free.covers(question)
    assert free.answers(["5"]) is False

    made = examples.examples(read_document(first.number, first.document))
    turns = [example.messages for example in made if example.messages]
    of_1701 = [asking.content for asking, answer in turns if answer.content == "1701"]
    assert len(of_1701) > 1
    blocked = coverage.taught(first, HumanQuestions(of_1701))
    assert not blocked.covers(question)
    assert not blocked.answers(["1701"])
    assert blocked.answers(["a water mill"])  # only what people asked is left out
    # An example that is left still covers.
    assert coverage.taught(first, HumanQuestions(of_1701[:1])).covers(question)
    everything = HumanQuestions([asking.content for asking, _ in turns])
    assert coverage.taught(first, everything).sentences == {}


S = coverage.Standing


@pytest.mark.parametrize(
    ("standing", "groups"),
    [
        (S(True, True, 0), {"covered"}),
        (S(True, True, 2), {"covered", "covered_contested"}),
        (S(False, True, 0), {"not_covered", "answer_trained"}),
        (S(False, True, 1), {"not_covered", "answer_trained"}),
        (S(False, False, 1), {"not_covered", "distractor_trained"}),
        (S(False, False, 0), {"not_covered", "nothing_trained"}),
    ],
)
def test_groups_are_by_what_was_trained(standing: coverage.Standing, groups: set[str]) -> None:
    assert {name for name, belongs in coverage.GROUPS.items() if belongs(standing)} == groups


def test_a_standing_counts_trained_distractors() -> None:
    question = asked("When was it built by the river?", "1701")
    assert TEACHES.standing(question, ["Heron Trust", "1702", "1703"]) == S(True, True, 1)


def finished(folder: Path) -> tuple[Work, TrialMaterial]:
    """Four articles, arms swapped, a covered and an uncovered question each. The covered gain 2.0
    where taught and 0.5 where control, the others lose 0.25 where taught and nothing else."""
    documents, path = made_up.write(folder)
    articles = {a.title: a for a in data.read_articles(documents)[:4]}
    everything = data.read_questions(path, list(articles))
    questions: dict[str, list[data.Question]] = {}
    items: dict[str, list[Item]] = {}
    for i, (title, rows) in enumerate(everything.items()):
        built = rows[0].answer
        questions[title] = [
            data.Question(f"{i}-yes", title, f"What year was it built by {made_up.SHIPS[i]} Holt?",
                          (built,), ""),
            data.Question(f"{i}-no", title, "Of what is the wheel?", ("birch",), ""),
        ]  # fmt: skip
        wrong = {"yes": ("1", "2", "3"), "no": (built, "ash", "elm")}
        items[title] = [
            Item(q.id, title, q.text, q.answers, q.answer, wrong[q.id[2:]])
            for q in questions[title]
        ]
    arms = plan.arms(list(articles), 4, 1, 1, [])
    material = TrialMaterial(articles, questions, items, arms, HumanQuestions(["Who?"]), [], 0)
    work = Work(folder / "out")
    empty = {"anchors": None, "wikitext": None, "blocks": 0, "wikitext_blocks": 0, "seconds": 1.0}
    work.put("base-general", empty)
    zero = dict.fromkeys(("margin", "choice", "em", "f1", "nll"), 0.0)

    def put(name: str, title: str, gains: dict[str, float]) -> None:
        rows: list[dict[str, Any]] = [
            {"id": item.id, **zero, "margin": gains[item.id[2:]]} for item in items[title]
        ]
        work.put(name, {"rows": rows, "seconds": 1.0})

    for title, a in articles.items():
        put(f"base-{a.number:03d}", title, {"yes": 0.0, "no": 0.0})
        for arm in arms:
            taught = title in arm.taught
            gains = {"yes": 2.0 if taught else 0.5, "no": -0.25 if taught else 0.0}
            put(f"{arm.name}-{a.number:03d}", title, gains)
    for arm in arms:
        cycle = dict.fromkeys(("steps", "train_s", "passes", "sequences", "loss", "dropped"), 1)
        work.put(f"{arm.name}-train-01", {**cycle, "seconds": 1.0})
        work.put(f"{arm.name}-general", empty)
        for book in ("base", "learned"):
            none: dict[str, list[Any]] = {"bm25": [], "oracle": []}
            work.put(f"{arm.name}-book-{book}",
                     {"rows": none, "missed": 0, "asked": 0, "seconds": 1.0})  # fmt: skip
    return work, material


def test_the_effect_on_covered_questions_is_told_from_the_rest(tmp_path: Path) -> None:
    work, material = finished(tmp_path)
    units = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "work").iterdir()}
    result = results.collect(work, material, {}, permute=False)
    found = result["coverage"]
    assert (found["share"]["k"], found["share"]["n"]) == (4, 8)
    assert all(counts == {"k": 1, "n": 2} for counts in found["articles"].values())
    # Each uncovered question has the year, a trained answer, as one of its three distractors.
    shares = {g: (s["k"], s["n"]) for g, s in found["distractors"].items()}
    assert shares == {"covered": (0, 12), "not_covered": (4, 12)}
    effects = {g: m["margin"] for g, m in found["effects"]["learned"].items()}
    assert set(effects) == set(coverage.GROUPS) == set(page.GROUPS)
    assert effects["covered"]["value"] == pytest.approx(1.5)  # 2.0 − 0.5, in every article
    assert effects["not_covered"]["value"] == pytest.approx(-0.25)
    assert effects["distractor_trained"] == effects["not_covered"]
    assert (effects["covered"]["n"], effects["covered"]["articles"]) == (4, 4)
    assert (effects["answer_trained"]["value"], effects["answer_trained"]["n"]) == (None, 0)
    whole = result["outcomes"]["learned"]["all"]["margin"]["effect"]
    assert whole["value"] == pytest.approx(0.625)  # (1.5 − 0.25) / 2
    facts = {"model": {"name": "m", "parameters": 1e6}, "parameters": {
        "articles": 4, "seeds": 1, "cycles": 1}, "minutes": 1.0}  # fmt: skip
    text = page.markdown({**result, **facts})
    assert "A made example covers 4 of 8 (50.0 %) of the questions" in text
    assert "| learned | covered | +1.500 (+1.500 … +1.500) |" in text
    assert "only a distractor is a trained answer, and the effect there is −0.250" in text
    assert "it was not part of this proof" in text
    # Nothing is done again or changed for it.
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "work").iterdir()} == units
