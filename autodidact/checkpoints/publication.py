"""Published versions on disk: publish, verify, retain, roll back, pin. Files only, no torch.

    <home>/versions/000042/  adapter_model.safetensors adapter_config.json report.json manifest.json
    <home>/.staging/  work in progress       <home>/.trash/  being deleted
    <home>/CURRENT    the newest version, "000042"; "000000" is the untouched base
    <home>/PIN        the version that serves whatever is published; without this file, the newest
    <home>/REJECTED   versions that the server could not load, one a line with the reason

A version folder never changes once it stands under `versions/`; its manifest, written last, holds
the sha256 and size of every other file. Publication is one rename of the folder and one replacement
of `CURRENT`, each made durable by fsync (as Orbax does not). A reader that has read `CURRENT`
holds a shared lock on the folder while it reads; retention takes the exclusive lock or leaves the
folder for later. Local filesystems only: network filesystems keep neither promise.

`CURRENT` is the end of the chain that the learner goes on from, and only the learner and a rollback
move it. `PIN` is for the server alone: it is written by whoever decides what answers.

A published folder is an ordinary PEFT adapter: `PeftModel.from_pretrained(base, folder)` works.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodidact.errors import AutodidactError, CheckpointError, LockHeld, ResourceError
from autodidact.types import Checkpoint

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
REPORT = "report.json"
MANIFEST = "manifest.json"
BASE_VERSION = 0
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR}
"""Faults that say nothing about a version: its reader tries again."""
_NETWORK_FILESYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "afs"}


@dataclass(frozen=True)
class Verified:
    """The bytes of a version whose hashes match its manifest."""

    version: int
    manifest: dict[str, Any]
    config: bytes
    weights: bytes


def name(version: int) -> str:
    return f"{version:06d}"


def folder(home: Path, version: int) -> Path:
    return home / "versions" / name(version)


def prepare_home(home: Path) -> None:
    """Make the shared folder. Raises ResourceError on a network filesystem or a read-only disk."""
    try:
        for part in ("versions", ".staging", ".trash", "inbox"):
            (home / part).mkdir(parents=True, exist_ok=True)
        _fsync(home)  # else a power cut could keep `CURRENT` and lose `versions/`
    except OSError as error:
        raise ResourceError(f"{home}: cannot be written ({error.strerror})") from None
    kind = _filesystem(home)
    if kind in _NETWORK_FILESYSTEMS:
        raise ResourceError(
            f"{home}: is on a network filesystem ({kind}), whose locks and renames cannot be "
            "trusted; set `home` to a folder on a local disk"
        )


@contextmanager
def lock(home: Path, which: str, wait_s: float = 0.5) -> Iterator[int]:
    """Hold `<home>/<which>.lock` for the block; yields its file descriptor.

    Raises LockHeld with the holder's process id. The lock goes with the last process that has the
    descriptor, so a child that inherits it keeps a second learner out until it has ended.
    """
    path = home / f"{which}.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
                    raise
                if time.monotonic() > deadline:
                    holder = path.read_text().strip() or "another process"
                    raise LockHeld(f"{path.name} held by pid {holder}") from None
                time.sleep(0.05)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield handle
    finally:
        os.close(handle)


def current(home: Path) -> int:
    """The version that `CURRENT` names; 0, the untouched base, before the first publication."""
    named = _number_in(home / "CURRENT")
    return BASE_VERSION if named is None else named


def pinned(home: Path) -> int | None:
    """The version that is to serve whatever is published; None if that is the newest.

    Raises CheckpointError if `PIN` names no version.
    """
    try:
        return _number_in(home / "PIN")
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


def verify(home: Path, version: int, base_sha256: str) -> Verified:
    """Read a version's files once and check those very bytes. Raises CheckpointError.

    Symbolic links are refused: a version is what its folder holds, nothing elsewhere. Raises
    OSError where this process is short of something; that says nothing about the version.
    """
    with _lease(home, version) as handle:
        manifest = _parse(version, _read_in(handle, MANIFEST, version))
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
            data[file] = _read_in(handle, file, version)
            if hashlib.sha256(data[file]).hexdigest() != stated.get("sha256"):
                raise CheckpointError(f"{name(version)} rejected: sha256 mismatch {file}")
    return Verified(version, manifest, data[CONFIG], data[WEIGHTS])


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
            _fsync(staged / file)
        for stray in staged.iterdir():
            if stray.name not in files:
                shutil.rmtree(stray) if stray.is_dir() else stray.unlink()
        whole = {**manifest, "version": version, "files": files}
        _write(staged / MANIFEST, json.dumps(whole, indent=1, ensure_ascii=False).encode())
        _fsync(staged)
        os.rename(staged, folder(home, version))
        moved = True
        _fsync(home / "versions")
        point(home, version)
    except OSError as error:
        if moved and current(home) == version:
            return Checkpoint(version, whole["parent"], whole)
        if moved:
            with suppress(OSError):
                os.rename(folder(home, version), staged)
        raise _undone(home, error, f"{name(version)} not published") from error
    return Checkpoint(version, whole["parent"], whole)


def point(home: Path, version: int) -> None:
    """Replace `CURRENT`, durably."""
    _replace(home / "CURRENT", f"{name(version)}\n".encode())


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
            raise _undone(home, error, f"{what}; roll back again") from error
    return before, target


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
        _fsync(home)
    except OSError as error:
        raise _undone(home, error, "the pin could not be removed") from error


def rejected(home: Path) -> dict[int, str]:
    """Versions that the server could not load, with the reason."""
    try:
        lines = (home / "REJECTED").read_text().splitlines()
    except FileNotFoundError:
        return {}
    found = (line.partition(" ") for line in lines)
    return {int(number): reason for number, _, reason in found if number.isdigit()}


def reject(home: Path, version: int, reason: str) -> None:
    """Note that a version could not be loaded. Only the server calls this."""
    noted = {**rejected(home), version: " ".join(reason.split())}
    text = "".join(f"{name(v)} {why}\n" for v, why in sorted(noted.items()))
    _replace(home / "REJECTED", text.encode())


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


def staging(home: Path, cycle: int) -> Path:
    """The work folder of a cycle."""
    return home / ".staging" / f"cycle-{name(cycle)}"


def clear_staging(home: Path, except_cycle: int | None = None) -> None:
    keep = staging(home, except_cycle).name if except_cycle is not None else ""
    for entry in (home / ".staging").iterdir():
        if entry.name != keep:
            shutil.rmtree(entry, ignore_errors=True)


def free_bytes(home: Path) -> int:
    return shutil.disk_usage(home).free


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file as a whole, durably."""
    _replace(path, data)


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
    _fsync(home / "versions")
    shutil.rmtree(target, ignore_errors=True)
    return True


@contextmanager
def _lease(home: Path, version: int) -> Iterator[int]:
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
    with _lease(home, version) as handle:
        base = _parse(version, _read_in(handle, MANIFEST, version))["base"]["sha256"]
        verify(home, version, base)
        yield


def _write_pin(home: Path, version: int) -> None:
    try:
        _replace(home / "PIN", f"{name(version)}\n".encode())
    except OSError as error:
        raise _undone(home, error, f"{name(version)} not pinned") from error


def _undone(home: Path, error: OSError, what: str) -> AutodidactError:
    """The error to raise for one of the disk."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(f"{home}: the disk is full; {what}")
    return CheckpointError(f"{what}: {error}")


def _number_in(path: Path) -> int | None:
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


def _parse(version: int, data: bytes) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(data)
        manifest["version"], manifest["base"]["sha256"], manifest["files"].get("")
        return manifest
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{name(version)} rejected: manifest.json: {error}") from None


def _read_in(root: int, file: str, version: int) -> bytes:
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


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}")
    try:
        _write(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _fsync(path.parent)


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _filesystem(path: Path, mounts: Callable[[], str] | None = None) -> str:
    """The type of the filesystem under `path` on Linux; "" where it cannot be told."""
    try:
        text = mounts() if mounts else Path("/proc/mounts").read_text()
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
