"""What the chat lost by learning: a hundred sealed prompts, answered by the base and by the newest
version of a home.

    python benchmarks/mind.py --home continuous_learner
    python benchmarks/mind.py --home DIR --model FILE.gguf

Greedy, closed book, each prompt a chat of its own, at most 64 new tokens, through the engine that
serves. Prints how many replies are the same, changed but no worse, and worse, by group, with 95 %
Wilson intervals, then each worse one with both replies; `autodidact/evaluation/mind.py` says what
is worse. The prompts (`sealed_prompts.jsonl`) serve for nothing else: no training, no gate.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from autodidact import checkpoints  # noqa: E402
from autodidact.engine import Engine, Version  # noqa: E402
from autodidact.engine.examinee import Examinee  # noqa: E402
from autodidact.errors import AutodidactError  # noqa: E402
from autodidact.evaluation import mind, well_formed  # noqa: E402
from autodidact.evaluation.statistics import wilson  # noqa: E402
from autodidact.evaluation.well_formed import ChatResult  # noqa: E402
from autodidact.models import bases, loading  # noqa: E402
from autodidact.models.prompts import prompt_ids  # noqa: E402
from autodidact.store.ledger import LearnerStore  # noqa: E402
from autodidact.training.anchor_set import AnchorPrompt, prompts  # noqa: E402
from autodidact.types.chat import Message  # noqa: E402

SEALED = PROJECT / "benchmarks" / "sealed_prompts.jsonl"
TAUGHT_STATES = ("learned", "superseded", "forgetting")


@dataclass(frozen=True)
class Compared:
    """A prompt with both replies; `worse` says why the new one is, "" if it is not."""

    asked: AnchorPrompt
    base: ChatResult
    new: ChatResult
    worse: str


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--model", default=str(PROJECT / "models" / "starter"))
    args = parser.parse_args()
    try:
        print(run(args.home, args.model))
    except AutodidactError as error:
        raise SystemExit(f"mind: {error}") from error


def run(home: Path, model: str) -> str:
    number = checkpoints.current(home)
    if not number:
        raise SystemExit(f"mind: {home} has no version yet; let it learn first")
    found = bases.resolve(model, "", home, lambda line: None)
    engine = Engine(loading.load(found.path, 2))
    files = checkpoints.verify(home, number, found.sha256)
    version = engine.load(number, files.config, files.weights)
    rows = compare(engine, version, prompts(SEALED), mind.telling(taught(home)))
    return f"version {number} of {home}\n{summary(rows)}"


def taught(home: Path) -> list[str]:
    """The answers of all probes on documents that a version learned."""
    store = LearnerStore(home / "learner.db", readonly=True)
    try:
        learned = [each.id for state in TAUGHT_STATES for each in store.documents.in_state(state)]
        return [probe.answer for probe in store.probes.of(learned)]
    finally:
        store.close()


def compare(
    engine: Engine, version: Version, asked: Sequence[AnchorPrompt], taught: Collection[str]
) -> list[Compared]:
    ids = [prompt_ids(engine.base, [Message("user", row.prompt)]) for row in asked]
    base, new = (
        well_formed.measure(Examinee(engine, arm), ids) for arm in (engine.untouched, version)
    )
    return [
        Compared(
            row, b, n, mind.worsening(row.prompt, row.expect, row.group, b.reply, n.reply, taught)
        )
        for row, b, n in zip(asked, base, new, strict=True)
    ]


def summary(rows: Sequence[Compared]) -> str:
    """The counts, then every reply that is worse."""
    lines = ["", f"{'':12}{'same':>6}{'changed':>9}{'worse':>7}   worse, 95 %"]
    for group in (*dict.fromkeys(row.asked.group for row in rows), "all"):
        mine = [row for row in rows if group in (row.asked.group, "all")]
        worse = sum(bool(row.worse) for row in mine)
        same = sum(row.base.reply == row.new.reply for row in mine)
        changed = len(mine) - same - worse
        low, high = wilson(worse, len(mine))
        lines.append(
            f"{group:12}{same:6}{changed:9}{worse:7}   {low:.1%} to {high:.1%} of {len(mine)}"
        )
    for rule in ("answer", "form", "leak", "short"):
        lines.append(f"worse by {rule}: {sum(rule in rules(row) for row in rows)}")
    for row in rows:
        if row.worse:
            lines += ["", f"{row.asked.id}: {row.asked.prompt}", f"  {row.worse}"]
            lines += [f"  base: {row.base.reply!r}", f"  now:  {row.new.reply!r}"]
    return "\n".join(lines)


def rules(row: Compared) -> set[str]:
    return {reason.partition(":")[0] for reason in row.worse.split("; ")}


if __name__ == "__main__":
    main()
