"""Anchors of our own: prompts as people type them into a chat, and short texts of many kinds.

Written for this project (Apache-2.0 like the rest of it), so they are there at once, on every
machine, where `anchors` must sample for minutes. The replies to the prompts are the base's; those
of the base that most people get are here too. What is `held` serves the gate and is never trained
on: every fourth of each group.

`prompts.jsonl` and `texts.jsonl` hold a row a line. Reading is strict and raises Misfit, in one
line that names the file and the line. `expect` lists accepted answers, any one of which a right
reply contains; it is empty where no short answer is certain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from autodidact.errors import Misfit
from autodidact.types.wire import from_json

HERE = Path(__file__).parent
Group = Literal["greeting", "identity", "thanks", "small_talk", "knowledge", "instruction"]


@dataclass(frozen=True)
class AnchorPrompt:
    id: str
    group: Group
    prompt: str
    expect: tuple[str, ...]
    held: bool = False


@dataclass(frozen=True)
class AnchorText:
    id: str
    text: str
    held: bool


@dataclass(frozen=True)
class AnchorReply:
    """What a base says to a prompt. `ended`: by itself, not cut off."""

    id: str
    reply: str
    ended: bool


Row = TypeVar("Row", bound=AnchorPrompt | AnchorText | AnchorReply)
SHIPPED = "smollm2-135m-instruct"
"""The base whose replies are here, as its names on the Hub and of GGUF files hold it."""


def prompts(path: Path = HERE / "prompts.jsonl") -> tuple[AnchorPrompt, ...]:
    """The project's prompts, or those of another file in the same form."""
    return tuple(_rows(AnchorPrompt, path))


def texts(path: Path = HERE / "texts.jsonl") -> tuple[AnchorText, ...]:
    return tuple(_rows(AnchorText, path))


def replies(base: str) -> dict[str, AnchorReply]:
    """The replies of this base to the prompts, by their ids, where they are shipped; `base` is its
    name. They are what it says greedily, cut at 80 tokens."""
    if SHIPPED not in base.casefold():
        return {}
    return {row.id: row for row in _rows(AnchorReply, HERE / f"replies-{SHIPPED}.jsonl")}


def _rows(kind: type[Row], path: Path) -> Iterator[Row]:
    """Each line of a file as a row; ids are unique, and no field of text is blank."""
    seen: set[str] = set()
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path.name}, line {number}"
        row = from_json(kind, line, where)
        told: tuple[str, ...] = ()
        if isinstance(row, AnchorPrompt):
            told = (row.prompt, *row.expect)
        elif isinstance(row, AnchorText):
            told = (row.text,)
        if not all(text.strip() for text in (row.id, *told)):
            raise Misfit(f"{where}: an id, a text or an answer is blank")
        if row.id in seen:
            raise Misfit(f"{where}: the id {row.id!r} is there already, on an earlier line")
        seen.add(row.id)
        yield row


def _lines(path: Path) -> list[bytes]:
    """Split at line feeds only: a text may hold other separators."""
    try:
        return path.read_bytes().removesuffix(b"\n").split(b"\n")
    except OSError as error:
        raise Misfit(f"{path}: cannot be read: {error.strerror}") from error
