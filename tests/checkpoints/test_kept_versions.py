"""Retention never deletes the current, the pinned or a leased version, in whatever order things
happen; and whoever pins a version while it is being deleted is told so, or has it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from autodidact import checkpoints
from autodidact.checkpoints import pins, retention
from autodidact.errors import CheckpointError
from autodidact.home import prepare_home
from tests.guarantees import full
from tests.versions import BASE_SHA, publish

pytest_plugins = ["tests.core_fixtures"]
some = st.integers(0, 2**16)


class Keeping(RuleBasedStateMachine):
    """A home in which versions come, are pinned, read and rolled back, and are retired."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="kept-"))
        self.home = self.root / "home"
        prepare_home(self.home)
        self.made = 0
        self.pinned: int | None = None
        self.current = 0
        self.leases: dict[int, int] = {}

    def teardown(self) -> None:
        for handle in self.leases.values():
            os.close(handle)
        shutil.rmtree(self.root)

    def pick(self, which: int) -> int:
        there = checkpoints.versions(self.home)
        return there[which % len(there)]

    @rule()
    def publish(self) -> None:
        self.made += 1
        publish(self.home, self.made, self.current or None, weights=b"w" * self.made)
        self.current = self.made

    @precondition(lambda self: self.made)
    @rule(which=some)
    def pin(self, which: int) -> None:
        self.pinned = self.pick(which)
        checkpoints.pin(self.home, self.pinned)

    @rule()
    def unpin(self) -> None:
        checkpoints.unpin(self.home)
        self.pinned = None

    @precondition(lambda self: self.made)
    @rule(which=some)
    def roll_back(self, which: int) -> None:
        target = self.pick(which)
        with contextlib.suppress(CheckpointError):  # it is what serves, and nothing is pinned
            checkpoints.roll_back(self.home, target)
            self.pinned = self.current = target

    @precondition(lambda self: self.made)
    @rule(which=some)
    def lease(self, which: int) -> None:
        version = self.pick(which)
        if version not in self.leases:
            handle = os.open(checkpoints.folder(self.home, version), os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_SH)
            self.leases[version] = handle

    @precondition(lambda self: self.leases)
    @rule(which=some)
    def release(self, which: int) -> None:
        version = sorted(self.leases)[which % len(self.leases)]
        os.close(self.leases.pop(version))

    @rule(keep=st.integers(1, 3))
    def retain(self, keep: int) -> None:
        before = checkpoints.versions(self.home)
        safe = {*before[-keep:], self.current, self.pinned, *self.leases}
        gone = checkpoints.retain(self.home, keep)
        assert gone == [version for version in before if version not in safe]
        assert checkpoints.versions(self.home) == [v for v in before if v in safe]

    @invariant()
    def what_serves_and_what_is_read_is_whole(self) -> None:
        if not hasattr(self, "home"):
            return
        assert checkpoints.pinned(self.home) == self.pinned
        assert checkpoints.current(self.home) == self.current
        for version in {self.current, self.pinned, *self.leases} - {0, None}:
            assert version is not None
            found = checkpoints.verify(self.home, version, BASE_SHA)
            assert found.weights == b"w" * version


TestKeeping = Keeping.TestCase
TestKeeping.settings = settings(
    max_examples=400 if full() else 12, stateful_step_count=50 if full() else 20, deadline=None
)


# One meets the other ----------------------------------------------------------------------------


@pytest.fixture
def three(home: Path) -> Path:
    for version in (1, 2, 3):
        publish(home, version, version - 1 or None)
    return home


def test_what_is_pinned_after_retention_has_looked_is_spared(
    three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = checkpoints.versions

    def listed(home: Path) -> list[int]:
        found = real(home)
        monkeypatch.undo()
        checkpoints.pin(home, 1)
        return found

    monkeypatch.setattr(retention, "versions", listed)
    assert checkpoints.retain(three, 1) == [2]
    assert checkpoints.verify(three, 1, BASE_SHA).version == checkpoints.serving(three) == 1


def test_what_is_being_pinned_is_spared(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pins.write_atomic
    gone: list[int] = []

    def replace(path: Path, data: bytes) -> None:
        gone.extend(checkpoints.retain(three, 1))
        real(path, data)

    monkeypatch.setattr(pins, "write_atomic", replace)
    checkpoints.pin(three, 1)
    assert gone == [2]
    assert checkpoints.verify(three, 1, BASE_SHA).version == checkpoints.serving(three) == 1


def test_what_is_being_deleted_cannot_be_pinned(
    three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.rename
    said: list[str] = []
    pinning = threading.Event()

    def pin() -> None:
        pinning.set()
        try:
            checkpoints.pin(three, 1)
        except CheckpointError as error:
            said.append(str(error))

    pinner = threading.Thread(target=pin)

    def rename(source: Any, target: Any) -> None:
        if not pinning.is_set():
            pinner.start()
            pinning.wait(30)
            pinner.join(0.2)
            assert pinner.is_alive(), "it waits for the lock"
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    assert checkpoints.retain(three, 1) == [1, 2]
    pinner.join(30)
    assert said == ["000001: no such version"]
    assert checkpoints.pinned(three) is None
