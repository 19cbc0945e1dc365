"""What computes replies, and with how many threads: measured once on each machine, and kept.

There are torch's modules, and a graph in ONNX Runtime (`graph`, `graph_passes`). The graph is taken
on a CPU for a base whose weights are numbers of four or eight bits (one that came as a GGUF file,
or was rounded), so that what serves is what was trained on and measured, up to the rounding of
activations; where that rounding stays within `MOST_APART` on a trial; and where a token is in fact
computed faster by it here. Everything else stays with torch. Threads are as few as come within
`NEAR` of the fastest, but never less than two for a model of some size: at the first start a
learner may be at work beside it. The reason is told, and `KeptRuntime` saves later starts the
measurement.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import SafetensorError, safe_open

from autodidact.engine.cache import SlotCache
from autodidact.errors import Misfit, SettingError
from autodidact.home import write_atomic
from autodidact.models.blocks import coded
from autodidact.models.loading import LoadedBase, threads_for, use_threads
from autodidact.types import wire

if TYPE_CHECKING:
    from autodidact.engine.graph import Graph
    from autodidact.engine.graph_passes import GraphPasses

log = logging.getLogger(__name__)
Wanted = Literal["auto", "torch", "onnx"]
MOST_APART = 0.1
"""Nats that the graph's distributions may be from the module's, on average over `TRIAL`: several
times what rounding costs (docs/lab-log.md), far less than a wrong weight does."""
NEAR = 1.1
"""So many times the seconds of the fastest number of threads are about as fast."""
SMALL_MODEL = 30_000_000
"""Parameters below which one thread is mostly fastest: passes are too short to share."""
LIBRARY = "onnxruntime"
FILE = "runtime.json"
"""Where a server keeps its choice, in the home."""
FASTER = 1.2
"""So many times as fast as torch the graph has to be: the first tokens of a start tell roughly."""
TRIAL = (
    "The lighthouse on the north shore was built in 1874 by a company of twelve stonemasons. It is "
    "open to visitors in summer, when the ferry comes three times a day."
)
SAMPLE_ROWS = 8


@dataclass(frozen=True)
class RuntimeChoice:
    """`passes` is None for torch; `threads` are those of one pass, 0 where they are still to be
    measured. `why`, for people; of torch first it is only why not the graph."""

    passes: GraphPasses | None
    threads: int
    why: str


@dataclass(frozen=True)
class KeptRuntime:
    """A choice that was measured, for later starts. `measured_on` tells where it holds."""

    measured_on: str
    runtime: Literal["torch", "onnx"]
    threads: int
    why: str


def measured_on(base_sha256: str, *settings: object) -> str:
    """All that a choice depends on: the base, the machine, the libraries and the settings."""
    capability = torch.backends.cpu.get_cpu_capability()
    return (
        f"{base_sha256[:12]}, {threads_for(0, spare=False)} threads with {capability}, "
        f"torch {torch.__version__}, {LIBRARY} {_library()}, "
        f"set to {', '.join(map(str, settings))}"
    )


def known(home: Path, where: str) -> KeptRuntime | None:
    """What an earlier start measured, if it holds here."""
    try:
        kept = wire.from_json(KeptRuntime, (home / FILE).read_bytes(), FILE)
    except (OSError, Misfit):
        return None
    return kept if kept.measured_on == where else None


def keep(home: Path, where: str, choice: RuntimeChoice) -> None:
    """For later starts. Raises OSError."""
    by: Literal["torch", "onnx"] = "torch" if choice.passes is None else "onnx"
    told = wire.to_json(KeptRuntime(where, by, choice.threads, choice.why))
    write_atomic(home / FILE, told.encode())


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


def graph_folder(folder: Path, base_sha256: str) -> Path:
    """Where in `folder` the graph of a base is kept, for this machine and this library: its weights
    are in the order that the kernels of this processor read them in."""
    where = (base_sha256, _library(), platform.machine(), _processor())
    return folder / hashlib.sha256("\n".join(where).encode()).hexdigest()[:16]


def _library() -> str:
    try:
        return version(LIBRARY)
    except PackageNotFoundError:
        return "none"


def _processor() -> str:
    """What it is called and can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor()
    told = ("model name", "flags", "Features")
    return "\n".join(sorted({line for line in lines if line.startswith(told)}))


def choose(
    base: LoadedBase,
    wanted: Wanted,
    threads: int,
    kept: KeptRuntime | None = None,
    files: Path | None = None,
    *,
    follows: bool = False,
) -> RuntimeChoice:
    """The graph or not: by measurement, unless the graph was `kept`. Why it was torch may be mended
    by now (a library, memory), so that is found out anew. `threads` 0 are measured too. A graph
    that is taken is kept in the folder `files`, and taken from there; one that is not goes. Who
    `follows` takes one that is there whatever its speed here and now: a server replies by it.
    Raises SettingError where `server.runtime` asks for what cannot be had."""
    reason = "as set"
    if wanted != "torch":
        try:
            from autodidact.engine import graph
        except ImportError as error:
            reason = f"{error.name} is not installed; pip install -r requirements.txt"
        else:
            try:
                return _graph(base, threads, kept, files, as_set=wanted == "onnx", follows=follows)
            except graph.Unfit as unfit:
                reason = str(unfit)
        if wanted == "onnx":
            raise SettingError(f'server.runtime: {reason}; or set "auto" or "torch"')
    if files is not None:
        shutil.rmtree(files, ignore_errors=True)
    return RuntimeChoice(None, 0, reason)


def by_torch(base: LoadedBase, threads: int, reason: str = "") -> RuntimeChoice:
    """Torch, and how many threads it is to have."""
    told = "torch"
    if base.device.type == "cpu":

        def seconds(count: int) -> float:
            use_threads(count)
            return _fastest(lambda: _module(base, [base.start_id]))

        threads = _fewest(thread_counts(threads, base.parameters), seconds)
        told += _threads_told(threads)
    return RuntimeChoice(None, threads or 1, f"{told}: {reason}" if reason else told)


def _graph(
    base: LoadedBase,
    threads: int,
    kept: KeptRuntime | None,
    files: Path | None,
    *,
    as_set: bool,
    follows: bool,
) -> RuntimeChoice:
    """Raises Unfit."""
    from autodidact.engine import graph, graph_files

    if base.device.type != "cpu" or base.model.dtype != torch.float32:
        raise graph.Unfit("the graph is for float32 on a CPU")
    graph.require_fit(base.model.config, base.context)
    filed = None if files is None else graph_files.kept(files, base.context)
    if filed is not None:
        try:
            return _measured(base, filed, threads, kept, as_set=as_set or follows)
        except graph.Unfit as unfit:
            log.warning("%s: %s; it is made anew", files, unfit)
            shutil.rmtree(str(files), ignore_errors=True)
    made = graph.build(base.model, base.context)
    choice = _measured(base, made, threads, kept, as_set=as_set)
    return choice if files is None else _from_files(base, made, choice, files)


def _measured(
    base: LoadedBase, made: Graph, threads: int, kept: KeptRuntime | None, *, as_set: bool
) -> RuntimeChoice:
    """Raises Unfit."""
    from autodidact.engine import graph
    from autodidact.engine.graph_passes import GraphPasses

    try:
        if kept is not None and kept.runtime == "onnx":
            return RuntimeChoice(GraphPasses(made, kept.threads), kept.threads, kept.why)
        counts = thread_counts(threads, base.parameters)
        count = _fewest(counts, lambda n: _token_s(base, GraphPasses(made, n)))
        passes = GraphPasses(made, count)
        token_s = _token_s(base, passes)
        apart = _apart(base, passes)
    except Exception as error:  # native code: it raises what it likes
        raise graph.Unfit(f"{LIBRARY} cannot run it here ({_line(error)})") from error
    if not apart <= MOST_APART:
        raise graph.Unfit(f"its replies would be {apart:.2f} nat from the model's")
    use_threads(count)
    ratio = _fastest(lambda: _module(base, [base.start_id])) / token_s
    if not as_set and ratio < FASTER:
        raise graph.Unfit(f"{LIBRARY} computes a token only {ratio:.1f} × as fast here")
    passes.rest()
    told = f"{made.sizes.bits}-bit weights by {LIBRARY} {_library()}{_threads_told(count)}"
    return RuntimeChoice(passes, count, f"{told}: a token {ratio:.1f} × as fast as by torch here")


def _from_files(base: LoadedBase, made: Graph, choice: RuntimeChoice, files: Path) -> RuntimeChoice:
    """The same through the files, where they can be written and say the same."""
    from autodidact.engine import graph_files
    from autodidact.engine.graph_passes import GraphPasses

    assert choice.passes is not None
    expected = _first(base, choice.passes)
    choice = replace(choice, passes=None)  # what it holds is needed for writing
    try:
        passes = GraphPasses(graph_files.keep(made, files, base.context), choice.threads)
        if torch.equal(_first(base, passes), expected):
            passes.rest()
            return replace(choice, passes=passes)
        reason = "what was written says something else"
        shutil.rmtree(files, ignore_errors=True)
    except Exception as error:  # a full disk; native code
        reason = _line(error)
    log.warning("the graph cannot be kept (%s), so it is made anew at each start", reason)
    return replace(choice, passes=GraphPasses(made, choice.threads))


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _first(base: LoadedBase, passes: GraphPasses) -> torch.Tensor:
    return passes.prompt(None, SlotCache(), [base.start_id], 0)


def _token_s(base: LoadedBase, passes: GraphPasses) -> float:
    return _fastest(lambda: _first(base, passes))


def _threads_told(count: int) -> str:
    return f", {count} thread{'s' * (count > 1)}"


def thread_counts(setting: int, parameters: int) -> list[int]:
    """What is worth trying: the setting, or some and their doubles up to what the machine has."""
    most = threads_for(setting, spare=False)
    if setting:
        return [most]
    counts = [min(most, 1 if parameters < SMALL_MODEL else 2)]
    while counts[-1] < most:
        counts.append(min(most, 2 * counts[-1]))
    return counts


def _fewest(counts: list[int], seconds: Callable[[int], float]) -> int:
    """The fewest threads that are about as fast as the fastest: the others stay free. Where there
    is no choice nothing is measured."""
    if len(counts) == 1:
        return counts[0]
    times = {count: seconds(count) for count in counts}
    best = min(times.values())
    return min(count for count, taken in times.items() if taken <= NEAR * best)


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
