"""What an examiner asks of a graph: the same replies and likelihoods as of torch's modules."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autodidact.engine import Engine, Version, graph, graph_offline
from autodidact.engine.cache import SlotCache
from autodidact.engine.graph_passes import GraphPasses
from autodidact.models.loading import LoadedBase
from tests.blocks import in_blocks
from tests.versions import load_adapter, save_adapter

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
EXACT = 1
OPENING = list(range(20, 40))
Pair = tuple[list[int], list[int]]


@pytest.fixture
def base(tiny_base: Callable[[str], LoadedBase]) -> LoadedBase:
    return in_blocks(tiny_base("llama"))


@pytest.fixture
def passes(base: LoadedBase) -> GraphPasses:
    return GraphPasses(graph.build(base.model, base.context, accuracy=EXACT), 1)


@pytest.fixture
def engine(base: LoadedBase, passes: GraphPasses) -> Engine:
    return Engine(base, graph=passes)


def pairs(count: int = 60) -> list[Pair]:
    """Questions after one opening, some offered several answers, some long texts."""
    dice = random.Random(3)

    def tokens(least: int, most: int) -> list[int]:
        return [dice.randrange(20, 400) for _ in range(dice.randint(least, most))]

    found: list[Pair] = []
    for number in range(count):
        asked = [*OPENING, *tokens(1, 30)] if number % 4 else tokens(1, 5)
        found += [(asked, tokens(1, 7)) for _ in range(dice.choice((1, 1, 4)))]
    found += [(tokens(1, 1), tokens(230, 230)) for _ in range(3)]
    dice.shuffle(found)
    return found


def both(base: LoadedBase, engine: Engine, folder: Path) -> list[tuple[Engine, Version]]:
    """The base, and a version of it, by torch and by the graph."""
    saved = save_adapter(base, folder)
    plain = Engine(base)
    return [
        (plain, plain.untouched),
        (engine, engine.untouched),
        (plain, load_adapter(plain, 1, saved)),
        (engine, load_adapter(engine, 1, saved)),
    ]


@pytest.mark.parametrize("parts", [1, 8])
def test_likelihoods_are_those_of_the_modules(
    base: LoadedBase,
    passes: GraphPasses,
    tmp_path: Path,
    parts: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graph_offline, "PART", 100)
    engine = Engine(base, parts=parts, graph=passes)
    found = [made.score(version, pairs()) for made, version in both(base, engine, tmp_path)]
    assert found[1] == pytest.approx(found[0], abs=1e-4)
    assert found[3] == pytest.approx(found[2], abs=1e-4)
    assert found[0] != pytest.approx(found[2], abs=1e-2), "another version"


def test_replies_are_those_of_the_modules(
    base: LoadedBase, passes: GraphPasses, tmp_path: Path
) -> None:
    """More than there are slots, and some that end early."""
    asked = [prompt for prompt, _ in pairs(40)]
    free = Engine(replace(base, stop_ids=frozenset({-1})), graph=passes)
    whole = free.complete(free.untouched, asked[:9], 12)
    base = replace(base, stop_ids=frozenset(reply[i] for i, reply in enumerate(whole)))
    engine = Engine(base, graph=passes)
    assert len(asked) > 2 * graph_offline.ROWS
    by_modules, by_graph, versions, versions_by_graph = (
        made.complete(version, asked, 12) for made, version in both(base, engine, tmp_path)
    )
    assert by_graph == by_modules
    assert versions_by_graph == versions
    assert len({len(reply) for reply in by_modules + versions}) > 2
    assert by_modules != versions


def test_a_stop_token_ends_a_reply_and_is_left_out(base: LoadedBase, passes: GraphPasses) -> None:
    asked = [[*OPENING, 50 + i] for i in range(6)]
    free = Engine(replace(base, stop_ids=frozenset({-1})), graph=passes)
    whole = free.complete(free.untouched, asked, 20)
    assert {len(reply) for reply in whole} == {20}
    stop = whole[2][5]
    stopping = Engine(replace(base, stop_ids=frozenset({stop})), graph=passes)
    assert stopping.complete(stopping.untouched, asked, 20) == [
        reply[: reply.index(stop)] if stop in reply else reply for reply in whole
    ]


def test_lengths_and_draws(engine: Engine) -> None:
    asked = [prompt for prompt, _ in pairs(20)]
    for length in (0, 1, 3):
        assert max(map(len, engine.complete(engine.untouched, asked, length))) == length
    drawn = [
        engine.complete(engine.untouched, asked, 8, temperature=1.0, seed=seed)
        for seed in (5, 5, 6)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert engine.complete(engine.untouched, [], 5) == []
    assert engine.score(engine.untouched, []) == []


def test_what_was_computed_before_is_not_computed_again(
    engine: Engine, passes: GraphPasses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The opening once; a question whose reply was asked for is there when answers are scored."""
    sizes: list[int] = []
    prompt = passes.prompt

    def counted(adapter: object, cache: SlotCache, tokens: list[int], *rest: int) -> torch.Tensor:
        sizes.append(len(tokens))
        return prompt(adapter, cache, tokens, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(passes, "prompt", counted)
    asked = [[*OPENING, 50 + i, 90, 91, 92 + i] for i in range(5)]
    engine.complete(engine.untouched, asked, 3)
    assert sizes == [24, 4, 4, 4, 4]
    sizes.clear()
    engine.score(engine.untouched, [(p, [7 + i, 9]) for p in asked for i in range(3)])
    assert sizes == [1] * 5
    sizes.clear()
    engine.rest()
    engine.score(engine.untouched, [(asked[0], [7])])
    assert sizes == [24], "nothing is kept after a rest"


def test_each_pass_waits_its_turn(base: LoadedBase, passes: GraphPasses) -> None:
    """A study lets the chat go first before each pass."""
    told: list[str] = []
    engine = Engine(base, before_pass=lambda: told.append("waits"), graph=passes)
    engine.complete(engine.untouched, [OPENING, OPENING[:9]], 4)
    assert len(told) >= 2 + 3
    before = len(told)
    engine.score(engine.untouched, [(OPENING, [5, 6, 7]), (OPENING, [8])])
    assert len(told) == before + 1 + 2
