"""Twenty invented documents, one cycle: what of them answers from the weights, closed book.

    python benchmarks/learning/world_recall.py                       20 documents, 5 minutes
    python benchmarks/learning/world_recall.py --curve --out DIR     exact match against exposures

Writes a world of taught documents and as many control documents (never taught) into a fresh home,
runs `web_learner.py --once`, and asks base and published version every question through the engine
that serves, greedily and without any passage: the probes that were frozen ("seen": wordings trained
for other facts only), the learner's own held-out wording where it has one ("unseen"), and the
world's questions ("never": wordings that no rule writes). Prints one JSON line a measurement: exact
match k/n with its interval (Wilson 1927), NLL a token of the true answer, and taught minus control
with the interval of Newcombe (1998, method 10). Facts are invented, so that control is chance.

`--curve` does it anew for cycles of 1, 2.5, 5 and 10 minutes, all documents in each: the limits on
exposures are lifted. A rejected cycle leaves no version: of it only what the gate measured is told.
Limits: the intervals take questions for independent, and those on one document are not quite;
one seed is one draw of documents and of training.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

from autodidact import checkpoints  # noqa: E402
from autodidact.engine import Engine  # noqa: E402
from autodidact.engine.examinee import Examinee  # noqa: E402
from autodidact.evaluation import recall  # noqa: E402
from autodidact.evaluation.statistics import wilson  # noqa: E402
from autodidact.models import bases, loading  # noqa: E402
from autodidact.store.cycles import StoredCycle  # noqa: E402
from autodidact.store.ledger import LearnerStore  # noqa: E402
from autodidact.store.probes import StoredResult  # noqa: E402
from autodidact.types.cycle import ProbeResult, lines  # noqa: E402
from autodidact.types.documents import Probe  # noqa: E402
from autodidact.types.report import CycleReport  # noqa: E402
from benchmarks.learning import world  # noqa: E402

CURVE_MINUTES = (1.0, 2.5, 5.0, 10.0)
MODEL = str(PROJECT / "models" / "starter")
Row = dict[str, Any]

# Running the learner -----------------------------------------------------------------------------


def environment(home: Path, model_name: str, cycle_minutes: float, **settings: str) -> Row:
    """The environment of a learner that reads home/world and measures chance on home/control.

    `settings` are further settings by their name in the environment, without the prefix.
    """
    return {
        **os.environ,
        "AUTODIDACT_HOME": str(home),
        "AUTODIDACT_MODEL": model_name,
        "AUTODIDACT_CYCLE_MINUTES": str(cycle_minutes),
        "AUTODIDACT_SOURCES__FILES": json.dumps([str(home / "world")]),
        "AUTODIDACT_SOURCES__CONTROL": str(home / "control"),
        "AUTODIDACT_SOURCES__WIKIPEDIA__ENABLED": "false",
        "AUTODIDACT_KEEP_VERSIONS": "1000",
        **{f"AUTODIDACT_{name}": value for name, value in settings.items()},
    }


def learn_once(variables: Row) -> int:
    """One cycle of the real learner; its output goes to standard error. Returns the exit code."""
    command = [sys.executable, str(PROJECT / "web_learner.py"), "--once", "--plain"]
    return subprocess.run(
        command, env=variables, cwd=PROJECT, stdout=sys.stderr, check=False
    ).returncode


# Asking ------------------------------------------------------------------------------------------


class Laboratory:
    """The engine that serves, with the base in memory; versions of a home are loaded from disk."""

    def __init__(self, home: Path, model_name: str) -> None:
        self._home = home
        self._found = bases.resolve(model_name, "", home, lambda line: None)
        self.engine = Engine(loading.load(self._found.path, 2))

    def subject(self, version: int) -> Examinee:
        """A published version; 0 is the untouched base. Raises CheckpointError if damaged."""
        if version == checkpoints.BASE_VERSION:
            return Examinee(self.engine, self.engine.untouched)
        files = checkpoints.verify(self._home, version, self._found.sha256)
        return Examinee(self.engine, self.engine.load(version, files.config, files.weights))


def frozen(home: Path, document_ids: Iterable[int]) -> list[Probe]:
    """The probes that were frozen on these documents, whatever their split."""
    ids = sorted(document_ids)
    store = LearnerStore(home / "learner.db", readonly=True)
    try:
        return store.probes.of(ids) if ids else []
    finally:
        store.close()


def wording(probe: Probe) -> str:
    """ "unseen" for the learner's held-out wordings, "seen" for its other probes."""
    return "unseen" if probe.split == "unseen" or probe.id.endswith("u") else "seen"


def answers(subject: Examinee, probes: Sequence[Probe]) -> list[ProbeResult]:
    """Greedy reply and likelihood of the true answer. Margins are not reported here, and scoring
    one distractor in place of six saves most of the time."""
    return recall.measure(subject, [replace(p, distractors=p.distractors[:1]) for p in probes])


def last_cycle(home: Path) -> StoredCycle:
    """The ledger's row of the newest cycle. Raises SystemExit with one line if there is none."""
    store = LearnerStore(home / "learner.db", readonly=True)
    try:
        found = store.cycles.latest(1)
        if not found:
            raise SystemExit(f"{home}: the learner began no cycle; see its output above")
        return found[0]
    finally:
        store.close()


# Numbers -----------------------------------------------------------------------------------------


def share(right: Sequence[int]) -> Row:
    """k, n, exact match and its 95 % interval."""
    k, n = sum(right), len(right)
    if not n:
        return {"k": 0, "n": 0, "em": None, "low": None, "high": None}
    low, high = wilson(k, n)
    return {"k": k, "n": n, "em": k / n, "low": low, "high": high}


def newcombe(k1: int, n1: int, k2: int, n2: int) -> tuple[float, float, float]:
    """k1/n1 − k2/n2 with its 95 % interval out of both Wilson intervals (Newcombe 1998, method 10).

    Raises ValueError where one of the two has no questions.
    """
    if not n1 or not n2:
        raise ValueError("a difference of shares needs questions on both sides")
    p1, p2 = k1 / n1, k2 / n2
    (low1, high1), (low2, high2) = wilson(k1, n1), wilson(k2, n2)
    value = p1 - p2
    low, high = math.hypot(p1 - low1, high2 - p2), math.hypot(high1 - p1, p2 - low2)
    return value, value - low, value + high


def rows_of(
    asked: Sequence[tuple[str, str, Probe]], arms: dict[str, Sequence[ProbeResult]]
) -> Iterator[Row]:
    """One row for each arm, wording and set of documents, and one for each difference.

    `asked` is (set, wording, probe): the set is taught or control. Each arm has a result for each.
    """
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, (documents, worded, _) in enumerate(asked):
        groups[worded, documents].append(place)
    for arm, results in arms.items():
        shares: dict[tuple[str, str], Row] = {}
        for (worded, documents), places in sorted(groups.items()):
            some = [results[i] for i in places]
            shares[worded, documents] = share([r.correct for r in some])
            yield {
                "arm": arm, "wording": worded, "documents": documents,
                **shares[worded, documents], "nll": -fmean(r.logprob for r in some),
            }  # fmt: skip
        for worded in sorted({worded for worded, _ in groups}):
            taught, control = shares.get((worded, "taught")), shares.get((worded, "control"))
            if taught and control:
                value, low, high = newcombe(taught["k"], taught["n"], control["k"], control["n"])
                yield {
                    "arm": arm, "wording": worded, "documents": "taught - control",
                    "difference": value, "low": low, "high": high,
                }  # fmt: skip


# One measurement ---------------------------------------------------------------------------------


def prepare(home: Path, seed: int, documents: int) -> dict[str, world.WorldDocument]:
    """Write the world of a fresh home: that many taught and control documents, by title."""
    made = world.World(seed).documents(2 * documents)
    world.write_texts(made[:documents], home / "world")
    world.write_texts(made[documents:], home / "control")
    return {document.title: document for document in made}


def questions(
    home: Path, documents: dict[str, world.WorldDocument]
) -> list[tuple[str, str, Probe]]:
    """(taught or control, wording, probe): what was frozen, and the world's own questions on the
    same facts. Documents that were offered and not learned are left out."""
    store = LearnerStore(home / "learner.db", readonly=True)
    learned = {stored.id: stored.document.title for stored in store.documents.in_state("learned")}
    store.close()
    control = {
        -number: path.stem
        for number, path in enumerate(sorted((home / "control").glob("*.txt")), start=1)
    }
    asked: list[tuple[str, str, Probe]] = []
    sides: tuple[tuple[Literal["taught", "control"], dict[int, str], dict[int, str]], ...] = (
        ("taught", learned, control),
        ("control", control, learned),
    )
    for name, ids, lenders in sides:
        asked += [(name, wording(probe), probe) for probe in frozen(home, ids)]
        worlds = [(number, documents[title]) for number, title in ids.items()]
        others = [(number, documents[title]) for number, title in lenders.items()]
        made = world.probes(worlds, name, others)
        asked += [(name, worded, probe) for worded, probe in made if worded == "never"]
    return asked


def measured(home: Path, model_name: str, documents: dict[str, world.WorldDocument]) -> list[Row]:
    """Base and the version that serves now, on every question."""
    laboratory = Laboratory(home, model_name)
    asked = questions(home, documents)
    probes = [probe for _, _, probe in asked]
    arms: dict[str, Sequence[ProbeResult]] = {}
    for arm, version in (("base", 0), ("learned", checkpoints.current(home))):
        arms[arm] = answers(laboratory.subject(version), probes)
    return list(rows_of(asked, arms))


def of_ledger(home: Path, cycle: int) -> list[Row]:
    """What the gate measured: all that is left of a cycle that was rejected."""
    store = LearnerStore(home / "learner.db", readonly=True)
    results = store.probes.results(cycle)
    store.close()
    grouped: dict[tuple[str, str], list[StoredResult]] = defaultdict(list)
    for result in results:
        grouped[result.arm, result.split].append(result)
    return [
        {
            "arm": arm, "wording": "unseen" if split == "unseen" else "seen",
            "documents": "taught" if split == "unseen" else split,
            **share([r.correct for r in some]), "nll": -fmean(r.logprob for r in some),
            "of": "ledger",
        }
        for (arm, split), some in sorted(grouped.items())
    ]  # fmt: skip


def run(args: argparse.Namespace, minutes: float, home: Path) -> Iterator[Row]:
    """All cycles of one home; a row for each measurement."""
    home.mkdir(parents=True, exist_ok=True)
    documents = prepare(home, args.seed, args.documents)
    lifted = {"TRAINING__MIN_EXPOSURES": "1", "TRAINING__MAX_EXPOSURES": "1000000"}
    variables = environment(
        home,
        args.model,
        minutes,
        TRAINING__DOCUMENTS_PER_CYCLE=str(args.documents),
        **(lifted if args.curve else {}),
    )
    for _ in range(args.cycles):
        code = learn_once(variables)
        cycle = last_cycle(home)
        report = cycle.report or CycleReport(cycle.n, cycle.state, 0)
        about = {
            "cycle_minutes": minutes, "cycle": cycle.n, "state": cycle.state,
            "exposures": report.exposures, "steps": report.steps,
            "documents_learned": len(cycle.documents) * (cycle.state == "published"),
            "seconds": report.seconds, "reasons": list(lines(cycle.reasons)),
            "exit_code": code,
        }  # fmt: skip
        serves = checkpoints.current(home)
        rows = measured(home, args.model, documents) if serves else of_ledger(home, cycle.n)
        yield {**about, "rows": rows}


# Figures -----------------------------------------------------------------------------------------


def plot(measurements: Sequence[Row], path: Path) -> None:
    """Exact match against exposures, as PNG and SVG beside `path` (its suffix is replaced)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    styles = {
        ("seen", "taught"): ("#0072B2", "o", "taught, wording seen for other facts"),
        ("never", "taught"): ("#E69F00", "s", "taught, wording never seen"),
        ("seen", "control"): ("#444444", "x", "control (never taught)"),
    }  # Okabe and Ito (2008): told apart by every kind of colour vision
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for (worded, documents), (colour, marker, label) in styles.items():
        points = [
            (m["exposures"], row)
            for m in measurements
            for row in m["rows"]
            if (row["arm"], row["wording"], row["documents"])
            in (("learned", worded, documents), ("candidate", worded, documents))
            and row.get("em") is not None and m["exposures"]
        ]  # fmt: skip
        if not points:
            continue
        points.sort(key=lambda point: point[0])
        em = [100 * row["em"] for _, row in points]
        below = [100 * (row["em"] - row["low"]) for _, row in points]
        above = [100 * (row["high"] - row["em"]) for _, row in points]
        axes.errorbar(
            [x for x, _ in points], em, yerr=[below, above], color=colour, marker=marker,
            capsize=3, label=label,
        )  # fmt: skip
    axes.set(xlabel="exposures of each fact", ylabel="exact match, closed book (%)", ylim=(-2, 102))
    axes.set_title("What one cycle leaves in the weights (95 % intervals)")
    axes.grid(alpha=0.3)
    axes.legend()
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=150)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--documents", type=int, default=20, help="taught, and as many control")
    parser.add_argument("--cycles", type=int, default=1)
    parser.add_argument("--cycle-minutes", type=float, default=5.0)
    parser.add_argument("--curve", action="store_true", help="cycles of 1, 2.5, 5 and 10 minutes")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--out", type=Path, help="folder for recall.json and the plot")
    args = parser.parse_args()
    out = args.out or Path(tempfile.mkdtemp(prefix="autodidact-world-"))
    out.mkdir(parents=True, exist_ok=True)
    measurements: list[Row] = []
    for minutes in CURVE_MINUTES if args.curve else (args.cycle_minutes,):
        home = Path(tempfile.mkdtemp(prefix=f"home-{minutes:g}-", dir=out)).resolve()
        for found in run(args, minutes, home):
            about = {key: found[key] for key in ("cycle_minutes", "cycle", "state", "exposures")}
            for row in found["rows"]:
                print(json.dumps({**about, **row}), flush=True)
            measurements.append(found)
            settings = {"seed": args.seed, "documents": args.documents, "model": args.model}
            whole = {"settings": settings, "measurements": measurements}
            (out / "recall.json").write_text(json.dumps(whole, indent=1), "utf-8")
    if args.curve:
        plot(measurements, out / "recall.png")
    print(json.dumps({"out": str(out), "measurements": len(measurements)}), flush=True)


if __name__ == "__main__":
    main()
