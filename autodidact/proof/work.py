"""Finished units of work, one JSON file each, so that an interrupted proof goes on.

In the proof's folder, `plan.json` holds the parameters; a folder with others is refused. NAME.json
in its folder `work` appears whole (written beside, then renamed) when unit NAME is finished, and is
never changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autodidact.errors import ResourceError, SettingError
from autodidact.home import write_atomic


class Work:
    """The folder of one proof."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._units = folder / "work"

    def begin(self, parameters: Mapping[str, Any]) -> None:
        """Take the folder for these parameters, or go on in it if they are the same.

        Raises SettingError with one line that names the first difference.
        """
        saved = self.folder / "plan.json"
        if saved.exists():
            known = _read(saved)
            for key in sorted({*known, *parameters}):
                if known.get(key) != json.loads(json.dumps(parameters.get(key))):
                    raise SettingError(
                        f"{self.folder}: was begun with {key} {_brief(known.get(key))}, now it is "
                        f"{_brief(parameters.get(key))}; give the same options or another --out"
                    )
            return
        write(saved, dict(parameters))

    def has(self, name: str) -> bool:
        return self._path(name).exists()

    def get(self, name: str) -> Any:
        return _read(self._path(name))

    def put(self, name: str, value: Any) -> None:
        write(self._path(name), value)

    def place(self, name: str) -> Path:
        """A folder of its own for what is not JSON: an adapter, a training state."""
        return self._units / name

    def _path(self, name: str) -> Path:
        return self._units / f"{name}.json"


def write(path: Path, value: Any) -> None:
    """JSON as a whole or not at all. NaN is refused: it is not JSON."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        write_atomic(path, text.encode())
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written: {error.strerror}") from None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise SettingError(f"{path}: not readable; delete it to have it made again") from None


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
