"""`checkpoints.verify`: whatever happened to a version's folder, it is refused in one line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autodidact import checkpoints
from autodidact.checkpoints import CONFIG, MANIFEST, REPORT, WEIGHTS
from autodidact.errors import CheckpointError
from tests.versions import BASE_SHA, WEIGHTS_BYTES, one_line, publish

pytest_plugins = ["tests.core_fixtures"]

Mutation = Callable[[Path], object]


def edit(**changes: Any) -> Mutation:
    """Change the manifest; a value of None removes the key."""

    def apply(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        for key, value in changes.items():
            if value is None:
                del manifest[key]
            else:
                manifest[key] = value
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return apply


def edit_file(file: str, stated: Any) -> Mutation:
    """Change what the manifest states of a file; None removes it."""

    def apply(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if stated is None:
            del manifest["files"][file]
        else:
            manifest["files"][file] = stated
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return apply


def overwrite(file: str, change: Callable[[bytes], bytes]) -> Mutation:
    return lambda folder: (folder / file).write_bytes(change((folder / file).read_bytes()))


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def renamed(file: str, new: str) -> Mutation:
    return lambda folder: (folder / file).rename(folder / new)


def removed(file: str) -> Mutation:
    return lambda folder: (folder / file).unlink()


def linked(file: str) -> Mutation:
    """The very same bytes, but behind a symbolic link."""

    def apply(folder: Path) -> None:
        elsewhere = folder.parent.parent / "elsewhere"
        (folder / file).rename(elsewhere)
        (folder / file).symlink_to(elsewhere)

    return apply


def linked_folder(folder: Path) -> None:
    elsewhere = folder.parent.parent / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)


def replaced_by(make: Callable[[Path], object], file: str) -> Mutation:
    def apply(folder: Path) -> None:
        (folder / file).unlink()
        make(folder / file)

    return apply


def manifest_text(text: str | bytes) -> Mutation:
    data = text.encode() if isinstance(text, str) else text
    return lambda folder: (folder / MANIFEST).write_bytes(data)


def swapped(folder: Path) -> None:
    """The files of the parent under the name of its child, each whole in itself."""
    parent = folder.parent / "000001"
    for file in (WEIGHTS, CONFIG, MANIFEST):
        shutil.copy(parent / file, folder / file)


MUTATIONS: dict[str, Mutation] = {
    "weights: first bit": overwrite(WEIGHTS, lambda data: flip(data, 0)),
    "weights: last bit": overwrite(WEIGHTS, lambda data: flip(data, len(data) - 1)),
    "weights: a byte short": overwrite(WEIGHTS, lambda data: data[:-1]),
    "weights: half": overwrite(WEIGHTS, lambda data: data[: len(data) // 2]),
    "weights: empty": overwrite(WEIGHTS, lambda data: b""),
    "weights: a byte more": overwrite(WEIGHTS, lambda data: data + b"\0"),
    "weights: zeroes of the same length": overwrite(WEIGHTS, lambda data: bytes(len(data))),
    "weights: missing": removed(WEIGHTS),
    "weights: renamed": renamed(WEIGHTS, "adapter_model.bin"),
    "weights: other case": renamed(WEIGHTS, "Adapter_Model.safetensors"),
    "weights: symbolic link": linked(WEIGHTS),
    "weights: dangling link": replaced_by(lambda path: path.symlink_to("gone"), WEIGHTS),
    "weights: a folder": replaced_by(lambda path: path.mkdir(), WEIGHTS),
    "weights: a pipe": replaced_by(lambda path: os.mkfifo(path), WEIGHTS),
    "weights: the parent's": lambda folder: shutil.copy(folder.parent / "000001" / WEIGHTS, folder),
    "config: a bit": overwrite(CONFIG, lambda data: flip(data, 5)),
    "config: a blank more": overwrite(CONFIG, lambda data: data + b" "),
    "config: missing": removed(CONFIG),
    "config: symbolic link": linked(CONFIG),
    "report: a bit": overwrite(REPORT, lambda data: flip(data, 5)),
    "report: missing": removed(REPORT),
    "manifest: missing": removed(MANIFEST),
    "manifest: empty": manifest_text(""),
    "manifest: cut": overwrite(MANIFEST, lambda data: data[: len(data) // 2]),
    "manifest: not JSON": manifest_text("version: 2"),
    "manifest: not UTF-8": manifest_text(b'{"version": "\xff"}'),
    "manifest: a list": manifest_text("[2]"),
    "manifest: null": manifest_text("null"),
    "manifest: nested too deep": manifest_text("[" * 200_000),
    "manifest: symbolic link": linked(MANIFEST),
    "manifest: a pipe": replaced_by(lambda path: os.mkfifo(path), MANIFEST),
    "manifest: another version": edit(version=3),
    "manifest: no version": edit(version=None),
    "manifest: another base": edit(base={"name": "other", "sha256": "c" * 64}),
    "manifest: another base without a name": edit(base={"sha256": "c" * 64}),
    "manifest: no base": edit(base=None),
    "manifest: base is text": edit(base="tiny"),
    "manifest: no files": edit(files=None),
    "manifest: files are a list": edit(files=[WEIGHTS, CONFIG]),
    "manifest: no weights": edit_file(WEIGHTS, None),
    "manifest: no config": edit_file(CONFIG, None),
    "manifest: a file without hash": edit_file(WEIGHTS, {"size": 1024}),
    "manifest: a file is text": edit_file(WEIGHTS, "0" * 64),
    "manifest: another hash": edit_file(WEIGHTS, {"sha256": "0" * 64, "size": 1024}),
    "folder: symbolic link": linked_folder,
    "folder: a file": lambda folder: (shutil.rmtree(folder), folder.write_text("x")),
    "folder: empty": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
    "folder: gone": shutil.rmtree,
    "folder: the parent's files": swapped,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS.keys())
def test_a_damaged_version_is_refused_in_one_line(home: Path, mutation: Mutation) -> None:
    publish(home, 1, None)
    publish(home, 2, 1, weights=b"w" * 1024)
    mutation(checkpoints.folder(home, 2))
    with pytest.raises(CheckpointError) as caught:
        checkpoints.verify(home, 2, BASE_SHA)
    assert "000002" in one_line(caught.value)
    assert checkpoints.verify(home, 1, BASE_SHA).weights == WEIGHTS_BYTES


def test_a_version_of_another_base_is_refused_by_its_name(home: Path) -> None:
    publish(home, 1, None)
    with pytest.raises(CheckpointError, match=r"000001 rejected: made for another base \(tiny\)"):
        checkpoints.verify(home, 1, "c" * 64)


def test_a_folder_under_another_number_is_refused(home: Path) -> None:
    publish(home, 1, None)
    checkpoints.folder(home, 1).rename(checkpoints.folder(home, 9))
    with pytest.raises(CheckpointError, match="names another version"):
        checkpoints.verify(home, 9, BASE_SHA)
