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

Retrying is left to `backoff`, removing duplicates to the store. To add a source: one module and
one line in `SOURCES`; nothing is imported before it is used.

May import: types, errors, settings.
"""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from autodidact.errors import SettingError, SourceError
from autodidact.settings import SourcesSettings
from autodidact.types.protocols import Source

SOURCES = {
    "files": "autodidact.sources.files:Files",
    "wikipedia": "autodidact.sources.wikipedia:Wikipedia",
}


def load(name: str) -> Any:
    """The class that `SOURCES` names. Raises SourceError for a name that is not in the table."""
    if name not in SOURCES:
        near = difflib.get_close_matches(name, SOURCES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(SOURCES)}"
        raise SourceError(f"source {name}: no such source; {hint}")
    module, _, attribute = SOURCES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def build(settings: SourcesSettings) -> list[Source]:
    """The enabled sources: one `files` for each folder, then Wikipedia. Nothing is read yet.

    Raises SettingError where two sources would have the same name, and for settings of Wikipedia
    that cannot work.
    """
    sources: list[Source] = [load("files")(folder) for folder in settings.files]
    if settings.wikipedia.enabled:
        sources.append(load("wikipedia")(settings.wikipedia))
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise SettingError(
                f"sources.files: two folders are called {name.partition(':')[2]}, "
                "so that their documents could not be told apart; rename one"
            )
    return sources
