"""Weights that are numbers of four or eight bits in blocks of 32, found again in their floats.

GGUF (llama.cpp's format) keeps most weights in blocks of 32 along a row: a scale, perhaps an
offset, and a small whole number each. A base made of such a file (`gguf`) holds the floats that
these stand for. `coded` finds the small numbers again, and says so only if they give back every
float to the bit. What is computed with them is then the very model that was trained and measured.

The formats (gguf's `quants.py`, of llama.cpp, MIT): Q4_0 is d (q − 8) with q in 0 to 15, Q4_1 is
d q + m with q in 0 to 15, Q8_0 is d q with q in −127 to 127; d and m are half-precision numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 32
FEW_ROWS = 8
"""That tell most formats that do not fit."""
SLAB = 2048
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Coded:
    """A weight (rows, columns) as scale × code + offset. `bits`: 4 or 8. `codes` (rows, blocks, 32)
    are whole numbers from −8 to 7, or from −127 to 127; `scale` and `offset` are (rows, blocks). An
    offset of None is zero everywhere."""

    bits: int
    codes: NDArray[np.int8]
    scale: Floats
    offset: Floats | None

    @property
    def rows(self) -> int:
        return int(self.codes.shape[0])

    @property
    def columns(self) -> int:
        return int(self.codes.shape[1]) * BLOCK

    def floats(self, rows: Any = slice(None)) -> Floats:
        """(rows, columns), for the rows asked for."""
        found: Floats = self.codes[rows] * self.scale[rows][..., None]
        if self.offset is not None:
            found += self.offset[rows][..., None]
        return found.reshape(len(found), -1)


def coded(weight: Floats) -> Coded | None:
    """The codes of a weight (rows, columns), or None where no format gives it back to the bit."""
    if weight.ndim != 2 or weight.shape[1] % BLOCK:
        return None
    blocks = np.ascontiguousarray(weight, dtype=np.float32).reshape(len(weight), -1, BLOCK)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # those fit no block
        for fitting in (_q4_0, _q4_1, _q8_0):
            if fitting(blocks[:FEW_ROWS]) and (found := _in_slabs(fitting, blocks)):
                return found
    return None


def _in_slabs(fitting: Callable[[Floats], Coded | None], blocks: Floats) -> Coded | None:
    """Some rows at a time: what is worked with on the way is several times as large as a weight."""
    parts = []
    for at in range(0, len(blocks), SLAB):
        part = fitting(blocks[at : at + SLAB])
        if part is None:
            return None
        parts.append(part)
    return parts[0] if len(parts) == 1 else joined(parts)


def joined(parts: list[Coded]) -> Coded:
    """The rows of several weights of as many columns in one, in the widest of their formats."""
    offset = None
    if any(part.offset is not None for part in parts):
        none = [np.zeros_like(part.scale) for part in parts]
        offset = np.concatenate(
            [
                zero if part.offset is None else part.offset
                for part, zero in zip(parts, none, strict=True)
            ]
        )
    return Coded(
        max(part.bits for part in parts),
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.scale for part in parts]),
        offset,
    )


def _half(numbers: NDArray[np.floating]) -> Floats:
    """As a file keeps a scale."""
    return numbers.astype(np.float16).astype(np.float32)


def _codes(blocks: Floats, scale: Floats, low: int, high: int) -> Floats:
    codes = np.rint(blocks / scale[..., None])
    found: Floats = np.clip(np.nan_to_num(codes, posinf=0, neginf=0), low, high)
    return found


def _furthest(blocks: Floats) -> Floats:
    """The number of each block that is furthest from zero, with its sign."""
    low, high = blocks.min(-1), blocks.max(-1)
    found: Floats = np.where(-low >= high, low, high)
    return found


def _q4_0(blocks: Floats) -> Coded | None:
    scale = _half(_furthest(blocks) / -8)
    codes = _codes(blocks, scale, -8, 7)
    if not np.array_equal(codes * scale[..., None], blocks):
        return None
    return Coded(4, codes.astype(np.int8), scale, None)


def _q4_1(blocks: Floats) -> Coded | None:
    low = blocks.min(-1)
    scale = _half((blocks.max(-1) - low) / 15)
    codes = _codes(blocks - low[..., None], scale, 0, 15)
    if not np.array_equal(codes * scale[..., None] + low[..., None], blocks):
        return None
    return Coded(4, (codes - 8).astype(np.int8), scale, low + 8 * scale)


def _q8_0(blocks: Floats) -> Coded | None:
    scale = _half(np.abs(_furthest(blocks)) / 127)
    codes = _codes(blocks, scale, -127, 127)
    if not np.array_equal(codes * scale[..., None], blocks):
        return None
    return Coded(8, codes.astype(np.int8), scale, None)
