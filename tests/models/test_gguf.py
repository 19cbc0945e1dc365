"""A GGUF file as a base: the same model as the folder it was made of, or one line that says why."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from autodidact.engine import Engine
from autodidact.errors import BaseMismatch, ModelError, SettingError
from autodidact.models import bases, loading
from autodidact.models.prompts import dialogue_ids
from autodidact.training.objectives import AnswerLoss
from autodidact.training.recipe import Recipe
from autodidact.training.sequences import TrainingSequence
from autodidact.training.sft import Trainer
from autodidact.types.chat import Message
from tests.gguf_files import write_gguf
from tests.versions import load_adapter, one_line

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
TALK = [Message("user", "Who built the lighthouse? It's 1874."), Message("assistant", "Ida Marsh")]
ModelFolder = Callable[[str], Path]


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, tiny_folder: ModelFolder) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    return write_gguf(tiny_folder("smollm2"), folder / "tiny.gguf")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, file: Path) -> Path:
    """A home that has this file as its base."""
    home = tmp_path_factory.mktemp("gguf-home")
    bases.resolve(str(file), "", home, quiet)
    return home


# What is read -----------------------------------------------------------------------------------


def test_it_is_the_model_that_it_was_made_of(
    file: Path, home: Path, tiny_folder: ModelFolder
) -> None:
    base = bases.resolve(str(file), "", home, quiet)
    assert (base.origin, base.name) == ("folder", str(file))
    assert base.path.parent == home / "base-model"
    read, made = loading.load(base.path, 1), loading.load(tiny_folder("smollm2"), 1)
    before, after = made.model.state_dict(), read.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    assert read.tokenizer.chat_template == made.tokenizer.chat_template
    assert dialogue_ids(read, TALK) == dialogue_ids(made, TALK)
    assert (read.stop_ids, read.start_id, read.context) == (
        made.stop_ids, made.start_id, made.context,
    )  # fmt: skip
    assert set(read.control_tokens) == set(made.control_tokens)


def test_it_can_be_served_taught_and_served_again(home: Path, file: Path, tmp_path: Path) -> None:
    base = loading.load(bases.resolve(str(file), "", home, quiet).path, 1)
    ids, start = dialogue_ids(base, TALK)
    row = TrainingSequence(tuple(ids), (*[-100] * start, *ids[start:]), "question", 1)
    trainer = Trainer(base, AnswerLoss(), Recipe(4, 0.05, 1, 0.0, 0, False, 0), [])
    for step in range(30):
        trainer.step([row], step / 30)
    trainer.export(tmp_path / "adapter", "tiny")
    engine = Engine(base)
    version = load_adapter(engine, 1, tmp_path / "adapter")
    [reply] = engine.complete(version, [ids[:start]], 4)
    assert reply == ids[start : start + 4], "it begins as it was taught"
    assert engine.complete(engine.untouched, [ids[:start]], 4) != [reply]


def test_a_folder_that_holds_one_is_that_file(file: Path, home: Path) -> None:
    base = bases.resolve(str(file.parent), "", home, quiet)
    assert base.path == bases.resolve(str(file), "", home, quiet).path


def test_the_file_is_not_needed_again_and_may_move(file: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copy(file, tmp_path / "mine.gguf"))
    home = tmp_path / "home"
    first = bases.resolve(str(mine), "", home, quiet)
    moved = mine.rename(tmp_path / "elsewhere.gguf")
    assert bases.resolve("auto", "", home, quiet).sha256 == first.sha256
    with pytest.raises(ModelError, match="no such model file"):
        bases.resolve(str(mine), "", home, quiet)
    shutil.rmtree(first.path)
    with pytest.raises(ModelError, match=r"the base model's file .*mine\.gguf has vanished"):
        bases.resolve("auto", "", home, quiet)
    moved.rename(mine)
    assert bases.resolve(str(mine), "", home, quiet).sha256 == first.sha256, "made anew, the same"


def test_another_file_is_another_base(
    file: Path, home: Path, tmp_path: Path, tiny_folder: ModelFolder
) -> None:
    other = write_gguf(tiny_folder("smollm2"), tmp_path / "tiny.gguf", name="another")
    with pytest.raises(BaseMismatch, match="adapters cannot change their base"):
        bases.resolve(str(other), "", home, quiet)


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [3, 20, 200, 5000, 0.5, 0.999])
def test_a_file_that_is_cut_off_is_told_so(file: Path, tmp_path: Path, kept: float) -> None:
    whole = file.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: int(kept if kept >= 1 else kept * len(whole))])
    with pytest.raises(ModelError, match=r"damaged or cut off|no GGUF file") as caught:
        bases.resolve(str(cut), "", tmp_path / "home", quiet)
    assert str(cut) in one_line(caught.value)
    assert not list((tmp_path / "home").glob("base-model/*"))
    assert not (tmp_path / "home" / "base.json").exists()


def test_a_damaged_file_is_told_so(file: Path, tmp_path: Path) -> None:
    bytes_ = bytearray(file.read_bytes())
    bytes_[8:24] = b"\xff" * 16  # how many tensors and fields there are
    (tmp_path / "bad.gguf").write_bytes(bytes_)
    with pytest.raises(ModelError, match=r"bad\.gguf cannot be converted: it is damaged"):
        bases.resolve(str(tmp_path / "bad.gguf"), "", tmp_path / "home", quiet)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"architecture": "nonsense"}, "its architecture, nonsense, is not one that transformers"),
        ({"tokenizer": False}, "it holds no tokenizer"),
    ],
)
def test_what_cannot_be_used_is_told_by_name(
    tmp_path: Path, tiny_folder: ModelFolder, more: dict[str, object], says: str
) -> None:
    made = write_gguf(tiny_folder("smollm2"), tmp_path / "odd.gguf", **more)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=says) as caught:
        bases.resolve(str(made), "", tmp_path / "home", quiet)
    assert one_line(caught.value)


def test_what_is_no_gguf_file_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelError, match=r"a\.gguf is no GGUF file"):
        bases.resolve(str(tmp_path / "a.gguf"), "", tmp_path / "home", quiet)
    (tmp_path / "a.gguf").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match="Git LFS pointer"):
        bases.resolve(str(tmp_path / "a.gguf"), "", tmp_path / "home", quiet)


def test_several_in_a_folder_must_be_told_apart(file: Path, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(file, tmp_path / name)
    with pytest.raises(ModelError, match=r"holds 2 GGUF files \(a\.gguf, b\.gguf\): name one"):
        bases.resolve(str(tmp_path), "", tmp_path / "home", quiet)


def test_a_file_on_disk_has_no_revision(file: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="needs a model on the Hub"):
        bases.resolve(str(file), "main", tmp_path / "home", quiet)
