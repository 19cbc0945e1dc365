"""What the browser tests say again and again."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.web.fakes import Item

expect = pytest.importorskip("playwright.sync_api", reason="needs the package playwright").expect
expect.set_options(timeout=15_000)

Open = Callable[..., Any]


def say(page: Any, text: str) -> None:
    page.get_by_role("textbox", name="Message").fill(text)
    page.keyboard.press("Enter")


def reply(page: Any, n: int = -1) -> Any:
    return page.locator("article.ai").nth(n)


def settled(page: Any) -> None:
    """Wait until no reply is on its way."""
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def words(text: str) -> list[Item]:
    return list(re.findall(r"\S+\s*|\s+", text))
