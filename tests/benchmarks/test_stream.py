"""The arithmetic of the learning benchmarks: intervals, retention, the matrix, the summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autodidact.types.cycle import ProbeResult
from autodidact.types.documents import Probe
from benchmarks.learning import stream, world_recall


def row(cycle: int, right: dict[str, int], state: str = "published") -> dict[str, Any]:
    documents = sorted({int(probe.rpartition("-")[0]) for probe in right})
    return {
        "cycle": cycle, "kind": "learn", "state": state, "seconds": 30.0, "documents": documents,
        "acquired": right, "learned": None, "exposures": 100, "reasons": [],
    }  # fmt: skip


def measurement(after: int, right: dict[str, int]) -> dict[str, Any]:
    return {
        "cycles": after, "after": after, "version": after, "taught": right,
        "control": world_recall.share([0, 0, 1]), "general_base": 3.0, "general": 3.02,
        "wikitext_base": 4.0, "wikitext": 4.1, "seconds": 5.0,
    }  # fmt: skip


@pytest.fixture
def state() -> dict[str, Any]:
    rows = [row(n, {f"{n}-a": 1, f"{n}-b": int(n % 2)}) for n in range(1, 13)]
    rows.insert(6, row(99, {}, "rejected"))
    taught = {probe: right for r in rows for probe, right in r["acquired"].items()}
    early = {probe: right for probe, right in taught.items() if int(probe[:-2]) <= 5}
    faded = {probe: right * int(probe.endswith("a")) for probe, right in taught.items()}
    return {
        "settings": {"seed": 0},
        "rows": rows,
        "measurements": [measurement(5, early), measurement(12, faded)],
    }


def test_the_difference_of_two_shares_is_newcombes() -> None:
    """His example (1998, table II a, method 10): 56/70 − 48/80."""
    value, low, high = world_recall.newcombe(56, 70, 48, 80)
    assert (value, low, high) == (
        pytest.approx(0.2), pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5)
    )  # fmt: skip
    with pytest.raises(ValueError, match="both sides"):
        world_recall.newcombe(1, 2, 0, 0)


def test_rows_group_by_arm_wording_and_documents() -> None:
    asked = []
    results = []
    for i, (documents, right) in enumerate([("taught", 1), ("taught", 1), ("control", 0)]):
        probe = Probe(f"{i}-a", i, "Q?", "A", ("B",), "name", "r", "r/0", "taught")
        asked.append((documents, "seen", probe))
        results.append(ProbeResult(probe.id, "A", right, -0.5, 1.0))
    rows = list(world_recall.rows_of(asked, {"learned": results}))
    taught = next(r for r in rows if r["documents"] == "taught")
    assert (taught["k"], taught["n"], taught["nll"]) == (2, 2, 0.5)
    assert next(r for r in rows if r["documents"] == "control")["k"] == 0
    assert next(r for r in rows if "difference" in r)["difference"] == 1.0


def test_what_is_kept_is_a_share_of_what_was_taught() -> None:
    found = stream.retention([("1", 1, 1), ("1", 1, 0), ("2", 1, 1), ("2", 0, 1), ("3", 1, 0)])
    assert (found["taught"], found["now"], found["n"]) == (4, 3, 5)
    assert found["ratio"] == 0.75
    assert found["low"] < 0.75 < found["high"]
    assert (found["still"]["k"], found["still"]["n"]) == (2, 4)
    assert stream.retention([("1", 1, 1), ("2", 1, 1)])["low"] == 1.0
    assert stream.retention([("1", 0, 1)])["ratio"] is None


def test_the_matrix_has_a_cell_for_what_was_taught_by_then(state: dict[str, Any]) -> None:
    cycles, after, cells = stream.matrix(state)
    assert cycles == list(range(1, 13))
    assert after == [5, 12]
    assert cells[0] == [1.0, 0.5]
    assert cells[1] == [0.5, 0.5]
    assert cells[11] == [None, 0.5]


def test_the_summary_counts_cycles_facts_and_seconds(state: dict[str, Any]) -> None:
    found = stream.summary(state)
    assert (found["accepted"]["k"], found["accepted"]["n"]) == (12, 13)
    assert (found["acquisition"]["k"], found["acquisition"]["n"]) == (18, 24)
    assert found["seconds_per_fact_taught"] == 13 * 30 / 24
    assert found["kept_end"]["ratio"] == 12 / 18
    assert found["kept_later"]["n"] == 4, "only cycles 1 and 2 were measured ten cycles later"
    assert found["kept_later"]["ratio"] == 2 / 3
    assert found["general_rise"] == pytest.approx(0.02)
    assert found["wikitext_ppl_ratio"] == pytest.approx(1.10517, abs=1e-5)
    stream.summary({"settings": {}, "rows": [], "measurements": []})


def test_report_and_picture_are_made_of_it(state: dict[str, Any], tmp_path: Path) -> None:
    state["summary"] = stream.summary(state)
    text = stream.markdown(json.loads(json.dumps(state)))
    assert "12/13 = 92.3 %" in text
    assert "| 99 | learn | rejected | 0 | – | 30 |" in text
    stream.plot(state, tmp_path / "stream.png")
    assert (tmp_path / "stream.png").read_bytes().startswith(b"\x89PNG")


def test_every_fourth_text_is_held_out(tmp_path: Path) -> None:
    rows = [[1, n] for n in range(9)]
    (tmp_path / "anchors.json").write_text(json.dumps({"texts": rows, "chats": []}))
    assert stream.held_out(tmp_path) == [[1, 0], [1, 4], [1, 8]]


def test_the_curve_is_drawn(tmp_path: Path) -> None:
    rows = [
        {"arm": "learned", "wording": worded, "documents": documents,
         **world_recall.share([1, 0, 1, 1])}
        for worded in ("seen", "never")
        for documents in ("taught", "control")
    ]  # fmt: skip
    points = [{"exposures": n, "rows": rows} for n in (20, 60, 150)]
    world_recall.plot(points, tmp_path / "recall.png")
    assert {path.name for path in tmp_path.iterdir()} == {"recall.png", "recall.svg"}
