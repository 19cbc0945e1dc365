"""Keys and values of earlier requests, for prompts that begin as they did.

A conversation's next turn repeats all that was said before it, and every conversation begins with
the same system turn. What a request has put into its slot is therefore kept when it ends, in memory
and for some minutes, and a later prompt takes over as many positions as it has tokens in common
with it from the first on (RadixAttention, Zheng et al. 2024, arXiv 2312.07104, keeps them in a
tree; here the requests at hand are few, and each is looked at).

Never across versions: another version's adapter gives other keys and values for the same tokens,
and a version that nobody holds any more takes what was kept of it along. The bound is on bytes, and
what was used longest ago goes first.
"""

from __future__ import annotations

import operator
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from autodidact.engine.cache import STEP, SlotCache
from autodidact.engine.versions import Version

WORTH = 8
"""Tokens from which copying is less than computing."""
KEEP_S = 600.0
"""How long something is kept that nobody asks for: the time in which a conversation goes on."""


@dataclass(eq=False)
class _Prefix:
    version: weakref.ref[Version]
    tokens: tuple[int, ...]
    cache: SlotCache
    used: float


class Prefixes:
    """For one thread; `bytes` may be read from any. With `most_bytes` 0 it keeps nothing.

    `clock` gives seconds that never go back.
    """

    def __init__(
        self,
        most_bytes: int,
        keep_s: float = KEEP_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most_bytes = most_bytes
        self._keep_s = keep_s
        self._clock = clock
        self._kept: list[_Prefix] = []
        """The one that was used longest ago is first."""

    @property
    def bytes(self) -> int:
        return sum(one.cache.bytes for one in list(self._kept))

    def keep(
        self, version: Version, tokens: Sequence[int], cache: SlotCache, slot: int = 0
    ) -> None:
        """Copy what a slot holds of these tokens, its first ones; of a long request as many as the
        bound allows. What is known of them already is not copied again."""
        self.expire()
        length = min(len(tokens), self._fits(cache, len(tokens)))
        if length < WORTH:
            return
        wanted = tuple(tokens[:length])
        mine = [one for one in self._kept if one.version() is version]
        for one in mine:
            if one.tokens[:length] == wanted:
                self._touch(one)
                return
        for one in mine:
            if wanted[: len(one.tokens)] == one.tokens:
                self._kept.remove(one)
        needed = cache.room(length)
        while self._kept and self.bytes + needed > self.most_bytes:
            del self._kept[0]
        copied = SlotCache()
        copied.take(0, cache, length, slot)
        self._kept.append(_Prefix(weakref.ref(version), wanted, copied, self._clock()))

    def find(self, version: Version, tokens: Sequence[int]) -> tuple[SlotCache | None, int]:
        """The cache whose slot 0 holds the most of these tokens from the first on, and how many."""
        self.expire()
        found, length = None, 0
        for one in self._kept:
            if one.version() is version:
                shared = common(one.tokens, tokens)
                if shared > length:
                    found, length = one, shared
        if found is None:
            return None, 0
        self._touch(found)
        return found.cache, length

    def expire(self) -> None:
        """Let go of what nobody has asked for in a while, and of versions that are gone."""
        since = self._clock() - self._keep_s
        self._kept = [one for one in self._kept if one.used >= since and one.version() is not None]

    def clear(self) -> None:
        self._kept = []

    def _fits(self, cache: SlotCache, length: int) -> int:
        """The first so many positions, at most `length`, that may be kept at all."""
        needed = cache.room(length)
        if needed <= self.most_bytes:
            return length if needed else 0
        step = cache.room(1)
        return self.most_bytes // step * STEP

    def _touch(self, one: _Prefix) -> None:
        one.used = self._clock()
        self._kept.remove(one)
        self._kept.append(one)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two requests have in common from the first on."""
    return sum(takewhile(bool, map(operator.eq, one, other)))
