"""A long stream of small cycles: what is learned, what of it is kept, and what it costs.

    python benchmarks/learning/stream.py --cycles 50 --home DIR          about an hour
    python benchmarks/learning/stream.py --cycles 80 --home DIR          goes on with the same home

Before each cycle a few fresh documents of the synthetic world (2 to 3 facts each) are put into the
folder that the learner reads; `web_learner.py --once` then learns one cycle, with its own defaults
for everything but the time. Rejected documents stay in the learner's queue and new ones are added
all the same. After each cycle its own probes are asked of the version that it published
(acquisition), and every few cycles all probes of all documents learned so far of the newest version
(retention matrix: cycle learned × cycle measured), control documents that are never taught, the
base's own held-out text and (with SHARED_DATA_DIR) WikiText-2's validation text. Closed book,
greedy, through the engine that serves.

After every cycle OUT/stream.json holds all of it and the summary, so that a run that is cut off is
still evidence; OUT/stream.md and stream.png are written with every measurement. Kept after +10
cycles takes each cycle's first measurement at least ten cycles later. Ratios of exact matches have
95 % intervals by a bootstrap over documents (10,000 draws); shares have Wilson's.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

import numpy as np  # noqa: E402

from autodidact import checkpoints  # noqa: E402
from autodidact.engine.examinee import Examinee  # noqa: E402
from autodidact.store.cycles import StoredCycle  # noqa: E402
from autodidact.store.ledger import LearnerStore  # noqa: E402
from autodidact.training import anchors  # noqa: E402
from autodidact.types.cycle import lines  # noqa: E402
from benchmarks.learning import world  # noqa: E402
from benchmarks.learning.world_recall import (  # noqa: E402
    MODEL,
    Laboratory,
    answers,
    environment,
    frozen,
    learn_once,
    share,
    wording,
)
from benchmarks.library_recall import wikitext  # noqa: E402

CONTROL_DOCUMENTS = 12
"""The first of the world; the stream begins after them."""
LATER = 10
MOST_FAILURES = 3
DRAWS = 10_000
SAME = ("seed", "documents", "facts", "model")
"""Settings that a run that goes on must not change."""
Row = dict[str, Any]


# What is measured --------------------------------------------------------------------------------


def held_out(home: Path) -> list[list[int]]:
    """The anchors that are never trained on: each begins with a token that is given."""
    return [
        list(row)
        for row in anchors.read(json.loads((home / "anchors.json").read_text("utf-8"))).blocks
    ]


def sample_anchors(home: Path, model_name: str, minutes: float) -> None:
    """Let the base write its anchors before the first cycle, as a learner's first long cycles do:
    cycles of a minute would have too few for most of the run."""
    from autodidact.engine import Engine
    from autodidact.models import loading
    from autodidact.settings import TrainingSettings
    from autodidact.training.recipe import recipe_of

    path = home / "anchors.json"
    if path.exists() or not minutes:
        return
    engine = Engine(loading.load(Path(model_name), 2))
    mix = recipe_of(engine.base, TrainingSettings(), autocast=False).anchors
    made = anchors.extend(engine, anchors.Anchors(), mix, 60 * minutes, lambda step, of: None)
    home.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(made.plain()), "utf-8")
    print(json.dumps({"texts": len(made.texts), "chats": len(made.chats)}), flush=True)


def nll(examinee: Examinee, blocks: Sequence[Sequence[int]]) -> float:
    """Mean NLL a token over all blocks."""
    weights = [len(block) - 1 for block in blocks]
    values = examinee.nll(blocks)
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)


def ask(examinee: Examinee, home: Path, document_ids: Iterable[int]) -> dict[str, int]:
    """Exact match of each frozen probe in a wording seen for other facts, by probe id."""
    probes = [p for p in frozen(home, document_ids) if wording(p) == "seen"]
    if not probes:
        return {}
    return {r.probe_id: r.correct for r in answers(examinee, probes)}


def measure(laboratory: Laboratory, home: Path, rows: Sequence[Row]) -> Row:
    """Everything learned so far, asked of the version that serves now."""
    begun = time.monotonic()
    version = checkpoints.current(home)
    now, base = laboratory.subject(version), laboratory.subject(checkpoints.BASE_VERSION)
    blocks = held_out(home)
    learned = [i for row in rows if row["acquired"] for i in row["documents"]]
    control = ask(now, home, range(-CONTROL_DOCUMENTS, 0))
    return {
        "after": rows[-1]["cycle"],
        "version": version,
        "taught": ask(now, home, learned),
        "control": share(list(control.values())),
        "general_base": nll(base, blocks),
        "general": nll(now, blocks),
        "wikitext_base": wikitext(laboratory.engine, base),
        "wikitext": wikitext(laboratory.engine, now),
        "seconds": time.monotonic() - begun,
    }


def ledger_rows(home: Path, after: int) -> list[Row]:
    """The finished cycles with a number above `after`, oldest first."""
    store = LearnerStore(home / "learner.db", readonly=True)
    try:
        cycles = store.cycles.latest(max(0, store.cycles.last() - after))
    finally:
        store.close()
    return [_row(cycle) for cycle in reversed(cycles) if cycle.state != "running"]


def _row(cycle: StoredCycle) -> Row:
    report = cycle.report
    return {
        "cycle": cycle.n,
        "kind": cycle.kind,
        "state": cycle.state,
        "seconds": (cycle.ended_at or cycle.started_at) - cycle.started_at,
        "documents": cycle.documents,
        "learned": asdict(report.figures.taught) if report and report.figures else None,
        "exposures": report.exposures if report else None,
        "reasons": list(lines(cycle.reasons)),
        "acquired": {},
    }


# The run -----------------------------------------------------------------------------------------


class Stream:
    """One run in one home. What it found so far is `state`, as stream.json holds it."""

    def __init__(self, args: argparse.Namespace, home: Path, out: Path) -> None:
        self.args, self.home, self.out = args, home, out
        self.world = world.World(args.seed)
        self.facts = (args.facts[0], args.facts[1])
        self._laboratory: Laboratory | None = None
        settings = {
            "seed": args.seed, "documents": args.documents, "facts": list(self.facts),
            "model": args.model, "cycle_minutes": args.cycle_minutes,
            "measure_every": args.measure_every,
        }  # fmt: skip
        self.state: Row = {"settings": settings, "rows": [], "measurements": []}
        if self.file.exists():
            self.state = json.loads(self.file.read_text("utf-8"))
            for name in SAME:
                was = self.state["settings"][name]
                if was != settings[name]:
                    raise SystemExit(f"{self.file}: {name} was {was}, not {settings[name]}; "
                                     "give it again or take another --home")  # fmt: skip
            self.state["settings"] |= settings

    @property
    def file(self) -> Path:
        return self.out / "stream.json"

    @property
    def rows(self) -> list[Row]:
        found: list[Row] = self.state["rows"]
        return found

    @property
    def laboratory(self) -> Laboratory:
        """Made at the first use: the learner is to set up its home first."""
        if self._laboratory is None:
            self._laboratory = Laboratory(self.home, self.args.model)
        return self._laboratory

    def run(self) -> None:
        """Cycles until there are as many as asked for."""
        control = self.world.documents(CONTROL_DOCUMENTS, self.facts)
        world.write_texts(control, self.home / "control")
        variables = environment(self.home, self.args.model, self.args.cycle_minutes)
        if (self.home / "learner.db").exists():
            self._catch_up()
        failures = 0
        while len(self.rows) < self.args.cycles:
            start = CONTROL_DOCUMENTS + self.args.documents * len(self.rows)
            fresh = self.world.documents(self.args.documents, self.facts, start)
            world.write_texts(fresh, self.home / "world")
            code = learn_once(variables)
            if self._catch_up():
                failures = 0
                continue
            failures += 1
            if failures == MOST_FAILURES:
                raise SystemExit(f"{self.home}: {failures} runs in a row finished no cycle (exit "
                                 f"code {code}); see the learner's output")  # fmt: skip
        self._measure_if_due(last=True)

    def _catch_up(self) -> int:
        """Take over what the ledger has finished. Returns how many cycles that were."""
        fresh = ledger_rows(self.home, self.rows[-1]["cycle"] if self.rows else 0)
        for row in fresh:
            if row["state"] == "published" and row["kind"] == "learn":
                subject = self.laboratory.subject(row["cycle"])
                row["acquired"] = ask(subject, self.home, row["documents"])
            self.rows.append(row)
            self._save()
            print(json.dumps({**row, "acquired": share(list(row["acquired"].values()))}),
                  flush=True)  # fmt: skip
        self._measure_if_due()
        return len(fresh)

    def _measure_if_due(self, *, last: bool = False) -> None:
        before = self.state["measurements"][-1]["cycles"] if self.state["measurements"] else 0
        due = len(self.rows) // self.args.measure_every > before // self.args.measure_every
        if not checkpoints.current(self.home) or not (due or (last and len(self.rows) > before)):
            return
        found = {"cycles": len(self.rows), **measure(self.laboratory, self.home, self.rows)}
        self.state["measurements"].append(found)
        self._save()
        brief = {**found, "taught": share(list(found["taught"].values()))}
        print(json.dumps(brief), flush=True)
        (self.out / "stream.md").write_text(markdown(self.state), "utf-8")
        plot(self.state, self.out / "stream.png")

    def _save(self) -> None:
        self.state["summary"] = summary(self.state)
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps(self.state, indent=1), "utf-8")
        os.replace(fresh, self.file)


# The summary: pure functions over stream.json ----------------------------------------------------


def retention(pairs: Sequence[tuple[str, int, int]]) -> Row:
    """`pairs` are (document, right when taught, right now) of single probes. `ratio` is exact
    matches now over exact matches when taught, with a 95 % bootstrap interval over documents;
    `still` is the share of what was right that still is."""
    then, now = sum(t for _, t, _ in pairs), sum(n for _, _, n in pairs)
    found: Row = {"n": len(pairs), "taught": then, "now": now, "ratio": None, "low": None,
                  "high": None, "still": share([n for _, t, n in pairs if t])}  # fmt: skip
    if not then:
        return found
    by_document: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for document, right_then, right_now in pairs:
        by_document[document][0] += right_then
        by_document[document][1] += right_now
    sums = np.array(list(by_document.values()), dtype=np.float64)
    drawn = np.random.default_rng(0).integers(len(sums), size=(DRAWS, len(sums)))
    totals = sums[drawn].sum(axis=1)
    ratios = totals[totals[:, 0] > 0]
    low, high = np.quantile(ratios[:, 1] / ratios[:, 0], (0.025, 0.975))
    return {**found, "ratio": now / then, "low": float(low), "high": float(high)}


def kept(rows: Sequence[Row], measured: Mapping[int, Mapping[str, int]]) -> Row:
    """Retention pooled over cycles; `measured` has the later answers for each cycle it counts."""
    return retention(
        [
            (probe.rpartition("-")[0], right, measured[row["cycle"]][probe])
            for row in rows
            for probe, right in row["acquired"].items()
            if probe in measured.get(row["cycle"], {})
        ]
    )


def matrix(state: Row) -> tuple[list[int], list[int], list[list[float | None]]]:
    """Cycles learned, cycles measured after, and exact match by both; None before it was taught."""
    rows = [row for row in state["rows"] if row["acquired"]]
    measurements = state["measurements"]
    cells: list[list[float | None]] = []
    for row in rows:
        line: list[float | None] = []
        for found in measurements:
            right = [found["taught"][p] for p in row["acquired"] if p in found["taught"]]
            line.append(fmean(right) if right else None)
        cells.append(line)
    return [row["cycle"] for row in rows], [found["after"] for found in measurements], cells


def summary(state: Row) -> Row:
    """The figures of a run so far."""
    rows, measurements = state["rows"], state["measurements"]
    tried = [row for row in rows if row["kind"] == "learn" and row["state"] != "interrupted"]
    acquired = [right for row in rows for right in row["acquired"].values()]
    seconds = sum(row["seconds"] for row in rows)
    later: dict[int, Mapping[str, int]] = {}
    for row in rows:
        due = [m for m in measurements if m["after"] >= row["cycle"] + LATER]
        if due:
            later[row["cycle"]] = due[0]["taught"]
    found: Row = {
        "cycles": len(rows),
        "kinds": {kind: sum(row["kind"] == kind for row in rows)
                  for kind in sorted({row["kind"] for row in rows})},
        "accepted": share([int(row["state"] == "published") for row in tried]),
        "acquisition": share(acquired),
        "documents_learned": len({i for row in rows if row["acquired"] for i in row["documents"]}),
        "kept_later": kept(rows, later),
        "seconds": seconds,
        "seconds_per_fact_taught": seconds / len(acquired) if acquired else None,
        "seconds_per_fact_known": seconds / sum(acquired) if sum(acquired) else None,
    }  # fmt: skip
    if measurements:
        last = measurements[-1]
        found["kept_end"] = kept(rows, {row["cycle"]: last["taught"] for row in rows})
        found["known_end"] = share(list(last["taught"].values()))
        found["control_end"] = last["control"]
        found["general_rise"] = last["general"] - last["general_base"]
        found["wikitext_ppl_ratio"] = _ppl_ratio(last)
    return found


def _ppl_ratio(measurement: Row) -> float | None:
    if measurement["wikitext"] is None or measurement["wikitext_base"] is None:
        return None
    return math.exp(measurement["wikitext"] - measurement["wikitext_base"])


# Report ------------------------------------------------------------------------------------------


def markdown(state: Row) -> str:
    """The summary and both tables, as Markdown."""
    s = state["summary"]
    ppl = s.get("wikitext_ppl_ratio")
    lines = [
        f"# A stream of {s['cycles']} cycles",
        "",
        "Settings: " + ", ".join(f"{k} {v}" for k, v in state["settings"].items() if k != "model"),
        "",
        "| Figure | Value |",
        "|---|---|",
        f"| cycles accepted | {_share(s['accepted'])} |",
        f"| exact match when taught | {_share(s['acquisition'])} |",
        f"| exact match at the end, all that was learned | {_share(s.get('known_end'))} |",
        f"| control (never taught) at the end | {_share(s.get('control_end'))} |",
        f"| kept at the end, of what was taught | {_ratio(s.get('kept_end'))} |",
        f"| kept after +{LATER} cycles | {_ratio(s['kept_later'])} |",
        f"| rise in NLL of the base's own text | {_number(s.get('general_rise'), 4)} nat a token |",
        f"| perplexity on WikiText-2, over the base | {_number(ppl, 4)} |",
        f"| seconds a fact taught | {_number(s['seconds_per_fact_taught'], 1)} |",
        f"| seconds a fact right when taught | {_number(s['seconds_per_fact_known'], 1)} |",
        "",
        "| Cycle | Kind | State | Documents | Right when taught | Seconds |",
        "|---:|---|---|---:|---|---:|",
    ]
    for row in state["rows"]:
        right = _share(share(list(row["acquired"].values()))) if row["acquired"] else "–"
        lines.append(
            f"| {row['cycle']} | {row['kind']} | {row['state']} | {len(row['documents'])} "
            f"| {right} | {row['seconds']:.0f} |"
        )
    cycles, after, cells = matrix(state)
    lines += ["", "Exact match (%) by the cycle learned (rows) and measured after (columns):", ""]
    lines.append("| | " + " | ".join(str(n) for n in after) + " |")
    lines.append("|---:|" + "---:|" * len(after))
    for cycle, line in zip(cycles, cells, strict=True):
        shown = ["" if value is None else f"{100 * value:.0f}" for value in line]
        lines.append(f"| {cycle} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def _share(found: Row | None) -> str:
    if not found or not found["n"]:
        return "–"
    low, high = 100 * found["low"], 100 * found["high"]
    return f"{found['k']}/{found['n']} = {100 * found['em']:.1f} % ({low:.1f}–{high:.1f})"


def _ratio(found: Row | None) -> str:
    if not found or found["ratio"] is None:
        return "–"
    ratio, low, high = (100 * found[key] for key in ("ratio", "low", "high"))
    still = _share(found["still"])
    return f"{found['now']}/{found['taught']} = {ratio:.1f} % ({low:.1f}–{high:.1f}); still {still}"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def plot(state: Row, path: Path) -> None:
    """Recall, general drift and the retention matrix, as one picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    blue, orange, grey, green = "#0072B2", "#E69F00", "#444444", "#009E73"
    figure, (recalled, drift, heat) = pyplot.subplots(1, 3, figsize=(16, 4.8), layout="constrained")
    measurements = state["measurements"]
    after = [m["after"] for m in measurements]
    rows = [row for row in state["rows"] if row["acquired"]]

    taught = [100 * fmean(row["acquired"].values()) for row in rows]
    known = [share(list(m["taught"].values())) for m in measurements]
    recalled.plot([row["cycle"] for row in rows], taught, "o", color=blue, label="when taught")
    values = [100 * (k["em"] or 0) for k in known]
    spread = [[100 * ((k["em"] or 0) - (k["low"] or 0)) for k in known],
              [100 * ((k["high"] or 0) - (k["em"] or 0)) for k in known]]  # fmt: skip
    recalled.errorbar(after, values, yerr=spread, color=orange, marker="s", capsize=3,
                      label="everything learned so far")  # fmt: skip
    control = [100 * (m["control"]["em"] or 0) for m in measurements]
    recalled.plot(after, control, "x--", color=grey, label="control (never taught)")
    recalled.set(xlabel="cycle", ylabel="exact match, closed book (%)", ylim=(-2, 102))
    recalled.legend()

    own = [100 * math.expm1(m["general"] - m["general_base"]) for m in measurements]
    drift.plot(after, own, "o-", color=blue, label="the base's own held-out text")
    public = [(m["after"], r) for m in measurements if (r := _ppl_ratio(m)) is not None]
    if public:
        drift.plot([n for n, _ in public], [100 * (r - 1) for _, r in public], "s--", color=green,
                   label="WikiText-2, validation")  # fmt: skip
    drift.axhline(0, color=grey, linewidth=0.8)
    drift.set(xlabel="cycle", ylabel="rise in perplexity over the base (%)")
    drift.legend()

    _heat_map(figure, heat, *matrix(state))
    for axes, title in ((recalled, "Recall"), (drift, "Drift"), (heat, "Retention matrix")):
        axes.set_title(title)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _heat_map(
    figure: Any, axes: Any, cycles: list[int], after: list[int], cells: list[list[float | None]]
) -> None:
    shown = np.array([[np.nan if c is None else 100 * c for c in line] for line in cells])
    if not shown.size:
        return
    image = axes.imshow(shown, cmap="cividis", vmin=0, vmax=100, aspect="auto", origin="lower",
                        interpolation="nearest")  # fmt: skip
    axes.set_xticks(range(len(after)), [str(n) for n in after])
    step = max(1, len(cycles) // 15)
    axes.set_yticks(range(0, len(cycles), step), [str(n) for n in cycles[::step]])
    axes.set(xlabel="measured after cycle", ylabel="learned in cycle")
    figure.colorbar(image, ax=axes, label="exact match (%)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--cycle-minutes", type=float, default=0.9)
    parser.add_argument("--documents", type=int, default=6, help="fresh documents a cycle")
    parser.add_argument("--facts", type=int, nargs=2, default=(1, 2), metavar=("LEAST", "MOST"))
    parser.add_argument("--measure-every", type=int, default=5)
    parser.add_argument("--anchors-minutes", type=float, default=3.0, help="before the first cycle")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--home", type=Path, help="the learner's home; given again, it goes on")
    parser.add_argument("--out", type=Path, help="where stream.json goes; default HOME/stream")
    args = parser.parse_args()
    home = (args.home or Path(tempfile.mkdtemp(prefix="autodidact-stream-"))).resolve()
    out = (args.out or home / "stream").resolve()
    out.mkdir(parents=True, exist_ok=True)
    sample_anchors(home, args.model, args.anchors_minutes)
    stream = Stream(args, home, out)
    print(json.dumps({"home": str(home), "out": str(out)}), flush=True)
    stream.run()
    print(json.dumps(stream.state["summary"]), flush=True)


if __name__ == "__main__":
    main()
