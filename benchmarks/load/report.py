"""Tables and a plot of what the serving benchmark has measured so far."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.load.figures import spread

Cells = Mapping[str, Mapping[str, Any]]
TARGETS = (
    "Wanted: one stream at least 1.3 × `generate` (engines, 1 request); 32 streams at least "
    "12 × naive; first token p99 at most 2 s; stall below 2 token intervals at p99."
)


def write(folder: Path, state: Mapping[str, Any]) -> None:
    """`serving.md` and `serving.png` in `folder`."""
    (folder / "serving.md").write_text(markdown(state), "utf-8")
    if any(key.startswith("streams/") for key in state["cells"]):
        plot(state["cells"], folder / "serving.png")


def markdown(state: Mapping[str, Any]) -> str:
    settings, cells = state["settings"], state["cells"]
    told = ", ".join(f"{name} {value}" for name, value in settings.items())
    parts = ["# Serving", f"{state['machine']}\n\n{told}\n\n{TARGETS}"]
    for title, table in (
        ("Streams", streams_table(cells)),
        ("Second turns", turns_table(cells)),
        ("Reloads", reload_table(cells)),
        ("Beside the learner", learner_table(cells)),
        ("Engines, tokens a second without HTTP", engines_table(cells)),
    ):
        if table:
            parts.append(f"## {title}\n\n{table}")
    return "\n\n".join(parts) + "\n"


def groups(cells: Cells, part: str) -> dict[tuple[str, ...], list[Mapping[str, Any]]]:
    """Cells of a part by their key without the part and the round, in the order they came."""
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for key, cell in cells.items():
        first, *middle, _ = key.split("/")
        if first == part:
            found.setdefault(tuple(middle), []).append(cell)
    return found


def streams_table(cells: Cells) -> str:
    """A row for each form, number of streams and server."""
    rows = []
    found = groups(cells, "streams")
    order = sorted(found, key=lambda key: (key[0], int(key[1]), key[2]))
    for form, n, side in order:
        mine = found[form, n, side]
        rows.append([form, n, side, *_load_columns(mine), _ratio(found, form, n, side)])
    head = ["form", "streams", "server", *_LOAD_HEADS, "× naive"]
    return _table(head, rows)


_LOAD_HEADS = ["tokens/s", "first p50 s", "first p99 s", "gap p50 ms", "gap p99 ms", "failed",
               "waits cut", "server CPU", "client CPU"]  # fmt: skip


def _load_columns(mine: list[Mapping[str, Any]]) -> list[str]:
    return [
        _of(mine, "tokens_s", 1),
        _of(mine, "first_p50", 2),
        _of(mine, "first_p99", 2),
        _of(mine, "gap_p50", 1, 1000),
        _of(mine, "gap_p99", 1, 1000),
        str(sum(cell["failed"] for cell in mine)),
        str(sum(cell["cut"] for cell in mine)),
        _of(mine, "server_cpu", 2),
        _of(mine, "client_cpu", 2),
    ]


def _ratio(found: Mapping[Any, list[Mapping[str, Any]]], form: str, n: str, side: str) -> str:
    """Tokens a second over those of the naive server, of medians."""
    ours, naive = (
        spread(cell["tokens_s"] for cell in found.get((form, n, which), ()))["median"]
        for which in (side, "naive")
    )
    return f"{ours / naive:.2f}" if side != "naive" and ours and naive else ""


def reload_table(cells: Cells) -> str:
    """A row for each number of reloads and streams."""
    rows = []
    for key, cell in cells.items():
        if not key.startswith("reload/"):
            continue
        stall, quiet = cell["stall"], cell["quiet"]
        rows.append(
            [key.split("/")[2], str(cell["reloads"]), str(cell["live"])]
            + [_one(cell[name], 2) for name in ("reload_p50", "reload_p99")]
            + [f"{_one(cell['reload_first_half'], 2)} → {_one(cell['reload_second_half'], 2)}"]
            + [_one(cell["gap_p50"], 1, 1000)]
            + [f"{_one(part['p50'], 2)} / {_one(part['p99'], 2)}" for part in (stall, quiet)]
            + [f"{_one(cell['rss_before'], 0)} → {_one(cell['rss_after'], 0)}"]
            + [_one(cell["rss_growth_each"], 3), str(cell["failed"])]
        )
    head = ["streams", "reloads", "live", "reload p50 s", "p99 s", "first → second half s",
            "gap p50 ms", "stall p50 / p99 in gaps", "without reload p50 / p99", "RSS MiB",
            "growth a reload", "failed"]  # fmt: skip
    return _table(head, rows)


def turns_table(cells: Cells) -> str:
    """A row for each length of a conversation, with and without what earlier requests computed."""
    found = groups(cells, "turns")
    rows = []
    for tokens, side in sorted(found, key=lambda key: (int(key[0]), key[1])):
        mine = found[tokens, side]
        here, anew = (
            spread(cell["second_turn"] for cell in found.get((tokens, which), ()))["median"]
            for which in (side, "anew")
        )
        ratio = f"{here / anew:.2f}" if side != "anew" and here and anew else ""
        rows.append(
            [tokens, side, str(sum(cell["conversations"] for cell in mine))]
            + [_of(mine, name, 2) for name in ("first_turn", "second_turn", "second_turn_most")]
            + [ratio, _of(mine, "pss", 0)]
        )
    head = ["tokens", "prefixes", "conversations", "first turn, first token s",
            "second turn, first token s", "at most s", "× anew", "PSS MiB"]  # fmt: skip
    return _table(head, rows)


def learner_table(cells: Cells) -> str:
    rows = [
        [n, state, *_load_columns(mine), "; ".join(sorted({c["learner_after"] for c in mine}))]
        for (n, state), mine in sorted(
            groups(cells, "learner").items(), key=lambda item: (int(item[0][0]), item[0][1])
        )
    ]
    return _table(["streams", "learner", *_LOAD_HEADS, "learner at the end"], rows)


def engines_table(cells: Cells) -> str:
    found = groups(cells, "engines")
    rows = []
    for n, name in sorted(found, key=lambda key: int(key[0])):
        mine = found[n, name]
        alone = spread(c.get("tokens_s") for c in found.get((n, "generate"), ()))["median"]
        here = spread(c.get("tokens_s") for c in mine)["median"]
        faults = {cell["error"] for cell in mine if "error" in cell}
        ratio = f"{here / alone:.2f}" if here and alone else ""
        rows.append([n, name, _of(mine, "tokens_s", 1), ratio, "; ".join(sorted(faults))])
    return _table(["requests", "engine", "tokens/s", "× generate", "error"], rows)


def line(cell: Mapping[str, Any]) -> str:
    """One cell in a few words."""
    if "error" in cell:
        return str(cell["error"])
    if "stall" in cell:
        return (
            f"{cell['live']} of {cell['reloads']} live, {_one(cell['reload_p50'], 2)} s each, "
            f"stall p99 {_one(cell['stall']['p99'], 2)} gaps, {cell['failed']} failed"
        )
    if "second_turn" in cell:
        return f"first token {cell['first_turn']:.2f} s, in a second turn {cell['second_turn']:.2f}"
    if "first_p99" not in cell:
        return f"{cell['tokens_s']:.1f} tokens/s"
    return (
        f"{cell['tokens_s']:.1f} tokens/s, first p99 {_one(cell['first_p99'], 2)} s, "
        f"{cell['failed']} failed"
    )


def plot(cells: Cells, path: Path) -> None:
    """Tokens a second, first token p99 and gap p99 over the number of streams, closed form."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = groups(cells, "streams")
    panels = (("tokens_s", "tokens a second"), ("first_p99", "first token p99, s"),
              ("gap_p99", "gap between tokens p99, s"))  # fmt: skip
    figure, axes = pyplot.subplots(1, len(panels), figsize=(12, 3.8), layout="constrained")
    forms = [form for form in ("closed", "open") if any(key[0] == form for key in found)]
    for axis, (name, label) in zip(axes, panels, strict=True):
        for side, colour in (("naive", "#b4543c"), ("ours", "#2a6f97")):
            keys = sorted((k for k in found if k[0] == forms[0] and k[2] == side), key=_streams)
            points = [(_streams(key), spread(c[name] for c in found[key])) for key in keys]
            points = [(n, values) for n, values in points if values["n"]]
            middle = [values["median"] for _, values in points]
            below = [values["median"] - values["low"] for _, values in points]
            above = [values["high"] - values["median"] for _, values in points]
            axis.errorbar(
                [n for n, _ in points], middle, [below, above],
                marker="o", capsize=3, color=colour, label=side,
            )  # fmt: skip
        counts = sorted({_streams(key) for key in found})
        axis.set(xscale="log", yscale="log", xlabel="streams", title=label)
        axis.set_xticks(counts, [str(n) for n in counts])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _streams(key: tuple[str, ...]) -> int:
    return int(key[1])


def machine() -> str:
    """What it was measured on, in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = platform.processor() or platform.machine()
    try:
        rows = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        model = next(row.partition(": ")[2] for row in rows if row.startswith("model name"))
    except (OSError, StopIteration):
        pass
    versions = ", ".join(f"{name} {_version(name)}" for name in ("torch", "transformers", "peft"))
    return f"{cores} cores of {model}; Python {platform.python_version()}, {versions}"


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _of(mine: Iterable[Mapping[str, Any]], name: str, digits: int, times: float = 1) -> str:
    """Median and, of several rounds, the range."""
    found = spread(cell.get(name) for cell in mine)
    middle = _one(found["median"], digits, times)
    if found["n"] < 2:
        return middle
    return f"{middle} ({_one(found['low'], digits, times)}–{_one(found['high'], digits, times)})"


def _one(value: float | None, digits: int, times: float = 1) -> str:
    return "–" if value is None else f"{times * value:.{digits}f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    join: Callable[[Iterable[str]], str] = lambda cells: f"| {' | '.join(cells)} |"  # noqa: E731
    return "\n".join([join(head), join("---" for _ in head), *map(join, rows)])
