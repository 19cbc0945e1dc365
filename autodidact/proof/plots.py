"""The result as pictures (PNG, matplotlib without a display): effects, the 2 × 2, coverage,
retention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LABELS = {"margin": "margin, nat a token", "choice": "four-way choice, %"}
SCALE = {"margin": 1.0, "choice": 100.0}
PARTS = {
    "covered": "covered",
    "covered_contested": "covered;\na distractor\ntrained too",
    "answer_trained": "answer\ntrained,\nelsewhere",
    "distractor_trained": "only a\ndistractor\ntrained",
    "nothing_trained": "neither",
}
TAUGHT, CONTROL, GREY = "#0b7285", "#e8590c", "#868e96"


def draw(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write effects.png, books.png, coverage.png and, for streams, retention.png; returns their
    paths."""
    drawn = [
        _effects(result, folder / "effects.png"),
        _books(result, folder / "books.png"),
        _coverage(result, folder / "coverage.png"),
    ]
    if result["streams"]:
        drawn.append(_retention(result, folder / "retention.png"))
    return drawn


def _figure(columns: int) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(5 * columns, 3.6), layout=ConstrainedLayoutEngine(w_pad=0.1))
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _error(figure: Mapping[str, Any], scale: float) -> list[list[float]]:
    value = figure["value"] or 0.0
    low = figure["lower"] if figure["lower"] is not None else value
    high = figure["upper"] if figure["upper"] is not None else value
    return [[scale * max(0.0, value - low)], [scale * max(0.0, high - value)]]


def _bar(axis: Any, x: float, figure: Mapping[str, Any], scale: float, **style: Any) -> None:
    axis.bar(
        x, scale * (figure["value"] or 0.0), yerr=_error(figure, scale), capsize=3, width=0.36,
        **style,
    )  # fmt: skip


def _named(axis: Any, names: Sequence[str]) -> None:
    """Names of arms under the bars; aslant, where there are many."""
    aslant = {"rotation": 20, "ha": "right", "rotation_mode": "anchor"} if len(names) > 3 else {}
    axis.set_xticks(range(len(names)), names, **aslant)


def _legend(axis: Any) -> None:
    """Above the bars, wherever they are."""
    axis.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _effects(result: Mapping[str, Any], path: Path) -> Path:
    """Base and every kind of arm, taught beside control."""
    figure, axes = _figure(2)
    kinds = list(result["outcomes"])
    for axis, metric in zip(axes, LABELS, strict=True):
        learned = result["outcomes"]["learned"]["all"][metric]["before"]
        rows = [("base", learned)]
        rows += [(kind, result["outcomes"][kind]["all"][metric]["after"]) for kind in kinds]
        for x, (_, sides) in enumerate(rows):
            for shift, side, colour in ((-0.19, "taught", TAUGHT), (0.19, "control", CONTROL)):
                label = side if x == 0 else None
                _bar(axis, x + shift, sides[side], SCALE[metric], color=colour, label=label)
        if metric == "choice":
            axis.axhline(25, color=GREY, linestyle=":", linewidth=1)
        axis.axhline(0, color="black", linewidth=0.8)
        _named(axis, [name for name, _ in rows])
        axis.set_ylabel(LABELS[metric])
        _legend(axis)
    return _saved(figure, path)


def _books(result: Mapping[str, Any], path: Path) -> Path:
    figure, axes = _figure(3)
    cells = result["books"]["cells"]
    conditions = {"closed": "closed book", "bm25": "BM25", "oracle": "oracle"}
    names = {**LABELS, "f1": "F1, %"}
    for axis, metric in zip(axes, names, strict=True):
        for x, condition in enumerate(conditions):
            for shift, model, colour in ((-0.19, "base", GREY), (0.19, "learned", TAUGHT)):
                label = model if x == 0 else None
                cell = cells[f"{model}/{condition}"][metric]
                _bar(axis, x + shift, cell, SCALE.get(metric, 100.0), color=colour, label=label)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_xticks(range(3), conditions.values())
        axis.set_ylabel(names[metric])
        _legend(axis)
    return _saved(figure, path)


def _coverage(result: Mapping[str, Any], path: Path) -> Path:
    """The margin's effect on covered questions beside that on the others, by kind of arm; then the
    recipe's by what was trained of the question."""
    figure, (kinds, parts) = _figure(2)
    effects = result["coverage"]["effects"]
    for x, groups in enumerate(effects.values()):
        for shift, group, colour in ((-0.19, "covered", TAUGHT), (0.19, "not_covered", GREY)):
            label = group.replace("_", " ") if x == 0 else None
            _bar(kinds, x + shift, groups[group]["margin"], 1.0, color=colour, label=label)
    _named(kinds, list(effects))
    _legend(kinds)
    for x, group in enumerate(PARTS):
        colour = TAUGHT if group.startswith("covered") else GREY
        _bar(parts, x, effects["learned"][group]["margin"], 1.0, color=colour)
    parts.set_xticks(range(len(PARTS)), list(PARTS.values()), fontsize=8)
    parts.set_title("learned, by what was trained", fontsize=10)
    for axis in (kinds, parts):
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_ylabel(f"effect: {LABELS['margin']}")
    return _saved(figure, path)


def _retention(result: Mapping[str, Any], path: Path) -> Path:
    """Mean gain by cycles since learning, one line for each cycle's articles; all arms."""
    figure, axes = _figure(2)
    for axis, metric in zip(axes, LABELS, strict=True):
        by_age: dict[int, list[tuple[float, int]]] = {}
        for stream in result["streams"]:
            rows = [row for row in stream["matrix"] if "title" in row]
            for cycle in range(1, stream["cycles"] + 1):
                line: dict[int, list[tuple[float, int]]] = {}
                for row in rows:
                    if row["learned_in"] == cycle and row["after"] >= cycle:
                        age = row["after"] - cycle
                        line.setdefault(age, []).append((row[metric], row["n"]))
                        by_age.setdefault(age, []).append((row[metric], row["n"]))
                axis.plot(list(line), [_mean(v, metric) for v in line.values()], color=GREY,
                          linewidth=0.8, alpha=0.6)  # fmt: skip
        ages = sorted(by_age)
        axis.plot(ages, [_mean(by_age[age], metric) for age in ages], color=TAUGHT, linewidth=2,
                  marker="o", label="all")  # fmt: skip
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_xlabel("cycles since it was learned")
        axis.set_ylabel(f"gain in {LABELS[metric]}")
        _legend(axis)
    return _saved(figure, path)


def _mean(values: list[tuple[float, int]], metric: str) -> float:
    return SCALE[metric] * sum(v * n for v, n in values) / sum(n for _, n in values)


def _saved(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=130)
    return path
