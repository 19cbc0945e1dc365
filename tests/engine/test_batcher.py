"""Continuous batching: every reply is the one it would be alone, and leaves when it should.

What is to happen at a certain token is done from within the engine's passes, and seconds are
counted in passes: nothing here depends on how fast the machine is.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autodidact.engine import Engine, Version, batcher
from autodidact.engine.batcher import Batcher
from autodidact.engine.tickets import Ticket
from autodidact.errors import Busy
from autodidact.models.loading import LoadedBase
from autodidact.types.chat import SamplingParams
from tests.tiny_models import CONTEXT, FAMILIES
from tests.versions import load_adapter, save_adapter
from tests.workplace import wait_for

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
LONG = 60
ORDER = random.Random(3)
PROMPTS = [
    [ORDER.randrange(20, 400) for _ in range(size)] for size in (1, 5, 17, 40, 90, 64, 3, 33)
]


def greedy(length: int, **more: Any) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_new_tokens=length, **more)


def sampled(seed: int, length: int = 24) -> SamplingParams:
    return SamplingParams(1.0, 0.95, 60, length, seed)


def endless(base: LoadedBase) -> LoadedBase:
    """The same base, whose replies go on until they are cut."""
    return replace(base, stop_ids=frozenset({-1}))


@dataclass
class Passes:
    """What goes through an engine's model: (rows, tokens a row) of each pass. `during` is called
    within each with its number."""

    engine: Engine
    during: Callable[[int], object] = lambda number: None

    def __post_init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self._real = self.engine.forward
        self.engine.forward = self.forward  # type: ignore[method-assign]

    def forward(self, versions: Sequence[Version], **inputs: Any) -> Any:
        self.seen.append(tuple(inputs["input_ids"].shape))
        self.during(len(self.seen))
        return self._real(versions, **inputs)


@pytest.fixture
def engine(llama: LoadedBase) -> Engine:
    return Engine(endless(llama))


@pytest.fixture(scope="module")
def versions(llama: LoadedBase, tmp_path_factory: pytest.TempPathFactory) -> list[Version]:
    """The base and three adapters. A version is its tensors, so any engine of the base takes it."""
    made = Engine(llama)
    folder = tmp_path_factory.mktemp("adapters")
    return [made.untouched] + [
        load_adapter(made, seed, save_adapter(llama, folder / str(seed), seed))
        for seed in (1, 2, 3)
    ]


@contextmanager
def running(engine: Engine, **options: Any) -> Iterator[Batcher]:
    """A batcher. It starts with the block's `start()`, or at its end."""
    made = Batcher(engine, **{"max_concurrent": 64} | options)
    try:
        yield made
    finally:
        made.close()


def replies(
    engine: Engine, asked: Sequence[tuple[Version, list[int], SamplingParams]]
) -> list[Any]:
    """All at once: they wait together before the first turn."""
    with running(engine, prefill_tokens=16) as made:
        tickets = [made.submit(*one) for one in asked]
        made.start()
        return [list(ticket) for ticket in tickets]


def alone(engine: Engine, version: Version, prompt: list[int], params: SamplingParams) -> list[int]:
    [reply] = replies(engine, [(version, prompt, params)])
    return list(reply)


# The same reply as alone --------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_replies_are_those_of_fixed_batches(
    tiny_base: Callable[[str], LoadedBase], family: str
) -> None:
    """24 prompts of different lengths at once, most longer than a part of the prefill."""
    engine = Engine(tiny_base(family))
    order = random.Random(11)
    prompts = [[order.randrange(20, 400) for _ in range(order.randint(1, 100))] for _ in range(24)]
    expected = engine.complete(engine.untouched, prompts, 16)
    assert len({tuple(reply) for reply in expected}) > 12
    asked = [(engine.untouched, prompt, greedy(16)) for prompt in prompts]
    assert replies(engine, asked) == expected


def test_versions_run_side_by_side_and_none_is_mixed(
    engine: Engine, versions: list[Version]
) -> None:
    asked = [(version, prompt, greedy(20)) for prompt in PROMPTS[:5] for version in versions]
    together = replies(engine, asked)
    for (version, prompt, _), reply in zip(asked, together, strict=True):
        assert [reply] == engine.complete(version, [prompt], 20)
    assert len({tuple(reply) for reply in together[4:8]}) == len(versions), "they differ"


@pytest.mark.parametrize("family", FAMILIES)
def test_versions_are_exact_in_every_family(
    tiny_base: Callable[[str], LoadedBase], family: str, tmp_path: Path
) -> None:
    engine = Engine(endless(tiny_base(family)))
    made = [engine.untouched] + [
        load_adapter(engine, seed, save_adapter(engine.base, tmp_path / str(seed), seed))
        for seed in (1, 2)
    ]
    asked = [(version, prompt, greedy(12)) for prompt in PROMPTS[1:4] for version in made]
    expected = [engine.complete(version, [prompt], 12)[0] for version, prompt, _ in asked]
    assert replies(engine, asked) == expected


def test_no_cache_crosses_versions(engine: Engine, versions: list[Version]) -> None:
    """A prompt on A and then on B, in the very same slots, is B's reply to it cold."""
    a, b = versions[1], versions[2]
    cold = {version.number: alone(engine, version, PROMPTS[3], greedy(20)) for version in (a, b)}
    assert cold[1] != cold[2]
    with running(engine) as made:
        made.start()
        for version in (a, b, a, a, b):
            reply = list(made.submit(version, PROMPTS[3], greedy(20)))
            assert reply == cold[version.number]
    with running(engine) as made:
        tickets = [made.submit(version, PROMPTS[3], greedy(20)) for version in (a, b) * 3]
        made.start()
        for ticket in tickets:
            assert list(ticket) == cold[ticket.version.number]


def test_the_same_seed_gives_the_same_reply_alone_and_among_others(
    engine: Engine, versions: list[Version]
) -> None:
    asked = [(versions[i % 4], PROMPTS[i % 8], sampled(i)) for i in range(24)]
    together = replies(engine, asked)
    for one, reply in zip(asked, together, strict=True):
        assert alone(engine, *one) == reply
    assert len({tuple(reply) for reply in together}) == 24
    assert replies(engine, asked[::-1]) == together[::-1]


def test_what_has_no_seed_differs(engine: Engine) -> None:
    asked = [(engine.untouched, PROMPTS[1], replace(sampled(0), seed=None))] * 4
    assert len({tuple(reply) for reply in replies(engine, asked)}) == 4


@pytest.fixture(scope="module")
def long_replies(llama: LoadedBase) -> list[list[int]]:
    engine = Engine(endless(llama))
    return engine.complete(engine.untouched, PROMPTS, LONG)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(st.tuples(st.integers(0, 7), st.integers(1, LONG)), min_size=1, max_size=12),
    places=st.integers(1, 6),
    part=st.integers(16, 128),
)
def test_whoever_leaves_when_the_others_go_on_undisturbed(
    llama: LoadedBase,
    long_replies: list[list[int]],
    asked: list[tuple[int, int]],
    places: int,
    part: int,
) -> None:
    """Slots are moved when a request leaves; its place is taken by one that waits."""
    engine = Engine(endless(llama))
    with running(engine, max_concurrent=places, prefill_tokens=part) as made:
        tickets = [made.submit(engine.untouched, PROMPTS[i], greedy(n)) for i, n in asked]
        made.start()
        for ticket, (i, length) in zip(tickets, asked, strict=True):
            assert list(ticket) == long_replies[i][:length]
            assert ticket.finish == "length"
        assert (made.running, made.waiting) == (0, 0)
        assert made.counts["tokens_total"] == sum(length for _, length in asked)
        assert made.counts["prompt_tokens_total"] == sum(len(PROMPTS[i]) for i, _ in asked)
        assert made.counts["requests_total"] == len(asked)


def test_many_threads_may_ask(engine: Engine, long_replies: list[list[int]]) -> None:
    wrong: list[int] = []
    with running(engine, max_concurrent=4) as made:
        made.start()

        def work(number: int) -> None:
            for turn in range(6):
                i = (number + turn) % len(PROMPTS)
                ticket = made.submit(engine.untouched, PROMPTS[i], greedy(4 + turn))
                if list(ticket) != long_replies[i][: 4 + turn]:
                    wrong.append(i)

        workers = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert made.counts["requests_total"] == 48
    assert wrong == []


# Prompts ------------------------------------------------------------------------------------------


def test_a_prompt_is_computed_in_parts_between_the_tokens_of_others(engine: Engine) -> None:
    passes = Passes(engine)
    with running(engine, prefill_tokens=16) as made:
        first = made.submit(engine.untouched, PROMPTS[1], greedy(30))
        second = made.submit(engine.untouched, PROMPTS[5], greedy(4))
        made.start()
        assert (len(list(first)), len(list(second))) == (30, 4)
    assert len(PROMPTS[5]) == 64
    begin = passes.seen.index((1, 16))
    assert passes.seen[begin : begin + 7 : 2] == [(1, 16)] * 4
    assert passes.seen[begin + 1 : begin + 6 : 2] == [(1, 1)] * 3
    assert passes.seen[begin + 7] == (2, 1)


def test_a_prompt_and_its_reply_may_fill_the_context(engine: Engine) -> None:
    prompt = [30 + i % 200 for i in range(CONTEXT - 20)]
    reply = alone(engine, engine.untouched, prompt, greedy(20))
    assert len(reply) == 20
    assert [reply] == engine.complete(engine.untouched, [prompt], 20)


def test_a_reply_of_one_token_needs_no_further_pass(engine: Engine) -> None:
    passes = Passes(engine)
    assert len(alone(engine, engine.untouched, PROMPTS[1], greedy(1))) == 1
    assert passes.seen == [(1, 5)]


# Ends ---------------------------------------------------------------------------------------------


def test_a_stop_token_ends_a_reply_and_is_left_out(llama: LoadedBase, engine: Engine) -> None:
    whole = alone(engine, engine.untouched, PROMPTS[2], greedy(20))
    stop = whole[7]
    stopping = Engine(replace(llama, stop_ids=frozenset({stop})))
    with running(stopping) as made:
        made.start()
        ticket = made.submit(stopping.untouched, PROMPTS[2], greedy(20))
        assert list(ticket) == whole[: whole.index(stop)]
        assert ticket.finish == "stop"


def test_a_short_request_that_comes_later_leaves_first(engine: Engine) -> None:
    """It joins the running batch at the next token and does not wait for its end."""
    tickets: list[Ticket] = []

    def during(number: int) -> None:
        if number == 10:
            tickets.append(made.submit(engine.untouched, PROMPTS[6], greedy(5)))

    passes = Passes(engine, during)
    with running(engine) as made:
        long = made.submit(engine.untouched, PROMPTS[1], greedy(LONG))
        made.start()
        assert len(list(long)) == LONG
        assert len(list(tickets[0])) == 5
    assert passes.seen[:10] == [(1, 5)] + [(1, 1)] * 9
    assert passes.seen[10:] == [(1, 3)] + [(2, 1)] * 4 + [(1, 1)] * (LONG - 10 - 4)


def test_a_cancelled_request_costs_at_most_the_token_that_is_being_computed(
    engine: Engine, long_replies: list[list[int]]
) -> None:
    def during(number: int) -> None:
        if number == 12:
            gone.cancel()

    passes = Passes(engine, during)
    with running(engine) as made:
        stays = made.submit(engine.untouched, PROMPTS[1], greedy(LONG))
        gone = made.submit(engine.untouched, PROMPTS[2], greedy(LONG))
        made.start()
        assert list(stays) == long_replies[1]
        told = list(gone)
        assert gone.finish is None
        # Passes 1 and 2 are the prompts; each gives a token, and so does each pass since.
        assert told == long_replies[2][:10], "the token of that pass is computed, not told"
        assert made.counts["tokens_total"] == LONG + 11
        assert made.counts["cancelled_total"] == 1
    assert passes.seen[12:] == [(1, 1)] * (LONG - 11)


@pytest.mark.parametrize("others", [0, 1])
def test_who_cancels_while_the_prompt_is_computed_costs_no_further_part(
    engine: Engine, others: int
) -> None:
    def during(number: int) -> None:
        if passes.seen[-1] == (1, 16):
            gone.cancel()

    passes = Passes(engine, during)
    with running(engine, prefill_tokens=16) as made:
        for _ in range(others):
            made.submit(engine.untouched, PROMPTS[6], greedy(8))
        gone = made.submit(engine.untouched, PROMPTS[4], greedy(LONG))
        made.start()
        assert list(gone) == []
        wait_for(lambda: made.running == 0, 30, "the end")
    assert passes.seen.count((1, 16)) == 1
    assert made.counts["tokens_total"] == 8 * others


def test_who_cancels_during_the_last_part_of_the_prompt_gets_one_token_at_most(
    engine: Engine,
) -> None:
    passes = Passes(engine, lambda number: gone.cancel())
    with running(engine) as made:
        gone = made.submit(engine.untouched, PROMPTS[1], greedy(LONG))
        made.start()
        assert len(list(gone)) <= 1
    assert passes.seen == [(1, 5)]


def test_who_cancels_while_waiting_costs_nothing(engine: Engine) -> None:
    passes = Passes(engine)
    with running(engine) as made:
        gone = made.submit(engine.untouched, PROMPTS[1], greedy(LONG))
        gone.cancel()
        made.start()
        assert list(gone) == []
        assert made.counts["cancelled_total"] == 1
    assert passes.seen == []


@pytest.mark.parametrize("how", ["dropped", "closed"])
def test_leaving_the_iterator_cancels(engine: Engine, how: str) -> None:
    """A client that hangs up: whoever read its reply goes away."""
    gone = threading.Event()
    passes = Passes(engine, lambda number: number < 4 or gone.wait(30))
    with running(engine) as made:
        made.start()
        reply = made.submit(engine.untouched, PROMPTS[1], greedy(LONG)).draws()
        next(reply)
        if how == "closed":
            reply.close()  # type: ignore[attr-defined]
        del reply
        gone.set()
        wait_for(lambda: made.running == 0, 30, "the end")
        assert made.counts["cancelled_total"] == 1
        assert made.counts["tokens_total"] <= 4
    assert len(passes.seen) <= 4


# Deadlines ----------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that go on by one in each pass."""
    now = [100.0]
    monkeypatch.setattr(batcher, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def ticking(engine: Engine, clock: list[float]) -> Passes:
    def during(number: int) -> None:
        clock[0] += 1

    return Passes(engine, during)


def test_a_reply_that_takes_too_long_ends_where_it_is(
    engine: Engine, clock: list[float], long_replies: list[list[int]]
) -> None:
    ticking(engine, clock)
    with running(engine, reply_seconds=10.0) as made:
        late = made.submit(engine.untouched, PROMPTS[1], greedy(LONG))
        made.start()
        assert list(late) == long_replies[1][:11]
        assert late.finish == "time"
        quick = made.submit(engine.untouched, PROMPTS[1], greedy(5))
        assert (list(quick), quick.finish) == (long_replies[1][:5], "length")


def test_a_prompt_that_takes_too_long_gives_no_token(engine: Engine, clock: list[float]) -> None:
    ticking(engine, clock)
    with running(engine, reply_seconds=2.0, prefill_tokens=16) as made:
        late = made.submit(engine.untouched, PROMPTS[4], greedy(LONG))
        made.start()
        assert (list(late), late.finish) == ([], "time")


def test_who_waits_too_long_is_told_to_come_again(engine: Engine, clock: list[float]) -> None:
    ticking(engine, clock)
    with running(engine, max_concurrent=1, queue_seconds=5.0) as made:
        served = made.submit(engine.untouched, PROMPTS[1], greedy(LONG))
        waits = made.submit(engine.untouched, PROMPTS[2], greedy(LONG))
        made.start()
        with pytest.raises(Busy, match="no turn came within 5 s"):
            list(waits)
        assert len(list(served)) == LONG
        assert made.counts["refused_total"] == 1


def test_how_many_there_may_be_is_bounded_by_others(engine: Engine) -> None:
    """The server by its places; here whoever comes is taken on, and waits."""
    with running(engine, max_concurrent=2) as made:
        taken = [made.submit(engine.untouched, PROMPTS[1], greedy(3)) for _ in range(200)]
        assert (made.running, made.waiting) == (0, 200)
        assert made.counts["refused_total"] == 0
        assert made.counts["requests_total"] == 200
        made.start()
        assert [len(list(ticket)) for ticket in taken] == [3] * 200
        wait_for(lambda: made.running == 0, 30, "a free place")
        assert len(list(made.submit(engine.untouched, PROMPTS[1], greedy(3)))) == 3


def test_no_more_run_at_once_than_allowed(engine: Engine) -> None:
    passes = Passes(engine)
    with running(engine, max_concurrent=3) as made:
        tickets = [made.submit(engine.untouched, PROMPTS[1], greedy(8)) for _ in range(10)]
        made.start()
        for ticket in tickets:
            list(ticket)
    assert max(rows for rows, _ in passes.seen) == 3


def test_what_is_observed(engine: Engine, clock: list[float]) -> None:
    ticking(engine, clock)
    seen: list[tuple[str, float]] = []
    with running(engine, observe=lambda name, value: seen.append((name, value))) as made:
        ticket = made.submit(engine.untouched, PROMPTS[1], greedy(4))
        made.start()
        list(ticket)
    assert seen == [
        ("queue_seconds", 0.0),
        ("first_token_seconds", 1.0),
        *[("token_gap_seconds", 1.0)] * 3,
        ("reply_seconds", 4.0),
    ]


# Faults -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 2, 3, 9])
def test_a_pass_that_fails_ends_its_requests_and_no_later_one(
    engine: Engine, long_replies: list[list[int]], at: int
) -> None:
    """In the first prompt, in the second, in the first common pass, in a later one."""

    def during(number: int) -> None:
        if number == at:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    Passes(engine, during)
    with running(engine) as made:
        tickets = [made.submit(engine.untouched, PROMPTS[i], greedy(20)) for i in (1, 2)]
        made.start()
        ended = []
        for ticket, i in zip(tickets, (1, 2), strict=True):
            try:
                assert list(ticket) == long_replies[i][:20]
            except RuntimeError as error:
                ended.append(str(error))
        assert "DefaultCPUAllocator: can't allocate memory" in ended
        assert at < 3 or len(ended) == 2
        later = made.submit(engine.untouched, PROMPTS[3], greedy(20))
        assert list(later) == long_replies[3][:20]
        assert (made.running, made.waiting) == (0, 0)


def test_closing_ends_everyone_and_takes_no_one(engine: Engine) -> None:
    go_on = threading.Event()
    Passes(engine, lambda number: number < 4 or go_on.wait(30))
    with running(engine, max_concurrent=2) as made:
        tickets = [made.submit(engine.untouched, PROMPTS[1], greedy(LONG)) for _ in range(4)]
        made.start()
        begun = tickets[0].draws()
        next(begun)
        closing = threading.Thread(target=made.close)
        closing.start()
        wait_for(lambda: made._closing, 30, "close")
        go_on.set()
        closing.join(30)
        for reply in (begun, *(ticket.draws() for ticket in tickets[1:])):
            with pytest.raises(Busy, match="shutting down"):
                list(reply)
        with pytest.raises(Busy):
            made.submit(engine.untouched, PROMPTS[1], greedy(3))
        assert not made._thread.is_alive()
        made.close()


def test_memory_is_given_back_when_nobody_asks(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher, "IDLE_S", 0.01)
    with running(engine) as made:
        made.start()
        first = list(made.submit(engine.untouched, PROMPTS[4], greedy(12)))
        wait_for(lambda: made.cache_bytes == 0, 30, "the memory")
        assert list(made.submit(engine.untouched, PROMPTS[4], greedy(12))) == first


def test_memory_is_counted_while_replies_run(engine: Engine) -> None:
    held: list[int] = []
    Passes(engine, lambda number: held.append(made.cache_bytes))
    config: Any = engine.base.model.config
    dim = config.hidden_size // config.num_attention_heads
    a_token = 2 * config.num_hidden_layers * config.num_key_value_heads * dim * 4
    with running(engine) as made:
        ticket = made.submit(engine.untouched, PROMPTS[1], greedy(12))
        made.start()
        list(ticket)
    assert held[-1] >= a_token * (len(PROMPTS[1]) + 11)


def test_log_probabilities_come_with_the_tokens(engine: Engine) -> None:
    with running(engine) as made:
        made.start()
        drawn = list(made.submit(engine.untouched, PROMPTS[2], greedy(8, logprobs=3)).draws())
    ids = torch.tensor([PROMPTS[2] + [one.token for one in drawn]])
    expected = engine.forward([engine.untouched], input_ids=ids).logits[0].log_softmax(-1)
    for i, one in enumerate(drawn):
        place = expected[len(PROMPTS[2]) - 1 + i]
        assert one.logprob == pytest.approx(float(place[one.token]), abs=1e-4)
        assert [token for token, _ in one.top] == place.topk(3).indices.tolist()
        assert one.top[0][0] == one.token, "greedy takes the likeliest"
