"""Offline questions through a graph: the very weights, and the very kernels, that serve.

The kernels take about as long for a token in a pass of sixteen as in one of a thousand, so prompts
are not padded to each other: each is a pass of its own that begins where what was computed before
ends (a chat template's opening is the longer half of most questions; a question whose reply was
asked for is there when its answers are scored). Replies, and the answers that a prompt is offered,
then run as rows of one batch, a slot each, and leave it where they end.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from autodidact.engine.cache import SlotCache
from autodidact.engine.offline import Tokens, by_prompt, drawn
from autodidact.engine.prefixes import WORTH, Prefixes
from autodidact.engine.versions import Version

if TYPE_CHECKING:
    from autodidact.engine.graph_passes import GraphPasses

ROWS = 24
"""Of one batch: as fast a token as more, and less memory."""
PART = 256
"""Tokens of a prompt, or of a text whose tokens are all scored, in one pass."""
KEPT_BYTES = 80_000_000
"""Of keys and values of earlier prompts: those of two dozen questions to a model of 135M."""


@dataclass
class _Row:
    """What runs in a slot: `held` tokens, then `token`. Where the tokens to come are given,
    `coming` holds those after it."""

    number: int
    held: int
    token: int
    coming: deque[int] = field(default_factory=deque)


class GraphOffline:
    """`before_pass` is called before each pass. With `parts`, so many times fewer rows at once and
    so many times less kept."""

    def __init__(
        self,
        passes: GraphPasses,
        stop_ids: frozenset[int],
        before_pass: Callable[[], None] = lambda: None,
        parts: int = 1,
    ) -> None:
        self._passes = passes
        self._stop_ids = stop_ids
        self._before_pass = before_pass
        self._rows = max(1, ROWS // parts)
        self._part = max(1, PART // parts)
        self._prefixes = Prefixes(KEPT_BYTES // parts)
        self._scratch = SlotCache()
        self._turn = threading.Lock()

    @torch.inference_mode()
    def complete(
        self,
        version: Version,
        prompts: Sequence[Tokens],
        max_new_tokens: int,
        temperature: float,
        generator: torch.Generator,
    ) -> list[list[int]]:
        replies: list[list[int]] = [[] for _ in prompts]

        def goes_on(number: int, token: int) -> bool:
            if token in self._stop_ids:
                return False
            replies[number].append(token)
            return len(replies[number]) < max_new_tokens

        waiting = deque(range(len(prompts)) if max_new_tokens > 0 else ())
        with self._turn:
            running = _Running(self._passes, version)
            while waiting or running.rows:
                while waiting and len(running.rows) < self._rows:
                    number = waiting.popleft()
                    prompt = prompts[number]
                    logits = self._prompt(version, prompt, [len(prompt) - 1])
                    token = int(drawn(logits, temperature, generator))
                    if goes_on(number, token):
                        running.add(_Row(number, len(prompt), token), self._scratch)
                if running.rows:
                    self._before_pass()
                    rows = list(running.rows)
                    tokens = drawn(running.step(), temperature, generator)
                    for row, token in zip(rows, tokens.tolist(), strict=True):
                        row.token = token
                        if not goes_on(row.number, token):
                            running.remove(row)
        return replies

    @torch.inference_mode()
    def score(self, version: Version, pairs: Sequence[tuple[Tokens, Tokens]]) -> list[float]:
        totals = [0.0] * len(pairs)
        with self._turn:
            running = _Running(self._passes, version)
            for prompt, members in by_prompt(pairs).items():
                if len(members) == 1:
                    continuation = pairs[members[0]][1]
                    totals[members[0]] = self._whole(version, prompt, continuation)
                    continue
                first = self._prompt(version, prompt, [len(prompt) - 1]).log_softmax(-1)[0]
                for number in members:
                    begun, *coming = pairs[number][1]
                    totals[number] = float(first[begun])
                    if coming:
                        while len(running.rows) >= self._rows:
                            self._forced(running, totals)
                        row = _Row(number, len(prompt), begun, deque(coming))
                        running.add(row, self._scratch)
            while running.rows:
                self._forced(running, totals)
        return [total / len(c) for total, (_, c) in zip(totals, pairs, strict=True)]

    def rest(self) -> None:
        with self._turn:
            self._prefixes.clear()
            self._scratch.clear()
            self._passes.rest()

    def _forced(self, running: _Running, totals: list[float]) -> None:
        """One token more of each row."""
        self._before_pass()
        found = running.step().log_softmax(-1)
        for row, log_shares in zip(list(running.rows), found, strict=True):
            row.token = row.coming.popleft()
            totals[row.number] += float(log_shares[row.token])
            if not row.coming:
                running.remove(row)

    def _whole(self, version: Version, prompt: Tokens, continuation: Tokens) -> float:
        """Log-probability of a continuation that is its prompt's only one, in one go."""
        begin = len(prompt) - 1
        logits = self._prompt(
            version, [*prompt, *continuation[:-1]], range(begin, begin + len(continuation))
        )
        targets = torch.tensor(list(continuation))[:, None]
        return float(logits.log_softmax(-1).gather(-1, targets).sum())

    def _prompt(self, version: Version, tokens: Tokens, keep: Sequence[int]) -> torch.Tensor:
        """Tokens into the scratch cache. Logits after those at `keep`, which reach to the end:
        (kept, vocabulary)."""
        kept, length = self._prefixes.find(version, tokens)
        length = min(length, keep[0])
        if kept is None or length < WORTH:
            length = 0
        else:
            self._scratch.take(0, kept, length)
        found = []
        for begin in range(length, len(tokens), self._part):
            some = tokens[begin : begin + self._part]
            wanted = [place - begin for place in keep if begin <= place < begin + len(some)]
            self._before_pass()
            asked = wanted or [len(some) - 1]
            logits = self._passes.prompt(version.adapter, self._scratch, some, begin, asked)
            if wanted:
                found.append(logits)
        self._prefixes.keep(version, tokens, self._scratch)
        return torch.cat(found)


class _Running:
    """Rows of one version in slots 0 to n − 1."""

    def __init__(self, passes: GraphPasses, version: Version) -> None:
        self.rows: list[_Row] = []
        self._passes = passes
        self._version = version
        self._cache = SlotCache()

    def add(self, row: _Row, prompt: SlotCache) -> None:
        self._cache.take(len(self.rows), prompt, row.held)
        self.rows.append(row)

    def step(self) -> torch.Tensor:
        """The token of each row into its slot. Logits after them: (rows, vocabulary)."""
        logits = self._passes.tokens(
            [self._version.adapter] * len(self.rows),
            self._cache,
            [row.token for row in self.rows],
            [row.held for row in self.rows],
        )
        for row in self.rows:
            row.held += 1
        return logits

    def remove(self, row: _Row) -> None:
        """The last row moves into its slot."""
        slot, moved = self.rows.index(row), self.rows.pop()
        if moved is not row:
            self._cache.move(len(self.rows), slot, moved.held)
            self.rows[slot] = moved
