"""Stop strings: what may be shown does not depend on how the text was cut into pieces."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from autodidact.generators.stops import StopStrings

letters = st.text("ab", max_size=30)
texts = letters | st.text("aé\n😀", max_size=20) | st.text(max_size=20)
stop_strings = st.lists(st.text("ab", min_size=1, max_size=6) | st.text(max_size=4), max_size=4)


@st.composite
def cut(draw: st.DrawFn) -> list[str]:
    """A text in pieces, empty ones among them."""
    text = draw(texts)
    ends = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    places = [0, *ends, len(text)]
    return [text[a:b] for a, b in pairwise(places)]


def until(text: str, stops: list[str]) -> str:
    """The text before the stop string that is complete first, letter by letter."""
    for end in range(len(text) + 1):
        met = [end - len(stop) for stop in stops if stop and text[:end].endswith(stop)]
        if met:
            return text[: min(met)]
    return text


@settings(max_examples=500)
@given(pieces=cut(), stops=stop_strings)
@example(pieces=["a", "a", "b"], stops=["ab"])
@example(pieces=["aab", "aab", "aaac"], stops=["aabaaac"])
@example(pieces=["ab", "c"], stops=["abcd", "bc"])
@example(pieces=["ab", "cd"], stops=["bcx", "abcd"])
@example(pieces=["a", "b", "a"], stops=["bb", "", "aba"])
@example(pieces=["ba", "a"], stops=["a", "baa"])
def test_the_text_ends_before_the_stop_string_that_is_complete_first(
    pieces: list[str], stops: list[str]
) -> None:
    text = "".join(pieces)
    expected = until(text, stops)
    watched = StopStrings(stops)
    shown = ""
    for piece in pieces:
        shown += watched.feed(piece)
        assert expected.startswith(shown), "nothing that is shown is ever taken back"
    shown += watched.rest()
    assert shown == expected
    assert watched.met == (expected != text)


@given(text=letters, stops=stop_strings)
def test_no_more_is_held_back_than_may_become_a_stop_string(text: str, stops: list[str]) -> None:
    watched = StopStrings(stops)
    shown = ""
    for end, letter in enumerate(text, start=1):
        shown += watched.feed(letter)
        held = text[len(shown) : end]
        if watched.met:
            return
        assert not held or any(stop != held and stop.startswith(held) for stop in stops)


@given(pieces=cut(), stops=stop_strings)
def test_once_met_nothing_more_comes(pieces: list[str], stops: list[str]) -> None:
    watched = StopStrings([*stops, "stop"])
    watched.feed("".join(pieces))
    watched.feed("stop")
    assert watched.met
    assert [watched.feed(piece) for piece in (*pieces, "a", "stop")] == [""] * (len(pieces) + 2)
    assert watched.rest() == ""


@given(pieces=cut())
def test_without_stop_strings_text_goes_through_at_once(pieces: list[str]) -> None:
    watched = StopStrings(())
    assert [watched.feed(piece) for piece in pieces] == pieces
    assert watched.rest() == ""
