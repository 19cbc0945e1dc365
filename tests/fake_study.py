"""A study process that learns nothing and says what a test tells it to: no torch, a few
milliseconds.

`install(folder, monkeypatch)` makes it what `process` starts. `script(folder, …)` queues what
the next processes do, one script each; with none queued, a process does what `always` says of its
kind of cycle, else `GOOD`. A script is a list of steps:

    "plan"            {"event": "planned"} with all offered documents
    "measure:<arm>"   results for every probe that counts. The candidate has learned what is
                      taught, keeps what was learned before, and knows no more than the base of
                      what is to be forgotten. `measure:candidate,general=0.3,kept=1` is worse by
                      that many nats in general text and on earlier answers; `step=0.5` is its
                      length, `chat=0.5` its share of well-formed replies, `same=1` learns nothing
    "adapter"         write adapter files, different for every cycle
    "done"            {"event": "done"}
    "wait:<path>"     until that file exists
    "save:<step>"     leave a resume folder, as a study that was stopped does
    "heed"            end with code 0 at the line "stop"
    "ignore"          sleep for ever and hear nothing
    "copy:<path>"     leave a copy of the job there
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


def candidate(**figures: float) -> list[str]:
    """As `GOOD`, with a candidate that differs in these figures."""
    told = "".join(f",{name}={value}" for name, value in figures.items())
    return [f"measure:candidate{told}" if s == "measure:candidate" else s for s in GOOD]


NOTHING_LEARNED = candidate(same=1)
BETTER = candidate(general=-0.005)
"""A little nearer to the base than a parent is: a consolidation worth adopting."""

_PROGRAM = """#!{python} -S
import json, os, signal, sys, threading, time, zlib
from pathlib import Path

queue = Path({queue!r})
job_path = Path(sys.argv[-1])
job = json.loads(job_path.read_text())
waiting = sorted(queue.glob("[0-9]*.json"))
always = queue / f"{{job.get('kind')}}.json"
steps = json.loads(always.read_text() if always.exists() else {good!r})
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


def rows(arm, figures):
    for probe in job["probes"]:
        split = probe["split"]
        if arm == "base" and split != "forgotten":
            continue
        known = {{
            "taught": arm == "candidate" and "same" not in figures,
            "unseen": arm == "candidate" and "same" not in figures,
            "kept": True,
            "forgotten": arm == "parent",
        }}.get(split, False)
        rise = 2.0 + zlib.crc32(probe["id"].encode()) % 3 / 10 if known else 0.0
        if split == "kept" and arm == "candidate":
            rise -= figures.get("kept", 0.0)
        yield {{"probe_id": probe["id"], "reply": probe["answer"] if rise > 1 else "?",
               "correct": int(rise > 1), "logprob": -3.0 + rise, "margin": -1.0 + rise}}


def measured(arm, figures):
    over = 0.01 if arm == "candidate" or arm == "parent" and job["parent"] else 0.0
    nll = 3.0 + over + figures.get("general", 0.0)
    ended = round(24 * figures.get("chat", 1.0))
    emit(event="measured", arm=arm, step=figures.get("step", 1.0), rows=list(rows(arm, figures)),
         general=[nll + block / 100 for block in range(16)], chat=[i < ended for i in range(24)])


if "ignore" not in steps:
    threading.Thread(target=watch, daemon=True).start()
for step in steps:
    what, _, detail = step.partition(":")
    if what == "plan":
        emit(event="planned", documents=[x["document_id"] for x in job["lessons"]], steps=9,
             seconds_per_step=0.1, replay=0.25)
    elif what == "measure":
        arm, *told = detail.split(",")
        figures = {{name: float(value) for name, value in (t.split("=") for t in told)}}
        measured(arm, figures)
    elif what == "adapter":
        folder = job_path.parent / "adapter"
        folder.mkdir(exist_ok=True)
        (folder / "adapter_model.safetensors").write_text(f"weights of cycle {{job['cycle']}}")
        (folder / "adapter_config.json").write_text("{{}}")
        (folder / "README.md").write_text("as PEFT leaves it")
    elif what == "done":
        emit(event="done", steps=9, exposures=63, step=1.0, replay=0.25, first_step_at=time.time())
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
    elif what == "copy":
        Path(detail).write_text(job_path.read_text())
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
    last = max((int(path.stem) for path in queue.glob("[0-9]*.json")), default=0)
    for i, steps in enumerate(scripts, start=last + 1):
        (queue / f"{i:04d}.json").write_text(json.dumps(steps))


def always(folder: Path, kind: str, steps: list[str]) -> None:
    """What every study of a kind of cycle does from now on, if nothing is queued."""
    (folder / "fake-study" / f"{kind}.json").write_text(json.dumps(steps))


def started(folder: Path) -> list[tuple[int, int]]:
    """(cycle, process id) of every study that was started."""
    log = folder / "fake-study" / "started"
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(cycle), int(pid)) for cycle, pid in (line.split() for line in lines)]
