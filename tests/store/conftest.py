"""A ledger in a file of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from autodidact.store.ledger import LearnerStore


@pytest.fixture
def store(tmp_path: Path) -> LearnerStore:
    return LearnerStore(tmp_path / "learner.db")
