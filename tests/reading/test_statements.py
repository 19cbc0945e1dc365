"""Reading facts by rule: what each shape gives, and what must give nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodidact import curation
from autodidact.reading import statements, topic
from autodidact.reading.answers import MAX_ANSWER_WORDS
from autodidact.reading.chunks import chunks
from autodidact.reading.predicates import told
from autodidact.settings import PROJECT
from autodidact.sources.files import Files
from autodidact.types.documents import Document, Fact
from tests.workplace import chunk

THING = "Brack Mill"
PERSON = "Ada Stone"


def read(text: str, title: str = THING, ordinal: int = 0) -> dict[str, Fact]:
    """Facts by relation."""
    found = statements.read(chunk(title, text, ordinal))
    assert len({fact.relation for fact in found}) == len(found)
    return {fact.relation: fact for fact in found}


def answers(text: str, title: str = THING, ordinal: int = 0) -> dict[str, str]:
    return {relation: fact.answer for relation, fact in read(text, title, ordinal).items()}


# A line a sentence: what is read in it, one of its questions, one of its restatements ----------

SHAPES = [
    # Definitions, in the first sentence only.
    ("The Brack Mill is a windmill on Gorse Hill.", "definition", "windmill",
     "What is the Brack Mill?", "The Brack Mill is a windmill."),
    ("Brack Mill was an old coal barge.", "definition", "old coal barge",
     "What kind of thing was Brack Mill?", "Brack Mill was an old coal barge."),
    ("Brack Mill is a mill, known for its red sails.", "definition", "mill",
     "Say what Brack Mill is.", "Brack Mill is a mill."),
    # Years.
    ("Brack Mill was built in 1794.", "year built", "1794",
     "When was Brack Mill built?", "In 1794, Brack Mill was built."),
    ("The Brack Mill was first climbed in May 1803 by two boys.", "year first climbed", "1803",
     "Give the year when the Brack Mill was first climbed.",
     "The Brack Mill was first climbed in 1803."),
    ("Brack Mill was torn down in 1899.", "year torn down", "1899",
     "In what year was Brack Mill torn down?", "Brack Mill was torn down in 1899."),
    # By whom.
    ("Brack Mill was paid for by Nora Silk.", "by paid for", "Nora Silk",
     "Who was Brack Mill paid for by?", "Brack Mill was paid for by Nora Silk."),
    ("Brack Mill was designed by the Earl of Marl in his youth.", "by designed", "the Earl of Marl",
     "By whom was Brack Mill designed?", "It is by the Earl of Marl that Brack Mill was designed."),
    # Attributes, both ways round.
    ("Brack Mill's keeper is Odo Finn.", "attribute keeper", "Odo Finn",
     "Who is the keeper of Brack Mill?", "Odo Finn is Brack Mill's keeper."),
    ("The colour of the Brack Mill is crimson.", "attribute colour", "crimson",
     "What is the Brack Mill's colour?", "The colour of the Brack Mill is crimson."),
    ("Brack Mill's usual penalty was public ducking.", "attribute usual penalty", "public ducking",
     "What was the usual penalty of Brack Mill?",
     "The usual penalty of Brack Mill was public ducking."),
    # Material.
    ("Brack Mill is made of grey granite.", "material", "grey granite",
     "What is Brack Mill made of?", "The material of Brack Mill is grey granite."),
    ("Brack Mill was mostly made from oak.", "material", "oak",
     "Of what was Brack Mill made?", "Brack Mill was made of oak."),
    # Counts and measures.
    ("Brack Mill has 57 steps.", "count steps", "57",
     "How many steps does Brack Mill have?", "The number of steps of Brack Mill is 57."),
    ("Brack Mill had about forty-two windows in its walls.", "count windows", "forty-two",
     "How many windows did Brack Mill have?", "Brack Mill had forty-two windows."),
    ("Brack Mill is 31 metres high.", "measure high", "31 metres",
     "How high is Brack Mill?", "Brack Mill is 31 metres high."),
    ("Brack Mill was nearly 2.5 miles long.", "measure long", "2.5 miles",
     "How long was Brack Mill?", "Brack Mill was 2.5 miles long."),
    # Places.
    ("Brack Mill stands on Gorse Hill.", "place stand", "Gorse Hill",
     "Where does Brack Mill stand?", "Brack Mill stands on Gorse Hill."),
    ("Brack Mill lay near the north shore.", "place lie", "north shore",
     "Where did Brack Mill lie?", "The place where Brack Mill lay is north shore."),
    ("Brack Mill is located in Low Fold.", "place lie", "Low Fold",
     "Where does Brack Mill lie?", "Brack Mill lies in Low Fold."),
    ("Brack Mill hangs from a chain.", "place hang", "chain",
     "From where does Brack Mill hang?", "Brack Mill hangs from a chain."),
    # Purpose, name.
    ("Brack Mill is used for grinding barley.", "used for", "grinding barley",
     "What is Brack Mill used for?", "It is for grinding barley that Brack Mill is used."),
    ("Brack Mill is best known for its yellow poppies.", "known for", "its yellow poppies",
     "What is Brack Mill known for?", "Brack Mill is known for its yellow poppies."),
    ("Brack Mill is named after Nora Silk.", "named after", "Nora Silk",
     "Who is Brack Mill named after?", "The name of Brack Mill comes from Nora Silk."),
    ("Brack Mill is named after a red bird.", "named after", "red bird",
     "What is Brack Mill named after?", "Brack Mill is named after a red bird."),
]  # fmt: skip
PEOPLE = [
    ("Ada Stone was born in 1652.", "year was born", "1652",
     "When was Ada Stone born?", "In 1652, Ada Stone was born."),
    ("Ada Stone died on 3 May in 1726, in her sleep.", "year died", "1726",
     "What year did Ada Stone die in?", "Ada Stone died in 1726."),
    ("Ada Stone was born in Ash Pans.", "place was born", "Ash Pans",
     "Where was Ada Stone born?", "The place where Ada Stone was born is Ash Pans."),
    ("Ada Stone died at the Holm of Ayre.", "place died", "Holm of Ayre",
     "Where did Ada Stone die?", "The place where Ada Stone died is Holm of Ayre."),
    ("Ada Stone married Roland Teal.", "did married", "Roland Teal",
     "Who was married by Ada Stone?", "Ada Stone married Roland Teal."),
    ("Ada Stone wrote the Moth Book.", "did wrote", "Moth Book",
     "What was written by Ada Stone?", "The Moth Book was written by Ada Stone."),
    ("Ada Stone invented a tide clock.", "did invented", "tide clock",
     "Tell me what Ada Stone invented.", "A tide clock was invented by Ada Stone."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("title", "sentence", "relation", "answer", "question", "restatement"),
    [(THING, *row) for row in SHAPES] + [(PERSON, *row) for row in PEOPLE],
    ids=[row[0] for row in [*SHAPES, *PEOPLE]],
)
def test_a_shape_gives_a_fact(
    title: str, sentence: str, relation: str, answer: str, question: str, restatement: str
) -> None:
    found = read(sentence, title)
    assert list(found) == [relation]
    fact = found[relation]
    assert fact.answer == answer
    assert question in fact.questions
    assert restatement in fact.restatements
    assert len(fact.questions) == len({*fact.questions, fact.unseen} - {fact.unseen}) == 6
    for asked in (*fact.questions, fact.unseen):
        assert answer not in asked, "no question gives the answer away"
        assert title in asked
    assert all(answer in restated or answer.capitalize() in restated
               for restated in fact.restatements)  # fmt: skip
    assert (
        fact.sentence == sentence.replace(title, fact.subject.removeprefix("the ")) or fact.sentence
    )


def test_every_rule_reads_one_of_them() -> None:
    """So that each of its templates is filled in."""
    met = set()
    for title, rows in ((THING, SHAPES), (PERSON, PEOPLE)):
        for text, *_ in rows:
            [sentence] = told(topic.subject(title, text), chunk(title, text))
            fits = [r for r in statements.RULES if r.shape.fullmatch(sentence.predicate)]
            met.add(fits[0])
    assert met == set(statements.RULES)


@pytest.mark.parametrize(
    "sentence",
    [
        "Tolk Bridge was built in 1688.",  # another subject
        "Brack Milling was built in 1794.",  # another word
        "Brack Mill is one of the oldest.",  # vague
        "Brack Mill is a type of engine.",  # vague
        "Brack Mill has many windows.",  # no number
        "Brack Mill may be of 1794.",  # no shape
        "Was Brack Mill built in 1794?",  # a question
        "Brack Mill was built in the spring.",  # no year
        "Brack Mill was built by hand.",  # nobody
        "Brack Mill is made of wood, iron, stone and other things that were at hand.",  # a list
        "Brack Mill's keeper is the keeper of Brack Mill.",  # the answer is the subject
        "Brack Mill's miller was a man who came from over the sea and never told his name.",  # long
        "Brack Mill is 31 metres.",  # of what?
        "Brack Mill's miller is called President.",  # a title, and no answer
        "Brack Mill pushed deep into the hill.",  # no object
        "Brack Mill followed the project for another nine months.",  # more than an object
        "Few people remember Brack Mill.",
        "",
    ],
)
def test_what_fits_no_shape_or_is_vague_gives_nothing(sentence: str) -> None:
    assert answers(sentence) == {}


def test_a_definition_is_read_in_the_first_sentence_only() -> None:
    assert answers("Brack Mill is a windmill. Brack Mill is a ruin.") == {"definition": "windmill"}
    assert answers("Brack Mill stands on Gorse Hill. Brack Mill is a ruin.") == {
        "place stand": "Gorse Hill"
    }
    assert answers("Brack Mill is a windmill.", ordinal=1) == {}, "nor in a later chunk"


# Whom a sentence is about -----------------------------------------------------------------------


def test_a_pronoun_stands_for_the_subject() -> None:
    found = answers(
        "Brack Mill is a windmill. It was built in 1794. Its keeper is Odo Finn. It has 57 steps."
    )
    assert found == {
        "definition": "windmill",
        "year built": "1794",
        "attribute keeper": "Odo Finn",
        "count steps": "57",
    }


def test_a_pronoun_is_resolved_in_what_is_taught() -> None:
    fact = read("Brack Mill is a windmill. It was built in 1794.")["year built"]
    assert fact.sentence == "Brack Mill was built in 1794."
    assert fact.subject == "Brack Mill"


def test_a_pronoun_stops_standing_for_the_subject_after_another_one() -> None:
    text = "Brack Mill is a windmill. The miller was rich. It was built in 1794. It has 57 steps."
    assert answers(text) == {"definition": "windmill"}


def test_an_empty_it_stands_for_nothing() -> None:
    text = "Brack Mill is a windmill. It is said that the miller was rich. It was built in 1794."
    assert answers(text) == {"definition": "windmill"}


def test_they_are_the_subject_only_if_its_name_is_a_plural() -> None:
    text = "{0} {1} a windmill. They were built in 1794."
    assert "year built" not in answers(text.format("Brack Mill", "is"))
    assert "year built" in answers(text.format("Brack Mills", "were"), "Brack Mills")


LIFE = "Ada Stone (1820–1881) was a botanist from Kew."


def test_a_person_with_a_life_span_is_also_called_by_the_surname() -> None:
    text = (
        f"{LIFE} Her aunt drew her. Stone discovered the marsh orchid. Stone wrote the Moth Book."
    )
    text += " The papers of Stone are lost. Her teacher was Giles Hobday."
    found = answers(text, PERSON)
    assert found["did discovered"] == "marsh orchid"
    assert found["did wrote"] == "Moth Book"
    about = topic.subject(PERSON, text)
    assert (about.name, about.alias, about.pronoun) == (PERSON, "Stone", "She")


def test_a_name_shared_with_others_is_no_surname_to_go_by() -> None:
    text = f"{LIFE} Her aunt was Eva Stone. Tom Stone was her uncle. Stone discovered the orchid."
    assert topic.subject(PERSON, text).alias == ""


@pytest.mark.parametrize("title", ["Yuan dynasty", "Warsaw", "Apollo 11"])
def test_what_cannot_be_a_person_s_name_is_never_he(title: str) -> None:
    assert topic.subject(title, f"{title} is old. He died in 1840. He was rich.").pronoun == "It"
    assert "year died" not in answers(f"{title} is old. He died in 1840.", title)


def test_page_numbers_left_over_from_references_do_not_hide_a_sentence_s_end() -> None:
    text = "Brack Mill stands on Gorse Hill.:121,154 Brack Mill was built in 1794."
    assert answers(text) == {"place stand": "Gorse Hill", "year built": "1794"}


def test_the_subject_named_again_takes_the_pronouns_back() -> None:
    text = "The miller was rich. Brack Mill was built in 1794. It has 57 steps."
    assert answers(text) == {"year built": "1794", "count steps": "57"}


def test_a_new_paragraph_is_about_the_subject_again() -> None:
    text = "Brack Mill is a windmill. The miller was rich.\n\nIts keeper is Odo Finn."
    assert answers(text)["attribute keeper"] == "Odo Finn"


@pytest.mark.parametrize(
    "text",
    [
        "The Brack Mill was built by Tom Hall. He died in 1840.",
        "Brack Mill is a windmill. It was built by Tom Hall. He died in 1840.",
        "Brack Mill is a windmill. Its owner was Ada Stone. She died in 1840.",
    ],
)
def test_a_mill_does_not_die(text: str) -> None:
    assert "year died" not in answers(text)


def test_a_person_keeps_his_pronoun() -> None:
    text = "Ada Stone was a clockmaker. Her teacher was Giles Hobday. She invented the tide clock."
    assert answers(text, PERSON) == {
        "definition": "clockmaker",
        "attribute teacher": "Giles Hobday",
        "did invented": "tide clock",
    }


def test_an_attribute_of_a_part_is_told_with_the_part() -> None:
    text = "Brack Mill is a windmill. The colour of its lamp is amber."
    assert answers(text)["attribute lamp colour"] == "amber"


def test_a_bracket_in_the_title_is_not_part_of_the_name() -> None:
    assert answers("Brack Mill was built in 1794.", "Brack Mill (Marl)") == {"year built": "1794"}


def test_the_article_is_used_where_the_text_uses_it() -> None:
    assert read("The Brack Mill has 57 steps.")["count steps"].subject == "the Brack Mill"
    assert read("Brack Mill has 57 steps.")["count steps"].subject == "Brack Mill"
    assert read("The Hague has 57 steps.", "The Hague")["count steps"].subject == "the Hague"


# Life spans, ambiguity --------------------------------------------------------------------------


def test_years_of_birth_and_death_are_read_from_the_first_bracket() -> None:
    found = answers("Ada Stone (12 May 1820 – 3 June 1881) was a botanist from Kew.", PERSON)
    assert found == {"definition": "botanist", "year was born": "1820", "year died": "1881"}
    assert answers("Ada Stone (1820-1881) was a botanist.", PERSON)["year died"] == "1881"


def test_a_bracket_that_is_no_life_span_is_none() -> None:
    for text in (
        "Ada Stone (born 1820) was a botanist.",
        "Ada Stone was a botanist. Ada Stone (1820–1881) was happy.",
        "Tom Hall (1820–1881) was a miller.",
    ):
        assert "year died" not in answers(text, PERSON)
    text = "Ada Stone (1820–1881) was a botanist."
    assert "year died" not in answers(text, PERSON, ordinal=1), "in the first chunk only"


def test_two_answers_to_one_question_are_no_fact() -> None:
    assert answers("Brack Mill was built in 1794. Brack Mill was built in 1801.") == {}
    text = "Brack Mill was built in 1794. Brack Mill was built in 1794."
    assert answers(text) == {"year built": "1794"}


# Everything -------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.text(max_size=200), st.text(min_size=1, max_size=30))
def test_no_text_and_no_title_upset_the_reader(text: str, title: str) -> None:
    for fact in statements.read(chunk(title, f"{title} {text}")):
        assert fact.answer
        assert len(fact.questions) == 6
        assert fact.unseen not in fact.questions


@pytest.fixture(scope="module")
def library() -> list[Document]:
    found = [curation.curate(d) for d in Files(PROJECT / "library").documents(None)]
    assert all(isinstance(d, Document) for d in found)
    return found  # type: ignore[return-value]


def test_the_library_is_full_of_facts(library: list[Document]) -> None:
    found = [(d, f) for d in library for c in chunks(1, d) for f in statements.read(c)]
    assert len(found) >= 250
    for document, fact in found:
        assert fact.answer in document.text, "literally"
        assert 1 <= len(fact.answer.split()) <= MAX_ANSWER_WORDS
        assert len({*fact.questions, fact.unseen}) == 7
        for asked in (*fact.questions, fact.unseen):
            assert fact.subject.removeprefix("the ") in asked
            assert fact.answer not in asked
            assert "____" in asked or asked[-1] in "?."
    assert len({d.title for d, _ in found}) == len(library)


def test_reading_is_deterministic(library: list[Document], tmp_path: Path) -> None:
    def all_facts() -> list[Fact]:
        return [f for d in library for c in chunks(1, d) for f in statements.read(c)]

    assert all_facts() == all_facts()
