"""Stop strings in a text that comes in pieces, whatever pieces those are. Pure."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Feed it text as it comes; what it returns may be shown. What may yet turn out to be the
    beginning of a stop string is held back. Once one is `met`, nothing more comes."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.met = False

    def feed(self, text: str) -> str:
        if self.met:
            return ""
        held = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            self.met, self._held = True, ""
            return held[: min(found)[1]]  # of the one that is complete first
        keep = max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def rest(self) -> str:
        """The text has ended: what was held back is text after all."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
