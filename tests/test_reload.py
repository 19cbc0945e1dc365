"""20 checkpoints are published while 8 clients stream: no request fails, no reply mixes two.

A real server process, real HTTP. Every reply is greedy, so it can be compared, to the letter, with
what the version named in its header says alone.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import requests
import torch
from tokenizers.decoders import DecodeStream

from autodidact import checkpoints, hub, model
from autodidact.engine import Engine, Version
from autodidact.settings import PROJECT
from autodidact.training import sft
from autodidact.types import Message, SamplingParams
from tests.tiny_models import tiny

CLIENTS, PUBLICATIONS = 8, 20
QUESTION = "Tell me about the harbour."
LENGTH = 24


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(address: str, version: int, bound_s: float = 60) -> None:
    """Until the server says that `version` answers."""
    deadline = time.monotonic() + bound_s
    while time.monotonic() < deadline:
        try:
            health = requests.get(address + "/health", timeout=5).json()
        except requests.RequestException:
            health = {}
        if health.get("status") == "ok" and health.get("version") == version:
            return
        time.sleep(0.05)
    raise AssertionError(f"version {version} did not go live: {health}")


def publish_random(home: Path, base: model.LoadedBase, found: hub.Base, version: int) -> None:
    """A version whose adapter is random, so that its greedy replies differ from the others'."""
    recipe = sft.Recipe(8, 1e-3, 1, 0.0, 0, False, version)
    trainer = sft.Trainer(base, recipe, [])
    generator = torch.Generator().manual_seed(version)
    for parameter in trainer.parameters.values():
        parameter.data.normal_(0.0, 0.3, generator=generator)
    staged = checkpoints.staging(home, version) / "adapter"
    trainer.export(staged, found.name)
    (staged / checkpoints.REPORT).write_text("{}")
    manifest = {
        "parent": checkpoints.current(home) or None,
        "base": {"name": found.name, "sha256": found.sha256, "revision": ""},
        "report": {"cycle": version},
    }
    checkpoints.publish(home, staged, version, manifest)


def stream(address: str) -> tuple[int, str]:
    """One streamed greedy reply: (version in the header, text)."""
    body = {"message": QUESTION, "temperature": 0, "max_length": LENGTH, "stream": True}
    with requests.post(address + "/chat", json=body, stream=True, timeout=60) as response:
        assert response.status_code == 200, response.text
        events = [row for row in response.iter_lines(decode_unicode=True) if row]
        names = [row.partition(": ")[2] for row in events if row.startswith("event:")]
        data = [json.loads(row.partition(": ")[2]) for row in events if row.startswith("data:")]
    assert names[0] == "start", events[:3]
    assert names[-1] == "done", events[-3:]
    text = "".join(d["t"] for n, d in zip(names, data, strict=True) if n == "text")
    return int(response.headers["X-Model-Version"]), text


@pytest.mark.slow
def test_publishing_under_load_fails_no_request_and_mixes_no_reply(
    tmp_path: Path,
) -> None:
    port = free_port()
    home = tmp_path / "home"
    checkpoints.prepare_home(home)
    folder = tiny(tmp_path / "model", "smollm2")
    found = hub.resolve(str(folder), "", home, lambda line: None)
    base = model.load(folder, 1)
    environment = {**os.environ, "AUTODIDACT_HOME": str(home), "AUTODIDACT_MODEL": str(folder)}
    server = subprocess.Popen(
        [sys.executable, str(PROJECT / "server.py"), "--port", str(port)], env=environment
    )
    address = f"http://127.0.0.1:{port}"
    replies: list[tuple[int, str]] = []
    faults: list[BaseException] = []
    over = threading.Event()

    def client() -> None:
        while not over.is_set():
            try:
                replies.append(stream(address))
            except BaseException as error:
                faults.append(error)
                return

    try:
        wait_for(address, 0)
        clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
        for thread in clients:
            thread.start()
        for version in range(1, PUBLICATIONS + 1):
            publish_random(home, base, found, version)
            wait_for(address, version)
        over.set()
        for thread in clients:
            thread.join(60)
    finally:
        over.set()
        server.terminate()
        code = server.wait(30)
    assert not faults, faults[0]
    assert code == 0
    answered = Counter(version for version, _ in replies)
    expected = alone(home, base, found, set(answered))
    wrong = [(version, text) for version, text in replies if text != expected[version]]
    print(f"\n{len(replies)} replies by {len(answered)} versions, {len(wrong)} mixed, 0 failed")
    assert not wrong
    assert len(answered) > PUBLICATIONS // 2
    assert len(set(expected.values())) > 1


def alone(
    home: Path, base: model.LoadedBase, found: hub.Base, versions: set[int]
) -> dict[int, str]:
    """What each version says by itself."""
    engine = Engine(base)
    prompt = model.prompt_ids(base, [Message("user", QUESTION)])
    said = {}
    for number in versions:
        version: Version = engine.untouched
        if number:
            files = checkpoints.verify(home, number, found.sha256)
            version = engine.load(number, files.config, files.weights)
        ids = list(engine.stream(version, prompt, SamplingParams(0, 1, 0, LENGTH)))
        decoder = DecodeStream(skip_special_tokens=True)
        pieces = (decoder.step(base.tokenizer._tokenizer, token) for token in ids)
        said[number] = "".join(piece for piece in pieces if piece)
    return said
