"""`Shelf`: the versions that are in memory, beside the one that serves.

A version is read from disk when it is asked for, verified as any other, and kept while it is among
the last few that were; replies hold the version they began with themselves. What is no longer on
disk (deleted by retention, or forgotten) is not served from memory either.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from autodidact import checkpoints
from autodidact.engine import Engine, Version
from autodidact.errors import CheckpointError


class Shelf:
    """`get` may be called from any thread; `capacity` versions are kept besides those in `keep`."""

    def __init__(self, home: Path, engine: Engine, base_sha256: str, capacity: int) -> None:
        self._home = home
        self._engine = engine
        self._base_sha256 = base_sha256
        self._capacity = capacity
        self._versions: OrderedDict[int, Version] = OrderedDict()
        self._lock = threading.Lock()
        self._kept: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self._versions)

    def get(self, number: int) -> Version:
        """A version by its number, 0 the base. Raises CheckpointError when it is not on disk or
        does not load, OSError when the disk fails."""
        if number == checkpoints.BASE_VERSION:
            return self._engine.untouched
        if not (checkpoints.folder(self._home, number) / checkpoints.MANIFEST).is_file():
            with self._lock:
                self._versions.pop(number, None)
            raise CheckpointError(f"{checkpoints.name(number)}: no such version")
        with self._lock:
            version = self._versions.get(number)
            if version is None:
                files = checkpoints.verify(self._home, number, self._base_sha256)
                version = self._engine.load(number, files.config, files.weights)
                self._versions[number] = version
            self._versions.move_to_end(number)
            self._trim()
        return version

    def keep(self, *numbers: int) -> None:
        """These stay in memory whatever else is asked for."""
        with self._lock:
            self._kept = frozenset(numbers)
            self._trim()

    def _trim(self) -> None:
        idle = [number for number in self._versions if number not in self._kept]
        for number in idle[: max(0, len(idle) - self._capacity)]:
            del self._versions[number]
