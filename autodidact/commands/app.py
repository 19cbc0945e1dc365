"""`python -m autodidact`: what the learner has done, and taking it back."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from autodidact import checkpoints, settings
from autodidact.checkpoints import listing
from autodidact.commands import forget, versions
from autodidact.errors import AutodidactError
from autodidact.proof.command import prove
from autodidact.reports import archive
from autodidact.reports.prose import card_text
from autodidact.reports.retention import retention as read_retention
from autodidact.reports.retention import retention_text
from autodidact.settings import PROJECT
from autodidact.store.ledger import LearnerStore
from autodidact.types.status import WAITS, LearnerStatus

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
Home = Annotated[Path | None, typer.Option(help="Folder shared by learner and server.")]
KILL_WAIT_S = 20
"""How long both get to stop, once one has ended or Ctrl-C was pressed."""
Config = Annotated[Path | None, typer.Option(help="Settings file.")]


@app.callback()
def _app() -> None:
    """Autodidact: a chat model that goes on learning."""


@app.command()
def run() -> None:
    """Learner and server side by side, both logs; Ctrl-C stops both. What `make run` starts."""
    from honcho import manager

    manager.KILL_WAIT = KILL_WAIT_S
    both = manager.Manager()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    for name in ("web_learner", "server"):
        command = f"exec {shlex.quote(sys.executable)} {shlex.quote(str(PROJECT / name))}.py"
        both.add_process(name.removeprefix("web_"), command, env=environment, cwd=str(PROJECT))
    both.loop()
    interrupted = both.returncode in (0, -2, -15, 130, 143)
    raise typer.Exit(0 if interrupted else both.returncode or 1)


@app.command()
def status(
    home: Home = None,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What serves, what the learner does, what is queued, the latest cycles, the sources."""
    root = settings.load(config, home=home).home
    found = _status(root)
    if as_json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return
    held = found["pinned"]
    until = " (pinned: newer ones wait for `unpin`)" if held is not None else ""
    print(f"home       {root}")
    print(f"base       {found['base'] or 'not chosen yet'}")
    if found["choice"]:
        print(f"           {found['choice']}")
    if found["runtime"]:
        print(f"replies    by {found['runtime']}")
    print(f"serving    {listing.call(found['serving'])}{until}")
    print(f"versions   {', '.join(map(str, found['versions'])) or 'none'}")
    for version, reason in found["rejected"].items():
        print(f"           {version} could not be loaded: {reason}")
    print(f"learner    {found['learner']}")
    print("documents  " + ", ".join(f"{n} {state}" for state, n in found["documents"].items()))
    for reason, n in found["given_up"].items():
        print(f"           {n} given up: {reason} (again: python -m autodidact retry)")
    for source in found["sources"]:
        trouble = f"; {source['error']}" if source["error"] else ""
        print(f"source     {source['name']}: {source['documents']} documents{trouble}")
    for text in found["cycles"]:
        print(f"           {text}")


@app.command()
def report(
    cycle: Annotated[int | None, typer.Argument(help="Its number; without one the latest.")] = None,
    home: Home = None,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """The report card of a cycle: what was asked, both answers, and what decided."""
    root = settings.load(config, home=home).home
    store = _ledger(root)
    try:
        number = archive.latest_closed(store) if cycle is None else cycle
        if number is None:
            raise AutodidactError("no cycle has come to its end yet; see: status")
        card = archive.read_card(root, store, number) if 0 < number < 2**31 else None
        if card is None:
            raise AutodidactError(
                f"cycle {number}: no such cycle; the last is {store.cycles.last()}"
            )
    finally:
        store.close()
    print(json.dumps(card, indent=1, ensure_ascii=False) if as_json else card_text(card))


@app.command()
def retention(
    home: Home = None,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What it still knows: documents by cycles, in per cent of the questions asked."""
    store = _ledger(settings.load(config, home=home).home)
    try:
        matrix = read_retention(store)
    finally:
        store.close()
    if not matrix["cycles"]:
        raise AutodidactError("nothing is published yet; see: status")
    width = shutil.get_terminal_size((100, 24)).columns
    print(json.dumps(matrix, ensure_ascii=False) if as_json else retention_text(matrix, width))


for command in (versions.versions, versions.pin, versions.unpin, versions.rollback, forget.forget,
                forget.retry):  # fmt: skip
    app.command()(command)
app.command()(prove)


def _ledger(home: Path) -> LearnerStore:
    """The ledger, for reading. Raises AutodidactError where no learner has run."""
    if not (home / "learner.db").exists():
        raise AutodidactError(f"{home}: no learner has run here yet; start web_learner.py")
    return LearnerStore(home / "learner.db", readonly=True)


def _status(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = {
        "base": None,
        "origin": None,
        "choice": None,
        "runtime": None,
        "current": checkpoints.current(home),
        "pinned": checkpoints.pinned(home),
        "serving": checkpoints.serving(home),
        "versions": checkpoints.versions(home),
        "rejected": checkpoints.rejected(home),
        "learner": "has not run here yet",
        "documents": {},
        "given_up": {},
        "sources": [],
        "cycles": [],
    }
    if (home / "base.json").exists():
        record = json.loads((home / "base.json").read_text("utf-8"))
        found |= {"base": record.get("name"), "origin": record.get("origin")}
        found["choice"] = record.get("reason")
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no server has measured it
        found["runtime"] = json.loads((home / "runtime.json").read_text("utf-8")).get("why")
    if not (home / "learner.db").exists():
        return found
    from autodidact.reports.prose import line

    store = LearnerStore(home / "learner.db", readonly=True)
    said = store.status.read()
    if said is not None:
        found["learner"] = _learner(said)
    states = ("queued", "studying", "learned", "given_up", "unusable", "superseded", "withdrawn",
              "forgetting", "forgotten")  # fmt: skip
    found["documents"] = {state: store.documents.count(state) for state in states}
    found["given_up"] = store.documents.given_up_for()
    found["sources"] = [
        {"name": s.name, "documents": s.documents, "error": s.error, "last_at": s.last_at}
        for s in store.sources.all()
    ]
    latest = [c.report for c in store.cycles.latest(10)]
    found["cycles"] = [line(report) for report in latest if report is not None]
    store.close()
    return found


def _learner(said: LearnerStatus) -> str:
    if said.gone(time.time()):
        return "not running"
    if said.state == "idle":
        return "idle"
    step = f", step {said.step} of {said.of}" if said.of else ""
    waits = f", {WAITS}" if said.waits else ""
    return f"{said.state}, cycle {'?' if said.cycle is None else said.cycle}{step}{waits}"
