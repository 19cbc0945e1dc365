from __future__ import annotations

from collections.abc import Sequence

from autodidact.chat.memory import Turn, fit, turns
from autodidact.store.chat import Finish, StoredMessage
from autodidact.types.chat import Message


def stored(
    id_: int, role: str, content: str, reply_to: int | None = None, finish: Finish = "stop"
) -> StoredMessage:
    return StoredMessage(id_, role, content, 0.0, reply_to, 1, {}, finish, 0, 0, 0, None, None)


def words(messages: Sequence[Message]) -> int:
    return sum(len(message.content.split()) for message in messages)


PAST = [Turn(f"q{n}", "a b c d") for n in range(4)]  # five tokens each


def test_a_turn_is_a_question_with_the_last_reply_to_it() -> None:
    messages = [
        stored(1, "user", "one"),
        stored(2, "assistant", "first try", 1),
        stored(3, "assistant", "second try", 1),
        stored(4, "user", "two"),
        stored(5, "assistant", "half of", 4, "stopped"),
    ]
    assert turns(messages) == [Turn("one", "second try"), Turn("two", "half of")]
    assert turns(messages, before=4) == [Turn("one", "second try")]


def test_replies_belong_to_their_questions_even_when_two_overlapped() -> None:
    messages = [
        stored(1, "user", "one"),
        stored(3, "user", "two"),
        stored(4, "assistant", "to two", 3),
        stored(2, "assistant", "to one", 1),
    ]
    assert turns(messages) == [Turn("one", "to one"), Turn("two", "to two")]


def test_a_question_without_words_in_reply_is_left_out() -> None:
    messages = [
        stored(1, "user", "one"),
        stored(2, "assistant", " ", 1, "failed"),
        stored(3, "user", "two"),
        stored(4, "assistant", "yes", 3),
    ]
    assert turns(messages) == [Turn("two", "yes")]


def test_everything_is_kept_when_it_fits() -> None:
    window = fit(PAST, "now", words, limit=21)
    assert (window.size, window.dropped) == (21, 0)
    assert [m.role for m in window.messages] == ["user", "assistant"] * 4 + ["user"]


def test_the_oldest_turns_go_first_and_no_more_than_needed() -> None:
    for limit, dropped in ((20, 1), (16, 1), (15, 2), (6, 3), (5, 4)):
        window = fit(PAST, "now", words, limit)
        assert window.dropped == dropped
        assert window.size <= limit
        assert window.messages[0].content == ("now" if dropped == 4 else f"q{dropped}")


def test_a_question_too_long_by_itself_stands_alone() -> None:
    window = fit(PAST, "w " * 50, words, limit=10)
    assert (window.dropped, window.size, len(window.messages)) == (4, 50, 1)
    assert fit([], "w " * 50, words, limit=10).dropped == 0


def test_counting_is_done_about_log_n_times() -> None:
    calls = 0

    def count(messages: Sequence[Message]) -> int:
        nonlocal calls
        calls += 1
        return words(messages)

    fit([Turn("q", "a")] * 1000, "now", count, limit=100)
    assert calls < 15
