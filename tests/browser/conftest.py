"""A real Chromium on the app around a queue of replies. Skipped where there is no Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.web.fakes import Learner, LiveServer, QueueGenerator, publish

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
# Chromium's own services must not look like requests of the page.
ARGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    path = (
        os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    )
    if path is None:
        pytest.skip("needs Chromium: install it, or say where it is in CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGS)
        yield browser
        browser.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    publish(tmp_path, 42)
    return tmp_path


@pytest.fixture
def generator() -> QueueGenerator:
    return QueueGenerator()


@pytest.fixture
def learner(home: Path) -> Iterator[Learner]:
    learner = Learner(home)
    yield learner
    learner.close()


@pytest.fixture
def server(home: Path, generator: QueueGenerator) -> Iterator[LiveServer]:
    server = LiveServer(home, generator).start()
    yield server
    if server.running:
        server.stop()


class Tab:
    """A page, and what it did that it should not: see `misdeeds`."""

    def __init__(self, page: Any, base: str) -> None:
        self.page = page
        self.misdeeds: list[str] = []
        self.console: list[str] = []
        page.on("pageerror", lambda error: self.misdeeds.append(f"exception: {error}"))
        page.on("console", self._heard)
        page.on("dialog", self._asked)
        page.on("request", lambda request: self._requested(request.url, base))

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.console.append(message.text)

    def _asked(self, dialog: Any) -> None:
        self.misdeeds.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _requested(self, url: str, base: str) -> None:
        if not url.startswith((base + "/", "data:")):
            self.misdeeds.append(f"request: {url}")


@pytest.fixture
def open_page(chromium: Any, server: LiveServer) -> Iterator[Callable[..., Any]]:
    """Opens pages; at the end no page may have thrown, asked, gone elsewhere or complained.

    `failing=True` allows the browser's own lines about answers that are no success.
    """
    tabs: list[tuple[Tab, bool]] = []

    def open_(path: str = "/", *, failing: bool = False, **options: Any) -> Any:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(15_000)
        tab = Tab(context.new_page(), server.url)
        tabs.append((tab, failing))
        tab.page.goto(server.url + path)
        return tab.page

    yield open_
    for tab, failing in tabs:
        console = [
            line
            for line in tab.console
            if not (failing and line.startswith("Failed to load resource"))
        ]
        tab.page.context.close()
        assert tab.misdeeds == []
        assert console == []
