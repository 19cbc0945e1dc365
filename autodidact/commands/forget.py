"""`forget` and `retry`: find the documents that a person means, and leave the wish in the learner's
inbox; before forgetting, ask."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from autodidact import inbox, settings
from autodidact.errors import AutodidactError, SettingError
from autodidact.store.documents import StoredDocument
from autodidact.store.ledger import LearnerStore

TITLES_SHOWN = 10


def find(store: LearnerStore, what: str) -> list[StoredDocument]:
    """The documents that `what` means: an id, an address, a title, the name of a source. Raises
    AutodidactError, with the nearest titles, where it means none."""
    found = store.documents.matching(what)
    if not found:
        near = nearest(store.documents.titles(), what)
        hint = f"; nearest: {', '.join(near)}" if near else "; no document is known"
        raise AutodidactError(f"{' '.join(what.split())}: no such document or source{hint}")
    return found


def nearest(titles: Sequence[str], what: str, most: int = 3) -> list[str]:
    """The titles most like `what`, best first, whatever their likeness. Case does not count."""
    told = " ".join(what.casefold().split())

    def likeness(title: str) -> tuple[bool, float]:
        folded = title.casefold()
        return bool(told) and told in folded, difflib.SequenceMatcher(None, folded, told).ratio()

    return sorted(dict.fromkeys(titles), key=likeness, reverse=True)[:most]


def request(home: Path, document_ids: Sequence[int]) -> Path:
    """Leave the wish in the learner's inbox."""
    return inbox.leave(home, inbox.Forget(tuple(document_ids)))


def listing(found: Sequence[StoredDocument]) -> str:
    """What would be forgotten: at most `TITLES_SHOWN` titles, one a line, and the count."""
    lines = [f"  {d.id}  {d.document.title}  ({d.state})" for d in found[:TITLES_SHOWN]]
    if len(found) > TITLES_SHOWN:
        lines.append(f"  … and {len(found) - TITLES_SHOWN} more")
    return "\n".join([*lines, counted(len(found))])


def counted(n: int) -> str:
    return f"{n} document{'' if n == 1 else 's'}"


PROMISE = """\
When the learner acts on it, before its next cycle, they are looked up no more. What it learned from
them goes with the weights: the next cycle trains everything else anew from the base, and then all
older versions are deleted, pinned ones too. If that does not pass the gate, the untouched base
serves and the rest is learned again. Their sources do not bring them back, nor another text at the
same address. Conversations are not touched: delete those on the page.
If no learner runs, this does it now: python web_learner.py --once"""


def forget(
    what: Annotated[
        str, typer.Argument(help="Id, address or title of a document, or a source.")
    ] = "",
    gone: Annotated[
        bool, typer.Option("--gone", help="All that was learned and is gone from its source.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: Annotated[Path | None, typer.Option(help="Folder shared by learner and server.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
) -> None:
    """Forget a document, or all of a source: its text, its questions, what was learned from it."""
    if bool(what) == gone:
        raise SettingError("forget: name a document or a source, or give --gone")
    root = settings.load(config, home=home).home
    with _ledger(root) as store:
        found = store.documents.gone() if gone else find(store, what)
    if not found:
        raise AutodidactError("nothing that was learned is gone from its source")
    print(f"To be forgotten:\n{listing(found)}")
    if not yes and not typer.confirm("Forget for good?"):
        raise AutodidactError("nothing was forgotten")
    request(root, [stored.id for stored in found])
    print(f"{counted(len(found))} will be forgotten.\n{PROMISE}")


def retry(
    what: Annotated[
        str, typer.Argument(help="Id, address or title of a document, or a source; all without.")
    ] = "",
    home: Annotated[Path | None, typer.Option(help="Folder shared by learner and server.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
) -> None:
    """Try documents again that were given up after three cycles that came to nothing."""
    root = settings.load(config, home=home).home
    with _ledger(root) as store:
        found = find(store, what) if what else store.documents.in_state("given_up")
    given_up = [stored for stored in found if stored.state == "given_up"]
    if not given_up:
        of_these = "of these " if what else ""
        raise AutodidactError(f"no document {of_these}was given up; see: status")
    inbox.leave(root, inbox.Retry(tuple(stored.id for stored in given_up)))
    print(f"{listing(given_up)} will be tried again, before the learner's next cycle.")


@contextmanager
def _ledger(home: Path) -> Iterator[LearnerStore]:
    """The ledger, for reading. Raises AutodidactError where no learner has run."""
    if not (home / "learner.db").exists():
        raise AutodidactError(f"{home}: no learner has run here yet; start web_learner.py")
    store = LearnerStore(home / "learner.db", readonly=True)
    try:
        yield store
    finally:
        store.close()
