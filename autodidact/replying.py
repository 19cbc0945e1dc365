"""Whether a reply is being made on this machine's CPU: a server says so, a study asks.

The sign is a lock (flock) on `<home>/replying.lock`, shared by all servers of the home, which each
holds while it is at one reply or more. The kernel takes it from a server that dies, however it
dies; nothing is written. Where it cannot be had (a folder that may not be written to, a filesystem
without locks) no server is seen replying, and nothing else changes: neither side raises or waits.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

FILE = "replying.lock"
TRIES = 5


class Replying:
    """A server's word. For one thread."""

    def __init__(self, home: Path) -> None:
        self._path = home / FILE
        self._handle: int | None = None

    def say(self, replying: bool) -> None:
        """Whether it is at a reply. To be said again at every turn: should the sign be taken at the
        first, where studies were just asking for it, and costs nothing while it is held."""
        if replying and self._handle is None:
            for _ in range(TRIES):
                try:
                    self._handle = _locked(self._path, os.O_CREAT, fcntl.LOCK_SH)
                except BlockingIOError:  # a study is just asking, for microseconds
                    time.sleep(0.001)
                    continue
                except OSError:
                    pass
                break
        elif not replying and self._handle is not None:
            os.close(self._handle)
            self._handle = None


def anyone(home: Path) -> bool:
    """Whether a server of this home is at a reply."""
    try:
        handle = _locked(home / FILE, 0, fcntl.LOCK_EX)
    except BlockingIOError:
        return True
    except OSError:
        return False
    os.close(handle)
    return False


def _locked(path: Path, flags: int, kind: int) -> int:
    """A descriptor of the file that holds the lock. Raises OSError, BlockingIOError where another
    lock is in the way."""
    handle = os.open(path, os.O_RDONLY | flags, 0o644)
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle
