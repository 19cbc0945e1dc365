"""Reading server-sent events in tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx

Event = tuple[str, dict[str, Any]]


def events(response: httpx.Response) -> Iterator[Event]:
    """The events of a streamed response, one by one as they come; pings are left out."""
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def until(stream: Iterator[Event], name: str) -> dict[str, Any]:
    """The data of the next event of that name."""
    for event, data in stream:
        if event == name:
            return data
    raise AssertionError(f"the stream ended without {name}")
