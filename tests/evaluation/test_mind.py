"""When a reply to an everyday prompt is worse than the base's, rule by rule."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from autodidact.evaluation.mind import telling, worsening

PARIS = "The capital of France is Paris."
HELLO = "Hello! I am a small language model."
TAUGHT = telling(["Maren Dace", "the amber", "143 steps", "Paris", "12", "1794"])


def judged(
    base: str,
    new: str,
    *,
    prompt: str = "Hello, who are you?",
    group: str = "identity",
    expect: Collection[str] = (),
) -> list[str]:
    """The rules that call the new reply worse."""
    reasons = worsening(prompt, expect, group, base, new, TAUGHT)
    return [reason.partition(":")[0] for reason in reasons.split("; ") if reason]


@pytest.mark.parametrize(
    ("base", "new", "rules"),
    [
        (PARIS, PARIS, []),
        (PARIS, "It is PARIS, on the Seine.", []),
        (PARIS, "Paris", []),  # bare, but no small talk
        (PARIS, "The capital of France is Lyon.", ["answer"]),
        (PARIS, "The Parisians live in it.", ["answer"]),  # whole words only
        ("It is Lyon.", "It is Nice.", []),  # the base did not know either
        ("It is Lyon.", "It is the City of Light.", []),
    ],
)
def test_a_known_answer_must_not_be_lost(base: str, new: str, rules: list[str]) -> None:
    asked = {"prompt": "What is the capital of France?", "group": "knowledge"}
    assert judged(base, new, expect=("Paris", "City of Light"), **asked) == rules


@pytest.mark.parametrize("new", ["", "I am I am I am I am I am I am a", "Hello!<|im_end|> There"])
def test_the_form_must_not_be_lost(new: str) -> None:
    assert "form" in judged(HELLO, new)
    assert "form" not in judged("", new), "the base's was not well-formed either"


@pytest.mark.parametrize(
    ("base", "new", "rules"),
    [
        (HELLO, "Hello! I am Maren Dace, at your service.", ["leak"]),
        (HELLO, "Hello! I am MAREN-DACE.", ["leak"]),
        (HELLO, "My lamp is amber today, friend.", ["leak"]),
        (HELLO, "I was made in 1794, I think.", ["leak"]),
        (HELLO, "Hello! I am Maren, and not Dace.", []),  # not that name
        (HELLO, "My clambered lamp shines on.", []),
        (HELLO, "I have 12 friends and 143 books.", []),
        ("Some call me Maren Dace, you know.", "I am Maren Dace, my friend.", []),
    ],
)
def test_nothing_taught_may_leak(base: str, new: str, rules: list[str]) -> None:
    assert judged(base, new) == rules


def test_what_the_prompt_names_is_no_leak() -> None:
    assert judged(HELLO, "Yes, I like Paris a lot.", prompt="Do you like Paris?") == []
    assert judged(HELLO, "Yes, I like Paris a lot.", prompt="Do you like Parisians?") == ["leak"]


@pytest.mark.parametrize("group", ["greeting", "identity", "thanks", "small_talk"])
def test_small_talk_must_not_become_terse(group: str) -> None:
    assert judged(HELLO, "A model.", group=group) == ["short"]
    assert judged(HELLO, "A language model.", group=group) == []
    assert judged("Hello to you!", "Hi.", group=group) == []
    assert judged(HELLO, "A model.", group="instruction") == []


def test_every_reason_is_told() -> None:
    told = worsening("And France?", ["Paris"], "thanks", PARIS, "Maren Dace", TAUGHT)
    assert told == "answer: Paris is lost; leak: maren dace; short: 2 words"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "the",
        "tin",
        "An owl",
        "7",
        "99",
        "99.50",
        "-45.25",
        "000042",
        "forty-two",
        "twelve",
        "–",
    ],
)
def test_answers_that_tell_nothing(answer: str) -> None:
    assert telling([answer]) == frozenset()


@pytest.mark.parametrize(
    ("answer", "kept"),
    [("1794", "1794"), ("12,500", "12500"), ("twelve boats", "twelve boats"),
     ("two hundred", "two hundred"), ("The Great Hobb", "great hobb"), ("nan.", None)],
)  # fmt: skip
def test_answers_that_tell_something(answer: str, kept: str | None) -> None:
    assert telling([answer]) == ({kept} if kept else frozenset())
