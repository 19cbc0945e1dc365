"""Two wikis on loopback: one of our own invention, one recorded from Wikipedia."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mediawiki import PROSE, MediaWiki


@pytest.fixture
def wiki() -> Iterator[MediaWiki]:
    with MediaWiki() as server:
        for title in ("Anneck Light", "Gull Rock", "Black Oar", "River Tolk", "Old Marrow"):
            server.add(title, f"{title} is known. {PROSE}")
        yield server


@pytest.fixture
def recorded(shared: Path) -> Iterator[MediaWiki]:
    with MediaWiki() as server:
        assert server.record(shared / "data" / "wikipedia_api") > 100
        yield server
