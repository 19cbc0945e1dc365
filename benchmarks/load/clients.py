"""The load: a process of its own that streams replies from a server and notes when tokens came.

    python benchmarks/load/clients.py PLAN.json RESULT.json

It knows nothing of models: HTTP/1.1 over plain asyncio streams (a connection a request), answered
by server-sent events `start`, `text` (`t` the text, `n` tokens so far), `done` and `error`. That
keeps it cheap on cores that it shares with the server; its CPU time is in the result.

PLAN: `address`; `form`, "closed" (each client sends request after request) or "open" (each sends
one); `starts`, seconds from the beginning at which each client begins; `seconds`, when a closed
load is cut and an open one given up (null: when SIGTERM comes, replies under way are then awaited);
`prompts`; `body`, what every request holds besides `message` and `seed`; `texts`, whether replies
are kept. RESULT: `begun` and `ended` (time.monotonic, which all processes of a machine share),
`cpu_s` and `replies`, each with `client`, `prompt` (its index), `sent`, `status`, `version`,
`times` and `counts` (of the text events), `ended` (null: cut), `fault` ("" if none) and `text`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PAUSE_AFTER_A_FAULT_S = 0.5
CONNECT_S = 30.0


class Load:
    """All clients of one plan."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        where = urlsplit(plan["address"])
        self.host, self.port = str(where.hostname), int(where.port or 80)
        self.replies: list[dict[str, Any]] = []
        self.numbers = itertools.count()
        self.over = asyncio.Event()

    async def run(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.over.set)
        begun, cpu = time.monotonic(), cpu_s()
        tasks = [
            asyncio.create_task(self._client(i, begun + start))
            for i, start in enumerate(self.plan["starts"])
        ]
        _, late = await asyncio.wait(tasks, timeout=self.plan["seconds"])
        ended = time.monotonic()
        for task in late:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        used = cpu_s() - cpu
        return {"begun": begun, "ended": ended, "cpu_s": used, "replies": self.replies}

    async def _client(self, client: int, begins: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), max(0.0, begins - time.monotonic()))
        while not self.over.is_set():
            fault = await self._reply(client)
            if self.plan["form"] == "open":
                return
            if fault:
                await asyncio.sleep(PAUSE_AFTER_A_FAULT_S)

    async def _reply(self, client: int) -> str:
        number = next(self.numbers)
        prompt = number % len(self.plan["prompts"])
        body = {**self.plan["body"], "message": self.plan["prompts"][prompt], "seed": number}
        reply: dict[str, Any] = {
            "client": client, "prompt": prompt, "sent": time.monotonic(), "status": 0,
            "version": None, "times": [], "counts": [], "ended": None, "fault": "", "text": "",
        }  # fmt: skip
        self.replies.append(reply)
        try:
            await self._stream(body, reply)
            reply["ended"] = time.monotonic()
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            reply["fault"] = f"{type(error).__name__}: {error}"
        return str(reply["fault"])

    async def _stream(self, body: dict[str, Any], reply: dict[str, Any]) -> None:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(request(f"{self.host}:{self.port}", body))
            status, headers = await head(reader)
            reply["status"] = status
            if "x-model-version" in headers:
                reply["version"] = int(headers["x-model-version"])
            pieces = chunks(reader, headers)
            if status != 200:
                text = b"".join([piece async for piece in pieces])
                raise ValueError(f"status {status}: {text[:200].decode(errors='replace')}")
            await self._events(pieces, reply)
        finally:
            writer.close()

    async def _events(self, pieces: AsyncIterator[bytes], reply: dict[str, Any]) -> None:
        rest, done, text = b"", False, []
        async for piece in pieces:
            now = time.monotonic()
            *frames, rest = (rest + piece).split(b"\n\n")
            for frame in frames:
                event, _, data = frame.partition(b"\n")
                if event == b"event: text":
                    told = json.loads(data.removeprefix(b"data: "))
                    reply["times"].append(now)
                    reply["counts"].append(told["n"])
                    text.append(told["t"])
                elif event == b"event: error":
                    raise ValueError(data.decode(errors="replace"))
                elif event == b"event: done":
                    done = True
                    tokens = json.loads(data.removeprefix(b"data: "))["tokens"]
                    if not reply["counts"] or tokens > reply["counts"][-1]:
                        reply["times"].append(now)  # the last tokens were no whole character
                        reply["counts"].append(tokens)
        if not done:
            raise EOFError("the stream ended early")
        if self.plan.get("texts"):
            reply["text"] = "".join(text)


def request(host: str, body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    lines = ["POST /chat HTTP/1.1", f"Host: {host}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(data)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + data


async def head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and headers (names in lower case) of a response."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}


async def chunks(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    """The body as it comes: chunked (RFC 9112, 7.1) or up to the end of the connection."""
    if headers.get("transfer-encoding", "").lower() != "chunked":
        while piece := await reader.read(65536):
            yield piece
        return
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield (await reader.readexactly(size + 2))[:-2]


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    plan, result = (Path(argument) for argument in sys.argv[1:3])
    found = asyncio.run(Load(json.loads(plan.read_text("utf-8"))).run())
    result.write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    main()
