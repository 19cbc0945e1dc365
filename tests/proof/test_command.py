"""The whole proof with a tiny model on made-up articles, cut off and gone on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autodidact.proof import page
from autodidact.settings import PROJECT
from tests.proof import made_up
from tests.tiny_models import Family
from tests.workplace import child_environment

pytest_plugins = ["tests.core_fixtures"]


def command(folder: Path, model: Path, *more: str) -> list[str]:
    documents, questions = made_up.write(folder)
    return [
        sys.executable, "-m", "autodidact", "prove", "--documents", str(documents),
        "--questions", str(questions), "--out", str(folder / "out"), "--model", str(model),
        "--articles", "4", "--minutes", "0.005", "--threads", "1", *more,
    ]  # fmt: skip


def environment() -> dict[str, str]:
    given = {k: v for k, v in child_environment().items() if k != "SHARED_DATA_DIR"}
    return {**given, "AUTODIDACT_TRAINING__RANK": "4"}


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=PROJECT, env=environment(), capture_output=True, text=True, timeout=250
    )


@pytest.mark.slow
def test_a_proof_that_was_killed_goes_on_and_ends_with_a_page(
    tmp_path: Path, tiny_folder: Callable[[Family], Path]
) -> None:
    arguments = command(
        tmp_path, tiny_folder("smollm2"), "--cycles", "2",
        "--controls", "naive,aa,placebo,shuffled-within,shuffled-between",
    )  # fmt: skip
    units = tmp_path / "out" / "work"
    first = subprocess.Popen(arguments, cwd=PROJECT, env=environment(), stdout=subprocess.PIPE)
    try:
        while not list(units.glob("s0-learned-A-train-01.json")):
            assert first.poll() is None
            time.sleep(0.02)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert first.stdout is not None
        first.stdout.close()
    kept = {path.name: path.stat().st_mtime_ns for path in units.glob("*.json")}
    assert not (tmp_path / "out" / "result.json").exists()

    done = run(arguments)
    assert done.returncode == 0, done.stderr
    assert {name: (units / name).stat().st_mtime_ns for name in kept} == kept
    assert "trying out" not in done.stdout
    assert done.stderr == ""

    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["schema"] == 1
    assert set(result) == {
        "schema", "parameters", "model", "minutes", "data", "arms", "general_base", "outcomes",
        "aa", "books", "streams", "coverage", "questions", "seconds",
    }  # fmt: skip
    kinds = {"learned", "naive", "placebo", "shuffled-within", "shuffled-between"}
    assert set(result["outcomes"]) == kinds
    for subsets in result["outcomes"].values():
        assert set(subsets) == {"all", "unknown"}
        assert set(subsets["all"]) == {"margin", "choice", "em", "f1", "nll"}
        assert set(subsets["all"]["margin"]) == {"before", "after", "effect", "arms"}
    assert set(result["coverage"]["effects"]) == kinds
    assert result["coverage"]["share"]["n"] == 24
    assert result["questions"] == 24
    assert len(result["streams"]) == 2
    assert len(result["arms"]) == 7
    assert all(cycle["steps"] > 0 for arm in result["arms"] for cycle in arm["cycles"])
    assert result["general_base"]["wikitext"] is None
    text = (tmp_path / "out" / "report.md").read_text()
    assert text == page.markdown(result)
    for plot in ("effects.png", "books.png", "coverage.png", "retention.png"):
        assert plot in text
        assert (tmp_path / "out" / plot).read_bytes().startswith(b"\x89PNG")

    again = run([*arguments, "--seeds", "2"])
    assert again.returncode == 2
    assert len(again.stderr.strip().splitlines()) == 1
    assert "was begun with seeds 1, now it is 2" in again.stderr


def test_a_bad_file_is_one_line_before_any_model_is_loaded(tmp_path: Path) -> None:
    arguments = command(tmp_path, tmp_path / "no-model")
    (tmp_path / "questions.jsonl").write_text('{"document": "Ardle Mill"}\n')
    done = run(arguments)
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert "questions.jsonl, line 1: question must be a text" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "more", [("--controls", "magic"), ("--budget-minutes", "5"), ("--articles", "40")]
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, more: tuple[str, ...]) -> None:
    done = run(command(tmp_path, tmp_path / "no-model", *more))
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
