"""Anchors: text that the untouched base wrote, sampled once and kept.

Free texts, and chats in which the base invents the question too (as Magpie, Xu et al. 2024). What
is held out serves the gate and is never trained on: of the first texts every fourth is a block on
which general NLL is measured, of the first chats every second lends its question to the check of
chat replies. All others feed the KL term; the more there are, the less the model drifts where no
anchor is (docs/lab-log.md). Sampling from the base needs no stored corpus and covers just what the
base can say (Marek 2026, arXiv:2605.26097: self-generated replay nearly removes forgetting).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autodidact.engine import Engine
from autodidact.models.prompts import prompt_ids
from autodidact.types.chat import Message

TEXTS, TEXT_TOKENS = 4000, 128
CHATS, QUESTION_TOKENS, REPLY_TOKENS = 2000, 48, 80
BATCH = 128
BLOCKS, BLOCK_EVERY = 200, 4
PROMPTS, PROMPT_EVERY = 300, 2
MIN_TOKENS = 16
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Anchors:
    """Texts as token ids, the first of which is given, not predicted; chats as (prompt, reply)."""

    texts: tuple[Ids, ...] = ()
    chats: tuple[tuple[Ids, Ids], ...] = ()

    @property
    def training(self) -> list[Ids]:
        """What the KL term is computed on: texts first, then whole chats."""
        texts = [row for i, row in enumerate(self.texts) if not _is_held(i, BLOCKS, BLOCK_EVERY)]
        chats = [c for i, c in enumerate(self.chats) if not _is_held(i, PROMPTS, PROMPT_EVERY)]
        return texts + [(*prompt, *reply) for prompt, reply in chats]

    @property
    def blocks(self) -> list[Ids]:
        """Held-out texts, for general NLL."""
        return list(self.texts[: BLOCKS * BLOCK_EVERY : BLOCK_EVERY])

    @property
    def prompts(self) -> list[Ids]:
        """Prompts of held-out chats."""
        return [p for p, _ in self.chats[: PROMPTS * PROMPT_EVERY : PROMPT_EVERY]]

    @property
    def complete(self) -> bool:
        return len(self.texts) >= TEXTS and len(self.chats) >= CHATS

    def plain(self) -> dict[str, Any]:
        """As JSON; `read` is the way back."""
        chats = [{"prompt": list(p), "reply": list(r)} for p, r in self.chats]
        return {"texts": [list(row) for row in self.texts], "chats": chats}


def read(plain: Any) -> Anchors:
    """From JSON; anything that is not in this form counts as no anchors."""
    try:
        texts = tuple(tuple(map(int, row)) for row in plain["texts"])
        chats = tuple(
            (tuple(map(int, c["prompt"])), tuple(map(int, c["reply"]))) for c in plain["chats"]
        )
    except (TypeError, KeyError, ValueError, OverflowError):
        return Anchors()
    return Anchors(texts, chats)


def _is_held(number: int, held: int, every: int) -> bool:
    return number < held * every and number % every == 0


def extend(
    engine: Engine,
    anchors: Anchors,
    budget_s: float,
    progress: Callable[[int, int], None],
    clock: Callable[[], float] = time.monotonic,
) -> Anchors:
    """Sample more anchors until there are enough or the time is spent; a batch of each at least.

    Rows are only ever appended, so what is held out stays held out. Texts and chats are kept in
    proportion, so that a slow machine has both kinds early. `clock` tells the seconds that count.
    """
    begun = clock()
    texts, chats = list(anchors.texts), list(anchors.chats)
    target = TEXTS + CHATS
    for turn in range(2 * target // BATCH + 2):
        progress(min(target, len(texts) + len(chats)), target)
        seed = len(texts) + len(chats) + 10_000 * turn
        if len(chats) * TEXTS < len(texts) * CHATS or len(texts) >= TEXTS:
            chats += [c for c in _chats(engine, seed) if len(c[0]) + len(c[1]) >= MIN_TOKENS]
        else:
            texts += [row for row in _texts(engine, seed) if len(row) >= MIN_TOKENS]
        if len(texts) >= TEXTS and len(chats) >= CHATS:
            break
        if texts and chats and clock() - begun > budget_s:
            break
    return Anchors(tuple(texts[:TEXTS]), tuple(chats[:CHATS]))


def _texts(engine: Engine, seed: int) -> list[Ids]:
    start = engine.base.start_id
    written = engine.complete(
        engine.untouched, [[start]] * BATCH, TEXT_TOKENS, temperature=1.0, seed=seed
    )
    return [(start, *ids) for ids in written]


def _chats(engine: Engine, seed: int) -> list[tuple[Ids, Ids]]:
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
        (tuple(prompt), (*reply, *([stop] if len(reply) < REPLY_TOKENS else [])))
        for prompt, reply in zip(prompts, replies, strict=True)
    ]
