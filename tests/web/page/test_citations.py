"""What a reader and a program are told of the passages that a reply was given."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodidact.settings import RetrievalSettings
from autodidact.store.passages import IndexedDocument
from autodidact.types.documents import Passage
from autodidact.web.page.citations import badge, day, link, summary
from tests.web.fakes import LIGHT, OAR, LiveServer, QueueGenerator, learned
from tests.web.wire import events

QUESTION = "When was the Anneck Light built?"
CITED = {
    "number": 1,
    "title": "Anneck Light",
    "uri": "library/anneck-light.md",
    "date": "2026-11-20",
    "excerpt": LIGHT,
}


def ask(client: httpx.Client, message: str = QUESTION, **more: object) -> dict[str, object]:
    response = client.post("/chat", json={"message": message, **more})
    assert response.status_code == 200
    body = response.json()
    assert isinstance(body, dict)
    return body


def test_a_reply_with_passages_cites_them(home: Path, client: httpx.Client) -> None:
    learned(home)
    body = ask(client)
    assert (body["memory"], body["citations"]) == ("passages", [CITED])
    body = ask(client, "Hello!")
    assert (body["memory"], body["citations"]) == ("memory", [])


def test_a_request_can_turn_it_off_and_on(
    home: Path, client: httpx.Client, generator: QueueGenerator
) -> None:
    learned(home)
    assert [ask(client, retrieval=how)["memory"] for how in ("on", "off", None)] == [
        "passages",
        "memory",
        "passages",
    ]
    assert generator.asked[1][0][-1].content == QUESTION
    server = LiveServer(home, generator, RetrievalSettings(enabled=False)).start()
    try:
        with httpx.Client(base_url=server.url, timeout=30) as other:
            assert [ask(other, retrieval=how)["memory"] for how in ("on", "off", None)] == [
                "passages",
                "memory",
                "memory",
            ]
            field = re.search(r'<input[^>]*id="k-retrieval"[^>]*>', other.get("/").text)
            assert field is not None
            assert " checked" not in field[0]
    finally:
        server.stop()


def test_page_and_chat_agree_on_what_a_small_model_is_given(
    home: Path, client: httpx.Client, generator: QueueGenerator
) -> None:
    learned(home)
    for parameters, default in ((135_000_000, "passages"), (5_500_000, "memory")):
        generator.set(parameters=parameters)
        assert [ask(client, retrieval=how)["memory"] for how in ("on", "off", None)] == [
            "passages",
            "memory",
            default,
        ]
        field = re.search(r'<input[^>]*id="k-retrieval"[^>]*>', client.get("/").text)
        assert field is not None
        assert (" checked" in field[0]) is (default == "passages")


@pytest.mark.parametrize("value", ["yes", "ON", True, 1, {}])
def test_another_value_is_refused(client: httpx.Client, value: object) -> None:
    response = client.post("/chat", json={"message": "Who?", "retrieval": value})
    assert response.status_code == 422
    assert response.json()["detail"].startswith("retrieval: Input should be 'on' or 'off'")


def test_a_stream_says_it_at_its_start(home: Path, client: httpx.Client) -> None:
    learned(home)
    starts = []
    for message in (QUESTION, "Hello!"):
        body = {"message": message, "stream": True}
        with client.stream("POST", "/chat", json=body) as response:
            starts.append(next(events(response))[1])
    with_, without = starts
    assert (with_["memory"], with_["citations"]) == ("passages", [CITED])
    assert with_["badge"] == "With 1 passage"
    assert "library/anneck-light.md" in with_["sources"]
    assert (without["memory"], without["citations"]) == ("memory", [])
    assert (without["badge"], without["sources"]) == ("From memory", "")


def test_a_stored_reply_shows_them_again(home: Path, client: httpx.Client) -> None:
    learned(home)
    cid = ask(client, "Who is the landlord of the Black Oar?")["conversation_id"]
    ask(client, "Hello!", conversation_id=cid)
    (home / "passages.db").unlink()  # what was cited stays, whatever becomes of the index
    html = client.get(f"/c/{cid}").text
    assert re.findall(r"<span>(From memory|With \d+ passages?)</span>", html) == [
        "With 1 passage",
        "From memory",
        "From memory",  # the script's template
    ]
    assert html.count('class="pill"') == html.count(" popover ") == 1
    assert OAR in html
    assert '<time datetime="2026-11-20">20 Nov 2026</time>' in html
    address = re.search(r'<a href="(https?:[^"]*)"([^>]*)>', html)
    assert address is not None
    assert unescape(address[1]) == "https://example.org/oar?a=1&b=2"
    assert "noopener noreferrer nofollow" in address[2]


def test_the_index_is_seen_as_soon_as_it_is_there(home: Path, client: httpx.Client) -> None:
    assert ask(client)["memory"] == "memory"
    learned(home)
    assert ask(client)["memory"] == "passages"
    (home / "passages.db").write_bytes(b"damage" * 1000)
    assert ask(client)["memory"] == "memory"
    learned(home)
    assert ask(client)["memory"] == "passages"


EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}'


@pytest.mark.parametrize("uri", [EVIL, "javascript:alert(1)", "https://e.org/'\"><script>x"])
def test_what_others_wrote_is_text(
    home: Path, client: httpx.Client, generator: QueueGenerator, uri: str
) -> None:
    learned(home, IndexedDocument(3, f"Zorn {EVIL}", uri, EVIL, "c", (f"Zorn is a hill. {EVIL}",)))
    generator.replies.append(["A hill."])
    with client.stream("POST", "/chat", json={"message": "Zorn?", "stream": True}) as response:
        start = list(events(response))[0][1]  # noqa: RUF015  read to the end
    assert start["citations"][0]["uri"] == uri
    for html in (start["sources"], client.get(f"/c/{start['conversation']}").text):
        assert "&lt;script&gt;alert(1)" in html
        assert "<script>" not in html
        assert "<img" not in html
        assert "{{ 7*7 }}" in html
        assert 'href="javascript' not in html
        assert re.findall(r'href="(?![/#h])[^"]*"', html) == []


@pytest.mark.parametrize(
    ("uri", "linked"),
    [
        ("https://en.wikipedia.org/wiki/Lighthouse", True),
        ("HTTP://example.org", True),
        ("library/anneck-light.md", False),
        ("/home/you/notes/x.md", False),
        ("file:///etc/passwd", False),
        ("javascript:alert(1)", False),
        ("java\nscript:alert(1)", False),
        (" https://example.org", False),
        ("https://example.org/\nx", False),
        ("https:\\\\example.org", False),
        ("//example.org", False),
        ("data:text/html,x", False),
        ("", False),
    ],
)
def test_only_addresses_of_the_web_become_links(uri: str, linked: bool) -> None:
    assert link(uri) == (uri if linked else "")


@given(st.text())
def test_whatever_is_linked_is_of_the_web(text: str) -> None:
    for uri in (text, f"https://{text}", f"https:{text}"):
        assert link(uri) == "" or link(uri).lower().startswith(("http://", "https://"))


def passage(number: int, title: str) -> Passage:
    return Passage(number, number, title, "u", "2026-11-20", "t")


def test_the_words_of_badge_pill_and_day() -> None:
    one, two, same = passage(1, "Light"), passage(2, "Oar"), passage(3, "Light")
    assert [badge(p) for p in ([], [one], [one, two])] == [
        "From memory",
        "With 1 passage",
        "With 2 passages",
    ]
    assert summary([one]) == "1 passage from Light"
    assert summary([one, two, same]) == "3 passages from Light, Oar"
    assert (day("2026-11-05"), day(""), day("soon")) == ("5 Nov 2026", "", "soon")
