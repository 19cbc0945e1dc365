"""`Slots`: the requests that the model is at, their keys and values, and its passes over them.

There are two kinds of pass: a part of one prompt, computed alone in a cache of its own, and one
token for every running reply. A prompt that is complete moves into the next free slot; slots 0 to
n − 1 are taken, and where one comes free the last moves into it. Who is let in and who must go,
the `Batcher` decides.

What a prompt has in common with an earlier request, or with one that runs, is copied and not
computed again (`prefixes`). In float32 that is all of it, and changes a reply as little as the
company in its batch does. Where roundings are large enough to see (`Engine.rounds`), it is whole
parts of prompts, which a prompt of its own would have computed in the very same passes: a reply is
then the same to the bit with and without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch

from autodidact.engine.cache import STEP, SlotCache
from autodidact.engine.core import Engine
from autodidact.engine.prefixes import WORTH, Prefixes, common
from autodidact.engine.sampling import Drawn, draw
from autodidact.engine.tickets import Ticket
from autodidact.engine.versions import Version


class Slots:
    """For one thread; `running`, `reused` and the numbers of bytes may be read from any.

    `part`: tokens of a prompt that one pass computes at most. `prefix_bytes`: for keys and values
    of earlier requests; with 0 each prompt is computed whole.
    """

    def __init__(self, engine: Engine, part: int, prefix_bytes: int = 0) -> None:
        self._engine = engine
        self._part = part
        self._in_parts = engine.rounds
        self._prefixes = Prefixes(prefix_bytes)
        self.reused = 0
        """Tokens of prompts that did not have to be computed."""
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

    @property
    def prefix_bytes(self) -> int:
        return self._prefixes.bytes

    def begin(self, ticket: Ticket) -> None:
        """Its prompt is the next to be filled in."""
        self.filling, self._filled = ticket, 0

    def fill(self) -> tuple[int, Drawn | None]:
        """Compute the next part of the prompt. Returns how many tokens it took, and with the
        prompt's end the reply's first token: from then on it is the last row."""
        ticket = self.filling
        assert ticket is not None
        begin = self._filled or self._reuse(ticket)
        end = min(len(ticket.prompt), begin + self._part)
        logits = prompt_pass(self._engine, self._scratch, ticket.version, ticket.prompt, begin, end)
        self._filled = end
        if end < len(ticket.prompt):
            return end - begin, None
        self._cache.take(len(self.rows), self._scratch, end)
        self.filling = None
        ticket.held = list(ticket.prompt)
        self.rows.append(ticket)
        return end - begin, draw(logits, [ticket.row])[0]

    def _reuse(self, ticket: Ticket) -> int:
        """Copy what is there of its prompt into the scratch cache; all but the last token, after
        which the reply begins. Returns how many tokens that are."""
        if not self._prefixes.most_bytes:
            return 0
        kept, length = self._prefixes.find(ticket.version, ticket.prompt)
        source, slot = kept, 0
        for number, row in enumerate(self.rows):
            if row.version is ticket.version:
                shared = common(self._lasting(row, row.held), ticket.prompt)
                if shared > length:
                    source, slot, length = self._cache, number, shared
        length = self._whole(min(length, len(ticket.prompt) - 1))
        if source is None or length < WORTH:
            return 0
        self._scratch.take(0, source, length, slot)
        self.reused += length
        return length

    def _lasting(self, ticket: Ticket, held: Sequence[int]) -> Sequence[int]:
        """Those of the tokens that it holds whose keys and values others may take over."""
        return held[: self._whole(min(len(held), len(ticket.prompt)))] if self._in_parts else held

    def _whole(self, length: int) -> int:
        return length // self._part * self._part if self._in_parts else length

    def step(self) -> list[Drawn]:
        """One token for every row."""
        logits = token_pass(
            self._engine,
            self._cache,
            [ticket.version for ticket in self.rows],
            [ticket.next_token for ticket in self.rows],
            [len(ticket.held) for ticket in self.rows],
        )
        for ticket in self.rows:
            ticket.held.append(ticket.next_token)
        return draw(logits, [ticket.row for ticket in self.rows])

    def remove(self, ticket: Ticket) -> None:
        """Take a row out; the last one moves into its slot."""
        slot, last = self.rows.index(ticket), len(self.rows) - 1
        self._prefixes.keep(ticket.version, self._lasting(ticket, ticket.held), self._cache, slot)
        moved = self.rows.pop()
        if slot != last:
            self._cache.move(last, slot, len(moved.held))
            self.rows[slot] = moved

    def stop_filling(self) -> None:
        """Its request has ended; the next prompt writes over what is there."""
        ticket = self.filling
        if ticket is not None and self._filled:
            there = self._lasting(ticket, ticket.prompt[: self._filled])
            self._prefixes.keep(ticket.version, there, self._scratch)
        self.filling = None

    def drop_filling(self) -> None:
        """The pass over it failed: what it left may be torn."""
        self.filling = None
        self._scratch.clear()

    def rest(self) -> None:
        """Nothing runs: give back what only a running batch needs, and what has grown old."""
        self._clear_caches()
        self._prefixes.expire()

    def clear(self) -> list[Ticket]:
        """Let go of everything, memory too. Returns the requests that were there."""
        there = [*self.rows, *([self.filling] if self.filling else [])]
        self.rows, self.filling = [], None
        self._clear_caches()
        self._prefixes.clear()
        return there

    def _clear_caches(self) -> None:
        self._cache.clear()
        self._scratch.clear()
        if self._engine.graph is not None:
            self._engine.graph.rest()


def prompt_pass(
    engine: Engine, cache: SlotCache, version: Version, prompt: Sequence[int], begin: int, end: int
) -> torch.Tensor:
    """Tokens `begin` to `end` of a prompt into slot 0, which holds those before. Logits after the
    last one: (1, vocabulary)."""
    if engine.graph is not None:
        return engine.graph.prompt(version.adapter, cache, prompt[begin:end], begin)
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
    if engine.graph is not None:
        adapters = [version.adapter for version in versions]
        return engine.graph.tokens(adapters, cache, tokens, lengths)
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
