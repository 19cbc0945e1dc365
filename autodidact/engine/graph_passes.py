"""The passes of the slots through a graph: ONNX Runtime on the memory of a `SlotCache`.

A pass reads and writes the very slots that the module's passes use, in the same layout, so that
everything about them (moving, taking over what earlier requests computed) is the same. What is
bound to a session stays bound as long as only its contents change: the next token of the same rows
costs no more than the products.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autodidact.engine.adapters import Adapter
from autodidact.engine.cache import SlotCache
from autodidact.engine.graph import Graph, Linear
from autodidact.models.blocks import Floats

_Pair = tuple[Floats, Floats]


@dataclass
class _Bound:
    """What a session is given, as long as the shapes and the memory behind them are the same."""

    key: tuple[Any, ...]
    binding: Any
    hidden: Floats
    last: NDArray[np.int32]
    total: NDArray[np.int32]
    logits: Floats
    kept: list[Any]
    """Only to stay alive."""


class GraphPasses:
    """Passes over one base, one at a time, from any thread. `threads`: of one pass.

    Files are opened at once and stay open: whatever becomes of their folder, these passes go on."""

    def __init__(self, graph: Graph, threads: int) -> None:
        self._graph = graph
        self._threads = threads
        self._plain = self._session(graph.plain)
        self._several: Any = None
        if isinstance(graph.mixed, Path):
            self._several = self._session(graph.mixed)
        self._turn = threading.Lock()
        self._pairs: weakref.WeakKeyDictionary[Adapter, list[_Pair]] = weakref.WeakKeyDictionary()
        self._bare: list[_Pair] = [(one.sums, one.offsets) for one in graph.linears]
        self._bound: _Bound | None = None

    def prompt(
        self,
        adapter: Adapter | None,
        cache: SlotCache,
        tokens: Sequence[int],
        begin: int,
        keep: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """These tokens of a prompt, of which slot 0 holds the `begin` ones before. Logits after
        those of them at `keep`, by default the last one: (kept, vocabulary)."""
        end = begin + len(tokens)
        cache.begin(1, end)
        keep = [len(tokens) - 1] if keep is None else keep
        return self._pass([adapter], cache, tokens, [end], keep)

    def tokens(
        self,
        adapters: Sequence[Adapter | None],
        cache: SlotCache,
        tokens: Sequence[int],
        lengths: Sequence[int],
    ) -> torch.Tensor:
        """One token for each of the slots 0 to n − 1, which hold `lengths` positions. Logits after
        them: (n, vocabulary)."""
        cache.begin(len(tokens), max(lengths) + 1)
        ends = [length + 1 for length in lengths]
        return self._pass(adapters, cache, tokens, ends, range(len(tokens)))

    def _pass(
        self,
        adapters: Sequence[Adapter | None],
        cache: SlotCache,
        tokens: Sequence[int],
        ends: Sequence[int],
        keep: Sequence[int],
    ) -> torch.Tensor:
        with self._turn:
            bound = self._bind(adapters, cache, len(tokens), list(keep))
            bound.hidden[:] = self._graph.embedding(np.asarray(tokens, np.int64))
            bound.last[:] = np.asarray(ends, np.int32) - 1
            bound.total[...] = max(ends)
            several = len(set(map(id, adapters))) > 1
            (self._mixed() if several else self._plain).run_with_iobinding(bound.binding)
            return torch.from_numpy(bound.logits.copy())

    def _bind(
        self, adapters: Sequence[Adapter | None], cache: SlotCache, count: int, keep: list[int]
    ) -> _Bound:
        graph, rows = self._graph, len(adapters)
        sizes = graph.sizes
        keys, values = cache.shaped(sizes.blocks, sizes.heads, sizes.dim)
        memory = tuple(t.data_ptr() for t in (keys[0], values[0]))
        key = (tuple(map(id, adapters)), memory, keys[0].shape, count, tuple(keep))
        if self._bound is not None and self._bound.key == key:
            return self._bound
        several = len(set(map(id, adapters))) > 1
        session = self._mixed() if several else self._plain
        binding = session.io_binding()
        kept: list[Any] = [list(adapters)]

        def give(name: str, array: NDArray[Any]) -> NDArray[Any]:
            kept.append(array)
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            return array

        hidden = give("hidden", np.zeros((count, sizes.width), np.float32))
        give("shape", np.array([rows, count // rows, -1], np.int64))
        last = give("last", np.zeros(rows, np.int32))
        total = give("total", np.zeros((), np.int32))
        give("keep", np.array(keep, np.int64))
        for number, linear in enumerate(graph.linears):
            if several:
                down, up, take = _beside(self._all(adapters), number, adapters)
                give(f"take.{linear.name}", take)
            else:
                down, up = self._of(adapters[0])[number]
            give(f"down.{linear.name}", down)
            give(f"up.{linear.name}", up)
        for side, tensors in (("key", keys), ("value", values)):
            for number, tensor in enumerate(tensors):
                shape = (rows, *tensor.shape[1:])
                where = tensor.data_ptr()
                kept.append(tensor)
                binding.bind_input(f"{side}.{number}", "cpu", 0, np.float32, shape, where)
                binding.bind_output(f"new_{side}.{number}", "cpu", 0, np.float32, shape, where)
        logits = np.zeros((len(keep), sizes.vocabulary), np.float32)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        self._bound = _Bound(key, binding, hidden, last, total, logits, kept)
        return self._bound

    def rest(self) -> None:
        """Let go of the memory of the last pass, and of what only batches of several versions
        need."""
        with self._turn:
            self._bound = None
            if isinstance(self._graph.mixed, bytes):
                self._several = None

    def _of(self, adapter: Adapter | None) -> list[_Pair]:
        if adapter is None:
            return self._bare
        if adapter not in self._pairs:
            self._pairs[adapter] = [_pair(linear, adapter) for linear in self._graph.linears]
        return self._pairs[adapter]

    def _all(self, adapters: Sequence[Adapter | None]) -> dict[int, list[_Pair]]:
        return {id(adapter): self._of(adapter) for adapter in adapters}

    def _mixed(self) -> Any:
        """Of a graph in memory it is made when a batch holds several versions: some tenths of a
        second, and the memory of the weights again."""
        if self._several is None:
            self._several = self._session(self._graph.mixed)
        return self._several

    def _session(self, of: bytes | Path) -> Any:
        return session(of, self._graph.weights, self._threads)


def session(
    of: bytes | Path,
    weights: Mapping[str, NDArray[Any]],
    threads: int,
    written: Path | None = None,
) -> Any:
    """An `onnxruntime.InferenceSession` of a graph whose `weights` are in memory, or known to its
    file. With `written` the graph is written there, and its weights, as the kernels of this machine
    have them and as they were, beside it into a file that its name is the beginning of."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads wait for each other awake within a pass, and asleep between two.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    given = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
    options.add_external_initializers(list(weights), given)
    if written is not None:
        options.optimized_model_filepath = str(written)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        optimised = "session.optimized_model_external_initializers"
        options.add_session_config_entry(f"{optimised}_file_name", f"{written.stem}.weights")
        options.add_session_config_entry(f"{optimised}_min_size_in_bytes", "0")
        options.add_session_config_entry(
            "session.save_external_prepacked_constant_initializers", "1"
        )
    where = str(of) if isinstance(of, Path) else of
    return onnxruntime.InferenceSession(where, options, providers=["CPUExecutionProvider"])


def _pair(linear: Linear, adapter: Adapter) -> _Pair:
    """`down` and `up` of one adapter on these layers, offsets included."""
    downs, ups, at = [linear.sums], [linear.offsets], 0
    for name, count in zip(linear.layers, linear.outputs, strict=True):
        if name in adapter.layers:
            a, b = (part.float().numpy() for part in adapter.layers[name])
            up = np.zeros((len(a), sum(linear.outputs)), np.float32)
            up[:, at : at + count] = b.T
            downs.append(a.T)
            ups.append(up)
        at += count
    return np.ascontiguousarray(np.concatenate(downs, 1)), np.concatenate(ups)


def _beside(
    pairs: dict[int, list[_Pair]], number: int, adapters: Sequence[Adapter | None]
) -> tuple[Floats, Floats, Floats]:
    """The adapters of a batch beside each other, and which columns each row takes."""
    downs, ups, spans, at = [], [], {}, 0
    for key, pair in pairs.items():
        down, up = pair[number]
        downs.append(down)
        ups.append(up)
        spans[key] = slice(at, at := at + down.shape[1])
    take = np.zeros((len(adapters), at), np.float32)
    for row, adapter in enumerate(adapters):
        take[row, spans[id(adapter)]] = 1
    return np.ascontiguousarray(np.concatenate(downs, 1)), np.concatenate(ups), take
