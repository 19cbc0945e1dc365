"""The contract of every generator, and which one serves."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autodidact import generators, registry, settings
from autodidact.errors import SettingError, UnknownModel
from autodidact.generators import ServingContext
from autodidact.generators.local import LocalGenerator, LocalSettings
from autodidact.models.bases import Base
from autodidact.settings import ServerSettings
from autodidact.types.chat import ModelStatus, SamplingParams
from autodidact.types.protocols import Generator, Runs
from tests.versions import BASE_SHA, one_line
from tests.web.fakes import QueueGenerator
from tests.web.remote import RemoteLikeGenerator
from tests.workplace import ask, wait_for

pytest_plugins = ["tests.core_fixtures"]
GREEDY = SamplingParams(temperature=0.0, max_new_tokens=8)
OWN = """
from autodidact.settings import Section

class Fields(Section):
    \"\"\"Nothing.\"\"\"

class Part:
    name = "part"
    settings = Fields

    def __init__(self, settings, context):
        self.given = (settings, context)

    def status(self): ...
    def models(self): ...
    def prepare(self, messages, params, model=None): ...
    def stream(self, prepared): ...
"""


@pytest.fixture
def context(tmp_path: Path) -> ServingContext:
    return ServingContext(tmp_path, ServerSettings(threads=1), "auto", "")


# The contract -----------------------------------------------------------------------------------


def local(context: ServingContext, folder: Path) -> LocalGenerator:
    return LocalGenerator(
        LocalSettings(), context, lambda: Base("tiny", folder, "folder", "", BASE_SHA, "")
    )


MAKERS: dict[str, Callable[[ServingContext, Path], Generator]] = {
    "local": local,
    "one of the tests, with capabilities": lambda context, folder: QueueGenerator(),
    "one of the tests, with none": lambda context, folder: RemoteLikeGenerator(),
}
"""By name; the folder is that of a tiny model."""


def test_every_generator_has_a_maker_here() -> None:
    assert registry.found(registry.GENERATORS).keys() <= MAKERS.keys()


@pytest.fixture(params=MAKERS)
def generator(
    request: pytest.FixtureRequest,
    context: ServingContext,
    tiny_folder: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    one_thread: None,
) -> Iterator[Generator]:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    made = MAKERS[request.param](context, tiny_folder("llama"))
    assert isinstance(made.status(), ModelStatus), "before it is started, too"
    if isinstance(made, Runs):
        made.start()
    wait_for(lambda: made.status().state == "ready", 60, "the generator")
    yield made
    if isinstance(made, Runs):
        made.close()


def test_who_answers_can_be_asked_for_by_name(generator: Generator) -> None:
    names = [one.id for one in generator.models()]
    assert names
    assert len(set(names)) == len(names)
    prepared = generator.prepare(ask("Who?"), GREEDY)
    again = generator.prepare(ask("Who?"), GREEDY, prepared.answers)
    assert (again.answers, again.version) == (prepared.answers, prepared.version)
    for name in names:
        assert generator.prepare(ask("Who?"), GREEDY, name).answers


def test_a_name_that_it_has_not_is_one_line(generator: Generator) -> None:
    with pytest.raises(UnknownModel) as caught:
        generator.prepare(ask("Who?"), GREEDY, "no/such-model")
    assert one_line(caught.value)


def test_what_is_known_beforehand_agrees_with_the_status(generator: Generator) -> None:
    status, prepared = generator.status(), generator.prepare(ask("Who?"), GREEDY)
    assert (prepared.version is None) == (status.live is None)
    if prepared.room is not None:
        assert prepared.prompt_tokens is not None
        assert prepared.prompt_tokens + prepared.room == status.context


def test_a_reply_ends_and_says_how(generator: Generator) -> None:
    *before, last = generator.stream(generator.prepare(ask("one two three"), GREEDY))
    assert last.finish in ("stop", "length")
    assert all(delta.finish is None for delta in before)


def test_the_length_asked_for_last_counts(generator: Generator) -> None:
    """`/v1` prepares with a length of 1, and asks for more once it knows the room."""
    prepared = generator.prepare(ask("one two three"), replace(GREEDY, max_new_tokens=1))
    longer = replace(prepared, params=replace(prepared.params, max_new_tokens=3))
    at_once = generator.prepare(ask("one two three"), replace(GREEDY, max_new_tokens=3))
    first, second = (
        "".join(delta.text for delta in generator.stream(one)) for one in (longer, at_once)
    )
    assert first == second


def test_a_stream_that_can_be_closed_ends_there(generator: Generator) -> None:
    stream = generator.stream(generator.prepare(ask("one two three"), GREEDY))
    close = getattr(stream, "close", None)
    if close is not None:
        close()
        assert [delta for delta in stream if delta.finish] == []


# Which one serves -------------------------------------------------------------------------------


def chosen(folder: Path, text: str) -> tuple[settings.Settings, ServingContext]:
    file = folder / "autodidact.toml"
    file.write_text(text)
    tree = settings.load(file)
    return tree, ServingContext(tree.home, tree.server, tree.model, tree.revision)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The class of a generator beside the settings file."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_generator_of_a_test", raising=False)
    (tmp_path / "own_generator_of_a_test.py").write_text(OWN)
    return "own_generator_of_a_test:Part"


def test_the_local_one_serves_unless_another_is_named(tmp_path: Path) -> None:
    tree, context = chosen(tmp_path, "")
    made = generators.build(tree.generators, context)
    assert isinstance(made, LocalGenerator)
    assert made.status().state == "loading", "made, and nothing loaded"


def test_a_name_that_none_has_is_answered_with_those_there_are(tmp_path: Path) -> None:
    tree, context = chosen(tmp_path, '[server]\ngenerator = "locla"')
    with pytest.raises(SettingError) as caught:
        generators.build(tree.generators, context)
    assert one_line(caught.value) == ("server.generator: no such generator: locla; there are local")


def test_one_s_own_goes_by_the_name_of_its_table(
    tmp_path: Path, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f'[generators.own.first]\nclass = "{own}"\n[generators.own.second]\nclass = "{own}"\n'
    monkeypatch.setenv("AUTODIDACT_SERVER__GENERATOR", "second")
    tree, context = chosen(tmp_path, text)
    made = generators.build(tree.generators, context)
    assert made.given == (tree.generators.own.second, context)  # type: ignore[attr-defined]


def test_a_name_that_two_have_chooses_none(tmp_path: Path, own: str) -> None:
    tree, context = chosen(tmp_path, f'[generators.own.local]\nclass = "{own}"')
    with pytest.raises(SettingError, match="two generators are called local"):
        generators.build(tree.generators, context)


@pytest.mark.parametrize("method", registry.GENERATORS.methods)
def test_every_method_of_the_seam_is_missed(tmp_path: Path, own: str, method: str) -> None:
    path = tmp_path / "own_generator_of_a_test.py"
    path.write_text(OWN.replace(f"def {method}(", f"def not_{method}("))
    with pytest.raises(SettingError, match=f"not a generator: it has no method `{method}`"):
        chosen(tmp_path, f'[generators.own.mine]\nclass = "{own}"')


def test_the_methods_that_are_missed_are_the_protocol_s() -> None:
    names = {name for name, _ in inspect.getmembers(Generator, inspect.isfunction)}
    assert set(registry.GENERATORS.methods) == {name for name in names if name[0] != "_"}
