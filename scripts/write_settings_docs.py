"""Write `docs/settings.md` out of the sentences under the fields of `autodidact/settings.py`, and
under those of the settings beside each source, filter and generator.

    python scripts/write_settings_docs.py

`tests/test_docs.py` fails while the page on disk is not what this would write.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from autodidact.settings import leaves, tree  # noqa: E402

PAGE = PROJECT / "docs" / "settings.md"

INTRODUCTION = """\
# Settings

<!-- Written by scripts/write_settings_docs.py from autodidact/settings.py. Do not edit it here. -->

Nothing has to be set. Where you do set something, the later of these wins: the defaults below, the
file `autodidact.toml`, environment variables, flags on the command line.

**The file.** Make `autodidact.toml` in the project's folder. The programs look for it in the folder
they are started from, then in the project's own; `--config FILE` names another. Write only what you
change:

```toml
model = "HuggingFaceTB/SmolLM2-360M-Instruct"
home = "/home/you/autodidact-360m"       # another base model needs another home
cycle_minutes = 10

[sources]
files = ["library", "/home/you/notes"]   # folders of .txt, .md and .html files

[sources.wikipedia]
titles = ["Lighthouse", "Tide mill"]
category = "Stone bridges"
random = 0
user_agent = "Autodidact/0.1 (personal use; you@example.org)"

[training]
documents_per_cycle = 10

[server]
port = 8080
```

Paths that are not absolute count from the folder of the settings file, and without one from the
project's folder, also those of environment variables; `--home` and `--model` on the command line
count from where you stand. `~` is your home folder everywhere. Learner and server must use the same
`home` and `model`: give both programs the same file.

In the file a key stands under its table: `server.port` is `port` under `[server]`. To leave
something "not set", leave out its line.

**Environment variables** are `AUTODIDACT_` and the key in capitals, with two underscores for each
dot. Lists are written as JSON:

```sh
AUTODIDACT_SERVER__PORT=8080 make run
AUTODIDACT_SOURCES__FILES='["library", "/home/you/notes"]' make run
```

**Flags** exist for `model`, `home` and `cycle_minutes` of the learner and for `model`, `home`,
`host` and `port` of the server.

**Sources, filters and generators of your own** have tables too: `[sources.own.NAME]`,
`[curation.own.NAME]` and `[generators.own.NAME]`, with `class = "module:Class"` and what that class
may be told. The module lies beside the settings file or is installed;
[CONTRIBUTING.md](../CONTRIBUTING.md) shows how to write one. It runs within the programs: name only
what you trust.

A key that does not exist, or a value out of range, ends the program with one line that names the
key and, where there is one, the nearest that exists.

"""


def page() -> str:
    """The whole page."""
    return INTRODUCTION + "\n".join(_section(*section) for section in _sections())


def _sections() -> list[tuple[str, str, list[tuple[str, Any]]]]:
    """(name, what it is about, its keys) of the top level and of each table of the file."""
    found: list[tuple[str, str, list[tuple[str, Any]]]] = [("", "The base and the whole.", [])]
    about = _abouts(tree())
    for key, info in leaves():
        section = key.rpartition(".")[0]
        if all(section != name for name, _, _ in found):
            found.append((section, about[section], []))
        next(rows for name, _, rows in found if name == section).append((key, info))
    return found


def _abouts(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    found = {}
    for name, info in model.model_fields.items():
        section = info.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            found[f"{prefix}{name}"] = info.description or ""
            found |= _abouts(section, f"{prefix}{name}.")
    return found


def _section(name: str, about: str, rows: list[tuple[str, Any]]) -> str:
    lines = [
        f"## `[{name}]`" if name else "## Top level",
        "",
        about,
        "",
        "| Setting | Default | Allowed | What it does |",
        "|---|---|---|---|",
    ]
    for key, info in rows:
        says = " ".join((info.description or "").split())  # a row of a table is one line
        cells = (f"`{key}`", _default(info.default), _allowed(info), says)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _default(value: Any) -> str:
    return "not set" if value is None else f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, int | float):
        return f"{value:g}" if value < 1000 else str(value)
    return f'"{value}"'


def _allowed(info: Any) -> str:
    """The type in words, and the range."""
    limits = {}
    for rule in info.metadata:
        for name in ("gt", "ge", "lt", "le", "pattern"):
            if getattr(rule, name, None) is not None:
                limits[name] = getattr(rule, name)
    parts = [_kind(info.annotation)]
    if "pattern" in limits:
        parts.append(f"matching `{limits['pattern']}`")
    signs = (("gt", "above"), ("ge", "from"), ("lt", "below"), ("le", "up to"))
    parts += [f"{word} {limits[name]:g}" for name, word in signs if name in limits]
    return " ".join(parts)


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is types.UnionType:
        annotation = next(one for one in get_args(annotation) if one is not types.NoneType)
    if get_origin(annotation) is tuple:
        return {str: "list of texts", Path: "list of folders"}[get_args(annotation)[0]]
    if get_origin(annotation) is Literal:
        return ", ".join(f'"{choice}"' for choice in get_args(annotation))
    names = {
        bool: "true or false",
        int: "whole number",
        float: "number",
        str: "text",
        SecretStr: "text",
        Path: "folder",
    }
    return names[annotation]


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(PROJECT)}")


if __name__ == "__main__":
    main()
