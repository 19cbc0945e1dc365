"""The benchmark that asks the exam: of a home in memory, and of a server."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from autodidact import checkpoints
from autodidact.errors import SourceError
from autodidact.evaluation.exam import ExamQuestion
from autodidact.models import bases
from autodidact.store.ledger import LearnerStore
from autodidact.types.documents import Document
from benchmarks import exam
from tests import versions
from tests.store.rows import run_cycle
from tests.web.fakes import LiveServer, QueueGenerator

if TYPE_CHECKING:
    from autodidact.models.loading import LoadedBase
    from tests.tiny_models import Family

pytest_plugins = ["tests.core_fixtures"]

LIGHT = ExamQuestion("light-1", ("light.md",), "Who looks after the light?", ("Maren Dace",))
OAR = ExamQuestion("oar-1", ("oar.md",), "How many beds?", ("17", "seventeen"))
BOTH = ExamQuestion("both-1", ("light.md", "oar.md"), "Which is older?", ("1647",))


@pytest.fixture
def learned(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that has learned one of the two articles of a small exam."""
    monkeypatch.setattr(exam.exam, "read", lambda path: (LIGHT, OAR, BOTH))
    store = LearnerStore(home / "learner.db")
    for name in ("light", "oar"):
        store.documents.add(
            Document("files:library", f"library/{name}.md", name, f"A {name}.", "", name, "")
        )
    run_cycle(store, 1, [1], "published")
    store.close()
    return home


def printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["exam.py", *map(str, arguments)])
    exam.main()
    return capsys.readouterr().out.splitlines()


def test_base_and_newest_are_asked_in_memory(
    learned: Path,
    tiny_folder: Callable[[Family], Path],
    llama: LoadedBase,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_folder("llama")
    adapter = versions.save_adapter(llama, tmp_path / "adapter")
    staged = versions.stage(learned, 1, (adapter / checkpoints.WEIGHTS).read_bytes())
    (staged / checkpoints.CONFIG).write_bytes((adapter / checkpoints.CONFIG).read_bytes())
    sha = bases.resolve(str(model), "", learned, lambda line: None).sha256
    manifest = versions.manifest_for(None)
    manifest["base"]["sha256"] = sha
    checkpoints.publish(learned, staged, 1, manifest)
    lines = printed(
        capsys, monkeypatch, "--home", learned, "--model", model, "--threads", 1, "--list"
    )
    asked = [line.split("\t") for line in lines if "\t" in line]
    newest = checkpoints.name(1)
    assert [row[:4:3] for row in asked] == [
        [name, q.id] for name in ("base", newest) for q in (LIGHT, OAR, BOTH)
    ]
    assert [row[1] for row in asked] == ["taught", "not taught", "not taught"] * 2
    assert {row[2] for row in asked} == {"wrong"}
    replies = [row[5] for row in asked]
    assert replies[:3] != replies[3:], "the adapter changes what the base says"
    assert [line for line in lines if "\t" not in line] == [
        f"{name}, {group}: exact {figures}, contained {figures}"
        for name in ("base", newest)
        for group, figures in (
            ("taught", "0/1 = 0.0% (0.0%–79.3%)"),
            ("not taught", "0/2 = 0.0% (0.0%–65.8%)"),
        )
    ]


def test_base_and_newest_are_asked_over_http(
    learned: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = QueueGenerator()
    generator.set(live=1)
    for reply in ("Nobody.", "18", "1648", "Maren Dace", "It has 17.", "1648"):
        generator.replies.append([reply])
    server = LiveServer(learned, generator).start()
    try:
        lines = printed(capsys, monkeypatch, "--home", learned, "--url", server.url + "/")
    finally:
        server.stop()
    right, none, pair = (exam.share(given) for given in ([True], [False], [False, False]))
    assert lines == [
        f"base, taught: exact {none}, contained {none}",
        f"base, not taught: exact {pair}, contained {pair}",
        f"autodidact, taught: exact {right}, contained {right}",
        f"autodidact, not taught: exact {pair}, contained {exam.share([True, False])}",
    ]
    assert [model for _, _, model in generator.asked] == ["base"] * 3 + ["autodidact"] * 3
    assert all(params.temperature == 0 for _, params, _ in generator.asked)
    assert [len(messages) for messages, _, _ in generator.asked] == [1] * 6, "each by itself"


def test_what_a_user_got_wrong_is_one_line(
    tmp_path: Path, learned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["exam.py", "--home", str(tmp_path / "other")])
    with pytest.raises(SystemExit, match="other: nothing was learned here"):
        exam.main()

    def damaged(path: Path) -> None:
        raise SourceError(f"{path}, line 3: id must not be blank")

    monkeypatch.setattr(exam.exam, "read", damaged)
    monkeypatch.setattr(sys, "argv", ["exam.py", "--home", str(learned)])
    with pytest.raises(SystemExit, match="line 3: id must not be blank"):
        exam.main()


def test_a_share_has_its_interval() -> None:
    assert exam.share([True] * 9 + [False]) == "9/10 = 90.0% (59.6%–98.2%)"
    assert exam.share([]) == "0/0"
