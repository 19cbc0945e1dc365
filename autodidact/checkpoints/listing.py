"""The versions on disk as a list: when, made from what, what was learned, which one serves.

What is listed is what the files say. Only the server knows what it has in memory; it may pass that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autodidact import checkpoints
from autodidact.checkpoints import BASE_VERSION
from autodidact.errors import CheckpointError
from autodidact.types.report import report_of

Row = dict[str, Any]


def listing(home: Path, live: int | None = None) -> list[Row]:
    """All versions on disk, the newest number first, the untouched base last.

    A row has `version`, `published_at` (Unix time), `parent` (0 is the base), `cycle`, `kind`,
    `learned` (`k` of `n` new questions), `bytes`, `marks` and `rejected` (the reason); what is not
    known is None. The marks: `serving` (`live`, or else what a server that starts now would serve),
    `newest` (`CURRENT`, which the learner goes on from), `pinned`, `rejected`, and `kept` for a
    version with none of these. Raises CheckpointError if `PIN` or `CURRENT` is damaged.
    """
    refused = checkpoints.rejected(home)
    found = checkpoints.versions(home)
    newest, held = checkpoints.current(home), checkpoints.pinned(home)
    live = _answers(home, refused) if live is None else live
    rows = []
    for version in [*reversed(found), BASE_VERSION]:
        having = {
            "serving": version == live,
            "newest": version == newest,
            "pinned": version == held,
            "rejected": version in refused,
        }
        marks = [mark for mark, has in having.items() if has]
        if not marks and version != BASE_VERSION:
            marks = ["kept"]
        about = _about(home, version)
        rows.append({"version": version, **about, "marks": marks, "rejected": refused.get(version)})
    return rows


def _answers(home: Path, refused: Mapping[int, str]) -> int:
    """What a server that starts now answers from: the version that is to serve, or its nearest
    parent that was not refused."""
    version = checkpoints.serving(home)
    while version != BASE_VERSION and version in refused:
        try:
            version = checkpoints.read(home, version).parent or BASE_VERSION
        except CheckpointError:
            return BASE_VERSION
    return version


def _about(home: Path, version: int) -> Row:
    """What the manifest tells; a damaged one tells nothing."""
    try:
        manifest = {} if version == BASE_VERSION else checkpoints.read(home, version).manifest
    except CheckpointError:
        manifest = {}
    report = report_of(manifest)
    learned = report.figures.taught if report and report.figures else None
    sizes = [_mapping(f).get("size") for f in _mapping(manifest.get("files")).values()]
    known = [size for size in sizes if isinstance(size, int)]
    created = manifest.get("created_at")
    return {
        "published_at": created if isinstance(created, int | float) else None,
        "parent": (manifest["parent"] or BASE_VERSION) if "parent" in manifest else None,
        "cycle": manifest.get("cycle"),
        "kind": manifest.get("kind"),
        "learned": {"k": learned.k, "n": learned.n} if learned else None,
        "bytes": sum(known) if known else None,
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


HEADINGS = ("version", "published", "parent", "cycle", "learned", "size", "")


def table(rows: list[Row]) -> str:
    """The listing as lines of text, columns aligned."""
    lines = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS) - 1)]
    told = []
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line[:-1], widths, strict=True)]
        told.append("  ".join([*cells, line[-1]]).rstrip())
    return "\n".join(told)


def _cells(row: Row) -> tuple[str, ...]:
    when, learned, size = row["published_at"], row["learned"], row["bytes"]
    marks = ", ".join(row["marks"])
    if row["rejected"] is not None:
        marks += f": {row['rejected']}"
    return (
        str(row["version"]) if row["version"] else "base",
        "" if when is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(when)),
        "" if row["parent"] is None else str(row["parent"] or "base"),
        "" if row["cycle"] is None else str(row["cycle"]),
        f"{learned['k']} of {learned['n']}" if learned else "",
        "" if size is None else f"{size / 1e6:.1f} MB",
        marks,
    )


def call(version: int) -> str:
    return f"checkpoint {version}" if version else "the untouched base"
