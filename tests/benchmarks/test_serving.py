"""The serving benchmark: its arithmetic, its endless model, and a load on the naive server."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodidact.models import loading
from autodidact.models.prompts import prompt_ids
from autodidact.types.chat import Message
from benchmarks import serving
from benchmarks.load import cells, figures, report, servers, shapes

pytest_plugins = ["tests.core_fixtures"]


def reply(sent: float, times: list[float], **more: Any) -> dict[str, Any]:
    """A reply of one token at each of these times."""
    counts = list(range(1, len(times) + 1))
    plain = {"client": 0, "prompt": 0, "status": 200, "version": 1, "ended": None, "fault": ""}
    return {**plain, "sent": sent, "times": times, "counts": counts, "text": "", **more}


def result(*replies: dict[str, Any], begun: float = 0.0, ended: float = 10.0) -> dict[str, Any]:
    return {"begun": begun, "ended": ended, "cpu_s": 1.0, "replies": list(replies)}


def test_clients_come_evenly_over_the_ramp() -> None:
    assert figures.starts(4, 10.0) == [0.0, 2.5, 5.0, 7.5]
    assert figures.starts(1, 0.0) == [0.0]


@pytest.mark.parametrize("q", [0.0, 0.5, 0.9, 0.99, 1.0])
def test_percentiles_are_numpys(q: float) -> None:
    values = [5.0, 1.0, 4.0, 2.5, 9.0, 7.0]
    assert figures.percentile(values, q) == pytest.approx(np.quantile(values, q))
    assert figures.percentile([], q) is None


def test_tokens_count_where_they_arrive() -> None:
    """A text event may bring several tokens at once."""
    loaded = result(reply(0, [1, 4, 6]), {**reply(0, [2, 7]), "counts": [2, 5]})
    assert figures.tokens_between(loaded, 0, 10) == 8
    assert figures.tokens_between(loaded, 2, 7) == 4


def test_the_steady_window_begins_when_the_ramp_ends() -> None:
    loaded = result(reply(0, [1, 2, 3, 4, 5, 6, 7, 8], ended=8.0))
    closed = figures.figures(loaded, "closed", 4.0, 8)
    assert closed["tokens_s"] == 5 / 6
    assert figures.figures(loaded, "open", 4.0, 8)["tokens_s"] == 8 / 10
    assert closed["failed"] == 0
    assert closed["client_cpu"] == 0.1


def test_a_wait_that_was_cut_counts_as_long_as_it_was_if_that_is_long() -> None:
    refused = reply(3, [], fault="OSError: refused")
    loaded = result(reply(0, [2]), reply(1, []), reply(9.5, []), refused)
    assert figures.first_tokens(loaded) == ([2, 9.0], 1)
    assert figures.first_tokens(result(reply(9.5, []))) == ([0.5], 1)


def test_a_reply_of_another_length_has_failed() -> None:
    loaded = result(reply(0, [1, 2], ended=3.0), reply(0, [1], ended=3.0), reply(0, [1]))
    assert figures.faults(loaded, 2) == ["1 tokens instead of 2"]
    assert figures.faults(loaded) == []


def test_a_stall_is_the_longest_gap_that_a_reload_overlaps() -> None:
    between = figures.intervals(result(reply(0, [1, 2, 5, 6]), reply(0, [1.5, 2.5, 3.5])))
    assert figures.stalls(between, [(3.0, 4.0), (5.5, 5.7), (6.5, 7.0), (0.5, 2.1)]) == [3, 1, 3]


def test_an_event_without_a_new_token_makes_no_gap() -> None:
    again = {**reply(0, [1, 2, 2.1]), "counts": [1, 2, 2]}
    assert figures.intervals(result(again)) == [(1, 2)]


def test_growth_is_a_least_squares_slope() -> None:
    values = [3.0, 5.5, 6.0, 9.0]
    assert figures.slope(values) == pytest.approx(np.polyfit(range(4), values, 1)[0])
    assert figures.slope([1.0]) == 0.0


def test_a_version_is_live_when_the_first_reply_says_so() -> None:
    rows = [
        {"version": 2, "publishing": 2.0, "published": 2.2, "live": 4.0, "quiet": [6.0, 7.0],
         "rss": 100.0, "pss": 90.0},
        {"version": 3, "publishing": 8.0, "published": 8.2, "live": None, "quiet": None,
         "rss": 101.0, "pss": 91.0},
    ]  # fmt: skip
    loaded = result(reply(0, [1, 2, 5, 6, 7]), reply(2.5, [3.2, 4.2], version=2))
    found = cells.summary_of_reloads(loaded, rows, {"rss": 99.0, "pss": 89.0}, 64)
    assert (found["reloads"], found["live"]) == (2, 1)
    assert found["reload_p50"] == pytest.approx(1.0)
    assert found["stall"]["p99_s"] == 3
    assert found["quiet"]["p99_s"] == 1
    assert found["rss_growth_each"] == 0.0


def test_prompts_have_exactly_the_asked_length() -> None:
    found = shapes.fitting(lambda text: len(text.replace(" ", "")), ["a", "bb", "ccc"], 9, 5, 0)
    assert len(set(found)) == 5
    assert {len(text.replace(" ", "")) for text in found} == {9}
    with pytest.raises(ValueError, match="exactly 9 tokens"):
        shapes.fitting(lambda text: 2 * len(text.split()), ["a"], 9, 1, 0)


def test_the_endless_copy_has_no_stop_token_in_reach(tmp_path: Path) -> None:
    folder = shapes.endless(shapes.STARTER, tmp_path / "endless")
    base = loading.load(folder, 1)
    rows = base.model.get_output_embeddings().weight.shape[0]
    assert base.stop_ids == {rows}
    [prompt] = shapes.prompts(folder, 64, 1)
    assert len(prompt_ids(base, [Message("user", prompt)])) == 64


def options(monkeypatch: pytest.MonkeyPatch, *more: str) -> argparse.Namespace:
    monkeypatch.setattr(sys, "argv", ["serving.py", "--out", "x", *more])
    return serving.arguments()


def test_the_sides_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    args = options(monkeypatch, "--streams", "1,8", "--rounds", "2", "--reload-streams", "8")
    keys = [key for key, _, _ in serving.plan(args)]
    assert len(keys) == len(set(keys))
    assert keys[:2] == ["streams/closed/1/naive/0", "streams/closed/1/ours/0"]
    assert "streams/closed/8/ours/1" in keys
    assert "streams/open/1/ours/0" not in keys
    assert keys.index("streams/open/8/ours/1") < keys.index("streams/open/8/naive/1")
    assert [key for key in keys if key.startswith("reload")] == ["reload/20/8"]


def test_a_run_goes_on_only_with_the_same_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "serving.json"
    given = serving.flags(options(monkeypatch))
    state = serving.resumed(path, given)
    state["cells"]["streams/closed/1/ours/0"] = {"tokens_s": 1.0}
    path.write_text(json.dumps(state))
    assert serving.resumed(path, given)["cells"] == state["cells"]
    with pytest.raises(SystemExit, match="was measured with threads 2, not 1"):
        serving.resumed(path, serving.flags(options(monkeypatch, "--threads", "1")))


def test_the_report_compares_medians(tmp_path: Path) -> None:
    def cell(tokens_s: float) -> dict[str, Any]:
        loaded = result(reply(0, [1, 2, 3], ended=3.0))
        extra = {"server_cpu": 1.0, "tokens_s": tokens_s}
        return {**figures.figures(loaded, "closed", 0.0, 3), **extra}

    measured = {
        f"streams/closed/8/{side}/{number}": cell(value)
        for side, values in (("naive", (10.0, 12.0, 11.0)), ("ours", (110.0, 90.0, 132.0)))
        for number, value in enumerate(values)
    } | {"engines/8/continuous/0": {"error": "RuntimeError: no"}}
    state = {"settings": {}, "machine": "one core", "cells": measured}
    report.write(tmp_path, state)
    text = (tmp_path / "serving.md").read_text()
    [row] = [line for line in text.splitlines() if line.startswith("| closed | 8 | ours")]
    assert "| 110.0 (90.0–132.0) |" in row
    assert row.endswith("| 10.00 |")
    assert "RuntimeError: no" in text
    assert (tmp_path / "serving.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_naive_server_streams_what_the_load_asks_for(tmp_path: Path, tiny_folder: Any) -> None:
    folder = tiny_folder("smollm2")
    adapters = shapes.Adapters(folder, 4, 0.02)
    saved = tmp_path / "adapter"
    saved.mkdir()
    (saved / "adapter_config.json").write_bytes(adapters.config)
    (saved / "adapter_model.safetensors").write_bytes(adapters.weights(1))
    knobs = servers.Knobs(1, "float32", 8, 128, merged=False)
    body = {"stream": True, "max_length": 8, "temperature": 0.7, "top_p": 0.9, "top_k": 50}
    with servers.naive(tmp_path, folder, saved, knobs) as server:
        plan = {
            "address": server.address, "form": "open", "starts": [0.0, 0.1, 0.2], "seconds": 60,
            "prompts": ["Who built it?"], "body": body,
        }  # fmt: skip
        loaded = servers.Helper("clients", tmp_path, plan).result()
        assert server.cpu_s() > 0
    assert figures.faults(loaded, 8) == []
    assert [one["counts"][-1] for one in loaded["replies"]] == [8, 8, 8]
