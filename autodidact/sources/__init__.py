"""Where documents come from: the table of sources, and the ones that the settings enable.

A source satisfies `types.protocols.Source`: a `name` that no other source of the run has, and
`documents(since)`, a lazy iterator. What every source promises:

- `text` is plain text in blocks (paragraphs, headings, list items) separated by a blank line, and
  can be encoded as UTF-8; `digest` is "", because normalising and hashing belong to `curation`;
- `cursor` says how far the source had come once this document is stored; a source reads its own
  old cursors, and one that it does not understand means "from the beginning";
- documents that were yielded before an error are good: store them as they come;
- what the user must know is one `SourceError` (`SourceUnreachable` when waiting helps). One bad
  document among others is a warning in the log, once in the life of the source object, so build
  the sources once and keep them.

Retrying is left to `backoff`, removing duplicates to the store. To add a source: one module here,
which `registry` finds (CONTRIBUTING.md, step by step). `Files` has no table of its own: there is
one for each folder of `sources.files`.

May import: types, errors, settings, registry.
"""

from __future__ import annotations

import difflib
from typing import Any

from autodidact import registry
from autodidact.errors import SettingError, SourceError
from autodidact.settings import SourcesSettings
from autodidact.sources.files import Files
from autodidact.types.protocols import Source


def every() -> dict[str, Any]:
    """The classes of all our sources, by name."""
    return {"files": Files, **registry.found(registry.SOURCES)}


def load(name: str) -> Any:
    """The class of one of our sources. Raises SourceError for a name that none has."""
    known = every()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise SourceError(f"source {name}: no such source; {hint}")
    return known[name]


def build(settings: SourcesSettings) -> list[Source]:
    """The enabled sources: one `files` for each folder, then ours, then one's own. Nothing is read.

    Raises SettingError where two sources would have the same name, and for settings that a source
    cannot work with.
    """
    sources: list[Source] = [Files(folder) for folder in settings.files]
    sources += registry.build(registry.SOURCES, settings)
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1 and name.startswith("files:"):
            raise SettingError(
                f"sources.files: two folders are called {name.partition(':')[2]}, "
                "so that their documents could not be told apart; rename one"
            )
        if names.count(name) > 1:
            raise SettingError(
                f"sources: two sources are called {name}, "
                "so that their documents could not be told apart; rename one"
            )
    return sources
