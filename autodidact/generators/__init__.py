"""What answers: the generators, and the one that `server.generator` chooses.

A generator satisfies `types.protocols.Generator`, and is made of its table and of what the server
tells each of them, a `ServingContext`. What every generator promises:

- making it loads no model and opens no connection; what takes time is for `start`, if it has one,
  or for the first request;
- it may be asked anything from any thread, by as many requests as the server lets in
  (`server.max_concurrent` and `server.max_queue`): it need not count them;
- a reply that cannot be made is a `GeneratorError`: `UnknownModel` for a name that it has not,
  `Busy` where coming again helps, `NotReady` while nothing answers. The server finds a time to
  come again where the error names none;
- what it hears from elsewhere is text, never a path, a template or a command.

What it cannot do it has no method for (`types.protocols` lists what there is), and nobody asks for
it. To add a generator: one module here, which `registry` finds (CONTRIBUTING.md, step by step).
`follower`, `shelf`, `text` and `stops` are the local one's; only they load torch.

May import: types, errors, settings, registry, replying, checkpoints, models, engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autodidact import registry
from autodidact.errors import SettingError
from autodidact.settings import GeneratorsSettings, ServerSettings
from autodidact.types.protocols import Generator


@dataclass(frozen=True)
class ServingContext:
    """What the server tells a generator besides its own table: where it serves, and how. One that
    answers from elsewhere needs none of it."""

    home: Path
    server: ServerSettings
    model: str
    """The setting `model`: "auto", a Hugging Face name, or a folder."""
    revision: str
    rounding: Literal["auto", "none", "8bit"] = "none"


def build(tables: GeneratorsSettings, context: ServingContext) -> Generator:
    """The generator that `server.generator` names, not started. Raises SettingError where there is
    none of that name, or two, and for settings that it cannot work with."""
    chosen = context.server.generator
    there = registry.listed(registry.GENERATORS, tables)
    named = [(part, table) for name, part, table in there if name == chosen]
    if not named:
        names = ", ".join(name for name, _, _ in there)
        raise SettingError(f"server.generator: no such generator: {chosen}; there are {names}")
    if len(named) > 1:
        raise SettingError(
            f"generators: two generators are called {chosen}; rename the table of your own"
        )
    [(part, table)] = named
    generator: Generator = part(table, context)
    return generator
