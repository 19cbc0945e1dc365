"""The command line: what it tells, what it does, how it fails: in one line, with its exit code."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from autodidact import checkpoints
from autodidact.commands.app import app
from autodidact.commands.entry import entry_point
from autodidact.errors import (
    AutodidactError,
    BaseMismatch,
    CheckpointError,
    LockHeld,
    ResourceError,
    SettingError,
)
from autodidact.home import lock, prepare_home
from autodidact.store.ledger import LearnerStore
from autodidact.types.status import LearnerStatus
from tests import fake_study
from tests.bench import Bench
from tests.ledgers import add_document, full_report, rejected_report, run_cycle
from tests.versions import publish
from tests.workplace import Workplace, child_environment, prepare

pytest_plugins = ["tests.core_fixtures"]


def call(place: Workplace, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A program of the project, as a user runs it."""
    return subprocess.run(
        place.command(*arguments),
        cwd=place.folder,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refused(place: Workplace, code: int, *arguments: str) -> str:
    """The one line on standard error."""
    done = call(place, *arguments)
    assert done.returncode == code, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("autodidact: ")
    return line.removeprefix("autodidact: ")


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    (tmp_path / "model").mkdir()
    return prepare(tmp_path, tmp_path / "model")


def invoke(place: Workplace, *arguments: str) -> str:
    """A command in this process, which must succeed."""
    found = CliRunner().invoke(app, [*arguments, "--config", str(place.config)])
    assert found.exit_code == 0, found.output
    return found.output


def status(place: Workplace) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(invoke(place, "status", "--json"))
    return found


# status -----------------------------------------------------------------------------------------


def test_before_anything_ran_the_status_says_so(place: Workplace) -> None:
    done = call(place, "-m", "autodidact", "status")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "the untouched base" in done.stdout
    assert "has not run here yet" in done.stdout
    assert not place.home.exists(), "asking leaves nothing behind"
    found = status(place)
    assert (found["current"], found["versions"], found["base"]) == (0, [], None)


def test_the_status_tells_the_base_and_why_it_is_this_one(place: Workplace) -> None:
    place.home.mkdir()
    record = {"name": "SmolLM2-135M-Instruct", "origin": "package", "reason": "the Hub was away"}
    (place.home / "base.json").write_text(json.dumps(record))
    found = status(place)
    assert (found["base"], found["origin"], found["choice"]) == tuple(record.values())
    told = call(place, "-m", "autodidact", "status").stdout
    assert "base       SmolLM2-135M-Instruct\n           the Hub was away\n" in told


def test_after_cycles_the_status_tells_them_newest_first(bench: Bench) -> None:
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    bench.script(fake_study.GOOD, fake_study.NOTHING_LEARNED)
    bench.learn()
    bench.learn()
    bench.store.status.write(LearnerStatus("idle"))
    found = status(bench.place)
    assert (found["current"], found["versions"]) == (1, [1])
    assert found["learner"] == "idle"
    assert found["documents"]["learned"] == found["documents"]["queued"] == 2
    assert found["sources"][0]["name"] == "files:notes"
    second, first = found["cycles"]
    assert "published 000001" in first
    assert "rejected: learned: " in second
    text = invoke(bench.place, "status")
    assert "serving    checkpoint 1" in text
    assert "versions   1" in text
    assert first in text


def test_a_learner_that_works_is_told_with_its_step(bench: Bench) -> None:
    bench.store.status.write(LearnerStatus("training", cycle=3, step=5, of=9))
    assert status(bench.place)["learner"] == "training, cycle 3, step 5 of 9"
    bench.store.status.write(LearnerStatus("training", cycle=3, step=5, of=9, waits=True))
    said = status(bench.place)["learner"]
    assert said == "training, cycle 3, step 5 of 9, waits for the chat"


def test_a_learner_that_has_fallen_silent_does_not_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.store.status.write(LearnerStatus("training", cycle=3))
    later = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: later)
    assert status(bench.place)["learner"] == "not running"
    monkeypatch.undo()
    bench.store.status.write(LearnerStatus("stopped"))
    assert status(bench.place)["learner"] == "not running"


def test_the_status_tells_what_could_not_be_loaded_and_what_is_out_of_reach(bench: Bench) -> None:
    publish(bench.home, 1, None)
    checkpoints.reject(bench.home, 1, "sha256 mismatch adapter_model.safetensors")
    bench.store.sources.update("wikipedia", error="does not answer")
    text = invoke(bench.place, "status")
    assert "1 could not be loaded: sha256 mismatch adapter_model.safetensors" in text
    assert "source     wikipedia: 0 documents" in text
    assert "does not answer" in text


def test_the_status_writes_nothing(bench: Bench) -> None:
    before = {path: path.stat().st_mtime_ns for path in bench.home.rglob("*")}
    invoke(bench.place, "status")
    assert {path: path.stat().st_mtime_ns for path in bench.home.rglob("*")} == before


# rollback ---------------------------------------------------------------------------------------


@pytest.fixture
def published(place: Workplace) -> Workplace:
    prepare_home(place.home)
    for version in (1, 2, 3):
        publish(place.home, version, version - 1 or None)
    return place


def requests(place: Workplace) -> list[Any]:
    return [json.loads(path.read_text()) for path in sorted((place.home / "inbox").iterdir())]


def test_rolling_back_goes_to_the_parent_and_tells_the_learner(published: Workplace) -> None:
    done = call(published, "-m", "autodidact", "rollback")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "rolled back from 3 to 2: a running server answers from checkpoint 2 in two seconds; newer "
        "ones do not go live until `unpin`\n"
    )
    assert checkpoints.current(published.home) == checkpoints.pinned(published.home) == 2
    assert requests(published) == [{"do": "rollback", "to": 2}]


def test_rolling_back_to_a_version_and_to_the_base(published: Workplace) -> None:
    assert "checkpoint 1" in invoke(published, "rollback", "--to", "1")
    assert "the untouched base" in invoke(published, "rollback", "--to", "0")
    assert checkpoints.current(published.home) == 0
    assert [request["to"] for request in requests(published)] == [1, 0]


def test_rolling_back_to_what_is_not_there_is_refused(published: Workplace) -> None:
    line = refused(published, 3, "-m", "autodidact", "rollback", "--to", "7")
    assert line == "000007: no such version; there are 000001, 000002, 000003 and 0 (the base)"
    assert checkpoints.current(published.home) == 3
    assert requests(published) == []


def test_with_nothing_published_there_is_nothing_to_roll_back(place: Workplace) -> None:
    line = refused(place, 3, "-m", "autodidact", "rollback")
    assert line == "the untouched base serves; there is nothing to roll back"


def test_the_learner_acts_on_a_rollback(bench: Bench) -> None:
    bench.learner.fetch()
    bench.learn()
    invoke(bench.place, "rollback")
    assert set(bench.states().values()) == {"learned"}
    report = bench.learn()
    assert (report.cycle, report.parent) == (2, None)
    assert set(bench.states().values()) == {"learned"}
    assert checkpoints.serving(bench.home) == 0, "what was learned since waits for `unpin`"
    assert status(bench.place)["pinned"] == 0
    assert "serving    the untouched base (pinned: newer ones wait" in invoke(bench.place, "status")
    assert "checkpoint 2, the newest, answers" in invoke(bench.place, "unpin")
    assert checkpoints.serving(bench.home) == 2


# report and retention ---------------------------------------------------------------------------


@pytest.fixture
def recorded(place: Workplace) -> Workplace:
    """Two published cycles, one rejected, one that runs."""
    store = LearnerStore(place.home / "learner.db")
    one, two, three = (add_document(store, name) for name in ("one", "two", "three"))
    run_cycle(store, 1, [one], report=full_report(one), results={"taught": {one: (4, 5)}})
    run_cycle(
        store, 2, [two], report=full_report(two),
        results={"taught": {two: (3, 5)}, "kept": {one: (2, 5)}},
    )  # fmt: skip
    run_cycle(store, 3, [three], "rejected", rejected_report(three))
    store.cycles.begin(4, 2, {})
    store.close()
    return place


def test_the_report_is_of_the_latest_cycle_that_ended(recorded: Workplace) -> None:
    text = invoke(recorded, "report")
    assert text.startswith("Cycle 3 · rejected · made from checkpoint 2\nNot published: ")
    assert "FAILED" in text


def test_the_report_of_a_cycle_has_every_question(recorded: Workplace) -> None:
    text = invoke(recorded, "report", "1")
    assert "Published. It passes 2 of 3 new questions, 0 before." in text
    assert "What is lamp?" in text
    assert "    before    wrong  [wrong, margin −1.00]" in text
    assert "wordings never used: 1 of 2 (50 %, 9–91), 0 before" in text
    assert "Lost, of earlier questions: 1" in text
    card = json.loads(invoke(recorded, "report", "1", "--json"))
    assert (card["cycle"], card["claim"], card["kept"]["n"]) == (1, "learned", 3)


def test_the_matrix_tells_what_is_still_known(recorded: Workplace) -> None:
    text = invoke(recorded, "retention")
    assert "80   40" in text
    assert "cycle 2: 2 of 5 earlier questions pass" in text
    found = json.loads(invoke(recorded, "retention", "--json"))
    assert found["cycles"] == [1, 2]
    assert found["documents"][0]["cells"]["2"] == {"k": 2, "n": 5}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("report", "9"), "cycle 9: no such cycle; the last is 4"),
        (("report", "0"), "cycle 0: no such cycle; the last is 4"),
        (("report", "99999999999999999999"), "no such cycle"),
    ],
)
def test_an_unknown_cycle_is_refused(
    recorded: Workplace, words: tuple[str, ...], said: str
) -> None:
    assert said in refused(recorded, 1, "-m", "autodidact", *words)


@pytest.mark.parametrize("command", ["report", "retention"])
def test_before_anything_ended_there_is_nothing_to_report(place: Workplace, command: str) -> None:
    assert "no learner has run here yet" in refused(place, 1, "-m", "autodidact", command)
    LearnerStore(place.home / "learner.db").close()
    assert "yet; see: status" in refused(place, 1, "-m", "autodidact", command)


def test_a_cycle_of_the_learner_has_a_report_and_a_row(bench: Bench) -> None:
    bench.learner.fetch()
    report = bench.learn()
    card = json.loads(invoke(bench.place, "report", "--json"))
    assert (card["state"], card["claim"]) == ("published", "learned")
    assert sum(d["k"] for d in card["documents"]) == report.figures.taught.k
    assert len(card["how"]["weights_sha256"]) == 64
    found = json.loads(invoke(bench.place, "retention", "--json"))
    cells = [row["cells"]["1"] for row in found["documents"]]
    assert sum(cell["k"] for cell in cells) == report.figures.taught.k
    assert {row["learned_in"] for row in found["documents"]} == {1}


# Errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AutodidactError("x"), 1),
        (SettingError("x"), 2),
        (BaseMismatch("x"), 2),
        (CheckpointError("x"), 3),
        (ResourceError("x"), 4),
        (LockHeld("x"), 5),
    ],
)
def test_an_error_of_ours_is_one_line_and_a_code(
    error: AutodidactError, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    def main() -> None:
        raise error

    monkeypatch.setattr("sys.argv", ["program"])
    with pytest.raises(SystemExit) as caught:
        entry_point(main)
    assert caught.value.code == code
    assert capsys.readouterr().err == "autodidact: x\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sys.argv", ["program"])
    with pytest.raises(ZeroDivisionError):
        entry_point(main)


@pytest.mark.parametrize("program", ["web_learner.py", "server.py"])
def test_a_bad_setting_ends_a_program_in_one_line(place: Workplace, program: str) -> None:
    place.config.write_text("cycle_minuts = 3")
    line = refused(place, 2, program)
    assert line == ("autodidact.toml: cycle_minuts: no such setting; did you mean cycle_minutes?")
    assert not place.home.exists()


@pytest.mark.parametrize("program", ["web_learner.py", "server.py"])
def test_a_home_that_cannot_be_made_ends_a_program_in_one_line(
    place: Workplace, program: str
) -> None:
    place.home.write_text("a file is in the way")
    assert "cannot be written" in refused(place, 4, program)


def test_a_model_that_is_not_there_ends_the_learner_in_one_line(place: Workplace) -> None:
    done = call(place, "web_learner.py", "--once", "--model", "./none")
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["autodidact: no such model folder: ./none"]


def test_a_port_in_use_ends_the_server_in_one_line(place: Workplace) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused(place, 2, "server.py", "--port", str(port))
    assert f"127.0.0.1:{port}" in line
    assert "--port" in line


@pytest.mark.parametrize("port", ["70000", "-1"])
def test_a_port_that_cannot_be_ends_the_server_in_one_line(place: Workplace, port: str) -> None:
    assert "server.port" in refused(place, 2, "server.py", "--port", port)


def test_a_second_server_is_told_of_the_first(place: Workplace) -> None:
    prepare_home(place.home)
    with lock(place.home, "server"):
        line = refused(place, 5, "server.py")
    assert "server.lock held by pid" in line


def test_a_ledger_of_a_newer_program_ends_the_learner_in_one_line(place: Workplace) -> None:
    import sqlite3

    LearnerStore(place.home / "learner.db").close()
    with sqlite3.connect(place.home / "learner.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    assert "made by a newer version" in refused(place, 1, "web_learner.py")


def test_every_error_has_a_docstring_in_the_tree() -> None:
    """The tree drawn in the module is the tree."""
    from autodidact import errors

    assert errors.__doc__ is not None
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, AutodidactError):
            assert name in errors.__doc__, name
            if value is not errors.AutodidactError and not issubclass(value, errors.GeneratorError):
                [row] = [r for r in errors.__doc__.splitlines() if f" {name} " in r]
                assert f" {value.exit_code} " in row, name
