"""What earlier cycles measured is taken over only where the same is measured again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autodidact.learning import baselines
from autodidact.types.cycle import Baseline, Measurement, Parent
from autodidact.types.events import DoneEvent, PlanEvent, StudyResult

ANCHORS: dict[str, Any] = {
    "texts": [[1, n] for n in range(6)],
    "chats": [],
    "real": {"texts": [], "chats": [], "blocks": [[7, 8]], "prompts": [{"id": "a", "prompt": [9]}],
             "due": 2},
}  # fmt: skip
PARENT = Parent(3, "versions/000003")


def result() -> StudyResult:
    base, candidate = (
        Measurement(arm, 1.0, (), (2.0,), (True,), (f"I am {arm}.",), ("",))
        for arm in ("base", "candidate")
    )
    done = DoneEvent(steps=1, exposures=1, step=1.0, replay=0.0, first_step_at=None)
    return StudyResult(PlanEvent((1,), 1, 0.1, 0.0), done, base, base, (candidate,))


def write(home: Path, anchors: Any) -> None:
    (home / "anchors.json").write_text(json.dumps(anchors))


def test_figures_of_the_same_anchors_are_known_with_their_replies(tmp_path: Path) -> None:
    write(tmp_path, ANCHORS)
    baselines.remember(tmp_path, result(), 3)
    more = ANCHORS | {"texts": [*ANCHORS["texts"], [1, 9]]}
    more["real"] = ANCHORS["real"] | {"chats": [{"prompt": [1], "reply": [2]}]}
    write(tmp_path, more)  # appended to
    found = baselines.known(tmp_path, PARENT)
    assert found["base"] == Baseline((2.0,), (True,), ("I am base.",))
    assert found["parent"] == Baseline((2.0,), (True,), ("I am candidate.",))
    assert baselines.known(tmp_path, Parent(2, "versions/000002")).keys() == {"base"}


@pytest.mark.parametrize(
    "changed",
    [
        {"texts": [[5, 5], *ANCHORS["texts"]]},
        {"real": ANCHORS["real"] | {"blocks": [[7, 9]]}},
        {"real": ANCHORS["real"] | {"prompts": [{"id": "b", "prompt": [9]}]}},
        {"real": None},
    ],
    ids=["texts", "blocks", "prompts", "none"],
)
def test_those_of_others_are_not(tmp_path: Path, changed: dict[str, Any]) -> None:
    """Real ones come before those that a home had sampled already."""
    write(tmp_path, ANCHORS)
    baselines.remember(tmp_path, result(), 3)
    write(tmp_path, ANCHORS | changed)
    assert baselines.known(tmp_path, PARENT) == {}
