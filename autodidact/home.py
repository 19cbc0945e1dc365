"""The folder that learner and server share: made, locked, written to without halves.

`lock` keeps a second program of one kind out; `write_atomic` is the one way in which a file of the
home is replaced. Local filesystems only: network filesystems keep neither promise, and
`prepare_home` refuses them. What stands in the folder is for the rooms that write it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from autodidact.errors import LockHeld, ResourceError

_NETWORK_FILESYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "afs"}


def prepare_home(home: Path) -> None:
    """Make the shared folder. Raises ResourceError on a network filesystem or a read-only disk."""
    try:
        for part in ("versions", ".staging", ".trash", "inbox"):
            (home / part).mkdir(parents=True, exist_ok=True)
        fsync(home)  # else a power cut could keep `CURRENT` and lose `versions/`
    except OSError as error:
        raise ResourceError(f"{home}: cannot be written ({error.strerror})") from None
    kind = _filesystem(home)
    if kind in _NETWORK_FILESYSTEMS:
        raise ResourceError(
            f"{home}: is on a network filesystem ({kind}), whose locks and renames cannot be "
            "trusted; set `home` to a folder on a local disk"
        )


PATIENCE_S = 2.0


@contextmanager
def lock(
    home: Path, which: str, wait_s: float = 0.5, waiting: Callable[[], None] | None = None
) -> Iterator[int]:
    """Hold `<home>/<which>.lock` for the block; yields its file descriptor.

    Raises LockHeld with the holder's process id after `wait_s`; `waiting` is called once if it
    takes longer than `PATIENCE_S`. The lock goes with the last process that has the descriptor, so
    a child that inherits it keeps a second learner out until it has ended. (filelock gives neither
    the holder's number nor a descriptor that a child may inherit.)
    """
    path = home / f"{which}.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        begun = time.monotonic()
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
                    raise
                waited = time.monotonic() - begun
                if waiting is not None and waited > PATIENCE_S:
                    waiting()
                    waiting = None
                if waited > wait_s:
                    holder = path.read_text("utf-8").strip() or "another process"
                    raise LockHeld(f"{path.name} held by pid {holder}") from None
                time.sleep(0.05)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield handle
    finally:
        os.close(handle)


def free_bytes(home: Path) -> int:
    return shutil.disk_usage(home).free


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file as a whole, durably: written beside, synchronised, renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}")
    try:
        write_file(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it. Its name is durable only with its folder."""
    with open(path, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def fsync(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _filesystem(path: Path, mounts: Callable[[], str] | None = None) -> str:
    """The type of the filesystem under `path` on Linux; "" where it cannot be told."""
    try:
        text = mounts() if mounts else Path("/proc/mounts").read_text("utf-8")
    except OSError:
        return ""
    best, kind = "", ""
    for line in text.splitlines():
        _, point_, type_, *_ = line.split(" ")
        point_ = point_.replace("\\040", " ")
        inside = path.resolve().is_relative_to(point_)
        if inside and len(point_) >= len(best):
            best, kind = point_, type_
    return kind
