"""`web_learner.py` as people run it: real processes, a tiny model, signals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autodidact import checkpoints
from autodidact.settings import PROJECT
from autodidact.store.cycles import StoredCycle
from autodidact.store.ledger import LearnerStore
from autodidact.types.status import LearnerStatus
from tests.workplace import Workplace, alive, child_environment, children, ended, wait_for

pytest_plugins = ["tests.core_fixtures"]


def states(place: Workplace) -> dict[str, int]:
    store = LearnerStore(place.home / "learner.db", readonly=True)
    found = {s: store.documents.count(s) for s in ("queued", "studying", "learned", "given_up")}
    store.close()
    return {state: count for state, count in found.items() if count}


def cycles(place: Workplace) -> list[StoredCycle]:
    store = LearnerStore(place.home / "learner.db", readonly=True)
    found = store.cycles.latest()
    store.close()
    return found


def verdict(place: Workplace, out: str, taught: int) -> None:
    """The first cycle is decided, and terminal, ledger and disk agree on it. Which way is the
    gate's business: a random model may learn the form of an answer and no answer (that the
    starter's cycle is published is told in tests/stories/test_story.py)."""
    [cycle] = cycles(place)
    assert cycle.state in ("published", "rejected"), cycle.reasons
    assert cycle.report.probes, "what it answered can be read"
    if cycle.state == "published":
        assert "published 000001" in out
        base = json.loads((place.home / "base.json").read_text())
        found = checkpoints.verify(place.home, 1, base["sha256"])
        assert found.manifest["report"]["state"] == "published"
        assert checkpoints.current(place.home) == 1
        assert states(place)["learned"] == taught
    else:
        assert f"rejected: {cycle.reasons[0].line}" in out
        assert checkpoints.versions(place.home) == []
        assert checkpoints.current(place.home) == 0
        assert states(place) == {"queued": 4}


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Programs that must not outlive the test."""
    programs: list[subprocess.Popen[str]] = []
    yield programs
    for program in programs:
        if program.poll() is None:
            program.kill()
            program.communicate()


def in_training(place: Workplace) -> Path:
    """Wait until the first steps of a cycle are done and one state is saved."""
    staging = checkpoints.staging(place.home, 1)
    wait_for((staging / "measured-parent-1.0.json").exists, 60, "the training to begin")
    return staging


@pytest.fixture
def long_cycles(workplace: Workplace) -> Workplace:
    """All four documents and some seconds of training."""
    text = workplace.config.read_text()
    workplace.config.write_text(
        text.replace("cycle_minutes = 0.02", "cycle_minutes = 0.5").replace(
            "[training]", "[training]\nmax_exposures = 120\nmin_exposures = 10"
        )
    )
    return workplace


@pytest.mark.slow
def test_once_learns_a_cycle_and_ends(workplace: Workplace) -> None:
    code, out = ended(workplace.start("web_learner.py", "--once", "--plain"))
    assert code == 0, out
    assert "files:notes: 4 new documents" in out
    verdict(workplace, out, taught=1)
    assert (workplace.home / "anchors.json").exists(), "sampled once, kept"


@pytest.mark.slow
def test_killed_in_training_it_leaves_no_child_and_goes_on_where_it_was(
    long_cycles: Workplace, started: list[subprocess.Popen[str]]
) -> None:
    """kill -9, then a second learner beside the third, SIGTERM, and at last to the end."""
    place = long_cycles
    first = place.start("web_learner.py", "--once", "--plain")
    started.append(first)
    staging = in_training(place)
    [child] = children(first.pid)
    first.kill()
    first.communicate()
    wait_for(lambda: not alive(child), 10, "the study process to follow the learner")
    assert states(place) == {"studying": 4}
    assert checkpoints.current(place.home) == 0

    third = place.start("web_learner.py", "--plain")
    started.append(third)
    wait_for(lambda: children(third.pid), 60, "the study to go on")
    code, out = ended(place.start("web_learner.py", "--once"))
    assert code == 5
    assert out.strip() == f"autodidact: learner.lock held by pid {third.pid}"

    wait_for((place.home / "learner.db").exists, 10, "the ledger")
    wait_for(lambda: _status(place).state == "training", 60, "the training to go on")
    wait_for(lambda: _status(place).step, 60, "steps")
    third.send_signal(signal.SIGTERM)
    code, out = ended(third, 15)
    assert code == 0, out
    assert "goes on at the next start" in out
    assert "Traceback" not in out
    assert _status(place).state == "stopped"
    saved = json.loads((staging / "resume" / "state.json").read_text())["clock"]["step"]
    assert saved >= 1
    assert states(place) == {"studying": 4}

    code, out = ended(place.start("web_learner.py", "--once", "--plain"), 90)
    assert code == 0, out
    [cycle] = cycles(place)
    assert cycle.documents == [1, 2, 3, 4]
    assert cycle.report.steps > saved
    verdict(place, out, taught=4)


def _status(place: Workplace) -> LearnerStatus:
    store = LearnerStore(place.home / "learner.db", readonly=True)
    found = store.status.read()
    store.close()
    return found or LearnerStatus()


def test_below_the_low_water_mark_it_says_so_and_ends(workplace: Workplace) -> None:
    program = (
        "import autodidact.learning.cycle, web_learner; "
        "from autodidact.commands.entry import entry_point; "
        "autodidact.learning.cycle.LOW_WATER_BYTES = 2**60; entry_point(web_learner.main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--once", "--plain", "--config", str(workplace.config)],
        cwd=PROJECT,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 4
    [line] = done.stderr.splitlines()
    assert line.startswith(f"autodidact: {workplace.home}: need 1073741824.0 GiB, have ")
    assert states(workplace) == {"queued": 4}


def test_with_nothing_to_learn_it_says_so(workplace: Workplace) -> None:
    for path in (workplace.folder / "notes").glob("*.md"):
        path.unlink()
    code, out = ended(workplace.start("web_learner.py", "--once", "--plain"))
    assert code == 0
    assert "nothing new to learn" in out


def test_a_missing_folder_of_documents_is_no_reason_to_stop(workplace: Workplace) -> None:
    text = workplace.config.read_text().replace('files = ["notes"]', 'files = ["gone"]')
    workplace.config.write_text(text)
    code, out = ended(workplace.start("web_learner.py", "--once", "--plain"))
    assert code == 0, out
    assert "gone: no such folder" in out
    assert "Traceback" not in out


def test_the_timetable_stops_within_seconds_when_idle(
    workplace: Workplace, started: list[subprocess.Popen[str]]
) -> None:
    for path in (workplace.folder / "notes").glob("*.md"):
        path.unlink()
    learner = workplace.start("web_learner.py", "--plain")
    started.append(learner)
    wait_for((workplace.home / "base.json").exists, 60, "the start")
    wait_for(lambda: _status(workplace).next_at, 30, "the timetable")
    assert _status(workplace).state == "idle"
    learner.send_signal(signal.SIGINT)
    code, out = ended(learner, 15)
    assert code == 0, out
    assert "Traceback" not in out
    assert _status(workplace).state == "stopped"
