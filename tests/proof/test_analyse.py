"""Effects against numbers worked out by hand, and what the lots say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodidact.proof import analyse
from autodidact.proof.analyse import Gain


def swapped(table: dict[str, tuple[float, float]], first: set[str]) -> list[Gain]:
    """One question an article; (gain in arm A, gain in arm B); `first` are taught in arm A."""
    return [
        Gain(0, arm, title, f"{title}?", (title in first) == (arm == "A"), values[i])
        for title, values in table.items()
        for i, arm in enumerate("AB")
    ]


def test_the_effect_is_the_mean_of_the_arms_differences() -> None:
    table = {"a": (3.0, 1.0), "b": (5.0, 1.0), "c": (1.0, 2.0), "d": (1.0, 4.0)}
    gains = swapped(table, {"a", "b"})
    # Arm A: (3 + 5) / 2 − (1 + 1) / 2 = 3. Arm B: (2 + 4) / 2 − (1 + 1) / 2 = 2.
    assert analyse.each_arm(gains) == [
        {"seed": 0, "arm": "A", "value": 3.0},
        {"seed": 0, "arm": "B", "value": 2.0},
    ]
    found = analyse.effect(gains)
    assert found["value"] == pytest.approx(2.5)
    assert (found["n"], found["articles"]) == (4, 4)
    assert found["lower"] < 2.5 < found["upper"]


def test_an_arm_that_gains_everywhere_shows_nothing() -> None:
    table = dict.fromkeys("abcdef", (7.0, 0.0))
    found = analyse.effect(swapped(table, {"a", "b", "c"}))
    assert found["value"] == pytest.approx(0.0)
    assert found["lower"] <= 0 <= found["upper"]


def test_unequal_halves_do_not_let_an_arms_level_through() -> None:
    gains = swapped(dict.fromkeys("abcd", (7.0, 0.0)), {"a", "b"})
    gains += [Gain(0, arm, "a", f"more {i}", arm == "A", 7.0 if arm == "A" else 0.0)
              for i in range(9) for arm in "AB"]  # fmt: skip
    assert analyse.effect(gains)["value"] == pytest.approx(0.0)


def test_without_a_swap_two_groups_are_compared() -> None:
    gains = [Gain(0, "A", t, t, t in "abc", 2.0 if t in "abc" else 0.5) for t in "abcdef"]
    found = analyse.effect(gains)
    assert found["value"] == pytest.approx(1.5)
    assert analyse.randomisation(gains) is None


def test_arms_of_which_one_side_was_asked_say_nothing() -> None:
    """A subset may hold no question of one half: its arms have no level to compare with."""
    one_half = swapped({"a": (3.0, 1.0), "b": (5.0, 1.0)}, {"a", "b"})
    assert analyse.effect(one_half) == {
        "value": None, "lower": None, "upper": None, "n": 0, "articles": 0
    }  # fmt: skip
    assert analyse.randomisation(one_half) is None
    later = [Gain(1, g.arm, g.title, g.question, g.taught, g.value)
             for g in swapped({"c": (2.0, 0.0), "d": (0.0, 2.0)}, {"c"})]  # fmt: skip
    found = analyse.effect([*one_half, *later])
    assert (found["value"], found["n"], found["articles"]) == (pytest.approx(2.0), 2, 2)


def test_the_lots_drawn_again_say_how_rare_the_effect_is() -> None:
    table = {t: (1.0, 0.0) if t in "abcd" else (0.0, 1.0) for t in "abcdefgh"}
    # 8 choose 4 = 70 assignments, of which one gives an effect as large.
    p = analyse.randomisation(swapped(table, set("abcd")), draws=4000)
    assert p == pytest.approx(1 / 70, abs=0.008)


def test_permuted_labels_find_little_where_the_effect_is_large() -> None:
    table = {
        t: (5.0 + i % 3, -(i % 2)) if i < 12 else (i % 2, 5.0 + i % 5)
        for i, t in enumerate("abcdefghijklmnopqrstuvwx")
    }
    gains = swapped({t: (float(a), float(b)) for t, (a, b) in table.items()}, set("abcdefghijkl"))
    assert analyse.effect(gains)["lower"] > 4
    permuted = analyse.labels_permuted(gains, times=100)
    assert permuted["n"] == 100
    assert permuted["k"] <= 10


def test_one_article_alone_has_no_bounds() -> None:
    assert analyse.mean([("a", 1.0)]) == {
        "value": 1.0, "lower": None, "upper": None, "n": 1, "articles": 1
    }  # fmt: skip
    assert analyse.mean([])["value"] is None


@given(st.lists(st.floats(-9, 9), min_size=4, max_size=10), st.floats(-5, 5))
def test_what_all_taught_questions_gain_more_is_the_effect(base: list[float], more: float) -> None:
    titles = [f"t{i}" for i in range(len(base))]
    first = set(titles[: len(titles) // 2])
    table = {
        t: (value + more * (t in first), value + more * (t not in first))
        for t, value in zip(titles, base, strict=True)
    }
    assert analyse.effect(swapped(table, first))["value"] == pytest.approx(more, abs=1e-9)


def test_a_share_has_wilsons_interval() -> None:
    found = analyse.share(5, 10)
    assert found["value"] == 0.5
    assert found["lower"] == pytest.approx(0.2366, abs=1e-3)
    assert found["upper"] == pytest.approx(0.7634, abs=1e-3)
