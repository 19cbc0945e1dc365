"""What stands on disk: names of versions and files, `CURRENT`, manifests as they are."""

from __future__ import annotations

import errno
import json
from pathlib import Path

from autodidact.errors import AutodidactError, CheckpointError, ResourceError
from autodidact.home import write_atomic
from autodidact.types.cycle import Checkpoint

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
REPORT = "report.json"
MANIFEST = "manifest.json"
BASE_VERSION = 0


def name(version: int) -> str:
    return f"{version:06d}"


def folder(home: Path, version: int) -> Path:
    return home / "versions" / name(version)


def current(home: Path) -> int:
    """The version that `CURRENT` names; 0, the untouched base, before the first publication."""
    named = number_in(home / "CURRENT")
    return BASE_VERSION if named is None else named


def point(home: Path, version: int) -> None:
    """Replace `CURRENT`, durably."""
    write_atomic(home / "CURRENT", f"{name(version)}\n".encode())


def versions(home: Path) -> list[int]:
    """Numbers of the complete versions on disk, ascending."""
    root = home / "versions"
    if not root.is_dir():
        return []
    return sorted(
        int(entry.name)
        for entry in root.iterdir()
        if entry.name.isdecimal()
        and entry.name == name(int(entry.name))
        and (entry / MANIFEST).is_file()
    )


def read(home: Path, version: int) -> Checkpoint:
    """A version as its manifest tells it; the files are not checked. Raises CheckpointError."""
    path = folder(home, version) / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        return Checkpoint(version, manifest["parent"], manifest)
    except FileNotFoundError:
        raise CheckpointError(f"{name(version)}: no such version") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{name(version)} rejected: manifest.json: {error}") from None


def number_in(path: Path) -> int | None:
    """The version that a file names in its only line; None without the file."""
    try:
        text = path.read_bytes().strip()
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        text = b""
    if not text.isdigit() or len(text) > 12:
        raise CheckpointError(f"{path}: not a version number")
    return int(text)


def undone(home: Path, error: OSError, what: str) -> AutodidactError:
    """The error to raise for one of the disk."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(f"{home}: the disk is full; {what}")
    return CheckpointError(f"{what}: {error}")
