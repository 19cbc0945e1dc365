"""Stops, kills, rollbacks, a full disk: nothing is lost and nothing is learned twice."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from autodidact import checkpoints, cycle
from autodidact.errors import ResourceError
from autodidact.settings import PROJECT
from tests import fake_study
from tests.bench import Bench
from tests.versions import one_line, publish
from tests.workplace import child_environment, wait_for

pytest_plugins = ["tests.core_fixtures"]

# Stops, kills, rollbacks ------------------------------------------------------------------------


def test_a_stopped_cycle_goes_on_at_the_next_start(bench: Bench) -> None:
    bench.learner.fetch()
    bench.script(["plan", "save:5", "heed"])
    state = checkpoints.staging(bench.home, 1) / "resume" / "state.json"
    stopper = threading.Thread(
        target=lambda: (wait_for(state.exists, 30, "the state"), bench.learner.stopping.set())
    )
    stopper.start()
    assert bench.learner.learn() is None
    stopper.join()
    assert set(bench.states().values()) == {"studying"}
    assert bench.store.running() == [1]
    bench.restart().recover()
    assert state.exists()
    report = bench.learn()
    assert (report["cycle"], report["state"]) == (1, "published")
    assert [c for c, _ in fake_study.started(bench.place.folder)] == [1, 1]


def test_a_cycle_whose_job_is_gone_is_closed_and_its_documents_queue_again(bench: Bench) -> None:
    bench.learner.fetch()
    bench.store.begin_cycle(1, None, {})
    bench.store.study(1, [1, 2])
    bench.restart().recover()
    assert bench.cycle(1)["state"] == "interrupted"
    assert set(bench.states().values()) == {"queued"}
    assert bench.learn()["cycle"] == 2


def test_a_rollback_while_a_cycle_runs_publishes_nothing(bench: Bench) -> None:
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    bench.learn()
    bench.script([*fake_study.GOOD[:-1], "save:9", f"wait:{bench.place.folder / 'go'}", "done"])
    seen: list[dict[str, Any]] = []
    runner = threading.Thread(target=lambda: seen.append(bench.learn()))
    runner.start()
    wait_for((checkpoints.staging(bench.home, 2) / "resume").exists, 30, "the measurements")
    checkpoints.roll_back(bench.home)
    (bench.place.folder / "go").touch()
    runner.join()
    assert seen[0]["state"] == "interrupted"
    assert "rolled back" in seen[0]["reasons"][0]
    assert checkpoints.current(bench.home) == 0
    assert checkpoints.versions(bench.home) == [1]
    assert {bench.states()[d.document.title] for d in bench.store.documents("queued")} == {"queued"}
    assert [d.id for d in bench.store.documents("queued")] == [3, 4]
    assert {d.tries for d in bench.store.documents("queued")} == {0}


def test_a_job_made_from_a_version_rolled_back_is_not_resumed(bench: Bench) -> None:
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    bench.learn()
    bench.script(["plan", "save:5", "heed"])
    state = checkpoints.staging(bench.home, 2) / "resume" / "state.json"
    stopper = threading.Thread(
        target=lambda: (wait_for(state.exists, 30, "the state"), bench.learner.stopping.set())
    )
    stopper.start()
    assert bench.learner.learn() is None
    stopper.join()
    checkpoints.roll_back(bench.home)
    bench.restart().recover()
    assert bench.cycle(2)["state"] == "interrupted"
    assert not state.exists()
    assert [d.id for d in bench.store.documents("queued")] == [3, 4]


def request_rollback(home: Path, to: int) -> None:
    """What `python -m autodidact rollback` leaves."""
    checkpoints.roll_back(home, to)
    (home / "inbox" / "rollback-1.json").write_text(json.dumps({"do": "rollback", "to": to}))


def test_what_was_taught_after_the_version_rolled_back_to_is_queued_again(bench: Bench) -> None:
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    bench.learn()
    bench.learn()
    request_rollback(bench.home, 1)
    report = bench.learn()
    assert (report["cycle"], report["parent"]) == (3, 1)
    assert bench.cycle(3)["documents"] == [3, 4]
    assert set(bench.states().values()) == {"learned"}
    assert list((bench.home / "inbox").iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", "{", '{"do": "format"}', '{"do": "rollback"}', "1"])
def test_a_request_that_is_not_understood_is_dropped(bench: Bench, text: str) -> None:
    (bench.home / "inbox" / "x.json").write_text(text)
    assert bench.learner.learn() is None
    assert list((bench.home / "inbox").iterdir()) == []


class Killed(BaseException):
    """Nothing of ours catches it."""


def test_a_version_published_before_the_kill_is_recorded_as_published(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(home: Path, version: int) -> None:
        raise Killed

    bench.learner.fetch()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "point", killed)
        with pytest.raises(Killed):
            bench.learner.learn()
    assert checkpoints.current(bench.home) == 0
    bench.restart().recover()
    assert checkpoints.current(bench.home) == 1
    assert set(bench.states().values()) == {"learned"}
    report = bench.cycle(1)["report"]
    assert report["learned"]["k"] > 10
    assert "published 000001" in cycle.line(report), "the command line shows it"
    assert bench.learner.learn() is None


def test_a_rollback_after_the_kill_is_not_undone_at_the_next_start(bench: Bench) -> None:
    """Killed after the pointer moved and before the ledger was written; then rolled back."""
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    bench.learn()
    bench.store.begin_cycle(2, 1, {})
    bench.store.study(2, [3, 4])
    publish(bench.home, 2, 1)
    request_rollback(bench.home, 1)
    bench.restart().recover()
    assert checkpoints.current(bench.home) == 1
    assert [d.id for d in bench.store.documents("queued")] == [3, 4]


# Short of disk ----------------------------------------------------------------------------------


def test_below_the_low_water_mark_no_cycle_begins(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.learner.fetch()
    monkeypatch.setattr(checkpoints, "free_bytes", lambda home: 300 * 2**20)
    with pytest.raises(ResourceError) as caught:
        bench.learner.learn()
    assert one_line(caught.value).endswith("need 0.5 GiB, have 0.3")
    assert bench.store.cycles() == []


def test_a_disk_that_fills_up_while_publishing_costs_the_documents_no_try(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.learner.fetch()
    real = os.rename

    def full(source: Any, target: Any) -> None:
        if Path(target).parent.name == "versions":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "rename", full)
    report = bench.learn()
    assert report["state"] == "interrupted"
    assert report["ok"] is False
    assert "the disk is full" in report["reasons"][0]
    assert {stored.tries for stored in bench.store.documents("queued")} == {0}
    assert checkpoints.versions(bench.home) == []
    assert set(bench.states().values()) == {"queued"}
    monkeypatch.undo()
    fake_study.install(bench.place.folder, monkeypatch)
    assert bench.learn()["state"] == "published"


# Killed at every boundary ------------------------------------------------------------------------

DRIVER = """
import json, os, random, shutil, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from autodidact import checkpoints, cycle
from autodidact.store.learner import LearnerStore
from tests import fake_study
from tests.bench import Bench
from tests.workplace import prepare

root = Path(sys.argv[1])
template = root / "template"
(template / "model").mkdir(parents=True)
sys.executable = str(fake_study.program(root))
prepare(template, template / "model")

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
    for name in ("begin_cycle", "freeze", "study", "record", "finish_cycle"):
        wrap(LearnerStore, name)
    for name in ("write_atomic", "clear_staging", "point", "retain"):
        wrap(checkpoints, name)
    for owner, name in ((os, "rename"), (cycle.shutil, "rmtree")):
        wrap(owner, name)
    return lambda: count

def run(place, at):
    '''In a child: start, learn all there is. True if it was not killed.'''
    child = os.fork()
    if child == 0:
        try:
            bench = Bench(place)
            bench.restart(training={"documents_per_cycle": 3})
            bench.learner.fetch()
            count = inject(at) if at else lambda: 0
            bench.learner.recover()
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
    bench = Bench(place)
    cycles = bench.store.cycles()
    return {
        "states": bench.states(),
        "cycles": [{k: c[k] for k in ("n", "state", "parent", "documents")} for c in cycles],
        "lines": [cycle.line(c["report"]) for c in cycles if "cycle" in c["report"]],
        "current": checkpoints.current(bench.home),
        "versions": checkpoints.versions(bench.home),
        "manifests": [checkpoints.read(bench.home, v).manifest["document_ids"]
                      for v in checkpoints.versions(bench.home)],
        "staging": [p.name for p in (bench.home / ".staging").iterdir()],
        "results": {c["n"]: len(bench.store.results(c["n"])) for c in cycles},
    }

def fresh(name):
    place = type(prepare(template, template / "model"))(root / name)
    shutil.copytree(template, place.folder)
    return place

whole = fresh("whole")
assert run(whole, 10_000)
count = int((whole.folder / "count").read_text())
draw = random.Random(0)
plans = [(at,) for at in range(1, count + 1)]
plans += [(draw.randint(1, count), draw.randint(1, count)) for _ in range(20)]
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


@pytest.mark.slow
def test_killed_at_any_boundary_every_document_is_taught_once(tmp_path: Path) -> None:
    """Two cycles, killed before every write of the ledger, of staging, of a version and of the
    pointer; then killed twice at random; each time started again until all is learned."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path), str(PROJECT)],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (_, expected), *runs = json.loads(done.stdout.splitlines()[-1])
    assert [c["state"] for c in expected["cycles"]] == ["published", "published"]
    assert len(runs) > 40
    for plan, found in runs:
        where = f"killed at {plan}"
        assert found["states"] == expected["states"], where
        published = [c for c in found["cycles"] if c["state"] == "published"]
        taught = [i for c in published for i in c["documents"]]
        assert sorted(taught) == [1, 2, 3, 4], f"{where}: each document once"
        assert found["versions"] == sorted(c["n"] for c in published), where
        assert sorted(map(sorted, found["manifests"])) == [[1, 2, 3], [4]], where
        assert found["current"] == max(found["versions"]), where
        assert not {c["state"] for c in found["cycles"]} - {"published", "interrupted"}, where
        assert found["staging"] == [], where
        assert len(found["lines"]) >= 2, where
        for c in published:
            assert found["results"][str(c["n"])] > 0, where
