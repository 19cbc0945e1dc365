"""Where the passes of the slots are computed: by torch's modules, or by a graph in ONNX Runtime.

The graph (`graph`, `graph_passes`) is taken on a CPU for a base whose weights are numbers of four
or eight bits (one that came as a GGUF file), so that what serves is what was trained on and
measured, up to the rounding of activations; where that rounding stays within `MOST_APART` on a
trial; and where a token is in fact computed faster by it here. Everything else stays with torch,
and the reason is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import SafetensorError, safe_open

from autodidact.engine.cache import SlotCache
from autodidact.errors import SettingError
from autodidact.models.blocks import coded
from autodidact.models.loading import LoadedBase

if TYPE_CHECKING:
    from autodidact.engine.graph_passes import GraphPasses

Wanted = Literal["auto", "torch", "onnx"]
MOST_APART = 0.1
"""Nats that the graph's distributions may be from the module's, on average over `TRIAL`: several
times what rounding costs (docs/lab-log.md), far less than a wrong weight does."""
FASTER = 1.2
"""So many times as fast as torch the graph has to be: the first tokens of a start tell roughly."""
TRIAL = (
    "The lighthouse on the north shore was built in 1874 by a company of twelve stonemasons. It is "
    "open to visitors in summer, when the ferry comes three times a day."
)
SAMPLE_ROWS = 8


@dataclass(frozen=True)
class RuntimeChoice:
    """`passes` is None for torch. `why`, for the log and for /health."""

    passes: GraphPasses | None
    why: str


def may_fit(folder: Path) -> bool:
    """Whether it is worth loading this base in float32 and looking closer: its first linear weight
    is in blocks. Reads a few rows."""
    try:
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as tensors:
                names = [n for n in tensors.keys() if n.endswith("o_proj.weight")]  # noqa: SIM118
                if names:
                    rows = tensors.get_slice(min(names))[:SAMPLE_ROWS]
                    return coded(rows.float().numpy()) is not None
    except (OSError, ValueError, SafetensorError):
        pass  # whoever loads it says what is wrong
    return False


def choose(base: LoadedBase, wanted: Wanted, threads: int) -> RuntimeChoice:
    """Raises SettingError where `server.runtime` asks for what cannot be had."""
    if wanted == "torch":
        return RuntimeChoice(None, "torch, as set")
    try:
        from autodidact.engine import graph
    except ImportError as error:
        reason = f"{error.name} is not installed; pip install -r requirements.txt"
    else:
        try:
            return _tried(base, threads, as_set=wanted == "onnx")
        except graph.Unfit as unfit:
            reason = str(unfit)
    if wanted == "onnx":
        raise SettingError(f'server.runtime: {reason}; or set "auto" or "torch"')
    return RuntimeChoice(None, f"torch: {reason}")


def _tried(base: LoadedBase, threads: int, *, as_set: bool) -> RuntimeChoice:
    from autodidact.engine import graph
    from autodidact.engine.graph_passes import LIBRARY, GraphPasses

    if base.device.type != "cpu" or base.model.dtype != torch.float32:
        raise graph.Unfit("the graph is for float32 on a CPU")
    graph.require_fit(base.model.config, base.context)
    made = graph.build(base.model, base.context)
    try:
        passes = GraphPasses(made, threads)
        apart = _apart(base, passes)
    except Exception as error:  # native code: it raises what it likes
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise graph.Unfit(f"{LIBRARY} cannot run it here ({line})") from error
    if not apart <= MOST_APART:
        raise graph.Unfit(f"its replies would be {apart:.2f} nat from the model's")
    times = (
        _fastest(lambda: _module(base, [base.start_id])),
        _fastest(lambda: passes.prompt(None, SlotCache(), [base.start_id], 0)),
    )
    ratio = times[0] / times[1]
    if not as_set and ratio < FASTER:
        raise graph.Unfit(f"{LIBRARY} computes a token only {ratio:.1f} × as fast here")
    passes.rest()
    what = f"{made.bits}-bit weights by {LIBRARY} {version(LIBRARY)}"
    return RuntimeChoice(passes, f"{what}: a token {ratio:.1f} × as fast as by torch here")


def _apart(base: LoadedBase, passes: GraphPasses) -> float:
    """Kullback–Leibler divergence of the graph's distributions from the module's, in nats a token,
    on average over the trial."""
    ids = base.tokenizer(TRIAL, add_special_tokens=False).input_ids[: base.context]
    expected = _module(base, ids).log_softmax(-1)
    cache, found = SlotCache(), []
    for place, token in enumerate(ids):
        found.append(passes.prompt(None, cache, [token], place)[0])
    log_shares = torch.stack(found).log_softmax(-1)
    return float((expected.exp() * (expected - log_shares)).sum(-1).mean())


@torch.inference_mode()
def _module(base: LoadedBase, ids: list[int]) -> torch.Tensor:
    """The logits of the base's own module: (tokens, vocabulary)."""
    logits: torch.Tensor = base.model(torch.tensor([ids]), use_cache=False).logits[0].float()
    return logits


def _fastest(work: Callable[[], object], times: int = 5) -> float:
    """Seconds of the fastest of some runs."""
    found = []
    for _ in range(times + 1):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return min(found[1:])
