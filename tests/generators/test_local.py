"""The local generator follows `CURRENT`: good versions go live, bad ones never do."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from autodidact import checkpoints, replying
from autodidact.checkpoints import CONFIG, MANIFEST, REPORT, WEIGHTS
from autodidact.engine import Engine, exactness, runtime
from autodidact.engine.batcher import Batcher
from autodidact.errors import Busy, ContextExceeded, ModelError, NotReady, UnknownModel
from autodidact.generators import ServingContext, follower
from autodidact.generators.local import LocalGenerator, LocalSettings
from autodidact.models import bases, loading
from autodidact.models.attention import Attention
from autodidact.models.loading import LoadedBase
from autodidact.models.prompts import prompt_ids
from autodidact.settings import ServerSettings
from autodidact.types import protocols
from autodidact.types.chat import Delta, ModelStatus, SamplingParams
from tests.blocks import in_blocks
from tests.versions import BASE_SHA, load_adapter, manifest_for, save_adapter
from tests.workplace import ask, wait_for

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
GREEDY = SamplingParams(temperature=0.0, max_new_tokens=16)
LONG = SamplingParams(temperature=0.0, max_new_tokens=200)
QUESTION = ask("What is the capital of the island?")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "POLL_S", 0.02)
    monkeypatch.setattr(follower, "RETRY_S", 0.02)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


class Stand:
    """A generator over a home, and what publishes into that home."""

    def __init__(self, home: Path, base: LoadedBase, folder: Path) -> None:
        self.home = home
        self.base = base
        self.found = bases.Base("tiny", folder, "folder", "", BASE_SHA, "named here")
        self.adapters = home.parent / "adapters"
        self.running: list[LocalGenerator] = []

    def start(
        self, resolve: Callable[[], bases.Base] | None = None, **settings: Any
    ) -> LocalGenerator:
        chosen = ServerSettings(**{"threads": 1, **settings})
        context = ServingContext(self.home, chosen, "auto", "")
        made = LocalGenerator(LocalSettings(), context, resolve or (lambda: self.found))
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
        """What it says to the question, alone and cold."""
        return str(self.base.tokenizer.decode(self.expected_ids(version), skip_special_tokens=True))

    def expected_ids(self, version: int, prompt: list[int] | None = None) -> list[int]:
        engine = Engine(self.base)
        made = engine.untouched
        if version:
            made = load_adapter(engine, version, self.adapter(version))
        asked = prompt or prompt_ids(self.base, QUESTION)
        return engine.complete(made, [asked], GREEDY.max_new_tokens)[0]


class Gate:
    """Stands in the way of a generator's batches, from a certain pass on, until it is opened."""

    def __init__(self, generator: LocalGenerator, at: int) -> None:
        loaded = generator._follower.loaded
        assert loaded is not None
        self.passes, self._at, self._open = 0, at, threading.Event()
        engine = loaded.engine
        self._real = engine.forward
        engine.forward = self._forward  # type: ignore[method-assign]

    def _forward(self, versions: Any, **inputs: Any) -> Any:
        if "past_key_values" in inputs:  # else a version is being tried
            self.passes += 1
            assert self.passes < self._at or self._open.wait(60)
        return self._real(versions, **inputs)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def stand(home: Path, llama: LoadedBase, tiny_folder: Callable[[str], Path]) -> Iterator[Stand]:
    made = Stand(home, llama, tiny_folder("llama"))
    yield made
    for generator in made.running:
        generator.close()
        generator._follower._thread.join(30)


def live(generator: LocalGenerator, version: int) -> ModelStatus:
    wait_for(lambda: generator.status().live == version, 30, f"version {version}")
    return generator.status()


def reply(generator: LocalGenerator, model: str | None = None) -> str:
    prepared = generator.prepare(QUESTION, GREEDY, model)
    return "".join(delta.text for delta in generator.stream(prepared))


def active(generator: LocalGenerator) -> float:
    """Replies being generated or waiting for their turn."""
    return generator.figures()["running"] + generator.figures()["waiting"]


# Following --------------------------------------------------------------------------------------


def test_the_untouched_base_serves_until_a_version_is_published(stand: Stand) -> None:
    generator = stand.ready()
    status = generator.status()
    assert (status.name, status.live, status.context, status.fallback) == ("tiny", 0, 256, False)
    assert (status.origin, status.choice) == ("folder", "named here")
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


def test_a_pin_serves_whatever_is_published_and_survives_a_restart(stand: Stand) -> None:
    stand.publish(1)
    stand.publish(2, 1)
    generator = stand.ready()
    assert generator.status().live == 2
    checkpoints.pin(stand.home, 1)
    live(generator, 1)
    assert reply(generator) == stand.expected(1)
    stand.publish(3, 2)
    assert reply(generator, "autodidact@3") == stand.expected(3)
    again = stand.ready()
    assert again.status().live == 1
    assert reply(again) == stand.expected(1)
    assert generator.status().live == 1, "looked at many times since"
    checkpoints.unpin(stand.home)
    for one in (generator, again):
        live(one, 3)
        assert reply(one) == stand.expected(3)


def test_the_base_can_be_pinned(stand: Stand) -> None:
    stand.publish(1)
    generator = stand.ready()
    checkpoints.pin(stand.home, 0)
    live(generator, 0)
    assert reply(generator) == stand.expected(0)
    assert stand.ready().status().live == 0
    checkpoints.unpin(stand.home)
    live(generator, 1)


def test_a_reply_ends_on_the_version_that_began_it(stand: Stand) -> None:
    stand.publish(1)
    generator = stand.ready()
    gate = Gate(generator, at=4)
    prepared = generator.prepare(QUESTION, GREEDY)
    stream = generator.stream(prepared)
    said = [next(stream).text]
    stand.publish(2, 1)
    live(generator, 2)
    gate.open()
    said += [delta.text for delta in stream]
    assert prepared.version == 1
    assert "".join(said) == stand.expected(1)
    assert reply(generator) == stand.expected(2)


def test_what_earlier_turns_computed_is_taken_over_within_a_version(stand: Stand) -> None:
    """By default, and after a new version only what was computed on that."""
    generator = stand.ready()
    prompt = len(prompt_ids(stand.base, QUESTION))

    def taken_over() -> float:
        before = generator.figures()["reused_tokens_total"]
        assert reply(generator) == stand.expected(generator.status().live or 0)
        return generator.figures()["reused_tokens_total"] - before

    assert [taken_over() for _ in range(3)] == [0, prompt - 1, prompt - 1]
    assert generator.figures()["prefix_bytes"] > 0
    stand.publish(1)
    live(generator, 1)
    assert [taken_over() for _ in range(2)] == [0, prompt - 1]


def test_it_can_be_turned_off(stand: Stand) -> None:
    generator = stand.ready(prefix_cache_mb=0)
    assert [reply(generator) for _ in range(2)] == [stand.expected(0)] * 2
    figures = generator.figures()
    assert (figures["reused_tokens_total"], figures["prefix_bytes"]) == (0, 0)


# What computes replies ---------------------------------------------------------------------------


@pytest.fixture
def blocks(home: Path, smollm2: LoadedBase, tmp_path: Path) -> Iterator[Stand]:
    """A base whose weights are of four bits, as one from a GGUF file."""
    base = in_blocks(smollm2)
    base.model.save_pretrained(tmp_path / "blocks")
    base.tokenizer.save_pretrained(tmp_path / "blocks")
    made = Stand(home, base, tmp_path / "blocks")
    yield made
    for generator in made.running:
        generator.close()
        generator._follower._thread.join(30)


def test_a_base_in_blocks_is_computed_by_the_graph(blocks: Stand) -> None:
    """Versions go live, may be asked for by name, and what they say is what the graph says of
    them; the base's floats are not kept."""
    generator = blocks.ready(runtime="onnx")
    assert generator.status().runtime.startswith("4-bit weights by onnxruntime")
    loaded = generator._follower.loaded
    assert loaded is not None
    assert {p.device.type for p in loaded.engine.base.model.parameters()} == {"meta"}
    assert loaded.engine.base.device.type == "cpu"
    said = [reply(generator)]
    for version in (1, 2):
        blocks.publish(version, version - 1 or None)
        live(generator, version)
        said.append(reply(generator))
    assert len(set(said)) == 3
    assert [reply(generator, name) for name in ("base", "autodidact@1", "autodidact@2")] == said
    publish_bad(blocks, "NaN", 3, 2)
    wait_for(lambda: generator.status().rejected, 30, "the refusal")
    assert reply(generator) == said[2]


@pytest.mark.parametrize("set_to", [{"runtime": "torch"}, {"dtype": "float32"}])
def test_it_can_be_left_to_torch(blocks: Stand, set_to: dict[str, str]) -> None:
    generator = blocks.ready(**set_to)
    assert generator.status().runtime == "torch, 1 thread"
    assert reply(generator) == blocks.expected(0)


def test_the_choice_is_kept_for_the_next_start_until_something_changes(
    blocks: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = blocks.ready(runtime="onnx").status().runtime
    kept = json.loads((blocks.home / "runtime.json").read_text())
    assert (kept["runtime"], kept["why"]) == ("onnx", first)
    measured: list[str] = []
    fastest = runtime._fastest

    def counting(work: Callable[[], object]) -> float:
        measured.append("again")
        return fastest(work)

    monkeypatch.setattr(runtime, "_fastest", counting)
    assert blocks.ready(runtime="onnx").status().runtime == first
    assert not measured
    (blocks.home / "runtime.json").write_text("damaged")
    assert blocks.ready(runtime="onnx").status().runtime.startswith("4-bit weights by onnxruntime")
    assert measured
    assert blocks.ready(runtime="torch").status().runtime == "torch, 1 thread"
    assert json.loads((blocks.home / "runtime.json").read_text())["runtime"] == "torch"


def test_without_the_library_torch_goes_on_and_says_so(
    blocks: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation from before it was needed. Once it is there it is found."""
    monkeypatch.setattr(runtime, "FASTER", 0.0)
    with monkeypatch.context() as without:
        for name in ("graph", "graph_passes"):
            without.delitem(sys.modules, f"autodidact.engine.{name}", raising=False)
            without.delattr(f"autodidact.engine.{name}", raising=False)
        without.setitem(sys.modules, "onnx", None)
        generator = blocks.ready()
    assert reply(generator) == blocks.expected(0)
    told = "torch, 1 thread: onnx is not installed; pip install -r requirements.txt"
    assert generator.status().runtime == told
    assert blocks.ready().status().runtime.startswith("4-bit weights by onnxruntime")


def test_other_bases_are_left_to_torch_and_asking_for_the_graph_is_an_error(stand: Stand) -> None:
    assert stand.ready().status().runtime == "torch, 1 thread"
    generator = stand.start(runtime="onnx")
    wait_for(lambda: generator.status().state == "failed", 30, "the failure")
    assert generator.status().reason.startswith("server.runtime: onnx is for a base of 4- or 8-bit")


# What a study sees of it -------------------------------------------------------------------------


def test_a_reply_is_seen_from_its_beginning_to_its_end(stand: Stand) -> None:
    generator = stand.ready()
    assert not replying.anyone(stand.home)
    gate = Gate(generator, at=2)
    first, second = (generator.stream(generator.prepare(QUESTION, GREEDY)) for _ in range(2))
    wait_for(lambda: replying.anyone(stand.home), 10, "the beginning of the first")
    gate.open()
    for one in (first, second):
        assert "".join(delta.text for delta in one) == stand.expected(0)
    wait_for(lambda: not replying.anyone(stand.home), 10, "the end of the replies")


def test_a_reply_whose_reader_left_is_over_and_so_is_one_of_a_server_that_closes(
    stand: Stand,
) -> None:
    generator = stand.ready()
    stream = generator.stream(generator.prepare(QUESTION, LONG))
    next(stream)
    stream.cancel()
    wait_for(lambda: not replying.anyone(stand.home), 10, "the end of the reply")
    stream = generator.stream(generator.prepare(QUESTION, LONG))
    next(stream)
    generator.close()
    wait_for(lambda: not replying.anyone(stand.home), 10, "the end of the server")


def test_a_server_on_a_gpu_takes_nothing_from_a_study(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is only called a GPU here: what is shown is that the sign goes by it."""
    load = loading.load

    def on_gpu(*given: Any, **more: Any) -> LoadedBase:
        base = load(*given, **more)
        device = SimpleNamespace(type="cuda")
        return replace(base, device=device)

    told = []
    made = follower.Batcher

    def built(engine: Any, **given: Any) -> Batcher:
        told.append(given["replying"])
        engine.base = replace(engine.base, device=torch.device("cpu"))
        return made(engine, **given)

    monkeypatch.setattr(loading, "load", on_gpu)
    monkeypatch.setattr(follower, "Batcher", built)
    generator = stand.ready()
    assert reply(generator) == stand.expected(0)
    [say] = told
    say(True)
    assert not replying.anyone(stand.home)
    assert not (stand.home / replying.FILE).exists()


def test_where_no_sign_can_be_given_the_chat_goes_on(stand: Stand) -> None:
    (stand.home / replying.FILE).mkdir()
    assert reply(stand.ready()) == stand.expected(0)
    assert not replying.anyone(stand.home)


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
        generator._follower._thread.join(30)
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
    ids = stand.expected_ids(0)
    assert sum(delta.tokens for delta in deltas) == len(ids)
    assert deltas[-1].finish == ("length" if len(ids) == GREEDY.max_new_tokens else "stop")


def test_it_has_every_capability_and_names_who_answers(stand: Stand) -> None:
    stand.publish(1)
    generator = stand.ready()
    for capability in (
        protocols.CountsTokens, protocols.ContinuesText, protocols.TellsLogprobs,
        protocols.TellsFigures, protocols.Observable, protocols.Runs,
    ):  # fmt: skip
        assert isinstance(generator, capability)
    prepared = generator.prepare(QUESTION, GREEDY)
    assert prepared.answers == "autodidact@1"
    assert prepared.prompt_tokens == generator.count(QUESTION) == len(prepared.handle.ids)
    assert generator.prepare(QUESTION, GREEDY, "base").answers == "base"
    assert isinstance(generator.stream(prepared), protocols.Cancellable)
    assert {one.id for one in generator.models()} >= {"autodidact@1", "base"}


def test_models_are_chosen_by_name(stand: Stand) -> None:
    stand.publish(1)
    stand.publish(2, 1)
    generator = stand.ready()
    for name in (None, "", "autodidact", "autodidact@2"):
        assert generator.prepare(QUESTION, GREEDY, name).version == 2
    for name in ("base", "autodidact@0"):
        assert generator.prepare(QUESTION, GREEDY, name).version == 0
    assert generator.prepare(QUESTION, GREEDY, "autodidact@1").version == 1
    assert reply(generator, "base") == stand.expected(0)
    assert reply(generator, "autodidact@1") == stand.expected(1)
    assert reply(generator) == stand.expected(2)


@pytest.mark.parametrize(
    "name",
    ["autodidact@7", "autodidact@", "autodidact@x", "autodidact@-1", "autodidact@1@1", "base@1",
     "gpt-4", "Autodidact", "@1", "autodidact@99999999999999999999", "autodidact@../1"],
)  # fmt: skip
def test_a_name_that_nothing_has_is_answered_with_those_there_are(stand: Stand, name: str) -> None:
    stand.publish(1)
    stand.publish(2, 1)
    generator = stand.ready()
    with pytest.raises(UnknownModel, match="autodidact, autodidact@2, autodidact@1, base"):
        generator.prepare(QUESTION, GREEDY, name)


def test_what_may_be_asked_for_is_listed(stand: Stand) -> None:
    for number in (1, 2, 3):
        stand.publish(number, number - 1 or None)
    checkpoints.pin(stand.home, 2)
    generator = stand.ready()
    found = [(one.id, one.version, one.role) for one in generator.models()]
    assert found == [
        ("autodidact", 2, "newest"),
        ("autodidact@3", 3, "newest"),
        ("autodidact@2", 2, "pinned"),
        ("autodidact@1", 1, "kept"),
        ("base", 0, "base"),
    ]
    assert all(one.created > 1e9 for one in generator.models())
    for one in generator.models():
        assert generator.prepare(QUESTION, GREEDY, one.id).version == one.version


def test_a_version_that_goes_while_they_are_listed_is_left_out(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.publish(1)
    generator = stand.ready()
    monkeypatch.setattr(checkpoints, "versions", lambda home: [1, 2])
    assert [one.id for one in generator.models()] == ["autodidact", "autodidact@1", "base"]


def test_few_versions_are_kept_in_memory_and_all_can_be_asked_for(stand: Stand) -> None:
    numbers = (1, 2, 3, 4)
    for number in numbers:
        stand.publish(number, number - 1 or None)
    generator = stand.ready(versions_in_memory=1)
    expected = {number: stand.expected(number) for number in numbers}
    for number in (1, 2, 3, 4, 1, 3):
        assert reply(generator, f"autodidact@{number}") == expected[number]
        assert generator.figures()["versions_in_memory"] <= 2, "what serves, and one besides"


def test_a_version_that_was_deleted_is_not_served_from_memory(stand: Stand) -> None:
    stand.publish(1)
    stand.publish(2, 1)
    generator = stand.ready()
    begun = generator.prepare(QUESTION, GREEDY, "autodidact@1")
    assert checkpoints.discard(stand.home, [1]) == [1]
    with pytest.raises(UnknownModel, match="there are autodidact, autodidact@2, base"):
        generator.prepare(QUESTION, GREEDY, "autodidact@1")
    text = "".join(delta.text for delta in generator.stream(begun))
    assert text == stand.expected(1), "a request keeps the version that it was given"


def test_a_kept_version_that_was_damaged_is_not_served(stand: Stand) -> None:
    stand.publish(1)
    stand.publish(2, 1)
    AFTER["a flipped bit"](checkpoints.folder(stand.home, 1))
    generator = stand.ready()
    with pytest.raises(UnknownModel):
        generator.prepare(QUESTION, GREEDY, "autodidact@1")
    assert reply(generator) == stand.expected(2)


def test_a_refused_version_is_not_served_by_name_either(stand: Stand) -> None:
    stand.publish(1)
    generator = stand.ready()
    publish_bad(stand, "NaN", 2, 1)
    wait_for(lambda: generator.status().rejected, 30, "the refusal")
    with pytest.raises(UnknownModel, match=r"000002.*is not finite"):
        generator.prepare(QUESTION, GREEDY, "autodidact@2")
    assert [one.id for one in generator.models()] == ["autodidact", "autodidact@1", "base"]


def test_a_text_is_gone_on_with(stand: Stand) -> None:
    """No dialogue around it; the token that begins texts, where the base knows one."""
    generator = stand.ready()
    prepared = generator.prepare_text("The lighthouse on the north", GREEDY)
    ids = stand.base.tokenizer("The lighthouse on the north").input_ids
    assert prepared.handle.ids == tuple(ids)
    assert prepared.room == 256 - len(ids)
    said = "".join(delta.text for delta in generator.stream(prepared))
    expected = stand.expected_ids(0, list(ids))
    assert said == stand.base.tokenizer.decode(expected, skip_special_tokens=True)
    assert generator.prepare_text("", GREEDY).handle.ids
    with pytest.raises(ContextExceeded):
        generator.prepare_text("word " * 400, GREEDY)
    with pytest.raises(UnknownModel):
        generator.prepare_text("The", GREEDY, "autodidact@1")


def test_control_tokens_in_a_text_are_only_text(stand: Stand) -> None:
    generator = stand.ready()
    special = set(stand.base.tokenizer.all_special_ids)
    begins, *rest = generator.prepare_text("a <|end_of_text|> b", GREEDY).handle.ids
    assert begins == stand.base.start_id
    assert not special & set(rest)


def test_a_reply_ends_before_a_stop_string(stand: Stand) -> None:
    generator = stand.ready()
    whole = stand.expected(0)
    for begin, end in ((3, 6), (5, 6), (0, 2), (7, 13)):
        stop = whole[begin:end]
        params = replace(GREEDY, stop=("never said", stop))
        deltas = list(generator.stream(generator.prepare(QUESTION, params)))
        assert "".join(delta.text for delta in deltas) == whole[: whole.index(stop)]
        assert deltas[-1].finish == "stop"
    params = replace(GREEDY, stop=("never said", whole[-2:] + "and more"))
    deltas = list(generator.stream(generator.prepare(QUESTION, params)))
    assert "".join(delta.text for delta in deltas) == whole
    assert sum(delta.tokens for delta in deltas) == len(stand.expected_ids(0))


def test_after_a_stop_string_nothing_more_is_computed(stand: Stand) -> None:
    """Also where the reader takes its time with the last piece."""
    generator = stand.ready()
    ids = stand.expected_ids(0)
    stop = stand.expected(0)[2:4]
    needed = next(n for n in range(1, 17) if stop in stand.base.tokenizer.decode(ids[:n]))
    gate = Gate(generator, at=needed + 1)
    stream = generator.stream(generator.prepare(QUESTION, replace(LONG, stop=(stop,))))
    for delta in stream:
        if delta.finish:
            gate.open()
            wait_for(lambda: active(generator) == 0, 30, "the end")
            assert gate.passes <= needed + 1
    assert delta.finish == "stop"
    assert generator.figures()["cancelled_total"] == 0, "it has ended by itself"


@pytest.mark.parametrize("how", ["closed", "dropped", "closed by another thread"])
@pytest.mark.parametrize("begun", [True, False])
def test_a_reader_that_leaves_ends_the_reply(stand: Stand, how: str, begun: bool) -> None:
    generator = stand.ready()
    gate = Gate(generator, at=8)
    stream = generator.stream(generator.prepare(QUESTION, LONG))
    if begun:
        next(stream)
    wait_for(lambda: gate.passes == 8, 30, "the gate")
    if how == "closed":
        stream.close()
    elif how != "dropped":
        closing = threading.Thread(target=stream.close)
        closing.start()
        closing.join()
        gate.open()
        assert all(delta.finish is None for delta in stream), "no reply that ended by itself"
    del stream
    gate.open()
    wait_for(lambda: active(generator) == 0, 30, "the end")
    assert gate.passes == 8
    assert generator.figures()["cancelled_total"] == 1


def test_log_probabilities_spell_the_reply(stand: Stand) -> None:
    generator = stand.ready()
    params = SamplingParams(1.5, 1.0, 0, 40, seed=3, logprobs=2)
    deltas = list(generator.stream(generator.prepare(QUESTION, params)))
    found = [one for delta in deltas for one in delta.logprobs]
    assert len(found) == sum(delta.tokens for delta in deltas)
    assert [len(delta.logprobs) for delta in deltas] == [delta.tokens for delta in deltas]
    text = "".join(delta.text for delta in deltas)
    special = set(stand.base.tokenizer.all_special_tokens)
    spelt = b"".join(one.data for one in found if one.token not in special)
    told = spelt.decode(errors="replace")
    assert told.startswith(text)
    assert set(told[len(text) :]) <= {"\ufffd"}, "only a character that was not finished"
    for one in found:
        assert one.logprob <= 0
        assert len(one.top) == 2
        assert one.top[0][2] >= one.top[1][2]
        assert one.logprob <= one.top[0][2] + 1e-6
    plain = list(generator.stream(generator.prepare(QUESTION, replace(params, logprobs=None))))
    assert "".join(delta.text for delta in plain) == text
    assert not any(delta.logprobs for delta in plain)


def test_a_seed_reproduces_a_reply(stand: Stand) -> None:
    generator = stand.ready()

    def said(seed: int | None) -> str:
        params = SamplingParams(1.0, 1.0, 0, 24, seed)
        return "".join(d.text for d in generator.stream(generator.prepare(QUESTION, params)))

    assert said(5) == said(5)
    assert len({said(seed) for seed in (5, 6, 7, None)}) > 2


def test_figures_count_what_was_done(stand: Stand) -> None:
    generator = stand.ready()
    before = generator.figures()
    assert set(before) == {
        "requests_total", "tokens_total", "prompt_tokens_total", "cancelled_total",
        "refused_total", "steps_total", "reloads_total", "rejected_total", "reload_seconds_sum",
        "running", "waiting", "cache_bytes", "versions_in_memory", "live", "prefix_bytes",
        "reused_tokens_total",
    }  # fmt: skip
    assert set(before.values()) == {0}
    seen: list[str] = []
    generator.observe = lambda name, value: seen.append(name)
    reply(generator)
    stand.publish(1)
    live(generator, 1)
    publish_bad(stand, "NaN", 2, 1)
    wait_for(lambda: generator.status().rejected, 30, "the refusal")
    after = generator.figures()
    count = len(stand.expected_ids(0))
    assert after["requests_total"] == 1
    assert after["tokens_total"] == count
    assert after["prompt_tokens_total"] == generator.count(QUESTION)
    assert count - 1 <= after["steps_total"] <= count
    assert (after["reloads_total"], after["rejected_total"], after["live"]) == (1, 1, 1)
    assert after["reload_seconds_sum"] > 0
    assert after["versions_in_memory"] == 1
    assert set(seen) == {
        "queue_seconds", "first_token_seconds", "token_gap_seconds", "reply_seconds",
    }  # fmt: skip


def test_a_server_that_ends_says_so_to_those_it_answers(stand: Stand) -> None:
    generator = stand.ready()
    gate = Gate(generator, at=8)
    stream = generator.stream(generator.prepare(QUESTION, LONG))
    next(stream)
    closing = threading.Thread(target=generator.close)
    closing.start()
    wait_for(lambda: generator._follower._closing.is_set(), 30, "close")
    gate.open()
    closing.join(30)
    with pytest.raises(Busy, match="shutting down"):
        list(stream)


def test_a_prompt_and_its_reply_must_fit(stand: Stand) -> None:
    generator = stand.ready()
    count = generator.count(QUESTION)
    fits = SamplingParams(max_new_tokens=256 - count)
    assert generator.prepare(QUESTION, fits).room == 256 - count
    with pytest.raises(ContextExceeded, match=rf"prompt {count} \+ max_length {257 - count}"):
        generator.prepare(QUESTION, SamplingParams(max_new_tokens=257 - count))
    with pytest.raises(ContextExceeded):
        generator.prepare(ask("word " * 400), GREEDY)


def test_a_reply_that_is_stopped_makes_room(stand: Stand) -> None:
    generator = stand.ready(max_concurrent=1)
    gate = Gate(generator, at=8)
    stream = generator.stream(generator.prepare(QUESTION, LONG))
    next(stream)
    assert (generator.figures()["running"], generator.figures()["waiting"]) == (1, 0)
    stream.close()
    gate.open()
    wait_for(lambda: active(generator) == 0, 30, "the cancellation")
    assert generator.figures()["tokens_total"] <= 8
    assert reply(generator) == stand.expected(0)


def test_while_the_model_loads_requests_are_put_off(stand: Stand) -> None:
    go_on = threading.Event()

    def resolve() -> bases.Base:
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

    def resolve() -> bases.Base:
        if faults:
            if len(faults) == 1:
                seen.append(generator.status().reason)
                with pytest.raises(NotReady, match="the Hub is out of reach"):
                    generator.prepare(QUESTION, GREEDY)
            raise faults.pop(0)
        seen.append(generator.status().reason)
        return stand.found

    generator = LocalGenerator(
        LocalSettings(), ServingContext(stand.home, ServerSettings(), "auto", ""), resolve
    )
    stand.running.append(generator)
    generator.start()
    wait_for(lambda: generator.status().state == "ready", 30, "the base")
    assert seen == ["the Hub is out of reach", "ZeroDivisionError"]
    assert generator.status().reason == ""


def test_a_base_that_cannot_be_served_is_refused_by_name_and_not_tried_again(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here by masks that say something else than the model's own, as an unknown family's might."""
    tried: list[bool] = []

    def resolve() -> bases.Base:
        tried.append(True)
        return stand.found

    monkeypatch.setattr(exactness, "TRIED", frozenset())
    monkeypatch.setattr(follower, "RETRY_S", 0.01)
    mask = Attention.mask
    monkeypatch.setattr(
        Attention, "mask", lambda self, at, keys: mask(Attention({"x": 7}), at, keys)
    )
    generator = stand.start(resolve)
    wait_for(lambda: generator.status().state == "failed", 30, "the refusal")
    assert generator.status().reason.startswith("llama: replies that share a batch would not be")
    with pytest.raises(NotReady, match="no model: llama: "):
        generator.prepare(QUESTION, GREEDY)
    wait_for(lambda: not generator._follower._thread.is_alive(), 30, "the end of trying")
    assert tried == [True]
