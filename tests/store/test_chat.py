from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodidact.store import chat
from autodidact.store.chat import Begun, ChatStore, title_of
from autodidact.store.connection import Connections
from autodidact.types.documents import Passage
from tests.workplace import held


@pytest.fixture
def store(tmp_path: Path) -> ChatStore:
    return ChatStore(tmp_path / "chat.db")


def begin(
    store: ChatStore,
    question: str,
    conversation: str | None = None,
    question_id: int | None = None,
) -> Begun:
    return store.begin(
        conversation,
        question,
        version=42,
        sampling={"temperature": 0.7},
        prompt_tokens=10,
        dropped=0,
        question_id=question_id,
    )


def finish(store: ChatStore, begun: Begun, text: str = "an answer") -> None:
    store.finish(begun.reply_id, text, "stop", tokens=2, tok_s=28.5, first_token_ms=210)


def test_a_reply_comes_back_as_it_was_finished(store: ChatStore) -> None:
    begun = begin(store, "Who keeps the light?")
    finish(store, begun)
    question, reply = store.messages(begun.conversation_id)
    assert (question.role, question.content) == ("user", "Who keeps the light?")
    assert (reply.role, reply.content, reply.reply_to) == ("assistant", "an answer", question.id)
    assert (reply.version, reply.sampling, reply.finish) == (42, {"temperature": 0.7}, "stop")
    assert (reply.tokens, reply.prompt_tokens, reply.tok_s) == (2, 10, 28.5)
    assert reply.first_token_ms == 210


def test_asking_again_stores_no_second_question(store: ChatStore) -> None:
    first = begin(store, "Why?")
    again = begin(store, "Why?", first.conversation_id, question_id=first.question_id)
    assert again.question_id == first.question_id
    assert [m.role for m in store.messages(first.conversation_id)] == [
        "user",
        "assistant",
        "assistant",
    ]


def test_a_reply_that_a_killed_server_left_open_is_failed(tmp_path: Path) -> None:
    begun = begin(ChatStore(tmp_path / "chat.db"), "Why?")
    reopened = ChatStore(tmp_path / "chat.db")
    assert reopened.messages(begun.conversation_id)[1].finish == "failed"


def test_conversations_are_listed_latest_first_and_in_pages(store: ChatStore) -> None:
    made = [begin(store, f"question {n}").conversation_id for n in range(5)]
    begin(store, "once more", made[1])
    expected = [made[1], made[4], made[3], made[2], made[0]]
    first = store.conversations(2)
    assert [row.id for row in first] == expected[:2]
    rest = store.conversations(10, (first[-1].updated_at, first[-1].id))
    assert [row.id for row in rest] == expected[2:]


def test_a_deleted_conversation_is_gone_at_once_and_can_be_restored(store: ChatStore) -> None:
    begun = begin(store, "Why?")
    assert store.delete(begun.conversation_id)
    assert store.conversation(begun.conversation_id) is None
    assert store.conversations(10) == []
    assert not store.delete(begun.conversation_id)
    assert store.restore(begun.conversation_id)
    assert not store.restore(begun.conversation_id)
    assert store.conversation(begun.conversation_id) is not None


def test_a_deleted_conversation_is_wiped_in_the_end(
    store: ChatStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = begin(store, "Something private")
    store.delete(begun.conversation_id)
    monkeypatch.setattr(chat, "WIPE_AFTER_S", -1.0)
    begin(store, "Something else")
    assert not store.restore(begun.conversation_id)
    assert store.messages(begun.conversation_id) == []
    rows = sqlite3.connect(tmp_path / "chat.db").execute("SELECT content FROM messages").fetchall()
    assert ("Something private",) not in rows


def test_finishing_a_reply_of_a_wiped_conversation_does_nothing(
    store: ChatStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = begin(store, "Why?")
    store.delete(begun.conversation_id)
    monkeypatch.setattr(chat, "WIPE_AFTER_S", -1.0)
    begin(store, "Something else")
    finish(store, begun)
    assert store.messages(begun.conversation_id) == []


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("Short one", "Short one"),
        ("two\nlines   here", "two lines here"),
        ("word " * 30, "word " * 10 + "word…"),
        ("x" * 100, "x" * 59 + "…"),
    ],
)
def test_the_title_is_the_beginning_of_the_question(question: str, title: str) -> None:
    assert title_of(question) == title


def test_passages_are_stored_with_the_reply(store: ChatStore) -> None:
    passages = (
        Passage(1, 7, "Anneck Light", "library/x.md", "2026-11-20", 'It "was" built — 1794.'),
        Passage(2, 8, "", "https://example.org", "", "Two."),
    )
    begun = store.begin(
        None, "When?", version=1, sampling={}, prompt_tokens=9, dropped=0, passages=passages
    )
    question, reply = store.messages(begun.conversation_id)
    assert (question.content, question.passages) == ("When?", ())
    assert reply.passages == passages


def test_replies_of_an_older_file_came_from_memory(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    old = Connections(path, chat.MIGRATIONS[:1])
    with old.write() as db:
        db.table("conversations").insert(
            {"id": "c", "title": "Old", "created_at": 1.0, "updated_at": 1.0}
        )
        db.table("messages").insert(
            {"conversation_id": "c", "role": "assistant", "content": "Hale.", "created_at": 1.0}
        )
    old.close()
    (reply,) = ChatStore(path).messages("c")
    assert (reply.content, reply.passages) == ("Hale.", ())


# A reply that cannot be stored as it ends ---------------------------------------------------------


def stored(path: Path, reply_id: int) -> tuple[str, str]:
    with closing(sqlite3.connect(path)) as db:
        row = db.execute("SELECT finish, content FROM messages WHERE id = ?", (reply_id,))
        return tuple(row.fetchone())


@pytest.mark.parametrize("then", ["a question", "deleting", "closing"])
def test_it_is_kept_and_stored_with_what_is_written_next(
    tmp_path: Path, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "SERVER_PATIENCE_MS", 50)
    path = tmp_path / "chat.db"
    store = ChatStore(path)
    begun, other = begin(store, "Who keeps the light?"), begin(store, "Why?")
    with held(path, readers=True):
        finish(store, begun, "Maren Dace.")
        assert stored(path, begun.reply_id) == ("open", "")
        reply = store.messages(begun.conversation_id)[1]
        assert (reply.finish, reply.content, reply.prompt_tokens) == ("stop", "Maren Dace.", 10)
    if then == "a question":
        begin(store, "And now?")
    elif then == "deleting":
        store.delete(other.conversation_id)
    else:
        store.close()
    assert stored(path, begun.reply_id) == ("stop", "Maren Dace.")
    assert stored(path, other.reply_id) == ("open", "")


def test_what_is_taken_back_meanwhile_does_not_come_back_as_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "SERVER_PATIENCE_MS", 50)
    path = tmp_path / "chat.db"
    store = ChatStore(path)
    begun = begin(store, "Who keeps the light?")
    with held(path, readers=True):
        finish(store, begun, "")
    store.withdraw(begun)
    again = begin(store, "Why?")
    assert again.reply_id == begun.reply_id  # SQLite gives numbers of deleted rows again
    assert stored(path, again.reply_id) == ("open", "")


# A clock that is put back -------------------------------------------------------------------------


@given(moves=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8))
def test_the_latest_is_first_and_what_is_deleted_goes_wherever_the_clock_goes(
    tmp_path_factory: pytest.TempPathFactory, moves: list[float]
) -> None:
    now = [1.7e9]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat, "time", SimpleNamespace(time=lambda: now[0]))
        store = ChatStore(tmp_path_factory.mktemp("home") / "chat.db")
        gone = begin(store, "to be deleted").conversation_id
        store.delete(gone)
        made = []
        for move in moves:
            now[0] += move
            made.append(begin(store, "Why?").conversation_id)
            assert [row.id for row in store.conversations(20)] == made[::-1]
        now[0] += chat.WIPE_AFTER_S + 1
        begin(store, "And now?")
        assert not store.restore(gone)
        store.close()
