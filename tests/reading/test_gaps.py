"""Gaps: which answers are clear-cut, how they are asked for, and what must give nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodidact.reading import gaps, statements, topic
from autodidact.reading.answers import MAX_ANSWER_WORDS
from autodidact.reading.document import read_document
from autodidact.types.documents import Fact
from tests.workplace import chunk, document

TITLE = "Brack Mill"
TESLA = "Nikola Tesla"
LIFE = "Nikola Tesla (1856–1943) was an inventor. His father taught him. Tesla rose early. "
LIFE += "His mother sang. They say that Tesla slept little, and that Tesla ate less.\n\n"


def read(text: str, title: str = TITLE) -> list[Fact]:
    piece = chunk(title, text, 1)
    about = topic.subject(title, LIFE + text if title == TESLA else text)
    return gaps.read(piece, about)


def answers(text: str, title: str = TITLE) -> dict[str, str]:
    """Answers, and what kind each is."""
    return {fact.answer: fact.kind for fact in read(text, title)}


SENTENCES = [
    ("The parish of Low Fold sold the granite quarry behind the church in 1884.", "1884", "year",
     "In which year was it that the parish of Low Fold sold the granite quarry behind the church?"),
    ("In 1884 the parish of Low Fold sold the granite quarry behind the church.", "1884", "year",
     "In which year was it that the parish of Low Fold sold the granite quarry behind the church?"),
    ("The quarry behind Low Fold was sold to the parish on 7 January 1843.",
     "7 January 1843", "date",
     "On which date was it that the quarry behind Low Fold was sold to the parish?"),
    ("The quarry behind Low Fold belonged to the parish during the 1960s.", "1960s", "decade",
     "During which decade was it that the quarry behind Low Fold belonged to the parish?"),
    ("The quarry behind Low Fold was flooded in the 17th century.", "17th century", "century",
     "In which century was it that the quarry behind Low Fold was flooded?"),
    ("In the year of the flood the people of Low Fold counted about 431 sheep on the hill.", "431",
     "number",
     "the people of Low Fold counted how many sheep on the hill?"),
    ("The parish of Low Fold sold the granite quarry for $3 million.", "$3 million", "sum",
     "The parish of Low Fold sold the granite quarry for how much money?"),
    ("The granite quarry gave work to 35% of the men of Low Fold.", "35%", "percentage",
     "The granite quarry gave work to what percentage of the men of Low Fold?"),
    ("The men of Low Fold had a stone saw that they called \"the biter\" in their songs.",
     "the biter", "term",
     "The men of Low Fold had a stone saw that they called what in their songs?"),
    ("The first granite blocks for the harbour were bought by George Hale in winter.",
     "George Hale", "person",
     "By whom was it that the first granite blocks for the harbour were bought in winter?"),
    ("Granite from the quarry above the village was shipped to Norway after the flood.",
     "Norway", "country",
     "Granite from the quarry above the village was shipped to which country after the flood?"),
    ("Granite from the old quarry was carried in barges along the Marl River every spring.",
     "Marl River", "name",
     "Granite from the old quarry was carried in barges along which river every spring?"),
    ("George Hale opened the old granite quarry above the village once more.",
     "George Hale", "person",
     "Who opened the old granite quarry above the village once more?"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "answer", "kind", "question"), SENTENCES)
def test_a_clear_cut_span_is_asked_for_where_it_stands(
    sentence: str, answer: str, kind: str, question: str
) -> None:
    [fact] = [fact for fact in read(sentence) if fact.answer == answer]
    assert fact.kind == kind
    assert any(asked.endswith(question) for asked in fact.questions), fact.questions
    assert fact.sentence == sentence
    assert fact.relation.startswith("span ")
    holed = sentence.replace(answer, "____")
    assert f"{TITLE}. Fill in the blank: {holed}" in fact.questions
    for asked in (*fact.questions, fact.unseen):
        assert answer not in asked, "no question gives the answer away"
        assert TITLE in asked
    assert len({*fact.questions, fact.unseen}) == 7
    assert fact.unseen not in fact.questions


def test_the_telling_words_ask_in_order() -> None:
    text = "Tesla emigrated to the United States in 1884 to work for Thomas Edison."
    [fact] = [fact for fact in read(text, TESLA) if fact.kind == "year"]
    assert "Nikola Tesla, which year: emigrated, United States, work, Thomas Edison?" in (
        fact.questions
    )
    assert fact.unseen == (
        "Tesla emigrated to the United States in a certain year to work for Thomas Edison. "
        "Name that year; the topic is Nikola Tesla."
    )


@pytest.mark.parametrize(
    "sentence",
    [
        "The quarry was sold in 1884.",  # too short to be told apart
        "This was why the parish of Low Fold sold the granite quarry in 1884.",  # leans on before
        "They sold the granite quarry behind the church of Low Fold in 1884.",  # who?
        "After the flood he sold the granite quarry behind the church in 1884.",  # who?
        "The parish sold the granite quarry behind the church that same year for $3.",
        "The granite quarry was open from 1884 to 1890 and stood empty ever after.",  # two years
        "The blocks went by cart to Ash, Beck and Cray as long as the roads were dry.",  # a list
        "Low walls of granite were what the Marl shepherds wanted most in a hard winter.",
        "Was the granite quarry behind the church of the parish sold in 1884?",  # a question
        "Third, George Hale sold the granite quarry behind the church in 1884.",
        "The previous record was 244 blocks in a day by George Hale and his men.",
        "The parish sold the granite quarry with 9 of 28 new saws in 1913 being worn ones.",
        "Section 12 of the statute lets the parish sell the quarry behind the church.",
        "The parish sold the quarry (behind the church in 1884 for little money.",  # half a bracket
        "The parish sold the quarry in 1884, and in 1884 the parish bought the quarry back.",
        "",
    ],
)  # fmt: skip
def test_what_is_unclear_gives_nothing(sentence: str) -> None:
    assert answers(sentence) == {}


def test_a_pronoun_that_stands_for_the_subject_is_replaced_by_it() -> None:
    text = "Tesla went to New York. He opened a small electrical laboratory in Houston in 1886."
    [fact] = [fact for fact in read(text, TESLA) if fact.kind == "year"]
    assert fact.sentence == (
        "Nikola Tesla opened a small electrical laboratory in Houston in 1886."
    )


def test_a_pronoun_after_another_subject_is_not() -> None:
    text = "Edison went to New York. He opened a small electrical laboratory in Houston in 1886."
    assert answers(text, TESLA) == {}


def test_the_subject_is_no_answer() -> None:
    text = "The granite for the harbour of the old town came from Brack Mill in barges."
    assert TITLE not in answers(text)


def test_a_sentence_gives_two_gaps_and_a_chunk_ten() -> None:
    sentence = "In 18{0} George Hale sold {0} old granite blocks to Norway for ${0} million."
    assert len(read(sentence.format(11))) == gaps.PER_SENTENCE
    text = " ".join(sentence.format(n) for n in range(11, 30))
    found = read(text)
    assert len(found) == gaps.PER_CHUNK
    assert len({fact.sentence for fact in found}) == gaps.PER_CHUNK, "first one of each sentence"


def test_a_sentence_that_a_rule_reads_is_left_alone() -> None:
    text = "Brack Mill was built in 1794 by order of the parish council of Low Fold."
    piece = chunk(TITLE, text, 1)
    about = topic.subject(TITLE, text)
    assert statements.sentences_read(piece, about) == {text}
    assert gaps.read(piece, about, {text}) == []
    assert [f.relation for f in read_document(1, document(TITLE, text)).facts] == ["year built"]


VOCABULARY = """
    The In of Low Fold George Hale was sold to by in 1884 7 January sheep $3 million 40% " , he it
    Norway Marl River and called quarry granite the a . ( ) – ’s
"""
WORD = st.sampled_from(VOCABULARY.split())


@settings(deadline=None, max_examples=300)
@given(st.lists(WORD, max_size=40).map(" ".join) | st.text(max_size=200), st.text(min_size=1))
def test_no_text_upsets_the_reader_and_no_gap_gives_its_answer_away(text: str, title: str) -> None:
    piece = chunk(title, f"{text}.", 0)
    about = topic.subject(title, piece.text)
    found = gaps.read(piece, about)
    assert found == gaps.read(piece, about), "deterministic"
    assert len(found) <= gaps.PER_CHUNK
    for fact in found:
        assert len(fact.questions) == 6
        assert len(fact.answer.split()) <= MAX_ANSWER_WORDS
        assert fact.answer in fact.sentence
        assert fact.answer.lower() not in fact.unseen.replace(about.name, "").lower()
