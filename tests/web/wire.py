"""Reading server-sent events, and asynchronous clients, in tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx

Event = tuple[str, dict[str, Any]]
T = TypeVar("T")


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` on a thread of its own: in the main one the browser's loop may be running."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


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
