"""Training a starter on rows of tokens: CPU or GPU, bfloat16, seeded, resumable.

The model computes in bfloat16, weights included: on processors with bfloat16 dot products (AVX-512
BF16, AMX) the products are about four times as fast as in float32. The optimizer keeps and updates
float32 copies, from which the bfloat16 ones are rounded after every step, so what is trained is
what is shipped. Attention goes by blocks of rows up to the diagonal and, like everything
else, through `torch.compile`; within packed rows it does not cross from item to item.

A checkpoint every `save_s` seconds holds all state; the same recipe and rows continue from it and
see the same rows in the same order. (Bit-equal results are not promised: sums over threads.)
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM

from autodidact.errors import TrainingError
from scripts.starter import rows, vocabulary
from scripts.starter.recipe import Recipe, Stage

BLOCK = 128
"""Rows of the attention matrix computed together; what lies right of the diagonal is skipped."""
HEAD_TOKENS = 4096
"""Positions whose logits are in memory at a time."""
NS_MOMENTUM = 0.95
CLIP = 1.0
CURVE = "curve.jsonl"
CURVE_EVERY = 25
HELD_EVERY = 250
KINDS = {"text": rows.TEXT, "prompt": rows.PROMPT, "answer": rows.ANSWER}


@dataclass
class State:
    """Where the training stands: steps done over all stages, tokens seen, seconds spent."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


def new_model(recipe: Recipe) -> LlamaForCausalLM:
    """An untrained float32 model in the recipe's shape."""
    torch.manual_seed(recipe.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=recipe.vocabulary,
            hidden_size=recipe.hidden,
            intermediate_size=recipe.feed_forward,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.kv_heads,
            head_dim=recipe.head_size,
            max_position_embeddings=recipe.context,
            tie_word_embeddings=True,
            bos_token_id=vocabulary.START,
            eos_token_id=vocabulary.END,
            pad_token_id=vocabulary.START,
        )
    )


def blockwise_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention for training, query [rows, heads, length, size], mask [rows, 1, length,
    length] to be added. Queries that share a key head are multiplied with it together."""
    batch, heads, length, size = query.shape
    kv = key.shape[1]
    group = heads // kv
    found = []
    for start in range(0, length, BLOCK):
        stop = min(start + BLOCK, length)
        q = query[:, :, start:stop].reshape(batch * kv, group * (stop - start), size)
        k = key[:, :, :stop].reshape(batch * kv, stop, size)
        v = value[:, :, :stop].reshape(batch * kv, stop, size)
        scores = torch.bmm(q, k.transpose(1, 2)).view(batch, heads, stop - start, stop)
        scores = scores * scaling + attention_mask[:, :, start:stop, :stop]
        weights = torch.softmax(scores.float(), -1).to(query.dtype)
        mixed = torch.bmm(weights.view(batch * kv, group * (stop - start), stop), v)
        found.append(mixed.view(batch, heads, stop - start, size))
    return torch.cat(found, 2).transpose(1, 2).contiguous(), None


AttentionInterface.register("blockwise", blockwise_attention)


def mask(marks: Tensor, dtype: torch.dtype) -> Tensor:
    """[rows, 1, length, length]: 0 where a position may look, −∞ elsewhere. It may look back within
    its own item; `marks` [rows, length] say where items begin."""
    item = torch.cumsum(marks >= rows.FIRST, 1)
    length = marks.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=marks.device).tril()
    allowed = (item[:, :, None] == item[:, None, :]) & causal
    return torch.zeros(allowed.shape, dtype=dtype, device=marks.device).masked_fill_(
        ~allowed, float("-inf")
    )[:, None]


def targets(ids: Tensor, marks: Tensor, prompt_weight: float) -> tuple[Tensor, Tensor, Tensor]:
    """(token to predict, its weight, its kind) for every position but the last. The first token of
    an item is predicted by nothing."""
    kind = (marks & ~rows.FIRST)[:, 1:]
    first = marks[:, 1:] >= rows.FIRST
    weight = torch.ones(kind.shape, device=ids.device)
    weight[kind == rows.PROMPT] = prompt_weight
    weight[(kind == rows.PAD) | first] = 0.0
    return ids[:, 1:], weight, kind.masked_fill(first, rows.PAD)


class Trainer:
    """Trains the recipe's stages on the rows under `data`; keeps its state under `work`."""

    def __init__(
        self,
        recipe: Recipe,
        data: Path,
        work: Path,
        device: torch.device,
        say: Callable[[str], None],
        *,
        compiled: bool = True,
        save_s: float = 300,
    ) -> None:
        self.recipe, self.work, self.device, self.say = recipe, work, device, say
        self.save_s = save_s
        self._rows = [_Rows(data / str(n)) for n in range(len(recipe.stages))]
        self._held = [_Rows(data / f"held{n}") for n in range(len(recipe.stages))]
        self.steps = [
            len(r) // stage.rows for r, stage in zip(self._rows, recipe.stages, strict=True)
        ]
        self.total = sum(self.steps)
        self.state = State()
        model = new_model(recipe).to(device)
        self.masters = {n: p.detach().clone() for n, p in model.named_parameters()}
        self.model = model.to(torch.bfloat16)
        self.model.set_attn_implementation("blockwise")
        self.model.train()
        matrices = [n for n, p in self.masters.items() if p.ndim == 2 and "layers." in n]
        others = [n for n in self.masters if n not in matrices]
        self._optimizers = (
            torch.optim.Muon(
                [self.masters[n] for n in matrices],
                lr=recipe.muon_rate,
                momentum=NS_MOMENTUM,
                weight_decay=0.0,
                adjust_lr_fn="original",
            ),
            torch.optim.AdamW(
                [self.masters[n] for n in others],
                lr=recipe.adam_rate,
                betas=(0.9, 0.95),
                weight_decay=0.0,
            ),
        )
        self._rates = (recipe.muon_rate, recipe.adam_rate)
        self._body: Any = self.model.model
        self._head: Any = _head_loss
        if compiled:
            self._body = torch.compile(self._body)
            self._head = torch.compile(_head_loss)
        self._stop = False

    @property
    def checkpoint(self) -> Path:
        return self.work / "training.pt"

    def resume(self) -> bool:
        """Continue from the checkpoint, if there is one of this recipe."""
        if not self.checkpoint.exists():
            return False
        saved = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        if saved["recipe"] != self.recipe.digest:
            return False
        with torch.no_grad():
            for name, tensor in saved["masters"].items():
                self.masters[name].copy_(tensor)
        for optimizer, kept in zip(self._optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.state = State(**saved["state"])
        self._round()
        noted = [row for row in curve(self.work) if row["step"] <= self.state.step]
        (self.work / CURVE).write_text("".join(json.dumps(row) + "\n" for row in noted), "utf-8")
        return True

    def save(self) -> None:
        saved = {
            "recipe": self.recipe.digest,
            "masters": self.masters,
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "state": vars(self.state),
        }
        torch.save(saved, f"{self.checkpoint}.new")
        Path(f"{self.checkpoint}.new").replace(self.checkpoint)

    def run(self) -> bool:
        """Train to the end; False if it was interrupted (the state is saved)."""
        before = (
            signal.signal(signal.SIGINT, self._interrupt),
            signal.signal(signal.SIGTERM, self._interrupt),
        )
        self._round()
        saved = begun = time.monotonic()
        first, spent = self.state.step, self.state.seconds
        seen: dict[str, list[float]] = {}
        try:
            while self.state.step < self.total and not self._stop:
                number, at = self._place()
                stage = self.recipe.stages[number]
                ids, marks = self._rows[number].batch(at * stage.rows, stage.rows, self.device)
                loss, by_kind = self._step(ids, marks, stage, train=True)
                if not math.isfinite(loss):
                    raise TrainingError(
                        f"the loss at step {self.state.step} is {loss}: lower the rates in the "
                        "recipe (scripts/starter/recipe.py) and begin again in another --work"
                    )
                for kind, value in by_kind.items():
                    seen.setdefault(kind, []).append(value)
                self.state.step += 1
                self.state.tokens += stage.rows * stage.length
                now = time.monotonic()
                self.state.seconds = spent + now - begun
                if self.state.step % CURVE_EVERY == 0 or self.state.step == self.total:
                    self._note({k: sum(v) / len(v) for k, v in seen.items()}, stage, first, begun)
                    seen = {}
                if self.state.step % HELD_EVERY == 0 or self.state.step == self.total:
                    self._note_held()
                if now - saved > self.save_s:
                    self.save()
                    saved = now
            self.save()
        finally:
            signal.signal(signal.SIGINT, before[0])
            signal.signal(signal.SIGTERM, before[1])
        return self.state.step >= self.total

    def export(self, folder: Path, tokenizer: Any) -> None:
        """The model as a folder that `transformers` loads, without custom code."""
        shipped = new_model(self.recipe)
        with torch.no_grad():
            for name, parameter in shipped.named_parameters():
                parameter.copy_(self.masters[name])
        shipped = shipped.to(torch.bfloat16)
        shipped.generation_config.update(
            do_sample=True,
            temperature=0.7,
            top_p=0.9,
            top_k=50,
            bos_token_id=vocabulary.START,
            eos_token_id=vocabulary.END,
            pad_token_id=vocabulary.START,
        )
        shipped.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    def held_losses(self, number: int) -> dict[str, float]:
        """NLL per token on the rows of held articles, by kind."""
        stage = self.recipe.stages[number]
        held = self._held[number]
        sums: dict[str, list[float]] = {}
        with torch.no_grad():
            for at in range(0, len(held) - stage.rows + 1, stage.rows):
                ids, marks = held.batch(at, stage.rows, self.device)
                for kind, value in self._step(ids, marks, stage, train=False)[1].items():
                    sums.setdefault(kind, []).append(value)
        return {kind: sum(v) / len(v) for kind, v in sums.items()}

    def _step(
        self, ids: Tensor, marks: Tensor, stage: Stage, *, train: bool
    ) -> tuple[float, dict[str, float]]:
        """(weighted loss, NLL by kind) of a batch; with `train`, also the update."""
        expected, weight, kind = targets(ids, marks, stage.prompt_weight)
        length = stage.length
        hidden = self._body(
            input_ids=ids[:, :-1],
            attention_mask=mask(marks[:, :-1], torch.bfloat16),
            position_ids=torch.arange(length, device=self.device)[None],
            use_cache=False,
        ).last_hidden_state.flatten(0, 1)
        flat = hidden.detach().requires_grad_(train)
        expected, weight, kind = expected.flatten(), weight.flatten(), kind.flatten()
        whole = weight.sum().clamp(min=1.0)
        total = 0.0
        losses = []
        for start in range(0, len(flat), HEAD_TOKENS):
            piece = slice(start, start + HEAD_TOKENS)
            loss, each = self._head(
                flat[piece], self.model.lm_head.weight, expected[piece], weight[piece] / whole
            )
            if train:
                loss.backward()
            total += float(loss.detach())
            losses.append(each.detach())
        if train:
            hidden.backward(flat.grad)
            self._update()
        each = torch.cat(losses)
        by_kind = {
            name: float(each[kind == mark].mean())
            for name, mark in KINDS.items()
            if bool((kind == mark).any())
        }
        return total, by_kind

    def _update(self) -> None:
        grads = []
        for name, parameter in self.model.named_parameters():
            assert parameter.grad is not None
            self.masters[name].grad = parameter.grad.float()
            parameter.grad = None
            grads.append(self.masters[name].grad)
        nn.utils.clip_grads_with_norm_(
            list(self.masters.values()), CLIP, nn.utils.get_total_norm(grads)
        )
        factor = self._factor()
        for optimizer, rate in zip(self._optimizers, self._rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * factor
            optimizer.step()
        self._round()

    def _round(self) -> None:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(self.masters[name])

    def _factor(self) -> float:
        done = self.state.step / self.total
        warm = min(1.0, (self.state.step + 1) / max(1.0, self.recipe.warmup * self.total))
        return warm * min(1.0, (1.0 - done) / self.recipe.decay)

    def _place(self) -> tuple[int, int]:
        """(stage, its step) of the step to come."""
        step = self.state.step
        for number, steps in enumerate(self.steps):
            if step < steps:
                return number, step
            step -= steps
        raise AssertionError("the training is over")

    def _note(self, losses: dict[str, float], stage: Stage, first: int, begun: float) -> None:
        elapsed = time.monotonic() - begun
        rate = (self.state.step - first) / elapsed
        left = (self.total - self.state.step) / rate
        tokens_s = rate * stage.rows * stage.length
        told = ", ".join(f"{kind} {value:.3f}" for kind, value in losses.items())
        self.say(
            f"{stage.name}: step {self.state.step}/{self.total}, "
            f"{self.state.tokens / 1e6:.1f}M tokens, nat a token: {told}; "
            f"{tokens_s:,.0f} tokens/s, {left / 60:.0f} min left"
        )
        self._write({"at": "training", **losses})

    def _note_held(self) -> None:
        number = self._place()[0] if self.state.step < self.total else len(self.steps) - 1
        losses = self.held_losses(number)
        self.say("held articles: " + ", ".join(f"{k} {v:.3f}" for k, v in losses.items()))
        self._write({"at": "held", "stage": self.recipe.stages[number].name, **losses})

    def _write(self, row: dict[str, Any]) -> None:
        where = {"step": self.state.step, "tokens": self.state.tokens,
                 "seconds": round(self.state.seconds, 1)}  # fmt: skip
        with (self.work / CURVE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(where | row) + "\n")

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._stop = True


def _head_loss(
    hidden: Tensor, head: Tensor, expected: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """(sum of weight × NLL, NLL of each position); weights are taken as they are."""
    each = F.cross_entropy((hidden @ head.T).float(), expected, reduction="none")
    return (each * weight).sum(), each


class _Rows:
    """Rows of one stage, read from disk as they are needed."""

    def __init__(self, path: Path) -> None:
        self._ids = np.load(f"{path}.ids.npy", mmap_mode="r")
        self._marks = np.load(f"{path}.marks.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self._ids)

    def batch(self, at: int, number: int, device: torch.device) -> tuple[Tensor, Tensor]:
        ids = torch.from_numpy(self._ids[at : at + number].astype(np.int64))
        marks = torch.from_numpy(np.array(self._marks[at : at + number]))
        return ids.to(device), marks.to(device)


def curve(work: Path) -> Iterator[dict[str, Any]]:
    """What `Trainer` noted: rows of step, tokens, seconds, at, and nat a token by kind."""
    if (work / CURVE).exists():
        for line in (work / CURVE).read_text("utf-8").splitlines():
            yield json.loads(line)
