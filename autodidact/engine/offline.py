"""Replies to, and likelihoods of, texts that are all known beforehand: what an examiner asks.

There are two ways, by what computes the passes. Torch's modules take batches of like length, whose
sizes are bounded; a graph has `graph_offline`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from transformers import DynamicCache

from autodidact.engine.versions import Version
from autodidact.models.loading import LoadedBase

BATCH_TOKENS = 4096
"""Tokens of one batched forward pass (prompts and padding together)."""
LOGIT_BYTES = 200_000_000
"""Of the logits of one scored batch on a CPU, in float32; twice that is held for a moment. A
vocabulary of fifty thousand makes 800 MB of `BATCH_TOKENS`, more than the model takes."""
SHARED_TOKENS = 8
"""A prompt of at least this many tokens is computed once for all its continuations."""
Tokens = Sequence[int]


class Offline(Protocol):
    """Order of inputs is kept. For any thread."""

    def complete(
        self,
        version: Version,
        prompts: Sequence[Tokens],
        max_new_tokens: int,
        temperature: float,
        generator: torch.Generator,
    ) -> list[list[int]]:
        """Replies without the token that ended them. Greedy with temperature 0."""
        ...

    def score(self, version: Version, pairs: Sequence[tuple[Tokens, Tokens]]) -> list[float]:
        """Mean log-probability a token, in nats, of each continuation after its prompt."""
        ...

    def rest(self) -> None:
        """Let go of what was kept for the next questions."""
        ...


class ModuleOffline:
    """By the modules: `forward` is the engine's. Batches are `parts` times smaller than usual."""

    def __init__(self, base: LoadedBase, forward: Callable[..., Any], parts: int = 1) -> None:
        self._base = base
        self._forward = forward
        self._parts = parts

    def complete(
        self,
        version: Version,
        prompts: Sequence[Tokens],
        max_new_tokens: int,
        temperature: float,
        generator: torch.Generator,
    ) -> list[list[int]]:
        replies: list[list[int]] = [[] for _ in prompts]
        lengths = [len(p) + max_new_tokens for p in prompts]
        for rows in by_length(lengths, self._batch_tokens):
            some = [prompts[i] for i in rows]
            found = self._complete(version, some, max_new_tokens, temperature, generator)
            for row, reply in zip(rows, found, strict=True):
                replies[row] = reply
        return replies

    def score(self, version: Version, pairs: Sequence[tuple[Tokens, Tokens]]) -> list[float]:
        scores = [0.0] * len(pairs)
        groups = by_prompt(pairs)
        shared = {p: g for p, g in groups.items() if len(g) > 1 and len(p) >= SHARED_TOKENS}
        prompts = list(shared)
        whole = [
            len(p) + len(shared[p]) * (max(len(pairs[i][1]) for i in shared[p])) for p in prompts
        ]
        for some in by_length(whole, self._scored_tokens):
            members = [i for row in some for i in shared[prompts[row]]]
            owners = [k for k, row in enumerate(some) for _ in shared[prompts[row]]]
            values = self._score_shared(
                version, [prompts[row] for row in some], owners, [pairs[i][1] for i in members]
            )
            for i, value in zip(members, values, strict=True):
                scores[i] = value
        alone = [i for p, g in groups.items() if p not in shared for i in g]
        lengths = [len(pairs[i][0]) + len(pairs[i][1]) for i in alone]
        for rows in by_length(lengths, self._scored_tokens):
            batch = [pairs[alone[row]] for row in rows]
            for row, value in zip(rows, self._score(version, batch), strict=True):
                scores[alone[row]] = value
        return scores

    def rest(self) -> None:
        pass

    @torch.inference_mode()
    def _complete(
        self,
        version: Version,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        temperature: float,
        generator: torch.Generator,
    ) -> list[list[int]]:
        device = self._base.device
        ids, mask = (t.to(device) for t in self._padded(prompts, left=True))
        position = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache(config=self._base.model.config)
        replies: list[list[int]] = [[] for _ in prompts]
        running = [True] * len(prompts)
        for _ in range(max_new_tokens):
            logits = self._forward(
                [version],
                input_ids=ids,
                attention_mask=mask,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            tokens = drawn(logits, temperature, generator)
            for i, token in enumerate(tokens.tolist()):
                if token in self._base.stop_ids:
                    running[i] = False
                elif running[i]:
                    replies[i].append(token)
            if not any(running):
                break
            ids = tokens[:, None]
            mask = torch.cat([mask, mask.new_ones((len(prompts), 1))], -1)
            position = position[:, -1:] + 1
        return replies

    @torch.inference_mode()
    def _score_shared(
        self,
        version: Version,
        prompts: Sequence[Sequence[int]],
        owners: Sequence[int],
        continuations: Sequence[Sequence[int]],
    ) -> list[float]:
        """As `score`; `owners[i]` is the number of the prompt that continuation i follows."""
        device = self._base.device
        ids, mask = (t.to(device) for t in self._padded(prompts, left=True))
        cache = DynamicCache(config=self._base.model.config)
        last = self._forward(
            [version],
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        rows = torch.tensor(list(owners), device=device)
        firsts = torch.tensor([c[0] for c in continuations], device=device)
        total = last.float().log_softmax(-1)[rows, firsts]
        if max(len(c) for c in continuations) > 1:
            ids, more = (
                t.to(device) for t in self._padded([c[:-1] for c in continuations], left=False)
            )
            targets, _ = self._padded([c[1:] for c in continuations], left=False)
            cache.batch_select_indices(rows)
            lengths = mask.sum(-1)[rows]
            logits = self._forward(
                [version],
                input_ids=ids,
                attention_mask=torch.cat([mask[rows], more], -1),
                position_ids=lengths[:, None] + torch.arange(ids.shape[1], device=device),
                past_key_values=cache,
                use_cache=True,
            ).logits
            found = logits.float().log_softmax(-1).gather(-1, targets.to(device)[..., None])[..., 0]
            total = total + (found * more).sum(-1)
        return [
            float(value) / len(c) for value, c in zip(total.tolist(), continuations, strict=True)
        ]

    @torch.inference_mode()
    def _score(
        self, version: Version, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> list[float]:
        ids, mask = (
            t.to(self._base.device) for t in self._padded([[*p, *c] for p, c in pairs], left=False)
        )
        logits = self._forward([version], input_ids=ids, attention_mask=mask).logits
        values = []
        for i, (prompt, continuation) in enumerate(pairs):
            begin, end = len(prompt), len(prompt) + len(continuation)
            token_logp = -F.cross_entropy(
                logits[i, begin - 1 : end - 1].float(), ids[i, begin:end], reduction="mean"
            )
            values.append(float(token_logp))
        return values

    def _padded(
        self, rows: Sequence[Sequence[int]], *, left: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask, each (rows, longest)."""
        width = max(len(row) for row in rows)
        ids = torch.full((len(rows), width), self._base.pad_id)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            place = slice(width - len(row), None) if left else slice(0, len(row))
            ids[i, place] = torch.tensor(list(row), dtype=torch.long)
            mask[i, place] = 1
        return ids, mask

    @property
    def _batch_tokens(self) -> int:
        return BATCH_TOKENS // self._parts

    @property
    def _scored_tokens(self) -> int:
        """Of one batch."""
        if self._base.device.type != "cpu":
            return self._batch_tokens
        vocabulary = int(self._base.model.get_output_embeddings().weight.shape[0])
        return min(self._batch_tokens, LOGIT_BYTES // self._parts // (4 * vocabulary))


def drawn(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> torch.Tensor:
    """The next token of each row: the likeliest, or with a temperature any by its share."""
    if temperature == 0:
        return logits.argmax(-1)
    shares = (logits.float() / temperature).softmax(-1)
    return torch.multinomial(shares, 1, generator=generator)[:, 0]


def by_prompt(pairs: Sequence[tuple[Tokens, Tokens]]) -> dict[tuple[int, ...], list[int]]:
    """The numbers of the pairs that have the same prompt."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, (prompt, _) in enumerate(pairs):
        groups.setdefault(tuple(prompt), []).append(i)
    return groups


def by_length(lengths: Sequence[int], most: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Row numbers in batches of like length, so many tokens at most with padding; a row that is
    longer is a batch of its own."""
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if rows and (len(rows) + 1) * lengths[row] > most:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows
