"""Whether a reply is being made: seen across processes, and gone with the one that made it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from autodidact import replying
from autodidact.replying import Replying
from autodidact.settings import PROJECT
from tests.workplace import child_environment

SERVER = """
import sys
from pathlib import Path
from autodidact.replying import Replying
sign = Replying(Path(sys.argv[1]))
sign.say(True)
print("replying", flush=True)
sys.stdin.readline()
sign.say(False)
print("done", flush=True)
sys.stdin.readline()
"""


@contextmanager
def server(home: Path) -> Iterator[subprocess.Popen[str]]:
    """A process at a reply, which is done at a line of input."""
    child = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(home)], cwd=PROJECT, env=child_environment(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "replying\n"
        yield child
    finally:
        child.kill()
        child.communicate()


def test_a_reply_is_seen_until_it_ends(tmp_path: Path) -> None:
    assert not replying.anyone(tmp_path), "no server ran here yet"
    with server(tmp_path) as child:
        assert replying.anyone(tmp_path)
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "done\n"
        assert not replying.anyone(tmp_path), "the server lives, its reply has ended"


def test_a_server_that_is_killed_replies_no_more(tmp_path: Path) -> None:
    with server(tmp_path) as child:
        assert replying.anyone(tmp_path)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert not replying.anyone(tmp_path)


def test_two_servers_of_a_home_both_count(tmp_path: Path) -> None:
    with server(tmp_path) as first:
        with server(tmp_path) as second:
            first.kill()
            first.wait()
            assert replying.anyone(tmp_path)
            second.kill()
            second.wait()
        assert not replying.anyone(tmp_path)


def test_a_sign_that_a_study_stood_in_the_way_of_is_had_at_the_next_turn(tmp_path: Path) -> None:
    sign = Replying(tmp_path)
    handle = os.open(tmp_path / replying.FILE, os.O_RDONLY | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)  # as a study does while it asks
    sign.say(True)
    os.close(handle)
    assert not replying.anyone(tmp_path)
    sign.say(True)
    assert replying.anyone(tmp_path)
    sign.say(True)
    sign.say(False)
    assert not replying.anyone(tmp_path)
    sign.say(False)


@pytest.mark.parametrize("missing", ["folder", "file", "locks"])
def test_where_no_lock_can_be_had_nobody_is_seen_and_nothing_fails(
    tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    if missing != "folder":
        home.mkdir()
    if missing == "file":
        (home / replying.FILE).mkdir(mode=0)
    if missing == "locks":

        def refuse(handle: int, operation: int) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(fcntl, "flock", refuse)
    before = os.listdir("/proc/self/fd")
    sign = Replying(home)
    sign.say(True)
    assert not replying.anyone(home)
    sign.say(False)
    assert len(os.listdir("/proc/self/fd")) == len(before)
