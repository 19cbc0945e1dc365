"""Reading a version while retention may want to delete it: a shared lock on its folder, and the
check of its bytes against its manifest."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodidact.checkpoints.versions import CONFIG, MANIFEST, REPORT, WEIGHTS, folder, name
from autodidact.errors import CheckpointError

_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR}
"""Faults that say nothing about a version: its reader tries again."""


@dataclass(frozen=True)
class VerifiedFiles:
    """The bytes of a version whose hashes match its manifest."""

    version: int
    manifest: dict[str, Any]
    config: bytes
    weights: bytes


def verify(home: Path, version: int, base_sha256: str) -> VerifiedFiles:
    """Read a version's files once and check those very bytes. Raises CheckpointError.

    Symbolic links are refused: a version is what its folder holds, nothing elsewhere. Raises
    OSError where this process is short of something; that says nothing about the version.
    """
    with lease(home, version) as handle:
        manifest = parse(version, read_in(handle, MANIFEST, version))
        if manifest["version"] != version:
            raise CheckpointError(f"{name(version)} rejected: its manifest names another version")
        if manifest["base"]["sha256"] != base_sha256:
            other = manifest["base"].get("name", "unnamed")
            raise CheckpointError(f"{name(version)} rejected: made for another base ({other})")
        data = {}
        for file in (CONFIG, REPORT, WEIGHTS):
            stated = manifest["files"].get(file)
            if not isinstance(stated, dict):
                raise CheckpointError(f"{name(version)} rejected: manifest lacks {file}")
            data[file] = read_in(handle, file, version)
            if hashlib.sha256(data[file]).hexdigest() != stated.get("sha256"):
                raise CheckpointError(f"{name(version)} rejected: sha256 mismatch {file}")
    return VerifiedFiles(version, manifest, data[CONFIG], data[WEIGHTS])


@contextmanager
def lease(home: Path, version: int) -> Iterator[int]:
    """Keep retention off a version for the block; yields a handle of its folder. Raises
    CheckpointError if it is gone, OSError if this process is short of something."""
    root = folder(home, version)
    try:
        handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in _SHORTAGES:
            raise
        raise CheckpointError(f"{name(version)}: no such version") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        if not root.exists():  # deleted while we waited for the lock
            raise CheckpointError(f"{name(version)}: no such version")
        yield handle
    finally:
        os.close(handle)


def parse(version: int, data: bytes) -> dict[str, Any]:
    """A manifest. Raises CheckpointError if it is not one."""
    try:
        manifest: dict[str, Any] = json.loads(data)
        manifest["version"], manifest["base"]["sha256"], manifest["files"].get("")
        return manifest
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{name(version)} rejected: manifest.json: {error}") from None


def read_in(root: int, file: str, version: int) -> bytes:
    """A file of the folder that is open as `root`; links and pipes are refused."""

    def opener(path: str, flags: int) -> int:
        # O_NONBLOCK: opening a pipe would wait for its writer for ever.
        return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=root)

    try:
        with open(file, "rb", opener=opener) as stream:
            if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                return stream.read()
    except OSError as error:
        if error.errno in _SHORTAGES:
            raise
        raise CheckpointError(f"{name(version)} rejected: {file}: {error.strerror}") from None
    raise CheckpointError(f"{name(version)} rejected: {file}: not a regular file")
