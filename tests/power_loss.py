"""What a power cut can leave of a few file operations, played in memory and then built on disk.

The model is that of ALICE (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014). A
file's content is sure once the file was synced; before, it may be empty, cut short, whole, or
zeroes of its length. A name that was made, moved or removed in a folder is sure once that folder
was synced; before, any subset of these changes may be there, those of one name in their order. A
rename over an old name leaves the old or the new, never neither; moving between folders is two
changes, one in each.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from autodidact import home as home_room

State = frozenset[tuple[str, bytes | None]]
"""What stands under the home: (path, content); None for a folder."""
UNSEEN = (".staging", ".trash")
"""What is there is nobody's promise."""


@dataclass
class File:
    content: bytes = b""
    sure: bytes | None = None

    def left(self) -> set[bytes]:
        """What may be found in it after a power cut."""
        if self.sure == self.content:
            return {self.content}
        whole = self.content
        before = b"" if self.sure is None else self.sure
        return {before, b"", whole[: len(whole) // 2], whole, bytes(len(whole))}


@dataclass
class Folder:
    sure: dict[str, File | Folder] = field(default_factory=dict)
    changes: list[tuple[str, File | Folder | None]] = field(default_factory=list)

    def now(self) -> dict[str, File | Folder]:
        return self.with_changes(self.changes)

    def with_changes(self, changes: list[tuple[str, File | Folder | None]]) -> dict[str, Any]:
        found: dict[str, Any] = dict(self.sure)
        for name, there in changes:
            found.pop(name, None)
            if there is not None:
                found[name] = there
        return found

    def left(self) -> Iterator[dict[str, File | Folder]]:
        """The entries that may be found in it after a power cut."""
        for chosen in itertools.product((False, True), repeat=len(self.changes)):
            yield self.with_changes(list(itertools.compress(self.changes, chosen)))


Operation = tuple[Any, ...]


class Recorder:
    """Notes what is done to the files of a home, in order; `without` leaves out one fsync."""

    def __init__(self, home: Path, without: int | None = None) -> None:
        self.home = home
        self.operations: list[Operation] = []
        self.syncs = 0
        self._without = without

    def note(self, what: str, *of: Any) -> None:
        inside = [os.path.relpath(p, self.home) if isinstance(p, str | Path) else p for p in of]
        if not str(inside[0]).startswith(".."):
            self.operations.append((what, *inside))

    def appears(self, tree: Path) -> None:
        """Files that others wrote and nobody synced."""
        for path in sorted([tree, *tree.rglob("*")]):
            for missing in (*reversed(path.relative_to(self.home).parents), None):
                folder = path if missing is None else self.home / missing
                self.note("mkdir" if folder.is_dir() else "create", folder)
            if path.is_file():
                self.note("write", path, path.read_bytes())

    def sync(self, real: Callable[[int], None], handle: int) -> None:
        number, self.syncs = self.syncs, self.syncs + 1
        if number != self._without:
            real(handle)
            self.note("fsync", os.readlink(f"/proc/self/fd/{handle}"))

    @contextmanager
    def watching(self) -> Iterator[None]:
        recorder = self

        class Writer(io.FileIO):
            def write(self, data: Any) -> int:
                recorder.note("write", Path(str(self.name)), bytes(data))
                return super().write(data)

        def opened(path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
            if mode != "wb":
                return open(path, mode, *rest, **named)
            self.note("create", Path(path))
            return io.BufferedWriter(Writer(path, "w"))

        def noted(name: str) -> Callable[..., Any]:
            real = getattr(os, name)

            def call(*paths: Any, **named: Any) -> Any:
                result = real(*paths, **named)
                self.note("rename" if name == "replace" else name, *map(_path, paths))
                return result

            return call

        with pytest.MonkeyPatch.context() as patch:
            real_sync = os.fsync
            patch.setattr(home_room, "open", opened, raising=False)
            patch.setattr(os, "fsync", lambda handle: self.sync(real_sync, handle))
            for name in ("mkdir", "rename", "replace", "unlink"):
                patch.setattr(os, name, noted(name))
            yield


def _path(given: Any) -> Any:
    return Path(given) if isinstance(given, str | os.PathLike) else given


def scan(folder: Path) -> Folder:
    """What is on disk, all of it sure."""
    found = Folder()
    for entry in folder.iterdir():
        if entry.is_dir():
            found.sure[entry.name] = scan(entry)
        else:
            found.sure[entry.name] = File(entry.read_bytes(), entry.read_bytes())
    return found


def play(root: Folder, operations: list[Operation]) -> None:
    """Do to `root` what was recorded."""
    for what, path, *rest in operations:
        folder, name = _find(root, path)
        there = root if path == "." else folder.now().get(name)
        if what == "mkdir":
            if there is None:
                folder.changes.append((name, Folder()))
        elif what == "create":
            if isinstance(there, File):
                there.content = b""
            else:
                folder.changes.append((name, File()))
        elif what == "write":
            assert isinstance(there, File), path
            there.content += rest[0]
        elif what == "fsync" and isinstance(there, Folder):
            there.sure, there.changes = there.now(), []
        elif what == "fsync":
            assert isinstance(there, File), path
            there.sure = there.content
        elif what == "rename":
            target, new = _find(root, rest[0])
            target.changes.append((new, there))
            folder.changes.append((name, None))
        else:
            assert what == "unlink", what
            folder.changes.append((name, None))


def _find(root: Folder, path: str) -> tuple[Folder, str]:
    *parents, name = Path(path).parts or ("",)
    for part in parents:
        inner = root.now()[part]
        assert isinstance(inner, Folder)
        root = inner
    return root, name


def left_of(root: Folder) -> set[State]:
    """Every state of the home, as far as anybody reads it, that a power cut may leave now."""
    return _states(root, "")


def now(root: Folder, prefix: str = "") -> State:
    """The state without a power cut, of everything."""
    found: set[tuple[str, bytes | None]] = set()
    for name, there in root.now().items():
        if isinstance(there, File):
            found.add((prefix + name, there.content))
        else:
            found |= {(prefix + name, None), *now(there, f"{prefix}{name}/")}
    return frozenset(found)


def _states(folder: Folder, prefix: str) -> set[State]:
    found: set[State] = set()
    for entries in folder.left():
        choices: list[set[State]] = []
        for name, there in entries.items():
            path = prefix + name
            if isinstance(there, File):
                choices.append({frozenset([(path, content)]) for content in there.left()})
            elif path not in UNSEEN:
                inner = _states(there, f"{path}/")
                choices.append({state | {(path, None)} for state in inner})
        for parts in itertools.product(*choices):
            found.add(frozenset().union(*parts))
    return found


def build(state: State, home: Path) -> Path:
    """Put a state on disk, as the next start finds it."""
    home.mkdir(parents=True)
    for path, content in sorted(state, key=lambda item: item[0]):
        if content is None:
            (home / path).mkdir()
        else:
            (home / path).write_bytes(content)
    return home


def on_disk(home: Path) -> State:
    return frozenset(
        (str(path.relative_to(home)), None if path.is_dir() else path.read_bytes())
        for path in home.rglob("*")
    )
