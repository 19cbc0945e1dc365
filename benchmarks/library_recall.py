"""What is left of `library/` in the model's head, and what it cost: closed book, no retrieval.

    python benchmarks/library_recall.py --cycles 2                     the default settings
    python benchmarks/library_recall.py --cycles 10 --documents 4 --cycle-minutes 2
    python benchmarks/library_recall.py --cycles 5 --model auto --at-the-end --no-chat

Runs `web_learner.py --once` that many times in one home folder (it can be continued: --home), and
after each cycle asks the newest version, through the engine that serves, every probe that was
frozen: on documents taught so far (also with the passages that the chat would find) and on control
documents that never are. Prints a row a cycle: right answers, taught and control, with 95 % Wilson
intervals, NLL a token of the base's own held-out text and (with SHARED_DATA_DIR) of WikiText-2's
validation text. With `--at-the-end` it measures less, and once: every taught probe by the version
that was the first to know it and by the newest, what is kept of those that were right, wordings
never seen, control documents, both texts. At the end it starts the server and asks every probe over
POST /chat at the default sampling with 5 seeds, and once more greedily in conversations of four
questions, by turn.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import requests

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from autodidact import checkpoints  # noqa: E402
from autodidact.chat import retrieval  # noqa: E402
from autodidact.engine import Engine  # noqa: E402
from autodidact.engine.examinee import Examinee  # noqa: E402
from autodidact.evaluation import recall  # noqa: E402
from autodidact.models import bases, loading  # noqa: E402
from autodidact.reading.answers import says  # noqa: E402
from autodidact.settings import RetrievalSettings, TrainingSettings  # noqa: E402
from autodidact.store.ledger import LearnerStore  # noqa: E402
from autodidact.training import anchors  # noqa: E402
from autodidact.training.recipe import recipe_of  # noqa: E402
from autodidact.types.chat import Message  # noqa: E402
from autodidact.types.documents import Probe  # noqa: E402

SEEDS = range(1, 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=2)
    parser.add_argument("--cycle-minutes", type=float, default=5)
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--model", default=str(PROJECT / "models" / "starter"))
    parser.add_argument("--port", type=int, default=8124)
    parser.add_argument("--kl-weight", type=float)
    parser.add_argument("--at-the-end", action="store_true", help="measure once, see above")
    parser.add_argument("--no-chat", action="store_true", help="skip the part over POST /chat")
    args = parser.parse_args()
    home = args.home or Path(tempfile.mkdtemp(prefix="autodidact-recall-"))
    environment = {
        **os.environ,
        "AUTODIDACT_HOME": str(home),
        "AUTODIDACT_MODEL": args.model,
        "AUTODIDACT_CYCLE_MINUTES": str(args.cycle_minutes),
        "AUTODIDACT_TRAINING__DOCUMENTS_PER_CYCLE": str(args.documents),
        "AUTODIDACT_SOURCES__WIKIPEDIA__ENABLED": "false",
        "AUTODIDACT_SERVER__PORT": str(args.port),
        "AUTODIDACT_KEEP_VERSIONS": "1000",
    }
    if args.kl_weight is not None:
        environment["AUTODIDACT_TRAINING__KL_WEIGHT"] = str(args.kl_weight)
    print(f"home {home}", flush=True)
    rows = []
    for _ in range(args.cycles):
        begun = time.monotonic()
        subprocess.run(
            [sys.executable, str(PROJECT / "web_learner.py"), "--once", "--plain"],
            env=environment, check=True, cwd=PROJECT,
        )  # fmt: skip
        seconds = round(time.monotonic() - begun)
        if args.at_the_end:
            print(json.dumps({"cycle_s": seconds}), flush=True)
            continue
        rows.append({**measure(home, args.model), "cycle_s": seconds})
        print(json.dumps(rows[-1]), flush=True)
    if args.at_the_end:
        print(json.dumps(kept(home, args.model)), flush=True)
    if not args.no_chat:
        rows.append(chat(home, environment, args.port))
        print(json.dumps(rows[-1], indent=1), flush=True)


def probes(home: Path) -> list[Probe]:
    """Every frozen probe: taught if its document is learned by now, else control."""
    store = LearnerStore(home / "learner.db", readonly=True)
    learned = [stored.id for stored in store.documents.in_state("learned")]
    taught = [p for p in store.probes.of(learned) if p.split == "taught"]
    control = [replace(p, split="control") for p in store.probes.of(range(-100, 0))]
    store.close()
    return taught + control


def measure(home: Path, model_name: str) -> dict[str, Any]:
    found = bases.resolve(model_name, "", home, lambda line: None)
    engine = Engine(loading.load(found.path, 2))
    recipe = recipe_of(engine.base, TrainingSettings(), autocast=False)
    number = checkpoints.current(home)
    version = engine.untouched
    if number:
        files = checkpoints.verify(home, number, found.sha256)
        version = engine.load(number, files.config, files.weights)
    asked = probes(home)
    row: dict[str, Any] = {"version": number}
    for name, subject in (("base", engine.untouched), ("now", version)):
        examinee = Examinee(engine, subject)
        results = recall.measure(examinee, asked, sentences=recipe.sentences)
        for split in ("taught", "control"):
            right = [r.correct for r, p in zip(results, asked, strict=True) if p.split == split]
            row[f"{split}_{name}"] = share(right)
        row[f"taught_{name}_with_passages"] = with_passages(home, examinee, asked)
        row[f"general_{name}"] = general(home, examinee)
        row[f"wikitext_{name}"] = wikitext(engine, examinee)
    by_kind: dict[str, list[int]] = defaultdict(list)
    for result, probe in zip(results, asked, strict=True):
        if probe.split == "taught":
            by_kind[probe.kind].append(result.correct)
    row["by_kind"] = {kind: share(right) for kind, right in sorted(by_kind.items())}
    return row


def kept(home: Path, model_name: str) -> dict[str, Any]:
    """What the newest version still knows of what was right when it was taught."""
    found = bases.resolve(model_name, "", home, lambda line: None)
    engine = Engine(loading.load(found.path, 2))
    sentences = recipe_of(engine.base, TrainingSettings(), autocast=False).sentences

    def right(number: int, asked: Sequence[Probe]) -> dict[str, int]:
        files = checkpoints.verify(home, number, found.sha256)
        subject = Examinee(engine, engine.load(number, files.config, files.weights))
        results = recall.measure(subject, asked, sentences=sentences)
        return {result.probe_id: result.correct for result in results}

    store = LearnerStore(home / "learner.db", readonly=True)
    learned = store.documents.in_state("learned")
    every = store.probes.of([document.id for document in learned])
    versions = {
        checkpoints.read(home, number).manifest["cycle"]: number
        for number in checkpoints.versions(home)
    }
    then: dict[str, int] = {}
    for number in sorted({document.cycle for document in learned}):
        mine = {document.id for document in learned if document.cycle == number}
        taught = [p for p in every if p.split == "taught" and p.document_id in mine]
        then |= right(versions[number], taught)
    store.close()
    newest = checkpoints.current(home)
    now = right(newest, [*every, *(p for p in probes(home) if p.split == "control")])
    subject = Examinee(engine, engine.untouched)
    base = {"general": general(home, subject), "wikitext": wikitext(engine, subject)}
    files = checkpoints.verify(home, newest, found.sha256)
    subject = Examinee(engine, engine.load(newest, files.config, files.weights))
    after = {"general": general(home, subject), "wikitext": wikitext(engine, subject)}
    splits = {split: [i for i in now if split == _split(i, every)] for split in _SPLITS}
    return {
        "documents": len(learned),
        "when taught": share([then[i] for i in then]),
        **{split: share([now[i] for i in ids]) for split, ids in splits.items()},
        "kept of what was right": share([now[i] for i, known in then.items() if known]),
        "base": base,
        "now": after,
        "rise_pct": {name: _pct(base[name], after[name]) for name in base},
    }


_SPLITS = ("taught", "unseen", "control")


def _split(probe_id: str, learned: Sequence[Probe]) -> str:
    return next((p.split for p in learned if p.id == probe_id), "control")


def _pct(before: float | None, after: float | None) -> float | None:
    return round(100 * (after / before - 1), 2) if before and after else None


def with_passages(home: Path, examinee: Examinee, asked: Sequence[Probe]) -> str:
    """Right answers to the taught probes with the passages that the chat would look up."""
    library = retrieval.Library(home / "passages.db", RetrievalSettings())
    taught = [probe for probe in asked if probe.split == "taught"]
    prompts = [retrieval.prompt(p.question, library.find(p.question)) for p in taught]
    replies = examinee.complete([[Message("user", text)] for text in prompts], 40)
    return share([_right(r, p) for r, p in zip(replies, taught, strict=True)])


def general(home: Path, examinee: Examinee) -> float:
    held_out = anchors.read(json.loads((home / "anchors.json").read_text("utf-8"))).blocks
    nll = examinee.nll(held_out)
    weights = [len(block) - 1 for block in held_out]
    return round(sum(n * w for n, w in zip(nll, weights, strict=True)) / sum(weights), 4)


def wikitext(engine: Engine, examinee: Examinee) -> float | None:
    shared = os.environ.get("SHARED_DATA_DIR")
    if not shared:
        return None
    text = (Path(shared) / "data" / "wikitext2" / "valid.txt").read_text("utf-8")[:80_000]
    ids = engine.base.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    return round(fmean(examinee.nll([ids[i : i + 256] for i in range(0, 48 * 256, 256)])), 4)


def chat(home: Path, environment: dict[str, str], port: int) -> dict[str, Any]:
    """Exact match over POST /chat at the default sampling, by seed."""
    server = subprocess.Popen([sys.executable, str(PROJECT / "server.py")], env=environment)
    address = f"http://127.0.0.1:{port}"
    asked = probes(home)
    row: dict[str, Any] = {"over": "POST /chat, default sampling"}
    try:
        wait(address)
        for seed in SEEDS:
            right: dict[str, list[int]] = {"taught": [], "control": []}
            for probe in asked:
                body = {"message": probe.question, "seed": seed}
                reply = requests.post(address + "/chat", json=body, timeout=120)
                reply.raise_for_status()
                right[probe.split].append(_right(reply.json()["reply"], probe))
            row[f"seed {seed}"] = {split: share(rights) for split, rights in right.items()}
        row["greedy, by turn"] = by_turn(address, [p for p in asked if p.split == "taught"])
    finally:
        server.terminate()
        server.wait(30)
    return row


def by_turn(address: str, asked: Sequence[Probe]) -> dict[int, str]:
    """Right greedy replies by their place in a conversation of four questions."""
    order = sorted(asked, key=lambda p: p.id.rpartition("-")[2])
    right: dict[int, list[int]] = defaultdict(list)
    for i in range(0, len(order), 4):
        talk: dict[str, Any] = {}
        for turn, probe in enumerate(order[i : i + 4], start=1):
            body = {"message": probe.question, "temperature": 0, **talk}
            reply = requests.post(address + "/chat", json=body, timeout=120).json()
            talk = {"conversation_id": reply["conversation_id"]}
            right[turn].append(_right(reply["reply"], probe))
    return {turn: share(rights) for turn, rights in right.items()}


def _right(reply: str, probe: Probe) -> int:
    """Whether a reply is the answer, or says it in a short sentence."""
    return int(says(reply, probe.question, probe.answer, probe.distractors))


def wait(address: str) -> None:
    for _ in range(240):
        try:
            if requests.get(address + "/health", timeout=5).json()["status"] == "ok":
                return
        except (requests.RequestException, KeyError):
            pass
        time.sleep(0.5)
    raise SystemExit("the server did not come up")


def share(right: Sequence[float], z: float = 1.96) -> str:
    """k/n and the 95 % interval of Wilson (1927)."""
    n, k = len(right), sum(right)
    if not n:
        return "0/0"
    centre = (k + z * z / 2) / (n + z * z)
    half = z * math.sqrt(k * (n - k) / n + z * z / 4) / (n + z * z)
    return f"{k}/{n} = {k / n:.1%} ({centre - half:.1%}–{centre + half:.1%})"


if __name__ == "__main__":
    main()
