from __future__ import annotations

from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from autodidact.errors import SourceUnreachable
from autodidact.sources.backoff import FIRST_S, LONGEST_S, Outage

ERROR = SourceUnreachable("http://wiki.example/api.php cannot be reached:\nConnection refused")


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def waits(name: str, seed: int, count: int) -> list[float]:
    clock = Clock(0.0)
    outage = Outage(name, clock, seed)
    return [outage.failed(ERROR)[0] for _ in range(count)]


def test_a_well_source_is_due_and_says_nothing() -> None:
    outage = Outage("wikipedia", Clock())
    assert outage.due(0.0)
    assert outage.recovered() is None


def test_one_line_when_it_begins_and_one_when_it_ends() -> None:
    clock = Clock()
    outage = Outage("wikipedia", clock)
    next_try, line = outage.failed(ERROR)
    at = datetime.fromtimestamp(next_try).strftime("%H:%M:%S")
    assert line == (
        "wikipedia: http://wiki.example/api.php cannot be reached: Connection refused; "
        f"next try at {at}, then less often"
    )
    for _ in range(5):
        clock.now = next_try
        next_try, line = outage.failed(SourceUnreachable("another reason"))
        assert line is None
    clock.now = 1_000_000.0 + 47 * 60
    assert outage.recovered() == "wikipedia: back after 47 min and 6 failed tries"
    assert outage.recovered() is None


def test_a_short_and_a_long_outage_read_well() -> None:
    clock = Clock()
    outage = Outage("wikipedia", clock)
    outage.failed(ERROR)
    clock.now += 20
    assert outage.recovered() == "wikipedia: back after less than a minute and 1 failed try"
    outage.failed(ERROR)
    outage.failed(ERROR)
    clock.now += 9_000
    assert outage.recovered() == "wikipedia: back after 2.5 h and 2 failed tries"


def test_the_next_outage_begins_anew() -> None:
    clock = Clock()
    outage = Outage("wikipedia", clock)
    first, _ = outage.failed(ERROR)
    for _ in range(8):
        later, _ = outage.failed(ERROR)
    assert later - clock.now > 10 * (first - clock.now)
    outage.recovered()
    assert outage.due(clock.now)
    again, line = outage.failed(ERROR)
    assert again == first
    assert line is not None


def test_due_from_the_next_try_on_and_when_the_clock_is_put_back() -> None:
    clock = Clock()
    outage = Outage("wikipedia", clock)
    next_try, _ = outage.failed(ERROR)
    assert not outage.due(clock.now)
    assert not outage.due(next_try - 0.001)
    assert outage.due(next_try)
    assert outage.due(clock.now - 3_600)


@given(st.text(max_size=10), st.integers(0, 2**31), st.integers(1, 60))
def test_waits_double_with_jitter_from_a_minute_to_an_hour(name: str, seed: int, n: int) -> None:
    series = waits(name, seed, n)
    assert series == waits(name, seed, n)
    assert all(FIRST_S <= wait <= LONGEST_S for wait in series)
    for count, wait in enumerate(series[:6]):
        assert FIRST_S * 2**count <= wait <= 1.25 * FIRST_S * 2**count
    assert all(wait >= LONGEST_S / 1.25 for wait in series[6:])


def test_seeds_and_names_do_not_come_back_in_step() -> None:
    series = [waits(name, seed, 8) for name in ("files", "wikipedia") for seed in range(20)]
    assert len({tuple(one) for one in series}) == len(series)
    last = sorted(one[-1] for one in series)
    assert last[-1] - last[0] > 0.1 * LONGEST_S
