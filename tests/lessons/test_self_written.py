"""What a large model writes about a text, and how little of it is believed."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from autodidact.lessons.self_written import Pair, grounded, implications, parse, write
from autodidact.types.chat import Message
from autodidact.types.documents import Chunk

TEXT = "The Anneck Light was built in 1794. Its keeper is Maren Dace, who came from Port Ulla."
CHUNK = Chunk("7:0", 7, "Anneck Light", TEXT)


def test_pairs_are_read_whatever_their_numbering() -> None:
    written = (
        "When was it built?\nAnswer: 1794\n\nQuestion 2: Who keeps it?\nAnswer 2: Maren Dace.\n"
        "Q: Where is she from?\nA: Port Ulla"
    )
    assert parse(written) == [
        Pair("When was it built?", "1794"),
        Pair("Who keeps it?", "Maren Dace"),
        Pair("Where is she from?", "Port Ulla"),
    ]


def test_only_short_spans_of_the_text_are_answers() -> None:
    good = Pair("When was the light built?", "1794")
    assert grounded(
        [
            good,
            Pair("When was the light built?", "1795"),
            Pair("Tell me about it", "1794"),
            Pair("Was it built in 1794?", "1794"),
            Pair("What does the text say?", TEXT),
            Pair("Who keeps the light?", "Dac"),
            Pair("Who keeps the light?", "..."),
        ],
        TEXT,
    ) == [good]


def test_an_implication_with_a_name_or_number_of_its_own_is_dropped() -> None:
    written = (
        "- The keeper of the light came from Port Ulla.\n"
        "2) The light was older than 200 years.\n"
        "* Maren Dace was born in Berlin.\n"
        "The Anneck Light was built in 1794.\n"
        "an unfinished line"
    )
    assert implications(written, TEXT) == ["The keeper of the light came from Port Ulla."]


class Scripted:
    """A model that writes what the test says and answers from a table."""

    def __init__(self, written: str, implied: str, answers: dict[str, str]) -> None:
        self.written, self.implied, self.answers = written, implied, answers
        self.seen: list[str] = []

    def __call__(self, dialogues: Sequence[Sequence[Message]], most: int) -> list[str]:
        replies = []
        for dialogue in dialogues:
            asked = dialogue[-1].content
            self.seen.append(asked)
            if "four questions" in asked:
                replies.append(self.written)
            elif "four sentences" in asked:
                replies.append(self.implied)
            else:
                replies.append(next((a for q, a in self.answers.items() if q in asked), "?"))
        return replies


def test_a_question_that_the_model_answers_otherwise_with_the_text_before_it_is_dropped() -> None:
    model = Scripted(
        "When was it built?\nAnswer: 1794\nQuestion: Who keeps the light?\nAnswer: Port Ulla",
        "- The light has a keeper.",
        {"When was it built?": "In 1794".removeprefix("In "), "Who keeps": "Maren Dace"},
    )
    made = write(model, [CHUNK], 60, lambda done: None)
    assert [(e.kind, e.document_id, e.chunk_id) for e in made] == [
        ("question", 7, "7:0"),
        ("restatement", 7, "7:0"),
    ]
    assert made[0].messages == (
        Message("user", "When was it built?"),
        Message("assistant", "1794"),
    )
    assert made[1].text == "The light has a keeper."
    assert all(TEXT in asked for asked in model.seen)


def test_it_ends_when_its_time_is_spent() -> None:
    chunks = [Chunk(f"7:{i}", 7, "Anneck Light", TEXT) for i in range(40)]
    model = Scripted("", "", {})
    assert write(model, chunks, 0.0, lambda done: None) == []
    assert len(model.seen) == 16, "one batch of questions and one of implications"


def test_a_text_is_never_read_as_a_template() -> None:
    evil = Chunk("1:0", 1, "{question}", "Braces {text} {0} stay as they are.")
    model = Scripted("Q: Which stay as they are?\nA: Braces", "", {})
    write(model, [evil], 60, lambda done: None)
    assert all("{question}\nBraces {text} {0} stay" in asked for asked in model.seen)


@given(st.text(max_size=300))
def test_nothing_that_is_written_breaks_the_reader(written: str) -> None:
    for pair in grounded(parse(written), TEXT):
        assert pair.question.endswith("?")
    assert all(line.endswith(".") for line in implications(written, TEXT))
