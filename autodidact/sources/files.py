"""Documents out of a folder on this machine, all that `readers` has a reader for.

Recursive, in the order of the paths. Left out: hidden files and folders, folders named "control"
inside the folder (their documents are for measuring, never taught), links that lead out of the
folder or to something left out, linked folders, and suffixes that no reader knows. A file that
cannot be read is a warning and the next file follows; a folder that cannot be is a SourceError.
Watching for changes is not done here: the folder is read anew at each fetch.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from autodidact.errors import SourceError
from autodidact.sources.readers import READERS, read
from autodidact.types.documents import Document

log = logging.getLogger(__name__)


class Files:
    """One folder. Its name is `files:<folder>`; a URI is the path from the folder's parent on."""

    def __init__(self, folder: Path) -> None:
        self._folder = Path(os.path.abspath(folder))
        self._target = folder.resolve()
        self.name = f"files:{_printable(self._folder.name)}"
        self._told: set[str] = set()
        self._unseen: set[str] = set()

    def documents(self, since: str | None) -> Iterator[Document]:
        """Every document of the folder, whatever `since` says; `cursor` is the file's time.

        A time of change cannot tell what is new: copies and checkouts carry old times, and clocks
        are put back. Reading a folder again is cheap, and the store knows a text that it has.
        """
        self._unseen.clear()
        if not self._folder.is_dir():
            what = "is not a folder" if self._folder.exists() else "no such folder"
            raise SourceError(f"{self._folder}: {what}; create it or change sources.files")
        for path in sorted(self._paths(self._folder)):
            try:
                reading = read(path)
                changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            except SourceError as error:
                if isinstance(error.__cause__, OSError):
                    self._unseen.add(self._uri(path))
                self._warn(str(error))
                continue
            except OSError as error:
                self._unseen.add(self._uri(path))
                self._warn(f"{path}: {error.strerror or error}")
                continue
            yield Document(
                source=self.name,
                uri=self._uri(path),
                title=_printable(reading.title),
                text=reading.text,
                license=reading.license,
                digest="",
                cursor=changed.isoformat(timespec="seconds"),
            )

    def gone(self, uri: str) -> bool:
        """Whether the folder has no readable text at this address: its file was deleted, renamed or
        emptied. False while it, or a folder above it, may not be read."""
        return not any(uri == one or uri.startswith(f"{one}/") for one in self._unseen)

    def _uri(self, path: Path) -> str:
        return _printable(path.relative_to(self._folder.parent).as_posix())

    def _paths(self, folder: Path) -> Iterator[Path]:
        def unreadable(error: OSError) -> None:
            if Path(error.filename) == folder:
                raise SourceError(f"{folder}: {error.strerror}; check its permissions") from error
            self._unseen.add(self._uri(Path(error.filename)))
            self._warn(f"{error.filename}: {error.strerror}")

        for parent, folders, files in os.walk(folder, onerror=unreadable):
            folders[:] = [name for name in folders if not _left_out(name)]
            for name in files:
                path = Path(parent, name)
                if path.suffix.lower() in READERS and self._ours(path):
                    yield path

    def _ours(self, path: Path) -> bool:
        """Whether this is a regular, visible file, also where a link leads to."""
        try:
            target = path.resolve()
        except (OSError, RuntimeError):  # links in a circle
            return False
        if _hidden(path.name) or not target.is_file() or not target.is_relative_to(self._target):
            return False
        *parents, name = target.relative_to(self._target).parts
        return not _hidden(name) and not any(_left_out(parent) for parent in parents)

    def _warn(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            log.warning("%s: skipped %s", self.name, _printable(line))


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _left_out(folder: str) -> bool:
    return _hidden(folder) or folder.lower() == "control"


def _printable(text: str) -> str:
    """File names may hold bytes that are not UTF-8; a database and a terminal refuse those."""
    return text.encode("utf-8", "replace").decode("utf-8")
