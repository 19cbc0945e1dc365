"""The local generator follows `CURRENT`: good versions go live, bad ones never do."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from autodidact import checkpoints, hub
from autodidact.checkpoints import CONFIG, MANIFEST, REPORT, WEIGHTS
from autodidact.engine import Engine
from autodidact.errors import Busy, ContextExceeded, ModelError, NotReady, UnknownModel
from autodidact.generators import local
from autodidact.generators.local import LocalGenerator
from autodidact.model import LoadedBase, prompt_ids
from autodidact.settings import ServerSettings
from autodidact.types import Delta, ModelStatus, SamplingParams
from tests.versions import BASE_SHA, load_adapter, manifest_for, save_adapter
from tests.workplace import ask, wait_for

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
GREEDY = SamplingParams(temperature=0.0, max_new_tokens=16)
QUESTION = ask("What is the capital of the island?")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "POLL_S", 0.02)
    monkeypatch.setattr(local, "RETRY_S", 0.02)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


class Stand:
    """A generator over a home, and what publishes into that home."""

    def __init__(self, home: Path, base: LoadedBase, folder: Path) -> None:
        self.home = home
        self.base = base
        self.found = hub.Base("tiny", folder, "folder", "", BASE_SHA, "")
        self.adapters = home.parent / "adapters"
        self.running: list[LocalGenerator] = []

    def start(
        self, resolve: Callable[[], hub.Base] | None = None, **settings: Any
    ) -> LocalGenerator:
        made = LocalGenerator(
            self.home, ServerSettings(**settings), resolve or (lambda: self.found)
        )
        self.running.append(made)
        made.start()
        return made

    def ready(self, **settings: Any) -> LocalGenerator:
        made = self.start(**settings)
        wait_for(lambda: made.status().state == "ready", 30, "the base")
        return made

    def adapter(self, version: int) -> Path:
        """A random adapter, another one for each number."""
        folder = self.adapters / str(version)
        return folder if folder.exists() else save_adapter(self.base, folder, version)

    def publish(self, version: int, parent: int | None = None) -> None:
        self.publish_files(version, parent, self.adapter(version))

    def publish_files(self, version: int, parent: int | None, adapter: Path) -> None:
        staged = checkpoints.staging(self.home, version) / "adapter"
        shutil.copytree(adapter, staged)
        (staged / REPORT).write_text("{}")
        checkpoints.publish(self.home, staged, version, manifest_for(parent))

    def expected(self, version: int) -> str:
        engine = Engine(self.base)
        model = engine.untouched
        if version:
            model = load_adapter(engine, version, self.adapter(version))
        ids = list(engine.stream(model, prompt_ids(self.base, QUESTION), GREEDY))
        return str(self.base.tokenizer.decode(ids, skip_special_tokens=True))


@pytest.fixture
def stand(home: Path, llama: LoadedBase, tiny_folder: Callable[[str], Path]) -> Iterator[Stand]:
    made = Stand(home, llama, tiny_folder("llama"))
    yield made
    for generator in made.running:
        generator.close()
        generator._thread.join(30)


def live(generator: LocalGenerator, version: int) -> ModelStatus:
    wait_for(lambda: generator.status().live == version, 30, f"version {version}")
    return generator.status()


def reply(generator: LocalGenerator, model: str | None = None) -> str:
    prepared = generator.prepare(QUESTION, GREEDY, model)
    return "".join(delta.text for delta in generator.stream(prepared))


# Following --------------------------------------------------------------------------------------


def test_the_untouched_base_serves_until_a_version_is_published(stand: Stand) -> None:
    generator = stand.ready()
    status = generator.status()
    assert (status.name, status.live, status.context, status.fallback) == ("tiny", 0, 256, False)
    assert status.parameters == stand.base.parameters > 0
    assert reply(generator) == stand.expected(0)
    stand.publish(1)
    assert live(generator, 1).since >= status.since
    assert reply(generator) == stand.expected(1) != stand.expected(0)
    stand.publish(2, 1)
    live(generator, 2)
    assert reply(generator) == stand.expected(2) != stand.expected(1)


def test_a_server_that_starts_later_serves_what_is_current(stand: Stand) -> None:
    stand.publish(1)
    generator = stand.ready()
    assert generator.status().live == 1
    assert reply(generator) == stand.expected(1)


def test_a_rollback_is_followed_too(stand: Stand) -> None:
    stand.publish(1)
    stand.publish(2, 1)
    generator = stand.ready()
    checkpoints.roll_back(stand.home)
    live(generator, 1)
    assert reply(generator) == stand.expected(1)
    checkpoints.roll_back(stand.home)
    live(generator, 0)
    assert reply(generator) == stand.expected(0)


def test_a_reply_ends_on_the_version_that_began_it(stand: Stand) -> None:
    stand.publish(1)
    generator = stand.ready()
    prepared = generator.prepare(QUESTION, GREEDY)
    stream = generator.stream(prepared)
    said = [next(stream).text]
    stand.publish(2, 1)
    live(generator, 2)
    said += [delta.text for delta in stream]
    assert prepared.version == 1
    assert "".join(said) == stand.expected(1)
    assert reply(generator) == stand.expected(2)


# Bad versions -----------------------------------------------------------------------------------


def nan(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    first = sorted(tensors)[0]
    tensors[first][0, 0] = float("nan")
    save_file(tensors, folder / WEIGHTS)


def renamed_keys(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file(
        {name.replace("lora_A", "lora_X"): t for name, t in tensors.items()}, folder / WEIGHTS
    )


def dora(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "use_dora": True}))


def pickled(folder: Path) -> None:
    torch.save({}, folder / WEIGHTS)


BEFORE: dict[str, Callable[[Path], object]] = {
    "NaN": nan,
    "renamed keys": renamed_keys,
    "DoRA": dora,
    "a pickle": pickled,
    "no weights": lambda folder: (folder / WEIGHTS).write_bytes(b""),
}
AFTER: dict[str, Callable[[Path], object]] = {
    "a flipped bit": lambda folder: (folder / WEIGHTS).write_bytes(
        (folder / WEIGHTS).read_bytes()[:-1] + b"\x01"
    ),
    "another base": lambda folder: (folder / MANIFEST).write_text(
        (folder / MANIFEST).read_text().replace(BASE_SHA, "c" * 64)
    ),
    "no config": lambda folder: (folder / CONFIG).unlink(),
}


def publish_bad(stand: Stand, what: str, version: int, parent: int) -> None:
    """A version that is damaged before its hashes were taken, or after."""
    bad = stand.home.parent / "bad" / str(version)
    shutil.copytree(stand.adapter(version), bad)
    if what in BEFORE:
        BEFORE[what](bad)
        stand.publish_files(version, parent, bad)
        return
    stand.publish_files(version, parent, bad)
    checkpoints.point(stand.home, parent)
    AFTER[what](checkpoints.folder(stand.home, version))
    checkpoints.point(stand.home, version)


@pytest.mark.parametrize("what", [*BEFORE, *AFTER])
def test_a_bad_version_never_serves_and_the_next_good_one_does(stand: Stand, what: str) -> None:
    stand.publish(1)
    generator = stand.ready()
    if what in AFTER:  # nothing may look while it is still whole
        generator.close()
        generator._thread.join(30)
    publish_bad(stand, what, 2, 1)
    if what in AFTER:
        generator = stand.ready()
    wait_for(lambda: checkpoints.rejected(stand.home), 30, "the refusal")
    status = generator.status()
    assert status.live == 1
    assert "000002" in status.rejected
    assert "\n" not in status.rejected
    assert list(checkpoints.rejected(stand.home)) == [2]
    assert reply(generator) == stand.expected(1)
    stand.publish(3, 1)
    assert live(generator, 3).rejected == ""
    assert reply(generator) == stand.expected(3)


def test_a_pointer_to_nothing_keeps_the_version_that_serves(stand: Stand) -> None:
    stand.publish(1)
    generator = stand.ready()
    checkpoints.point(stand.home, 2)
    wait_for(lambda: generator.status().rejected, 30, "the refusal")
    assert generator.status().live == 1
    assert "000002: no such version" in generator.status().rejected


def test_a_fault_nobody_thought_of_does_not_end_the_watching(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.publish(1)
    generator = stand.ready()
    real = Engine.load

    def exhausted(self: Engine, number: int, *files: bytes) -> Any:
        if number == 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory\nand a second line")
        return real(self, number, *files)

    monkeypatch.setattr(Engine, "load", exhausted)
    stand.publish(2, 1)
    wait_for(lambda: generator.status().rejected, 30, "the refusal")
    assert generator.status().live == 1
    assert "RuntimeError" in generator.status().rejected
    assert "\n" not in generator.status().rejected
    stand.publish(3, 1)
    live(generator, 3)


def test_a_passing_fault_of_the_disk_is_tried_again(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = stand.ready()
    faults = [OSError(24, "Too many open files")] * 3
    real = checkpoints.verify

    def verify(*arguments: Any) -> Any:
        if faults:
            raise faults.pop()
        return real(*arguments)

    monkeypatch.setattr(checkpoints, "verify", verify)
    stand.publish(1)
    live(generator, 1)
    assert faults == []
    assert checkpoints.rejected(stand.home) == {}


def test_what_was_refused_is_forgotten_once_it_was_rolled_back(stand: Stand) -> None:
    stand.publish(1)
    generator = stand.ready()
    publish_bad(stand, "NaN", 2, 1)
    wait_for(lambda: generator.status().rejected, 30, "the refusal")
    checkpoints.roll_back(stand.home)
    wait_for(lambda: not generator.status().rejected, 30, "the status to be clean")
    assert generator.status().live == 1


def test_at_the_start_a_bad_version_gives_way_to_its_parents(stand: Stand) -> None:
    stand.publish(1)
    publish_bad(stand, "NaN", 2, 1)
    publish_bad(stand, "renamed keys", 3, 2)
    generator = stand.ready()
    assert generator.status().live == 1
    assert "000003" in generator.status().rejected


def test_at_the_start_without_a_good_version_the_base_serves(stand: Stand) -> None:
    publish_bad(stand, "NaN", 1, 0)
    generator = stand.ready()
    assert generator.status().live == 0
    assert reply(generator) == stand.expected(0)


def test_a_damaged_pointer_keeps_the_version_that_serves(stand: Stand) -> None:
    stand.publish(1)
    generator = stand.ready()
    (stand.home / "CURRENT").write_bytes(b"\xff\xfe")
    stand_still = threading.Event()
    stand_still.wait(0.1)
    assert reply(generator) == stand.expected(1)
    checkpoints.point(stand.home, 0)
    live(generator, 0)


# Requests ---------------------------------------------------------------------------------------


def test_a_stream_counts_its_tokens_and_says_how_it_ended(stand: Stand) -> None:
    generator = stand.ready()
    deltas = list(generator.stream(generator.prepare(QUESTION, GREEDY)))
    assert all(isinstance(delta, Delta) for delta in deltas)
    assert [delta.finish for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    ids = list(
        Engine(stand.base).stream(
            Engine(stand.base).untouched, prompt_ids(stand.base, QUESTION), GREEDY
        )
    )
    assert sum(delta.tokens for delta in deltas) == len(ids)
    assert deltas[-1].finish == ("length" if len(ids) == GREEDY.max_new_tokens else "stop")


def test_models_are_chosen_by_name(stand: Stand) -> None:
    stand.publish(1)
    generator = stand.ready()
    for name in (None, "", "autodidact", "autodidact@1"):
        assert generator.prepare(QUESTION, GREEDY, name).version == 1
    for name in ("base", "autodidact@0"):
        assert generator.prepare(QUESTION, GREEDY, name).version == 0
    assert reply(generator, "base") == stand.expected(0)
    with pytest.raises(UnknownModel, match="autodidact@1"):
        generator.prepare(QUESTION, GREEDY, "autodidact@7")


def test_a_prompt_and_its_reply_must_fit(stand: Stand) -> None:
    generator = stand.ready()
    count = generator.count(QUESTION)
    fits = SamplingParams(max_new_tokens=256 - count)
    assert generator.prepare(QUESTION, fits).room == 256 - count
    with pytest.raises(ContextExceeded, match=rf"prompt {count} \+ max_length {257 - count}"):
        generator.prepare(QUESTION, SamplingParams(max_new_tokens=257 - count))
    with pytest.raises(ContextExceeded):
        generator.prepare(ask("word " * 400), GREEDY)


def test_one_request_too_many_is_told_so(stand: Stand) -> None:
    generator = stand.ready(max_concurrent=1, max_queue=0)
    stream = generator.stream(generator.prepare(QUESTION, GREEDY))
    next(stream)
    assert generator.active() == 1
    with pytest.raises(Busy) as caught:
        generator.prepare(QUESTION, GREEDY)
    assert caught.value.retry_after_s
    stream.close()  # type: ignore[attr-defined]
    assert generator.active() == 0
    assert reply(generator) == stand.expected(0)


def test_while_the_model_loads_requests_are_put_off(stand: Stand) -> None:
    go_on = threading.Event()

    def resolve() -> hub.Base:
        go_on.wait(30)
        return stand.found

    generator = stand.start(resolve)
    assert generator.status().state == "loading"
    with pytest.raises(NotReady) as caught:
        generator.prepare(QUESTION, GREEDY)
    assert caught.value.retry_after_s
    go_on.set()
    wait_for(lambda: generator.status().state == "ready", 30, "the base")


def test_a_base_that_cannot_be_had_is_said_and_tried_again(stand: Stand) -> None:
    faults: list[Exception] = [ModelError("the Hub is out of reach"), ZeroDivisionError()]
    seen: list[str] = []

    def resolve() -> hub.Base:
        if faults:
            if len(faults) == 1:
                seen.append(generator.status().reason)
                with pytest.raises(NotReady, match="the Hub is out of reach"):
                    generator.prepare(QUESTION, GREEDY)
            raise faults.pop(0)
        seen.append(generator.status().reason)
        return stand.found

    generator = LocalGenerator(stand.home, ServerSettings(), resolve)
    stand.running.append(generator)
    generator.start()
    wait_for(lambda: generator.status().state == "ready", 30, "the base")
    assert seen == ["the Hub is out of reach", "ZeroDivisionError"]
    assert generator.status().reason == ""
