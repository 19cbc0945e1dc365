"""A graph in files, so that it is made once, and its weights are in memory once.

Making a graph takes seconds, and its weights twice the memory: as they are, and in the order in
which the kernels of a machine read them. ONNX Runtime writes both into one file and maps it
(onnxruntime pull requests 22256 and 23069). So a later start takes some tenths of a second,
server and study share the pages, and the graph of several versions needs no more of them.

A folder holds `plain.onnx` and `mixed.onnx`, which both refer to `plain.weights`, the embedding,
the offsets, and `graph.json`, which tells the size and time of all. It is whole or not there; what
was changed since it was written counts as not there. It holds for one base, machine and version of
ONNX Runtime: whoever names the folder sees to that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from autodidact.engine.graph import Graph, Linear, Sizes, adding_up
from autodidact.engine.graph_passes import session
from autodidact.errors import Misfit
from autodidact.home import fsync, write_file
from autodidact.models.blocks import Coded
from autodidact.types import wire

TOLD, OFFSETS = "graph.json", "offsets.safetensors"
PLAIN, MIXED = "plain.onnx", "mixed.onnx"
FORMAT = 1
"""Of what stands in such a folder, and of the graph itself: with a change of either it grows."""
_WRITTEN_WITHIN_S = 600.0
_PARTS = ("codes", "scale", "offset")
"""Of a coded embedding; there may be no offset."""


@dataclass(frozen=True)
class _Layers:
    """A `Linear` without its numbers; `summed`, so many blocks of inputs have offsets."""

    name: str
    layers: tuple[str, ...]
    outputs: tuple[int, ...]
    inputs: int
    summed: int


@dataclass(frozen=True)
class _Told:
    format: int
    context: int
    sizes: Sizes
    linears: tuple[_Layers, ...]
    table_bits: int
    """0 where the embedding is in floats."""
    files: dict[str, tuple[int, int]]
    """Size and time of every other file, in nanoseconds."""


def kept(folder: Path, context: int) -> Graph | None:
    """What `keep` left there; None without a whole one for a context of so many tokens."""
    try:
        told = wire.from_json(_Told, (folder / TOLD).read_bytes(), TOLD)
        expected = (FORMAT, context, told.files)
        if (told.format, told.context, _states(folder)) != expected:
            return None
        table: Any
        if told.table_bits:
            there = {part: folder / f"{part}.npy" for part in _PARTS}
            parts = {k: np.load(v, mmap_mode="r") for k, v in there.items() if v.name in told.files}
            table = Coded(told.table_bits, parts["codes"], parts["scale"], parts.get("offset"))
        else:
            table = np.load(folder / "rows.npy", mmap_mode="r")
        offsets = load_file(folder / OFFSETS)
        linears = tuple(
            Linear(
                one.name, one.layers, one.outputs, one.inputs,
                adding_up(one.inputs, one.summed), offsets[one.name],
            )
            for one in told.linears
        )  # fmt: skip
    except (OSError, Misfit, ValueError, KeyError, SafetensorError):
        return None
    return Graph(folder / PLAIN, folder / MIXED, {}, linears, table, told.sizes)


def keep(graph: Graph, folder: Path, context: int) -> Graph:
    """Write a graph that is in memory; the same from files. Those beside it, of other machines or
    versions, go first: whoever has one open goes on with it. Raises OSError, and whatever
    ONNX Runtime raises."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for other in folder.parent.iterdir():
        if other != folder and not _is_being_written(other):
            shutil.rmtree(other, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        fresh = work / "fresh"
        fresh.mkdir()
        _write(graph, fresh, context)
        found = kept(folder, context)  # another process may have been faster
        if found is None:
            with contextlib.suppress(FileNotFoundError):
                os.rename(folder, work / "old")
            os.rename(fresh, folder)
            found = kept(folder, context)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if found is None:
        raise OSError(f"{folder}: what was just written cannot be read")
    return found


def _is_being_written(path: Path) -> bool:
    """Unless its writer was killed."""
    try:
        return path.name.startswith(".") and time.time() - path.stat().st_mtime < _WRITTEN_WITHIN_S
    except OSError:
        return True


def _write(graph: Graph, folder: Path, context: int) -> None:
    written = folder / PLAIN
    session(graph.plain, graph.weights, 1, written)
    weights = onnx.load(written, load_external_data=False).graph.initializer
    where = {one.name: one for one in weights}
    for name, serialised in ((PLAIN, graph.plain), (MIXED, graph.mixed)):
        assert isinstance(serialised, bytes)
        model = onnx.load_model_from_string(serialised)
        for one in model.graph.initializer:
            if one.name in graph.weights:
                one.CopyFrom(where[one.name])
        (folder / name).write_bytes(model.SerializeToString())
    if isinstance(graph.table, Coded):
        for part in _PARTS:
            if (values := getattr(graph.table, part)) is not None:
                np.save(folder / f"{part}.npy", values)
    else:
        np.save(folder / "rows.npy", graph.table)
    save_file({one.name: one.offsets for one in graph.linears}, folder / OFFSETS)
    linears = tuple(
        _Layers(one.name, one.layers, one.outputs, one.inputs, len(one.offsets))
        for one in graph.linears
    )
    bits = graph.table.bits if isinstance(graph.table, Coded) else 0
    told = _Told(FORMAT, context, graph.sizes, linears, bits, {})
    for path in folder.iterdir():
        fsync(path)  # else a power cut could leave a file of its size, and nothing in it
    write_file(folder / TOLD, wire.to_json(replace(told, files=_states(folder))).encode())


def _states(folder: Path) -> dict[str, tuple[int, int]]:
    files = [entry for entry in os.scandir(folder) if entry.name != TOLD]
    return {file.name: (file.stat().st_size, file.stat().st_mtime_ns) for file in files}
