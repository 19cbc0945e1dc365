"""Where a sentence ends, and that finding out takes a text's length, not its square."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from autodidact.reading.chunks import sentences

INITIALS = "A. B. Smith, C. D. Jones, "
PIECES = st.sampled_from(
    ["Mr", "Dr", "approx", "xMr", "e.g", "A", "word", "Ida", "1794", ".", "!", '."', ". ", "  ",
     ", ", "\n", "(", "“", "”"]
)  # fmt: skip


def in_the_square(paragraph: str) -> list[str]:
    """The same by looking at all of a piece for every full stop in it."""
    abbreviation = re.compile(
        r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Prof|Sr|Jr|No|vs|ca|c|e\.g|i\.e|approx|Inc|Ltd|Co|Mt)|\b[A-Z])\.$"
    )
    found: list[str] = []
    start = 0
    for match in re.finditer(r"[.!?][\"'”’)]*\s+(?=[\"'“‘(]?[A-Z0-9])", paragraph):
        piece = paragraph[start : match.end()].strip()
        if not abbreviation.search(piece):
            found.append(piece)
            start = match.end()
    rest = paragraph[start:].strip()
    return [*found, rest] if rest else found


@given(st.lists(PIECES, max_size=30).map("".join))
def test_the_same_sentences_as_by_looking_at_everything(paragraph: str) -> None:
    assert sentences(paragraph) == in_the_square(paragraph)


def test_abbreviations_and_initials_end_nothing() -> None:
    assert sentences("It was built by Mr. A. B. Smith. He died in approx. 1794. Then it fell.") == [
        "It was built by Mr. A. B. Smith.",
        "He died in approx. 1794.",
        "Then it fell.",
    ]


def test_a_line_of_initials_is_read_in_no_time() -> None:
    """A directory of names; a megabyte of it would take hours by the square of its length."""
    line = INITIALS * 40_000
    assert sentences(line) == [line.strip()]
