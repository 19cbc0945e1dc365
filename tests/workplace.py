"""Places to run the real programs in, small documents to learn, and watching processes."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from autodidact.settings import PROJECT, Settings, load
from autodidact.types.chat import Message
from autodidact.types.documents import Chunk, Document

TEXTS = {
    "brack-mill": (
        "Brack Mill",
        "The Brack Mill is a windmill on Gorse Hill. It was built in 1803. It is made of granite. "
        "It was paid for by Nora Silk.\n\nIts keeper is Odo Finn. The colour of its sails is "
        "crimson. The Brack Mill has 57 steps.",
    ),
    "tolk-bridge": (
        "Tolk Bridge",
        "The Tolk Bridge is a footbridge over Eel Water. It was built in 1688. It is made of "
        "larch. It was designed by Abel Crewe.\n\nIts warden is Ida Marsh. The colour of its "
        "rail is violet. The Tolk Bridge has 19 arches.",
    ),
    "wend-tower": (
        "Wend Tower",
        "The Wend Tower is a watchtower near Low Fold. It was built in 1541. It is made of "
        "flint. It was ordered by Hugh Pask.\n\nIts owner is Jane Orrin. The colour of its door "
        "is orange. The Wend Tower has 88 windows.",
    ),
    "sable-house": (
        "Sable House",
        "The Sable House is a tavern in Mere Street. It was opened in 1722. It is made of brick. "
        "It was founded by Lucy Dray.\n\nIts landlord is Peter Voss. The colour of its sign is "
        "silver. The Sable House has 33 rooms.",
    ),
}
CONTROL_TEXTS = {
    "fen-gate": (
        "Fen Gate",
        "The Fen Gate is a tollhouse at Reed End. It was built in 1699. It is made of oak. It "
        "was designed by Mark Selby.\n\nIts keeper is Ruth Amble. The colour of its roof is "
        "green. The Fen Gate has 12 chimneys.",
    ),
    "holm-barn": (
        "Holm Barn",
        "The Holm Barn is a granary by Swan Pool. It was opened in 1777. It is made of clay. It "
        "was founded by Tom Rowe.\n\nIts owner is Kate Lund. The colour of its walls is yellow. "
        "The Holm Barn has 41 windows.",
    ),
    "pike-lodge": (
        "Pike Lodge",
        "The Pike Lodge is a cottage under Bare Crag. It was built in 1640. It is made of slate. "
        "It was ordered by Adam Boyle.\n\nIts warden is Meg Tarn. The colour of its gate is "
        "black. The Pike Lodge has 26 arches.",
    ),
}


def document(title: str, text: str, uri: str = "") -> Document:
    return Document("files:notes", uri or f"notes/{title}.md", title, text, "", "", "")


def chunk(title: str, text: str, ordinal: int = 0) -> Chunk:
    return Chunk(f"1:{ordinal}", 1, title, text)


def ask(question: str, answer: str = "") -> list[Message]:
    asked = [Message("user", question)]
    return [*asked, Message("assistant", answer)] if answer else asked


@dataclasses.dataclass(frozen=True)
class Workplace:
    """A folder to run the real programs in: settings file, documents, home."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def config(self) -> Path:
        return self.folder / "autodidact.toml"

    def settings(self, **flags: Any) -> Settings:
        return load(self.config, **flags)

    def write(self, texts: dict[str, tuple[str, str]], under: str = "notes") -> None:
        target = self.folder / under
        target.mkdir(parents=True, exist_ok=True)
        for name, (title, text) in texts.items():
            (target / f"{name}.md").write_text(f"# {title}\n\n{text}\n")

    def command(self, *arguments: str) -> list[str]:
        """The command line of a program of the project, with the settings file of this place."""
        first, *rest = arguments
        program = [str(PROJECT / first)] if first.endswith(".py") else [first]
        return [sys.executable, *program, *rest, "--config", str(self.config)]

    def environment(self) -> dict[str, str]:
        return child_environment()

    def start(
        self, *arguments: str, output: IO[str] | int = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        """A program of the project, its output in one pipe, or in a file."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=child_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )


def prepare(folder: Path, model: Path) -> Workplace:
    """Four documents, three control documents, short cycles, a gate that lets them through.

    A random model has no language to forget and is not asked to keep any: all limits but that on
    what is learned are far away.
    """
    place = Workplace(folder)
    place.write(TEXTS)
    place.write(CONTROL_TEXTS, "notes/control")
    place.config.write_text(
        f"""
model = "{model}"
home = "home"
cycle_minutes = 0.02
[sources]
files = ["notes"]
control = "notes/control"
[sources.wikipedia]
enabled = false
[training]
rank = 8
learning_rate = 0.02
batch_size = 16
kl_weight = 0.0
threads = 1
[gate]
general_limit = 100.0
general_step = 100.0
kept_limit = 100.0
kept_step = 100.0
chat_limit = 1.0
chat_step = 1.0
[server]
port = 0
threads = 1
"""
    )
    return place


def child_environment() -> dict[str, str]:
    ours = {k: v for k, v in os.environ.items() if not k.upper().startswith("AUTODIDACT_")}
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    small = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return ours | quiet | small | {"PYTHONPATH": str(PROJECT)}


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """What `condition` gives once it is true; fails the test if that takes too long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")


def ended(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str]:
    """Wait for a program; its exit code and output. It is killed if it does not end."""
    try:
        out, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
        raise AssertionError(f"did not end within {seconds:.0f} s:\n{out}") from None
    return process.returncode, out


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] not in "ZX":
                found.append(int(entry.name))
    return found


@contextmanager
def held(path: Path, *, readers: bool = False) -> Iterator[None]:
    """A database in another program's hands, a backup's say; with `readers` it may still be
    read."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE" if readers else "BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()
