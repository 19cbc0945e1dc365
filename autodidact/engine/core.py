"""`Engine`: one base, any number of versions, forward passes whose rows may differ in version.

A version is immutable, so a reply that holds one is untouched by whatever is loaded later. All
passes go through one module tree of the engine's own over the base's tensors and are taken in turn
(`forward`); the base's own tree stays as it is, for training and for comparison.

`complete` and `score` work in fixed batches and serve the learner's measurements; requests that
come and go are the `batcher`'s.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from transformers import DynamicCache

from autodidact.engine.adapters import Adapter, Router, Rows, adapt, adaptable, parse
from autodidact.engine.cache import SlotCache
from autodidact.errors import CheckpointError
from autodidact.models.attention import Attention, attention_of
from autodidact.models.loading import LoadedBase, fork

if TYPE_CHECKING:
    from autodidact.engine.graph_passes import GraphPasses

BATCH_TOKENS = 4096
"""Tokens of one batched forward pass (prompts and padding together)."""
LOGIT_BYTES = 200_000_000
"""Of the logits of one scored batch on a CPU, in float32; twice that is held for a moment. A
vocabulary of fifty thousand makes 800 MB of `BATCH_TOKENS`, more than the model takes."""
SHARED_TOKENS = 8
"""A prompt of at least this many tokens is computed once for all its continuations."""
_CANARY = ("The", "What is the name of the town?")


@dataclass(frozen=True, eq=False)
class Version:
    """One immutable model. Number 0 is the untouched base, which has no adapter; `digest` is the
    sha256 of the weights."""

    number: int
    adapter: Adapter | None = None
    digest: str = ""


class Engine:
    """`before_pass` is called before each pass, whoever asks for it, and may take its time. With
    `parts`, fixed batches are so many times smaller than usual: where memory is short. With
    `graph`, the passes of the slots and the trial of a version go through that, and the base's own
    weights are not looked at."""

    def __init__(
        self,
        base: LoadedBase,
        before_pass: Callable[[], None] = lambda: None,
        parts: int = 1,
        graph: GraphPasses | None = None,
    ) -> None:
        self.base = base
        self.graph = graph
        self._parts = parts
        self._before_pass = before_pass
        self.untouched = Version(0)
        self.attention: Attention = attention_of(base.model.config, base.model.dtype)
        self._router = Router()
        self._tree = fork(base.model)
        self._shapes = {
            name: (int(layer.in_features), int(layer.out_features))  # type: ignore[arg-type]
            for name, layer in adaptable(self._tree).items()
        }
        adapt(self._tree, self._router)
        self._turn = threading.Lock()

    def load_folder(self, number: int, folder: Path) -> Version:
        """`load`, from an adapter's folder as PEFT writes it: the bytes on disk."""
        return self.load(
            number,
            (folder / "adapter_config.json").read_bytes(),
            (folder / "adapter_model.safetensors").read_bytes(),
        )

    def load(self, number: int, config_json: bytes, weights: bytes) -> Version:
        """Build a version from the bytes of adapter_config.json and adapter_model.safetensors.

        Only LoRA on our base's linear layers is accepted, with exactly the expected keys and
        shapes and finite values; it must then answer canary prompts with finite logits. Raises
        CheckpointError with one line.
        """
        call, base = f"{number:06d}", self.base
        adapter = parse(call, config_json, weights, self._shapes, base.device, base.model.dtype)
        version = Version(number, adapter, hashlib.sha256(weights).hexdigest())
        for text in _CANARY:
            ids = base.tokenizer(text, add_special_tokens=False).input_ids
            if self.graph is not None:
                logits = self.graph.prompt(adapter, SlotCache(), ids, 0)
            else:
                given = torch.tensor([ids], device=base.device)
                logits = self._pass(version, input_ids=given).logits
            if not torch.isfinite(logits).all():
                raise CheckpointError(f"{call}: the canary prompt gave no finite answer")
        return version

    @property
    def rounds(self) -> bool:
        """Whether a pass rounds so coarsely that it shows how many rows it has: in half precision,
        and where activations are rounded to eight bits."""
        return self.graph is not None or self.base.model.dtype != torch.float32

    @torch.inference_mode()
    def forward(self, versions: Sequence[Version], **inputs: Any) -> Any:
        """One pass of the model; row i takes `versions[i]`. One pass at a time, whoever asks."""
        groups = _groups(versions, self.base.device)
        # Some families fold rows and tokens into one dimension: rows are tokens only one at a time.
        alike = all(rows is None for rows, _ in groups)
        assert alike or inputs["input_ids"].shape[1] == 1
        self._before_pass()
        with self._turn:
            self._router.groups = groups
            try:
                return self._tree(**inputs)
            finally:
                self._router.groups = []

    def _pass(self, version: Version, **inputs: Any) -> Any:
        return self.forward([version], **inputs)

    def complete(
        self,
        version: Version,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[list[int]]:
        """Replies to many prompts in batches, without streaming; prompt order is kept.

        Greedy unless a temperature is given (then pure sampling, no top-p or top-k).
        """
        generator = torch.Generator(device=self.base.device).manual_seed(seed)
        replies: list[list[int]] = [[] for _ in prompts]
        lengths = [len(p) + max_new_tokens for p in prompts]
        for rows in self._by_length(lengths, self._batch_tokens):
            for row, reply in zip(
                rows,
                self._complete(
                    version, [prompts[i] for i in rows], max_new_tokens, temperature, generator
                ),
                strict=True,
            ):
                replies[row] = reply
        return replies

    @torch.inference_mode()
    def _complete(
        self,
        version: Version,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        temperature: float,
        generator: torch.Generator,
    ) -> list[list[int]]:
        device = self.base.device
        ids, mask = (t.to(device) for t in self._padded(prompts, left=True))
        position = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache(config=self.base.model.config)
        replies: list[list[int]] = [[] for _ in prompts]
        running = [True] * len(prompts)
        for _ in range(max_new_tokens):
            logits = self._pass(
                version,
                input_ids=ids,
                attention_mask=mask,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            tokens = logits.float().argmax(-1)
            if temperature > 0:
                shares = (logits.float() / temperature).softmax(-1)
                tokens = torch.multinomial(shares, 1, generator=generator)[:, 0]
            for i, token in enumerate(tokens.tolist()):
                if token in self.base.stop_ids:
                    running[i] = False
                elif running[i]:
                    replies[i].append(token)
            if not any(running):
                break
            ids = tokens[:, None]
            mask = torch.cat([mask, mask.new_ones((len(prompts), 1))], -1)
            position = position[:, -1:] + 1
        return replies

    def score(
        self, version: Version, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> list[float]:
        """Mean log-probability a token, in nats, of each continuation after its prompt.

        A prompt that several continuations share (the answers that a question is offered) goes
        through the model once.
        """
        scores = [0.0] * len(pairs)
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, (prompt, _) in enumerate(pairs):
            groups.setdefault(tuple(prompt), []).append(i)
        shared = {p: g for p, g in groups.items() if len(g) > 1 and len(p) >= SHARED_TOKENS}
        prompts = list(shared)
        whole = [
            len(p) + len(shared[p]) * (max(len(pairs[i][1]) for i in shared[p])) for p in prompts
        ]
        for some in self._by_length(whole, self._scored_tokens):
            members = [i for row in some for i in shared[prompts[row]]]
            owners = [k for k, row in enumerate(some) for _ in shared[prompts[row]]]
            values = self._score_shared(
                version, [prompts[row] for row in some], owners, [pairs[i][1] for i in members]
            )
            for i, value in zip(members, values, strict=True):
                scores[i] = value
        alone = [i for p, g in groups.items() if p not in shared for i in g]
        lengths = [len(pairs[i][0]) + len(pairs[i][1]) for i in alone]
        for rows in self._by_length(lengths, self._scored_tokens):
            batch = [pairs[alone[row]] for row in rows]
            for row, value in zip(rows, self._score(version, batch), strict=True):
                scores[alone[row]] = value
        return scores

    @torch.inference_mode()
    def _score_shared(
        self,
        version: Version,
        prompts: Sequence[Sequence[int]],
        owners: Sequence[int],
        continuations: Sequence[Sequence[int]],
    ) -> list[float]:
        """As `score`; `owners[i]` is the number of the prompt that continuation i follows."""
        device = self.base.device
        ids, mask = (t.to(device) for t in self._padded(prompts, left=True))
        cache = DynamicCache(config=self.base.model.config)
        last = self._pass(
            version,
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
            logits = self._pass(
                version,
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

    def _padded(
        self, rows: Sequence[Sequence[int]], *, left: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask, each (rows, longest)."""
        width = max(len(row) for row in rows)
        ids = torch.full((len(rows), width), self.base.pad_id)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            place = slice(width - len(row), None) if left else slice(0, len(row))
            ids[i, place] = torch.tensor(list(row), dtype=torch.long)
            mask[i, place] = 1
        return ids, mask

    @torch.inference_mode()
    def _score(
        self, version: Version, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> list[float]:
        ids, mask = (
            t.to(self.base.device) for t in self._padded([[*p, *c] for p, c in pairs], left=False)
        )
        logits = self._pass(version, input_ids=ids, attention_mask=mask).logits
        values = []
        for i, (prompt, continuation) in enumerate(pairs):
            begin, end = len(prompt), len(prompt) + len(continuation)
            token_logp = -F.cross_entropy(
                logits[i, begin - 1 : end - 1].float(), ids[i, begin:end], reduction="mean"
            )
            values.append(float(token_logp))
        return values

    @property
    def _batch_tokens(self) -> int:
        return BATCH_TOKENS // self._parts

    @property
    def _scored_tokens(self) -> int:
        """Of one batch."""
        if self.base.device.type != "cpu":
            return self._batch_tokens
        vocabulary = int(self.base.model.get_output_embeddings().weight.shape[0])
        return min(self._batch_tokens, LOGIT_BYTES // self._parts // (4 * vocabulary))

    @staticmethod
    def _by_length(lengths: Sequence[int], most: int = BATCH_TOKENS) -> Iterator[list[int]]:
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


def _groups(versions: Sequence[Version], device: torch.device) -> list[tuple[Rows, Adapter]]:
    """Row numbers by adapter. A pass of one version needs none, whatever its batch."""
    first = versions[0]
    if all(version is first for version in versions):
        return [] if first.adapter is None else [(None, first.adapter)]
    rows: dict[int, list[int]] = {}
    adapters: dict[int, Adapter] = {}
    for i, version in enumerate(versions):
        if version.adapter is not None:
            adapters[id(version.adapter)] = version.adapter
            rows.setdefault(id(version.adapter), []).append(i)
    return [(torch.tensor(rows[key], device=device), adapters[key]) for key in rows]
