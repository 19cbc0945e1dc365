"""Sampling against its definitions: transformers' warpers, softmax, OpenAI's penalties.

The function that is tested draws; which tokens it can draw, and how likely each is, is read from it
by giving it a grid of uniform numbers instead of random ones.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from autodidact.engine import sampling
from autodidact.engine.sampling import CANDIDATES, Row, draw
from autodidact.types.chat import SamplingParams

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
FREE: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
LOGITS = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0]])


def params(**given: Any) -> SamplingParams:
    return SamplingParams(**FREE | given)


def random_logits(size: int, seed: int, spread: float = 2.0) -> torch.Tensor:
    """(1, size) without equal values, which `transformers` keeps together and top-k cuts."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        found = spread * torch.randn(1, size, generator=generator)
        if len(found.unique()) == size:
            return found


def warped(logits: torch.Tensor, asked: SamplingParams) -> torch.Tensor:
    """The probabilities that transformers' generation draws from. (vocabulary,)"""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(asked.temperature)])
    if asked.top_k:
        warpers.append(TopKLogitsWarper(top_k=asked.top_k))
    if asked.top_p < 1:
        warpers.append(TopPLogitsWarper(top_p=asked.top_p))
    if asked.min_p:
        warpers.append(MinPLogitsWarper(min_p=asked.min_p))
    nothing: Any = torch.zeros(1, 1, dtype=torch.long)
    found: torch.Tensor = warpers(nothing, logits.clone())
    return found.double().softmax(-1)[0]


class Point(torch.Generator):
    """Stands for a random generator; `at` finds the one uniform number that it gives."""

    value = 0.0


@pytest.fixture
def given_points(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.rand

    def rand(*size: Any, generator: Any = None, **rest: Any) -> torch.Tensor:
        if isinstance(generator, Point):
            return torch.tensor(generator.value, dtype=torch.float64)
        return real(*size, generator=generator, **rest)

    monkeypatch.setattr(torch, "rand", rand)


def at(logits: torch.Tensor, asked: SamplingParams, points: list[float]) -> list[int]:
    """The tokens drawn at these uniform numbers, all in one batch."""
    rows = []
    for value in points:
        generator = Point()
        generator.value = value
        rows.append(Row(asked, frozenset(), generator))
    return [one.token for one in draw(logits.expand(len(points), -1).contiguous(), rows)]


def middles(shares: torch.Tensor, order: torch.Tensor) -> tuple[list[float], list[int]]:
    """For each token that can be drawn, the middle of its part of [0, 1), and the token."""
    inside = shares[order]
    begins = inside.cumsum(-1) - inside
    wide = inside > 1e-4  # logits divided by 0.05 are rounded to about 1e-5 in float32
    return (begins + inside / 2)[wide].tolist(), order[wide].tolist()


def check(logits: torch.Tensor, asked: SamplingParams) -> None:
    """Every token has the part of [0, 1) that transformers' warpers and softmax give it, and no
    other token is drawn anywhere."""
    shares = warped(logits, asked)
    sorted_ = bool(asked.top_k or asked.top_p < 1 or asked.min_p)
    order = logits[0].argsort(descending=True) if sorted_ else torch.arange(logits.shape[-1])
    points, tokens = middles(shares, order)
    assert at(logits, asked, points) == tokens
    ends = [0.0, 1e-12, 1 - 1e-9, 1 - 2**-53]
    assert all(float(shares[token]) > 0 for token in at(logits, asked, ends))


def not_at_an_edge(logits: torch.Tensor, asked: SamplingParams) -> None:
    """No limit that falls, up to rounding, on the border of a token: either side is right."""
    only = SamplingParams(asked.temperature, 1.0, asked.top_k)
    shares = warped(logits, only).sort(descending=True).values
    before = shares.cumsum(-1) - shares
    assume(float((before - asked.top_p).abs().min()) > 1e-4)
    assume(float((shares / shares[0] - asked.min_p).abs().min()) > 1e-4)


limits = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0.05, 2.0),
        "top_k": st.integers(1, 400),
        "top_p": st.floats(0.01, 0.999),
        "min_p": st.floats(0.001, 1.0),
    },
)


@pytest.mark.usefixtures("given_points")
def test_the_limits_are_those_of_transformers() -> None:
    @settings(max_examples=150)
    @given(
        size=st.integers(2, 900), seed=st.integers(0, 10**6), spread=st.floats(0.1, 4), asked=limits
    )
    @example(size=900, seed=1, spread=0.1, asked={"top_p": 0.99})
    @example(size=900, seed=1, spread=0.1, asked={"top_k": 400, "top_p": 0.99})
    @example(size=900, seed=1, spread=0.1, asked={"top_k": 300, "top_p": 0.5})
    @example(size=900, seed=1, spread=0.1, asked={"min_p": 0.5})
    @example(size=900, seed=1, spread=2.0, asked={})
    @example(size=2, seed=1, spread=2.0, asked={"top_k": 300, "top_p": 0.5, "min_p": 0.1})
    def every(size: int, seed: int, spread: float, asked: dict[str, Any]) -> None:
        logits = random_logits(size, seed, spread)
        not_at_an_edge(logits, params(**asked))
        check(logits, params(**asked))

    every()


@pytest.mark.usefixtures("given_points")
def test_what_top_p_leaves_beyond_the_candidates_is_drawn_too() -> None:
    logits = random_logits(4 * CANDIDATES, 3, spread=0.01)
    asked = params(top_p=0.9)
    assert int((warped(logits, asked) > 0).sum()) > 2 * CANDIDATES
    check(logits, asked)
    rare = logits[0].argsort(descending=True)[3 * CANDIDATES]
    points, tokens = middles(warped(logits, asked), logits[0].argsort(descending=True))
    assert int(rare) in tokens
    assert at(logits, asked, [points[tokens.index(int(rare))]]) == [int(rare)]


def drawn(asked: SamplingParams, logits: torch.Tensor = LOGITS, count: int = 4000) -> Counter[int]:
    row = Row.of(asked, [1])
    return Counter(one.token for one in draw(logits.expand(count, -1), [row] * count))


@pytest.mark.parametrize(
    "given_",
    [{}, {"temperature": 2.0}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}],
    ids=str,
)
def test_tokens_come_as_often_as_they_are_likely(given_: dict[str, Any]) -> None:
    """Pearson's chi-square on 4,000 draws with a fixed seed."""
    asked = params(seed=7, **given_)
    shares = warped(LOGITS, asked)
    found = drawn(asked)
    possible = [token for token, share in enumerate(shares.tolist()) if share > 0]
    assert set(found) <= set(possible)
    counts = [found[token] for token in possible]
    expected = [4000 * float(shares[token]) for token in possible]
    assert chisquare(counts, expected).pvalue > 1e-3


def test_temperature_0_is_the_likeliest_whatever_else_is_asked() -> None:
    logits = random_logits(500, 1)
    for given_ in ({}, {"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.2}, {"seed": 3}):
        [one] = draw(logits, [Row.of(params(temperature=0.0, **given_), [1])])
        assert one.token == int(logits.argmax())


@pytest.mark.parametrize("given_", [{}, {"top_k": 40}, {"top_p": 0.9}, {"min_p": 0.01}], ids=str)
@pytest.mark.parametrize("temperature", [1e-4, 1e-9, 1e-38, 1e-45, 5e-324])
def test_temperatures_near_0_come_near_the_greedy_choice(
    temperature: float, given_: dict[str, Any]
) -> None:
    """Dividing by them overflows; no token may come of that but the likeliest."""
    logits = random_logits(500, 2)
    asked = params(temperature=temperature, seed=1, **given_)
    assert set(drawn(asked, logits, 20)) == {int(logits.argmax())}


def test_top_k_1_and_a_tiny_top_p_leave_the_likeliest() -> None:
    logits = random_logits(500, 2)
    for given_ in ({"top_k": 1}, {"top_p": 1e-9}, {"top_p": 0.0}, {"min_p": 1.0}):
        assert set(drawn(params(seed=1, **given_), logits, 20)) == {int(logits.argmax())}


# Rows beside each other ---------------------------------------------------------------------------

anything = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_p=st.sampled_from([0.2, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 7, 50, CANDIDATES, 300]),
    seed=st.integers(0, 99),
    min_p=st.sampled_from([0.0, 0.05]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    presence_penalty=st.sampled_from([0.0, 0.7]),
    frequency_penalty=st.sampled_from([0.0, 0.4]),
    logprobs=st.sampled_from([None, 0, 3]),
)


@settings(max_examples=60)
@given(
    asked=st.lists(anything, min_size=2, max_size=6), seed=st.integers(0, 999), ties=st.booleans()
)
def test_a_row_s_draws_do_not_depend_on_the_other_rows(
    asked: list[SamplingParams], seed: int, ties: bool
) -> None:
    """Also where logits are equal, as they often are in half precision."""
    generator = torch.Generator().manual_seed(seed)
    steps = 2 * torch.randn(4, len(asked), 700, generator=generator)
    if ties:
        steps = (4 * steps).round() / 4
    together = [Row.of(one, [3, 5]) for one in asked]
    beside = [[one.token for one in draw(logits, together)] for logits in steps]
    for number, one in enumerate(asked):
        row = Row.of(one, [3, 5])
        alone = [draw(logits[number : number + 1], [row])[0].token for logits in steps]
        assert alone == [tokens[number] for tokens in beside]


def test_what_is_given_is_not_changed() -> None:
    logits = random_logits(300, 4)
    before = logits.clone()
    asked = params(repetition_penalty=2.0, presence_penalty=1.0, frequency_penalty=1.0, top_k=9)
    row = Row.of(asked, [1, 2])
    for _ in range(5):
        draw(logits, [row])
    assert torch.equal(logits, before)


# Penalties ----------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    prompt=st.lists(st.integers(0, 29), min_size=1, max_size=8),
    reply=st.lists(st.integers(0, 29), max_size=12),
    factor=st.floats(0.5, 2.0),
    seed=st.integers(0, 999),
)
def test_the_repetition_penalty_is_that_of_transformers(
    prompt: list[int], reply: list[int], factor: float, seed: int
) -> None:
    """Keskar et al. 2019: prompt and reply alike."""
    logits = random_logits(30, seed)
    row = Row.of(params(repetition_penalty=factor), prompt)
    row.counts.update(reply)
    ids = torch.tensor([[*prompt, *reply]])
    expected = RepetitionPenaltyLogitsProcessor(factor)(ids, logits.clone())
    assert torch.allclose(sampling._penalised(logits, [row]), expected, atol=1e-6)


@settings(max_examples=60)
@given(
    reply=st.lists(st.integers(0, 9), max_size=15),
    presence=st.floats(-2, 2),
    frequency=st.floats(-2, 2),
)
def test_presence_and_frequency_count_the_reply_only(
    reply: list[int], presence: float, frequency: float
) -> None:
    """OpenAI's formula: logit − count · frequency − (count > 0) · presence."""
    logits = random_logits(10, 5)
    row = Row.of(params(presence_penalty=presence, frequency_penalty=frequency), [0, 1, 2])
    row.counts.update(reply)
    told = [logits[0, t] - reply.count(t) * frequency - (t in reply) * presence for t in range(10)]
    assert torch.allclose(sampling._penalised(logits, [row])[0], torch.stack(told), atol=1e-5)


def test_penalties_shape_what_is_drawn() -> None:
    """Greedy under a strong penalty says every token once before it says one twice."""
    for penalty in ({"presence_penalty": 100.0}, {"frequency_penalty": 100.0}):
        row = Row.of(params(temperature=0.0, **penalty), [0, 1])
        said = [draw(LOGITS, [row])[0].token for _ in range(5)]
        assert said == [0, 1, 2, 3, 4]
    row = Row.of(params(temperature=0.0, repetition_penalty=1000.0), [0, 1])
    assert draw(LOGITS, [row])[0].token == 2, "the prompt counts"
    row = Row.of(params(temperature=0.0), [0, 1])
    assert [draw(LOGITS, [row])[0].token for _ in range(3)] == [0, 0, 0]


# Log-probabilities and seeds ----------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 5, 20, 1000])
def test_log_probabilities_are_the_model_s_own(count: int) -> None:
    """Before penalties and temperature, the likeliest first."""
    logits = random_logits(300, 6)
    expected = logits[0].double().log_softmax(-1)
    asked = params(temperature=0.3, top_k=9, repetition_penalty=1.5, seed=1, logprobs=count)
    row = Row.of(asked, [int(logits.argmax())])
    for _ in range(6):
        [one] = draw(logits, [row])
        assert one.logprob == pytest.approx(float(expected[one.token]), abs=1e-5)
        assert len(one.top) == min(count, 300)
        assert [token for token, _ in one.top] == expected.argsort(descending=True)[:count].tolist()
        values = [value for _, value in one.top]
        assert values == sorted(values, reverse=True)
        assert values == pytest.approx([float(expected[token]) for token, _ in one.top], abs=1e-5)


def test_log_probabilities_cost_nothing_where_nobody_asks() -> None:
    [one] = draw(LOGITS, [Row.of(params(seed=1), [1])])
    assert (one.logprob, one.top) == (None, ())


def many(seed: int | None) -> list[int]:
    row = Row.of(params(seed=seed), [1])
    return [draw(LOGITS, [row])[0].token for _ in range(40)]


def test_a_seed_reproduces_the_draws_and_none_does_not() -> None:
    for seed in (0, 1, 2**32, 2**63 - 1):
        assert many(seed) == many(seed)
    assert many(1) != many(2)
    assert many(None) != many(None)
