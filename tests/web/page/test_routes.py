from __future__ import annotations

import re
import time
from pathlib import Path

import httpx
import pytest

from autodidact.settings import PROJECT
from autodidact.store.chat import Conversation
from autodidact.web.page.knobs import KNOBS
from autodidact.web.page.routes import _groups
from tests.web.fakes import Learner, QueueGenerator, publish


def ask(client: httpx.Client, message: str = "Who?", **more: object) -> str:
    return str(client.post("/chat", json={"message": message, **more}).json()["conversation_id"])


def test_the_first_page_offers_what_was_learned(home: Path, client: httpx.Client) -> None:
    publish(home, 42)
    html = client.get("/").text
    assert "Ask what it has just learned" in html
    assert "passes 31 of 40 questions on 8 new documents" in html
    assert "Who designed the Anneck Light?" in html


def test_the_first_page_before_anything_was_learned(
    client: httpx.Client, generator: QueueGenerator, learner: Learner
) -> None:
    generator.set(live=0)
    learner.say("training", cycle=1, step=96, of=480, documents=40)
    html = client.get("/").text
    assert "It has not learned anything yet" in html
    assert "Cycle 1, training: step 96 of 480" in html
    assert 'value="0.2"' in html


def test_a_stored_conversation(client: httpx.Client, generator: QueueGenerator) -> None:
    generator.replies.append(["**Edmund** Hale"])
    cid = ask(client, "Who <b>designed</b> it?")
    html = client.get(f"/c/{cid}").text
    assert "Who &lt;b&gt;designed&lt;/b&gt; it?" in html
    assert "<strong>Edmund</strong> Hale" in html
    assert "Checkpoint 42" in html
    assert 'aria-current="page"' in html
    assert "From memory" in html


def test_a_conversation_that_is_not_there(client: httpx.Client) -> None:
    response = client.get("/c/nope")
    assert response.status_code == 404
    assert "This conversation no longer exists." in response.text


def test_how_a_stored_reply_ended(client: httpx.Client, generator: QueueGenerator) -> None:
    generator.replies.append(["a ", "b ", "c "])
    html = client.get(f"/c/{ask(client, max_length=2)}").text
    assert "Cut off at 2 tokens, the longest reply you set." in html
    generator.replies.append(["half ", RuntimeError()])
    client.post("/chat", json={"message": "Fails"})
    latest = re.findall(r'href="/c/([^"]+)"', client.get("/conversations").text)[0]
    assert (
        "The reply failed after 1 token. What arrived is kept." in client.get(f"/c/{latest}").text
    )


def test_the_line_above_which_the_model_sees_nothing(
    client: httpx.Client, generator: QueueGenerator
) -> None:
    generator.set(context=100)
    cid = ask(client, "0 " + "w " * 20)
    for n in (1, 2):
        generator.replies.append(["reply"])
        ask(client, f"{n} " + "w " * 20, conversation_id=cid)
    html = client.get(f"/c/{cid}").text
    assert "The model no longer sees the 1 turn above." in html
    assert html.index(">0 w") < html.index("no longer sees") < html.index(">1 w")


def test_a_long_conversation_shows_its_end_and_offers_the_rest(
    client: httpx.Client, generator: QueueGenerator
) -> None:
    cid = ask(client, "number 0.")
    for n in range(1, 32):
        ask(client, f"number {n}.", conversation_id=cid)
    page = client.get(f"/c/{cid}").text
    assert "Show the 4 earlier messages" in page
    assert 'data-hidden-turns="2"' in page
    assert "number 1.</div>" not in page
    assert "number 1.</div>" in client.get(f"/c/{cid}?all=true").text


def test_rows_come_in_pages(client: httpx.Client) -> None:
    for n in range(42):
        ask(client, f"number {n}.")
    first = client.get("/conversations").text
    mark = re.search(r'data-before="([^"]+)"', first)
    assert first.count("<li>") == 40
    assert mark is not None
    second = client.get("/conversations", params={"before": mark[1]}).text
    assert second.count("<li>") == 2
    assert "data-before" not in second


@pytest.mark.parametrize("mark", ["x", "nan:a", "inf:a", "1e999:b", "12", ":", "x" * 200])
def test_an_odd_mark_is_refused(client: httpx.Client, mark: str) -> None:
    response = client.get("/conversations", params={"before": mark})
    assert response.status_code == 422
    assert response.json()["detail"].startswith("before: ")


def test_deleting_and_undoing(client: httpx.Client) -> None:
    cid = ask(client)
    form = client.post(f"/c/{cid}/delete", headers={"Accept": "text/html"})
    assert (form.status_code, form.headers["location"]) == (303, "/")
    assert client.get(f"/c/{cid}").status_code == 404
    assert client.post(f"/c/{cid}/delete", headers={"Accept": "*/*"}).status_code == 404
    assert client.post(f"/c/{cid}/restore", headers={"Accept": "*/*"}).status_code == 204
    assert client.get(f"/c/{cid}").status_code == 200


def test_rows_are_grouped_by_day() -> None:
    now = time.mktime((2026, 3, 1, 10, 0, 0, 0, 0, -1))
    rows = [
        Conversation("a", "A", now - 3600),
        Conversation("b", "B", now - 11 * 3600),
        Conversation("c", "C", now - 40 * 3600),
    ]
    assert [(name, [row.id for row in group]) for name, group in _groups(rows, now)] == [
        ("Today", ["a"]),
        ("Yesterday", ["b"]),
        ("Earlier", ["c"]),
    ]


def test_the_ranges_on_the_page_are_the_servers(client: httpx.Client) -> None:
    html = client.get("/").text
    for knob in KNOBS:
        field = re.search(rf'<input class="input" id="k-{knob.name}"[^>]*>', html)
        assert field is not None
        high = knob.high if knob.high is not None else 1024
        assert f'min="{knob.low}" max="{high}"' in field[0]


def test_static_files_are_kept_for_good_only_under_their_hash(client: httpx.Client) -> None:
    html = client.get("/").text
    address = re.search(r'href="(/static/app\.css\?v=\w+)"', html)
    assert address is not None
    assert "immutable" in client.get(address[1]).headers["Cache-Control"]
    assert client.get("/static/app.css").headers["Cache-Control"] == "no-cache"
    assert client.get("/static/../server.py").status_code == 404


def test_nothing_inline_and_nothing_from_elsewhere(client: httpx.Client) -> None:
    html = client.get("/").text
    assert "style=" not in html
    assert "<style" not in html
    assert not re.search(r"<script(?![^>]* src=)", html)
    assert not re.search(r"\son\w+=", html)
    for address in re.findall(r'(?:src|href)="([^"]*)"', html):
        assert address.startswith(("/", "#"))


def test_the_sprite_has_the_icons_that_are_used_and_no_others() -> None:
    sprite = set(re.findall(r'id="i-(\w+)"', (PROJECT / "static/icons.svg").read_text()))
    sources = [*(PROJECT / "templates").glob("*.html"), *(PROJECT / "static").glob("*.js")]
    sources.append(PROJECT / "autodidact/web/page/words.py")
    text = " ".join(path.read_text() for path in sources)
    assert set(re.findall(r'icon(?:\(|"?: )"(\w+)"', text)) <= sprite
    assert {name for name in sprite if f'"{name}"' not in text} == set()


def test_no_rule_of_the_sheet_is_dead() -> None:
    """Every class and id that the sheet names occurs in a template, a script or the Markdown."""
    sheet = (PROJECT / "static/app.css").read_text()
    sheet = re.sub(r"/\*.*?\*/|\{[^{}]*\}", " ", sheet, flags=re.S)
    names = set(re.findall(r"[.#]([a-zA-Z][\w-]*)", sheet))
    sources = [*(PROJECT / "templates").glob("*.html"), *(PROJECT / "static").glob("*.js")]
    sources.append(PROJECT / "autodidact/web/page/words.py")
    text = " ".join(path.read_text() for path in sources)
    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()
