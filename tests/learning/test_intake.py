"""The store follows its sources: what a folder has no more is not looked up nor repeated, and can
be forgotten; what comes back is what it was."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autodidact.commands.app import app
from autodidact.commands.forget import request
from autodidact.errors import ResourceError, SettingError, SourceError, StoreBusy
from autodidact.sources.files import Files
from autodidact.store.passages import PassageIndex
from tests.bench import Bench
from tests.workplace import TEXTS

pytest_plugins = ["tests.core_fixtures"]
MILL = "brack-mill"


def notes(bench: Bench) -> Path:
    return bench.place.folder / "notes"


def state(bench: Bench, number: int = 1) -> str:
    return bench.store.documents.get(number).state


def cited(bench: Bench, words: str) -> list[str]:
    index = PassageIndex(bench.home / "passages.db", readonly=True)
    return sorted({hit.uri for hit in index.search(words, 5)})


def repeated(bench: Bench) -> set[int]:
    """Documents whose facts would be repeated in the next cycle."""
    return {known.document_id for known in bench.store.probes.remembered()}


def emptied(path: Path) -> None:
    path.write_text("")


def shortened(path: Path) -> None:
    path.write_text("# Brack Mill\n\nThe Brack Mill is a windmill.\n")


def no_text(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 20)


def deleted(path: Path) -> None:
    path.unlink()


def hidden(path: Path) -> None:
    path.rename(path.with_name(".brack-mill.md"))


def unplugged() -> None:
    raise SourceError("the disk is gone")


def put_under_control(path: Path) -> None:
    (path.parent / "control").mkdir(exist_ok=True)
    path.rename(path.parent / "control" / path.name)


@pytest.mark.parametrize(
    "change", [emptied, shortened, no_text, deleted, hidden, put_under_control]
)
def test_what_is_gone_is_withdrawn_at_once_and_back_when_it_is_back(
    learned: Bench, change: object, caplog: pytest.LogCaptureFixture
) -> None:
    path = notes(learned) / f"{MILL}.md"
    whole = path.read_text()
    change(path)  # type: ignore[operator]
    with caplog.at_level(logging.INFO):
        assert learned.learner.fetch() == 0
    assert "1 learned documents are not there any more" in caplog.text
    assert "forget --gone" in caplog.text
    assert state(learned) == "withdrawn"
    assert learned.passages() == {2, 3, 4}
    assert repeated(learned) == {2, 3, 4}
    assert learned.learner.learn() is None, "nothing to be learned of it"
    path.write_text(whole)
    assert learned.learner.fetch() == 0, "weights know it: it is not learned again"
    assert state(learned) == "learned"
    assert learned.passages() == repeated(learned) == {1, 2, 3, 4}


def test_a_renamed_file_is_cited_by_its_new_name(learned: Bench) -> None:
    folder = notes(learned)
    (folder / "old").mkdir()
    (folder / f"{MILL}.md").rename(folder / "old" / "the-mill.md")
    assert learned.learner.fetch() == 0
    assert state(learned) == "learned"
    assert cited(learned, "crimson sails") == ["notes/old/the-mill.md"]


def test_of_two_files_with_one_text_the_other_stands_for_it(learned: Bench) -> None:
    folder = notes(learned)
    shutil.copy(folder / f"{MILL}.md", folder / "copy.md")
    assert learned.learner.fetch() == 0
    assert cited(learned, "crimson sails") == [f"notes/{MILL}.md"]
    (folder / f"{MILL}.md").unlink()
    assert learned.learner.fetch() == 0
    assert state(learned) == "learned"
    assert cited(learned, "crimson sails") == ["notes/copy.md"]


def test_an_older_copy_takes_the_place_of_the_newer(learned: Bench) -> None:
    """Also where nothing is to be learned of the older one any more."""
    path = notes(learned) / f"{MILL}.md"
    older = path.read_text()
    path.write_text(older.replace("crimson", "purple"))
    assert learned.learner.fetch() == 1
    assert state(learned, 1) == "superseded"
    assert learned.passages() == {2, 3, 4}, "the older text is not cited, the newer not yet"
    learned.learn()
    assert learned.passages() == {2, 3, 4, 5}
    with sqlite3.connect(learned.home / "learner.db") as db:
        db.execute("UPDATE documents SET state = 'given_up' WHERE id = 1")
    path.write_text(older)
    assert learned.learner.fetch() == 0
    assert state(learned, 5) == "superseded"
    assert learned.passages() == {2, 3, 4}


def test_two_files_that_change_places_stay_learned(learned: Bench) -> None:
    first, second = (notes(learned) / f"{name}.md" for name in (MILL, "tolk-bridge"))
    texts = first.read_text(), second.read_text()
    first.write_text(texts[1])
    second.write_text(texts[0])
    learned.learner.fetch()
    assert cited(learned, "crimson sails") == ["notes/tolk-bridge.md"]
    assert cited(learned, "violet rail") == [f"notes/{MILL}.md"]
    assert {state(learned, n) for n in (1, 3)} == {"learned"}


def test_what_only_cannot_be_looked_at_now_is_not_gone(
    learned: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, a folder, the whole source; and a fetch that is stopped half-way."""
    folder = notes(learned)
    whole = Path.open

    def refused(path: Path, *args: object, **kwargs: object) -> object:
        if path.name == f"{MILL}.md":
            raise PermissionError(13, "Permission denied")
        return whole(path, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refused)
        learned.learner.fetch()
    assert state(learned) == "learned"
    folder.rename(folder.with_name("elsewhere"))
    learned.learner.fetch()
    assert state(learned) == "learned"
    folder.with_name("elsewhere").rename(folder)
    learned.restart()  # a source that was out of reach is tried later
    (folder / f"{MILL}.md").unlink()
    whole_pass = Files.documents
    for broken_off_by in (learned.learner.stopping.set, unplugged):

        def cut(source: Files, since: str | None, how: object = broken_off_by) -> object:
            for document in whole_pass(source, since):
                yield document
                how()  # type: ignore[operator]

        with monkeypatch.context() as patch:
            patch.setattr(Files, "documents", cut)
            learned.learner.fetch()
        assert state(learned) == "learned"
        learned.restart()
    learned.learner.fetch()
    assert state(learned) == "withdrawn"


def test_a_folder_that_may_not_be_read_keeps_its_texts(learned: Bench) -> None:
    folder = notes(learned)
    (folder / "deep").mkdir()
    (folder / f"{MILL}.md").rename(folder / "deep" / f"{MILL}.md")
    learned.learner.fetch()
    walk = os.walk

    def closed(top: object, onerror: object = None, **more: object) -> object:
        for parent, folders, files in walk(top):  # type: ignore[call-overload]
            if Path(parent).name == "deep":
                onerror(PermissionError(13, "Permission denied", parent))  # type: ignore[operator]
                continue
            yield parent, folders, files

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "walk", closed)
        learned.learner.fetch()
    assert state(learned) == "learned"


def test_what_was_never_learned_leaves_the_queue_and_comes_back_to_it(bench: Bench) -> None:
    bench.learner.fetch()
    path = notes(bench) / f"{MILL}.md"
    whole = path.read_text()
    path.unlink()
    bench.learner.fetch()
    assert bench.store.documents.queue(9) == [2, 3, 4]
    path.write_text(whole)
    bench.learner.fetch()
    assert bench.store.documents.queue(9) == [1, 2, 3, 4]


def test_what_a_cycle_studies_is_withdrawn_when_the_cycle_has_ended(bench: Bench) -> None:
    bench.learner.fetch()
    path = notes(bench) / f"{MILL}.md"
    bench.store.cycles.begin(1, None, {})
    bench.store.cycles.study(1, [1, 2])
    path.unlink()
    bench.learner.fetch()
    assert state(bench) == "studying"
    bench.store.cycles.finish(1, "published", (), None)
    bench.learner.fetch()
    assert state(bench) == "withdrawn"


@pytest.mark.parametrize("how", ["rolled back", "relearned without it"])
def test_back_after_it_was_unlearned_it_is_learned_again(learned: Bench, how: str) -> None:
    path = notes(learned) / "wend-tower.md"
    whole = path.read_text()
    path.unlink()
    learned.learner.fetch()
    if how == "rolled back":
        learned.store.documents.requeue_after(1)
    else:
        request(learned.home, [1])
        report = learned.learn()
        assert (report.kind, report.state) == ("forget", "published")
    path.write_text(whole)
    learned.learner.fetch()
    assert state(learned, 4) == "queued"


def test_withdrawn_then_forgotten_nothing_brings_it_back(
    learned: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    path = notes(learned) / f"{MILL}.md"
    whole = path.read_text()
    path.unlink()
    learned.learner.fetch()
    config = ["--config", str(learned.place.config)]
    told = CliRunner().invoke(app, ["forget", "--gone", "--yes", *config])
    assert told.exit_code == 0, told.output
    assert "Brack Mill" in told.output
    assert "1 document will be forgotten" in told.output
    assert learned.learn().kind == "forget"
    assert state(learned) == "forgotten"
    path.write_text(whole)
    assert learned.learner.fetch() == 0
    assert state(learned) == "forgotten"
    none = CliRunner().invoke(app, ["forget", "--gone", "--yes", *config])
    assert "nothing that was learned is gone from its source" in str(none.exception)


@pytest.mark.parametrize("given", [[], ["x", "--gone"]])
def test_forget_wants_one_of_the_two(learned: Bench, given: list[str]) -> None:
    told = CliRunner().invoke(app, ["forget", *given, "--config", str(learned.place.config)])
    assert isinstance(told.exception, SettingError)


def test_texts_that_are_known_cost_no_transaction(
    learned: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each had one for itself and one for the cursor: 3,000 unchanged files took 15.6 s."""
    written = []
    write = type(learned.store._db).write
    monkeypatch.setattr(
        type(learned.store._db), "write", lambda db: (written.append(db), write(db))[1]
    )
    assert learned.learner.fetch() == 0
    assert len(written) < len(TEXTS)


def test_status_counts_what_is_withdrawn(learned: Bench) -> None:
    (notes(learned) / f"{MILL}.md").unlink()
    learned.learner.fetch()
    told = CliRunner().invoke(app, ["status", "--json", "--config", str(learned.place.config)])
    assert json.loads(told.output)["documents"]["withdrawn"] == 1


# Where one rule meets another ---------------------------------------------------------------------


def test_after_an_older_text_was_forgotten_its_file_is_still_learned_from(learned: Bench) -> None:
    """What is forgotten is that text; the address goes on, where another text of it is taught."""
    path = notes(learned) / f"{MILL}.md"
    older = path.read_text()
    path.write_text(older.replace("crimson", "purple"))
    assert learned.learner.fetch() == 1
    learned.learn()
    assert [d.id for d in learned.store.documents.gone()] == [1]
    request(learned.home, [1])
    assert learned.learn().kind == "forget"
    assert state(learned) == "forgotten"
    path.write_text(older.replace("crimson", "golden"))
    assert learned.learner.fetch() == 1
    assert (state(learned, 5), state(learned, 6)) == ("superseded", "queued")
    path.write_text(older)
    assert learned.learner.fetch() == 0, "what was forgotten does not come back"


@pytest.mark.parametrize("name", ["a-mill.md", "the-old-mill.md"])
def test_a_file_that_is_moved_while_another_takes_its_name_stays_learned(
    learned: Bench, name: str
) -> None:
    """As logs are rotated; whichever of the two comes first."""
    path = notes(learned) / f"{MILL}.md"
    text = path.read_text()
    path.rename(notes(learned) / name)
    path.write_text(text.replace("crimson", "purple"))
    assert learned.learner.fetch() == 1
    assert (state(learned), state(learned, 5)) == ("learned", "queued")
    assert cited(learned, "crimson sails") == [f"notes/{name}"]
    assert learned.store.documents.gone() == []


def test_a_text_in_two_sources_is_learned_once(learned: Bench) -> None:
    archive = learned.place.folder / "archive"
    archive.mkdir()
    path = notes(learned) / f"{MILL}.md"
    shutil.copy(path, archive / "mill.md")
    both = {"files": [str(notes(learned)), str(archive)]}
    learned.restart(sources=both)
    assert learned.learner.fetch() == 0
    path.write_text(path.read_text().replace("crimson", "purple"))
    assert learned.learner.fetch() == 1, "the new text, and not the old one again"
    assert state(learned) == "learned"
    assert cited(learned, "crimson sails") == ["archive/mill.md"]
    learned.learn()
    for _ in range(3):
        assert learned.learner.fetch() == 0
        assert learned.learner.learn() is None


@pytest.mark.parametrize("kept", ["unusable", "given_up"])
def test_what_was_not_to_be_learned_is_not_when_it_is_back(bench: Bench, kept: str) -> None:
    path = notes(bench) / "empty-talk.md"
    path.write_text("# Talk\n\n" + "So it goes on and on and on, and that is that. " * 6)
    bench.learner.fetch()
    [number] = bench.store.documents.numbers("unusable")
    if kept == "given_up":
        with sqlite3.connect(bench.home / "learner.db") as db:
            db.execute("UPDATE documents SET state = 'given_up', tries = 3 WHERE id = 1")
        number, path = 1, notes(bench) / f"{MILL}.md"
    whole = path.read_text()
    path.unlink()
    bench.learner.fetch()
    assert state(bench, number) == "withdrawn"
    path.write_text(whole)
    bench.learner.fetch()
    assert state(bench, number) == kept


def test_what_older_versions_know_can_be_forgotten_after_a_consolidation(learned: Bench) -> None:
    (notes(learned) / f"{MILL}.md").unlink()
    learned.learner.fetch()
    learned.store.cycles.begin(3, 2, {}, "consolidate")
    learned.store.cycles.finish(3, "published", (), None)
    assert [d.id for d in learned.store.documents.gone()] == [1]


def test_back_while_the_rest_is_relearned_without_it_it_is_queued(learned: Bench) -> None:
    path = notes(learned) / f"{MILL}.md"
    whole = path.read_text()
    path.unlink()
    learned.learner.fetch()
    learned.store.cycles.begin(3, 2, {}, "consolidate")
    path.write_text(whole)
    learned.learner.fetch()
    assert state(learned) == "queued"


def test_a_cursor_is_not_stored_for_a_text_that_was_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held(*_: object, **__: object) -> bool:
        raise StoreBusy("learner.db: another program holds it")

    monkeypatch.setattr(bench.store.documents, "add", held)
    with pytest.raises(StoreBusy):
        bench.learner.fetch()
    assert bench.store.sources.get("files:notes").cursor is None


def test_passages_that_could_not_be_written_are_at_the_next_fetch(
    learned: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise ResourceError("passages.db: the disk is full")

    (notes(learned) / f"{MILL}.md").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(PassageIndex, "sync", full)
        with pytest.raises(ResourceError):
            learned.learner.fetch()
    assert learned.passages() == {1, 2, 3, 4}
    learned.learner.fetch()
    assert learned.passages() == {2, 3, 4}


def test_an_empty_folder_is_told_of_as_one_that_may_not_be_mounted(
    learned: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    for path in [*notes(learned).glob("*.md")]:
        path.rename(learned.place.folder / path.name)
    learned.learner.fetch()
    assert "nothing is there any more (is it mounted?)" in caplog.text
    assert "forget" not in caplog.text
    assert learned.passages() == set()
    for path in [*learned.place.folder.glob("*.md")]:
        path.rename(notes(learned) / path.name)
    learned.learner.fetch()
    assert learned.passages() == {1, 2, 3, 4}
