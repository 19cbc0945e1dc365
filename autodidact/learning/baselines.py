"""What earlier cycles measured of general text and chat, so that no cycle measures it again: of the
base, and of the version that was published last. Figures are of the anchors they were measured on.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from autodidact.errors import Misfit
from autodidact.home import write_atomic
from autodidact.types import wire
from autodidact.types.cycle import ArmName, Baseline, Measurement, Parent
from autodidact.types.events import StudyResult

FILE = "measured.json"


@dataclass(frozen=True)
class _Baselines:
    """`anchors` tells them from others; `candidate` is what was published as `version`."""

    version: int
    anchors: str
    base: Baseline
    candidate: Baseline


def known(home: Path, parent: Parent | None) -> dict[ArmName, Baseline]:
    """By arm, as far as it was measured on today's anchors."""
    try:
        said = wire.from_json(_Baselines, (home / FILE).read_bytes(), FILE)
    except (OSError, Misfit):
        return {}
    if said.anchors != _anchors(home):
        return {}
    found: dict[ArmName, Baseline] = {"base": said.base}
    if parent and said.version == parent.version:
        found["parent"] = said.candidate
    return found


def remember(home: Path, study: StudyResult, version: int) -> None:
    """Keep the figures of the base, and of the candidate that is now `version`."""
    base, candidate = _baseline(study.base), _baseline(study.candidate)
    said = _Baselines(version, _anchors(home), base, candidate)
    write_atomic(home / FILE, wire.to_json(said).encode())


def _baseline(measured: Measurement) -> Baseline:
    return Baseline(measured.general, measured.chat, measured.replies, measured.runtime)


def _anchors(home: Path) -> str:
    """What tells these anchors from others: they are only ever appended to."""
    try:
        rows = json.loads((home / "anchors.json").read_text("utf-8"))
        real = rows.get("real", {})
        held = [real.get("blocks"), real.get("prompts")]
        first = json.dumps([rows["texts"][:4], rows["chats"][:4], held])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    return hashlib.sha256(first.encode()).hexdigest()
