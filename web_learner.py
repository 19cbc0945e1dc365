"""The learner: reads, trains, proves, publishes, for ever. `python web_learner.py`

Options: --once (fetch, learn one cycle, stop), --model, --home, --cycle-minutes, --config.
Ctrl-C or SIGTERM stops it within seconds; the cycle it was in goes on at the next start.
"""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from autodidact import settings, sources
from autodidact.commands.entry import entry_point
from autodidact.home import lock, prepare_home
from autodidact.learning.cycle import Learner
from autodidact.learning.progress import Reporter, set_up_logging
from autodidact.models import bases
from autodidact.store.ledger import LearnerStore
from autodidact.types.events import PhaseEvent
from scheduler import Timetable

log = logging.getLogger("learner")
NICENESS = 10


def main(
    once: Annotated[bool, typer.Option(help="Fetch, learn one cycle, stop.")] = False,
    model: Annotated[str | None, typer.Option(help="Base model: auto, a name, a folder.")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder shared with the server.")] = None,
    cycle_minutes: Annotated[float | None, typer.Option(help="Length of a cycle.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
    plain: Annotated[bool, typer.Option(help="Log lines instead of progress bars.")] = False,
) -> None:
    """Read, learn, prove, publish."""
    console = set_up_logging("learner", plain=plain)
    tree = settings.load(config, model=model, home=home, cycle_minutes=cycle_minutes)
    os.nice(NICENESS)
    prepare_home(tree.home)
    with lock(tree.home, "learner") as handle:
        store = LearnerStore(tree.home / "learner.db")
        reporter = Reporter(store, console)
        try:
            reporter(PhaseEvent("preparing"))
            base = bases.resolve(tree.model, tree.revision, tree.home, log.info, tree.rounding)
            learner = Learner(tree, store, sources.build(tree.sources), base, reporter, handle)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: learner.stopping.set())
            reporter.idle(queued=store.documents.count("queued"))
            learner.recover()
            if once:
                _once(learner, reporter)
            else:
                Timetable(learner, reporter, tree.schedule).run()
            log.info("stopped")
        except KeyboardInterrupt:
            log.info("stopped")
        finally:
            reporter.stopped()


def _once(learner: Learner, reporter: Reporter) -> None:
    learner.fetch()
    report = learner.learn()
    if report is None:
        if not learner.stopping.is_set():
            log.info("nothing new to learn")
        return
    reporter.verdict(report)
    if report.state in ("failed", "interrupted"):
        raise typer.Exit(1)


if __name__ == "__main__":
    entry_point(main)
