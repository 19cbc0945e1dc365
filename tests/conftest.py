"""Fixtures that every test has: no settings from outside, no network beyond this machine."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# How long an example takes says nothing about the code on a busy machine. The default run draws the
# same examples everywhere; `make search` looks for new ones.
hypothesis.settings.register_profile("fixed", deadline=None, derandomize=True)
hypothesis.settings.register_profile("search", deadline=None, derandomize=False)
hypothesis.settings.load_profile("fixed")

SHARED = "SHARED_DATA_DIR"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No `AUTODIDACT_*` variable of the developer reaches a test."""
    for name in list(os.environ):
        if name.upper().startswith("AUTODIDACT_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting anywhere but to this machine fails at once, and so does asking for an address."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex
    getaddrinfo = socket.getaddrinfo

    def check(sock: socket.socket, address: Any) -> None:
        if sock.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            raise OSError(f"tests do not connect beyond loopback: {address[0]}")

    def guarded(sock: socket.socket, address: Any) -> None:
        check(sock, address)
        connect(sock, address)

    def guarded_ex(sock: socket.socket, address: Any) -> int:
        check(sock, address)
        return connect_ex(sock, address)

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host and not _is_loopback(host):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return getaddrinfo(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_ex)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def _is_loopback(host: str | bytes) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return name == "localhost"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder that holds `data/`, third-party material that is not part of the project.

    Without the variable these tests are skipped; with one that points nowhere they fail, so that
    a mistyped path does not pass for a run.
    """
    given = os.environ.get(SHARED)
    if not given:
        pytest.skip(f"needs third-party data: set {SHARED} to the folder that holds data/")
    if not (Path(given) / "data").is_dir():
        pytest.fail(f"{SHARED}={given}: no folder data/ in it")
    return Path(given).resolve()
