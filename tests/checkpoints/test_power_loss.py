"""A power cut at any moment of a publication, a pin or a rollback: what serves is whole.

The operations are recorded as they are done, then every state that a power cut may leave is built
and looked at with the functions that the server and the learner use. Each fsync is needed: with any
one of them left out, a state is found that breaks the promise.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from autodidact import checkpoints
from autodidact.checkpoints import BASE_VERSION
from autodidact.errors import CheckpointError
from autodidact.home import prepare_home
from tests.power_loss import (
    Folder,
    Operation,
    Recorder,
    State,
    build,
    left_of,
    now,
    on_disk,
    play,
    scan,
)
from tests.versions import BASE_SHA, manifest_for, publish, stage

NEW = b"new" * 400


class Broken(Exception):
    """A state that breaks the promise."""


@dataclass(frozen=True)
class Case:
    """Something that changes what serves: how a home looks before, what is done, and what (pinned,
    newest) may be found at any moment, the last of these once it is done."""

    before: Callable[[Path], None]
    act: Callable[[Recorder, Path], None]
    found: tuple[tuple[int | None, int], ...]


def publish_recorded(recorder: Recorder, home: Path, version: int, parent: int | None) -> None:
    staged = stage(home, version, NEW)
    recorder.appears(checkpoints.staging(home, version))
    with recorder.watching():
        checkpoints.publish(home, staged, version, manifest_for(parent))


def first_publication(recorder: Recorder, home: Path) -> None:
    with recorder.watching():
        prepare_home(home)
    publish_recorded(recorder, home, 1, None)


def watched(act: Callable[[Path], object]) -> Callable[[Recorder, Path], None]:
    def run(recorder: Recorder, home: Path) -> None:
        with recorder.watching():
            act(home)

    return run


def versions(*numbers: int, pin: int | None = None) -> Callable[[Path], None]:
    def make(home: Path) -> None:
        prepare_home(home)
        for number in numbers:
            publish(home, number, number - 1 or None)
        if pin is not None:
            checkpoints.pin(home, pin)

    return make


CASES = {
    "the first publication": Case(lambda home: None, first_publication, ((None, 0), (None, 1))),
    "a publication": Case(
        versions(1), lambda r, home: publish_recorded(r, home, 2, 1), ((None, 1), (None, 2))
    ),
    "a publication while one is pinned": Case(
        versions(1, 2, pin=1), lambda r, home: publish_recorded(r, home, 3, 2), ((1, 2), (1, 3))
    ),
    "a pin": Case(
        versions(1, 2), watched(lambda home: checkpoints.pin(home, 1)), ((None, 2), (1, 2))
    ),
    "another pin": Case(
        versions(1, 2, 3, pin=1), watched(lambda home: checkpoints.pin(home, 2)), ((1, 3), (2, 3))
    ),
    "the end of a pin": Case(
        versions(1, 2, pin=1), watched(checkpoints.unpin), ((1, 2), (None, 2))
    ),
    "a rollback": Case(
        versions(1, 2), watched(checkpoints.roll_back), ((None, 2), (1, 2), (1, 1))
    ),
}  # fmt: skip
PUBLICATIONS = [name for name in CASES if "publication" in name]
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def record(case: Case, home: Path, without: int | None = None) -> tuple[Recorder, Path]:
    """Do it once; the recorder, and a copy of the home from before."""
    home.mkdir(parents=True)
    case.before(home)
    before = home.with_name("before")
    shutil.copytree(home, before)
    recorder = Recorder(home, without)
    case.act(recorder, home)
    return recorder, before


def moments(before: Path, operations: list[Operation]) -> Iterator[tuple[bool, set[State]]]:
    """What a power cut may leave after each operation, and whether it was the last."""
    for count in range(len(operations) + 1):
        root: Folder = scan(before)
        play(root, operations[:count])
        yield count == len(operations), left_of(root)


def check(case: Case, home: Path, done: bool) -> None:
    """Raises Broken where the next start finds anything but what the case promises."""
    try:
        found = (checkpoints.pinned(home), checkpoints.current(home))
        named = {checkpoints.serving(home), checkpoints.current(home)}
        for version in (named | set(checkpoints.versions(home))) - {BASE_VERSION}:
            checkpoints.verify(home, version, BASE_SHA)
    except CheckpointError as error:
        raise Broken(str(error)) from None
    if found not in case.found:
        raise Broken(f"(pinned, newest) are {found}")
    if done and found != case.found[-1]:
        raise Broken(f"it was done, and then {found}")


def check_all(case: Case, root: Path, without: int | None = None) -> int:
    """Check every state. Returns how many there are; raises Broken at the first that is bad."""
    recorder, before = record(case, root / "home", without)
    seen: set[tuple[bool, State]] = set()
    for done, states in moments(before, recorder.operations):
        for state in states:
            key = (done, state)
            if key not in seen:
                seen.add(key)
                check(case, build(state, root / "left" / str(len(seen))), done)
    return len(seen)


@every_case
def test_a_power_cut_leaves_the_old_or_the_new(case: Case, tmp_path: Path) -> None:
    assert check_all(case, tmp_path) >= 3


@every_case
def test_the_recorder_sees_all_that_is_done(case: Case, tmp_path: Path) -> None:
    """Else states would be missing."""
    recorder, before = record(case, tmp_path / "home")
    root = scan(before)
    play(root, recorder.operations)
    assert now(root) == on_disk(tmp_path / "home")


@every_case
def test_each_fsync_is_needed(case: Case, tmp_path: Path) -> None:
    recorder, _ = record(case, tmp_path / "counted" / "home")
    assert recorder.syncs >= 1
    for without in range(recorder.syncs):
        with pytest.raises(Broken):
            check_all(case, tmp_path / str(without), without)


@pytest.mark.parametrize("name", PUBLICATIONS)
def test_after_a_power_cut_the_publication_can_be_done_again(name: str, tmp_path: Path) -> None:
    """What the learner does at its next start."""
    case = CASES[name]
    new = case.found[-1][1]
    recorder, before = record(case, tmp_path / "home")
    ways = set()
    for _, states in moments(before, recorder.operations):
        for number, state in enumerate(states):
            home = build(state, tmp_path / f"{len(ways)}-{number}")
            prepare_home(home)
            finished = checkpoints.finish_publication(home, new)
            if not finished:
                parent = checkpoints.current(home) or None
                checkpoints.publish(home, stage(home, new, NEW), new, manifest_for(parent))
            assert checkpoints.current(home) == new
            assert checkpoints.verify(home, new, BASE_SHA).weights == NEW
            ways.add(finished)
            shutil.rmtree(home)
    assert ways == {True, False}
