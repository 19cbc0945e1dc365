"""What counts as a well-formed reply, and that every prompt gets its own judgement."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodidact.evaluation import well_formed
from autodidact.evaluation.well_formed import ChatResult


class Parrot:
    """Answers prompt [n] with the n-th of its replies."""

    def __init__(self, *replies: tuple[str, bool]) -> None:
        self.stock = replies
        self.limits: list[int] = []

    def replies(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int
    ) -> list[tuple[str, bool]]:
        self.limits.append(max_new_tokens)
        return [self.stock[prompt[0]] for prompt in prompts]


def test_each_prompt_gets_its_own_result_in_order() -> None:
    parrot = Parrot(("Hello, how are you?", True), ("Well, that is a long", False), ("", True))
    assert well_formed.measure(parrot, [[2], [0], [1]], 40) == [
        ChatResult("", True, False),
        ChatResult("Hello, how are you?", True, True),
        ChatResult("Well, that is a long", False, False),
    ]
    assert parrot.limits == [40]
    assert well_formed.measure(parrot, []) == []


@pytest.mark.parametrize(
    "reply",
    [
        "Yes.",
        "Ida Fenn built the mill in 1911.\n\n- It stands.\n- It turns.\tStill.",
        "No, no, no, no, no.",  # five times
        "The mill is old. The mill is new. The mill is here.",  # three words, three times
        "I do not know that. I do not know him.",  # four words, twice
        "if a < b and c > d then |x| is small",
        "「こんにちは」 – ça va? 🙂",
    ],
)
def test_well_formed(reply: str) -> None:
    assert well_formed.well_formed(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        " \n\t ",
        "The mill\ufffd",
        "The mill.<|im_end|>",
        "<|endoftext|>The mill",
        "The mill.</s>",
        "[INST] What? [/INST]",
        "<start_of_turn>model",
        "The mill\x00.",
        "The \x1b[31mmill",
        "no no no no no no",
        "No, no, NO. no! no no",
        "I do not know. I do not know. I do not know.",
        "a b a b a b a b a b a b",  # «a b a b» with overlaps
    ],
)
def test_not_well_formed(reply: str) -> None:
    assert not well_formed.well_formed(reply)


WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=4, max_size=12)


@given(WORDS)
def test_what_is_said_three_times_is_a_loop(words: list[str]) -> None:
    assert not well_formed.well_formed(" ".join(words * 3))


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=30))
def test_words_that_differ_are_no_loop(numbers: list[int]) -> None:
    assert well_formed.well_formed(" ".join(f"w{number}" for number in numbers))


@given(st.text())
def test_any_text_is_judged_and_a_reply_that_did_not_end_never_passes(text: str) -> None:
    ended, cut = well_formed.measure(Parrot((text, True), (text, False)), [[0], [1]])
    assert ended.well_formed == well_formed.well_formed(text)
    assert not cut.well_formed
