"""`Slots`: the requests that the model is at, their keys and values, and its passes over them.

There are two kinds of pass: a part of one prompt, computed alone in a cache of its own, and one
token for every running reply. A prompt that is complete moves into the next free slot; slots 0 to
n − 1 are taken, and where one comes free the last moves into it. Who is let in and who must go,
the `Batcher` decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch

from autodidact.engine.cache import STEP, SlotCache
from autodidact.engine.core import Engine, Version
from autodidact.engine.sampling import Drawn, draw
from autodidact.engine.tickets import Ticket


class Slots:
    """For one thread; `running` and `bytes` may be read from any."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.rows: list[Ticket] = []
        """The running replies, in the order of their slots."""
        self.filling: Ticket | None = None
        """The request whose prompt is on its way into the cache."""
        self._filled = 0
        self._cache = SlotCache()
        self._scratch = SlotCache()

    @property
    def running(self) -> int:
        return len(self.rows) + (self.filling is not None)

    @property
    def bytes(self) -> int:
        return self._cache.bytes + self._scratch.bytes

    def begin(self, ticket: Ticket) -> None:
        """Its prompt is the next to be filled in."""
        self.filling, self._filled = ticket, 0

    def fill(self, most: int) -> tuple[int, Drawn | None]:
        """Compute the next part of the prompt, at most so many tokens. Returns how many it took,
        and with the prompt's end the reply's first token: from then on it is the last row."""
        ticket = self.filling
        assert ticket is not None
        begin, end = self._filled, min(len(ticket.prompt), self._filled + most)
        logits = prompt_pass(self._engine, self._scratch, ticket.version, ticket.prompt, begin, end)
        self._filled = end
        if end < len(ticket.prompt):
            return end - begin, None
        self._cache.take(len(self.rows), self._scratch, end)
        self.filling = None
        ticket.cached = end
        self.rows.append(ticket)
        return end - begin, draw(logits, [ticket.row])[0]

    def step(self) -> list[Drawn]:
        """One token for every row."""
        logits = token_pass(
            self._engine,
            self._cache,
            [ticket.version for ticket in self.rows],
            [ticket.next_token for ticket in self.rows],
            [ticket.cached for ticket in self.rows],
        )
        for ticket in self.rows:
            ticket.cached += 1
        return draw(logits, [ticket.row for ticket in self.rows])

    def remove(self, ticket: Ticket) -> None:
        """Take a row out; the last one moves into its slot."""
        slot, last = self.rows.index(ticket), len(self.rows) - 1
        moved = self.rows.pop()
        if slot != last:
            self._cache.move(last, slot, moved.cached)
            self.rows[slot] = moved

    def stop_filling(self) -> None:
        """Its request has ended; the next prompt writes over what is there."""
        self.filling = None

    def drop_filling(self) -> None:
        """The pass over it failed: what it left may be torn."""
        self.filling = None
        self._scratch.clear()

    def clear(self) -> list[Ticket]:
        """Let go of everything, memory too. Returns the requests that were there."""
        there = [*self.rows, *([self.filling] if self.filling else [])]
        self.rows, self.filling = [], None
        self._cache.clear()
        self._scratch.clear()
        return there


def prompt_pass(
    engine: Engine, cache: SlotCache, version: Version, prompt: Sequence[int], begin: int, end: int
) -> torch.Tensor:
    """Tokens `begin` to `end` of a prompt into slot 0, which holds those before. Logits after the
    last one: (1, vocabulary)."""
    device = engine.base.device
    positions = torch.arange(begin, end, device=device)[None]
    cache.begin(1, end)
    return _last_logits(
        engine,
        [version],
        input_ids=torch.tensor([prompt[begin:end]], device=device),
        attention_mask=engine.attention.mask(positions, end),
        position_ids=positions,
        past_key_values=cache,
    )


def token_pass(
    engine: Engine,
    cache: SlotCache,
    versions: Sequence[Version],
    tokens: Sequence[int],
    lengths: Sequence[int],
) -> torch.Tensor:
    """One token for each of the slots 0 to n − 1, which hold `lengths` positions. Logits after
    them: (n, vocabulary)."""
    device = engine.base.device
    seen = -(-(max(lengths) + 1) // STEP) * STEP
    positions = torch.tensor(lengths, device=device)
    cache.begin(len(tokens), seen, positions)
    return _last_logits(
        engine,
        versions,
        input_ids=torch.tensor(tokens, device=device)[:, None],
        attention_mask=engine.attention.mask(positions[:, None], seen),
        position_ids=positions[:, None],
        past_key_values=cache,
    )


def _last_logits(engine: Engine, versions: Sequence[Version], **inputs: Any) -> torch.Tensor:
    out = engine.forward(versions, **inputs, use_cache=True, logits_to_keep=1)
    return cast(torch.Tensor, out.logits[:, -1])
