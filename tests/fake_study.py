"""A study process that learns nothing and says what a test tells it to: no torch, a few
milliseconds.

`install(folder, monkeypatch)` makes it what `study_process` starts. `script(folder, …)` queues what
the next processes do, one script each; with none queued, a process does `GOOD`. A script is a list
of steps:

    "plan"            {"event": "planned"} with all offered documents
    "measure:<arm>"   results for every probe that counts; the candidate's taught margins are higher
    "measure-same"    the candidate's results, equal to the parent's
    "adapter"         write adapter files, different for every cycle
    "done"            {"event": "done"}
    "wait:<path>"     until that file exists
    "save:<step>"     leave a resume folder, as a study that was stopped does
    "heed"            end with code 0 at the line "stop"
    "ignore"          sleep for ever and hear nothing
    "exit:<code>"     end at once
    "kill"            end by SIGKILL
    "say:<text>"      that text on standard output, as it is
    "warn:<text>"     that text on standard error
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

GOOD = ["plan", "measure:base", "measure:parent", "adapter", "measure:candidate", "done"]
NOTHING_LEARNED = ["plan", "measure:base", "measure:parent", "adapter", "measure-same", "done"]

_PROGRAM = """#!{python} -S
import json, os, signal, sys, threading, time
from pathlib import Path

queue = Path({queue!r})
job_path = Path(sys.argv[-1])
job = json.loads(job_path.read_text())
waiting = sorted(queue.glob("*.json"))
steps = json.loads({good!r})
if waiting:
    steps = json.loads(waiting[0].read_text())
    waiting[0].unlink()
(queue / "started").open("a").write(f"{{job.get('cycle')}} {{os.getpid()}}\\n")
stopped = threading.Event()


def watch():
    for line in sys.stdin:
        if line.strip() == "stop":
            stopped.set()
    os._exit(3)


def emit(**event):
    sys.stdout.write(json.dumps(event) + "\\n")
    sys.stdout.flush()


def rows(better):
    taught = [d["id"] for d in job["documents"]]
    for i, probe in enumerate(job["probes"]):
        rise = 2.0 + i % 3 / 10 if better and probe["document_id"] in taught else 0.0
        yield {{"probe_id": probe["id"], "reply": probe["answer"] if rise else "?",
               "correct": int(rise > 0), "logprob": -3.0 + rise, "margin": -1.0 + rise}}


def measured(arm, better=False):
    nll = 3.0 + 0.01 * better
    emit(event="measured", arm=arm, rows=[] if arm == "base" else list(rows(better)), nll=nll,
         blocks=16)


if "ignore" not in steps:
    threading.Thread(target=watch, daemon=True).start()
for step in steps:
    what, _, detail = step.partition(":")
    if what == "plan":
        emit(event="planned", documents=[d["id"] for d in job["documents"]], steps=9,
             exposures=63, seconds_per_step=0.1)
    elif what == "measure":
        measured(detail, detail == "candidate")
    elif what == "measure-same":
        measured("candidate")
    elif what == "adapter":
        folder = job_path.parent / "adapter"
        folder.mkdir(exist_ok=True)
        (folder / "adapter_model.safetensors").write_text(f"weights of cycle {{job['cycle']}}")
        (folder / "adapter_config.json").write_text("{{}}")
        (folder / "README.md").write_text("as PEFT leaves it")
    elif what == "done":
        emit(event="done", steps=9, exposures=63)
    elif what == "wait":
        while not Path(detail).exists():
            time.sleep(0.01)
    elif what == "save":
        folder = job_path.parent / "resume"
        folder.mkdir(exist_ok=True)
        (folder / "state.json").write_text(json.dumps({{"step": int(detail)}}))
    elif what == "heed":
        stopped.wait()
        emit(event="stopped")
        os._exit(0)
    elif what == "ignore":
        time.sleep(600)
    elif what == "exit":
        os._exit(int(detail))
    elif what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "say":
        sys.stdout.write(detail)
        sys.stdout.flush()
    elif what == "warn":
        print(detail, file=sys.stderr, flush=True)
os._exit(0)
"""


def program(folder: Path) -> Path:
    """The executable that takes the place of the interpreter."""
    queue = folder / "fake-study"
    queue.mkdir(parents=True, exist_ok=True)
    path = queue / "python"
    path.write_text(_PROGRAM.format(python=sys.executable, queue=str(queue), good=json.dumps(GOOD)))
    path.chmod(0o755)
    return path


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(program(folder)))


def script(folder: Path, *scripts: list[str]) -> None:
    queue = folder / "fake-study"
    last = max((int(path.stem) for path in queue.glob("*.json")), default=0)
    for i, steps in enumerate(scripts, start=last + 1):
        (queue / f"{i:04d}.json").write_text(json.dumps(steps))


def started(folder: Path) -> list[tuple[int, int]]:
    """(cycle, process id) of every study that was started."""
    log = folder / "fake-study" / "started"
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(cycle), int(pid)) for cycle, pid in (line.split() for line in lines)]
