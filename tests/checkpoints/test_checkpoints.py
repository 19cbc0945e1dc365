"""`autodidact.checkpoints`: versions on disk. What a kill leaves is in test_publication.py."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autodidact import checkpoints
from autodidact import home as home_room
from autodidact.checkpoints import CONFIG, MANIFEST, REPORT, WEIGHTS, pins
from autodidact.errors import CheckpointError, LockHeld, ResourceError
from autodidact.home import _filesystem, lock, prepare_home, write_atomic
from autodidact.settings import PROJECT
from tests.versions import (
    BASE_SHA,
    CONFIG_BYTES,
    WEIGHTS_BYTES,
    manifest_for,
    one_line,
    publish,
    stage,
)

pytest_plugins = ["tests.core_fixtures"]


def test_a_fresh_home_serves_the_untouched_base(home: Path) -> None:
    assert checkpoints.current(home) == 0
    assert checkpoints.versions(home) == []
    assert checkpoints.pinned(home) is None
    assert checkpoints.serving(home) == 0
    assert checkpoints.rejected(home) == {}


def test_a_published_version_is_current_and_verifies(home: Path) -> None:
    publish(home, 1, None)
    publish(home, 2, 1, weights=b"two")
    assert checkpoints.current(home) == 2
    assert checkpoints.versions(home) == [1, 2]
    found = checkpoints.verify(home, 2, BASE_SHA)
    assert (found.version, found.weights, found.config) == (2, b"two", CONFIG_BYTES)
    assert checkpoints.verify(home, 1, BASE_SHA).weights == WEIGHTS_BYTES
    assert checkpoints.read(home, 2).parent == 1
    assert checkpoints.read(home, 1).parent is None


def test_a_version_holds_its_four_files_and_nothing_else(home: Path) -> None:
    staged = stage(home, 1)
    (staged / "README.md").write_text("PEFT writes one")
    (staged / "leftovers").mkdir()
    (staged / "leftovers" / "optimizer.pt").write_bytes(b"x")
    checkpoints.publish(home, staged, 1, manifest_for(None))
    names = {path.name for path in checkpoints.folder(home, 1).iterdir()}
    assert names == {CONFIG, WEIGHTS, REPORT, MANIFEST}
    manifest = checkpoints.read(home, 1).manifest
    assert set(manifest["files"]) == {CONFIG, WEIGHTS, REPORT}
    assert manifest["files"][WEIGHTS]["size"] == len(WEIGHTS_BYTES)
    assert manifest["version"] == 1
    assert not staged.exists()


def test_a_version_is_never_published_over_another(home: Path) -> None:
    publish(home, 1, None)
    with pytest.raises(CheckpointError) as caught:
        publish(home, 1, None, weights=b"other")
    assert "000001" in one_line(caught.value)
    assert checkpoints.verify(home, 1, BASE_SHA).weights == WEIGHTS_BYTES


def test_publishing_without_weights_fails_and_shows_nothing(home: Path) -> None:
    staged = stage(home, 1)
    (staged / WEIGHTS).unlink()
    with pytest.raises(CheckpointError) as caught:
        checkpoints.publish(home, staged, 1, manifest_for(None))
    assert WEIGHTS in one_line(caught.value)
    assert checkpoints.current(home) == 0
    assert checkpoints.versions(home) == []


def test_reading_a_version_that_is_not_there(home: Path) -> None:
    with pytest.raises(CheckpointError, match="000007: no such version"):
        checkpoints.read(home, 7)
    with pytest.raises(CheckpointError, match="000007: no such version"):
        checkpoints.verify(home, 7, BASE_SHA)


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "²", "000001\n000002", "\x00" * 7])
def test_a_damaged_pointer_is_said_in_one_line(home: Path, text: str) -> None:
    (home / "CURRENT").write_text(text)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.current(home)
    assert "CURRENT" in one_line(caught.value)


def test_a_pointer_that_is_not_text_is_said_in_one_line(home: Path) -> None:
    (home / "CURRENT").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError) as caught:
        checkpoints.current(home)
    assert "CURRENT" in one_line(caught.value)


@pytest.mark.parametrize("stray", ["1", "²", "000001.old", ".000001", "000003"])
def test_folders_that_are_no_versions_are_not_listed(home: Path, stray: str) -> None:
    publish(home, 2, None)
    folder = home / "versions" / stray
    folder.mkdir()
    if stray != "000003":  # that one has the right name and is not complete
        shutil.copy(checkpoints.folder(home, 2) / MANIFEST, folder)
    assert checkpoints.versions(home) == [2]


# Rolling back, rejecting ------------------------------------------------------------------------


def test_rolling_back_goes_to_the_parent_and_then_to_the_base(home: Path) -> None:
    publish(home, 1, None)
    publish(home, 3, 1)
    assert checkpoints.roll_back(home) == (3, 1)
    assert checkpoints.roll_back(home) == (1, 0)
    assert checkpoints.current(home) == 0
    with pytest.raises(CheckpointError, match="nothing to roll back"):
        checkpoints.roll_back(home)


def test_rolling_back_to_a_given_version(home: Path) -> None:
    for version in (1, 2, 3):
        publish(home, version, version - 1 or None)
    assert checkpoints.roll_back(home, 1) == (3, 1)
    assert checkpoints.roll_back(home, 3) == (1, 3)
    assert checkpoints.roll_back(home, 0) == (3, 0)


def test_rolling_back_to_a_missing_version_lists_those_there_are(home: Path) -> None:
    publish(home, 1, None)
    publish(home, 2, 1)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.roll_back(home, 7)
    assert one_line(caught.value) == (
        "000007: no such version; there are 000001, 000002 and 0 (the base)"
    )
    assert checkpoints.current(home) == 2


def test_rolling_back_to_a_rejected_version_gives_the_reason(home: Path) -> None:
    publish(home, 1, None)
    publish(home, 2, 1)
    checkpoints.reject(home, 1, "sha256\nmismatch")
    with pytest.raises(CheckpointError, match="000001 was rejected: sha256 mismatch"):
        checkpoints.roll_back(home)
    assert checkpoints.current(home) == 2


def test_rolling_back_is_for_good(home: Path) -> None:
    for version in (1, 2, 3):
        publish(home, version, version - 1 or None)
    checkpoints.roll_back(home)
    assert (checkpoints.pinned(home), checkpoints.current(home)) == (2, 2)
    publish(home, 4, 2)
    assert (checkpoints.serving(home), checkpoints.current(home)) == (2, 4)
    assert checkpoints.roll_back(home) == (2, 1), "the parent of what serves"
    assert (checkpoints.serving(home), checkpoints.current(home)) == (1, 1)


def test_a_rollback_cut_off_after_the_pin_can_be_done_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (1, 2):
        publish(home, version, version - 1 or None)

    def full(home: Path, version: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pins, "point", full)
        with pytest.raises(ResourceError) as caught:
            checkpoints.roll_back(home)
    assert "000001 is pinned, but the learner still goes on from 000002" in one_line(caught.value)
    assert (checkpoints.serving(home), checkpoints.current(home)) == (1, 2)
    assert checkpoints.roll_back(home, 1) == (1, 1)
    assert checkpoints.roll_back(home, 1) == (1, 1), "and again: the learner may not know yet"
    assert (checkpoints.serving(home), checkpoints.current(home)) == (1, 1)


def test_rolling_back_to_what_serves_changes_nothing(home: Path) -> None:
    publish(home, 1, None)
    with pytest.raises(CheckpointError, match=r"000001 is what serves now; to keep it: .* pin 1"):
        checkpoints.roll_back(home, 1)
    assert checkpoints.pinned(home) is None


# Pinning ----------------------------------------------------------------------------------------


def test_a_pinned_version_serves_whatever_is_published(home: Path) -> None:
    for version in (1, 2):
        publish(home, version, version - 1 or None)
    checkpoints.pin(home, 1)
    assert (checkpoints.pinned(home), checkpoints.serving(home)) == (1, 1)
    publish(home, 3, 2)
    assert (checkpoints.serving(home), checkpoints.current(home)) == (1, 3)
    checkpoints.pin(home, 0)
    assert checkpoints.serving(home) == 0, "the base can be pinned too"
    checkpoints.unpin(home)
    checkpoints.unpin(home)
    assert (checkpoints.pinned(home), checkpoints.serving(home)) == (None, 3)


def bad_bit(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (shutil.rmtree, "000001: no such version; there are 000002 and 0 (the base)"),
        (bad_bit, "000001 rejected: sha256 mismatch adapter_model.safetensors"),
        (lambda folder: (folder / REPORT).unlink(), "000001 rejected: report.json: No such file"),
        (lambda folder: (folder / MANIFEST).write_text("{}"), "000001 rejected: manifest.json"),
        (
            lambda folder: checkpoints.reject(folder.parent.parent, 1, "NaN in q_proj"),
            "000001 was rejected: NaN in q_proj",
        ),
    ],
    ids=["gone", "a flipped bit", "no report", "empty manifest", "rejected"],
)
def test_what_cannot_serve_cannot_be_pinned_nor_rolled_back_to(
    home: Path, damage: Callable[[Path], object], said: str
) -> None:
    for version in (1, 2):
        publish(home, version, version - 1 or None)
    damage(checkpoints.folder(home, 1))
    for act in (checkpoints.pin, checkpoints.roll_back):
        with pytest.raises(CheckpointError) as caught:
            act(home, 1)
        assert one_line(caught.value).startswith(said)
    assert (checkpoints.pinned(home), checkpoints.current(home)) == (None, 2)


@pytest.mark.parametrize("text", [b"", b"x", b"-1", b"1\n2\n", b"\xff", b"\xc2\xb2", b"1" * 5000])
def test_a_damaged_pin_is_said_in_one_line_and_can_be_removed(home: Path, text: bytes) -> None:
    for version in (1, 2, 3):
        publish(home, version, version - 1 or None)
    (home / "PIN").write_bytes(text)
    for ask in (checkpoints.pinned, checkpoints.serving):
        with pytest.raises(CheckpointError) as caught:
            ask(home)
        assert "PIN: not a version number; remove it: python -m autodidact unpin" in one_line(
            caught.value
        )
    assert checkpoints.retain(home, 1) == [], "any of them might be meant"
    assert checkpoints.discard(home, [1]) == [1]
    assert checkpoints.pinned(home) is None, "nothing holds on to what was to be deleted"
    assert checkpoints.serving(home) == 3


def test_a_pinned_version_that_vanished_is_still_named(home: Path) -> None:
    for version in (1, 2):
        publish(home, version, version - 1 or None)
    checkpoints.pin(home, 1)
    shutil.rmtree(checkpoints.folder(home, 1))
    assert checkpoints.serving(home) == 1, "2 does not go live because of an accident"
    with pytest.raises(CheckpointError, match="000001: no such version"):
        checkpoints.verify(home, checkpoints.serving(home), BASE_SHA)


def test_discarding_others_leaves_the_pin(home: Path) -> None:
    for version in (1, 2, 3):
        publish(home, version, version - 1 or None)
    checkpoints.pin(home, 2)
    assert checkpoints.discard(home, [1]) == [1]
    assert checkpoints.pinned(home) == 2
    checkpoints.pin(home, 3)
    assert checkpoints.discard(home, [2, 3]) == [2], "the current one stays, and so does its pin"
    assert checkpoints.pinned(home) == 3


def test_a_shortage_of_the_reader_says_nothing_about_the_version(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(home, 1, None)
    real = os.open
    for file in ("000001", MANIFEST, WEIGHTS):

        def scarce(path: str, *rest: Any, short: str = file, **named: Any) -> int:
            if Path(path).name == short:
                raise OSError(errno.EMFILE, "Too many open files")
            return real(path, *rest, **named)

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", scarce)
            with pytest.raises(OSError, match="Too many open files"):
                checkpoints.verify(home, 1, BASE_SHA)


def test_rejections_are_kept_one_a_line(home: Path) -> None:
    checkpoints.reject(home, 4, "first")
    checkpoints.reject(home, 2, "second  reason\n here")
    checkpoints.reject(home, 4, "again")
    assert checkpoints.rejected(home) == {2: "second reason here", 4: "again"}
    assert len((home / "REJECTED").read_text().splitlines()) == 2


# Retention --------------------------------------------------------------------------------------


def test_discarding_spares_the_current_version_alone(home: Path) -> None:
    for version in (1, 2, 3):
        publish(home, version, version - 1 or None)
    checkpoints.pin(home, 1)
    checkpoints.point(home, 2)
    assert checkpoints.discard(home, [1, 2, 3, 9]) == [1, 3], "pinned or not"
    assert checkpoints.versions(home) == [2]
    assert checkpoints.pinned(home) is None
    assert checkpoints.discard(home, []) == []
    assert list((home / ".trash").iterdir()) == []


def test_discarding_waits_a_moment_for_a_reader(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (1, 2):
        publish(home, version, version - 1 or None)
    handle = os.open(checkpoints.folder(home, 1), os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    assert checkpoints.discard(home, [1]) == []
    assert len(waits) > 5
    assert checkpoints.versions(home) == [1, 2], "what is still read then is left"
    monkeypatch.setattr(time, "sleep", lambda seconds: os.close(handle))
    assert checkpoints.discard(home, [1]) == [1]
    assert checkpoints.versions(home) == [2]


def test_retention_keeps_the_newest_the_current_and_the_pinned(home: Path) -> None:
    for version in range(1, 8):
        publish(home, version, version - 1 or None)
    checkpoints.pin(home, 2)
    checkpoints.point(home, 4)
    assert checkpoints.retain(home, 2) == [1, 3, 5]
    assert checkpoints.versions(home) == [2, 4, 6, 7]
    assert list((home / ".trash").iterdir()) == []


def test_retention_deletes_nothing_that_need_not_go(home: Path) -> None:
    for version in (1, 2):
        publish(home, version, version - 1 or None)
    assert checkpoints.retain(home, 5) == []
    assert checkpoints.versions(home) == [1, 2]


HOLD = """
import fcntl, os, sys
handle = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
fcntl.flock(handle, fcntl.LOCK_SH)
print("held", flush=True)
sys.stdin.read()
"""


def test_retention_leaves_a_version_that_another_process_reads(home: Path) -> None:
    for version in (1, 2, 3, 4):
        publish(home, version, version - 1 or None)
    command = [sys.executable, "-c", HOLD, str(checkpoints.folder(home, 1))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "held\n"
        assert checkpoints.retain(home, 2) == [2]
        assert checkpoints.verify(home, 1, BASE_SHA).version == 1
        reader.communicate()
    assert checkpoints.retain(home, 2) == [1]
    assert checkpoints.versions(home) == [3, 4]


def test_what_a_killed_retention_left_is_deleted_the_next_time(home: Path) -> None:
    publish(home, 1, None)
    left = home / ".trash" / "000009-123"
    left.mkdir()
    (left / WEIGHTS).write_bytes(b"x")
    checkpoints.retain(home, 2)
    assert not left.exists()


# Locks and filesystems --------------------------------------------------------------------------

LOCK = """
import sys
from pathlib import Path
from autodidact.home import lock
with lock(Path(sys.argv[1]), "learner"):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_learner_is_told_the_process_of_the_first(home: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, str(home)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "locked\n"
        with (
            pytest.raises(LockHeld, match=rf"lock held by pid {first.pid}$"),
            lock(home, "learner", wait_s=0),
        ):
            pass
        with lock(home, "server", wait_s=0):
            pass
        first.kill()
        first.wait()
        with lock(home, "learner", wait_s=0):
            assert (home / "learner.lock").read_text() == str(os.getpid())


def test_the_lock_stays_with_a_child_that_inherited_it(home: Path) -> None:
    with lock(home, "learner") as handle:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(handle,))
    with pytest.raises(LockHeld), lock(home, "learner", wait_s=0):
        pass
    child.communicate(b"")
    with lock(home, "learner", wait_s=0):
        pass


def test_the_lock_goes_when_its_holder_fails(home: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock(home, "learner"):
        _ = 1 / 0
    with lock(home, "learner", wait_s=0):
        pass


def test_the_lock_waits_for_a_holder_that_is_about_to_go(home: Path) -> None:
    handle = os.open(home / "learner.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    closer = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(handle,))
    os.close(handle)
    assert closer.stdin is not None
    closer.stdin.close()
    with lock(home, "learner", wait_s=30):
        assert closer.wait() == 0


def test_a_home_that_cannot_be_made_is_a_resource_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError) as caught:
        prepare_home(tmp_path / "file" / "home")
    assert "cannot be written" in one_line(caught.value)


def test_preparing_a_home_again_changes_nothing(home: Path) -> None:
    publish(home, 1, None)
    prepare_home(home)
    assert checkpoints.verify(home, 1, BASE_SHA).version == 1


MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
server:/export /mnt/nfs nfs4 rw 0 0
/dev/sdb1 /mnt/nfs/local xfs rw 0 0
//host/share /mnt/my\\040share cifs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/ada/learner", "ext4"),
        ("/mnt/nfs", "nfs4"),
        ("/mnt/nfs/home", "nfs4"),
        ("/mnt/nfs/local/home", "xfs"),
        ("/mnt/nfs2/home", "ext4"),
        ("/mnt/my share/home", "cifs"),
    ],
)
def test_the_filesystem_is_that_of_the_longest_mount_point(path: str, kind: str) -> None:
    assert _filesystem(Path(path), lambda: MOUNTS) == kind


def test_a_network_filesystem_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home_room, "_filesystem", lambda path: "nfs4")
    with pytest.raises(ResourceError) as caught:
        prepare_home(tmp_path / "home")
    assert "network filesystem (nfs4)" in one_line(caught.value)
    assert "home" in str(caught.value)


def test_an_atomic_write_leaves_no_other_file(home: Path) -> None:
    before = time.time_ns()
    write_atomic(home / "anchors.json", b"[1]")
    write_atomic(home / "anchors.json", b"[2]")
    assert (home / "anchors.json").read_bytes() == b"[2]"
    new = [path for path in home.iterdir() if path.stat().st_mtime_ns >= before and path.is_file()]
    assert [path.name for path in new] == ["anchors.json"]


def test_clearing_the_staging_keeps_the_cycle_that_goes_on(home: Path) -> None:
    for cycle in (3, 4, 5):
        stage(home, cycle)
    checkpoints.clear_staging(home, except_cycle=4)
    assert [path.name for path in (home / ".staging").iterdir()] == ["cycle-000004"]
    checkpoints.clear_staging(home)
    assert list((home / ".staging").iterdir()) == []
