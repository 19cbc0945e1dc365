"""Settings: defaults < file < environment < flags, and errors that name the key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from autodidact import settings
from autodidact.errors import SettingError
from autodidact.settings import PROJECT, Settings, load
from tests.versions import one_line


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "autodidact.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without settings of its own."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


# How the file is written ------------------------------------------------------------------------


def test_a_mark_in_front_of_utf_8_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "autodidact.toml"
    path.write_bytes("\ufeffcycle_minutes = 7\nhome = 'wärme'\n".encode())
    found = load(path)
    assert (found.cycle_minutes, found.home.name) == (7, "wärme")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "autodidact.toml"
    path.write_bytes("home = 'wärme'\n".encode(encoding))
    assert refused(path) == f"{path}: not UTF-8; save it in that encoding"


@pytest.mark.parametrize(
    "written", ["~", "~/x", "~/x/../y", "x", "./x", "/x", "~nobody-here/x", "a~"]
)
def test_every_path_is_read_by_one_rule(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    text = f"home = '{written}'\n[sources]\nfiles = ['{written}']\ncontrol = '{written}'\n"
    path = write(text)
    found = load(path)
    known = {"~": "me", "~/x": "me/x", "~/x/../y": "me/x/../y"}
    expected = tmp_path / known.get(written, written)
    assert (found.home, *found.sources.files, found.sources.control) == (expected,) * 3
    flagged = load(path, home=Path(written)).home
    here = Path.cwd() if written not in known else tmp_path
    assert flagged == here / known.get(written, written)
    monkeypatch.setenv("AUTODIDACT_HOME", written)
    assert load(path).home == expected


LETTERS = st.characters(exclude_characters="/\\'\"~\x00\x7f", exclude_categories=("C",))
NAMES = st.text(LETTERS, min_size=1, max_size=12).map(str.strip)
NAMES = NAMES.filter(lambda name: name not in ("", ".", ".."))


@given(
    prefix=st.sampled_from(["", "./", "../", "~/", "/srv/"]),
    names=st.lists(NAMES, min_size=1, max_size=3),
    mark=st.sampled_from(["", "\ufeff"]),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_any_path_in_any_file_that_editors_write_is_read_by_one_rule(
    tmp_path_factory: pytest.TempPathFactory, prefix: str, names: list[str], mark: str, newline: str
) -> None:
    """Letters of every script, with and without a byte order mark, with either end of line."""
    folder = tmp_path_factory.mktemp("place")
    written = prefix + "/".join(names)
    lines = [f"home = '{written}'", "[sources]", f"files = ['{written}']", f"control = '{written}'"]
    path = folder / "autodidact.toml"
    path.write_bytes((mark + newline.join(lines) + newline).encode("utf-8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder / "me"))
        found = load(path)
    rest = folder / "me" / "/".join(names) if prefix == "~/" else folder / written
    assert (found.home, *found.sources.files, found.sources.control) == (rest,) * 3


# Which value counts -----------------------------------------------------------------------------


def test_defaults_come_first_and_flags_last(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("")
    assert load(path).cycle_minutes == 5.0
    write("cycle_minutes = 4")
    assert load(path).cycle_minutes == 4.0
    monkeypatch.setenv("AUTODIDACT_CYCLE_MINUTES", "3")
    assert load(path).cycle_minutes == 3.0
    assert load(path, cycle_minutes=2.0).cycle_minutes == 2.0


def test_flags_of_a_section_are_merged_into_it(write: Callable[[str], Path]) -> None:
    tree = load(write('[server]\nhost = "127.0.0.2"\nport = 1'), server={"port": 2})
    assert (tree.server.host, tree.server.port) == ("127.0.0.2", 2)


def test_a_flag_that_was_not_given_changes_nothing(write: Callable[[str], Path]) -> None:
    assert load(write("cycle_minutes = 4"), cycle_minutes=None, home=None).cycle_minutes == 4.0


def test_sections_are_merged_key_by_key(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTODIDACT_SERVER__PORT", "9000")
    monkeypatch.setenv("AUTODIDACT_SOURCES__WIKIPEDIA__LANGUAGE", "simple")
    tree = load(write('[server]\nhost = "127.0.0.2"\n[sources.wikipedia]\nrandom = 1'))
    assert (tree.server.host, tree.server.port, tree.server.max_queue) == ("127.0.0.2", 9000, 64)
    wikipedia = tree.sources.wikipedia
    assert (wikipedia.language, wikipedia.random, wikipedia.enabled) == ("simple", 1, True)


def test_lists_in_the_environment_are_json(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTODIDACT_SOURCES__WIKIPEDIA__TITLES", '["Ada", "Bell"]')
    assert load(write("")).sources.wikipedia.titles == ("Ada", "Bell")


def test_without_a_file_the_defaults_hold() -> None:
    tree = load()
    assert tree.model == "auto"
    assert tree.home == PROJECT / "continuous_learner"


def test_the_file_of_the_working_folder_is_found(elsewhere: Path) -> None:
    (elsewhere / "autodidact.toml").write_text("cycle_minutes = 7")
    assert load().cycle_minutes == 7.0
    assert load().home == elsewhere / "continuous_learner"


def test_the_tree_cannot_be_changed(write: Callable[[str], Path]) -> None:
    tree = load(write(""))
    with pytest.raises(ValidationError):
        tree.model = "other"
    with pytest.raises(ValidationError):
        tree.server.port = 1


# Paths ------------------------------------------------------------------------------------------


def test_paths_of_the_file_count_from_its_folder(
    write: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    tree = load(
        write(
            'home = "data"\nmodel = "models/mine"\n'
            '[sources]\nfiles = ["notes", "/abs/notes"]\ncontrol = "quiet"'
        )
    )
    assert tree.home == tmp_path / "data"
    assert tree.model == str(tmp_path / "models" / "mine")
    assert tree.sources.files == (tmp_path / "notes", Path("/abs/notes"))
    assert tree.sources.control == tmp_path / "quiet"


def test_paths_on_the_command_line_count_from_the_working_folder(
    write: Callable[[str], Path], elsewhere: Path
) -> None:
    (elsewhere / "mine").mkdir()
    tree = load(write(""), home=Path("data"), model="mine")
    assert tree.home == elsewhere / "data"
    assert tree.model == str(elsewhere / "mine")


def test_a_name_that_is_no_folder_stays_a_name(write: Callable[[str], Path]) -> None:
    assert load(write('model = "someone/starter"')).model == "someone/starter"
    assert load(write(""), model="someone/other").model == "someone/other"


def test_control_may_be_switched_off(write: Callable[[str], Path]) -> None:
    assert load(write('[sources]\ncontrol = ""')).sources.control is None


# Errors -----------------------------------------------------------------------------------------


def refused(path: Path | None, **flags: object) -> str:
    with pytest.raises(SettingError) as caught:
        load(path, **flags)
    assert caught.value.exit_code == 2
    return one_line(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cycle_minuts = 3", "autodidact.toml: cycle_minuts: no such setting; did you mean "
         "cycle_minutes?"),
        ("[server]\nprot = 1", "autodidact.toml: server.prot: no such setting; did you mean "
         "server.port?"),
        ("[sources.wikipedia]\nlanguge = 'en'", "autodidact.toml: sources.wikipedia.languge: no "
         "such setting; did you mean sources.wikipedia.language?"),
        ("[trainning]\nrank = 4", "autodidact.toml: trainning: no such setting; did you mean "
         "training?"),
        ("zzzzzzzzzz = 1", "autodidact.toml: zzzzzzzzzz: no such setting"),
    ],
)  # fmt: skip
def test_an_unknown_key_names_the_nearest(
    write: Callable[[str], Path], text: str, said: str
) -> None:
    assert refused(write(text)) == said


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("cycle_minutes = 0", "cycle_minutes: "),
        ("cycle_minutes = -1", "cycle_minutes: "),
        ("cycle_minutes = 'soon'", "cycle_minutes: "),
        ("cycle_minutes = nan", "cycle_minutes: "),
        ("keep_versions = 1", "keep_versions: "),
        ("[training]\nrank = 0", "training.rank: "),
        ("[training]\nrank = 4.5", "training.rank: "),
        ("[server]\nport = 65536", "server.port: "),
        ("[sources.wikipedia]\nlanguage = 'EN/../x'", "sources.wikipedia.language: "),
        ("[server]\nport = []", "server.port: "),
        ("server = 1", "server: "),
    ],
)
def test_a_value_out_of_range_names_its_key(
    write: Callable[[str], Path], text: str, key: str
) -> None:
    assert refused(write(text)).startswith(f"autodidact.toml: {key}")


def test_of_several_errors_the_first_is_told_and_the_others_counted(
    write: Callable[[str], Path],
) -> None:
    assert refused(write("keep_versions = 0\ncycle_minutes = 0")).endswith("(and 1 more)")


@pytest.mark.parametrize("text", ["cycle_minutes =", "[server", "a = 1\na = 2", "x = \x00"])
def test_a_file_that_is_not_toml_is_named(write: Callable[[str], Path], text: str) -> None:
    path = write(text)
    assert refused(path).startswith(f"{path}: not valid TOML: ")


def test_a_file_that_is_not_text_is_refused(write: Callable[[str], Path]) -> None:
    path = write("")
    path.write_bytes(b"\xff\xfe")
    assert refused(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.toml") == f"{tmp_path / 'none.toml'}: no such settings file"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("AUTODIDACT_SERVER__PROT", "AUTODIDACT_SERVER__PORT"),
        ("AUTODIDACT_SERVER_PORT", "AUTODIDACT_SERVER__PORT"),
        ("AUTODIDACT_CYCLE_MINUTE", "AUTODIDACT_CYCLE_MINUTES"),
    ],
)
def test_a_misspelt_variable_names_the_nearest(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str, near: str
) -> None:
    monkeypatch.setenv(name, "1")
    assert refused(write("")) == (
        f"environment variable {name}: no such setting; did you mean {near}?"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("AUTODIDACT_SERVER__PORT", "ninety"), ("AUTODIDACT_SOURCES__FILES", "not json")],
)
def test_a_variable_with_a_bad_value_is_refused(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    refused(write(""))


@pytest.mark.parametrize("name", ["SOURCES__FILES", "SERVER__ALLOWED_HOSTS", "SERVER"])
@pytest.mark.parametrize("value", ["/x", "", "a, b", "['a']"])
def test_a_variable_that_is_no_json_is_named_with_an_example(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"AUTODIDACT_{name}", value)
    told = refused(write(""))
    assert told.startswith(f"environment variable AUTODIDACT_{name}: must be JSON, such as ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('home = ""', "home: must name a folder"),
        ('[sources]\nfiles = "library"', "sources.files: must be a list"),
        ("server = 5", "server: must be a table"),
    ],
)
def test_what_is_of_another_kind_is_told_in_words_of_the_file(
    write: Callable[[str], Path], text: str, says: str
) -> None:
    assert refused(write(text)).endswith(says)


def test_a_file_that_is_no_text_is_named(write: Callable[[str], Path]) -> None:
    path = write("")
    path.write_bytes(b"\xff\xfe")
    assert str(path) in refused(path)


def test_a_model_beside_the_file_is_found_from_there(
    write: Callable[[str], Path], tmp_path: Path
) -> None:
    path = write('model = "tiny.gguf"')
    (path.parent / "tiny.gguf").touch()
    assert settings.load(path).model == str((path.parent / "tiny.gguf").resolve())


def test_a_flag_with_a_bad_value_names_its_key(write: Callable[[str], Path]) -> None:
    assert "cycle_minutes: " in refused(write(""), cycle_minutes=-1.0)


# Documentation ----------------------------------------------------------------------------------


def test_every_setting_is_explained_in_a_sentence() -> None:
    found = dict(settings.leaves())
    assert {"model", "server.port", "sources.wikipedia.language", "training.rank"} <= found.keys()
    for key, info in found.items():
        assert info.description, key
        assert info.description[0].isupper(), key
        assert info.description.rstrip().endswith((".", '"."')), key


def test_every_section_is_explained_too() -> None:
    for name, info in Settings.model_fields.items():
        assert info.description, name


def test_every_default_is_a_value_that_the_setting_takes() -> None:
    whole = settings.tree()
    tree = whole()
    again = whole.model_validate(tree.model_dump())
    assert again == tree


def test_every_setting_has_a_variable(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names that the documentation gives are the names that are heard."""
    defaults = load(write(""))
    every = dict(settings.leaves())
    for key, info in every.items():
        if info.annotation is int:
            section: object = defaults
            for part in key.split("."):
                section = getattr(section, part)
            assert isinstance(section, int)
            monkeypatch.setenv("AUTODIDACT_" + key.replace(".", "__").upper(), str(section + 1))
            value: object = load(write(""))
            for part in key.split("."):
                value = getattr(value, part)
            assert value == section + 1, key
