"""Which version serves: pinned, newest, rolled back, refused.

`CURRENT` is the end of the chain that the learner goes on from, and only the learner and a rollback
move it. `PIN` is for the server alone: it is written by whoever decides what answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autodidact.checkpoints.leases import lease, parse, read_in, verify
from autodidact.checkpoints.versions import (
    BASE_VERSION,
    MANIFEST,
    current,
    name,
    number_in,
    point,
    read,
    undone,
    versions,
)
from autodidact.errors import CheckpointError
from autodidact.home import fsync, write_atomic


def pinned(home: Path) -> int | None:
    """The version that is to serve whatever is published; None if that is the newest.

    Raises CheckpointError if `PIN` names no version.
    """
    try:
        return number_in(home / "PIN")
    except CheckpointError as error:
        raise CheckpointError(f"{error}; remove it: python -m autodidact unpin") from None


def serving(home: Path) -> int:
    """The version that is to serve: the pinned, else the newest.

    A pinned version that has vanished (only by hand can it) is named all the same. Reading it
    then fails, and the server stays with what it has: what the pin kept out does not go live
    because of an accident.
    """
    held = pinned(home)
    return current(home) if held is None else held


def pin(home: Path, version: int) -> None:
    """Let `version` serve whatever is published, durably; 0 is the untouched base.

    Raises CheckpointError when it is gone, damaged or was rejected, ResourceError when the disk is
    full. Its files are read and checked, and retention is kept out meanwhile.
    """
    with _servable(home, version):
        _write_pin(home, version)


def unpin(home: Path) -> None:
    """Let the newest version serve again, durably. Also removes a `PIN` that cannot be read."""
    try:
        (home / "PIN").unlink(missing_ok=True)
        fsync(home)
    except OSError as error:
        raise undone(home, error, "the pin could not be removed") from error


def roll_back(home: Path, to: int | None = None) -> tuple[int, int]:
    """Go back, for good: pin an older version and let the chain go on from it.

    Without `to` it is the parent of what serves; 0 is the base. The pin comes first, so that a
    kill between the two leaves the wanted version serving, and the same call again does the rest.

    Returns (from, to). Raises CheckpointError when that version is gone, damaged or was rejected,
    ResourceError when the disk is full.
    """
    before = serving(home)
    if before == BASE_VERSION and to is None:
        raise CheckpointError("the untouched base serves; there is nothing to roll back")
    target = to if to is not None else (read(home, before).parent or BASE_VERSION)
    if target == before == current(home) and pinned(home) is None:
        raise CheckpointError(
            f"{name(target)} is what serves now; to keep it: python -m autodidact pin {target}"
        )
    with _servable(home, target):
        _write_pin(home, target)
        try:
            point(home, target)
        except OSError as error:
            what = f"{name(target)} is pinned, but the learner still goes on from {name(before)}"
            raise undone(home, error, f"{what}; roll back again") from error
    return before, target


def rejected(home: Path) -> dict[int, str]:
    """Versions that the server could not load, with the reason."""
    try:
        lines = (home / "REJECTED").read_text("utf-8").splitlines()
    except FileNotFoundError:
        return {}
    found = (line.partition(" ") for line in lines)
    return {int(number): reason for number, _, reason in found if number.isdigit()}


def reject(home: Path, version: int, reason: str) -> None:
    """Note that a version could not be loaded. Only the server calls this."""
    noted = {**rejected(home), version: " ".join(reason.split())}
    text = "".join(f"{name(v)} {why}\n" for v, why in sorted(noted.items()))
    write_atomic(home / "REJECTED", text.encode())


@contextmanager
def _servable(home: Path, version: int) -> Iterator[None]:
    """Refuse a version that cannot serve; keep one that can for the block."""
    if version == BASE_VERSION:
        yield
        return
    if version not in versions(home):
        there = ", ".join(name(v) for v in versions(home)) or "none"
        raise CheckpointError(
            f"{name(version)}: no such version; there are {there} and 0 (the base)"
        )
    refused = rejected(home)
    if version in refused:
        raise CheckpointError(f"{name(version)} was rejected: {refused[version]}")
    with lease(home, version) as handle:
        base = parse(version, read_in(handle, MANIFEST, version))["base"]["sha256"]
        verify(home, version, base)
        yield


def _write_pin(home: Path, version: int) -> None:
    try:
        write_atomic(home / "PIN", f"{name(version)}\n".encode())
    except OSError as error:
        raise undone(home, error, f"{name(version)} not pinned") from error
