"""`Version`: one immutable model over the base."""

from __future__ import annotations

from dataclasses import dataclass

from autodidact.engine.adapters import Adapter


@dataclass(frozen=True, eq=False)
class Version:
    """Number 0 is the untouched base, which has no adapter; `digest` is the sha256 of the
    weights."""

    number: int
    adapter: Adapter | None = None
    digest: str = ""
