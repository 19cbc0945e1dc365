"""`models.package`: the model that set-up installs. What `auto` makes of it is in test_bases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from autodidact.engine import Engine
from autodidact.models import bases, loading, package
from autodidact.models.prompts import dialogue_ids
from autodidact.settings import PROJECT
from autodidact.types.chat import Message

ASKED = [Message("user", "What is the capital of France?"), Message("assistant", "")]


def test_it_is_installed_as_the_requirements_say() -> None:
    command = package.INSTALL.split()
    assert command[:3] == ["pip", "install", "--no-deps"]
    text = (PROJECT / command[-1]).read_text("utf-8")
    [line] = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert re.fullmatch(package.PACKAGE + r"==[\d.]+ --hash=sha256:[0-9a-f]{64}", line)


@pytest.mark.parametrize("there", ["nothing", "a module", "a package without the file"])
def test_what_is_not_there_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    monkeypatch.setattr(package, "MODULE", "no_such_plugin")  # an installed one must not be seen
    monkeypatch.syspath_prepend(str(tmp_path))
    if there == "a module":
        (tmp_path / "no_such_plugin.py").write_text("raise SystemExit")
    elif there == "a package without the file":
        (tmp_path / "no_such_plugin").mkdir()
    assert package.find() is None


@pytest.mark.slow
def test_the_real_one_is_the_model_that_it_is_called(tmp_path: Path) -> None:
    file = package.find()
    if file is None:
        pytest.skip(f"needs the model: {package.INSTALL}")
    found = bases.resolve(str(package.checked(file)), "", tmp_path, lambda line: None)
    base = loading.load(found.path, 1)
    assert 134e6 < base.parameters < 135e6
    ids, start = dialogue_ids(base, ASKED)
    engine = Engine(base)
    [reply] = engine.complete(engine.untouched, [ids[:start]], 16)
    assert "Paris" in base.tokenizer.decode(reply)
