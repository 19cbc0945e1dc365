"""The anchors that come with the project, the sealed prompts, and how strictly they are read."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from autodidact.errors import Misfit
from autodidact.reading.answers import normalise_answer
from autodidact.settings import PROJECT
from autodidact.training.anchor_set import AnchorPrompt, AnchorText, prompts, texts

SEALED = PROJECT / "benchmarks" / "sealed_prompts.jsonl"
COUNTS = {
    "greeting": 30, "identity": 40, "thanks": 20, "small_talk": 40, "knowledge": 60,
    "instruction": 50,
}  # fmt: skip
SEALED_COUNTS = {
    "greeting": 20, "identity": 25, "thanks": 8, "small_talk": 12, "knowledge": 35,
}  # fmt: skip
ROW = '{"id": "a", "group": "thanks", "prompt": "ta", "expect": [], "held": false}'


@pytest.fixture(scope="module")
def ours() -> tuple[AnchorPrompt, ...]:
    return prompts()


@pytest.fixture(scope="module")
def sealed() -> tuple[AnchorPrompt, ...]:
    return prompts(SEALED)


def words(text: str) -> list[str]:
    return normalise_answer(text).split()


# What is in them --------------------------------------------------------------------------------


def test_every_group_has_its_prompts(
    ours: tuple[AnchorPrompt, ...], sealed: tuple[AnchorPrompt, ...]
) -> None:
    assert Counter(row.group for row in ours) == COUNTS
    assert Counter(row.group for row in sealed) == SEALED_COUNTS


@pytest.mark.parametrize("group", COUNTS)
def test_every_fourth_prompt_of_a_group_is_held(group: str) -> None:
    held = [row.held for row in prompts() if row.group == group]
    assert held == [number % 4 == 0 for number in range(1, len(held) + 1)]


def test_every_fourth_text_is_held() -> None:
    held = [row.held for row in texts()]
    assert held == [number % 4 == 0 for number in range(1, 61)]


def test_no_two_are_alike(ours: tuple[AnchorPrompt, ...], sealed: tuple[AnchorPrompt, ...]) -> None:
    both = [*ours, *sealed]
    assert len({row.id for row in [*both, *texts()]}) == len(both) + 60
    assert len({tuple(words(row.prompt)) for row in both}) == len(both)
    assert len({tuple(words(row.text)[:5]) for row in texts()}) == 60


def test_the_sealed_prompts_are_worded_otherwise(
    ours: tuple[AnchorPrompt, ...], sealed: tuple[AnchorPrompt, ...]
) -> None:
    for row, other in product(sealed, ours):
        mine, theirs = words(row.prompt), words(other.prompt)
        if row.group != "greeting" and min(len(mine), len(theirs)) >= 4:
            shared = set(mine) & set(theirs)
            assert len(shared) < 0.6 * len({*mine, *theirs}), f"{row.prompt!r}, {other.prompt!r}"


def test_no_text_quotes_a_sealed_prompt(sealed: tuple[AnchorPrompt, ...]) -> None:
    told = [f" {normalise_answer(row.text)} " for row in texts()]
    for row in sealed:
        asked = words(row.prompt)
        if len(asked) >= 4:
            assert not any(f" {' '.join(asked)} " in text for text in told)


def test_what_is_known_has_an_answer_that_the_question_does_not_give(
    ours: tuple[AnchorPrompt, ...], sealed: tuple[AnchorPrompt, ...]
) -> None:
    for row in [*ours, *sealed]:
        assert row.expect or row.group != "knowledge", row.id
        for answer in row.expect:
            assert words(answer), f"{row.id}: nothing is left of {answer!r}"
            asked = f" {normalise_answer(row.prompt)} "
            assert f" {normalise_answer(answer)} " not in asked, row.id


def test_texts_are_short_and_not_too_short() -> None:
    assert {row.id: n for row in texts() if not 60 <= (n := len(row.text.split())) <= 110} == {}


def test_all_is_plain_utf8(
    ours: tuple[AnchorPrompt, ...], sealed: tuple[AnchorPrompt, ...]
) -> None:
    for text in [row.prompt for row in [*ours, *sealed]] + [row.text for row in texts()]:
        assert text == unicodedata.normalize("NFC", text).strip()
        assert not [c for c in text if unicodedata.category(c)[0] == "C" and c != "\n"]
        assert "\ufffd" not in text


REAL_NAMES = {"Tower"}
"""Words of names in the library that real names have, too: the Eiffel Tower."""


def library_names() -> tuple[set[str], set[str]]:
    """Words that the library only ever capitalises, inside its sentences; and whole names of two
    words and more, in lower case."""
    inside: set[str] = set()
    plain: set[str] = set()
    whole: set[str] = set()
    for path in (PROJECT / "library").rglob("*.md"):
        text = path.read_text()
        plain.update(re.findall(r"\b[a-z]+\b", text))
        for sentence in re.split(r"(?<=[.!?])\s+|\n", text.replace("# ", "")):
            inside.update(re.findall(r"(?<=[a-z,;:] )[A-Z][a-z]+", sentence))
            runs = re.findall(r"\b[A-Z][a-z]+(?: [A-Z][a-z]+)+", sentence)
            whole.update(run.removeprefix("The ").lower() for run in runs)
    return {word for word in inside if word.lower() not in plain}, whole


def test_the_anchors_teach_nothing_of_the_library(
    ours: tuple[AnchorPrompt, ...], sealed: tuple[AnchorPrompt, ...]
) -> None:
    names, whole = library_names()
    assert {"Maren", "Dace", "Anneck"} <= names
    assert {"maren dace", "anneck light", "skell beacon"} <= whole
    told = [row.prompt for row in [*ours, *sealed]] + [row.text for row in texts()]
    for text in told:
        assert not set(re.findall("[A-Za-z]+", text)) & (names - REAL_NAMES), text
        same = f" {' '.join(re.findall('[a-z]+', text.lower()))} "
        assert not [name for name in whole if " " in name and f" {name} " in same], text


# How they are read ------------------------------------------------------------------------------


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"id": "a", "group": "knowledge", "prompt": "1\u2028+ 1?", "expect": ["2", "two"]}\n'
        + ROW.replace('"a"', '"b"'),
        encoding="utf-8",
    )
    assert prompts(path) == (
        AnchorPrompt("a", "knowledge", "1\u2028+ 1?", ("2", "two"), False),
        AnchorPrompt("b", "thanks", "ta", (), False),
    )
    path.write_text('{"id": "t", "text": "One.", "held": true}\n')
    assert texts(path) == (AnchorText("t", "One.", True),)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "p.jsonl, line 2: Invalid JSON"),
        ("", "p.jsonl, line 2: Invalid JSON"),
        ("\udcff", "p.jsonl, line 2: Invalid JSON"),
        (ROW.replace("thanks", "chat"), "p.jsonl, line 2: group: "),
        (ROW.replace("false", "0"), "p.jsonl, line 2: held: "),
        (ROW.replace("[]", '"2"'), "p.jsonl, line 2: expect: "),
        (ROW.replace("expect", "answers"), "p.jsonl, line 2: expect: Field required"),
        (ROW.replace('"ta"', '" "'), "p.jsonl, line 2: an id, a text or an answer is blank"),
        (ROW.replace("[]", '[""]'), "p.jsonl, line 2: an id, a text or an answer is blank"),
        (ROW, "p.jsonl, line 2: the id 'a' is there already"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(f"{ROW}\n{line}\n".encode(errors="surrogateescape"))
    with pytest.raises(Misfit) as raised:
        prompts(path)
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misfit, match=r"none\.jsonl: cannot be read: No such file"):
        prompts(tmp_path / "none.jsonl")
