"""The sources, filters and generators that a page shows, laid out as files."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.M)


def modules(page: Path) -> dict[str, str]:
    """The Python blocks that define a part, by the name that the part has."""
    found = {}
    for text in blocks(page, "python"):
        if name := re.search(r"^    name = \"(\w+)\"$", text, re.M):
            found[name[1]] = text
    return found


def lay_out(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write them into a folder; what is imported from there is forgotten after the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, text in modules(page).items():
        monkeypatch.setitem(sys.modules, name, None)  # so that it is put back, that is, removed
        del sys.modules[name]
        (folder / f"{name}.py").write_text(text)
