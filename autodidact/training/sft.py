"""Supervised fine-tuning of a LoRA adapter, tied to its base by a KL term.

Contract: given token sequences with labels, anchors (text that the base itself wrote) and a number
of steps, `Trainer.step` does one optimiser step. Loss is on answers and on text, never on prompts
or padding; a batch without a supervised token raises. On anchors the loss is KL(base ‖ model):
forgetting follows the KL to the base (Shenfeld et al. 2025, "RL's Razor"), and the base is the same
module tree with its adapter switched off, so no second model is needed.

Adapters follow "LoRA Without Regret" (Schulman et al. 2025): all linear layers, alpha = rank, no
dropout, no weight decay. Packing is not used: it leaks between documents without FlashAttention.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import json
import math
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file

from autodidact.errors import TrainingError
from autodidact.models.loading import LoadedBase, dialogue_ids, fork, linear_names, neutral
from autodidact.settings import TrainingSettings
from autodidact.types import Example, Message

MAX_TOKENS = 384
ANCHOR_WINDOW = 128
ASKED = ("question", "cloze", "reversed")
TURN_WEIGHTS = (5, 2, 2, 1)
HISTORY_SHARE = 0.1
WOVEN_TOKENS = 192
WARM_UP = 0.05
QUESTIONS_FIRST = 0.10
TEXT_SHARE = 0.25
CLIP = 1.0


@dataclass(frozen=True)
class Recipe:
    """What the size of the model decides. `anchor_tokens` feed the KL term of one step."""

    rank: int
    learning_rate: float
    batch_size: int
    kl_weight: float
    anchor_tokens: int
    autocast: bool
    seed: int


@dataclass(frozen=True)
class TrainingSequence:
    """One training sequence: labels are the ids, or -100 where no loss is due. `weight` is how
    often it is drawn as replay, against the other sequences that are replayed."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    kind: str
    document_id: int
    fact: str = ""
    weight: float = 1.0


def recipe_for(parameters: int, settings: TrainingSettings, autocast: bool) -> Recipe:
    """Learning rate and batch by model size, unless the settings say otherwise."""
    million = parameters / 1e6
    if million <= 30:
        rate, batch, anchors = 2e-3, 32, 512
    elif million <= 200:
        rate, batch, anchors = 5e-4, 8, 192
    elif million <= 450:
        rate, batch, anchors = 3e-4, 8, 192
    else:
        rate, batch, anchors = 2e-4, 8, 192
    return Recipe(
        settings.rank,
        settings.learning_rate or rate,
        settings.batch_size or batch,
        settings.kl_weight,
        anchors,
        autocast,
        settings.seed,
    )


def tokenise(base: LoadedBase, examples: Sequence[Example]) -> list[TrainingSequence]:
    """Examples as sequences. A dialogue that is too long is left out rather than cut in its
    answer; a text is cut at MAX_TOKENS."""
    limit = min(MAX_TOKENS, base.context)
    made = []
    for example in examples:
        if example.messages:
            ids, start = dialogue_ids(base, example.messages)
            if len(ids) > limit:
                continue
            labels = [-100] * start + ids[start:]
        else:
            ids = [
                base.start_id,
                *base.tokenizer(neutral(base, example.text), add_special_tokens=False).input_ids,
            ]
            ids = ids[:limit]
            labels = [-100, *ids[1:]]
        made.append(
            TrainingSequence(
                tuple(ids), tuple(labels), example.kind, example.document_id, example.fact
            )
        )
    return made


def weighted(
    rows: Sequence[TrainingSequence], shares: Mapping[str, float]
) -> list[TrainingSequence]:
    """The sequences of these facts, each fact's share spread evenly over its sequences."""
    count = Counter(row.fact for row in rows)
    return [
        replace(row, weight=shares[row.fact] / count[row.fact])
        for row in rows
        if shares.get(row.fact, 0) > 0
    ]


class Trainer:
    """A LoRA adapter on a copy of the base, and its optimiser."""

    def __init__(
        self,
        base: LoadedBase,
        recipe: Recipe,
        anchors: Sequence[Sequence[int]],
        adapter: dict[str, torch.Tensor] | None = None,
    ) -> None:
        self.base = base
        self.recipe = recipe
        torch.manual_seed(recipe.seed)
        config = LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.rank,
            lora_dropout=0.0,
            target_modules=linear_names(base.model),
            task_type="CAUSAL_LM",
        )
        self.model: PeftModel = get_peft_model(fork(base.model), config)
        self.parameters = {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }
        for parameter in self.parameters.values():
            parameter.data = parameter.data.float()
        if adapter is not None:
            self._start_from(adapter)
        self.optimizer = torch.optim.AdamW(
            list(self.parameters.values()),
            lr=recipe.learning_rate,
            weight_decay=0.0,
            betas=(0.9, 0.99),
        )
        self._anchors = sorted((list(ids) for ids in anchors), key=len)
        self._random = random.Random(recipe.seed)
        self.model.train()

    def _start_from(self, adapter: dict[str, torch.Tensor]) -> None:
        own = get_peft_model_state_dict(self.model)
        if {n: t.shape for n, t in adapter.items()} != {n: t.shape for n, t in own.items()}:
            raise TrainingError(
                f"the parent's adapter does not fit this base at rank {self.recipe.rank}"
            )
        set_peft_model_state_dict(self.model, adapter)

    def step(self, batch: Sequence[TrainingSequence], fraction: float) -> float:
        """One optimiser step on a batch; `fraction` of the cycle's steps is done.

        Returns the loss on supervised tokens, in nats a token. Raises TrainingError when it is not
        finite or nothing is supervised.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * schedule(fraction)
        with self._autocast():
            ids, labels, mask = self._pad([(s.ids, s.labels) for s in batch])
            logits = self.model(input_ids=ids, attention_mask=mask).logits
            loss = F.cross_entropy(
                logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100
            )
        if not math.isfinite(loss.item()):
            raise TrainingError("the loss is not finite or no token is supervised")
        loss.backward()
        if self.recipe.kl_weight and self._anchors:
            self._anchor_loss().backward()
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def save(self, folder: Path, step: int) -> None:
        """Everything needed to go on at `step`, without pickle; replaces `folder` as a whole."""
        tensors = {}
        for name, parameter in self.parameters.items():
            tensors[f"weight.{name}"] = parameter.detach().cpu().contiguous()
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"{key}.{name}"] = torch.as_tensor(value).cpu().contiguous()
        fresh = folder.with_name(folder.name + ".new")
        fresh.mkdir(parents=True, exist_ok=True)
        save_file(tensors, fresh / "state.safetensors")
        version, internal, gauss = self._random.getstate()
        state = {"step": step, "random": [version, list(internal), gauss]}
        (fresh / "state.json").write_text(json.dumps(state))
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(fresh, folder)

    def restore(self, folder: Path) -> int:
        """Continue from a saved state; returns its step, 0 (and fresh optimiser) without one."""
        self.optimizer.state.clear()
        if not (folder / "state.json").exists():
            self._random.seed(self.recipe.seed)
            return 0
        state = json.loads((folder / "state.json").read_text())
        tensors = load_file(folder / "state.safetensors", device=str(self.base.device))
        for name, parameter in self.parameters.items():
            parameter.data.copy_(tensors[f"weight.{name}"])
            self.optimizer.state[parameter] = {
                key: tensors[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")
            }
            self.optimizer.state[parameter]["step"] = tensors[f"step.{name}"].cpu()
        version, internal, gauss = state["random"]
        self._random.setstate((version, tuple(internal), gauss))
        return int(state["step"])

    def export(self, folder: Path, base_name: str) -> None:
        """Write the adapter as PEFT does: adapter_config.json and adapter_model.safetensors."""
        self.model.peft_config["default"].base_model_name_or_path = base_name
        self.model.save_pretrained(str(folder), save_embedding_layers=False)

    def _anchor_loss(self) -> torch.Tensor:
        """Weighted KL(base ‖ model), mean over the tokens of some anchors of like length."""
        first = self._random.randrange(len(self._anchors))
        rows: list[list[int]] = []
        while sum(map(len, rows)) < self.recipe.anchor_tokens:
            rows.append(self._anchors[(first + len(rows)) % len(self._anchors)][:ANCHOR_WINDOW])
        with self._autocast():
            ids, labels, mask = self._pad([(row, row) for row in rows])
            with torch.no_grad(), self.model.disable_adapter():
                teacher = self.model(input_ids=ids, attention_mask=mask).logits
            student = self.model(input_ids=ids, attention_mask=mask).logits
        divergence = F.kl_div(
            F.log_softmax(student.float(), -1),
            F.log_softmax(teacher.float(), -1),
            reduction="none",
            log_target=True,
        ).sum(-1)
        keep = labels != -100
        return self.recipe.kl_weight * (divergence * keep).sum() / keep.sum()

    def _pad(
        self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        width = max(len(ids) for ids, _ in rows)
        shape = (len(rows), width)
        ids = torch.full(shape, self.base.pad_id)
        labels = torch.full(shape, -100)
        mask = torch.zeros(shape, dtype=torch.long)
        for i, (row, marks) in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            labels[i, : len(marks)] = torch.tensor(marks)
            mask[i, : len(row)] = 1
        device = self.base.device
        return ids.to(device), labels.to(device), mask.to(device)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if not self.recipe.autocast:
            return contextlib.nullcontext()
        return torch.autocast(self.base.device.type, dtype=torch.bfloat16)


def schedule(fraction: float) -> float:
    """Linear warm-up over the first 5 % of a cycle, then linear to 0."""
    if fraction < WARM_UP:
        return max(0.02, fraction / WARM_UP)
    return max(0.0, (1 - fraction) / (1 - WARM_UP))


@dataclass(frozen=True)
class Weave:
    """How single questions are woven into conversations of several turns.

    People ask the next question in the same chat: trained on single turns only, the starter
    answered second questions wrong that it answered right alone. Between two dialogues stands
    `separator`; the second one's first `skip` tokens (a preamble of the template) are left out.
    `histories` are chats that the base wrote, put before some conversations without a loss.
    """

    separator: tuple[int, ...]
    skip: int
    histories: tuple[TrainingSequence, ...]
    limit: int

    def apply(
        self, rows: Sequence[TrainingSequence], order: random.Random
    ) -> list[TrainingSequence]:
        """The rows as conversations of one to four questions, each row in exactly one."""
        woven = [row for row in rows if row.kind not in ASKED]
        asked = [row for row in rows if row.kind in ASKED]
        order.shuffle(asked)
        while asked:
            turns = order.choices((1, 2, 3, 4), TURN_WEIGHTS)[0]
            talk = order.choice(self.histories) if self._begins_with_history(order) else asked.pop()
            for _ in range(turns if talk.kind == "history" else turns - 1):
                if not asked or len(talk.ids) + len(asked[-1].ids) > self.limit:
                    break
                talk = self._join(talk, asked.pop())
            if talk.kind == "history":  # not even one question fitted behind it
                talk = asked.pop()
            woven.append(talk)
        return woven

    def _begins_with_history(self, order: random.Random) -> bool:
        return bool(self.histories) and order.random() < HISTORY_SHARE

    def _join(self, first: TrainingSequence, second: TrainingSequence) -> TrainingSequence:
        gap = (-100,) * len(self.separator)
        return TrainingSequence(
            (*first.ids, *self.separator, *second.ids[self.skip :]),
            (*first.labels, *gap, *second.labels[self.skip :]),
            second.kind,
            second.document_id,
        )


def weave(base: LoadedBase, chats: Sequence[Sequence[int]]) -> Weave | None:
    """How this base's template joins turns, found by rendering one; None if it cannot be told.

    `chats` are anchors; those that begin like a chat become histories.
    """
    talk = [
        Message("user", "Where is the mill?"), Message("assistant", "North"),
        Message("user", "Name its owner."), Message("assistant", "Nobody knows"),
    ]  # fmt: skip
    first, second = dialogue_ids(base, talk[:2])[0], dialogue_ids(base, talk[2:])[0]
    whole = dialogue_ids(base, talk)[0]
    if whole[: len(first)] != first:
        return None
    rest = whole[len(first) :]
    for skip in range(len(second)):
        tail = second[skip:]
        if rest[-len(tail) :] == tail:
            same = [a == b for a, b in zip(first, second, strict=False)]
            opening = first[: same.index(False)]
            limit = min(WOVEN_TOKENS, base.context)
            histories = tuple(
                TrainingSequence(tuple(row), (-100,) * len(row), "history", 0)
                for row in chats
                if list(row[: len(opening)]) == opening
                and row[-1] in base.stop_ids
                and len(row) <= limit // 2
            )
            return Weave(tuple(rest[: len(rest) - len(tail)]), skip, histories, limit)
    return None


def one_pass(
    new: Sequence[TrainingSequence],
    old: Sequence[TrainingSequence],
    replay: float,
    size: int,
    seed: int,
    weaving: Weave | None = None,
) -> list[list[TrainingSequence]]:
    """One pass over `new` in batches, with `replay` (a share of all) of `old` mixed in, drawn by
    weight.

    Sequences of like length go together, at most `size` of them or 64 tokens each on average.
    """
    order = random.Random(seed)
    rows = _less_text(new, order)
    if old:
        rows += _drawn(old, round(len(rows) * replay / (1 - replay)), order)
    order.shuffle(rows)
    if weaving is not None:
        rows = weaving.apply(rows, order)
        size = max(1, size // 2)  # a conversation holds about two questions
    rows.sort(key=lambda s: len(s.ids) + order.random() * 8)
    made: list[list[TrainingSequence]] = [[]]
    for row in rows:
        last = made[-1]
        if last and (len(last) >= size or (len(last) + 1) * len(row.ids) > size * 64):
            made.append([])
        made[-1].append(row)
    order.shuffle(made)
    return made


def _less_text(new: Sequence[TrainingSequence], order: random.Random) -> list[TrainingSequence]:
    """The rows of a pass, with as much running text as makes `TEXT_SHARE` of their tokens: a long
    document with few facts would otherwise spend the cycle on what teaches least. Where there is
    nothing but text, all of it."""
    texts = [row for row in new if row.kind == "text"]
    rows = [row for row in new if row.kind != "text"]
    if not rows:
        return texts
    room = sum(len(row.ids) for row in rows) * TEXT_SHARE / (1 - TEXT_SHARE)
    for text in order.sample(texts, len(texts)):
        if room <= 0:
            break
        rows.append(text)
        room -= len(text.ids)
    return rows


def _drawn(
    rows: Sequence[TrainingSequence], count: int, order: random.Random
) -> list[TrainingSequence]:
    """`count` rows by systematic resampling: each comes as often as its share of the weight says,
    rounded up or down, so that small draws are even too."""
    if not count:
        return []
    shuffled = order.sample(list(rows), len(rows))
    reached = list(itertools.accumulate(row.weight for row in shuffled))
    first = order.random()
    marks = ((first + i) / count * reached[-1] for i in range(count))
    last = len(shuffled) - 1  # where rounding puts a mark at the very end
    return [shuffled[min(bisect.bisect_right(reached, mark), last)] for mark in marks]


def batches(
    new: Sequence[TrainingSequence],
    old: Sequence[TrainingSequence],
    replay: float,
    size: int,
    seed: int,
    weaving: Weave | None = None,
) -> Iterator[list[TrainingSequence]]:
    """Endless passes, deterministic for a seed."""
    for number in itertools.count():
        yield from one_pass(new, old, replay, size, seed * 1_000_003 + number, weaving)


def seconds_per_step(
    trainer: Trainer, stream: Iterator[list[TrainingSequence]], steps: int = 6
) -> float:
    """Mean time of a step, tried at learning rate zero, so that nothing is learned. The first step,
    which warms up caches, is not counted."""
    times = []
    for _ in range(steps + 1):
        begun = time.perf_counter()
        trainer.step(next(stream), 1.0)
        times.append(time.perf_counter() - begun)
    return sum(times[1:]) / steps
