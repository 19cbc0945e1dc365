"""Parts that are found, not listed: a source, a filter or a generator is one file in its kind's
package.

A part is a class that names its settings in a class attribute `settings` and has the methods of its
kind; its `name` is the name of its table in `autodidact.toml`. Only modules that hold such a class
are imported, so that what a part works with (a client, a parser) loads when the part does. One's
own part is named by `module:Class`, from anywhere that Python finds.

What a `settings` class is, and where it stands in the tree, is the business of `settings`.

May import: errors.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodidact.errors import SettingError

_MENTIONS = re.compile(r"^[ \t]+settings\b[^=\n]*=", re.M)
"""A line that may be the attribute; a variable of a function looks the same."""


@dataclass(frozen=True)
class Kind:
    """`methods` are what tells a part of this kind; `package` is where ours are."""

    word: str
    package: str
    methods: tuple[str, ...]


SOURCES = Kind("source", "autodidact.sources", ("documents",))
FILTERS = Kind("filter", "autodidact.curation", ("check",))
GENERATORS = Kind("generator", "autodidact.generators", ("stream", "prepare", "models", "status"))


def found(kind: Kind) -> dict[str, type[Any]]:
    """The parts in the package of their kind by name, in the order of their modules' names."""
    parts: dict[str, type[Any]] = {}
    search = importlib.import_module(kind.package).__path__
    for module in sorted({info.name for info in pkgutil.iter_modules(search)}):
        full = f"{kind.package}.{module}"
        if not _declares(full):
            continue
        for value in vars(importlib.import_module(full)).values():
            if isinstance(value, type) and value.__module__ == full and not _lacks(kind, value):
                name = str(getattr(value, "name"))  # noqa: B009
                if name in parts:
                    raise SettingError(f"two {kind.word}s are called {name}; rename one")
                parts[name] = value
    return parts


def own(kind: Kind, path: object, key: str, folder: Path) -> type[Any]:
    """The class that `module:Class` names. Raises SettingError, which names `key`.

    The module may lie in `folder`, where the settings file is; anything installed goes before.
    """
    module, colon, attribute = path.partition(":") if isinstance(path, str) else ("", "", "")
    if not (module and colon and attribute.isidentifier()):
        raise SettingError(f'{key}: name it as class = "module:Class"')
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    try:
        part = _named(f"{module}:{attribute}")
    except Exception as error:  # whatever a stranger's module raises, this line is the answer
        said = (str(error).splitlines() or [""])[0]
        raise SettingError(f"{key}: cannot import {path}: {said or type(error).__name__}") from None
    if lack := _lacks(kind, part):
        raise SettingError(f"{key}: {path} is not a {kind.word}: it has no {lack}")
    return part  # type: ignore[no-any-return]


def build(kind: Kind, tables: Any) -> list[Any]:
    """The parts that are enabled, each made of its table: ours, then one's own.

    `tables` is the section of the settings that holds them; one without `enabled` is.
    """
    there = listed(kind, tables)
    return [part(table) for _, part, table in there if getattr(table, "enabled", True)]


def listed(kind: Kind, tables: Any) -> list[tuple[str, type[Any], Any]]:
    """(name of its table, class, table) of every part: ours, then one's own."""
    ours = [(name, part, getattr(tables, name)) for name, part in found(kind).items()]
    own = [(name, _named(table.class_), table) for name, table in getattr(tables, "own", ())]
    return ours + own


def _named(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _declares(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    reader = getattr(spec.loader, "get_source", None) if spec else None
    source = (reader(module) or "") if reader else ""
    if not _MENTIONS.search(source):
        return False
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return any(_names_settings(statement) for node in classes for statement in node.body)


def _names_settings(statement: ast.stmt) -> bool:
    """Whether it gives a class the attribute `settings`."""
    match statement:
        case ast.Assign(targets=targets):
            return any(isinstance(each, ast.Name) and each.id == "settings" for each in targets)
        case ast.AnnAssign(target=ast.Name(id="settings"), value=value):
            return value is not None
    return False


def _lacks(kind: Kind, part: Any) -> str:
    """What is missing for a part of this kind, in a few words; empty if it is one."""
    if not isinstance(part, type):
        return f"class of that name with a method `{kind.methods[0]}`"
    for method in kind.methods:
        if not callable(getattr(part, method, None)):
            return f"method `{method}`"
    if not isinstance(getattr(part, "settings", None), type):
        return "`settings`, the class of its settings"
    if not isinstance(getattr(part, "name", None), str):
        return "`name`"
    return ""
