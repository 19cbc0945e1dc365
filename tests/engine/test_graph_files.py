"""A graph in files says what the one in memory says; what is not whole is not there."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autodidact.engine import Engine, graph, graph_files, runtime
from autodidact.engine.graph import Graph
from autodidact.engine.graph_passes import GraphPasses
from autodidact.models.loading import LoadedBase
from tests.blocks import in_blocks
from tests.engine.test_graph import FORMS, prompts, replies, versions
from tests.families import made
from tests.versions import load_adapter

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def base(tiny_base: Callable[[str], LoadedBase]) -> LoadedBase:
    return replace(in_blocks(tiny_base("llama")), stop_ids=frozenset({-1}))


def said(base: LoadedBase, found: Graph, adapters: list[Path]) -> list[list[int]]:
    """Replies of the base and two versions, mixed and alone."""
    engine = Engine(base, graph=GraphPasses(found, 1))
    loaded = [load_adapter(engine, i + 1, folder) for i, folder in enumerate(adapters)]
    asked = [(v, p) for p in prompts()[:4] for v in (engine.untouched, *loaded)]
    return [*replies(engine, asked), *replies(engine, asked[:1])]


@pytest.mark.parametrize(("form", "head"), FORMS)
def test_it_says_the_same(
    tiny_base: Callable[[str], LoadedBase], form: str, head: str, tmp_path: Path
) -> None:
    base = in_blocks(replace(tiny_base("llama"), stop_ids=frozenset({-1})), form, head)
    built = graph.build(base.model, base.context)
    adapters = versions(base, tmp_path)
    expected = said(base, built, adapters)
    folder = tmp_path / "graphs" / "one"
    kept = graph_files.keep(built, folder, base.context)
    assert not kept.weights, "they are in the file"
    assert said(base, kept, adapters) == expected
    again = graph_files.kept(folder, base.context)
    assert again is not None
    assert said(base, again, adapters) == expected
    tokens = np.array([5, 99, 5], np.int64)
    assert np.array_equal(again.embedding(tokens), built.embedding(tokens))


def test_an_embedding_of_its_own_in_floats(
    tiny_base: Callable[[str], LoadedBase], tmp_path: Path
) -> None:
    base = in_blocks(made("llama", {"tie_word_embeddings": False}, tiny_base("llama")))
    rows = base.model.get_input_embeddings().weight
    rows.data += 0.01 * rows.data.sin()  # no numbers of four or eight bits
    built = graph.build(base.model, base.context)
    assert not isinstance(built.table, graph.Coded)
    kept = graph_files.keep(built, tmp_path / "one", base.context)
    tokens = np.array([7, 300], np.int64)
    assert np.array_equal(kept.embedding(tokens), rows[tokens].detach().numpy())


def test_what_is_not_whole_is_not_there(base: LoadedBase, tmp_path: Path) -> None:
    folder = tmp_path / "graphs" / "one"
    context = base.context
    graph_files.keep(graph.build(base.model, context), folder, context)
    assert graph_files.kept(folder, context - 1) is None
    names = sorted(path.name for path in folder.iterdir())
    assert {"graph.json", "plain.onnx", "mixed.onnx", "plain.weights"} < set(names)
    for name in names:
        damaged = tmp_path / f"without {name}"
        shutil.copytree(folder, damaged)
        os.truncate(damaged / name, (damaged / name).stat().st_size - 1)
        assert graph_files.kept(damaged, context) is None, name
        (damaged / name).unlink()
        assert graph_files.kept(damaged, context) is None, name
    assert graph_files.kept(folder, context) is not None


def test_others_go_and_nothing_half_is_left(
    base: LoadedBase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built = graph.build(base.model, base.context)
    graph_files.keep(built, tmp_path / "old", base.context)
    for name, age_s in ((".killed", 3600), (".at work", 1)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, times=(time.time() - age_s,) * 2)
    graph_files.keep(built, tmp_path / "new", base.context)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".at work", "new"]
    (tmp_path / ".at work").rmdir()

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(graph_files, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        graph_files.keep(built, tmp_path / "newer", base.context)
    assert not list(tmp_path.iterdir())


def test_two_processes_write_one(base: LoadedBase, tmp_path: Path) -> None:
    """What is whole stays, so that nobody's files go while he opens them; what is not is
    replaced."""
    built, folder = graph.build(base.model, base.context), tmp_path / "one"
    graph_files.keep(built, folder, base.context)
    first = (folder / "graph.json").read_bytes()
    graph_files.keep(built, folder, base.context)
    assert (folder / "graph.json").read_bytes() == first
    (folder / "plain.onnx").unlink()
    graph_files.keep(built, folder, base.context)
    assert graph_files.kept(folder, base.context) is not None
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_whoever_has_it_goes_on_without_the_folder(base: LoadedBase, tmp_path: Path) -> None:
    """Also with what only a batch of several versions needs, and after a rest."""
    built = graph.build(base.model, base.context)
    adapters = versions(base, tmp_path)
    passes = GraphPasses(graph_files.keep(built, tmp_path / "graphs" / "one", base.context), 1)
    shutil.rmtree(tmp_path / "graphs")
    found = []
    for each in (passes, GraphPasses(built, 1)):
        each.rest()
        engine = Engine(base, graph=each)
        loaded = [load_adapter(engine, i + 1, folder) for i, folder in enumerate(adapters)]
        found.append(replies(engine, [(version, prompts()[0]) for version in loaded]))
    assert found[0] == found[1]


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One item for each graph that is made; and it is always fast enough."""
    found: list[int] = []
    real = graph.build

    def build(*given: object, **more: object) -> Graph:
        found.append(1)
        return real(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(graph, "build", build)
    monkeypatch.setattr(runtime, "FASTER", 0.0)
    return found


def test_a_graph_that_was_taken_is_made_once(
    base: LoadedBase, builds: list[int], tmp_path: Path
) -> None:
    files = runtime.graph_folder(tmp_path, "a base")
    assert files != runtime.graph_folder(tmp_path, "another base")
    for _ in range(2):
        choice = runtime.choose(base, "auto", 1, files=files)
        assert choice.passes is not None
        assert builds == [1]
    (files / "plain.weights").write_bytes(b"")
    assert runtime.choose(base, "auto", 1, files=files).passes is not None
    assert builds == [1, 1]
    assert graph_files.kept(files, base.context) is not None


def test_one_that_says_something_else_is_made_anew(
    base: LoadedBase, builds: list[int], tmp_path: Path
) -> None:
    """Damaged on the disk, with its size and time."""
    files = tmp_path / "one"
    runtime.choose(base, "auto", 1, files=files)
    weights = files / "plain.weights"
    was = weights.stat()
    weights.write_bytes(bytes(was.st_size))
    os.utime(weights, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert runtime.choose(base, "auto", 1, files=files).passes is not None
    assert builds == [1, 1]
    assert runtime.choose(base, "auto", 1, files=files).passes is not None
    assert builds == [1, 1]


def test_a_study_follows_the_server(
    base: LoadedBase, builds: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the server replies by is what is measured by, however fast it is beside a reply."""
    files = tmp_path / "one"
    assert runtime.choose(base, "auto", 1, files=files).passes is not None
    monkeypatch.setattr(runtime, "FASTER", 1e9)
    assert runtime.choose(base, "auto", 1, files=files, follows=True).passes is not None
    assert runtime.choose(base, "auto", 1, files=files).passes is None
    assert not files.exists(), "the server has settled on torch"
    assert runtime.choose(base, "auto", 1, files=files, follows=True).passes is None


def test_without_room_it_stays_in_memory(
    base: LoadedBase,
    builds: list[int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*given: object) -> Graph:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(graph_files, "keep", full)
    choice = runtime.choose(base, "auto", 1, files=tmp_path / "one")
    assert choice.passes is not None
    assert "No space left on device" in caplog.text
    assert "made anew at each start" in caplog.text


def test_one_that_is_not_taken_is_not_written(
    base: LoadedBase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runtime, "FASTER", 1e9)
    assert runtime.choose(base, "auto", 1, files=tmp_path / "one").passes is None
    assert not list(tmp_path.iterdir())
