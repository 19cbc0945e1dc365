from __future__ import annotations

import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from autodidact.chat.reply import (
    Ask,
    ModelFailed,
    NotAskedLast,
    UnknownConversation,
    begin,
    room,
    stored_context,
)
from autodidact.errors import Busy, ContextExceeded, NotReady
from autodidact.store.chat import ChatStore
from tests.web.fakes import QueueGenerator


@pytest.fixture
def store(tmp_path: Path) -> ChatStore:
    return ChatStore(tmp_path / "chat.db")


@pytest.fixture
def generator() -> QueueGenerator:
    return QueueGenerator()


def answer(ask: Ask, store: ChatStore, generator: QueueGenerator) -> str:
    reply = begin(ask, store, generator)
    list(reply.stream())
    return reply.begun.conversation_id


def test_the_reply_is_streamed_and_stored(store: ChatStore, generator: QueueGenerator) -> None:
    generator.replies.append(["Edmund ", "Hale."])
    reply = begin(Ask("Who?", temperature=0.2, seed=7), store, generator)
    assert [delta.text for delta in reply.stream()] == ["Edmund ", "Hale.", ""]
    assert (reply.text, reply.tokens, reply.finish) == ("Edmund Hale.", 2, "stop")
    question, stored = store.messages(reply.begun.conversation_id)
    assert (question.content, stored.content, stored.finish) == ("Who?", "Edmund Hale.", "stop")
    assert (stored.version, stored.prompt_tokens, stored.tokens) == (42, 2, 2)
    assert stored.sampling["temperature"] == 0.2
    assert stored.sampling["seed"] == 7


def test_the_conversation_goes_into_the_prompt(store: ChatStore, generator: QueueGenerator) -> None:
    cid = answer(Ask("one two"), store, generator)
    answer(Ask("three", conversation_id=cid), store, generator)
    messages = generator.asked[-1][0]
    assert [(m.role, m.content) for m in messages] == [
        ("user", "one two"),
        ("assistant", "one two"),
        ("user", "three"),
    ]


def test_asking_again_hides_the_earlier_reply_from_the_model(
    store: ChatStore, generator: QueueGenerator
) -> None:
    cid = answer(Ask("one"), store, generator)
    answer(Ask("two", conversation_id=cid), store, generator)
    answer(Ask("two", conversation_id=cid, again=True), store, generator)
    assert [m.content for m in generator.asked[-1][0]] == ["one", "one", "two"]
    with pytest.raises(NotAskedLast):
        begin(Ask("one", conversation_id=cid, again=True), store, generator)
    with pytest.raises(NotAskedLast):
        begin(Ask("one", again=True), store, generator)


def test_the_oldest_turns_make_room_for_the_reply(store: ChatStore) -> None:
    generator = QueueGenerator(context=100)  # 25 are kept free for a reply
    cid = None
    for n in range(4):
        generator.replies.append(["reply"])
        cid = answer(Ask(f"{n} " + "w " * 20, conversation_id=cid), store, generator)
    reply = begin(Ask("last", conversation_id=cid), store, generator)
    list(reply.stream())
    assert reply.context["dropped"] == 1
    assert generator.asked[-1][0][0].content.startswith("1 ")
    assert stored_context(store.messages(reply.begun.conversation_id), 100) == reply.context


def test_a_longer_reply_on_request_makes_more_room(store: ChatStore) -> None:
    generator = QueueGenerator(context=100)
    cid = answer(Ask("w " * 20), store, generator)
    answer(Ask("next", conversation_id=cid, max_length=90), store, generator)
    assert [m.content for m in generator.asked[-1][0]] == ["next"]


def test_an_omitted_length_is_the_room_there_is_up_to_512(store: ChatStore) -> None:
    for context, words, length in ((2048, 10, 512), (100, 10, 89), (100, 98, 1)):
        generator = QueueGenerator(context=context)
        answer(Ask("w " * words), store, generator)
        assert generator.asked[-1][1].max_new_tokens == length


def test_what_does_not_fit_is_refused_and_not_stored(store: ChatStore) -> None:
    generator = QueueGenerator(context=100)
    for ask in (Ask("w " * 200), Ask("w " * 60, max_length=50)):
        with pytest.raises(ContextExceeded, match=r"prompt \d+ \+ max_length \d+ exceeds 100"):
            begin(ask, store, generator)
    assert store.conversations(10) == []


def test_a_busy_generator_stores_nothing(store: ChatStore, generator: QueueGenerator) -> None:
    generator.refusals.append(Busy("busy", 4))
    with pytest.raises(Busy):
        begin(Ask("Who?"), store, generator)
    assert store.conversations(10) == []


def test_no_model_no_reply(store: ChatStore, generator: QueueGenerator) -> None:
    generator.set(state="loading")
    with pytest.raises(NotReady) as loading:
        begin(Ask("Who?"), store, generator)
    assert loading.value.retry_after_s
    generator.set(state="failed", reason="no such file")
    with pytest.raises(ModelFailed, match="no such file"):
        begin(Ask("Who?"), store, generator)


def test_an_unknown_or_deleted_conversation(store: ChatStore, generator: QueueGenerator) -> None:
    with pytest.raises(UnknownConversation):
        begin(Ask("Who?", conversation_id="nope"), store, generator)
    cid = answer(Ask("Who?"), store, generator)
    store.delete(cid)
    with pytest.raises(UnknownConversation):
        begin(Ask("Who?", conversation_id=cid), store, generator)


def test_closing_stops_the_generator_and_keeps_what_came(
    store: ChatStore, generator: QueueGenerator
) -> None:
    generator.replies.append(["one ", "two ", "three"])
    reply = begin(Ask("Count"), store, generator)
    stream = reply.stream()
    next(stream)
    stream.close()
    assert generator.closed.is_set()
    stored = store.messages(reply.begun.conversation_id)[1]
    assert (stored.content, stored.finish, stored.tokens) == ("one ", "stopped", 1)


def test_cancelling_from_another_thread_stops_it_at_the_next_token(
    store: ChatStore, generator: QueueGenerator
) -> None:
    generator.replies.append(["one ", "two ", "three"])
    reply = begin(Ask("Count"), store, generator)
    stream = reply.stream()
    next(stream)
    canceller = threading.Thread(target=reply.cancel)
    canceller.start()
    canceller.join()
    assert list(stream) == []
    assert generator.closed.is_set()
    stored = store.messages(reply.begun.conversation_id)[1]
    assert (stored.content, stored.finish, stored.tokens) == ("one ", "stopped", 1)


def test_a_reply_cancelled_before_it_begins_is_never_generated(
    store: ChatStore, generator: QueueGenerator
) -> None:
    generator.replies.append(["one"])
    reply = begin(Ask("Count"), store, generator)
    reply.cancel()
    assert list(reply.stream()) == []
    assert generator.begun == []
    assert store.messages(reply.begun.conversation_id)[1].finish == "stopped"


def test_a_withdrawn_reply_leaves_nothing_that_was_not_there(
    store: ChatStore, generator: QueueGenerator
) -> None:
    begin(Ask("first"), store, generator).withdraw()
    assert store.conversations(10) == []
    cid = answer(Ask("one"), store, generator)
    there = store.messages(cid)
    begin(Ask("two", conversation_id=cid), store, generator).withdraw()
    assert store.messages(cid) == there
    begin(Ask("one", conversation_id=cid, again=True), store, generator).withdraw()
    assert store.messages(cid) == there


def test_all_of_sampling_reaches_the_generator_and_the_store(
    store: ChatStore, generator: QueueGenerator
) -> None:
    given = {
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "stop": ("END",),
    }
    reply = begin(Ask("Who?", **given), store, generator)  # type: ignore[arg-type]
    params = asdict(generator.asked[-1][1])
    assert {key: params[key] for key in given} == given
    stored = store.messages(reply.begun.conversation_id)[1].sampling
    assert stored == {**params, "stop": ["END"]}


def test_a_failure_keeps_what_came_and_goes_on_to_the_caller(
    store: ChatStore, generator: QueueGenerator
) -> None:
    generator.replies.append(["one ", RuntimeError("broken")])
    reply = begin(Ask("Count"), store, generator)
    with pytest.raises(RuntimeError, match="broken"):
        list(reply.stream())
    stored = store.messages(reply.begun.conversation_id)[1]
    assert (stored.content, stored.finish) == ("one ", "failed")


def test_the_longest_reply_cuts_off(store: ChatStore, generator: QueueGenerator) -> None:
    generator.replies.append(["a ", "b ", "c "])
    reply = begin(Ask("Count", max_length=2), store, generator)
    list(reply.stream())
    assert (reply.text, reply.finish) == ("a b ", "length")


def test_each_reply_gets_a_seed_unless_one_is_given(
    store: ChatStore, generator: QueueGenerator
) -> None:
    for ask in (Ask("a"), Ask("b")):
        answer(ask, store, generator)
    first, second = (asked[1].seed for asked in generator.asked)
    assert first is not None
    assert first != second


def test_room_never_falls_below_what_dropping_turns_would_free() -> None:
    assert room(2048, 614) == 1434
    assert room(2048, 2040) == 512
    assert room(400, 390) == 100
