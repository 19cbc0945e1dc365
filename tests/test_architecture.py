"""The shape of the project, read from its imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from autodidact.settings import PROJECT
from tests.workplace import child_environment

ROOMS: dict[str, str] = {
    "errors": "",
    "types": "errors",
    "registry": "errors",
    "settings": "errors registry",
    "home": "errors",
    "inbox": "errors home",
    "replying": "",
    "store": "types errors",
    "checkpoints": "types errors home",
    "sources": "types errors settings registry",
    "curation": "types errors settings registry",
    "reading": "types",
    "lessons": "types reading",
    "models": "types errors settings home",
    "engine": "types errors home models",
    "training": "types errors settings models engine",
    "evaluation": "types errors reading",
    "generators": "types errors settings registry replying checkpoints models engine",
    "reports": "types errors store checkpoints lessons reading evaluation",
    "learning": "types errors settings home inbox replying store checkpoints sources curation "
    "reading lessons models engine training evaluation reports",
    "proof": "types errors settings home store sources curation reading lessons models engine "
    "training evaluation chat",
    "chat": "types errors settings store",
    "web": "types errors settings home inbox store checkpoints reports chat",
    "commands": "types errors settings home inbox store checkpoints reports proof",
}
"""Each room and what it may import, besides itself: the data's way, and never back."""
TORCH = {"torch", "transformers", "peft", "safetensors", "accelerate", "bitsandbytes"}
MAY_USE_TORCH = {"models", "engine", "training", "generators", "learning", "proof"}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "manager", "base", "common", "misc"}

PACKAGE = PROJECT / "autodidact"
MODULES = sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    """`store.ledger` for autodidact/store/ledger.py; a package is called as its folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part(module: str) -> str:
    """The piece of the table: a module of the package's top or one of its folders."""
    return module.partition(".")[0]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def for_typing_only(path: Path) -> set[ast.stmt]:
    found: set[ast.stmt] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            found.update(child for child in ast.walk(node) if isinstance(child, ast.stmt))
    return found


@cache
def imports(path: Path, *, lazy: bool = True) -> set[str]:
    """Every module that a file imports, by its full name; without `lazy`, at import time only."""
    names = {dotted(other) for other in MODULES}
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if node in for_typing_only(path) or (not lazy and getattr(node, "col_offset", 0) > 0):
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            inner = module.removeprefix("autodidact").removeprefix(".")
            for alias in node.names:
                sub = f"{inner}.{alias.name}".removeprefix(".")
                known = module.startswith("autodidact") and sub in names
                found.add(f"autodidact.{sub}" if known else module)
    return found


def ours(path: Path, *, lazy: bool = True) -> set[str]:
    """Our own modules among them, by their name inside the package."""
    return {
        name.removeprefix("autodidact.")
        for name in imports(path, lazy=lazy)
        if name.startswith("autodidact.")
    }


INNER = [path for path in MODULES if dotted(path) not in ("", "__main__")]
every_module = pytest.mark.parametrize("path", INNER, ids=dotted)


@every_module
def test_a_module_has_its_room(path: Path) -> None:
    assert part(dotted(path)) in ROOMS, f"put {part(dotted(path))} into ROOMS, with what it may use"


@every_module
def test_a_module_imports_what_its_room_may(path: Path) -> None:
    mine = part(dotted(path))
    for other in ours(path):
        allowed = {mine, *ROOMS[mine].split()}
        assert part(other) in allowed, f"{dotted(path)} imports {other}: {mine} must not"


def test_rooms_know_no_circle() -> None:
    left = {room: set(may.split()) for room, may in ROOMS.items()}
    while free := {room for room, may in left.items() if not may & left.keys()}:
        left = {room: may for room, may in left.items() if room not in free}
    assert not left, f"a circle among {sorted(left)}"


@every_module
def test_torch_is_used_where_it_belongs(path: Path) -> None:
    used = {name.partition(".")[0] for name in imports(path)} & TORCH
    if part(dotted(path)) not in MAY_USE_TORCH:
        assert not used
    if dotted(path) in ("learning.study", "learning.study.__main__", "learning.study.course"):
        now = {name.partition(".")[0] for name in imports(path, lazy=False)}
        assert not now & TORCH, "torch loads when it is needed: the study hears `stop` meanwhile"


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {dotted(path): ours(path, lazy=False) for path in MODULES}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"a circle: {' → '.join([*trail, name])}"
        if name not in done:
            for other in sorted(graph.get(name, ())):
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@every_module
def test_a_module_is_named_for_what_it_holds(path: Path) -> None:
    assert not set(dotted(path).split(".")) & FORBIDDEN_NAMES


def test_no_two_classes_share_a_name() -> None:
    places: dict[str, list[str]] = {}
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(dotted(path))
    assert not {name: found for name, found in places.items() if len(found) > 1}


@every_module
def test_a_module_says_what_it_is_for(path: Path) -> None:
    code = [node for node in tree(path).body if not isinstance(node, ast.Expr)]
    if code:
        assert ast.get_docstring(tree(path)), "a docstring is the module's contract"


SQL = re.compile(
    r"\b(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|CREATE\s+TABLE|PRAGMA\s)",
    re.S,
)


@every_module
def test_only_the_store_speaks_sql(path: Path) -> None:
    if part(dotted(path)) == "store":
        return
    text = [
        node.value
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert not [value for value in text if SQL.search(value)]
    databases = {name for name in imports(path) if name in ("sqlite3", "sqlite_utils")}
    if databases:  # its errors may be caught
        used = {
            node.attr
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in databases
        }
        assert used == {"Error"}


def test_the_store_does_speak_sql() -> None:
    """Else the pattern above finds nothing anywhere."""
    text = " ".join(path.read_text() for path in (PACKAGE / "store").glob("*.py"))
    assert SQL.search(text)


@pytest.mark.parametrize(
    "modules",
    [
        "autodidact.web.app",
        "autodidact.learning.cycle",
        "autodidact.commands.app",
        "autodidact.generators.local",
        "web_learner",
        "server",
    ],
)
def test_what_does_not_run_a_model_does_not_load_torch(modules: str) -> None:
    program = f"import sys, {modules}; print(*({TORCH!r} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROJECT,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []


def test_text_is_utf_8_whatever_the_locale_says() -> None:
    """`read_text`, `write_text`, `open` and children of ours take the locale's encoding unless told
    another: in a Latin-1 one every cycle would die of the minus sign in its own report."""
    folders = ("autodidact", "benchmarks", "scripts")
    programs = [path for name in folders for path in (PROJECT / name).rglob("*.py")]
    found = [
        f"{path.relative_to(PROJECT)}:{call.lineno}"
        for path in (*programs, *PROJECT.glob("*.py"))
        for call in ast.walk(tree(path))
        if isinstance(call, ast.Call) and takes_the_locale(call)
    ]
    assert found == []


def takes_the_locale(call: ast.Call) -> bool:
    """Whether a call reads or writes text in no encoding that it names."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in given:
        return False
    if name == "read_text":
        return len(call.args) < 1
    if name == "write_text":
        return len(call.args) < 2
    if name in ("Popen", "run") and "text" in given:
        return True
    if name != "open" or getattr(getattr(call.func, "value", None), "id", "") == "os":
        return False
    place = 0 if isinstance(call.func, ast.Attribute) else 1
    mode = given.get("mode", call.args[place] if len(call.args) > place else None)
    binary = isinstance(mode, ast.Constant) and "b" in str(mode.value)
    return not binary and not isinstance(getattr(call.func, "value", None), ast.Call | ast.Name)


@pytest.mark.parametrize(
    ("code", "locale"),
    [
        ("p.read_text()", True), ("p.read_text('utf-8')", False),
        ("p.write_text(t)", True), ("p.write_text(t, encoding='utf-8')", False),
        ("open(p)", True), ("open(p, 'w')", True), ("open(p, 'rb')", False),
        ("os.open(p, f)", False), ("subprocess.run(c, text=True)", True),
        ("subprocess.run(c, text=True, encoding='utf-8')", False),
    ],
)  # fmt: skip
def test_the_look_at_encodings_sees_them(code: str, locale: bool) -> None:
    [call] = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    assert takes_the_locale(call) is locale


def test_settings_are_read_from_the_environment_in_one_place() -> None:
    readers = {
        dotted(path)
        for path in MODULES
        if re.search(r"environ(\.get)?[\[(][\"']AUTODIDACT|getenv", path.read_text())
    }
    assert readers <= {"settings"}
