"""The synthetic world: endless, stable, readable by the learner, and unknown to any model."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodidact import curation
from autodidact.lessons import examples
from autodidact.lessons.probes import write_probes
from autodidact.reading.answers import exact_match
from autodidact.reading.document import read_document
from autodidact.settings import PROJECT
from autodidact.sources.files import Files
from autodidact.types.documents import (
    Document,
    Findings,
)
from benchmarks.learning import world
from benchmarks.learning.world import KINDS, STEMS, World, WorldDocument

RELATIONS = [
    pytest.param(kind, relation, id=f"{kind.name}: {relation.name}")
    for kind in KINDS
    for relation in kind.relations
]
every_relation = pytest.mark.parametrize(("kind", "relation"), RELATIONS)


@pytest.fixture(scope="module")
def documents() -> list[WorldDocument]:
    return World(0).documents(500)


@pytest.fixture(scope="module")
def readings(documents: list[WorldDocument]) -> list[Findings]:
    return [world.reading(document, i) for i, document in enumerate(documents, start=1)]


def plain(text: str) -> str:
    return " ".join(text.split())


# Stable ------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 10 * STEMS), st.integers(1, 3), st.integers(3, 6))
def test_a_document_is_the_same_whenever_it_is_made(
    seed: int, number: int, least: int, most: int
) -> None:
    alone = World(seed).document(number, (least, most))
    among = World(seed).documents(3, (least, most), start=max(0, number - 2))
    assert alone == among[min(number, 2)]
    assert least <= len(alone.facts) <= most


def test_it_is_the_same_in_another_process() -> None:
    program = "from benchmarks.learning.world import World; print(World(7).document(3))"
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=PROJECT,
            env={"PYTHONHASHSEED": number, "PYTHONPATH": str(PROJECT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for number in ("1", "2")
    }
    assert said == {str(World(7).document(3))}


def test_more_documents_begin_with_the_same(documents: list[WorldDocument]) -> None:
    assert World(0).documents(20) == documents[:20]


def test_another_seed_is_another_world(documents: list[WorldDocument]) -> None:
    ours = {document.title for document in documents}
    theirs = {document.title for document in World(1).documents(500)}
    assert len(ours & theirs) < 10
    assert not {d.text for d in documents} & {d.text for d in World(1).documents(500)}


def test_no_two_documents_have_the_same_subject(documents: list[WorldDocument]) -> None:
    assert len({document.title for document in documents}) == 500


def test_the_names_do_not_end() -> None:
    """Past the one-word names there are names of two words, and so on."""
    numbers = [0, 1, STEMS - 1, STEMS, STEMS + 1, 2 * STEMS, STEMS * (STEMS + 1) - 1]
    numbers += [STEMS * (STEMS + 1)]
    assert len({world.stem(n) for n in numbers}) == len(numbers)
    assert len({world.stem(n) for n in range(STEMS)}) == STEMS > 10_000
    assert [len(world.stem(n).split()) for n in numbers[-2:]] == [2, 3]
    lap = World(3)
    assert lap.document(STEMS).title != lap.document(0).title


def test_a_range_of_facts_that_no_subject_has_is_refused() -> None:
    with pytest.raises(ValueError, match="take a range between 1 and"):
        World(0).document(0, (3, 40))


# Rich --------------------------------------------------------------------------------------------


@every_relation
def test_a_relation_has_a_hundred_possible_answers(
    kind: world.Kind, relation: world.Relation
) -> None:
    rng = random.Random(1)
    counts = Counter(relation.draw(rng) for _ in range(3000))
    assert len(counts) >= 100
    assert counts.most_common(1)[0][1] < 60, "no answer is worth guessing"


@every_relation
def test_a_relation_is_said_and_asked_in_several_ways(
    kind: world.Kind, relation: world.Relation
) -> None:
    assert len(set(relation.says)) >= 3
    assert len(set(relation.never)) >= 3
    for asked in relation.never:
        assert "{s}" in asked or "{bare}" in asked, "a question names its subject"
        assert asked.endswith("?")


def test_texts_are_short_and_differ_in_form(documents: list[WorldDocument]) -> None:
    for number, document in enumerate(documents):
        few = World(0).document(number, (2, 3))
        for text in (document.text, few.text):
            assert 60 <= len(text.split()) <= 200
    assert {document.kind for document in documents} == {kind.name for kind in KINDS}
    assert {len(document.facts) for document in documents} == {3, 4, 5, 6}
    first = Counter(document.facts[0].relation for document in documents)
    assert len(first) > 20, "the order of facts is shuffled"


def test_the_answer_stands_in_the_text(documents: list[WorldDocument]) -> None:
    for document in documents:
        answers = [fact.answer for fact in document.facts]
        assert len(set(answers)) == len(answers)
        for fact in document.facts:
            assert fact.answer in fact.sentence
            assert fact.sentence in plain(document.text)
            assert document.text.count(fact.answer) >= 1
            assert document.title not in fact.answer


# Read by the learner -----------------------------------------------------------------------------


def test_nine_in_ten_facts_are_read_with_the_right_answer(
    documents: list[WorldDocument], readings: list[Findings]
) -> None:
    stated = sum(len(document.facts) for document in documents)
    pairs = zip(documents, readings, strict=True)
    read = sum(len(world.matched(document, reading)) for document, reading in pairs)
    assert read >= 0.9 * stated


@every_relation
def test_every_relation_is_read(kind: world.Kind, relation: world.Relation) -> None:
    """In at least three of its patterns: by name, and where it can be turned round that way too."""
    rng = random.Random(5)
    read = set()
    for says in relation.says:
        for _ in range(4):
            title = kind.title(rng, world.stem(rng.randrange(STEMS)))
            subject = f"the {title}" if kind.article else title
            answer = relation.draw(rng)
            stated = says.replace("{a}", answer).replace("{month}", "May")
            sentence = world._sentence(rng, stated, subject, None)
            raw = Document("w", "w", title, f"{sentence} Nothing else is told.", "", "", "")
            facts = read_document(1, raw).facts
            if any(exact_match(fact.answer, answer) for fact in facts):
                read.add(says)
    assert len(read) >= 3


def test_hardly_anything_is_read_that_is_not_stated(
    documents: list[WorldDocument], readings: list[Findings]
) -> None:
    extra = []
    for document, reading in zip(documents, readings, strict=True):
        answers = [fact.answer for fact in document.facts]
        extra += [
            fact.sentence
            for fact in reading.facts
            if not any(exact_match(fact.answer, answer) for answer in answers)
        ]
    assert len(extra) <= 0.02 * sum(len(reading.facts) for reading in readings), extra[:5]


# Asked -------------------------------------------------------------------------------------------


def test_the_worlds_own_wordings_are_never_the_learners(
    documents: list[WorldDocument], readings: list[Findings]
) -> None:
    facts = [fact for reading in readings for fact in reading.facts]
    learners = {q.casefold() for f in facts for q in (*f.questions, f.unseen)}
    worlds = {question.casefold() for d in documents for fact in d.facts for question in fact.never}
    assert len(worlds) >= 3 * 500
    assert not worlds & learners


def test_each_question_goes_with_its_answer(documents: list[WorldDocument]) -> None:
    wordings: Counter[str] = Counter()
    for document in documents[:60]:
        name = document.title
        for asked in document.questions:
            wordings[asked.wording] += 1
            assert any(asked.answer == fact.answer for fact in document.facts)
            assert name in asked.question or name.split()[-2] in asked.question
            assert asked.answer not in asked.question
    assert wordings["never"] >= 3 * wordings["seen"] > 0


def test_a_seen_question_is_trained_for_others_and_not_for_this_fact(
    documents: list[WorldDocument], readings: list[Findings]
) -> None:
    for document, reading in zip(documents[:60], readings, strict=False):
        trained = {
            example.messages[0].content
            for example in examples.examples(reading)
            if example.messages
        }
        seen = [q for q in document.questions if q.wording == "seen"]
        assert seen
        assert not {q.question for q in seen} & trained


def test_probes_are_the_learners_and_the_worlds(documents: list[WorldDocument]) -> None:
    numbered = list(enumerate(documents[:10], start=1))
    others = [(-i, document) for i, document in enumerate(documents[10:20], start=1)]
    made = world.probes(numbered, "taught", others)
    readings = [world.reading(document, number) for number, document in numbered]
    lent = [world.reading(document, number) for number, document in others]
    learners = {
        probe.id for probe in write_probes(readings, lent, "taught") if probe.split == "taught"
    }
    assert {probe.id for worded, probe in made if worded == "seen"} <= learners
    never = [probe for worded, probe in made if worded == "never"]
    assert len(never) == 3 * len([1 for worded, _ in made if worded == "seen"])
    assert len({probe.id for _, probe in made}) == len(made)
    assert all(probe.distractors and probe.answer not in probe.distractors for _, probe in made)


# Files -------------------------------------------------------------------------------------------


def test_the_file_source_reads_what_the_program_writes(tmp_path: Path) -> None:
    program = PROJECT / "benchmarks" / "learning" / "world.py"
    command = [sys.executable, str(program), "--seed", "4", "--documents", "8"]
    subprocess.run([*command, "--out", str(tmp_path)], check=True, capture_output=True)
    made = {document.title: document for document in World(4).documents(8)}

    read = {raw.title: raw for raw in Files(tmp_path).documents(None)}
    assert read.keys() == made.keys()
    for title, raw in read.items():
        curated = curation.curate(raw)
        assert isinstance(curated, Document)
        assert curated.text == made[title].text

    rows = [json.loads(line) for line in (tmp_path / "documents.jsonl").open()]
    assert {row["title"]: row["text"] for row in rows} == {t: d.text for t, d in made.items()}
    asked = [json.loads(line) for line in (tmp_path / "questions.jsonl").open()]
    assert all(row.keys() == {"document", "question", "answers"} for row in asked)
    assert {row["document"] for row in asked} == made.keys()
    assert all(row["answers"][0] in made[row["document"]].text for row in asked)
