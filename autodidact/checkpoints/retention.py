"""Deleting versions: what is beyond the limit, and what must go. A version that a reader holds is
left for the next time."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from pathlib import Path

from autodidact.checkpoints.pins import pinned, unpin
from autodidact.checkpoints.versions import current, folder, name, versions
from autodidact.errors import CheckpointError
from autodidact.home import fsync


def retain(home: Path, keep: int) -> list[int]:
    """Delete all but the newest `keep`, the current and the pinned versions. Returns the deleted.

    A version that a reader holds is left for the next time, and so are all while `PIN` cannot be
    read: any of them might be meant.
    """
    gone: list[int] = []
    present = versions(home)
    with suppress(CheckpointError):
        for version in present[:-keep]:
            if _delete(home, version, lambda: {current(home), pinned(home)}):
                gone.append(version)
    for rest in (home / ".trash").iterdir():
        shutil.rmtree(rest, ignore_errors=True)
    return gone


def discard(home: Path, gone: Sequence[int]) -> list[int]:
    """Delete these versions, pinned or not, but never the current one. Returns the deleted.

    A pin on one of them goes first, also one that cannot be read, so that no server holds on to
    what is being deleted. Waits a moment for a reader that holds one; what it still holds then is
    left.
    """
    if _pinned_among(home, [version for version in gone if version != current(home)]):
        unpin(home)
    deleted = []
    for version in gone:
        for _ in range(20):
            if version == current(home) or version not in versions(home):
                break
            if _delete(home, version, lambda: {current(home)}):
                deleted.append(version)
                break
            time.sleep(0.1)
    return deleted


def _pinned_among(home: Path, gone: Sequence[int]) -> bool:
    try:
        return pinned(home) in gone
    except CheckpointError:
        return bool(gone)


def _delete(home: Path, version: int, spared: Callable[[], Container[int | None]]) -> bool:
    """Delete a version that nobody reads. What is to be spared is asked under the lock: `pin` holds
    the other side of it until its file is written."""
    path = folder(home, version)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if version in spared():
            return False
        target = home / ".trash" / f"{name(version)}-{os.getpid()}"
        os.rename(path, target)
    except OSError:
        return False
    finally:
        os.close(handle)
    fsync(home / "versions")
    shutil.rmtree(target, ignore_errors=True)
    return True
