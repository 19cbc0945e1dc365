"""What earlier requests have computed: taken over where it is the same, and nowhere else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autodidact.engine import Engine, Version
from autodidact.engine.batcher import Batcher
from autodidact.engine.cache import STEP, SlotCache
from autodidact.engine.prefixes import WORTH, Prefixes, common
from autodidact.engine.tickets import Ticket
from autodidact.models.loading import LoadedBase
from autodidact.types.chat import SamplingParams
from tests.versions import load_adapter, save_adapter
from tests.workplace import wait_for

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
PLENTY = 100_000_000
FIRST = [20 + (7 * i) % 380 for i in range(60)]
MORE = [30 + (11 * i) % 370 for i in range(9)]
POSITION = 2 * 4
"""Bytes of a position in `slots`: a key and a value of one number each, in float32."""


def slots(tokens: Sequence[int], slot: int = 0) -> SlotCache:
    """A cache that holds, as keys, the tokens themselves in this slot, and others in the rest."""
    made, scratch = SlotCache(), SlotCache()
    for number in range(slot + 1):
        told = torch.tensor(tokens, dtype=torch.float32) + (number - slot) * 1000.0
        scratch.begin(1, len(tokens))
        scratch.update(told.view(1, 1, -1, 1), -told.view(1, 1, -1, 1), 0)
        made.take(number, scratch, len(tokens))
    return made


def held(cache: SlotCache, length: int) -> list[int]:
    """The tokens that `slots` has put in, read back as a pass reads them."""
    scratch = SlotCache()
    scratch.take(0, cache, length)
    scratch.begin(1, length + 1)
    keys, values = scratch.update(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), 0)
    assert torch.equal(keys, -values)
    return [int(number) for number in keys[0, 0, :length, 0]]


# What is kept -------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), max_size=40))
def test_common_is_the_longest_beginning_of_both(one: list[int], other: list[int]) -> None:
    length = common(one, other)
    assert one[:length] == other[:length]
    assert length in (len(one), len(other)) or one[length] != other[length]


TOKENS = st.lists(st.integers(1, 2), min_size=1, max_size=3 * STEP)


@settings(max_examples=60)
@given(
    asked=st.lists(st.tuples(st.integers(0, 1), TOKENS), max_size=12),
    bound=st.integers(0, 8) | st.just(1000),
)
def test_what_is_found_was_kept_for_this_version_and_within_the_bound(
    asked: list[tuple[int, list[int]]], bound: int
) -> None:
    """Tokens are few and alike, so that requests often begin as others do."""
    versions = [Version(1), Version(2)]
    most = bound * STEP * POSITION
    prefixes = Prefixes(most)
    told: list[list[list[int]]] = [[], []]
    for which, tokens in asked:
        cache, length = prefixes.find(versions[which], tokens)
        assert length <= max((common(tokens, earlier) for earlier in told[which]), default=0)
        if bound == 1000:
            best = max((common(tokens, e) for e in told[which] if len(e) >= WORTH), default=0)
            assert length == best, "nothing had to be let go"
        assert (cache is None) == (length == 0)
        if cache is not None:
            assert held(cache, length) == tokens[:length]
        prefixes.keep(versions[which], tokens, slots(tokens))
        told[which].append(tokens)
        assert prefixes.bytes <= most


def test_it_is_copied_from_the_slot_that_holds_it() -> None:
    version, prefixes = Version(1), Prefixes(PLENTY)
    prefixes.keep(version, FIRST, slots(FIRST, slot=2), 2)
    cache, length = prefixes.find(version, FIRST + MORE)
    assert cache is not None
    assert held(cache, length) == FIRST


def test_a_conversation_that_goes_on_takes_the_place_of_its_beginning() -> None:
    version, prefixes = Version(1), Prefixes(PLENTY)
    prefixes.keep(version, FIRST, slots(FIRST))
    short = prefixes.bytes
    prefixes.keep(version, FIRST + MORE, slots(FIRST + MORE))
    prefixes.keep(version, FIRST, slots(FIRST))
    assert prefixes.bytes == -(-len(FIRST + MORE) // STEP) * STEP * POSITION
    assert prefixes.bytes >= short
    assert prefixes.find(version, FIRST + MORE)[1] == len(FIRST + MORE)


def test_what_was_used_longest_ago_goes_first() -> None:
    version, prefixes = Version(1), Prefixes(2 * STEP * POSITION)
    a, b, c = ([number] * 20 for number in (1, 2, 3))
    prefixes.keep(version, a, slots(a))
    prefixes.keep(version, b, slots(b))
    assert prefixes.find(version, a)[1] == 20
    prefixes.keep(version, c, slots(c))
    assert [prefixes.find(version, one)[1] for one in (a, b, c)] == [20, 0, 20]


def test_of_a_request_that_is_too_long_the_beginning_is_kept() -> None:
    version, prefixes = Version(1), Prefixes(2 * STEP * POSITION + 5)
    long = list(range(1, 5 * STEP))
    prefixes.keep(version, long, slots(long))
    cache, length = prefixes.find(version, long)
    assert cache is not None
    assert (length, held(cache, length)) == (2 * STEP, long[: 2 * STEP])


def test_nobody_asks_for_it_any_more() -> None:
    now = [100.0]
    version, prefixes = Version(1), Prefixes(PLENTY, 60.0, lambda: now[0])
    other = [1] * 20
    prefixes.keep(version, FIRST, slots(FIRST))
    prefixes.keep(version, other, slots(other))
    now[0] += 50
    assert prefixes.find(version, FIRST)[1] == len(FIRST)
    now[0] += 50
    prefixes.expire()
    assert prefixes.find(version, other)[1] == 0
    assert prefixes.find(version, FIRST)[1] == len(FIRST), "it was used in between"
    now[0] += 61
    prefixes.expire()
    assert prefixes.bytes == 0


def test_a_version_that_nobody_holds_takes_it_along() -> None:
    version, other, prefixes = Version(1), Version(2), Prefixes(PLENTY)
    prefixes.keep(version, FIRST, slots(FIRST))
    prefixes.keep(other, FIRST, slots(FIRST))
    both = prefixes.bytes
    del version
    prefixes.expire()
    assert prefixes.bytes == both / 2


# In the batch -------------------------------------------------------------------------------------


def greedy(length: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_new_tokens=length)


class Widths:
    """How many tokens each pass over a prompt has; passes of single tokens are left out."""

    def __init__(self, engine: Engine, during: Callable[[int], object] = lambda rows: None) -> None:
        self.seen: list[int] = []
        self._real, self._during = engine.forward, during
        engine.forward = self._forward  # type: ignore[method-assign]

    def _forward(self, versions: Sequence[Version], **inputs: Any) -> Any:
        rows, width = inputs["input_ids"].shape
        if width > 1:
            self.seen.append(width)
        self._during(rows)
        return self._real(versions, **inputs)


@pytest.fixture(scope="module")
def base(llama: LoadedBase) -> LoadedBase:
    """Its replies go on until they are cut."""
    return replace(llama, stop_ids=frozenset({-1}))


@pytest.fixture
def engine(base: LoadedBase) -> Engine:
    return Engine(base)


@pytest.fixture(scope="module")
def version(base: LoadedBase, tmp_path_factory: pytest.TempPathFactory) -> Version:
    return load_adapter(Engine(base), 1, save_adapter(base, tmp_path_factory.mktemp("adapter")))


@contextmanager
def batch(engine: Engine, prefix_bytes: int = PLENTY, **options: Any) -> Iterator[Batcher]:
    made = Batcher(engine, prefix_bytes=prefix_bytes, **options)
    made.start()
    try:
        yield made
    finally:
        made.close()


def said(made: Batcher, version: Version, prompt: list[int], length: int = 12) -> list[int]:
    return list(made.submit(version, prompt, greedy(length)))


def test_a_second_turn_computes_what_is_new(engine: Engine, version: Version) -> None:
    """The same reply as without, letter by letter, on the base and on a version."""
    for which in (engine.untouched, version):
        widths = Widths(engine)
        with batch(engine) as made:
            first = said(made, which, FIRST)
            second = [*FIRST, *first, *MORE]
            found = said(made, which, second)
            # The reply's last token never went through the model.
            assert widths.seen == [len(FIRST), 1 + len(MORE)]
            assert made.reused == len(FIRST) + len(first) - 1
            assert made.counts["prompt_tokens_total"] == len(FIRST) + 1 + len(MORE)
        assert [found] == engine.complete(which, [second], 12)


def test_the_same_question_again_computes_its_last_token(engine: Engine) -> None:
    widths = Widths(engine)
    with batch(engine) as made:
        first = said(made, engine.untouched, FIRST)
        again = [said(made, engine.untouched, FIRST) for _ in range(3)]
    assert widths.seen == [len(FIRST)]
    assert again == [first] * 3


def test_another_question_computes_all_but_the_same_beginning(engine: Engine) -> None:
    widths = Widths(engine)
    with batch(engine) as made:
        said(made, engine.untouched, FIRST)
        other = [*FIRST[:20], *MORE]
        reply = said(made, engine.untouched, other)
    assert widths.seen == [len(FIRST), len(MORE)]
    assert [reply] == engine.complete(engine.untouched, [other], 12)


def test_never_across_versions(engine: Engine, version: Version) -> None:
    widths = Widths(engine)
    with batch(engine) as made:
        for which in (engine.untouched, version, engine.untouched, version):
            assert [said(made, which, FIRST)] == engine.complete(which, [FIRST], 12)
        assert made.reused == 2 * (len(FIRST) - 1)
    assert widths.seen.count(len(FIRST)) == 2, "once for each version"


def test_a_request_that_still_runs_helps_the_next(engine: Engine, version: Version) -> None:
    """Thirty conversations that begin with the same system turn, at once."""
    tickets: list[Ticket] = []

    def during(rows: int) -> None:
        if rows == 1 and not tickets:  # the first request's prompt
            for i in range(3):
                tickets.append(made.submit(engine.untouched, [*FIRST, 21 + i, *MORE], greedy(9)))
            tickets.append(made.submit(version, [*FIRST, 21, *MORE], greedy(9)))

    widths = Widths(engine, during)
    with batch(engine) as made:
        whole = list(made.submit(engine.untouched, [*FIRST, 20, *MORE], greedy(30)))
        replies = [list(ticket) for ticket in tickets]
    new = 1 + len(MORE)
    assert widths.seen == [len(FIRST) + new, new, new, new, len(FIRST) + new]
    assert [whole] == engine.complete(engine.untouched, [[*FIRST, 20, *MORE]], 30)
    for i, reply in enumerate(replies[:3]):
        assert [reply] == engine.complete(engine.untouched, [[*FIRST, 21 + i, *MORE]], 9)
    assert [replies[3]] == engine.complete(version, [[*FIRST, 21, *MORE]], 9)


def test_a_prompt_whose_reader_left_is_not_computed_twice(engine: Engine) -> None:
    def during(rows: int) -> None:
        if len(widths.seen) == 2 and not gone.cancelled:
            gone.cancel()

    widths = Widths(engine, during)
    made = Batcher(engine, prefix_bytes=PLENTY, prefill_tokens=16)
    gone = made.submit(engine.untouched, FIRST, greedy(5))
    made.start()
    try:
        assert list(gone) == []
        wait_for(lambda: made.running == 0, 30, "the end")
        assert widths.seen == [16, 16]
        assert [said(made, engine.untouched, FIRST)] == engine.complete(
            engine.untouched, [FIRST], 12
        )
        assert made.reused == 32
    finally:
        made.close()


def test_with_nothing_to_keep_it_in_each_prompt_is_computed_whole(engine: Engine) -> None:
    widths = Widths(engine)
    with batch(engine, prefix_bytes=0) as made:
        for _ in range(2):
            said(made, engine.untouched, FIRST)
        assert (made.reused, made.prefix_bytes) == (0, 0)
    assert widths.seen == [len(FIRST)] * 2


def test_it_outlasts_a_pause_and_the_cache_of_the_batch_does_not(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autodidact.engine.batcher.IDLE_S", 0.01)
    with batch(engine) as made:
        said(made, engine.untouched, FIRST)
        wait_for(lambda: made.cache_bytes == 0, 30, "the pause")
        assert made.prefix_bytes > 0
        said(made, engine.untouched, FIRST)
        assert made.reused == len(FIRST) - 1


def test_a_pass_that_fails_leaves_nothing_behind(engine: Engine) -> None:
    """What it was computing may be torn, and memory may be what it lacked."""
    broken = [False]

    def during(rows: int) -> None:
        if broken[0] and rows == 2:
            raise RuntimeError("no memory")

    Widths(engine, during)
    with batch(engine) as made:
        said(made, engine.untouched, FIRST)
        broken[0] = True
        both = [made.submit(engine.untouched, [*FIRST, n], greedy(200)) for n in (21, 22)]
        for ticket in both:
            with pytest.raises(RuntimeError, match="no memory"):
                list(ticket)
        broken[0] = False
        assert made.prefix_bytes == 0
        assert [said(made, engine.untouched, FIRST)] == engine.complete(
            engine.untouched, [FIRST], 12
        )


def test_in_half_precision_a_reply_is_the_same_to_the_bit(base: LoadedBase, tmp_path: Path) -> None:
    """Whole parts of prompts are taken over, which the prompt itself would compute in the very same
    passes. Log-probabilities show every bit."""
    half = replace(base, model=copy.deepcopy(base.model).to(torch.bfloat16))
    engine = Engine(half)
    part = 16
    asked = SamplingParams(1.0, 0.95, 60, 20, seed=5, logprobs=0)
    prompts = [FIRST, [*FIRST[:40], *MORE], [*FIRST, *MORE, *MORE], FIRST[:16], FIRST[:17]]
    prompts += [[*FIRST, *MORE[:n]] for n in range(1, 9)]

    def replies(prefix_bytes: int) -> tuple[list[Any], int]:
        with batch(engine, prefix_bytes, prefill_tokens=part) as made:
            found = [list(made.submit(engine.untouched, p, asked).draws()) for p in prompts]
            return found, made.reused

    without, none = replies(0)
    found, reused = replies(PLENTY)
    assert found == without
    assert none == 0
    assert reused == sum([0, 32, 48, 0, 16, *[48] * 4, *[64] * 4])
