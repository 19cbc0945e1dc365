"""Publishing, with SIGKILL, EIO or ENOSPC at its system calls, by `strace -e inject`.

What tests/checkpoints/test_publication.py does to Python's functions is done here to the kernel's
answers: a first run under strace lists the calls that a publication makes; then each is made to
fail, or to be the last. By default a few of them; with GUARANTEES=full all.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from autodidact import checkpoints
from autodidact.home import prepare_home
from tests.checkpoints.test_publication import NEW, check_whole, publish_again
from tests.guarantees import full
from tests.versions import manifest_for, publish, stage
from tests.workplace import child_environment

CALLS = (
    "open", "openat", "read", "write", "pread64", "pwrite64", "fsync", "fdatasync", "rename",
    "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "ftruncate",
    "close", "stat", "lstat", "fstat", "newfstatat", "statx", "getdents64", "lseek", "flock",
    "readlink", "readlinkat",
)  # fmt: skip
EVERY = 1 if full() else 17
BEGIN, END = "/begin-of-publication", "/end-of-publication"
PROGRAM = f"""
import json, os, sys
from pathlib import Path
from autodidact import checkpoints
home, manifest = Path(sys.argv[1]), json.loads(sys.argv[2])
staged = checkpoints.staging(home, 2) / "adapter"
said = None
os.path.lexists("{BEGIN}")
try:
    checkpoints.publish(home, staged, 2, manifest)
except Exception as error:
    said = [type(error).__name__, str(error)]
os.path.lexists("{END}")
print(json.dumps(said))
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home where version 1 serves and version 2 is staged."""
    folder = tmp_path_factory.mktemp("syscalls") / "template"
    prepare_home(folder)
    publish(folder, 1, None)
    stage(folder, 2, NEW)
    return folder


def run(template: Path, where: str, *inject: str) -> tuple[Path, str, list[str] | None, list[str]]:
    """Publish in a fresh home: the home, how it ended (an exit code or "killed"), what was raised,
    and the lines of the trace from the beginning of the publication to its end."""
    home = template.with_name(where)
    shutil.copytree(template, home)
    trace = home.with_suffix(".trace")
    names = ",".join(f"?{call}" for call in CALLS)
    done = subprocess.run(
        ["strace", "-f", "-o", str(trace), "-e", f"trace={names}", *inject,
         sys.executable, "-B", "-c", PROGRAM, str(home), json.dumps(manifest_for(1))],
        env={**child_environment(), "PYTHONHASHSEED": "0"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    lines = trace.read_text().splitlines()
    if any("ptrace" in line and "not permitted" in line for line in done.stderr.splitlines()):
        pytest.skip("strace may not trace here")
    ended = "killed" if done.returncode in (-9, 137) else str(done.returncode)
    said = json.loads(done.stdout) if ended == "0" else None
    return home, ended, said, lines


def published_by(template: Path) -> list[tuple[str, int]]:
    """(call, which one of that name in the whole run) of each call that a publication makes."""
    home, ended, said, lines = run(template, "untouched")
    assert (ended, said) == ("0", None)
    check_whole(home)
    counts: Counter[str] = Counter()
    inside = False
    found = []
    for line in lines:
        match = re.match(r"\d+\s+(\w+)\(", line)
        if match is None:
            continue
        counts[match[1]] += 1
        if BEGIN in line:
            inside = True
        elif END in line:
            inside = False
        elif inside:
            found.append((match[1], counts[match[1]]))
    return found


@pytest.fixture(scope="module")
def calls(template: Path) -> list[tuple[str, int]]:
    return published_by(template)


def test_a_publication_syncs_renames_and_writes(calls: list[tuple[str, int]]) -> None:
    """Else the trace has missed it."""
    names = Counter(call for call, _ in calls)
    assert names["fsync"] == 8
    assert sum(names[call] for call in ("rename", "renameat", "renameat2")) == 2
    assert names["write"] >= 2
    assert len(calls) > 50


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", ["SIGKILL", "EIO", "ENOSPC"])
def test_a_fault_at_a_system_call_leaves_the_old_or_the_new(
    template: Path, calls: list[tuple[str, int]], fault: str
) -> None:
    offset = {"SIGKILL": 0, "EIO": 5, "ENOSPC": 11}[fault] % EVERY
    outcomes = []
    for call, count in calls[offset::EVERY]:
        how = f"signal={fault}" if fault.startswith("SIG") else f"error={fault}"
        home, ended, said, lines = run(
            template, f"{fault}-{call}-{count}", "-e", f"inject={call}:{how}:when={count}"
        )
        begun = [i for i, line in enumerate(lines) if BEGIN in line]
        at = f"{fault} at {call} number {count}: {ended} {said} {lines[-1]}"
        assert begun, at
        check_whole(home)
        if fault == "SIGKILL":
            assert ended == "killed", at
        else:
            assert any("INJECTED" in line for line in lines[begun[0] :]), at
            assert ended == "0", at
            if said is None:
                assert checkpoints.current(home) == 2, at
            else:
                kind = "CheckpointError" if fault == "EIO" else "ResourceError"
                assert (said[0], "\n" in said[1]) == (kind, False), at
                assert checkpoints.current(home) == 1, at
                assert checkpoints.versions(home) == [1], at
        outcomes.append(checkpoints.current(home))
        publish_again(home)
        shutil.rmtree(home)
    assert outcomes
    if full():
        assert set(outcomes) == {1, 2}
