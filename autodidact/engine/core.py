"""`Engine`: one base, any number of versions, forward passes whose rows may differ in version.

A version is immutable, so a reply that holds one is untouched by whatever is loaded later. All
passes go through one module tree of the engine's own over the base's tensors and are taken in turn
(`forward`); the base's own tree stays as it is, for training and for comparison.

`complete` and `score` take texts that are all known beforehand (`offline`) and serve the learner's
measurements; requests that come and go are the `batcher`'s.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from autodidact.engine.adapters import Adapter, Router, Rows, adapt, adaptable, parse
from autodidact.engine.cache import SlotCache
from autodidact.engine.graph_offline import GraphOffline
from autodidact.engine.offline import ModuleOffline, Offline
from autodidact.engine.versions import Version
from autodidact.errors import CheckpointError
from autodidact.models.attention import Attention, attention_of
from autodidact.models.loading import LoadedBase, fork

if TYPE_CHECKING:
    from autodidact.engine.graph_passes import GraphPasses

_CANARY = ("The", "What is the name of the town?")


class Engine:
    """`before_pass` is called before each pass of the modules and each offline one, and may take
    its time. With `parts`, offline batches are so many times smaller than usual: where memory is
    short. With `graph`, all that is said and scored goes through that, and the base's own weights
    are not looked at."""

    def __init__(
        self,
        base: LoadedBase,
        before_pass: Callable[[], None] = lambda: None,
        parts: int = 1,
        graph: GraphPasses | None = None,
    ) -> None:
        self.base = base
        self.graph = graph
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
        self._offline: Offline = (
            ModuleOffline(base, self.forward, parts)
            if graph is None
            else GraphOffline(graph, base.stop_ids, before_pass, parts)
        )

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
        return self._offline.complete(version, prompts, max_new_tokens, temperature, generator)

    def score(
        self, version: Version, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> list[float]:
        """Mean log-probability a token, in nats, of each continuation after its prompt.

        A prompt that several continuations share (the answers that a question is offered) goes
        through the model once.
        """
        return self._offline.score(version, pairs)

    def rest(self) -> None:
        """Let go of what is kept between one offline question and the next."""
        self._offline.rest()


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
