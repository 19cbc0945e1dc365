"""Publishing, killed or failing at every call: what `CURRENT` names is whole, a retry succeeds.

A small process without torch publishes version 2 over and over, each time in a fresh home, and
dies (or is told that the disk is full, or broken) at the first, the second, … call to the file
system. It ends when a publication gets through untouched.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autodidact import checkpoints
from autodidact.home import prepare_home
from autodidact.settings import PROJECT
from tests.versions import BASE_SHA, WEIGHTS_BYTES, manifest_for, publish, stage

pytest_plugins = ["tests.core_fixtures"]

NEW = b"new" * 400
DRIVER = """
import builtins, errno, io, json, os, shutil, signal, sys
from pathlib import Path
from autodidact import checkpoints

root, what, action = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
manifest = json.loads(sys.argv[4])
CALLS = ("open", "fsync", "rename", "replace", "unlink", "ftruncate", "pwrite")

def inject(at):
    count = 0
    def step(half=None):
        nonlocal count
        count += 1
        if count == at:
            if half is not None:
                half()
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(getattr(errno, what), os.strerror(getattr(errno, what)))
    def wrap(real):
        def call(*arguments, **named):
            step()
            return real(*arguments, **named)
        return call
    for name in CALLS:
        setattr(os, name, wrap(getattr(os, name)))
    class Writer(io.FileIO):
        def write(self, data):
            step(lambda: super(Writer, self).write(bytes(data)[: len(data) // 2]))
            return super().write(data)
    real_open = builtins.open
    def fake_open(path, mode="r", *arguments, **named):
        step()
        if mode == "wb":
            return io.BufferedWriter(Writer(path, "w"))
        return real_open(path, mode, *arguments, **named)
    builtins.open = fake_open
    return lambda: count < at

for at in range(1, 200):
    home = root / str(at)
    shutil.copytree(root / "template", home)
    child = os.fork()
    if child == 0:
        untouched = inject(at)
        said = None
        try:
            if action == "publish":
                staged = checkpoints.staging(home, 2) / "adapter"
                checkpoints.publish(home, staged, 2, manifest)
            elif action == "retain":
                checkpoints.retain(home, 2)
            else:
                checkpoints.roll_back(home)
        except Exception as error:
            said = [type(error).__name__, str(error)]
        through = untouched()
        with io.open_code(str(root / "template" / "CURRENT")):
            pass
        handle = io.FileIO(str(root / f"{at}.json"), "w")
        io.FileIO.write(handle, json.dumps({"said": said, "through": through}).encode())
        os._exit(0)
    os.waitpid(child, 0)
    result = root / f"{at}.json"
    if result.exists() and json.loads(result.read_text())["through"]:
        print(at - 1)
        break
"""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A home where version 1 serves and version 2 is staged."""
    folder = tmp_path / "runs" / "template"
    prepare_home(folder)
    publish(folder, 1, None)
    stage(folder, 2, NEW)
    return folder


def every_call(template: Path, what: str, action: str = "publish") -> list[tuple[Path, Any]]:
    """Run with a fault at each call in turn; the homes and what was raised there."""
    root = template.parent
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(root), what, action, json.dumps(manifest_for(1))],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stderr == ""
    count = int(done.stdout)
    found = []
    for at in range(1, count + 2):
        result = root / f"{at}.json"
        found.append((root / str(at), json.loads(result.read_text()) if result.exists() else None))
    return found


def check_whole(home: Path) -> None:
    """Nothing partial is visible: what is listed verifies, and `CURRENT` names one of those."""
    listed = checkpoints.versions(home)
    assert checkpoints.current(home) in listed
    for version in listed:
        found = checkpoints.verify(home, version, BASE_SHA)
        assert found.weights == (NEW if version == 2 else WEIGHTS_BYTES)
    assert {path.name for path in (home / "versions").iterdir()} == {f"{v:06d}" for v in listed}


def publish_again(home: Path) -> None:
    """What the learner does at its next start."""
    if not checkpoints.finish_publication(home, 2):
        checkpoints.clear_staging(home)
        checkpoints.publish(home, stage(home, 2, NEW), 2, manifest_for(1))
    assert checkpoints.current(home) == 2
    assert checkpoints.verify(home, 2, BASE_SHA).weights == NEW


def test_killed_at_every_call_a_publication_is_whole_or_absent(template: Path) -> None:
    runs = every_call(template, "kill")
    assert len(runs) > 15
    outcomes = []
    for home, result in runs:
        assert (result is None) == (home != runs[-1][0]), "every run but the last was killed"
        check_whole(home)
        outcomes.append((2 in checkpoints.versions(home), checkpoints.current(home)))
        publish_again(home)
    # In order: nothing, then the version without the pointer, then both. Never back.
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {(False, 1), (True, 1), (True, 2)}


@pytest.mark.parametrize("fault", ["ENOSPC", "EDQUOT", "EIO"])
def test_a_full_or_broken_disk_is_said_and_the_old_version_stays(
    template: Path, fault: str
) -> None:
    runs = every_call(template, fault)
    assert len(runs) > 15
    published = 0
    for home, result in runs:
        check_whole(home)
        if result["said"] is None:
            assert checkpoints.current(home) == 2
            published += 1
        else:
            kind, line = result["said"]
            assert kind == ("CheckpointError" if fault == "EIO" else "ResourceError")
            assert "not published" in line
            assert "\n" not in line
            assert checkpoints.current(home) == 1
            assert checkpoints.versions(home) == [1], "what was not published is not a version"
        publish_again(home)
    assert 1 <= published < 5, "only a fault after the pointer moved still means published"


def test_killed_at_every_call_a_rollback_is_done_or_not(template: Path) -> None:
    shutil.rmtree(template / ".staging" / "cycle-000002")
    publish(template, 2, 1, NEW)
    outcomes = []
    for home, _ in every_call(template, "kill", "roll_back"):
        check_whole(home)
        outcomes.append((checkpoints.serving(home), checkpoints.current(home)))
    assert outcomes == sorted(outcomes, reverse=True)
    assert set(outcomes) == {(2, 2), (1, 2), (1, 1)}, "what serves moves first"


def test_killed_at_every_call_retention_never_leaves_half_a_version(template: Path) -> None:
    shutil.rmtree(template / ".staging" / "cycle-000002")
    publish(template, 2, 1, NEW)
    for version in (3, 4):
        publish(template, version, version - 1)
    for home, _ in every_call(template, "kill", "retain"):
        check_whole(home)
        assert checkpoints.current(home) == 4
        checkpoints.retain(home, 2)
        assert checkpoints.versions(home) == [3, 4]
        assert list((home / ".trash").iterdir()) == []


# Power loss: what is not durable may vanish, so the order of fsyncs is part of the promise -------


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(call, last part of the path) of each fsync, rename and replace, in order."""
    calls: list[tuple[str, str]] = []

    def watch(name: str, path_of: Callable[..., str]) -> None:
        real = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            result = real(*arguments, **named)
            calls.append((name, Path(path_of(*arguments)).name.split(".0")[0]))
            return result

        monkeypatch.setattr(os, name, call)

    watch("fsync", lambda handle: os.readlink(f"/proc/self/fd/{handle}"))
    watch("rename", lambda _, target: str(target))
    watch("replace", lambda _, target: str(target))
    return calls


def test_everything_is_durable_before_it_is_named(
    home: Path, recorded: list[tuple[str, str]]
) -> None:
    publish(home, 1, None)
    rename, replace = recorded.index(("rename", "000001")), recorded.index(("replace", "CURRENT"))
    files = (checkpoints.WEIGHTS, checkpoints.CONFIG, checkpoints.REPORT, checkpoints.MANIFEST)
    before = recorded[:rename]
    assert {("fsync", file) for file in files} <= set(before), "each file, then the folder"
    assert before[-1] == ("fsync", "adapter")
    between = recorded[rename + 1 : replace]
    assert between[0] == ("fsync", "versions"), "the new name, before anything points at it"
    assert between[-1][0] == "fsync"
    assert between[-1][1].startswith(".CURRENT"), "the pointer's content, before it is in place"
    assert recorded[replace + 1 :] == [("fsync", "home")]


def test_the_manifest_is_written_last(home: Path, recorded: list[tuple[str, str]]) -> None:
    publish(home, 1, None)
    synced = [name for call, name in recorded if call == "fsync"]
    manifest = synced.index(checkpoints.MANIFEST)
    others = (checkpoints.WEIGHTS, checkpoints.CONFIG, checkpoints.REPORT)
    assert all(synced.index(file) < manifest for file in others)


def test_the_pin_and_then_the_pointer_move_durably_in_a_rollback(
    home: Path, recorded: list[tuple[str, str]]
) -> None:
    publish(home, 1, None)
    recorded.clear()
    checkpoints.roll_back(home)
    assert recorded[1:] == [
        ("replace", "PIN"), ("fsync", "home"),
        ("fsync", recorded[3][1]), ("replace", "CURRENT"), ("fsync", "home"),
    ]  # fmt: skip
    assert recorded[0][1].startswith(".PIN")
    assert recorded[3][1].startswith(".CURRENT")


# Finishing what a kill cut off --------------------------------------------------------------------


def test_a_version_without_the_pointer_is_published_at_the_next_start(home: Path) -> None:
    publish(home, 1, None)
    publish(home, 2, 1)
    checkpoints.point(home, 1)
    assert checkpoints.finish_publication(home, 2)
    assert checkpoints.current(home) == 2
    assert checkpoints.finish_publication(home, 2)


def test_a_version_made_from_another_parent_is_not_published(home: Path) -> None:
    publish(home, 1, None)
    publish(home, 2, 1)
    publish(home, 3, 2)
    checkpoints.point(home, 1)
    assert not checkpoints.finish_publication(home, 3)
    assert checkpoints.current(home) == 1


def test_a_version_that_is_not_there_is_not_published(home: Path) -> None:
    publish(home, 1, None)
    assert not checkpoints.finish_publication(home, 2)
    checkpoints.folder(home, 2).mkdir()
    assert not checkpoints.finish_publication(home, 2)
    assert checkpoints.current(home) == 1
