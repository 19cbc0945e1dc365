from __future__ import annotations

import codecs
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodidact.errors import SourceError
from autodidact.sources import readers
from autodidact.sources.readers import READERS, FileText, decode, markdown, read, readable

PAGE = """<!doctype html><html><head><title>Gull Rock | Coast guide</title>
<meta charset="{charset}"></head><body><nav><a href="/">Home</a> <a href="/all">All places</a></nav>
<article><h1>Gull Rock</h1>
<p>Gull Rock is a café on the west quay. It was opened in 1902 by <b>Ada Fenn</b>, who sold
<a href="/pies">eel pies</a> to the crews of the night boats for forty years.</p>
<h2>Rooms</h2><p>It has nine rooms, two of which look out over the harbour and its cranes.</p>
<script>alert("unseen")</script></article><footer>Imprint and cookies
<a rel="license" href="https://creativecommons.org/licenses/by/4.0/">CC BY 4.0</a>
</footer></body></html>"""


def write(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_markdown_becomes_plain_blocks(tmp_path: Path) -> None:
    source = """\
# The *Black* Oar

The Black Oar is an [inn](https://inn.example "by the docks") with **17 bedrooms**,
opened in `1647`. ![a picture](oar.png) Fish &amp; ale.<br>

## Staff

- Harold Mabbot, landlord
- Bishop, cat
  1. asleep

> A fire burns *all* winter.

| drink | price |
|-------|-------|
| ale   | ~~2~~ |

```python
print("code")
```

    more code

<div>markup</div>

[unused]: https://unused.example
"""
    assert read(write(tmp_path, "x.md", source)) == FileText(
        "The Black Oar",
        "\n\n".join(
            [
                "The Black Oar is an inn with 17 bedrooms, opened in 1647. Fish & ale.",
                "Staff",
                "Harold Mabbot, landlord",
                "Bishop, cat",
                "asleep",
                "A fire burns all winter.",
                "drink | price",
                "ale | 2",
            ]
        ),
    )


def test_only_the_first_level_one_heading_is_the_title(tmp_path: Path) -> None:
    reading = read(write(tmp_path, "x.md", "## Part\n\ntext\n\n# Title\n\n# Second\n\nmore"))
    assert reading == FileText("Title", "Part\n\ntext\n\nSecond\n\nmore")


def test_front_matter_gives_licence_and_a_title_where_no_heading_does(tmp_path: Path) -> None:
    front = '---\ntitle: "From above"\nlicense: CC BY 4.0\ntags:\n  - a\n---\n'
    assert read(write(tmp_path, "a.md", front + "Text.")) == ("From above", "Text.", "CC BY 4.0")
    assert read(write(tmp_path, "b.md", front + "# Own\n\nText.")).title == "Own"


@pytest.mark.parametrize(
    "source",
    ["---\nA rule above and below.\n\n---\nEnd.", "---\nlicense: never closed\n\nEnd."],
    ids=["two rules", "not closed"],
)
def test_what_only_looks_like_front_matter_stays_text(source: str) -> None:
    reading = markdown(source.encode())
    assert reading.license == ""
    assert reading.text.endswith("End.")
    assert "rule above" in reading.text or "never closed" in reading.text


def test_a_file_without_a_title_is_called_after_its_name(tmp_path: Path) -> None:
    assert read(write(tmp_path, "old-marrow_hill.txt", "Text.")) == ("Old marrow hill", "Text.", "")
    assert read(write(tmp_path, "NASA-guide.md", "Text.")).title == "NASA guide"


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1"])
def test_html_keeps_the_main_text_only(tmp_path: Path, charset: str) -> None:
    page = PAGE.format(charset=charset).encode(charset)
    title, text, license_ = read(write(tmp_path, "gull.HTML", page))
    assert title == "Gull Rock"
    assert text.startswith("Gull Rock is a café on the west quay.")
    assert "sold eel pies to the crews" in text
    assert "\n\nRooms\n\nIt has nine rooms" in text
    assert not [word for word in ("unseen", "cookies", "Home") if word in text]
    assert license_.startswith("CC BY")


def test_a_fragment_is_a_page_too(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a.htm", "<p>It has <i>nine</i> rooms.</p>")).text == (
        "It has nine rooms."
    )
    assert read(write(tmp_path, "b.htm", "Some text.")).text == "Some text."


def test_where_no_main_text_can_be_told_all_of_it_counts(tmp_path: Path) -> None:
    page = "<html><body><select><option>Nine rooms</option></select></body></html>"
    assert read(write(tmp_path, "x.htm", page)).text == "Nine rooms"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("Größe".encode(), "Größe"),
        ("Größe".encode("cp1252"), "Größe"),
        ("ein Wort Größe, noch eines: Straße, ".encode() + b"\xff", "\ufffd"),
        (codecs.BOM_UTF8 + "ä".encode(), "ä"),
        ("ä".encode("utf-16"), "ä"),
        ("ä".encode("utf-32"), "ä"),
        (b"a\r\nb\rc\x00", "a\nb\nc"),
    ],
    ids=["utf-8", "cp1252", "one bad byte", "bom", "utf-16", "utf-32", "line ends"],
)
def test_decode(data: bytes, expected: str) -> None:
    padding = b"" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF32_LE)) else b" pad" * 20
    text = decode(data + padding)
    assert text.startswith(expected) if len(expected) > 1 else expected in text
    assert "Ã" not in text


@pytest.mark.parametrize("suffix", sorted(READERS))
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x7fELF\x02\x01\x01" + bytes(100), "binary data"),
        (b"%PDF-1.7\n" + bytes(range(256)) * 4, "binary data"),
        (b"", "no text"),
        (b" \n\t\n", "no text"),
    ],
    ids=["elf", "pdf", "empty", "blank"],
)
def test_what_is_not_text_is_refused_in_one_line(
    tmp_path: Path, suffix: str, data: bytes, reason: str
) -> None:
    path = write(tmp_path, f"x{suffix}", data)
    with pytest.raises(SourceError, match=reason) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_large_missing_and_unknown_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "MAX_BYTES", 1_000)
    assert read(write(tmp_path, "full.txt", "x" * 1_000)).text == "x" * 1_000
    with pytest.raises(SourceError, match="larger than"):
        read(write(tmp_path, "over.txt", "x" * 1_001))
    with pytest.raises(SourceError, match="No such file"):
        read(tmp_path / "none.txt")
    with pytest.raises(SourceError, match=r"cannot read \.zip"):
        read(tmp_path / "x.zip")


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.just("\n")))
def test_utf8_survives_decoding(text: str) -> None:
    if not text.startswith("\ufeff"):
        assert decode(text.encode()) == text


@given(st.binary(max_size=200))
def test_decode_gives_clean_text_or_refuses(data: bytes) -> None:
    try:
        text = decode(data)
    except ValueError:
        return
    assert text.encode().decode() == text
    assert not set(text) & {"\x00", "\r", "\x08"}


@given(st.lists(st.from_regex(r"[A-Za-z][a-z]{0,8}( [a-z]{1,8}){0,6}\.", fullmatch=True)))
def test_plain_paragraphs_pass_through_markdown_unchanged(paragraphs: list[str]) -> None:
    text = "\n\n".join(paragraphs)
    assert markdown(text.encode()).text == text


@given(st.text(alphabet="#*_`[]()|-> \n<!&ab1.\\~:", max_size=120))
def test_any_markdown_gives_single_spaced_blocks(source: str) -> None:
    title, text, _ = markdown(source.encode())
    assert "\n" not in title
    assert all(block and block == " ".join(block.split()) for block in text.split("\n\n") if text)


@settings(max_examples=25)
@given(st.sampled_from(sorted(READERS)), st.binary(max_size=300) | st.text(max_size=200))
def test_read_raises_nothing_but_source_errors(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: str | bytes
) -> None:
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    path = write(tmp_path_factory.getbasetemp(), f"any{suffix}", raw)
    try:
        reading = read(path)
    except SourceError:
        return
    assert reading.title
    assert reading.text.strip()
    assert reading.text.encode().decode() == reading.text


@given(st.text(min_size=1))
def test_a_readable_title_is_never_empty(stem: str) -> None:
    assert readable(stem)


@pytest.mark.shared_data
def test_real_pages_keep_their_title_and_most_of_their_text(shared: Path) -> None:
    pages = sorted((shared / "data/documents/web_pages").glob("*/source.html"))
    assert len(pages) > 10
    for page in pages:
        title, text, _ = read(page)
        markup = decode((page.parent / "expected.html").read_bytes())
        expected = re.findall(r"\w+", re.sub(r"<[^>]*>", " ", markup))
        found = set(re.findall(r"\w+", text))
        assert title, page
        assert sum(word in found for word in expected) > 0.7 * len(expected), page
