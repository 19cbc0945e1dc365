"""The versions in memory: as many as allowed, none that is no longer on disk. No model is needed:
what loads is a stand-in, what it loads are real published files."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autodidact import checkpoints
from autodidact.engine import Engine, Version
from autodidact.errors import CheckpointError
from autodidact.generators.shelf import Shelf
from tests.versions import BASE_SHA, CONFIG_BYTES, WEIGHTS_BYTES, publish

pytest_plugins = ["tests.core_fixtures"]


class Loader:
    """Stands for an engine: notes what it loads."""

    def __init__(self) -> None:
        self.untouched = Version(0)
        self.loaded: list[int] = []
        self.bad: set[int] = set()

    def load(self, number: int, config: bytes, weights: bytes) -> Version:
        assert (config, weights) == (CONFIG_BYTES, WEIGHTS_BYTES)
        self.loaded.append(number)
        if number in self.bad:
            raise CheckpointError(f"{number:06d}: not ours")
        return Version(number)


@pytest.fixture
def loader() -> Loader:
    return Loader()


def shelf(home: Path, loader: Loader, capacity: int = 2, sha: str = BASE_SHA) -> Shelf:
    return Shelf(home, cast(Engine, loader), sha, capacity)


@pytest.fixture
def published(home: Path) -> Path:
    for number in range(1, 6):
        publish(home, number, number - 1 or None)
    return home


def test_the_base_is_always_there(home: Path, loader: Loader) -> None:
    assert shelf(home, loader).get(0) is loader.untouched
    assert loader.loaded == []


def test_a_version_is_read_once_while_it_is_in_memory(published: Path, loader: Loader) -> None:
    held = shelf(published, loader)
    first = held.get(1)
    assert first.number == 1
    assert held.get(1) is first
    assert loader.loaded == [1]
    assert len(held) == 1


def test_the_one_that_was_asked_for_longest_ago_goes(published: Path, loader: Loader) -> None:
    held = shelf(published, loader, capacity=2)
    for number in (1, 2, 1, 3):
        held.get(number)
    assert len(held) == 2
    held.get(1)
    assert loader.loaded == [1, 2, 3]
    held.get(2)
    assert loader.loaded == [1, 2, 3, 2]


def test_what_serves_stays_besides_the_others(published: Path, loader: Loader) -> None:
    held = shelf(published, loader, capacity=1)
    serves = held.get(5)
    held.keep(5)
    for number in (1, 2, 3):
        held.get(number)
    assert len(held) == 2
    assert held.get(5) is serves
    held.get(4)
    held.keep(4)
    assert len(held) == 2, "one that serves and one besides"


def test_what_is_no_longer_on_disk_is_not_served_from_memory(
    published: Path, loader: Loader
) -> None:
    held = shelf(published, loader)
    version = held.get(1)
    assert checkpoints.discard(published, [1]) == [1]
    with pytest.raises(CheckpointError, match="000001: no such version"):
        held.get(1)
    assert len(held) == 0
    assert version.number == 1, "a reply that runs holds it itself"


def test_a_version_that_never_was_is_refused(published: Path, loader: Loader) -> None:
    with pytest.raises(CheckpointError, match="000009: no such version"):
        shelf(published, loader).get(9)
    assert loader.loaded == []


def test_a_version_is_verified_before_it_is_loaded(published: Path, loader: Loader) -> None:
    (checkpoints.folder(published, 2) / checkpoints.WEIGHTS).write_bytes(b"other")
    held = shelf(published, loader)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="sha256 mismatch"):
            held.get(2)
    with pytest.raises(CheckpointError, match="another base"):
        shelf(published, loader, sha="c" * 64).get(1)
    assert loader.loaded == []


def test_what_does_not_load_takes_no_place(published: Path, loader: Loader) -> None:
    loader.bad = {2}
    held = shelf(published, loader, capacity=1)
    kept = held.get(1)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="not ours"):
            held.get(2)
    assert held.get(1) is kept
    assert len(held) == 1


def test_a_fault_of_the_disk_says_nothing_about_the_version(
    published: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = checkpoints.verify
    faults = [OSError(24, "Too many open files")]

    def verify(*arguments: Any) -> Any:
        if faults:
            raise faults.pop()
        return real(*arguments)

    monkeypatch.setattr(checkpoints, "verify", verify)
    held = shelf(published, loader)
    with pytest.raises(OSError, match="Too many open files"):
        held.get(1)
    assert held.get(1).number == 1


def test_many_who_ask_at_once_load_it_once(published: Path, loader: Loader) -> None:
    held = shelf(published, loader)
    begin = threading.Barrier(8)
    found: list[Version] = []

    def work() -> None:
        begin.wait()
        found.append(held.get(3))

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert loader.loaded == [3]
    assert len({id(version) for version in found}) == 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(st.tuples(st.sampled_from(["get", "keep"]), st.integers(1, 5)), max_size=25),
    capacity=st.integers(1, 4),
)
def test_never_more_in_memory_than_allowed(
    published: Path, asked: list[tuple[str, int]], capacity: int
) -> None:
    held, kept = shelf(published, Loader(), capacity), {0}
    for do, number in asked:
        if do == "get":
            assert held.get(number).number == number
        else:
            kept = {number}
            held.keep(number)
        assert len(held) <= capacity + len(kept)
