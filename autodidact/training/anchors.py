"""Anchors: text that keeps a model what it was. On it the KL term pulls the model to its base.

Two kinds. *Real* ones are this project's own prompts and texts (`anchor_set`), the replies to the
prompts being the base's, greedily: shipped for the base that most people get, written in the first
cycles for any other. They are there at once. *Sampled* ones the base invents, free texts and chats,
question and all (as Magpie, Xu et al. 2024); that needs no corpus and covers just what the base can
say (Marek 2026, arXiv:2605.26097: self-generated replay nearly removes forgetting), but takes
minutes. Which are used is the recipe's (`recipe`).

What is held out serves the gate and is never trained on. Of the real ones the set says which; of
the first sampled texts every fourth is a block on which general NLL is measured, of the first chats
every second lends its question to the check of chat replies. All others feed the KL term; the more
there are, the less the model drifts where no anchor is (docs/lab-log.md).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autodidact.engine import Engine
from autodidact.models.loading import LoadedBase
from autodidact.models.prompts import prompt_ids
from autodidact.training import anchor_set
from autodidact.training.anchor_set import AnchorPrompt, AnchorReply
from autodidact.training.recipe import Mix
from autodidact.types.chat import Message

TEXTS, TEXT_TOKENS = 4000, 128
CHATS, QUESTION_TOKENS, REPLY_TOKENS = 2000, 48, 80
BATCH = 128
BLOCKS, BLOCK_EVERY = 200, 4
PROMPTS, PROMPT_EVERY = 300, 2
MIN_TOKENS = 16
AT_ONCE = 16
"""Prompts of our own that are answered together."""
Ids = tuple[int, ...]
Chat = tuple[Ids, Ids]
"""Prompt and reply."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Anchor:
    """A sequence, and from which position on the model is held to its base."""

    ids: Ids
    begin: int = 1


@dataclass(frozen=True)
class RealAnchors:
    """Texts and answered prompts of our own. `blocks` are held-out texts, `prompts` held-out
    prompts by their id in the set; `due` how many prompts are answered when all are."""

    texts: tuple[Ids, ...] = ()
    chats: tuple[Chat, ...] = ()
    blocks: tuple[Ids, ...] = ()
    prompts: tuple[tuple[str, Ids], ...] = ()
    due: int = 0


@dataclass(frozen=True)
class Anchors:
    """Sampled texts as token ids, the first of which is given, not predicted; sampled chats; and
    the real ones."""

    texts: tuple[Ids, ...] = ()
    chats: tuple[Chat, ...] = ()
    real: RealAnchors = RealAnchors()

    @property
    def training(self) -> list[Anchor]:
        """What the KL term is computed on: texts, and chats from the reply on where the prompt is
        a person's, as a whole where the base wrote it too."""
        texts = [row for i, row in enumerate(self.texts) if not _is_held(i, BLOCKS, BLOCK_EVERY)]
        chats = [c for i, c in enumerate(self.chats) if not _is_held(i, PROMPTS, PROMPT_EVERY)]
        return [
            *(Anchor((*prompt, *reply), len(prompt)) for prompt, reply in self.real.chats),
            *(Anchor(row) for row in (*self.real.texts, *texts)),
            *(Anchor((*prompt, *reply)) for prompt, reply in chats),
        ]

    @property
    def blocks(self) -> list[Ids]:
        """Held-out texts, for general NLL."""
        return [*self.real.blocks, *self.texts[: BLOCKS * BLOCK_EVERY : BLOCK_EVERY]]

    @property
    def prompts(self) -> list[Ids]:
        """Held-out prompts of chats; those of our own first."""
        sampled = [p for p, _ in self.chats[: PROMPTS * PROMPT_EVERY : PROMPT_EVERY]]
        return [*(ids for _, ids in self.real.prompts), *sampled]

    def complete(self, mix: Mix) -> bool:
        real = bool(self.real.due) and len(self.real.chats) >= self.real.due
        sampled = len(self.texts) >= TEXTS and len(self.chats) >= CHATS
        return (real or mix == "sampled") and (sampled or mix == "real")

    def plain(self) -> dict[str, Any]:
        """As JSON; `read` is the way back."""
        real = {
            "texts": list(map(list, self.real.texts)),
            "chats": _plain_chats(self.real.chats),
            "blocks": list(map(list, self.real.blocks)),
            "prompts": [{"id": name, "prompt": list(ids)} for name, ids in self.real.prompts],
            "due": self.real.due,
        }
        return {
            "texts": [list(row) for row in self.texts],
            "chats": _plain_chats(self.chats),
            "real": real,
        }


def read(plain: Any) -> Anchors:
    """From JSON; anything that is not in this form counts as no anchors. Those of versions before
    there were real ones have none."""
    try:
        made = Anchors(_ids_of(plain["texts"]), _chats_of(plain["chats"]))
        real = plain.get("real")
        if real is None:
            return made
        return replace(
            made,
            real=RealAnchors(
                _ids_of(real["texts"]),
                _chats_of(real["chats"]),
                _ids_of(real["blocks"]),
                tuple((str(p["id"]), tuple(map(int, p["prompt"]))) for p in real["prompts"]),
                int(real["due"]),
            ),
        )
    except (TypeError, KeyError, ValueError, OverflowError, AttributeError):
        return Anchors()


def _plain_chats(chats: Sequence[Chat]) -> list[dict[str, list[int]]]:
    return [{"prompt": list(p), "reply": list(r)} for p, r in chats]


def _chats_of(plain: Any) -> tuple[Chat, ...]:
    return tuple((tuple(map(int, c["prompt"])), tuple(map(int, c["reply"]))) for c in plain)


def _ids_of(plain: Any) -> tuple[Ids, ...]:
    return tuple(tuple(map(int, row)) for row in plain)


def _is_held(number: int, held: int, every: int) -> bool:
    return number < held * every and number % every == 0


def extend(
    engine: Engine,
    anchors: Anchors,
    mix: Mix,
    budget_s: float,
    progress: Progress,
    shipped: Mapping[str, AnchorReply] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Anchors:
    """More anchors, until there are enough or the time is spent; a batch of each kind at least.

    Rows are only ever appended, so what is held out stays held out. `shipped` are replies of this
    base by prompt, so that it need not write them. `clock` tells the seconds that count.
    """
    begun = clock()
    if mix != "sampled":
        real = _real(engine, anchors.real, budget_s, progress, shipped, clock)
        anchors = replace(anchors, real=real)
    if anchors.complete(mix) or mix == "real":
        return anchors
    return _sampled(engine, anchors, budget_s - (clock() - begun), progress, clock)


def _real(
    engine: Engine,
    real: RealAnchors,
    budget_s: float,
    progress: Progress,
    shipped: Mapping[str, AnchorReply] | None,
    clock: Callable[[], float],
) -> RealAnchors:
    """Our own texts and prompts in this base's tokens; replies to as many as the time allows."""
    base, begun = engine.base, clock()
    asked = _by_turns(p for p in anchor_set.prompts() if not p.held)
    if not real.due:
        texts = [(_text_ids(base, text.text), text.held) for text in anchor_set.texts()]
        real = RealAnchors(
            texts=tuple(ids for ids, held in texts if not held),
            blocks=tuple(ids for ids, held in texts if held),
            prompts=tuple(
                (p.id, _asked(base, p)) for p in _by_turns(anchor_set.prompts()) if p.held
            ),
            due=len(asked),
        )
    chats = list(real.chats)
    while len(chats) < len(asked):
        progress(len(chats), len(asked))
        some = asked[len(chats) : len(chats) + AT_ONCE]
        prompts = [_asked(base, prompt) for prompt in some]
        told = [shipped.get(prompt.id) for prompt in some] if shipped else [None]
        if all(reply is not None for reply in told):
            written = [_reply_ids(base, reply) for reply in told if reply is not None]
        else:
            replies = engine.complete(engine.untouched, prompts, REPLY_TOKENS)
            written = [_ended(base, reply) for reply in replies]
        chats += zip(prompts, written, strict=True)
        if clock() - begun > budget_s:
            break
    return replace(real, chats=tuple(chats))


def _reply_ids(base: LoadedBase, reply: AnchorReply) -> Ids:
    ids = base.tokenizer(reply.reply, add_special_tokens=False).input_ids
    return (*ids, _stop(base)) if reply.ended else tuple(ids)


def _by_turns(prompts: Iterable[AnchorPrompt]) -> list[AnchorPrompt]:
    """A prompt of each group in turn, so that the first ones are of all kinds."""
    groups: dict[str, list[AnchorPrompt]] = {}
    for prompt in prompts:
        groups.setdefault(prompt.group, []).append(prompt)
    rounds = itertools.zip_longest(*groups.values())
    return [prompt for turn in rounds for prompt in turn if prompt is not None]


def _asked(base: LoadedBase, prompt: AnchorPrompt) -> Ids:
    return tuple(prompt_ids(base, [Message("user", prompt.prompt)]))


def _text_ids(base: LoadedBase, text: str) -> Ids:
    return (base.start_id, *base.tokenizer(text, add_special_tokens=False).input_ids)


def _sampled(
    engine: Engine,
    anchors: Anchors,
    budget_s: float,
    progress: Progress,
    clock: Callable[[], float],
) -> Anchors:
    """Texts and chats are kept in proportion, so that a slow machine has both kinds early."""
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
    return replace(anchors, texts=tuple(texts[:TEXTS]), chats=tuple(chats[:CHATS]))


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
    return [
        (tuple(prompt), _ended(base, reply)) for prompt, reply in zip(prompts, replies, strict=True)
    ]


def _ended(base: LoadedBase, reply: Sequence[int]) -> Ids:
    """A reply with its end mark, unless it was cut off."""
    return (*reply, _stop(base)) if len(reply) < REPLY_TOKENS else tuple(reply)


def _stop(base: LoadedBase) -> int:
    eos = base.tokenizer.eos_token_id
    return min(base.stop_ids) if eos is None else int(eos)
