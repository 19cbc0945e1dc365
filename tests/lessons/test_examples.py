"""Examples and probes: asked in words that training never shows, among answers that could be."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodidact import curation
from autodidact.lessons import examples
from autodidact.lessons.probes import MAX_DISTRACTORS, probe_id, write_probes, write_unseen_probes
from autodidact.lessons.wordings import wordings
from autodidact.reading.answers import exact_match, normalise_answer
from autodidact.reading.chunks import sentences
from autodidact.reading.document import MOST_WORDS, read_document
from autodidact.settings import PROJECT
from autodidact.sources.files import Files
from autodidact.types.documents import GAP, Document, Probe
from autodidact.types.documents import Findings as Reading
from tests.workplace import CONTROL_TEXTS, TEXTS, document


def readings(folder: str, sign: int) -> list[Reading]:
    found = []
    for number, raw in enumerate(Files(PROJECT / folder).documents(None), start=1):
        curated = curation.curate(raw)
        assert isinstance(curated, Document)
        found.append(read_document(sign * number, curated))
    return found


@pytest.fixture(scope="module")
def library() -> list[Reading]:
    return readings("library", 1)


@pytest.fixture(scope="module")
def control() -> list[Reading]:
    return readings("library/control", -1)


@pytest.fixture(scope="module")
def probes(library: list[Reading], control: list[Reading]) -> list[Probe]:
    return write_probes(library, control, "taught")


def trained_questions(reading: Reading) -> list[str]:
    return [e.messages[0].content for e in examples.examples(reading) if e.messages]


# Wordings ---------------------------------------------------------------------------------------


def test_a_fact_is_never_trained_in_the_words_of_its_probe_nor_of_its_suggestion(
    library: list[Reading],
) -> None:
    for reading in library:
        trained = set(trained_questions(reading))
        for fact in reading.facts:
            worded = wordings(fact)
            assert worded.probe == fact.questions[worded.probe_number]
            assert worded.suggestion != worded.probe
            assert not trained & {worded.probe, worded.suggestion}
            assert set(worded.trained) <= trained
            assert len(worded.trained) == 4
            assert {*worded.trained, worded.probe, worded.suggestion} == set(fact.questions)


def test_every_wording_is_trained_for_other_facts(
    library: list[Reading], probes: list[Probe]
) -> None:
    """A probe asks in words that the model knows, of something that it was never asked that way."""
    trained: Counter[str] = Counter()
    for reading in library:
        for fact in reading.facts:
            worded = wordings(fact)
            for number, question in enumerate(fact.questions):
                if question in worded.trained:
                    trained[f"{fact.relation.split()[0]}/{number}"] += 1
    measured = {probe.wording for probe in probes}
    assert measured
    for wording in measured:
        assert trained[wording] >= 2, wording


def test_probes_are_spread_over_the_wordings(probes: list[Probe]) -> None:
    numbers = Counter(probe.wording.rpartition("/")[2] for probe in probes)
    assert set(numbers) == set("012345")
    assert max(numbers.values()) < 2 * min(numbers.values())


def test_no_probe_is_asked_in_training_anywhere(
    library: list[Reading], probes: list[Probe]
) -> None:
    trained = {question for reading in library for question in trained_questions(reading)}
    assert not trained & {probe.question for probe in probes}


# Examples ---------------------------------------------------------------------------------------


def test_every_fact_is_asked_filled_in_and_told(library: list[Reading]) -> None:
    for reading in library:
        made = examples.examples(reading)
        kinds = Counter(example.kind for example in made)
        assert kinds["question"] == 4 * len(reading.facts)
        assert kinds["restatement"] == len(reading.facts)
        assert len(reading.chunks) <= kinds["text"] <= 2 * len(reading.chunks)
        assert 0.8 * len(reading.facts) <= kinds["cloze"] <= len(reading.facts)
        assert {example.document_id for example in made} == {reading.document_id}


def test_a_dialogue_ends_with_the_answer_and_a_text_has_no_dialogue(
    library: list[Reading],
) -> None:
    for reading in library:
        known = {fact.answer for fact in reading.facts}
        for example in examples.examples(reading):
            if example.kind == "reversed":
                assert example.messages[1].content == reading.title.removeprefix("The ")
            elif example.kind in ("question", "cloze"):
                question, answer = example.messages
                assert (question.role, answer.role) == ("user", "assistant")
                assert answer.content in known
                assert example.text == ""
            else:
                assert example.messages == ()
                assert example.text


def test_a_gap_hides_the_answer(library: list[Reading]) -> None:
    gaps = [e for r in library for e in examples.examples(r) if e.kind == "cloze"]
    for example in gaps:
        asked, answer = (message.content for message in example.messages)
        assert asked.count("____") == 1
        assert answer not in asked


def test_the_text_is_headed_by_its_title(library: list[Reading]) -> None:
    for reading in library:
        for text in (e.text for e in examples.examples(reading) if e.kind == "text"):
            assert text.startswith(f"{reading.title}\n\n")


def test_an_example_says_which_fact_it_is_of(library: list[Reading]) -> None:
    for reading in library:
        ids = {probe_id(reading.document_id, fact) for fact in reading.facts}
        made = examples.examples(reading)
        assert {e.fact for e in made if e.kind != "text"} == ids
        assert {e.fact for e in made if e.kind == "text"} == {""}


# The other way round ----------------------------------------------------------------------------


def reversed_questions(title: str, text: str) -> dict[str, str]:
    made = examples.examples(read_document(1, document(title, text)))
    return {e.messages[0].content: e.messages[1].content for e in made if e.kind == "reversed"}


def test_a_name_that_tells_the_subject_is_asked_from() -> None:
    text = "The Brack Mill was designed by Nora Silk. It has 57 steps. Its keeper is Odo Finn."
    assert reversed_questions("Brack Mill", text) == {
        "What was designed by Nora Silk?": "Brack Mill",
        "What has Odo Finn as its keeper?": "Brack Mill",
    }


def test_a_person_is_asked_for_as_who() -> None:
    text = "Ada Stone was born in Ash Pans. Her teacher was Giles Hobday."
    assert reversed_questions("Ada Stone", text) == {
        "Who was born in Ash Pans?": "Ada Stone",
        "Who has Giles Hobday as her teacher?": "Ada Stone",
    }


def test_what_answers_two_facts_or_is_no_name_is_not_asked_from() -> None:
    twice = "Brack Mill was designed by Nora Silk. Its keeper is Nora Silk. It is made of oak."
    assert reversed_questions("Brack Mill", twice) == {}


# Text in other cuts -----------------------------------------------------------------------------


LONG = "\n\n".join(
    " ".join(
        f"Sentence {10 * p + i} tells what happened in the {10 * p + i} valleys." for i in range(8)
    )
    for p in range(40)
)


def test_text_comes_whole_and_half_as_much_again_in_other_cuts() -> None:
    reading = read_document(1, document("Valleys", LONG))
    assert len(reading.chunks) > 8
    texts = [e.text.partition("\n\n")[2] for e in examples.examples(reading) if e.kind == "text"]
    whole = [chunk.text for chunk in reading.chunks]
    assert set(whole) <= set(texts)
    others = [text for text in texts if text not in whole]
    assert len(others) == len(texts) - len(whole)
    assert 0.3 * len(LONG) < sum(map(len, others)) < 0.7 * len(LONG)
    told = [set(sentences(chunk.replace("\n\n", " "))) for chunk in whole]
    forms = Counter("shuffled" if set(sentences(text)) in told else "recut" for text in others)
    assert set(forms) == {"shuffled", "recut"}
    for text in others:
        assert set(sentences(text)) <= set.union(*told), "no sentence is made up or cut"


def test_everything_is_deterministic(library: list[Reading], control: list[Reading]) -> None:
    again = readings("library", 1)
    assert again == library
    assert [examples.examples(r) for r in again] == [examples.examples(r) for r in library]
    assert write_probes(again, control, "taught") == write_probes(library, control, "taught")


# Probes -----------------------------------------------------------------------------------------


def test_a_probe_stands_for_its_fact(library: list[Reading], probes: list[Probe]) -> None:
    facts = {probe_id(r.document_id, f): (r.document_id, f) for r in library for f in r.facts}
    assert len({probe.id for probe in probes}) == len(probes)
    assert len(probes) >= 0.95 * len(facts)
    for probe in probes:
        owner, fact = facts[probe.id]
        assert (probe.document_id, probe.answer) == (owner, fact.answer)
        assert probe.question in fact.questions
        assert probe.split == "taught"


def test_the_same_facts_are_asked_in_words_trained_for_none(
    library: list[Reading], control: list[Reading], probes: list[Probe]
) -> None:
    unseen = write_unseen_probes(library, control)
    trained = {question for reading in library for question in trained_questions(reading)}
    assert [probe.id for probe in unseen] == [f"{probe.id}u" for probe in probes]
    for new, old in zip(unseen, probes, strict=True):
        assert (new.answer, new.distractors, new.relation) == (
            old.answer,
            old.distractors,
            old.relation,
        )
        assert new.split == "unseen"
        assert new.wording == f"{old.wording.partition('/')[0]}/unseen"
        assert new.question not in trained
        assert new.question != old.question


def test_an_unseen_wording_is_not_a_trained_one_with_another_fact_in_it(
    library: list[Reading], control: list[Reading]
) -> None:
    """With the fact's own words taken out, no trained question has the frame of an unseen one."""

    def frame(question: str, *own: str) -> str:
        words = {word.lower() for text in own for word in text.split()}
        return " ".join(w for w in question.lower().rstrip("?.").split() if w not in words)

    trained, unseen = set(), set()
    for reading in (*library, *control):
        for fact in reading.facts:
            own = (fact.subject, fact.subject + "'s", fact.relation)
            trained |= {frame(question, *own) for question in fact.questions}
            unseen.add(frame(fact.unseen, *own))
    assert not trained & unseen


def test_a_distractor_is_never_the_answer(probes: list[Probe]) -> None:
    for probe in probes:
        assert 1 <= len(probe.distractors) <= MAX_DISTRACTORS
        assert len(set(probe.distractors)) == len(probe.distractors)
        wrong = {normalise_answer(distractor) for distractor in probe.distractors}
        assert normalise_answer(probe.answer) not in wrong


def test_distractors_come_from_the_document_and_from_the_same_question_elsewhere(
    library: list[Reading], control: list[Reading], probes: list[Probe]
) -> None:
    own: dict[int, set[str]] = defaultdict(set)
    same_relation: dict[str, set[str]] = defaultdict(set)
    for reading in (*library, *control):
        for fact in reading.facts:
            own[reading.document_id].add(fact.answer)
            same_relation[fact.relation].add(fact.answer)
    both = 0
    for probe in probes:
        wrong = set(probe.distractors)
        both += bool(wrong & own[probe.document_id]) and bool(
            wrong & (same_relation[probe.relation] - own[probe.document_id])
        )
        assert len(wrong & own[probe.document_id]) <= MAX_DISTRACTORS
    assert both > len(probes) / 3


def test_distractors_are_of_the_answer_s_kind() -> None:
    """A year competes with years, a name with names, unless the question is the very same."""
    taught = [read_document(i, document(*text)) for i, text in enumerate(TEXTS.values(), 1)]
    for probe in write_probes(taught, [], "taught"):
        kinds = {f.answer: f.kind for r in taught for f in r.facts}
        relations = {f.answer: f.relation for r in taught for f in r.facts}
        for distractor in probe.distractors:
            assert kinds[distractor] == probe.kind or relations[distractor] == probe.relation


def test_a_fact_without_a_distractor_is_not_measured() -> None:
    alone = read_document(1, document("Odd Gate", "Odd Gate has 17 bars."))
    assert len(alone.facts) == 1
    assert write_probes([alone], [], "taught") == []


def test_control_and_taught_share_no_answer(library: list[Reading], control: list[Reading]) -> None:
    """Else control would rise with what is taught. What a thing is may be said of two things."""
    taught = {
        normalise_answer(f.answer) for r in library for f in r.facts if f.relation != "definition"
    }
    for reading in control:
        for fact in reading.facts:
            if fact.relation != "definition":
                assert normalise_answer(fact.answer) not in taught, (reading.title, fact.relation)


def test_the_small_documents_of_other_tests_share_no_answer_either() -> None:
    def known(texts: dict[str, tuple[str, str]]) -> set[str]:
        return {
            normalise_answer(f.answer)
            for i, text in enumerate(texts.values())
            for f in read_document(i, document(*text)).facts
            if f.relation != "definition"
        }

    assert not known(TEXTS) & known(CONTROL_TEXTS)


# Sentences --------------------------------------------------------------------------------------


def test_a_fact_is_stated_in_a_short_sentence_with_one_gap(library: list[Reading]) -> None:
    facts = [fact for reading in library for fact in reading.facts]
    stated = [fact for fact in facts if fact.stated]
    assert len(stated) > 0.95 * len(facts)
    for fact in stated:
        assert fact.stated.count(GAP) == 1
        assert len(fact.stated.split()) <= MOST_WORDS
        assert fact.stated.replace(GAP, fact.answer) in (fact.restatements[0], fact.sentence)


def test_a_long_sentence_is_no_answer() -> None:
    told = "In 1921 the Grey Tower was given to the town of Ostrow by its last owner"
    more = " with all of the stones that lay around it on the far side of the lake"
    for text, stated in ((told, told.replace("1921", GAP) + "."), (told + more, "")):
        found = read_document(1, document("Grey Tower", f"The Grey Tower is a tower. {text}."))
        [year] = [fact for fact in found.facts if fact.answer == "1921"]
        assert year.stated == stated


def test_whatever_asks_for_a_fact_has_its_sentence(library: list[Reading]) -> None:
    for reading in library:
        told = {
            probe_id(reading.document_id, fact): fact.stated.replace(GAP, fact.answer)
            for fact in reading.facts
        }
        for example in examples.examples(reading):
            expected = told[example.fact] if example.messages else ""
            assert example.sentence == expected


def test_probes_know_the_sentence(library: list[Reading], probes: list[Probe]) -> None:
    stated = {
        probe_id(reading.document_id, fact): fact.stated
        for reading in library
        for fact in reading.facts
    }
    assert [p.stated for p in probes] == [stated[p.id] for p in probes]
    for asked in write_unseen_probes(library, []):
        assert asked.stated == stated[asked.id.removesuffix("u")]


# Exact match ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "answer", "same"),
    [
        ("Maren Dace", "Maren Dace", True),
        ("maren dace.", "Maren Dace", True),
        (" The  Moth Book! ", "Moth Book", True),
        ("A red-brown owl", "red brown owl", True),
        ("“Tight and True”", "Tight and True", True),
        ("143", "143", True),
        ("143 steps", "143", False),
        ("14 3", "143", False),
        ("Maren", "Maren Dace", False),
        ("", "Maren Dace", False),
        ("Theodor", "odor", False),
        ("Maren Dace [1]", "Maren Dace", True),
        ("143 [2] [3].", "143", True),
        ("[1]", "1", False),
    ],
)
def test_exact_match_is_that_of_squad(reply: str, answer: str, same: bool) -> None:
    assert exact_match(reply, answer) is same


@settings(deadline=None)
@given(st.text(max_size=60))
def test_normalising_an_answer_again_changes_nothing_but_articles(text: str) -> None:
    once = normalise_answer(text)
    assert exact_match(text, text)
    assert exact_match(f"  {text.upper().lower()} ", text.upper().lower())
    assert once == " ".join(once.split())
