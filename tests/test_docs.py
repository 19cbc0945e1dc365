"""The docs are true: they mention all there is, and what they tell people to type exists."""

from __future__ import annotations

import ast
import contextlib
import functools
import io
import itertools
import json
import re
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer
from pydantic import BaseModel

import server
import web_learner
from autodidact import curation
from autodidact.commands.app import app as cli
from autodidact.lessons.wordings import wordings
from autodidact.reading.document import read_document
from autodidact.settings import ENV_PREFIX, PROJECT, ServerSettings, load
from autodidact.settings import leaves as every_key
from autodidact.sources.files import Files
from autodidact.types.cycle import RULES
from autodidact.web.app import build_app
from autodidact.web.chat import ChatRequest
from autodidact.web.openai.requests import ChatAsked, TextAsked
from scripts import write_settings_docs
from tests import own_parts
from tests.own_parts import blocks, modules
from tests.web.fakes import LiveServer, QueueGenerator

README = PROJECT / "README.md"
PAGES = [README, PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
HTTP = PROJECT / "docs" / "http.md"
CHANGING = PROJECT / "docs" / "changing.md"
TROUBLE = PROJECT / "docs" / "troubleshooting.md"
HOW = PROJECT / "docs" / "how-it-works.md"
MOVED = PROJECT / "docs" / "moved.md"
DOCS = "\n".join(page.read_text("utf-8") for page in PAGES)
MAKEFILE = (PROJECT / "Makefile").read_text("utf-8")
ADDRESS = "http://127.0.0.1:8000"
BODIES: dict[str, type[BaseModel]] = {
    "/chat": ChatRequest,
    "/v1/chat/completions": ChatAsked,
    "/v1/completions": TextAsked,
}
# Programs that the docs may name and that are not ours: nothing of theirs is looked into.
OTHERS = {"git", "cd", ".", "sqlite-utils", "ruff"}


def mentioned(what: str, text: str = DOCS) -> bool:
    return re.search(rf"(?<![\w/-]){re.escape(what)}(?![\w/-])", text) is not None


def test_the_readme_is_short() -> None:
    assert len(README.read_text("utf-8").split()) <= 1500, "move what is long to a page of docs/"


# Settings -----------------------------------------------------------------------------------------


def test_the_settings_page_is_up_to_date() -> None:
    assert write_settings_docs.PAGE.read_text("utf-8") == write_settings_docs.page(), (
        "run: python scripts/write_settings_docs.py"
    )


def test_every_setting_has_a_sentence() -> None:
    bare = [key for key, info in every_key() if not (info.description or "").endswith(".")]
    assert bare == []


@pytest.mark.parametrize("document", PAGES, ids=lambda document: document.name)
def test_settings_in_examples_exist(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_parts.lay_out(document, tmp_path, monkeypatch)
    for text in blocks(document, "toml"):
        file = tmp_path / "autodidact.toml"
        file.write_text(text)
        load(file)


def test_settings_named_in_the_text_exist() -> None:
    names = {key for key, _ in every_key()}
    sections = {key.partition(".")[0] for key in names if "." in key}
    found = set(re.findall(rf"`((?:{'|'.join(sections)})\.[a-z_.]+)`", DOCS))
    assert found - names - {"server.py"} == set()


def test_defaults_told_beside_the_advice_are_the_defaults() -> None:
    defaults = {key: info.default for key, info in every_key()}
    rows = re.findall(r"^\| (`[a-z_.`, ]+`) \| ([^|]+) \|", CHANGING.read_text("utf-8"), re.M)
    told = {}
    for names, values in rows:
        keys = re.findall(r"[a-z_.]+", names)
        if set(keys) <= defaults.keys() - {"model"} and values != "by model size":
            told |= dict(zip(keys, values.split(", "), strict=True))
    assert len(told) > 5
    assert told == {key: f"{defaults[key]:g}" for key in told}


# Commands -----------------------------------------------------------------------------------------


@functools.cache
def options() -> dict[str, set[str]]:
    """Program or command → its options."""
    group: Any = typer.main.get_command(cli)
    commands = {f"autodidact {name}": command for name, command in group.commands.items()}
    for name, main in (("web_learner.py", web_learner.main), ("server.py", server.main)):
        app = typer.Typer(add_completion=False)
        app.command()(main)
        commands[name] = typer.main.get_command(app)
    return {
        name: {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
        for name, command in commands.items()
    }


def test_every_command_is_in_the_docs() -> None:
    assert [name for name in options() if not mentioned(name)] == []


@pytest.mark.parametrize("command", options())
def test_every_option_stands_on_a_line_with_its_command(command: str) -> None:
    name = command.removeprefix("autodidact ")
    lines = "\n".join(line for line in DOCS.splitlines() if mentioned(name, line))
    assert [option for option in sorted(options()[command]) if not mentioned(option, lines)] == []


def commands(page: Path) -> Iterator[list[str]]:
    for block in blocks(page, "sh"):
        for line in block.splitlines():
            if words := shlex.split(line, comments=True):
                yield words


@pytest.mark.parametrize("document", PAGES, ids=lambda document: document.name)
def test_commands_in_the_docs_name_what_exists(document: Path) -> None:
    for words in commands(document):
        check(words)


@pytest.mark.parametrize(
    "wrong",
    [
        "python web_learner.py --twice",
        "python -m autodidact explain",
        "python elsewhere.py",
        "python -m pytest tests/test_nothing.py",
        "pip install -r requirement.txt",
        "make walk",
        "make run TORCH=cpu",
        "AUTODIDACT_PORT=1 make run",
        "curl http://127.0.0.1:8000/talk",
        """curl http://127.0.0.1:8000/chat -d '{"text": "Hello"}'""",
        "frobnicate",
    ],
)
def test_a_wrong_command_is_found(wrong: str) -> None:
    with pytest.raises((AssertionError, ValueError, KeyError)):
        check(shlex.split(wrong))


def check(words: list[str]) -> None:
    """Fail unless a command names only what exists."""
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        name = words.pop(0).partition("=")[0]
        assert name in environment(), f"{name}: no such setting"
    program, *rest = words
    program = program.rpartition("/")[2]
    if program == "make":
        check_make(rest)
    elif program in ("python", "python3"):
        check_python(rest)
    elif program == "pip":
        check_pip(rest)
    elif program == "curl":
        check_curl(rest)
    else:
        assert program in OTHERS, f"{program}: what is that? add it to OTHERS, or check it"


def environment() -> set[str]:
    return {ENV_PREFIX + key.replace(".", "__").upper() for key, _ in every_key()}


def check_make(words: list[str]) -> None:
    for word in words:
        name, given, _ = word.partition("=")
        pattern = rf"^{name} \?=" if given else rf"^{name}:"
        assert re.search(pattern, MAKEFILE, re.M), f"make {word}: not in the Makefile"


def check_python(words: list[str]) -> None:
    if words[:2] == ["-m", "pip"]:
        check_pip(words[2:])
    elif words[:2] == ["-m", "autodidact"]:
        check_options(f"autodidact {words[2]}", words[3:])
    elif words[0] == "-m":
        assert words[1] in ("venv", "pytest"), words
        for word in words[2:]:
            assert word.startswith((".venv", "-")) or (PROJECT / word).exists(), f"{word}: missing"
    elif words[0] in options():
        check_options(words[0], words[1:])
    else:
        assert (PROJECT / words[0]).is_file(), f"{words[0]}: no such file"
        text = (PROJECT / words[0]).read_text("utf-8")
        for option in (word for word in words[1:] if word.startswith("--")):
            assert f'"{option}"' in text, f"{words[0]} {option}: no such option"


def check_options(command: str, words: list[str]) -> None:
    known = options()[command]
    for word in words:
        assert not word.startswith("-") or word in known, f"{command} {word}: no such option"


def check_pip(words: list[str]) -> None:
    assert words[0] == "install", words
    index = ""
    for before, word in itertools.pairwise(words):
        if before in ("-r", "-c"):
            assert (PROJECT / word).is_file(), f"{word}: no such file"
        elif before == "--index-url":
            index = word
        elif "==" in word:
            pinned = (PROJECT / "constraints.txt").read_text("utf-8").splitlines()
            assert word in pinned, f"{word}: constraints.txt has another version"
    assert not index or index in MAKEFILE, f"{index}: not the one of the Makefile"


def check_curl(words: list[str]) -> None:
    (address,) = [word for word in words if word.startswith("http")]
    assert address.startswith(ADDRESS), address
    assert urlsplit(address).path in addresses(), f"{address}: no such route"
    for body in (word for word in words if word.startswith("{")):
        BODIES[urlsplit(address).path].model_validate(json.loads(body))


# Addresses ----------------------------------------------------------------------------------------


@functools.cache
def addresses() -> set[str]:
    """The paths of the app, with `{id}` for what varies."""
    with tempfile.TemporaryDirectory() as folder:
        app = build_app(ServerSettings(), Path(folder), QueueGenerator())
        app.state.site.store.close()
        found = {re.sub(r"\{\w+\}", "{id}", path) for path in _paths(app.routes)}
    assert {"/", "/chat", "/events", "/static"} <= found
    return found


def _paths(routes: list[Any]) -> Iterator[str]:
    for route in routes:
        inner = getattr(route, "original_router", None)  # FastAPI keeps included routers whole
        if inner is not None:
            yield from _paths(inner.routes)
        else:
            yield route.path


def test_every_address_is_in_the_docs() -> None:
    named = {
        re.sub(r"\{\w+\}", "{id}", path) for path in re.findall(r"`(?:GET |POST )?(/[^` ]*)`", DOCS)
    }
    assert addresses() - named == set()


def test_every_field_of_a_request_is_in_the_docs() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", HTTP.read_text("utf-8"), re.M))
    assert set(ChatRequest.model_fields) - rows == set()


# Examples -----------------------------------------------------------------------------------------


EXAMPLES = {
    f"{page.name}:{number}": text
    for page in PAGES
    for number, text in enumerate(blocks(page, "python"), 1)
    if text not in modules(page).values()  # a part of its own: test_contributing runs those
}


def test_the_http_page_has_examples() -> None:
    assert len(blocks(HTTP, "python")) >= 3


@pytest.mark.parametrize("example", EXAMPLES)
def test_python_examples_run(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = QueueGenerator()
    monkeypatch.setattr(generator, "prepare", _any_model(generator.prepare))
    live = LiveServer(tmp_path, generator).start()
    printed = io.StringIO()
    try:
        source = EXAMPLES[example].replace(ADDRESS, live.url)
        with contextlib.redirect_stdout(printed):
            exec(compile(source, example, "exec"), {})
    finally:
        live.stop()
    asked = {messages[-1].content for messages, _, _ in generator.asked}
    assert asked
    # The fake repeats the question.
    assert all(question in printed.getvalue() for question in asked)


def _any_model(prepare: Any) -> Any:
    return lambda messages, params, model=None: prepare(messages, params)


def test_questions_to_try_are_answered_by_the_library() -> None:
    rows = re.findall(r"^\| ([A-Z][^|]*[?.]) \| (\w[^|]*) \|$", README.read_text("utf-8"), re.M)
    trained: dict[str, str] = {}
    kept: dict[str, str] = {}
    for number, document in enumerate(Files(PROJECT / "library").documents(None)):
        curated = curation.curate(document)
        for fact in read_document(number, curated).facts:  # type: ignore[arg-type]
            worded = wordings(fact)
            trained |= dict.fromkeys(worded.trained, fact.answer)
            kept[worded.probe] = fact.answer
    *first, last = [row for row in rows if row[0] in trained or row[0] in kept]
    assert len(first) == 4
    assert all(trained.get(question) == answer for question, answer in first)
    assert kept.get(last[0]) == last[1]


# Errors -------------------------------------------------------------------------------------------


def test_messages_in_the_docs_are_what_the_code_says() -> None:
    assert len(messages(TROUBLE)) > 20
    told = [line for page in PAGES for line in messages(page)]
    assert [line for line in told if not said(line)] == []


def messages(page: Path) -> list[str]:
    return [line for block in blocks(page, "text") for line in block.splitlines()]


def test_a_message_that_nothing_says_is_found() -> None:
    assert not said("learner.lock is held by process 812")
    assert not said("cannot listen on 127.0.0.1:8000: Address already in use; choose another one")


RULE = re.compile(rf"(?:{'|'.join(RULES)}): ")


def said(line: str) -> bool:
    told = RULE.sub("", line, count=1) if RULE.match(line) else line  # put before it by the gate
    return any(template.fullmatch(told) for template in templates())


@functools.cache
def templates() -> tuple[re.Pattern[str], ...]:
    """Texts of the code that are long enough to tell, as patterns with `.*` for their values."""
    found = set()
    for path in (PROJECT / "server.py", *(PROJECT / "autodidact").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            text = _text(node)
            if len(text.replace("\0", "")) >= 12:
                found.add(re.escape(text).replace("\0", ".*"))
    return tuple(re.compile(pattern) for pattern in found)


def _text(node: ast.AST) -> str:
    """A string expression with a NUL for each part that is only known when it runs."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(value) for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return "\0"


# Links --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", PAGES, ids=lambda document: document.name)
def test_links_lead_to_files(document: Path) -> None:
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)#:]+)\)", document.read_text("utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_files_named_in_the_docs_exist() -> None:
    named = set(re.findall(r"`((?:autodidact|tests|scripts|docs|templates)/[\w/]+\.\w+)`", DOCS))
    assert named
    assert [name for name in sorted(named) if not (PROJECT / name).exists()] == []


def test_files_that_have_moved_are_gone_from_where_they_were() -> None:
    before = re.findall(r"^\| ([\w/.]+/[\w/.]*) \| `", MOVED.read_text("utf-8"), re.M)
    assert len(before) > 100
    assert [name for name in before if (PROJECT / name).exists()] == []


def shown(tree: str) -> set[str]:
    """The paths in a tree drawn by indentation, two spaces a level; folders end with a slash."""
    found: set[str] = set()
    above: list[str] = []
    for line in tree.splitlines():
        name = line.split()[0]
        above[(len(line) - len(line.lstrip())) // 2 :] = [name]
        found.add("".join(above))
    return found


def test_the_map_of_the_package_is_right() -> None:
    """What it shows exists, and every room and every module beside them is on it."""
    (tree,) = blocks(HOW, "tree")
    package = PROJECT / "autodidact"
    rooms = {f"autodidact/{path.parent.name}/" for path in package.glob("*/__init__.py")}
    beside = {f"autodidact/{path.name}" for path in package.glob("[!_]*.py")}
    assert [path for path in sorted(shown(tree)) if not (PROJECT / path).exists()] == []
    assert sorted((rooms | beside) - shown(tree)) == []
