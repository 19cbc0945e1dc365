"""A source and a filter, made as CONTRIBUTING.md says and from nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import autodidact.curation
import autodidact.sources
from autodidact import curation, settings, sources
from autodidact.errors import SettingError, SourceError
from autodidact.settings import PROJECT
from autodidact.types.cycle import Reason, Verdict
from autodidact.types.documents import Document
from scripts import write_settings_docs
from tests import own_parts
from tests.bench import Bench
from tests.versions import one_line
from tests.workplace import TEXTS, Workplace, document, prepare

PAGE = PROJECT / "CONTRIBUTING.md"
ENTRIES = "\n---\n".join(f"{title}\n{text}" for title, text in TEXTS.values())
LOUD = "THE MILL STANDS ON A HILL. " * 10


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A folder with the files of the page beside its settings file, and no Wikipedia."""
    own_parts.lay_out(PAGE, tmp_path, monkeypatch)
    place = prepare(tmp_path, tmp_path / "model")
    with place.config.open("a") as file:
        file.write("\n".join(own_parts.blocks(PAGE, "toml")))
    (tmp_path / "notes.txt").write_text(ENTRIES)
    return place


def rewrite(place: Workplace, old: str, new: str) -> None:
    text = place.config.read_text()
    assert old in text
    place.config.write_text(text.replace(old, new))


def refused(place: Workplace) -> str:
    with pytest.raises(SettingError) as caught:
        place.settings()
    return one_line(caught.value)


# One's own --------------------------------------------------------------------------------------


def test_the_page_shows_a_source_and_a_filter() -> None:
    assert list(own_parts.modules(PAGE)) == ["notebook", "shouting"]
    assert len(own_parts.blocks(PAGE, "toml")) == 2


def test_the_settings_reach_the_tree(place: Workplace) -> None:
    tree = place.settings()
    assert tree.sources.own.notebook.path == place.folder / "notes.txt"
    assert tree.curation.own.shouting.most == 0.3


def test_a_variable_sets_them_too(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTODIDACT_CURATION__OWN__SHOUTING__MOST", "0.7")
    assert place.settings().curation.own.shouting.most == 0.7
    monkeypatch.setenv("AUTODIDACT_CURATION__OWN__SHOUTING__MOTS", "0.7")
    assert refused(place) == (
        "environment variable AUTODIDACT_CURATION__OWN__SHOUTING__MOTS: no such setting; "
        "did you mean AUTODIDACT_CURATION__OWN__SHOUTING__MOST?"
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("path = ", "paht = ", "autodidact.toml: sources.own.notebook.paht: no such setting; did "
         "you mean sources.own.notebook.path?"),
        ("most = 0.3", "most = 3", "autodidact.toml: curation.own.shouting.most: Input should be "
         "less than or equal to 1"),
        ("notebook:Notebook", "notebok:Notebook", "autodidact.toml: sources.own.notebook.class: "
         "cannot import notebok:Notebook: No module named 'notebok'"),
        ("notebook:Notebook", "notebook:Notebok", "autodidact.toml: sources.own.notebook.class: "
         "cannot import notebook:Notebok: module 'notebook' has no attribute 'Notebok'"),
        ("notebook:Notebook", "shouting:Shouting", "autodidact.toml: sources.own.notebook.class: "
         "shouting:Shouting is not a source: it has no method `documents`"),
        ("shouting:Shouting", "notebook:Notebook", "autodidact.toml: curation.own.shouting.class: "
         "notebook:Notebook is not a filter: it has no method `check`"),
        ("notebook:Notebook", "notebook", "autodidact.toml: sources.own.notebook.class: name it as "
         'class = "module:Class"'),
        ("own.notebook]", "own.my-notes]", "autodidact.toml: sources.own.my-notes: not a name; use "
         "small letters, digits and _"),
        ("own.notebook]", "own.copy]", "autodidact.toml: sources.own.copy: not a name; use small "
         "letters, digits and _"),
        ('class = "notebook:Notebook"', "", "autodidact.toml: sources.own.notebook.class: name it "
         'as class = "module:Class"'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_its_key(
    place: Workplace, old: str, new: str, said: str
) -> None:
    rewrite(place, old, new)
    assert refused(place) == said


def test_a_module_that_fails_is_one_line(place: Workplace) -> None:
    (place.folder / "notebook.py").write_text("1 / 0")
    assert refused(place).endswith(
        "sources.own.notebook.class: cannot import notebook:Notebook: division by zero"
    )


def test_a_setting_without_a_default_must_be_set(place: Workplace) -> None:
    path = place.folder / "notebook.py"
    path.write_text(path.read_text().replace('path: Path = Path("notebook.txt")', "path: Path"))
    assert place.settings().sources.own.notebook.path == place.folder / "notes.txt"
    rewrite(place, 'path = "notes.txt"', "")
    assert refused(place) == "autodidact.toml: sources.own.notebook.path: Field required"


def test_settings_that_let_unknown_keys_pass_are_refused(place: Workplace) -> None:
    path = place.folder / "notebook.py"
    path.write_text(
        path.read_text()
        .replace("autodidact.settings import Section", "pydantic import BaseModel")
        .replace("(Section)", "(BaseModel)")
    )
    assert "its `settings` must be a Section" in refused(place)


def test_the_source_delivers_from_where_it_was(place: Workplace) -> None:
    *_, source = sources.build(place.settings().sources)
    found = list(source.documents(None))
    assert [one.title for one in found] == [title for title, _ in TEXTS.values()]
    assert list(source.documents(found[1].cursor)) == found[2:]
    assert list(source.documents("of another source")) == found
    (place.folder / "notes.txt").unlink()
    with pytest.raises(SourceError):
        next(source.documents(None))


def test_two_sources_of_one_name_are_refused(place: Workplace) -> None:
    with place.config.open("a") as file:
        file.write('[sources.own.again]\nclass = "notebook:Notebook"\nenabled = true\n')
    with pytest.raises(SettingError, match="two sources are called notebook"):
        sources.build(place.settings().sources)


def test_what_is_not_enabled_is_not_made(place: Workplace) -> None:
    rewrite(place, "enabled = true", "enabled = false")
    tree = place.settings()
    assert [one.name for one in sources.build(tree.sources)] == ["files:notes"]
    assert [one.name for one in curation.build(tree.curation)] == ["length"]


def test_the_filter_refuses_with_its_reason(place: Workplace) -> None:
    filters = curation.build(place.settings().curation)
    assert [one.name for one in filters] == ["length", "shouting"]
    loud = curation.curate(document("Mill", LOUD), filters)
    assert loud == Verdict(False, (Reason("", "notes/Mill.md: 100% of its letters are capitals"),))
    assert isinstance(curation.curate(document("Mill", LOUD.lower()), filters), Document)


def test_the_learner_reads_the_source_and_heeds_the_filter(place: Workplace) -> None:
    (place.folder / "notes.txt").write_text(f"{ENTRIES}\n---\nLoud\n{LOUD}")
    rewrite(place, 'files = ["notes"]', "files = []")
    bench = Bench(place)
    assert bench.learner.fetch() == len(TEXTS)
    assert "Loud" not in bench.states()


# For all ----------------------------------------------------------------------------------------


@pytest.fixture
def in_the_package(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workplace]:
    """The same files where ours are: their folder is part of the packages' search path."""
    place.config.write_text(place.config.read_text().partition("[sources.own")[0])
    for package in (autodidact.sources, autodidact.curation):
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(place.folder)])
    before = set(sys.modules)
    yield place
    for package in (autodidact.sources, autodidact.curation):
        for name in own_parts.modules(PAGE):
            vars(package).pop(name, None)
    for name in set(sys.modules) - before:
        if name.rpartition(".")[2] in own_parts.modules(PAGE):
            del sys.modules[name]


def test_a_file_in_the_folder_is_enough(in_the_package: Workplace) -> None:
    with in_the_package.config.open("a") as file:
        file.write('[sources.notebook]\nenabled = true\npath = "notes.txt"\n')
        file.write("[curation.shouting]\nenabled = true\nmost = 0.3\n")
    tree = in_the_package.settings()
    *_, source = sources.build(tree.sources)
    assert len(list(source.documents(None))) == len(TEXTS)
    assert [one.name for one in curation.build(tree.curation)] == ["length", "shouting"]
    rewrite(in_the_package, "path =", "paht =")
    assert refused(in_the_package) == (
        "autodidact.toml: sources.notebook.paht: no such setting; did you mean "
        "sources.notebook.path?"
    )


def test_the_settings_page_tells_of_it(in_the_package: Workplace) -> None:
    page = write_settings_docs.page()
    assert "## `[sources.notebook]`\n\nA notebook in one file" in page
    assert '| `sources.notebook.path` | `"notebook.txt"` | folder | The file. |' in page
    assert "| `curation.shouting.most` | `0.5` | number from 0 up to 1 |" in page


def test_without_it_the_page_is_silent() -> None:
    assert "notebook" not in write_settings_docs.page()
    assert not [key for key, _ in settings.leaves() if "shouting" in key]
