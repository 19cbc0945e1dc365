"""Fixtures of the core's tests: tiny models made once, homes, places to run programs in.

A test module asks for them with `pytest_plugins = ["tests.core_fixtures"]`. Models are made once a
session and never changed; whatever a test writes to is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from autodidact import checkpoints
from autodidact.home import prepare_home
from tests import fake_study
from tests.bench import Bench
from tests.workplace import Workplace, prepare

if TYPE_CHECKING:
    from autodidact.models.loading import LoadedBase
    from tests.tiny_models import Family


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], Path]:
    """The folder of a tiny model, made at the first call for its family."""
    made: dict[str, Path] = {}

    def folder(family: Family) -> Path:
        from tests.tiny_models import tiny

        if family not in made:
            made[family] = tiny(tmp_path_factory.mktemp("models") / family, family)
        return made[family]

    return folder


@pytest.fixture(scope="session")
def tiny_base(tiny_folder: Callable[[Family], Path]) -> Callable[[Family], LoadedBase]:
    """A tiny base in memory, on the CPU, loaded at the first call for its family."""
    import torch

    from autodidact.models import loading

    made: dict[str, LoadedBase] = {}

    def base(family: Family) -> LoadedBase:
        if family not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(torch.cuda, "is_available", lambda: False)
                patch.setattr(torch.backends.mps, "is_available", lambda: False)
                made[family] = loading.load(tiny_folder(family), 1)
        return made[family]

    return base


@pytest.fixture(scope="session")
def llama(tiny_base: Callable[[Family], LoadedBase]) -> LoadedBase:
    return tiny_base("llama")


@pytest.fixture(scope="session")
def smollm2(tiny_base: Callable[[Family], LoadedBase]) -> LoadedBase:
    return tiny_base("smollm2")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    prepare_home(folder)
    return folder


@pytest.fixture
def workplace(tmp_path: Path, tiny_folder: Callable[[Family], Path]) -> Workplace:
    """Four documents and the tiny llama."""
    return prepare(tmp_path, tiny_folder("llama"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A learner with four documents to fetch, whose studies are fakes."""
    (tmp_path / "model").mkdir()
    fake_study.install(tmp_path, monkeypatch)
    return Bench(prepare(tmp_path, tmp_path / "model"))


@pytest.fixture
def learned(bench: Bench) -> Bench:
    """Four documents, learned in two cycles: 1 and 2, then 3 and 4."""
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    bench.learn()
    bench.learn()
    assert checkpoints.versions(bench.home) == [1, 2]
    assert bench.passages() == {1, 2, 3, 4}
    return bench


@pytest.fixture
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
