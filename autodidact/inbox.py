"""`<home>/inbox`: wishes to the learner, which acts on them before its next cycle.

A wish is a small JSON file, renamed into place whole: `{"do": "rollback", "to": 41}` or
`{"do": "forget", "documents": [3, 1]}`, likewise "retry". The learner deletes it when it has acted
on it; so a kill in between lets it act twice, which must do no harm.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodidact.errors import ResourceError
from autodidact.home import write_atomic


@dataclass(frozen=True)
class Rollback:
    """The chain goes on from `to` now: what was taught since belongs back in the queue."""

    to: int


@dataclass(frozen=True)
class Forget:
    """These documents are to be taught and offered no more."""

    documents: tuple[int, ...]


@dataclass(frozen=True)
class Retry:
    """These documents were given up, and are to be tried again."""

    documents: tuple[int, ...]


Wish = Rollback | Forget | Retry


def leave(home: Path, wish: Wish) -> Path:
    """Leave a wish, durably. Raises ResourceError when it cannot be written."""
    kind, told = _told(wish)
    path = home / "inbox" / f"{kind}-{time.time_ns()}.json"
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, json.dumps({"do": kind, **told}).encode())
    except OSError as error:
        raise ResourceError(
            f"{path.parent}: cannot be written ({error.strerror}); the learner was not told"
        ) from error
    return path


def waiting(home: Path) -> list[tuple[Path, Wish | None]]:
    """The wishes by their file names; None for a file that is not understood."""
    return [(path, _read(path)) for path in sorted((home / "inbox").glob("*.json"))]


def _told(wish: Wish) -> tuple[str, dict[str, Any]]:
    if isinstance(wish, Rollback):
        return "rollback", {"to": wish.to}
    kind = "forget" if isinstance(wish, Forget) else "retry"
    return kind, {"documents": list(wish.documents)}


def _read(path: Path) -> Wish | None:
    try:
        told = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        return None
    match told:
        case {"do": "rollback", "to": int(to)}:
            return Rollback(to)
        case {"do": "forget" | "retry" as kind, "documents": list(documents)}:
            numbers = tuple(i for i in documents if isinstance(i, int))
            return Forget(numbers) if kind == "forget" else Retry(numbers)
    return None
