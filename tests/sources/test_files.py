from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import pytest

from autodidact.errors import SourceError
from autodidact.sources.files import Files
from autodidact.types.documents import Document


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    folder.mkdir()
    return folder


def put(folder: Path, name: str, text: str = "Some text.") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def uris(folder: Path) -> list[str]:
    return [document.uri for document in Files(folder).documents(None)]


def test_a_document_says_where_it_is_from(library: Path) -> None:
    path = put(library, "anneck-light.md", "---\nlicense: MIT\n---\n# Anneck Light\n\nA lamp.")
    os.utime(path, (0, 86_400))
    assert list(Files(library).documents(None)) == [
        Document(
            source="files:library",
            uri="library/anneck-light.md",
            title="Anneck Light",
            text="A lamp.",
            license="MIT",
            digest="",
            cursor="1970-01-02T00:00:00+00:00",
        )
    ]


def test_all_known_files_come_in_the_order_of_their_paths(library: Path) -> None:
    for name in ("b.md", "a.txt", "deep/er/c.html", "deep/B.MD", "z.htm"):
        put(library, name)
    expected = ["a.txt", "b.md", "deep/B.MD", "deep/er/c.html", "z.htm"]
    assert uris(library) == [f"library/{name}" for name in expected]


def test_hidden_control_and_unknown_files_are_left_out(library: Path) -> None:
    put(library, "kept.md")
    for name in (".x.md", ".git/x.md", "control/x.md", "deep/Control/x.md", "x.zip", "x", "x.md~"):
        put(library, name)
    assert uris(library) == ["library/kept.md"]


def test_a_folder_called_control_can_itself_be_read(library: Path) -> None:
    put(library, "control/x.md")
    assert uris(library / "control") == ["control/x.md"]


def test_links_are_followed_only_to_what_would_be_read_anyway(library: Path) -> None:
    put(library, "kept.md")
    put(library, "control/secret.md")
    put(library, "notes.zip")
    put(library.parent, "outside.md")
    put(library.parent, "elsewhere/far.md")
    for name, target in {
        "inside.md": "kept.md",
        "outside.md": "../outside.md",
        "control.md": "control/secret.md",
        "self": ".",
        "elsewhere": "../elsewhere",
        "broken.md": "nowhere.md",
        "loop.md": "loop.md",
    }.items():
        (library / name).symlink_to(target)
    assert uris(library) == ["library/inside.md", "library/kept.md"]


def test_a_linked_folder_keeps_the_name_it_was_given(library: Path, tmp_path: Path) -> None:
    put(library, "kept.md")
    (tmp_path / "books").symlink_to(library)
    assert uris(tmp_path / "books") == ["books/kept.md"]


def test_a_pipe_is_not_waited_for(library: Path) -> None:
    put(library, "kept.md")
    os.mkfifo(library / "pipe.md")
    assert uris(library) == ["library/kept.md"]


def test_a_bad_file_is_one_warning_and_the_next_one_follows(
    library: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(library, "a.md")
    (library / "b.txt").write_bytes(bytes(100))
    put(library, "c.html", "")
    put(library, "d.md")
    source = Files(library)
    with caplog.at_level(logging.WARNING):
        found = [[document.uri for document in source.documents(None)] for _ in range(2)]
    assert found == [["library/a.md", "library/d.md"]] * 2
    assert [re.sub(r"/.*/", "", line) for line in caplog.messages] == [
        "files:library: skipped b.txt: binary data, not text",
        "files:library: skipped c.html: no text in it",
    ]


def test_a_file_that_vanishes_while_reading_is_a_warning(
    library: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(library, "a.md")
    gone = put(library, "b.md")
    documents = Files(library).documents(None)
    assert next(documents).uri == "library/a.md"
    gone.unlink()
    assert list(documents) == []
    assert "No such file" in caplog.text


@pytest.mark.parametrize("closed", ["", "deep"])
def test_a_folder_that_may_not_be_listed(
    library: Path,
    closed: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put(library, "a.md")
    put(library, "deep/b.md")
    scandir = os.scandir

    def refuse(path: str) -> object:  # permissions do not bind every user who runs this test
        if Path(path) == library / closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    if closed:
        assert uris(library) == ["library/a.md"]
        assert "deep: Permission denied" in caplog.text
    else:
        with pytest.raises(SourceError, match=r"library: Permission denied; check its perm"):
            uris(library)


def test_a_name_that_is_not_utf8_can_still_be_stored(library: Path) -> None:
    os.close(os.open(os.fsencode(library) + b"/caf\xe9.txt", os.O_CREAT | os.O_WRONLY))
    next(library.iterdir()).write_text("Some text.")
    (document,) = Files(library).documents(None)
    assert document.title.encode()
    assert document.uri.encode()
    assert document.uri.startswith("library/caf")


def test_a_changed_text_is_seen_whatever_the_cursor_and_the_clock_say(library: Path) -> None:
    path = put(library, "a.md", "Old text.")
    source = Files(library)
    (old,) = source.documents(None)
    path.write_text("New text.")
    os.utime(path, (0, 0))
    (new,) = source.documents(old.cursor)
    assert (new.uri, new.text) == (old.uri, "New text.")


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_folder_that_is_none_says_what_to_do(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "library"
    if kind == "file":
        folder.write_text("")
    with pytest.raises(SourceError, match=r"^/.*/library: .*; create it or change sources\.files$"):
        next(Files(folder).documents(None))
