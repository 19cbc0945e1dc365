"""Anchors: text that the untouched base wrote, sampled once and kept.

Two thirds are free text, a third chats in which the base invents the question too (as Magpie, Xu
et al. 2024). Every fourth anchor is held out for the gate's measure of general NLL and never
trained on; the others feed the KL term. Sampling from the base needs no stored corpus and covers
just what the base can say (Marek 2026: self-generated replay nearly removes forgetting).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autodidact.engine import Engine
from autodidact.model import prompt_ids
from autodidact.types import Message

TEXTS, TEXT_TOKENS = 640, 128
CHATS, QUESTION_TOKENS, REPLY_TOKENS = 320, 48, 80
BATCH = 64
HELD_OUT_EVERY = 4
MIN_TOKENS = 16


@dataclass(frozen=True)
class Anchors:
    """Token id sequences; each begins with a token that is given, not predicted."""

    rows: tuple[tuple[int, ...], ...]

    @property
    def training(self) -> list[tuple[int, ...]]:
        return [row for i, row in enumerate(self.rows) if i % HELD_OUT_EVERY]

    @property
    def held_out(self) -> list[tuple[int, ...]]:
        return list(self.rows[::HELD_OUT_EVERY])

    @property
    def complete(self) -> bool:
        return len(self.rows) >= TEXTS + CHATS


def extend(
    engine: Engine, anchors: Anchors, budget_s: float, progress: Callable[[int, int], None]
) -> Anchors:
    """Sample more anchors until there are enough or the time is spent; one batch at least.

    Rows are only ever appended, so what is held out stays held out. Batches of text and of chat
    alternate two to one, so that a slow machine has both kinds early.
    """
    begun = time.monotonic()
    rows = list(anchors.rows)
    target = TEXTS + CHATS
    for turn in range(2 * target // BATCH):
        progress(len(rows), target)
        chat = (len(rows) // BATCH) % 3 == 2
        seed = len(rows) + 10_000 * turn
        batch = _chats(engine, seed) if chat else _texts(engine, seed)
        rows.extend(row for row in batch if len(row) >= MIN_TOKENS)
        if len(rows) >= target or (rows and time.monotonic() - begun > budget_s):
            break
    return Anchors(tuple(rows[:target]))


def _texts(engine: Engine, seed: int) -> list[tuple[int, ...]]:
    start = engine.base.start_id
    written = engine.complete(
        engine.untouched, [[start]] * BATCH, TEXT_TOKENS, temperature=1.0, seed=seed
    )
    return [(start, *ids) for ids in written]


def _chats(engine: Engine, seed: int) -> list[tuple[int, ...]]:
    base = engine.base
    mark = "\x00"
    empty: Any = base.tokenizer.apply_chat_template(
        [{"role": "user", "content": mark}], tokenize=False, add_generation_prompt=True
    )
    opening = base.tokenizer(empty.split(mark)[0], add_special_tokens=False).input_ids
    opening = opening or [base.start_id]
    asked = engine.complete(
        engine.untouched, [opening] * BATCH, QUESTION_TOKENS, temperature=1.0, seed=seed
    )
    questions = [str(base.tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in asked]
    prompts = [prompt_ids(base, [Message("user", question or "Hello!")]) for question in questions]
    replies = engine.complete(
        engine.untouched, prompts, REPLY_TOKENS, temperature=1.0, seed=seed + 1
    )
    stop = (
        min(base.stop_ids) if base.tokenizer.eos_token_id is None else base.tokenizer.eos_token_id
    )
    return [
        (*prompt, *reply, *([stop] if len(reply) < REPLY_TOKENS else []))
        for prompt, reply in zip(prompts, replies, strict=True)
    ]
