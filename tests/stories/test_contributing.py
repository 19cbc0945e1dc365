"""A source, a filter and a generator, made as CONTRIBUTING.md says and from nothing else."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import autodidact.curation
import autodidact.generators
import autodidact.sources
from autodidact import curation, generators, settings, sources
from autodidact.errors import Busy, SettingError, SourceError
from autodidact.generators import ServingContext
from autodidact.settings import PROJECT
from autodidact.types.cycle import Reason, Verdict
from autodidact.types.documents import Document
from scripts import write_settings_docs
from tests import own_parts
from tests.bench import Bench
from tests.versions import one_line
from tests.web.fakes import LiveServer, QueueGenerator
from tests.workplace import TEXTS, Workplace, document, prepare, wait_for

PAGE = PROJECT / "CONTRIBUTING.md"
ENTRIES = "\n---\n".join(f"{title}\n{text}" for title, text in TEXTS.values())
LOUD = "THE MILL STANDS ON A HILL. " * 10
PACKAGES = {
    "notebook": autodidact.sources,
    "shouting": autodidact.curation,
    "relay": autodidact.generators,
}
SERVER = "[server]\n"
WHO = [{"role": "user", "content": "Who keeps it?"}]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A folder with the files of the page beside its settings file, and no Wikipedia."""
    own_parts.lay_out(PAGE, tmp_path, monkeypatch)
    place = prepare(tmp_path, tmp_path / "model")
    ours, server = place.config.read_text().split(SERVER)
    shown = "\n".join(own_parts.blocks(PAGE, "toml"))
    assert shown.count(SERVER) == 1
    place.config.write_text(f"{ours}\n{shown.replace(SERVER, SERVER + server)}")
    (tmp_path / "notes.txt").write_text(ENTRIES)
    return place


def rewrite(place: Workplace, old: str, new: str) -> None:
    text = place.config.read_text()
    assert old in text
    place.config.write_text(text.replace(old, new))


def refused(place: Workplace) -> str:
    with pytest.raises(SettingError) as caught:
        place.settings()
    return one_line(caught.value)


# One's own --------------------------------------------------------------------------------------


def test_the_page_shows_one_of_each_kind() -> None:
    assert list(own_parts.modules(PAGE)) == ["notebook", "shouting", "relay"]
    assert len(own_parts.blocks(PAGE, "toml")) == 3


def test_the_settings_reach_the_tree(place: Workplace) -> None:
    tree = place.settings()
    assert tree.sources.own.notebook.path == place.folder / "notes.txt"
    assert tree.curation.own.shouting.most == 0.3
    assert tree.generators.own.relay.model == "default"
    assert tree.server.generator == "relay"


def test_a_variable_sets_them_too(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTODIDACT_CURATION__OWN__SHOUTING__MOST", "0.7")
    assert place.settings().curation.own.shouting.most == 0.7
    monkeypatch.setenv("AUTODIDACT_CURATION__OWN__SHOUTING__MOTS", "0.7")
    assert refused(place) == (
        "environment variable AUTODIDACT_CURATION__OWN__SHOUTING__MOTS: no such setting; "
        "did you mean AUTODIDACT_CURATION__OWN__SHOUTING__MOST?"
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("path = ", "paht = ", "autodidact.toml: sources.own.notebook.paht: no such setting; did "
         "you mean sources.own.notebook.path?"),
        ("most = 0.3", "most = 3", "autodidact.toml: curation.own.shouting.most: Input should be "
         "less than or equal to 1"),
        ("notebook:Notebook", "notebok:Notebook", "autodidact.toml: sources.own.notebook.class: "
         "cannot import notebok:Notebook: No module named 'notebok'"),
        ("notebook:Notebook", "notebook:Notebok", "autodidact.toml: sources.own.notebook.class: "
         "cannot import notebook:Notebok: module 'notebook' has no attribute 'Notebok'"),
        ("notebook:Notebook", "shouting:Shouting", "autodidact.toml: sources.own.notebook.class: "
         "shouting:Shouting is not a source: it has no method `documents`"),
        ("shouting:Shouting", "notebook:Notebook", "autodidact.toml: curation.own.shouting.class: "
         "notebook:Notebook is not a filter: it has no method `check`"),
        ("relay:Relay", "notebook:Notebook", "autodidact.toml: generators.own.relay.class: "
         "notebook:Notebook is not a generator: it has no method `stream`"),
        ("model = \"d", "modle = \"d", "autodidact.toml: generators.own.relay.modle: no such "
         "setting; did you mean generators.own.relay.model?"),
        ("notebook:Notebook", "notebook", "autodidact.toml: sources.own.notebook.class: name it as "
         'class = "module:Class"'),
        ("own.notebook]", "own.my-notes]", "autodidact.toml: sources.own.my-notes: not a name; use "
         "small letters, digits and _"),
        ("own.notebook]", "own.copy]", "autodidact.toml: sources.own.copy: not a name; use small "
         "letters, digits and _"),
        ('class = "notebook:Notebook"', "", "autodidact.toml: sources.own.notebook.class: name it "
         'as class = "module:Class"'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_its_key(
    place: Workplace, old: str, new: str, said: str
) -> None:
    rewrite(place, old, new)
    assert refused(place) == said


def test_a_module_that_fails_is_one_line(place: Workplace) -> None:
    (place.folder / "notebook.py").write_text("1 / 0")
    assert refused(place).endswith(
        "sources.own.notebook.class: cannot import notebook:Notebook: division by zero"
    )


def test_a_setting_without_a_default_must_be_set(place: Workplace) -> None:
    path = place.folder / "notebook.py"
    path.write_text(path.read_text().replace('path: Path = Path("notebook.txt")', "path: Path"))
    assert place.settings().sources.own.notebook.path == place.folder / "notes.txt"
    rewrite(place, 'path = "notes.txt"', "")
    assert refused(place) == "autodidact.toml: sources.own.notebook.path: Field required"


def test_settings_that_let_unknown_keys_pass_are_refused(place: Workplace) -> None:
    path = place.folder / "notebook.py"
    path.write_text(
        path.read_text()
        .replace("autodidact.settings import Section", "pydantic import BaseModel")
        .replace("(Section)", "(BaseModel)")
    )
    assert "its `settings` must be a Section" in refused(place)


def test_the_source_delivers_from_where_it_was(place: Workplace) -> None:
    *_, source = sources.build(place.settings().sources)
    found = list(source.documents(None))
    assert [one.title for one in found] == [title for title, _ in TEXTS.values()]
    assert list(source.documents(found[1].cursor)) == found[2:]
    assert list(source.documents("of another source")) == found
    (place.folder / "notes.txt").unlink()
    with pytest.raises(SourceError):
        next(source.documents(None))


def test_two_sources_of_one_name_are_refused(place: Workplace) -> None:
    with place.config.open("a") as file:
        file.write('[sources.own.again]\nclass = "notebook:Notebook"\nenabled = true\n')
    with pytest.raises(SettingError, match="two sources are called notebook"):
        sources.build(place.settings().sources)


def test_what_is_not_enabled_is_not_made(place: Workplace) -> None:
    rewrite(place, "enabled = true", "enabled = false")
    tree = place.settings()
    assert [one.name for one in sources.build(tree.sources)] == ["files:notes"]
    assert [one.name for one in curation.build(tree.curation)] == ["length"]


def test_the_filter_refuses_with_its_reason(place: Workplace) -> None:
    filters = curation.build(place.settings().curation)
    assert [one.name for one in filters] == ["length", "shouting"]
    loud = curation.curate(document("Mill", LOUD), filters)
    assert loud == Verdict(False, (Reason("", "notes/Mill.md: 100% of its letters are capitals"),))
    assert isinstance(curation.curate(document("Mill", LOUD.lower()), filters), Document)


def test_the_learner_reads_the_source_and_heeds_the_filter(place: Workplace) -> None:
    (place.folder / "notes.txt").write_text(f"{ENTRIES}\n---\nLoud\n{LOUD}")
    rewrite(place, 'files = ["notes"]', "files = []")
    bench = Bench(place)
    assert bench.learner.fetch() == len(TEXTS)
    assert "Loud" not in bench.states()


# The generator of one's own ---------------------------------------------------------------------


@pytest.fixture
def other(tmp_path: Path) -> Iterator[LiveServer]:
    """The other chat server: ours, which speaks OpenAI's API too."""
    home = tmp_path / "other"
    home.mkdir()
    server = LiveServer(home, Upstream()).start()
    yield server
    server.stop()


class Upstream(QueueGenerator):
    """Has the model that the page's example names."""

    def _version(self, model: str | None) -> int:
        assert model == "default"
        return 1


@pytest.fixture
def serving(place: Workplace, other: LiveServer) -> Iterator[httpx.Client]:
    """A client of `python server.py`, with nothing but the settings."""
    rewrite(place, "http://127.0.0.1:8080", other.url)
    log = place.folder / "server.log"
    with log.open("w") as file:
        process = place.start("server.py", output=file)
    try:
        found = wait_for(
            lambda: re.search(r"open (http://\S+)", log.read_text()), 60, "the address"
        )
        with httpx.Client(base_url=found[1], timeout=30, trust_env=False) as client:
            client.headers["X-Process"] = str(process.pid)
            yield client
    finally:
        process.terminate()
        assert process.wait(30) == 0, log.read_text()


def answers(client: httpx.Client) -> None:
    """The page, `/chat` and `/v1` answer by the other server, which repeats what it is asked."""
    assert "default answers." in client.get("/").text
    body = client.post("/chat", json={"message": "Who keeps it?"}).json()
    assert (body["reply"], body["model"], body["version"]) == ("Who keeps it?", "default", None)
    assert body["context"]["limit"] is None
    assert "Reply by default" in client.get(f"/c/{body['conversation_id']}").text
    streamed = client.post("/chat", json={"message": "one two", "stream": True}).text
    assert '"t": "one"' in streamed and '"t": " two"' in streamed  # noqa: PT018
    whole = client.post("/v1/chat/completions", json={"messages": WHO}).json()
    assert whole["choices"][0]["message"]["content"] == "Who keeps it?"
    assert whole["usage"] is None
    chunks = client.post("/v1/chat/completions", json={"messages": WHO, "stream": True}).text
    assert '"content": " keeps"' in chunks
    assert "data: [DONE]" in chunks
    [model] = client.get("/v1/models").json()["data"]
    assert (model["id"], model["version"]) == ("default", None)


def test_the_server_starts_with_it_by_settings_alone(
    serving: httpx.Client, other: LiveServer
) -> None:
    answers(serving)
    cut = serving.post("/chat", json={"message": "one two three", "max_length": 2}).json()
    assert (cut["reply"], cut["finish"]) == ("one two", "length")
    missing = serving.post("/chat", json={"message": "x", "model": "autodidact@3"})
    assert missing.status_code == 404
    text = serving.post("/v1/completions", json={"prompt": "Once"})
    assert "does not go on with a text" in text.json()["error"]["message"]
    process = Path("/proc") / serving.headers["X-Process"] / "maps"
    assert "libtorch" not in process.read_text(), "what does not run a model does not load torch"


def test_it_tells_when_the_other_server_cannot(serving: httpx.Client, other: LiveServer) -> None:
    asked: dict[str, Any] = {"message": "Who?"}
    assert isinstance(other.generator, QueueGenerator)
    other.generator.refusals.append(Busy("no", 3))
    busy = serving.post("/chat", json=asked)
    assert (busy.status_code, busy.json()["kind"]) == (503, "busy")
    assert 1 <= int(busy.headers["Retry-After"]) <= 60
    other.stop()
    gone = serving.post("/chat", json=asked)
    assert (gone.status_code, gone.json()["detail"]) == (
        503, "default cannot be reached: ConnectionError",
    )  # fmt: skip
    assert "Retry-After" in gone.headers


def test_a_generator_that_does_not_exist_is_one_line(place: Workplace) -> None:
    rewrite(place, 'generator = "relay"', 'generator = "realy"')
    done = place.start("server.py")
    out, _ = done.communicate(timeout=60)
    assert done.returncode == 2
    assert out.strip().splitlines()[-1] == (
        "autodidact: server.generator: no such generator: realy; there are local, relay"
    )


# For all ----------------------------------------------------------------------------------------


@pytest.fixture
def in_the_package(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workplace]:
    """Each file where ours are: in a folder that is part of its package's search path."""
    place.config.write_text(place.config.read_text().partition("[sources.own")[0])
    for name, package in PACKAGES.items():
        folder = place.folder / package.__name__
        folder.mkdir()
        (place.folder / f"{name}.py").rename(folder / f"{name}.py")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    yield place
    for name, package in PACKAGES.items():
        vars(package).pop(name, None)
        sys.modules.pop(f"{package.__name__}.{name}", None)


def test_a_file_in_the_folder_is_enough(in_the_package: Workplace) -> None:
    with in_the_package.config.open("a") as file:
        file.write('[sources.notebook]\nenabled = true\npath = "notes.txt"\n')
        file.write("[curation.shouting]\nenabled = true\nmost = 0.3\n")
    tree = in_the_package.settings()
    *_, source = sources.build(tree.sources)
    assert len(list(source.documents(None))) == len(TEXTS)
    assert [one.name for one in curation.build(tree.curation)] == ["length", "shouting"]
    rewrite(in_the_package, "path =", "paht =")
    assert refused(in_the_package) == (
        "autodidact.toml: sources.notebook.paht: no such setting; did you mean "
        "sources.notebook.path?"
    )


def test_a_generator_in_the_folder_is_enough(in_the_package: Workplace, other: LiveServer) -> None:
    with in_the_package.config.open("a") as file:
        file.write(f'{SERVER}generator = "relay"\n')
        file.write(f'[generators.relay]\nurl = "{other.url}/v1"\n')
    tree = in_the_package.settings()
    context = ServingContext(tree.home, tree.server, tree.model, tree.revision)
    home = in_the_package.folder / "home"
    home.mkdir()
    server = LiveServer(home, generators.build(tree.generators, context)).start()
    try:
        with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client:
            answers(client)
    finally:
        server.stop()


def test_the_settings_page_tells_of_it(in_the_package: Workplace) -> None:
    page = write_settings_docs.page()
    assert "## `[sources.notebook]`\n\nA notebook in one file" in page
    assert '| `sources.notebook.path` | `"notebook.txt"` | folder | The file. |' in page
    assert "| `curation.shouting.most` | `0.5` | number from 0 up to 1 | Largest share" in page
    assert '| `generators.relay.model` | `"default"` | text | What the model is called' in page


def test_without_it_the_page_is_silent() -> None:
    assert "notebook" not in write_settings_docs.page()
    assert not [key for key, _ in settings.leaves() if "shouting" in key]
