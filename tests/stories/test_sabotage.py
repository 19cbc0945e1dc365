"""A cycle that ruins the model is never published, whatever it says it learned.

The bundled starter, the gate's own limits, a learning rate a hundred times too high.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from autodidact import checkpoints
from autodidact.models.bases import STARTER
from autodidact.store.ledger import LearnerStore
from tests.workplace import ended, prepare


@pytest.mark.slow
def test_a_hundredfold_learning_rate_is_refused_and_its_report_kept(tmp_path: Path) -> None:
    place = prepare(tmp_path, STARTER)
    text = place.config.read_text()
    text = re.sub(r"\[gate\].*?\[server\]", "[server]", text, flags=re.DOTALL)
    for before, after in {
        "cycle_minutes = 0.02": "cycle_minutes = 0.5",
        "learning_rate = 0.02": "learning_rate = 0.1",
        "rank = 8": "rank = 64\nmin_exposures = 5",
    }.items():
        assert before in text
        text = text.replace(before, after)
    place.config.write_text(text)

    code, out = ended(place.start("web_learner.py", "--once", "--plain"), 240)

    assert code == 0, out
    assert checkpoints.current(place.home) == 0
    assert checkpoints.versions(place.home) == []
    store = LearnerStore(place.home / "learner.db", readonly=True)
    cycle = store.cycles.get(1)
    store.close()
    assert cycle is not None
    assert cycle.state in ("rejected", "failed"), cycle
    if cycle.state == "rejected":
        assert "general" in cycle.report.failed
        assert cycle.report.probes, "what it answered can be read"
