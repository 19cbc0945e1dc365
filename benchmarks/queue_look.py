"""How long does an idle look at the queue take, with 10, 1,000 and 25,000 documents in it?

An idle look is what the learner does every minute when nothing is due: what the next cycle would do
(`Agenda.kind`) and the count that the page shows. Documents are of the length of Wikipedia's
(12,000 characters at most); the ledger is a file on disk. Prints the median and the range of
`--rounds` looks in microseconds, each kind of ledger in turn.

    python benchmarks/queue_look.py --rounds 200
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from autodidact.learning.agenda import Agenda
from autodidact.models.bases import Base
from autodidact.settings import load
from autodidact.store.ledger import LearnerStore

SIZES = (10, 1_000, 25_000)


def filled(home: Path, documents: int) -> LearnerStore:
    """A ledger with so many documents that wait, read already."""
    home.mkdir()
    store = LearnerStore(home / "learner.db")
    db = store._db.read().conn
    text = "The mill was built in 1803. " * 200
    db.execute("BEGIN")
    db.executemany(
        "INSERT INTO documents (source, uri, title, text, digest, state, tries, rules) "
        "VALUES ('wikipedia', ?, 'A title', ?, ?, 'queued', 0, 1)",
        [(str(n), text, str(n)) for n in range(documents)],
    )
    db.execute("COMMIT")
    return store


def look(agenda: Agenda) -> float:
    """Seconds of one look."""
    begun = time.perf_counter()
    assert agenda.kind() == "learn"
    agenda.store.documents.count("queued")
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        agendas = {
            size: Agenda(
                load(home=root / str(size)),
                filled(root / str(size), size),
                Base("none", root, "folder", "", "", ""),
            )
            for size in SIZES
        }
        times: dict[int, list[float]] = {size: [] for size in SIZES}
        for _ in range(rounds):
            for size, agenda in agendas.items():
                times[size].append(look(agenda) * 1e6)
    print(f"idle look, µs, median (range) of {rounds} each, in turn")
    for size, found in times.items():
        middle = statistics.median(found)
        print(f"{size:>7,} queued: {middle:7.0f} ({min(found):.0f}–{max(found):.0f})")


if __name__ == "__main__":
    main()
