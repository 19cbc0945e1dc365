from __future__ import annotations

import pytest

from autodidact.web.page.markdown import Blocks, render

SAMPLE = """# Keepers

Here **they** are, with `code`:

| Keeper | From |
|--------|------|
| Wren   | 1812 |

- one
- two

  still two

1. first
2. second

```py
print("<b>")

# no heading
```
> quoted
> more

---
A line
#tag is no heading

Last *words*"""


@pytest.mark.parametrize(
    "text", ["1794.", "1794. It was built then.", "364)", "Then:\n1794.", "> 1794."]
)
def test_a_year_begins_no_list(text: str) -> None:
    assert "<li>" not in render(text)
    assert "1794." in render(text) or "364)" in render(text)


def test_lists_are_numbered_from_where_they_begin() -> None:
    items = "\n".join(f"{n}. item" for n in range(98, 102))
    assert render(items).count("<li>") == 4
    assert '<ol start="98">' in render(items)
    assert render("- one\n- two").count("<li>") == 2


@pytest.mark.parametrize("size", [1, 2, 7, 40, 10_000])
def test_blocks_add_up_to_the_whole(size: int) -> None:
    blocks = Blocks()
    html = ""
    for start in range(0, len(SAMPLE), size):
        if block := blocks.feed(SAMPLE[start : start + size]):
            html += block.html
            assert block.open == blocks.open
    last, whole = blocks.end()
    assert html + (last.html if last else "") == render(SAMPLE)
    assert whole is None


def test_a_paragraph_is_closed_by_the_blank_line_and_a_list_is_not() -> None:
    blocks = Blocks()
    assert blocks.feed("A *line*\n") is None
    closed = blocks.feed("\n")
    assert closed is not None
    assert closed.html == "<p>A <em>line</em></p>\n"
    assert blocks.feed("- one\n\n") is None
    assert blocks.feed("- two\n") is None
    after = blocks.feed("\nPara\n")
    assert after is not None
    assert after.html.count("<li>") == 2
    assert after.open == "Para\n"


def test_an_open_code_fence_waits_for_its_end() -> None:
    blocks = Blocks()
    assert blocks.feed("```\n# a\n\n") is None
    closed = blocks.feed("```\n")
    assert closed is not None
    assert "<pre" in closed.html


def test_a_link_defined_below_its_use_gives_the_whole_anew() -> None:
    blocks = Blocks()
    blocks.feed("See [it][1].\n\n")
    blocks.feed("[1]: https://example.org\n")
    _, whole = blocks.end()
    assert whole is not None
    assert 'href="https://example.org"' in whole


def test_nothing_at_all() -> None:
    assert Blocks().end() == (None, None)


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "[x](data:text/html,<script>alert(1)</script>)",
        "[x](vbscript:alert(1))",
        '<a href="https://e.org" onclick="alert(1)">x</a>',
        "![x](https://evil.example/pixel.png)",
        "<style>*{display:none}</style>",
        '<svg onload="alert(1)">',
        "<iframe src=https://evil.example></iframe>",
        '[x](https://e.org "onmouseover=alert(1)")',
        "`<script>`",
        "| <img src=x onerror=alert(1)> |\n|---|\n| x |",
    ],
)
def test_nothing_that_runs_or_loads_survives(text: str) -> None:
    html = render(text)
    for bad in ("<script", "<img", "<svg", "<iframe", "<style", 'href="javascript', 'href="data'):
        assert bad not in html
    assert " onclick=" not in html.replace("&quot;", "").split("&lt;")[0]


def test_links_leave_without_a_trace_and_only_outward() -> None:
    assert render("[x](https://e.org)").strip() == (
        '<p><a href="https://e.org" target="_blank" rel="noopener noreferrer nofollow">x</a></p>'
    )
    assert "href" not in render("[x](/c/1/delete)")


def test_headings_do_not_disturb_the_outline_of_the_page() -> None:
    assert render("# A\n\n###### B") == "<h2>A</h2>\n<h2>B</h2>\n"


def test_deep_nesting_ends() -> None:
    assert render(">" * 5000 + "x")
