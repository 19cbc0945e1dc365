"""A bad checkpoint never serves, whatever is bad about it; the next good one does, at once.

A real adapter on a tiny model, published, is damaged before its hashes are taken (what a broken
learner would publish) or after (what a broken disk or a stranger would leave). What the server
loads with, `checkpoints.verify` and `Engine.load`, refuses each; and a running `LocalGenerator`
goes on with the version it has and takes the next good one within two looks. Without
GUARANTEES=full the generator meets every sixth of them only.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file

from autodidact import checkpoints
from autodidact.checkpoints import CONFIG, MANIFEST, REPORT, WEIGHTS
from autodidact.engine import Engine
from autodidact.errors import CheckpointError
from autodidact.generators import ServingContext, follower
from autodidact.generators.local import LocalGenerator, LocalSettings
from autodidact.home import prepare_home
from autodidact.models import bases
from autodidact.models.loading import LoadedBase
from autodidact.settings import ServerSettings
from autodidact.types.chat import SamplingParams
from tests.guarantees import full
from tests.versions import BASE_SHA, manifest_for, one_line, save_adapter
from tests.workplace import ask, wait_for

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
Damage = Callable[[Path], object]
Tensors = dict[str, torch.Tensor]


def tensors(change: Callable[[Tensors], Tensors]) -> Damage:
    def apply(folder: Path) -> None:
        changed = change(load((folder / WEIGHTS).read_bytes()))
        save_file({name: t.contiguous() for name, t in changed.items()}, folder / WEIGHTS)

    return apply


def one(change: Callable[[torch.Tensor], torch.Tensor], part: str = "lora_A") -> Damage:
    """Change one tensor, the first of its kind."""

    def apply(found: Tensors) -> Tensors:
        name = min(name for name in found if part in name)
        return {**found, name: change(found[name])}

    return tensors(apply)


def poisoned(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor[-1, -1] = value
        return tensor

    return change


def renamed(old: str, new: str) -> Damage:
    return tensors(lambda found: {name.replace(old, new): t for name, t in found.items()})


def config(**changes: Any) -> Damage:
    def apply(folder: Path) -> None:
        told = json.loads((folder / CONFIG).read_bytes())
        (folder / CONFIG).write_text(json.dumps({**told, **changes}))

    return apply


def content(file: str, change: Callable[[bytes], bytes]) -> Damage:
    return lambda folder: (folder / file).write_bytes(change((folder / file).read_bytes()))


def flipped(at: float) -> Callable[[bytes], bytes]:
    def flip(data: bytes) -> bytes:
        place = int(at * (len(data) - 1))
        return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]

    return flip


def manifest(**changes: Any) -> Damage:
    def apply(folder: Path) -> None:
        told = json.loads((folder / MANIFEST).read_bytes())
        (folder / MANIFEST).write_text(json.dumps({**told, **changes}))

    return apply


def in_place(file: str, make: Callable[[Path], object]) -> Damage:
    def apply(folder: Path) -> None:
        (folder / file).unlink()
        make(folder / file)

    return apply


def linked(file: str) -> Damage:
    """The very same bytes behind a symbolic link."""

    def apply(folder: Path) -> None:
        elsewhere = folder.with_name(f"elsewhere-{file}")
        (folder / file).rename(elsewhere)
        (folder / file).symlink_to(elsewhere)

    return apply


def pickled(folder: Path) -> None:
    found = load((folder / WEIGHTS).read_bytes())
    torch.save(found, folder / WEIGHTS)


def rank(r: int) -> Damage:
    """A whole adapter of another rank than the config's, or with it."""

    def apply(found: Tensors) -> Tensors:
        return {
            name: torch.zeros((r, t.shape[1]) if "lora_A" in name else (t.shape[0], r))
            for name, t in found.items()
        }

    return tensors(apply)


def both(*damages: Damage) -> Damage:
    return lambda folder: [damage(folder) for damage in damages]


BEFORE: dict[str, Damage] = {
    "one NaN": one(poisoned(float("nan"))),
    "one infinity": one(poisoned(float("-inf")), "lora_B"),
    "too large to be added up": tensors(
        lambda found: {name: torch.full_like(t, 1e30) for name, t in found.items()}
    ),
    "keys renamed": renamed("lora_A", "lora_X"),
    "keys without prefix": renamed("base_model.model.", ""),
    "keys of another layer": renamed("layers.1", "layers.7"),
    "keys with the adapter's name": renamed(".weight", ".default.weight"),
    "a key more": tensors(
        lambda found: {**found, "base_model.model.lm_head.weight": torch.zeros(2)}
    ),
    "a key less": tensors(lambda found: {n: t for n, t in found.items() if n != min(found)}),
    "no keys": tensors(lambda found: {}),
    "a shape transposed": one(torch.Tensor.t),
    "a dimension more": one(lambda tensor: tensor[None]),
    "an empty tensor": one(lambda tensor: tensor[:0]),
    "integers": one(lambda tensor: tensor.to(torch.int32)),
    "8-bit floats": one(lambda tensor: tensor.to(torch.float8_e4m3fn)),
    "complex numbers": one(lambda tensor: tensor.to(torch.complex64)),
    "another rank than the config's": rank(8),
    "an oversized rank": both(rank(513), config(r=513)),
    "rank 0": config(r=0),
    "alpha 0": config(lora_alpha=0),
    "alpha huge": config(lora_alpha=10**400),
    "alpha not a number": config(lora_alpha=float("nan")),
    "fewer modules": config(target_modules=["q_proj"]),
    "DoRA": config(use_dora=True),
    "another method": config(peft_type="IA3"),
    "another task": config(task_type="SEQ_CLS"),
    "weights that replace the base's": config(modules_to_save=["lm_head"]),
    "a base from elsewhere with code of its own": config(
        auto_mapping={"base_model_class": "x", "parent_library": "os"}
    ),
    "a pickle": pickled,
    "an empty weights file": content(WEIGHTS, lambda data: b""),
    "half a weights file": content(WEIGHTS, lambda data: data[: len(data) // 2]),
    "a header that claims too much": content(WEIGHTS, lambda data: b"\xff" * 8 + data[8:]),
    "a config that is no JSON": content(CONFIG, lambda data: data[:-2]),
    "a config that is a list": content(CONFIG, lambda data: b"[]"),
}  # fmt: skip
AFTER: dict[str, Damage] = {
    "a bit of the header": content(WEIGHTS, flipped(0.001)),
    "a bit in the middle": content(WEIGHTS, flipped(0.5)),
    "the last bit": content(WEIGHTS, flipped(1.0)),
    "a bit of the config": content(CONFIG, flipped(0.5)),
    "a byte short": content(WEIGHTS, lambda data: data[:-1]),
    "a byte long": content(WEIGHTS, lambda data: data + b"\0"),
    "zeroes of the same length": content(WEIGHTS, lambda data: bytes(len(data))),
    "no weights": lambda folder: (folder / WEIGHTS).unlink(),
    "no config": lambda folder: (folder / CONFIG).unlink(),
    "no report": lambda folder: (folder / REPORT).unlink(),
    "weights named .bin": lambda folder: (folder / WEIGHTS).rename(folder / "adapter_model.bin"),
    "weights behind a link": linked(WEIGHTS),
    "a manifest behind a link": linked(MANIFEST),
    "a pipe for weights": in_place(WEIGHTS, os.mkfifo),
    "a folder for weights": in_place(WEIGHTS, lambda path: path.mkdir()),
    "another base": manifest(base={"name": "other", "sha256": "c" * 64}),
    "another version's manifest": manifest(version=1),
    "a manifest without files": manifest(files={}),
    "half a manifest": content(MANIFEST, lambda data: data[: len(data) // 2]),
    "a manifest nested too deep": content(MANIFEST, lambda data: b"[" * 200_000),
    "an empty folder": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
    "no folder": shutil.rmtree,
}
ALL = [*BEFORE, *AFTER]
MET = ALL if full() else ALL[::6]


def publish_damaged(home: Path, adapter: Path, version: int, what: str | None) -> None:
    """Publish elsewhere, damage it there, then let it appear in `home` as it is."""
    aside = home.with_name(f"aside-{version}")
    prepare_home(aside)
    staged = checkpoints.staging(aside, version) / "adapter"
    shutil.copytree(adapter, staged)
    (staged / REPORT).write_text("{}")
    if what in BEFORE:
        BEFORE[what](staged)
    checkpoints.publish(aside, staged, version, manifest_for(checkpoints.current(home) or None))
    if what in AFTER:
        AFTER[what](checkpoints.folder(aside, version))
    if checkpoints.folder(aside, version).exists():
        checkpoints.folder(aside, version).rename(checkpoints.folder(home, version))
    checkpoints.point(home, version)


@pytest.fixture(scope="module")
def adapters(llama: LoadedBase, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two adapters that say different things."""
    root = tmp_path_factory.mktemp("adapters")
    return save_adapter(llama, root / "1", 1), save_adapter(llama, root / "2", 2)


@pytest.fixture(scope="module")
def engine(llama: LoadedBase) -> Engine:
    return Engine(llama)


def test_there_are_enough_of_them() -> None:
    assert len(ALL) >= 50
    assert len(set(ALL)) == len(ALL)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", ALL)
def test_what_the_server_loads_with_refuses_it(
    home: Path, engine: Engine, adapters: tuple[Path, Path], what: str
) -> None:
    def load(version: int) -> int:
        files = checkpoints.verify(home, version, BASE_SHA)
        return engine.load(version, files.config, files.weights).number

    publish_damaged(home, adapters[0], 1, None)
    assert load(1) == 1, "undamaged it is taken"
    publish_damaged(home, adapters[1], 2, what)
    with pytest.raises(CheckpointError) as caught:
        load(2)
    assert "000002" in one_line(caught.value)
    assert load(1) == 1


# The generator ----------------------------------------------------------------------------------

GREEDY = SamplingParams(temperature=0.0, max_new_tokens=8)


class Watched(LocalGenerator):
    """Counts its looks, and notes at which of them a version went live."""

    looks = 0
    at: dict[int, int]

    def start(self) -> None:
        self.at = {}
        real = self._follower.look

        def look() -> None:
            self.looks += 1
            real()
            self.at.setdefault(self.status().live or 0, self.looks)

        self._follower.look = look  # type: ignore[method-assign]
        super().start()


@pytest.fixture
def generator(
    home: Path,
    tiny_folder: Callable[[str], Path],
    adapters: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Watched]:
    monkeypatch.setattr(follower, "POLL_S", 0.02)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    publish_damaged(home, adapters[0], 1, None)
    base = bases.Base("tiny", tiny_folder("llama"), "folder", "", BASE_SHA, "")
    context = ServingContext(home, ServerSettings(threads=1), "auto", "")
    made = Watched(LocalSettings(), context, lambda: base)
    made.start()
    wait_for(lambda: made.status().state == "ready", 60, "the base")
    yield made
    made.close()
    made._follower._thread.join(30)


def reply(generator: LocalGenerator) -> tuple[int, str]:
    prepared = generator.prepare(ask("Where is the harbour?"), GREEDY)
    return prepared.version, "".join(delta.text for delta in generator.stream(prepared))


@pytest.mark.timeout(600)
def test_the_old_one_goes_on_and_the_next_good_one_goes_live_within_two_looks(
    home: Path, generator: Watched, adapters: tuple[Path, Path]
) -> None:
    said = {1: reply(generator)[1]}
    good = 1
    for number, what in enumerate(MET, start=1):
        bad, after = 2 * number, 2 * number + 1
        publish_damaged(home, adapters[number % 2], bad, what)
        wait_for(lambda bad=bad: bad in checkpoints.rejected(home), 30, f"{what}: the refusal")
        assert f"{bad:06d}" in one_line(CheckpointError(generator.status().rejected)), what
        assert reply(generator) == (good, said[good]), what
        publish_damaged(home, adapters[number % 2], after, None)
        looks = generator.looks  # the last of them may have come too early
        wait_for(lambda after=after: after in generator.at, 30, f"{what}: the next good one")
        assert generator.at[after] <= looks + 2, what
        good = after
        version, said[good] = reply(generator)
        assert version == good
        assert generator.status().rejected == ""
    assert len(set(said.values())) > 1, "the two say different things"
    assert sorted(checkpoints.rejected(home)) == [2 * n for n in range(1, len(MET) + 1)]
