"""JSON between processes: what goes in comes out, and what does not fit is refused by its name."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from autodidact.errors import Misfit
from autodidact.types import wire
from autodidact.types.chat import Message
from autodidact.types.cycle import Baseline, Job, Lesson, Parent
from autodidact.types.documents import Chunk, Example, Probe
from tests.jobs import job

ASKED = (Message("user", "Who keeps it?"), Message("assistant", "Odo"))
EXAMPLE = Example("question", "7:0", 7, ASKED, fact="7-a")
FULL = job(
    parent=Parent(2, "versions/000002"),
    lessons=(Lesson(7, (Chunk("7:0", 7, "", "Odo keeps it."),), (EXAMPLE, EXAMPLE)),),
    replay=(EXAMPLE,),
    shares={"7-a": 0.5},
    forgets=(3,),
    probes=(Probe("7-a", 7, "Who?", "Odo", ("Ida",), "name", "by", "by/0", "kept"),),
    when_learned={"7-a": -1.0},
    limits={"kept": 4},
    training={"rank": 8, "learning_rate": None},
    known={"base": Baseline((3.0,), (True,))},
    steps=5,
)


def text(**more: Any) -> str:
    return json.dumps({**json.loads(wire.to_json(FULL)), **more})


def test_a_job_comes_back_as_it_was() -> None:
    assert wire.from_json(Job, wire.to_json(FULL), "job.json") == FULL
    assert wire.from_json(Job, wire.to_json(job()), "job.json") == job()
    assert wire.from_json(tuple[Example, ...], wire.to_json([EXAMPLE]), "") == (EXAMPLE,)


def test_what_is_not_finite_survives() -> None:
    odd = job(when_learned={"a": math.inf, "b": -math.inf, "c": math.nan})
    found = wire.from_json(Job, wire.to_json(odd), "job.json").when_learned
    assert (found["a"], found["b"]) == (math.inf, -math.inf)
    assert math.isnan(found["c"])


def without_a_kind() -> list[dict[str, Any]]:
    lessons: list[dict[str, Any]] = json.loads(text())["lessons"]
    del lessons[0]["examples"][1]["kind"]
    return lessons


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (text(lessons=without_a_kind()), "job.json: lessons.0.examples.1.kind: Field required"),
        (text(cycle="3"), "job.json: cycle: Input should be a valid integer"),
        (text(documents=[]), "job.json: documents: Unexpected keyword argument"),
        (text(kind="dream"), "job.json: kind: Input should be 'learn', 'consolidate' or 'forget'"),
        (text()[:-9], "job.json: Invalid JSON: EOF"),
        ("[1]", "job.json: Input should be"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line_that_names_the_field(told: str, line: str) -> None:
    with pytest.raises(Misfit) as caught:
        wire.from_json(Job, told, "job.json")
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
