"""The app around a queue of replies, on a real port of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.web.fakes import Learner, LiveServer, QueueGenerator


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def generator() -> QueueGenerator:
    return QueueGenerator()


@pytest.fixture
def learner(home: Path) -> Iterator[Learner]:
    learner = Learner(home)
    yield learner
    learner.close()


@pytest.fixture
def server(home: Path, generator: QueueGenerator) -> Iterator[LiveServer]:
    server = LiveServer(home, generator, max_concurrent=2, max_queue=1).start()
    yield server
    server.stop()


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client
