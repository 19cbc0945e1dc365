"""From a file to its title and plain text, chosen by suffix: .txt, .md, .html, .htm.

The text is made of blocks separated by a blank line: a paragraph, a heading or a list item each.
A heading that gave the title is left out of the text. Normalising Unicode and refusing documents
that are too short are left to `curation`. At most `MAX_BYTES` are read of a file; what is not text
is refused. Markdown is CommonMark with tables; front matter is read for `title` and `license`
only, one `key: value` a line, without a YAML parser. Web pages go through trafilatura, which only
ever sees the bytes given here and fetches nothing.

To add a format: one function and one line in `READERS`.
"""

from __future__ import annotations

import codecs
import logging
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from autodidact.errors import SourceError

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

MAX_BYTES = 5_000_000
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_FRONT_MATTER = re.compile(
    r"---[ \t]*\n(?P<fields>\s*[A-Za-z_][\w-]*[ \t]*:.*?\n)(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL
)
_FIELD = re.compile(r"^(\w[\w-]*)[ \t]*:[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_DOCUMENT = re.compile(r"<(?:html|body)\b", re.IGNORECASE)


class FileText(NamedTuple):
    """What a file says. `license` is empty unless the file states one."""

    title: str
    text: str
    license: str = ""


def read(path: Path) -> FileText:
    """Title, text and licence of one file. The title falls back to the file's name.

    Raises SourceError with one line when the file cannot be opened, is too large, is not text,
    has a suffix that is not in `READERS`, or holds no text at all.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise SourceError(f"{path}: cannot read {path.suffix or 'files without a suffix'}")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise SourceError(f"{path}: larger than {MAX_BYTES / 1e6:g} MB; split it")
    try:
        title, text, license_ = reader(data)
    except ValueError as error:
        raise SourceError(f"{path}: {error}") from error
    if not text.strip():
        raise SourceError(f"{path}: no text in it")
    return FileText(_one_line(title) or readable(path.stem), text, _one_line(license_))


def readable(stem: str) -> str:
    """A title out of a file name: `anneck-light` becomes `Anneck light`."""
    words = _one_line(re.sub(r"[-_]+", " ", stem)) or stem
    return words[0].upper() + words[1:] if words.islower() else words


def decode(data: bytes) -> str:
    """The text that these bytes are, with `\\n` line ends. Raises ValueError for binary data.

    A byte order mark decides; otherwise UTF-8, and Windows-1252 where UTF-8 would lose more
    characters than it reads (a single damaged byte does not turn a UTF-8 file into another).
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            text = data[len(mark) :].decode(encoding, "replace")
            break
    else:
        text = data.decode("utf-8", "replace")
        lost = text.count("\ufffd")
        if lost and lost > sum(character > "\x7f" for character in text) - lost:
            text = data.decode("cp1252", "replace")
    if len(_CONTROL.findall(text)) * 50 > len(text):
        raise ValueError("binary data, not text")
    return _CONTROL.sub("", text).replace("\r\n", "\n").replace("\r", "\n")


def plain(data: bytes) -> FileText:
    """A text file, as it is."""
    return FileText("", decode(data))


def markdown(data: bytes) -> FileText:
    """Markdown without its markup: the text of links, no images, no code blocks, no HTML.

    The title is the first level-1 heading, else `title` of the front matter.
    """
    source = decode(data)
    fields: dict[str, str] = {}
    if front := _FRONT_MATTER.match(source):
        fields = {k.lower(): v.strip("\"'") for k, v in _FIELD.findall(front["fields"])}
        source = source[front.end() :]
    title, blocks = "", []
    for tag, block in _markdown_blocks(source):
        if tag == "h1" and not title:
            title = block
        elif block:
            blocks.append(block)
    return FileText(
        title or fields.get("title", ""), "\n\n".join(blocks), fields.get("license", "")
    )


def _markdown_blocks(source: str) -> Iterator[tuple[str, str]]:
    """(tag of the element, its text) for each paragraph, heading, list item and table row."""
    tag, cells = "", []
    for token in _markdown_parser().parse(source):
        if token.type == "inline":
            text = _one_line(
                "".join(_inline(child.type, child.content) for child in token.children or [])
            )
            if tag in ("th", "td"):
                cells.append(text)
            else:
                yield tag, text
        elif token.type == "tr_close":
            yield "tr", " | ".join(cell for cell in cells if cell)
            cells = []
        else:
            tag = token.tag


@cache
def _markdown_parser() -> MarkdownIt:
    """Made once: making it takes as long as parsing a page."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable(["table", "strikethrough"])


def _inline(kind: str, content: str) -> str:
    if kind in ("softbreak", "hardbreak"):
        return " "
    return content if kind in ("text", "text_special", "code_inline") else ""


def html(data: bytes) -> FileText:
    """The main text of a web page; where it cannot be told from the rest, all of the text."""
    source: bytes | str = data
    if not _DOCUMENT.search(text := decode(data)):
        source = f"<html><body>{text}</body></html>"  # trafilatura takes no bare fragments
    import trafilatura

    # It reports each page that it cannot read on its own logger; here that is one SourceError.
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    try:
        page = trafilatura.bare_extraction(source, with_metadata=True, include_comments=False)
    except Exception as error:  # a parser of other people's markup may fail in any way
        raise ValueError(f"cannot be read as HTML ({type(error).__name__})") from error
    title = _one_line(getattr(page, "title", None) or "")
    text = getattr(page, "text", None) or ""
    lines = [_one_line(line.removeprefix("- ")) for line in text.splitlines()]
    blocks = [line for line in lines if line]
    if blocks and blocks[0].casefold() == title.casefold():
        del blocks[0]
    return FileText(title, "\n\n".join(blocks), getattr(page, "license", None) or "")


def _one_line(text: str) -> str:
    return " ".join(text.split())


READERS: dict[str, Callable[[bytes], FileText]] = {
    ".txt": plain,
    ".md": markdown,
    ".html": html,
    ".htm": html,
}
