"""A model's Markdown as HTML that is safe to show, whole or block by block while it streams.

CommonMark with tables and strikethrough. Raw HTML is text, images become links, every heading is
an `h2` (the page has its own outline), links leave the page in a new tab; a line that begins with
a year ("1794.") begins no list. What comes out of the
parser still passes nh3 with the allow-list below: no class, id, style or relative address survives.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import nh3
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock, list_block
from markdown_it.rules_core import StateCore
from markdown_it.token import Token

_TEXT_TAGS = {"p", "br", "hr", "h2", "strong", "em", "s", "code", "pre", "blockquote", "a"}
_LIST_TAGS = {"ul", "ol", "li"}
_TABLE_TAGS = {"table", "thead", "tbody", "tr", "th", "td"}
# A paragraph, heading, rule or table is over at a blank line; a list or a quote may still go on.
_OVER_AT_BLANK = frozenset({"paragraph_open", "heading_open", "hr", "table_open"})
# A reply may be a bare year; as a list it would be an item without text, numbered 1794.
_YEAR_FIRST = re.compile(r"\d{3,}[.)]")


def _lists(state: StateBlock, first: int, end: int, silent: bool) -> bool:
    line = state.src[state.bMarks[first] + state.tShift[first] : state.eMarks[first]]
    begins = not silent  # silent asks whether an item ends here, which its list's next one does
    return not (begins and _YEAR_FIRST.match(line)) and list_block(state, first, end, silent)


def _flatten_headings(state: StateCore) -> None:
    for token in state.tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = "h2"


_parser = (
    MarkdownIt("commonmark", {"html": False, "breaks": True})
    .enable(["table", "strikethrough"])
    .disable("image")
)
_parser.block.ruler.at("list", _lists, {"alt": ["paragraph", "reference", "blockquote"]})
_parser.core.ruler.push("flatten_headings", _flatten_headings)
_cleaner = nh3.Cleaner(
    tags=_TEXT_TAGS | _LIST_TAGS | _TABLE_TAGS,
    attributes={"a": {"href"}, "ol": {"start"}},
    set_tag_attribute_values={"a": {"target": "_blank"}, "pre": {"tabindex": "0"}},
    link_rel="noopener noreferrer nofollow",
    url_schemes={"http", "https", "mailto"},
    url_relative="deny",
)


def render(text: str) -> str:
    return _cleaner.clean(_parser.render(text))


@dataclass(frozen=True)
class Block:
    """Finished HTML, and the plain text of the block that is open after it."""

    html: str
    open: str


class Blocks:
    """Splits a growing reply where later text can no longer change what came before.

    Not covered: a link definition that stands below its use. `end` then gives the whole reply anew.
    """

    def __init__(self) -> None:
        self.open = ""
        self._text = ""
        self._html = ""

    def feed(self, text: str) -> Block | None:
        """Add text; the part that it closed, if any."""
        self._text += text
        self.open += text
        if "\n" not in text:
            return None
        lines = self.open.split("\n")
        blocks = [token for token in _parser.parse("\n".join(lines[:-1])) if _opens(token)]
        if blocks and not _is_over(blocks[-1], lines[:-1]):
            blocks.pop()
        if not blocks:
            return None
        end = _lines(blocks[-1])[1]
        return self._close("\n".join(lines[:end]), "\n".join(lines[end:]).lstrip("\n"))

    def end(self) -> tuple[Block | None, str | None]:
        """The last block, and the HTML of the whole reply if it differs from the blocks' sum."""
        last = self._close(self.open, "") if self.open.strip() else None
        whole = render(self._text)
        return last, (whole if whole != self._html else None)

    def _close(self, text: str, rest: str) -> Block:
        html = render(text)
        self._html += html
        self.open = rest
        return Block(html, rest)


def _opens(token: Token) -> bool:
    return token.level == 0 and token.nesting >= 0 and token.map is not None


def _lines(token: Token) -> tuple[int, int]:
    first, end = token.map or (0, 0)
    return first, end


def _is_over(block: Token, lines: list[str]) -> bool:
    first, end = _lines(block)
    if block.type == "fence":
        return end - first > 1 and lines[end - 1].strip().startswith(block.markup)
    return block.type in _OVER_AT_BLANK and bool(lines) and not lines[-1].strip()
