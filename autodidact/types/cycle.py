"""What a learning cycle decides and publishes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """The gate's decision. `reasons` says why not (empty when ok); `metrics` is what it saw."""

    ok: bool
    reasons: tuple[str, ...]
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A published version, as its manifest tells it. `parent` is None for a child of the base."""

    version: int
    parent: int | None
    manifest: dict[str, Any]


@dataclass
class Study:
    """What the child said: the plan, the measurements of each arm (base, parent, candidate; of the
    candidate the last), and those of every length at which the candidate was looked at."""

    planned: dict[str, Any] = field(default_factory=dict)
    done: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)
    looks: list[dict[str, Any]] = field(default_factory=list)
