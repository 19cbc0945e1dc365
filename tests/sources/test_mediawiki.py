from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace as Page
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodidact.errors import SettingError, SourceError, SourceUnreachable
from autodidact.sources.mediawiki import article_text
from autodidact.sources.wikipedia import Wikipedia, WikipediaSettings
from tests.mediawiki import MediaWiki, reading, shuffled


def source(wiki: MediaWiki, **changes: Any) -> Wikipedia:
    return Wikipedia(reading(wiki, **changes))


def titles(source: Wikipedia, since: str | None = None) -> list[str]:
    return [document.title for document in source.documents(since)]


# Proxies -------------------------------------------------------------------------------------


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_the_proxy_of_the_environment_is_asked(
    wiki: MediaWiki, monkeypatch: pytest.MonkeyPatch, name: str, scheme: str
) -> None:
    """The wiki on loopback takes the whole address, as a proxy is sent it."""
    monkeypatch.setenv(name, f"{scheme}{urlsplit(wiki.endpoint).netloc}")
    elsewhere = "http://wiki.invalid/w/api.php"
    assert titles(source(wiki, titles=("Gull Rock",), endpoint=elsewhere)) == ["Gull Rock"]


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize("bypassed", ["wiki.invalid", ".invalid", "*"])
def test_what_is_to_go_past_the_proxy_does(
    wiki: MediaWiki, monkeypatch: pytest.MonkeyPatch, bypassed: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{urlsplit(wiki.endpoint).netloc}")
    monkeypatch.setenv("NO_PROXY", bypassed)
    with pytest.raises(SourceUnreachable):
        titles(source(wiki, titles=("Gull Rock",), endpoint="http://wiki.invalid/w/api.php"))
    assert wiki.requests == []


@pytest.mark.usefixtures("no_proxies")
def test_this_machine_needs_no_proxy(wiki: MediaWiki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert titles(source(wiki, titles=("Gull Rock",))) == ["Gull Rock"]


@pytest.mark.usefixtures("no_proxies")
def test_a_proxy_that_cannot_be_used_is_named_without_its_password(
    wiki: MediaWiki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "gopher://user:geheim@proxy.invalid:70")
    with pytest.raises(SettingError, match=r"the proxy gopher://proxy\.invalid:70: ") as caught:
        titles(source(wiki, titles=("Gull Rock",), endpoint="http://wiki.invalid/w/api.php"))
    assert "geheim" not in str(caught.value)


# Failures ------------------------------------------------------------------------------------


def refused(wiki: MediaWiki) -> None:
    wiki.close()


FAULTS: dict[str, tuple[Any, str]] = {
    "refused": (refused, "cannot be reached: Connection refused"),
    "silence": (lambda wiki: wiki.fail("silence"), "gave no answer within 0.2 s"),
    "drip": (lambda wiki: wiki.fail("drip"), "gave no answer within 0.2 s"),
    "429": (lambda wiki: wiki.fail(429), r"asks for fewer requests \(HTTP 429\)"),
    "500": (lambda wiki: wiki.fail(500), r"is out of order \(HTTP 500\)"),
    "503": (lambda wiki: wiki.fail(503), r"is out of order \(HTTP 503\)"),
    "portal": (lambda wiki: wiki.fail("<html>Log in</html>"), "did not answer with JSON"),
    "list": (lambda wiki: wiki.fail("[1]"), "did not answer like a MediaWiki"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_outage_is_one_line_after_one_request_and_passes(wiki: MediaWiki, fault: str) -> None:
    begin, reason = FAULTS[fault]
    names = ("Gull Rock", "Black Oar")
    begin(wiki)
    with pytest.raises(SourceUnreachable, match=reason) as caught:
        titles(source(wiki, titles=names, timeout_s=0.2 if "0.2 s" in reason else 5.0))
    assert str(caught.value).startswith(wiki.endpoint)
    assert "\n" not in str(caught.value)
    assert len(wiki.requests) == (0 if fault == "refused" else 1)
    wiki.recover()
    if fault == "refused":
        wiki.open()
    assert titles(source(wiki, titles=names)) == ["Gull Rock", "Black Oar"]


def test_no_name_service_is_an_outage_and_the_error_is_all_there_is_to_say(
    wiki: MediaWiki, caplog: pytest.LogCaptureFixture
) -> None:
    found = source(wiki, titles=("Gull Rock",), endpoint="", language="simple")
    with caplog.at_level(logging.WARNING), pytest.raises(SourceUnreachable) as caught:
        titles(found)
    assert caplog.messages == []
    assert str(caught.value) == (
        "https://simple.wikipedia.org/w/api.php cannot be reached: Name or service not known"
    )


def test_what_came_before_an_outage_is_kept_and_not_fetched_again(wiki: MediaWiki) -> None:
    found = source(wiki, titles=("Gull Rock", "Black Oar"))
    documents = found.documents(None)
    first = next(documents)
    wiki.fail(503)
    with pytest.raises(SourceUnreachable):
        next(documents)
    wiki.recover()
    assert titles(found, first.cursor) == ["Black Oar"]


@pytest.mark.parametrize("status", [301, 403, 404])
def test_a_refusal_is_not_taken_for_an_outage(wiki: MediaWiki, status: int) -> None:
    wiki.fail(status)
    with pytest.raises(SourceError, match=rf"HTTP {status}\); check endpoint") as caught:
        list(source(wiki, titles=("Gull Rock",)).documents(None))
    assert not isinstance(caught.value, SourceUnreachable)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ratelimited", SourceUnreachable),
        ("internal_api_error_DBQueryError", SourceUnreachable),
        ("readapidenied", SourceError),
    ],
)
def test_an_error_of_the_interface_is_named(
    wiki: MediaWiki, code: str, kind: type[SourceError]
) -> None:
    wiki.error = {"code": code, "info": "You may\nnot."}
    with pytest.raises(SourceError, match=f"{code}: You may not") as caught:
        list(source(wiki, titles=("Gull Rock",)).documents(None))
    assert type(caught.value) is kind


def test_a_password_in_the_endpoint_is_not_told(wiki: MediaWiki) -> None:
    wiki.fail(503)
    secret = wiki.endpoint.replace("//", "//user:geheim@")
    with pytest.raises(SourceUnreachable) as caught:
        list(source(wiki, titles=("Gull Rock",), endpoint=secret).documents(None))
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"endpoint": "wiki.example/w/api.php"}, "endpoint"),
        ({"endpoint": "file:///etc/passwd"}, "endpoint"),
        ({"endpoint": "http://wiki.example/api.php?x=1"}, "endpoint"),
        ({"endpoint": "http://[wiki/api.php"}, "endpoint"),
        ({"endpoint": "http://wiki.example:99999/api.php"}, "endpoint"),
        ({"endpoint": "http://wiki.example:0/api.php"}, "endpoint"),
        ({"endpoint": "http://xn--\u00fc.example/api.php"}, "endpoint"),
        ({"user_agent": "me"}, "user_agent"),
        ({"user_agent": "Größe/1.0"}, "user_agent"),
        ({"user_agent": "a\r\nHost: b"}, "user_agent"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(change: dict[str, str], key: str) -> None:
    with pytest.raises(SettingError, match=rf"^sources\.wikipedia\.{key}: "):
        Wikipedia(WikipediaSettings(**change))


# The text ------------------------------------------------------------------------------------


def section(title: str, text: str = "", *sections: Page) -> Page:
    return Page(title=title, text=text, sections=list(sections))


def test_appendices_go_with_all_below_them_and_so_do_empty_sections() -> None:
    page = Page(
        summary="Intro one.\nIntro two.",
        sections=[
            section("History", "", section("Early", "Early text.")),
            section("Gallery"),
            section("References", "Smith 1999.", section("Sources", "Jones 2001.")),
            section("Legacy", "Legacy text.", section("See also", "List of things")),
            section("External links", "Official site"),
        ],
    )
    assert article_text(page, 1_000).split("\n\n") == [
        *("Intro one.", "Intro two.", "History", "Early", "Early text."),
        *("Legacy", "Legacy text."),
    ]


def test_a_formula_comes_as_its_tex_within_its_sentence() -> None:
    spread = (
        "\n  \n    \n      \n        E\n        =\n        m\n    {\\displaystyle E=mc^{2}}\n  \n"
    )
    page = Page(summary=f"It follows that{spread}, which is famous.\nNext.", sections=[])
    assert article_text(page, 1_000) == "It follows that E=mc^{2} , which is famous.\n\nNext."


def test_the_cut_is_at_a_paragraph_and_leaves_no_heading_behind() -> None:
    page = Page(summary="a" * 40, sections=[section("Head", "b" * 40), section("More", "c" * 40)])
    assert article_text(page, 132) == "\n\n".join(["a" * 40, "Head", "b" * 40])
    assert article_text(page, 60) == "a" * 40
    assert article_text(page, 47) == "a" * 40
    assert article_text(Page(summary="word " * 30, sections=[]), 22) == "word word word word"


TEXTS = st.text(alphabet="ab .\n", max_size=60)
SECTIONS = st.recursive(
    st.builds(section, st.sampled_from(["History", "Notes", "Rooms"]), TEXTS),
    lambda inner: st.builds(
        lambda title, text, below: section(title, text, *below),
        st.sampled_from(["Life", "References"]),
        TEXTS,
        st.lists(inner, max_size=3),
    ),
    max_leaves=6,
)


@given(TEXTS, st.lists(SECTIONS, max_size=4), st.integers(5, 300))
def test_any_article_is_cut_to_size_from_its_beginning(
    summary: str, sections: list[Page], room: int
) -> None:
    page = Page(summary=summary, sections=sections)
    whole, text = article_text(page, 1_000_000), article_text(page, room)
    assert len(text) <= room
    assert whole.startswith(text)
    assert all(block and block == block.strip() for block in text.split("\n\n") if text)
    assert not text.endswith(("History", "Life", "Rooms"))
    assert "Notes" not in whole
    assert "References" not in whole


# Recorded exchanges --------------------------------------------------------------------------


@pytest.mark.shared_data
def test_the_recorded_wire_is_answered_in_any_order_of_parameters(
    recorded: MediaWiki, shared: Path
) -> None:
    kinds = json.loads((shared / "data/wikipedia_api/wire_examples.json").read_text())
    wire = [(kind, exchange) for kind, exchanges in kinds.items() for exchange in exchanges]
    assert wire
    with httpx.Client() as client:
        for kind, exchange in wire:
            for query in shuffled(exchange["uri"]):
                answer = client.get(f"{recorded.endpoint}?{query}").json()
                assert set(answer) >= set(exchange["body"]) - {"warnings", "continue"}, kind
                if kind not in ("random", "info", "backlinks"):  # recorded twice, hours apart
                    assert answer.get("query") == exchange["body"].get("query"), kind
