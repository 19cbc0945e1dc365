"""The whole web side around a generator that has nothing but what every generator has."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from autodidact.chat import memory
from autodidact.chat.memory import Turn
from autodidact.chat.reply import OPEN_ROOM
from autodidact.errors import Busy
from autodidact.settings import RetrievalSettings
from autodidact.store.chat import ChatStore
from autodidact.types import protocols
from autodidact.types.chat import Message
from tests.web.fakes import LIGHT, LiveServer, QueueGenerator, learned
from tests.web.remote import NAME, RemoteLikeGenerator
from tests.web.wire import events

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
WHO = [{"role": "user", "content": "Who keeps it?"}]


@pytest.fixture
def remote() -> RemoteLikeGenerator:
    return RemoteLikeGenerator()


@pytest.fixture
def here(tmp_path: Path, remote: RemoteLikeGenerator) -> Iterator[httpx.Client]:
    """A client of the app around it, with the town's passages."""
    learned(tmp_path)
    server = LiveServer(tmp_path, remote, RetrievalSettings()).start()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client
    server.stop()


def ask(client: httpx.Client, message: str = "Who keeps it?", **more: Any) -> httpx.Response:
    return client.post("/chat", json={"message": message, **more})


def test_it_has_none_of_the_capabilities(remote: RemoteLikeGenerator) -> None:
    for capability in (
        protocols.CountsTokens, protocols.ContinuesText, protocols.TellsLogprobs,
        protocols.TellsFigures, protocols.Observable, protocols.Runs,
    ):  # fmt: skip
        assert not isinstance(remote, capability)
    stream = remote.stream(remote.prepare([Message("user", "a")], protocols.SamplingParams()))
    assert not isinstance(stream, protocols.Cancellable)
    assert isinstance(QueueGenerator(), protocols.CountsTokens), "else this finds nothing"


def test_a_reply_as_json(here: httpx.Client, remote: RemoteLikeGenerator) -> None:
    response = ask(here, seed=7, max_length=90_000)
    assert response.status_code == 200
    assert "X-Model-Version" not in response.headers
    body = response.json()
    assert (body["reply"], body["finish"], body["seed"]) == ("Who keeps it?", "stop", 7)
    assert (body["version"], body["model"]) == (None, NAME)
    assert (body["tokens"], body["prompt_tokens"]) == (3, 3), "as its usage told"
    assert body["context"] == {"used": 6, "limit": None, "dropped": 0, "room": OPEN_ROOM}
    assert remote.asked[0][1].max_new_tokens == 90_000, "whether that fits is for it to say"


def test_a_reply_as_a_stream(here: httpx.Client, remote: RemoteLikeGenerator) -> None:
    with here.stream("POST", "/chat", json={"message": "one two", "stream": True}) as response:
        assert "X-Model-Version" not in response.headers
        found = list(events(response))
    assert [name for name, _ in found if name != "block"] == ["start", "text", "text", "done"]
    assert "<p>one two</p>" in "".join(told.get("html", "") for _, told in found)
    start, done = found[0][1], found[-1][1]
    assert (start["version"], start["model"], start["name"]) == (None, NAME, NAME)
    assert start["context"] == {"used": 0, "limit": None, "dropped": 0, "room": OPEN_ROOM}
    assert (done["tokens"], done["prompt_tokens"], done["finish"]) == (2, 2, "stop")
    assert remote.asked[0][1].max_new_tokens == 512


@pytest.mark.parametrize("stream", [False, True])
def test_without_usage_tokens_stay_unknown(tmp_path: Path, stream: bool) -> None:
    server = LiveServer(tmp_path, RemoteLikeGenerator(usage=False)).start()
    try:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            body = ask(client).json()
            asked = {"messages": WHO, "stream": stream}
            answer = client.post(CHAT, json=asked)
    finally:
        server.stop()
    assert (body["reply"], body["prompt_tokens"], body["tokens"]) == ("Who keeps it?", None, 0)
    assert answer.status_code == 200
    assert stream or answer.json()["usage"] is None


def test_the_page_shows_who_answered(here: httpx.Client, tmp_path: Path) -> None:
    body = ask(here).json()
    html = here.get(f"/c/{body['conversation_id']}").text
    assert re.search(rf'class="chip line name">{NAME}</a>', html), "without a report card"
    assert f'aria-label="Reply by {NAME}"' in html
    assert re.search(r'id="context"[^>]* hidden>', html), "no meter of an unknown context"
    empty = here.get("/").text
    assert f"{NAME} answers." in empty
    assert "It has not learned anything yet" not in empty
    reply = ChatStore(tmp_path / "chat.db").messages(body["conversation_id"])[1]
    assert (reply.version, reply.answers, reply.prompt_tokens) == (None, NAME, 3)


def test_rows_from_before_names_were_stored_are_shown(here: httpx.Client, tmp_path: Path) -> None:
    cid = ask(here).json()["conversation_id"]
    for version, name in ((7, "Checkpoint 7"), (0, "Base")):
        with sqlite3.connect(tmp_path / "chat.db") as db:
            db.execute("UPDATE messages SET answers = NULL, version = ? WHERE reply_to", (version,))
        db.close()
        assert f">{name}</a>" in here.get(f"/c/{cid}").text


def test_the_conversation_goes_on(here: httpx.Client, remote: RemoteLikeGenerator) -> None:
    cid = ask(here, "one").json()["conversation_id"]
    ask(here, "two", conversation_id=cid)
    assert [message.content for message in remote.asked[-1][0]] == ["one", "one", "two"]


def test_old_turns_go_by_their_characters(here: httpx.Client, remote: RemoteLikeGenerator) -> None:
    long = "x" * (memory.OPEN_CHARS // 4)
    cid = ask(here, f"first {long}").json()["conversation_id"]
    ask(here, f"second {long}", conversation_id=cid)
    body = ask(here, "last", conversation_id=cid).json()
    assert body["context"]["dropped"] == 1
    asked = remote.asked[-1][0]
    assert [message.content[:6] for message in asked] == ["second", "second", "last"]
    assert memory.characters(asked) <= memory.OPEN_CHARS


def test_many_short_turns_are_bounded_too(remote: RemoteLikeGenerator) -> None:
    fits = memory.budget(remote, None, 512)
    window = memory.fit([Turn("", "a")] * 5000, "now", fits.size, fits.prompt)
    assert len(window.messages) <= memory.OPEN_CHARS / memory.MESSAGE_CHARS
    assert window.dropped == 5000 - len(window.messages) // 2


def test_a_known_context_is_turned_into_characters(remote: RemoteLikeGenerator) -> None:
    fits = memory.budget(remote, 1000, 200)
    assert (fits.prompt, fits.passages) == (2400, 1500)
    assert fits.size([Message("user", "x" * 100)]) == 100 + memory.MESSAGE_CHARS


def test_passages_are_looked_up(here: httpx.Client, remote: RemoteLikeGenerator) -> None:
    body = ask(here, "When was the Anneck Light built?").json()
    assert body["memory"] == "passages"
    assert LIGHT in remote.asked[-1][0][-1].content


def test_what_it_refuses_is_told(here: httpx.Client, remote: RemoteLikeGenerator) -> None:
    remote.refusal = Busy("the API is busy", 7)
    answer = ask(here)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
    assert here.get("/conversations").text.count("/c/") == 0, "nothing is stored"
    assert here.post(CHAT, json={"messages": WHO, "stream": True}).status_code == 503
    assert ask(here, model="autodidact@3").status_code == 404
    remote.refusal = None
    assert ask(here, max_length=200_000).status_code == 400, "its own word on what fits"


# `/v1` ------------------------------------------------------------------------------------------


def test_a_chat_completion(here: httpx.Client) -> None:
    response = here.post(CHAT, json={"messages": WHO, "model": NAME, "n": 2, "max_tokens": 90_000})
    assert response.status_code == 200
    assert "X-Model-Version" not in response.headers
    body = response.json()
    assert (body["model"], body["system_fingerprint"]) == (NAME, NAME)
    assert [one["message"]["content"] for one in body["choices"]] == ["Who keeps it?"] * 2
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}


def test_a_streamed_chat_completion(here: httpx.Client) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    response = here.post(CHAT, json={"messages": WHO, **options})
    assert "X-Model-Version" not in response.headers
    *chunks, usage, done, end = response.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    assert len(chunks) == 1 + 3 + 1
    assert f'"model": "{NAME}"' in chunks[0]
    assert '"usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}' in usage


def test_the_models(here: httpx.Client) -> None:
    [one] = here.get("/v1/models").json()["data"]
    assert (one["id"], one["version"], one["role"]) == (NAME, None, None)
    assert here.get("/v1/models/autodidact@None").status_code == 404
    assert here.get("/v1/models/other").json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("path", "body", "param", "said"),
    [
        (TEXT, {"prompt": "Once"}, None, "does not go on with a text"),
        (CHAT, {"messages": WHO, "logprobs": True}, "logprobs", "logprobs: the model here"),
        (CHAT, {"messages": WHO, "logprobs": True, "top_logprobs": 2, "stream": True}, "logprobs",
         "logprobs: the model here"),
    ],
)  # fmt: skip
def test_what_it_cannot_do_is_refused_by_name(
    here: httpx.Client,
    remote: RemoteLikeGenerator,
    path: str,
    body: dict[str, Any],
    param: str | None,
    said: str,
) -> None:
    answer = here.post(path, json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert said in error["message"]
    assert remote.asked == []


def test_no_more_likeliest_tokens_than_can_be_told(tmp_path: Path) -> None:
    generator = QueueGenerator()
    generator.most_logprobs = 3
    server = LiveServer(tmp_path, generator).start()
    try:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            asked = {"messages": WHO, "logprobs": True, "top_logprobs": 4}
            refused = client.post(CHAT, json=asked)
            assert client.post(CHAT, json={**asked, "top_logprobs": 3}).status_code == 200
    finally:
        server.stop()
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "top_logprobs")


# What watches it --------------------------------------------------------------------------------


def test_health_and_readiness(here: httpx.Client) -> None:
    health = here.get("/health")
    assert health.status_code == 200
    told = health.json()
    assert (told["status"], told["version"], told["base"], told["context"]) == (
        "ok", None, NAME, None,
    )  # fmt: skip
    ready = here.get("/ready")
    assert (ready.status_code, ready.json()["version"]) == (200, None)


def test_metrics_tell_what_there_is(here: httpx.Client) -> None:
    text = here.get("/metrics").text
    assert "autodidact_ready 1.0" in text
    assert f'base="{NAME}"' in text
    assert "autodidact_live_version" not in text
    assert "autodidact_tokens_total" not in text


def test_the_live_events_begin_with_it(here: httpx.Client) -> None:
    with here.stream("GET", "/events") as response:
        name, hello = next(events(response))
    assert (name, hello["live"]["version"]) == ("hello", None)
    assert hello["model"]["chip"] == ["", NAME]


def test_the_operator_sees_no_live_version(here: httpx.Client) -> None:
    assert here.post("/admin/unpin", json={}).json()["live"] is None
