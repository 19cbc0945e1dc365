"""Finding parts: by their files, without loading what they work with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import autodidact.sources
from autodidact import registry, settings
from autodidact.errors import SettingError
from autodidact.settings import PROJECT
from tests.workplace import child_environment

PART = """
from autodidact.settings import Section

class Fields(Section):
    \"\"\"Nothing.\"\"\"

class Part:
    name = "{name}"
    settings = Fields

    def documents(self, since):
        return iter(())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which sources are looked for; what comes from it is forgotten after the test."""
    monkeypatch.setattr(
        autodidact.sources, "__path__", [*autodidact.sources.__path__, str(tmp_path)]
    )
    for module in ("temporary_one", "temporary_two"):
        monkeypatch.setitem(sys.modules, f"autodidact.sources.{module}", None)
        del sys.modules[f"autodidact.sources.{module}"]
        monkeypatch.setattr(autodidact.sources, module, None, raising=False)
    return tmp_path


def test_ours_are_found() -> None:
    assert list(registry.found(registry.SOURCES)) == ["wikipedia"]
    assert list(registry.found(registry.FILTERS)) == ["length"]
    assert list(registry.found(registry.GENERATORS)) == ["local"]


@pytest.mark.parametrize(
    "source",
    [
        "",
        "def work() -> None:\n    settings = 1\n",
        "class Work:\n    def work(self) -> None:\n        settings: int = 1\n",
        "class Work:\n    settings: int\n",
    ],
)
def test_a_file_without_a_class_that_names_its_settings_is_not_imported(
    folder: Path, source: str
) -> None:
    (folder / "temporary_one.py").write_text(f"1 / 0\n{source}")
    assert list(registry.found(registry.SOURCES)) == ["wikipedia"]


def test_two_parts_of_one_name_are_refused(folder: Path) -> None:
    (folder / "temporary_one.py").write_text(PART.format(name="twice"))
    assert list(registry.found(registry.SOURCES)) == ["twice", "wikipedia"]
    (folder / "temporary_two.py").write_text(PART.format(name="twice"))
    with pytest.raises(SettingError, match="two sources are called twice"):
        registry.found(registry.SOURCES)


@pytest.mark.parametrize("name", ["files", "control", "own", "copy", "My notes"])
def test_a_name_that_the_settings_have_is_refused(folder: Path, name: str) -> None:
    (folder / "temporary_one.py").write_text(PART.format(name=name))
    with pytest.raises(SettingError, match=rf"sources\.{name}: not a name that a source may have"):
        settings.tree()


def test_knowing_the_settings_loads_no_client_and_no_parser() -> None:
    heavy = "wikipediaapi trafilatura torch"
    code = (
        "import sys, server, web_learner; from autodidact import settings; settings.load(); "
        f"print(*(set({heavy.split()}) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""
