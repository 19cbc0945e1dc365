"""The list of versions, and the commands that choose the one that serves."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from autodidact import checkpoints
from autodidact.checkpoints import MANIFEST, listing
from autodidact.commands import versions
from autodidact.errors import AutodidactError, CheckpointError
from autodidact.home import prepare_home
from autodidact.types.report import CycleReport
from tests.bench import Bench
from tests.ledgers import figures
from tests.versions import manifest_for, publish, stage
from tests.workplace import Workplace, prepare

pytest_plugins = ["tests.core_fixtures"]
DAY = 1_790_000_000.0


def publish_told(home: Path, version: int, parent: int | None, **more: Any) -> None:
    """A version whose manifest tells as much as the learner's does."""
    report = CycleReport(version, "published", 9, figures=figures(10 + version, 20, before=1))
    told = {"created_at": DAY + version, "kind": "learn", "report": asdict(report)}
    manifest = {**manifest_for(parent), "cycle": version, **told, **more}
    checkpoints.publish(home, stage(home, version), version, manifest)


@pytest.fixture
def three(home: Path) -> Path:
    for version in (1, 2, 3):
        publish_told(home, version, version - 1 or None)
    return home


def marks(home: Path, live: int | None = None) -> dict[int, list[str]]:
    return {row["version"]: row["marks"] for row in listing.listing(home, live)}


# The list ---------------------------------------------------------------------------------------


def test_before_anything_is_published_there_is_the_base(home: Path) -> None:
    [base] = listing.listing(home)
    assert (base["version"], base["marks"]) == (0, ["serving", "newest"])
    assert {base[key] for key in ("published_at", "parent", "cycle", "learned", "bytes")} == {None}


def test_a_version_is_told_as_its_manifest_has_it(three: Path) -> None:
    rows = listing.listing(three)
    assert [row["version"] for row in rows] == [3, 2, 1, 0]
    size = sum(p.stat().st_size for p in checkpoints.folder(three, 3).iterdir())
    assert rows[0] == {
        "version": 3, "published_at": DAY + 3, "parent": 2, "cycle": 3, "kind": "learn",
        "learned": {"k": 13, "n": 20}, "marks": ["serving", "newest"], "rejected": None,
        "bytes": size - (checkpoints.folder(three, 3) / MANIFEST).stat().st_size,
    }  # fmt: skip
    assert rows[2]["parent"] == 0, "the base"
    json.dumps(rows)


def test_the_marks_say_what_serves_and_why(three: Path) -> None:
    assert marks(three) == {3: ["serving", "newest"], 2: ["kept"], 1: ["kept"], 0: []}
    checkpoints.pin(three, 2)
    assert marks(three) == {3: ["newest"], 2: ["serving", "pinned"], 1: ["kept"], 0: []}
    checkpoints.pin(three, 0)
    assert marks(three)[0] == ["serving", "pinned"]
    checkpoints.unpin(three)
    checkpoints.roll_back(three, 1)
    assert marks(three) == {3: ["kept"], 2: ["kept"], 1: ["serving", "newest", "pinned"], 0: []}


def test_what_was_rejected_does_not_serve_but_its_nearest_good_parent(three: Path) -> None:
    checkpoints.reject(three, 3, "NaN")
    assert marks(three)[3] == ["newest", "rejected"]
    assert marks(three)[2] == ["serving"]
    assert listing.listing(three)[0]["rejected"] == "NaN"
    checkpoints.reject(three, 2, "NaN")
    checkpoints.reject(three, 1, "NaN")
    assert marks(three)[0] == ["serving"]


def test_the_server_knows_better_what_it_serves(three: Path) -> None:
    checkpoints.reject(three, 3, "NaN")
    assert marks(three, live=1)[1] == ["serving"]
    assert marks(three, live=1)[2] == ["kept"]


@pytest.mark.parametrize(
    "text",
    [
        '{"parent": null, "report": {"learned": {"k": "x"}}, "files": {"a": {"size": "x"}}}',
        '{"parent": null, "report": [], "files": 7, "created_at": "today"}',
        '{"report": {}}',
        "not JSON",
        "[]",
    ],
)
def test_a_damaged_manifest_tells_nothing_and_hides_no_other(three: Path, text: str) -> None:
    (checkpoints.folder(three, 2) / MANIFEST).write_text(text)
    rows = {row["version"]: row for row in listing.listing(three)}
    assert (rows[2]["learned"], rows[2]["bytes"], rows[2]["published_at"]) == (None, None, None)
    assert rows[1]["learned"] == {"k": 11, "n": 20}
    listing.table(list(rows.values()))


def test_the_table_has_a_line_each_under_its_headings(
    three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.pin(three, 1)
    checkpoints.reject(three, 2, "sha256 mismatch")
    head, *lines = listing.table(listing.listing(three)).splitlines()
    assert head.split() == ["version", "published", "parent", "cycle", "learned", "size"]
    assert [line.split()[0] for line in lines] == ["3", "2", "1", "base"]
    assert lines[0].endswith("newest")
    assert lines[1].endswith("rejected: sha256 mismatch")
    assert "11 of 20" in lines[2]
    assert lines[2].endswith("serving, pinned")
    assert "2026-09-2" in lines[2]
    assert len({line.index(" of 20") for line in lines[:3]}) == 1, "columns are aligned"


# The commands -----------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    (tmp_path / "model").mkdir()
    made = prepare(tmp_path, tmp_path / "model")
    prepare_home(made.home)
    for version in (1, 2, 3):
        publish_told(made.home, version, version - 1 or None)
    return made


def command(place: Workplace, *words: str) -> Any:
    app = typer.Typer()
    for one in (versions.versions, versions.pin, versions.unpin, versions.rollback):
        app.command()(one)
    return CliRunner().invoke(app, [*words, "--config", str(place.config)])


def said(place: Workplace, *words: str) -> str:
    """What a command prints, which must succeed."""
    done = command(place, *words)
    assert done.exit_code == 0, done.output
    return str(done.output)


def refused(place: Workplace, *words: str) -> str:
    done = command(place, *words)
    assert isinstance(done.exception, AutodidactError), done.output
    assert done.exception.exit_code == 3
    assert "\n" not in str(done.exception)
    return str(done.exception)


def test_pinning_says_until_when(place: Workplace) -> None:
    line = said(place, "pin", "1")
    assert line == (
        "pinned: checkpoint 1 answers in two seconds, whatever is published, until `unpin`\n"
    )
    assert checkpoints.pinned(place.home) == 1
    assert checkpoints.current(place.home) == 3, "the learner goes on from the newest"
    assert list((place.home / "inbox").iterdir()) == [], "and queues nothing again"
    assert "the untouched base" in said(place, "pin", "0")
    assert "checkpoint 3, the newest" in said(place, "unpin")
    assert checkpoints.pinned(place.home) is None


def test_the_list_is_a_table_or_json(place: Workplace) -> None:
    assert json.loads(said(place, "versions", "--json")) == listing.listing(place.home)
    assert said(place, "versions") == listing.table(listing.listing(place.home)) + "\n"


def test_what_is_missing_or_rejected_is_named(place: Workplace) -> None:
    checkpoints.reject(place.home, 2, "NaN in q_proj")
    for words in (("pin", "2"), ("rollback", "--to", "2"), ("rollback",)):
        assert refused(place, *words) == "000002 was rejected: NaN in q_proj"
    for words in (("pin", "9"), ("rollback", "--to", "9")):
        assert refused(place, *words) == (
            "000009: no such version; there are 000001, 000002, 000003 and 0 (the base)"
        )
    assert checkpoints.pinned(place.home) is None


def test_a_pin_on_what_is_gone_is_told_and_ends_by_another(place: Workplace) -> None:
    said(place, "pin", "1")
    os.rename(checkpoints.folder(place.home, 1), place.folder / "taken")
    assert "pinned to 1, which is not there; choose again" in said(place, "versions")
    assert refused(place, "rollback") == "000001: no such version"
    assert "rolled back from 1 to 2" in said(place, "rollback", "--to", "2")
    assert checkpoints.serving(place.home) == 2


def test_a_damaged_pin_is_told_and_ends_by_unpin(place: Workplace) -> None:
    (place.home / "PIN").write_text("1\n2\n")
    assert "PIN: not a version number; remove it: python -m autodidact unpin" in refused(
        place, "versions"
    )
    said(place, "unpin")
    assert "serving" in said(place, "versions")


def test_after_a_rollback_learning_goes_on_and_serving_does_not(bench: Bench) -> None:
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    bench.learn()
    bench.learn()
    said(bench.place, "rollback")
    assert (checkpoints.serving(bench.home), checkpoints.current(bench.home)) == (1, 1)
    report = bench.learn()
    assert (report.cycle, report.parent, report.state) == (3, 1, "published")
    assert (checkpoints.serving(bench.home), checkpoints.current(bench.home)) == (1, 3)
    assert bench.cycle(3).documents == [3, 4], "what was taught since is taught again"
    said(bench.place, "unpin")
    assert checkpoints.serving(bench.home) == 3


def test_while_one_is_pinned_the_learner_goes_on_from_the_newest(bench: Bench) -> None:
    bench.restart(training={"documents_per_cycle": 2}, keep_versions=2)
    bench.learner.fetch()
    bench.learn()
    said(bench.place, "pin", "1")
    report = bench.learn()
    assert (report.cycle, report.parent) == (2, 1)
    for version in (3, 4):
        publish(bench.home, version, version - 1)
    bench.learner.recover()
    assert checkpoints.versions(bench.home) == [1, 3, 4], "retention spares it"
    assert checkpoints.serving(bench.home) == 1


def test_unreadable_files_are_no_traceback(place: Workplace) -> None:
    (place.home / "CURRENT").write_text("x")
    for words in (("versions",), ("rollback",)):
        assert "CURRENT: not a version number" in refused(place, *words)
    said(place, "pin", "2")
    with pytest.raises(CheckpointError):
        checkpoints.current(place.home)
