from __future__ import annotations

import pytest

from autodidact.errors import Busy, RateExceeded
from autodidact.web.limits import LONGEST_WAIT_S, Allowance, Places, connections, network


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def spent(allowance: Allowance, address: str, times: int) -> int:
    """How many of so many requests pass."""
    passed = 0
    for _ in range(times):
        try:
            allowance.spend(address)
        except RateExceeded:
            continue
        passed += 1
    return passed


# Places -------------------------------------------------------------------------------------------


def test_places_are_bounded_and_come_back() -> None:
    places = Places(running=2, waiting=1)
    for _ in range(3):
        places.take()
    assert places.full
    with pytest.raises(Busy, match="busy with 3 other replies"):
        places.take()
    assert places.taken == 3
    places.free()
    places.take()
    for _ in range(3):
        places.free()
    assert (places.taken, places.full) == (0, False)


def test_the_wait_to_suggest_grows_with_the_queue() -> None:
    places = Places(running=4, waiting=400)
    waits = []
    for _ in range(404):
        places.take()
        waits.append(places.retry_after_s)
    assert waits == sorted(waits)
    assert waits[0] == 1
    # 4 s a reply (the first guess), 4 at a time: one more a second.
    assert waits[43] == 41
    assert waits[-1] == LONGEST_WAIT_S


def test_the_wait_follows_how_long_replies_take() -> None:
    places = Places(running=1, waiting=10)
    for _ in range(6):
        places.take()
    waits = []
    for reply_s in [30.0] * 30 + [0.01] * 60:
        places.take()
        places.free(reply_s)
        waits.append(places.retry_after_s)
    assert waits[29] == LONGEST_WAIT_S
    assert waits[-1] == 1
    before = places.retry_after_s
    places.take()
    places.free()  # it never came to a first token: nothing is learned of it
    assert places.retry_after_s == before


def test_connections_leave_room_for_ten_times_the_places() -> None:
    for places in (1, 96, 1000):
        assert connections(places) > 10 * places


# Allowance ----------------------------------------------------------------------------------------


def test_so_many_requests_a_minute_pass() -> None:
    clock = Clock()
    allowance = Allowance(6, clock=clock)
    assert spent(allowance, "192.0.2.1", 10) == 6
    with pytest.raises(RateExceeded, match="6 a minute are allowed") as refused:
        allowance.spend("192.0.2.1")
    assert refused.value.status == 429
    assert refused.value.retry_after_s == 10
    clock.now += refused.value.retry_after_s
    assert spent(allowance, "192.0.2.1", 10) == 1
    clock.now += 3600
    assert spent(allowance, "192.0.2.1", 10) == 6


def test_who_waits_as_long_as_told_is_served() -> None:
    for per_minute in (1, 7, 59, 60, 61, 1000):
        clock = Clock()
        allowance = Allowance(per_minute, clock=clock)
        assert spent(allowance, "x", per_minute) == per_minute
        for _ in range(50):
            with pytest.raises(RateExceeded) as refused:
                spent_up(allowance)
            assert refused.value.retry_after_s is not None
            clock.now += refused.value.retry_after_s
            allowance.spend("x")


def spent_up(allowance: Allowance) -> None:
    while True:
        allowance.spend("x")


def test_addresses_do_not_share_but_a_customer_s_ipv6_network_does() -> None:
    allowance = Allowance(2, clock=Clock())
    assert spent(allowance, "192.0.2.1", 3) == 2
    assert spent(allowance, "192.0.2.2", 3) == 2
    assert spent(allowance, "2001:db8:1:2::1", 1) == 1
    assert spent(allowance, "2001:db8:1:2:ffff::9", 3) == 1
    assert spent(allowance, "2001:db8:1:3::1", 3) == 2


@pytest.mark.parametrize(
    ("address", "one"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("a socket", "a socket"),
    ],
)
def test_what_counts_as_one_client(address: str, one: str) -> None:
    assert network(address) == one


def test_memory_is_bounded_and_keeps_those_seen_last() -> None:
    allowance = Allowance(1, addresses=100, clock=Clock())
    allowance.spend("old")
    allowance.spend("busy")
    for n in range(98):
        allowance.spend(f"10.0.0.{n}")
    assert spent(allowance, "busy", 1) == 0  # seen again just now
    allowance.spend("new")
    assert len(allowance) == 100
    assert spent(allowance, "busy", 1) == 0
    assert spent(allowance, "old", 1) == 1  # forgotten


def test_no_limit_unless_one_is_set() -> None:
    allowance = Allowance(0, clock=Clock())
    assert spent(allowance, "192.0.2.1", 10_000) == 10_000
    assert len(allowance) == 0
