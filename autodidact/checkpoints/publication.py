"""Publishing: one rename of the folder and one replacement of `CURRENT`, each made durable.

The manifest, written last, holds the sha256 and size of every other file (as Orbax renames, but
with the fsyncs that it leaves out). An error after the pointer moved can still mean *published*:
what `CURRENT` says decides.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from autodidact.checkpoints.versions import (
    BASE_VERSION,
    CONFIG,
    MANIFEST,
    REPORT,
    WEIGHTS,
    current,
    folder,
    name,
    point,
    read,
    undone,
    versions,
)
from autodidact.home import fsync, write_file
from autodidact.types.cycle import Checkpoint


def publish(home: Path, staged: Path, version: int, manifest: dict[str, Any]) -> Checkpoint:
    """Make the files in `staged` version `version`, durably and all at once, and point at it.

    `staged` must lie under `<home>/.staging` and hold the adapter and the report; `manifest` is
    completed with the files' hashes. If an error leaves it open whether the pointer moved, what
    `CURRENT` says decides. Raises ResourceError when the disk is full; nothing partial is visible.
    """
    moved = False
    try:
        files = {}
        for file in (CONFIG, REPORT, WEIGHTS):
            data = (staged / file).read_bytes()
            files[file] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            fsync(staged / file)
        for stray in staged.iterdir():
            if stray.name not in files:
                shutil.rmtree(stray) if stray.is_dir() else stray.unlink()
        whole = {**manifest, "version": version, "files": files}
        write_file(staged / MANIFEST, json.dumps(whole, indent=1, ensure_ascii=False).encode())
        fsync(staged)
        os.rename(staged, folder(home, version))
        moved = True
        fsync(home / "versions")
        point(home, version)
    except OSError as error:
        if moved and current(home) == version:
            return Checkpoint(version, whole["parent"], whole)
        if moved:
            with suppress(OSError):
                os.rename(folder(home, version), staged)
        raise undone(home, error, f"{name(version)} not published") from error
    return Checkpoint(version, whole["parent"], whole)


def finish_publication(home: Path, version: int) -> bool:
    """After a kill between the two steps of `publish`: move the pointer if the version stands
    complete and was made from what is current. True if it is (now) published."""
    if version not in versions(home):
        return False
    now = current(home)
    if now == version:
        return True
    if (read(home, version).parent or BASE_VERSION) != now:
        return False
    point(home, version)
    return True


def staging(home: Path, cycle: int) -> Path:
    """The work folder of a cycle."""
    return home / ".staging" / f"cycle-{name(cycle)}"


def clear_staging(home: Path, except_cycle: int | None = None) -> None:
    keep = staging(home, except_cycle).name if except_cycle is not None else ""
    for entry in (home / ".staging").iterdir():
        if entry.name != keep:
            shutil.rmtree(entry, ignore_errors=True)
