"""Wishes to the learner: left whole, read back, and what is not one of them told apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodidact import inbox
from autodidact.errors import ResourceError
from autodidact.inbox import Forget, Retry, Rollback, Wish

ids = st.integers(0, 2**31)


@pytest.mark.parametrize(
    ("wish", "name", "told"),
    [
        (Rollback(41), "rollback-*.json", {"do": "rollback", "to": 41}),
        (Rollback(0), "rollback-*.json", {"do": "rollback", "to": 0}),
        (Forget((3, 1)), "forget-*.json", {"do": "forget", "documents": [3, 1]}),
        (Retry((2,)), "retry-*.json", {"do": "retry", "documents": [2]}),
    ],
)
def test_a_wish_is_one_whole_file(tmp_path: Path, wish: Wish, name: str, told: object) -> None:
    path = inbox.leave(tmp_path, wish)
    assert path.match(name)
    assert list((tmp_path / "inbox").iterdir()) == [path]
    assert json.loads(path.read_text()) == told
    assert inbox.waiting(tmp_path) == [(path, wish)]


wishes_of_all_kinds = st.lists(
    st.builds(Rollback, ids)
    | st.builds(Forget, st.lists(ids).map(tuple))
    | st.builds(Retry, st.lists(ids).map(tuple)),
    max_size=6,
)


@given(wishes_of_all_kinds)
def test_wishes_are_read_as_they_were_left(
    tmp_path_factory: pytest.TempPathFactory, wishes: list[Wish]
) -> None:
    home = tmp_path_factory.mktemp("home")
    for wish in wishes:
        inbox.leave(home, wish)
    by_kind = sorted(wishes, key=lambda wish: type(wish).__name__)
    assert [wish for _, wish in inbox.waiting(home)] == by_kind, "in the order of each kind"


def test_without_a_folder_nothing_waits(tmp_path: Path) -> None:
    assert inbox.waiting(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"{", b"1", b"\xff", b"[" * 100_000, b'{"do": "format"}',
        b'{"do": "rollback"}', b'{"do": "rollback", "to": "1"}', b'{"do": "forget"}',
        b'{"do": "forget", "documents": 1}',
    ],
)  # fmt: skip
def test_what_is_not_understood_is_named(tmp_path: Path, text: bytes) -> None:
    kept = inbox.leave(tmp_path, Rollback(1))
    (tmp_path / "inbox" / "a.json").write_bytes(text)
    assert inbox.waiting(tmp_path) == [(tmp_path / "inbox" / "a.json", None), (kept, Rollback(1))]


def test_only_numbers_are_documents(tmp_path: Path) -> None:
    path = inbox.leave(tmp_path, Forget(()))
    path.write_text('{"do": "forget", "documents": [1, "2", null, 3]}')
    assert inbox.waiting(tmp_path) == [(path, Forget((1, 3)))]


def test_half_a_wish_is_none(tmp_path: Path) -> None:
    inbox.leave(tmp_path, Rollback(1)).rename(tmp_path / "inbox" / ".rollback-1.json.12-34")
    assert inbox.waiting(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "inbox").write_text("a file")
    with pytest.raises(ResourceError, match="the learner was not told"):
        inbox.leave(tmp_path, Rollback(1))
