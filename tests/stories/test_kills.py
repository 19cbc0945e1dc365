"""Killed before every write, and started again: each document is taught once, what is to be
forgotten is forgotten once.

A small process without torch learns (or forgets) in a fresh home and dies before its first, second,
… write to the ledger, to staging, to a version, the pointer, the passages or the inbox; then it is
killed twice at random. Each time it is started again until all is done.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autodidact.settings import PROJECT
from tests.workplace import child_environment

DRIVER = """
import json, os, pathlib, random, shutil, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from autodidact import checkpoints, inbox
from autodidact.checkpoints import pins, publication, retention
from autodidact.learning import cycle
from autodidact.reports.prose import line
from autodidact.store.connection import Connections
from autodidact.store.cycles import CycleTable
from autodidact.store.documents import DocumentTable
from autodidact.store.ledger import LearnerStore
from autodidact.store.material import MaterialTable
from autodidact.store.passages import PassageIndex
from autodidact.store.probes import ProbeTable
from tests import fake_study
from tests.bench import Bench
from tests.workplace import prepare

root, scenario = Path(sys.argv[1]), sys.argv[3]
template = root / "template"
(template / "model").mkdir(parents=True)
sys.executable = str(fake_study.program(root))
prepare(template, template / "model")

# A kill loses nothing that was written; only a power cut does, which is not tested here.
os.fsync = lambda handle: None
connect = Connections._connect
def unsynced(self):
    db = connect(self)
    db.conn.execute("PRAGMA synchronous=OFF")
    return db
Connections._connect = unsynced

def inject(at):
    count = 0
    def step():
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
    def wrap(owner, name):
        real = getattr(owner, name)
        def call(*arguments, **named):
            step()
            return real(*arguments, **named)
        setattr(owner, name, call)
    for name in ("begin", "study", "finish"):
        wrap(CycleTable, name)
    for name in ("freeze", "record"):
        wrap(ProbeTable, name)
    for name in ("control", "forget", "requeue_after"):
        wrap(DocumentTable, name)
    wrap(LearnerStore, "scrub")
    wrap(MaterialTable, "admit")
    for owner in (checkpoints, publication, pins):
        wrap(owner, "point")
    wrap(checkpoints, "discard")
    wrap(retention, "_delete")
    for owner in (cycle, inbox):
        wrap(owner, "write_atomic")
    for owner, name in ((os, "rename"), (cycle.shutil, "rmtree"), (PassageIndex, "sync"),
                        (pathlib.Path, "unlink")):
        wrap(owner, name)
    return lambda: count

def learner(place):
    bench = Bench(place)
    bench.restart(training={"documents_per_cycle": 3})
    return bench

def run(place, at):
    '''In a child: start, learn all there is. True if it was not killed.'''
    child = os.fork()
    if child == 0:
        try:
            bench = learner(place)
            count = inject(at) if at else lambda: 0
            bench.learner.recover()
            bench.learner.fetch()
            while bench.learner.learn():
                pass
            (place.folder / "count").write_text(str(count()))
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status == 0

def outcome(place):
    bench = learner(place)
    cycles = bench.store.cycles.latest()
    return {
        "states": bench.states(),
        "forgotten": bench.store.documents.count("forgotten"),
        "cycles": [{k: getattr(c, k) for k in ("n", "kind", "state", "parent", "documents")}
                   for c in cycles],
        "lines": [line(c.report) for c in cycles if c.report],
        "current": checkpoints.current(bench.home),
        "versions": checkpoints.versions(bench.home),
        "manifests": [checkpoints.read(bench.home, v).manifest["document_ids"]
                      for v in checkpoints.versions(bench.home)],
        "staging": [p.name for p in (bench.home / ".staging").iterdir()],
        "inbox": [p.name for p in (bench.home / "inbox").iterdir()],
        "passages": sorted(bench.passages()),
        "results": {c.n: len(bench.store.probes.results(c.n)) for c in cycles},
    }

def fresh(name):
    place = type(prepare(template, template / "model"))(root / name)
    shutil.copytree(template, place.folder)
    return place

if scenario != "learn":
    bench = learner(prepare(template, template / "model"))
    bench.learner.fetch()
    while bench.learner.learn():
        pass
    inbox.leave(bench.home, inbox.Forget((1,)))
    if scenario == "refused":
        fake_study.always(root, "forget", fake_study.candidate(general=200.0))
whole = fresh("whole")
assert run(whole, 10_000)
count = int((whole.folder / "count").read_text())
draw = random.Random(0)
plans = [(at,) for at in range(1, count + 1)]
plans += [(draw.randint(1, count), draw.randint(1, count)) for _ in range(int(sys.argv[4]))]
found = [[[], outcome(whole)]]
for number, plan in enumerate(plans):
    place = fresh(f"{number}")
    for at in plan:
        run(place, at)
    assert run(place, 0)
    found.append([plan, outcome(place)])
    shutil.rmtree(place.folder)
print(json.dumps(found))
"""


def killed_everywhere(folder: Path, scenario: str, twice: int) -> list[tuple[list[int], Any]]:
    """(where it was killed, what came of it) for each run; the first was not killed."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(folder), str(PROJECT), scenario, str(twice)],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[tuple[list[int], Any]] = json.loads(done.stdout.splitlines()[-1])
    assert len(found) > 20
    return found


def settled(found: Any, where: str) -> None:
    """Nothing half done is left."""
    assert found["staging"] == [], where
    assert found["inbox"] == [], where
    assert not {c["state"] for c in found["cycles"]} - {"published", "rejected", "interrupted"}
    learned = [title for title, state in found["states"].items() if state == "learned"]
    assert len(found["passages"]) == len(learned), where


@pytest.mark.slow
def test_killed_anywhere_while_learning_every_document_is_taught_once(tmp_path: Path) -> None:
    (_, expected), *runs = killed_everywhere(tmp_path, "learn", 12)
    assert [c["state"] for c in expected["cycles"]] == ["published", "published"]
    for plan, found in runs:
        where = f"killed at {plan}"
        settled(found, where)
        assert found["states"] == expected["states"], where
        published = [c for c in found["cycles"] if c["state"] == "published"]
        taught = [i for c in published for i in c["documents"]]
        assert sorted(taught) == [1, 2, 3, 4], f"{where}: each document once"
        assert found["versions"] == sorted(c["n"] for c in published), where
        assert sorted(map(sorted, found["manifests"])) == [[1, 2, 3], [4]], where
        assert found["current"] == max(found["versions"]), where
        assert len(found["lines"]) >= 2, where
        for c in published:
            assert found["results"][str(c["n"])] > 0, where


@pytest.mark.slow
def test_killed_anywhere_while_forgetting_the_rest_is_relearned_once(tmp_path: Path) -> None:
    (_, expected), *runs = killed_everywhere(tmp_path, "forget", 8)
    assert expected["passages"] == [2, 3, 4]
    for plan, found in runs:
        where = f"killed at {plan}"
        settled(found, where)
        assert found["states"] == expected["states"], where
        assert found["forgotten"] == 1, where
        [relearned] = [
            c for c in found["cycles"] if c["kind"] == "forget" and c["state"] == "published"
        ]
        assert found["versions"] == [found["current"]] == [relearned["n"]], where
        kinds = [c["kind"] for c in found["cycles"] if c["state"] == "published"]
        assert sorted(kinds) == ["forget", "learn", "learn"], f"{where}: nothing else was learned"


@pytest.mark.slow
def test_killed_anywhere_while_forgetting_is_refused_the_rest_is_learned_again(
    tmp_path: Path,
) -> None:
    (_, expected), *runs = killed_everywhere(tmp_path, "refused", 6)
    assert expected["passages"] == [2, 3, 4]
    for plan, found in runs:
        where = f"killed at {plan}"
        settled(found, where)
        assert found["states"] == expected["states"], where
        assert found["forgotten"] == 1, where
        refused = [c["n"] for c in found["cycles"] if c["state"] == "rejected"]
        assert len(refused) == 1, f"{where}: tried once"
        again = [c for c in found["cycles"] if c["state"] == "published" and c["n"] > refused[0]]
        assert sorted(i for c in again for i in c["documents"]) == [2, 3, 4], where
        assert again[-1]["parent"] is None, f"{where}: from the base"
        assert found["versions"] == sorted(c["n"] for c in again), where
