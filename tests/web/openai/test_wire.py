"""`/v1` byte by byte: the frames of a stream, the body of every error, and bad input."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from autodidact.errors import DialogueRefused, UnknownModel
from autodidact.types.chat import Delta, TokenLogprob
from autodidact.web.openai.errors import BadRequest, body_of, error_body, status_of
from autodidact.web.openai.requests import ChatAsked, TextAsked
from tests.web.fakes import LiveServer, QueueGenerator, endless

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
WHO = [{"role": "user", "content": "Who?"}]


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of one server for all the requests that reach no generator."""
    server = LiveServer(tmp_path_factory.mktemp("home"), QueueGenerator()).start()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client
    server.stop()


def chat(client: httpx.Client, **more: Any) -> httpx.Response:
    return client.post(CHAT, json={"messages": WHO, **more})


def frames(response: httpx.Response) -> list[str]:
    """The data of each frame of a whole stream; fails if there is anything else in it."""
    *found, end = response.text.split("\n\n")
    assert end == ""
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in found)
    return [frame.removeprefix("data: ") for frame in found]


# The stream -----------------------------------------------------------------------------------


def test_the_frames_of_a_stream(client: httpx.Client, generator: QueueGenerator) -> None:
    generator.replies.append(["Ed\n\nmund ", Delta("Hale", 2)])
    response = chat(client, stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    *chunks, done = frames(response)
    assert done == "[DONE]"
    read = [json.loads(chunk) for chunk in chunks]
    head = {key: read[0][key] for key in ("id", "created")}
    same = {
        **head, "object": "chat.completion.chunk", "model": "autodidact@42",
        "system_fingerprint": "autodidact@42", "usage": None,
    }  # fmt: skip

    def chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**same, "choices": [choice]}

    assert read == [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Ed\n\nmund "}),
        chunk({"content": "Hale"}),
        chunk({}, "stop"),
        {
            **same,
            "choices": [],
            "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5},
        },
    ]


def test_usage_is_not_mentioned_where_no_one_asked(client: httpx.Client) -> None:
    chunks = frames(chat(client, stream=True))
    assert all("usage" not in json.loads(chunk) for chunk in chunks[:-1])


def test_tokens_whose_text_is_held_back_are_explained_all_the_same(
    client: httpx.Client, generator: QueueGenerator
) -> None:
    one, two = TokenLogprob("\ufffd", b"\xc3", -1.0), TokenLogprob("\ufffd", b"\xa9", -2.0)
    last = TokenLogprob("!", b"!", float("-inf"))
    deltas = [Delta("", 1, None, (one,)), Delta("é", 1, None, (two,)), Delta("!", 1, None, (last,))]
    generator.replies.extend([[*deltas], [*deltas]])
    chunks = [json.loads(chunk) for chunk in frames(chat(client, stream=True, logprobs=True))[:-1]]
    told = [
        (token["bytes"], token["logprob"])
        for chunk in chunks
        for token in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert told == [([0xC3], -1.0), ([0xA9], -2.0), ([33], -9999.0)]
    old = client.post(TEXT, json={"prompt": "abc", "logprobs": 1}).json()["choices"][0]
    assert old["text"] == "é!"
    assert old["logprobs"]["text_offset"] == [3, 3, 4]


def test_a_failure_ends_a_stream_without_done(
    client: httpx.Client, generator: QueueGenerator
) -> None:
    generator.replies.append(["half ", RuntimeError("secret detail")])
    *_, last = frames(chat(client, stream=True))
    assert json.loads(last) == error_body(500, "an error on the server, which its log tells")


def test_a_failure_of_one_choice_ends_all(
    client: httpx.Client, generator: QueueGenerator, server: LiveServer
) -> None:
    def broken(params: Any) -> str:
        if params.seed == 8:
            raise MemoryError
        return "word "

    generator.replies.append([broken, *endless()])
    response = chat(client, stream=True, n=2, seed=7)
    assert json.loads(frames(response)[-1])["error"]["message"] == "out of memory on the server"
    server.app.state.site.replies.shutdown(wait=True)
    assert generator.finished == 0


def test_streams_end_when_the_server_is_told_to_stop(home: Path, generator: QueueGenerator) -> None:
    server = LiveServer(home, generator).start()
    generator.replies.append(endless())
    with (
        httpx.Client(base_url=server.url, timeout=30) as client,
        client.stream("POST", CHAT, json={"messages": WHO, "stream": True}) as response,
    ):
        lines = (line for line in response.iter_lines() if line)
        next(lines)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        *_, last = lines
        stopping.join()
    assert json.loads(last.removeprefix("data: "))["error"]["message"] == (
        "the server is shutting down"
    )
    assert generator.closed.is_set()


def test_whoever_leaves_before_the_first_token_gives_the_place_back(
    client: httpx.Client, generator: QueueGenerator, server: LiveServer
) -> None:
    go_on = threading.Event()
    for _ in range(3):
        generator.replies.append([go_on, *endless()])
        with pytest.raises(httpx.ReadTimeout):
            client.post(CHAT, json={"messages": WHO, "stream": True}, timeout=0.2)
    go_on.set()
    server.app.state.site.replies.shutdown(wait=True)
    assert generator.finished == 0
    assert client.get("/health").json()["active"] == 0


# Whole replies --------------------------------------------------------------------------------


def test_a_whole_reply(client: httpx.Client) -> None:
    response = chat(client, model=None, stream=None, n=None, stop=None, temperature=None)
    assert response.headers["X-Model-Version"] == "42"
    body = response.json()
    assert isinstance(body.pop("created"), int)
    assert body.pop("id").startswith("chatcmpl-")
    assert body == {
        "object": "chat.completion",
        "model": "autodidact@42",
        "system_fingerprint": "autodidact@42",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Who?", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3},
    }


def test_nothing_is_stored(client: httpx.Client, server: LiveServer) -> None:
    chat(client, store=True)
    assert server.app.state.site.store.conversations(10) == []


def test_no_mass_is_the_likeliest_token(client: httpx.Client, generator: QueueGenerator) -> None:
    chat(client, top_p=0)
    assert (generator.begun[0].params.top_p, generator.begun[0].params.top_k) == (1, 1)


def test_seeds_of_any_size(client: httpx.Client, generator: QueueGenerator) -> None:
    for seed in (-1, 2**32, 2**63 - 1):
        chat(client, seed=seed)
    assert [prepared.params.seed for prepared in generator.begun] == [2**32 - 1, 0, 2**32 - 1]


def test_text_parts_are_joined(client: httpx.Client, generator: QueueGenerator) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    chat(client, messages=[{"role": "user", "content": parts, "name": "Ann"}])
    assert generator.asked[0][0][0].content == "one\ntwo"


@pytest.mark.parametrize(
    "given",
    [
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "functions": []},
        {"response_format": {"type": "text"}, "modalities": ["text"], "logit_bias": {}},
        {"service_tier": "auto", "reasoning_effort": "none", "verbosity": "medium"},
        {"user": 7, "metadata": {"a": [1]}, "store": True, "safety_identifier": "x"},
        {"prediction": {"type": "content", "content": "x"}, "prompt_cache_key": "k"},
        {"max_tokens": 5, "max_completion_tokens": 5},
        {"audio": None, "web_search_options": None, "function_call": None, "logprobs": None},
        {"thinking": None, "chat_template_kwargs": None, "whatever": None},
        {"stream": True, "stream_options": {"include_usage": True, "whatever": None}},
    ],
)
def test_fields_that_ask_for_nothing_are_accepted(
    same: httpx.Client, given: dict[str, Any]
) -> None:
    assert chat(same, **given).status_code == 200


COPIED: list[dict[str, Any]] = [
    {"reasoning_content": None, "reasoning": None, "refusal": None, "whatever": None},
    {"reasoning_content": "Let me see.", "provider_specific_fields": {"a": 1}, "id": "msg_1"},
    {"reasoning_details": [{"type": "x"}], "thinking_blocks": [], "parsed": {"a": 1}},
    {"annotations": [{"type": "url_citation"}], "cache_control": {"type": "ephemeral"}},
]
"""What clients put into a message again that they got from some service."""


@pytest.mark.parametrize("copied", COPIED)
def test_what_clients_copy_back_changes_nothing(
    client: httpx.Client, generator: QueueGenerator, copied: dict[str, Any]
) -> None:
    talk = [*WHO, {"role": "assistant", "content": "Ida."}, {"role": "user", "content": "When?"}]
    assert chat(client, messages=talk).status_code == 200
    again = [{**message, **copied} for message in talk]
    assert chat(client, messages=again).status_code == 200
    assert generator.asked[0][0] == generator.asked[1][0]


def test_marks_on_text_parts_change_nothing(
    client: httpx.Client, generator: QueueGenerator
) -> None:
    part = {"type": "text", "text": "Who?", "cache_control": {"type": "ephemeral"}, "more": None}
    said = chat(client, messages=[{"role": "user", "content": [part]}])
    assert said.status_code == 200
    assert generator.asked[0][0][0].content == "Who?"


def test_several_prompts_are_gone_on_with_one_by_one(
    client: httpx.Client, generator: QueueGenerator
) -> None:
    asked = {"prompt": ["one", "two words", "three"], "seed": 5, "max_tokens": 8}
    whole = client.post(TEXT, json=asked).json()
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]
    said = [messages[-1].content for messages, _, _ in generator.asked]
    assert said == asked["prompt"]
    assert [model for _, _, model in generator.asked] == [None, whole["model"], whole["model"]]
    alone = [client.post(TEXT, json={**asked, "prompt": one}).json() for one in said]
    assert [c["text"] for c in whole["choices"]] == [one["choices"][0]["text"] for one in alone]
    for name, count in whole["usage"].items():
        assert count == sum(one["usage"][name] for one in alone)

    streamed = frames(client.post(TEXT, json={**asked, "stream": True}))
    texts = ["", "", ""]
    for frame in streamed[:-1]:
        for choice in json.loads(frame)["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == [choice["text"] for choice in whole["choices"]]


def test_prompts_and_replies_to_each_are_bounded_together(client: httpx.Client) -> None:
    asked = {"prompt": ["one", "two"], "n": 2}
    _is_refused(client.post(TEXT, json=asked), "prompt", "at most 3 replies at a time")


def test_offsets_count_from_each_prompt_of_its_own(client: httpx.Client) -> None:
    asked = {"prompt": ["one", "two words"], "logprobs": 0, "max_tokens": 8}
    choices = client.post(TEXT, json=asked).json()["choices"]
    assert [c["logprobs"]["text_offset"][0] for c in choices] == [3, 9]


# Bad input ------------------------------------------------------------------------------------

LEAVE_OUT = "not supported here; leave it out"
BAD: list[tuple[dict[str, Any], str | None, str]] = [
    ({"messages": []}, "messages", "at least 1 item"),
    ({"messages": "Who?"}, "messages", "valid list"),
    ({"messages": ["Who?"]}, "messages[0]", ""),
    ({"messages": [{"content": "Who?"}]}, "messages[0].role", "required"),
    ({"messages": [*WHO, {"role": "tool", "content": "x"}]}, "messages[1].role", "'developer'"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "string"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "string"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content",
        "only parts of type text",
    ),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content", "{ty"),
    (
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]},
        "messages[0].tool_calls",
        LEAVE_OUT,
    ),
    ({"messages": [{"role": "user", "content": "Who?", "sEcret": 1}]}, None, "unknown field"),
    ({"messages": [{"role": "user", "content": "Who?", "prefix": True}]}, None, "unknown field"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "sEcret": 1}]}]},
        "messages[0].content",
        "{type, text}",
    ),
    ({"temperature": 2.1}, "temperature", "less than or equal to 2"),
    ({"temperature": "1"}, "temperature", "valid number"),
    ({"temperature": True}, "temperature", "valid number"),
    ({"top_p": 1.5}, "top_p", "less than or equal to 1"),
    ({"top_k": -1}, "top_k", "greater than or equal to 0"),
    ({"top_k": 2.5}, "top_k", "valid integer"),
    ({"min_p": -0.1}, "min_p", "greater than or equal to 0"),
    ({"repetition_penalty": 0}, "repetition_penalty", "or equal to 0.5"),
    ({"presence_penalty": 3}, "presence_penalty", "less than or equal to 2"),
    ({"frequency_penalty": -3}, "frequency_penalty", "greater than or equal to -2"),
    ({"n": 0}, "n", "greater than or equal to 1"),
    ({"n": 9}, "n", "less than or equal to 8"),
    ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    ({"max_completion_tokens": 10**30}, "max_completion_tokens", "context length is 1024"),
    ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "leave it out"),
    ({"stop": ["a"] * 5}, "stop", "up to 4"),
    ({"stop": ""}, "stop", "none empty"),
    ({"stop": {"a": 1}}, "stop", "a string or a list"),
    ({"seed": 1.5}, "seed", "valid integer"),
    ({"seed": 2**63}, "seed", "less than"),
    ({"logprobs": 1}, "logprobs", "valid boolean"),
    ({"top_logprobs": 2}, "top_logprobs", "when logprobs is true"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
    ({"stream": "yes"}, "stream", "valid boolean"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "when stream is true"),
    ({"stream": True, "stream_options": {"sEcret": 1}}, None, "unknown field"),
    ({"model": 5}, "model", "valid string"),
    ({"model": "sEcret" * 50}, "model", "at most 200"),
    ({"tools": [{"type": "function"}]}, "tools", LEAVE_OUT),
    ({"tool_choice": "required"}, "tool_choice", LEAVE_OUT),
    ({"response_format": {"type": "json_object"}}, "response_format", LEAVE_OUT),
    ({"logit_bias": {"50256": -100}}, "logit_bias", LEAVE_OUT),
    ({"modalities": ["text", "audio"]}, "modalities", LEAVE_OUT),
    ({"web_search_options": {}}, "web_search_options", LEAVE_OUT),
    ({"sEcret": 1}, None, "unknown field; the fields are"),
]


@pytest.mark.parametrize(("given", "param", "says"), BAD)
def test_bad_input(same: httpx.Client, given: dict[str, Any], param: str | None, says: str) -> None:
    _is_refused(chat(same, **given), param, says)


@pytest.mark.parametrize(
    ("given", "param", "says"),
    [
        ({}, "prompt", "required"),
        ({"prompt": ""}, "prompt[0]", "at least 1"),
        ({"prompt": ["a", ""]}, "prompt[1]", "at least 1"),
        ({"prompt": [1, 2]}, "prompt", "a list of strings"),
        ({"prompt": [[1, 2], [3]]}, "prompt", "a list of strings"),
        ({"prompt": []}, "prompt", "at least 1"),
        ({"prompt": ["a"] * 9}, "prompt", "at most 8"),
        ({"prompt": "a", "echo": True}, "echo", LEAVE_OUT),
        ({"prompt": "a", "suffix": "b"}, "suffix", LEAVE_OUT),
        ({"prompt": "a", "best_of": 3}, "best_of", LEAVE_OUT),
        ({"prompt": "a", "logprobs": 6}, "logprobs", "less than or equal to 5"),
        ({"prompt": "a", "logprobs": True}, "logprobs", "valid integer"),
        ({"prompt": "a", "messages": WHO}, None, "unknown field"),
        ({"prompt": "a", "max_tokens": 1024}, "max_tokens", "you requested 1025 tokens (1 in the"),
    ],
)
def test_bad_input_to_completions(
    same: httpx.Client, given: dict[str, Any], param: str | None, says: str
) -> None:
    _is_refused(same.post(TEXT, json=given), param, says)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'"messages"',
        b"\xff",
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": [{"type": "text", "text": "\\ud800"}]}]}',
        b'{"messages": [{"role": "user", "content": "a"}], "\\ud800": 1}',
        b'{"messages": [{"role": "user", "content": "a"}], "model": "\\ud800"}',
        b'{"messages": [{"role": "user", "content": "a"}], "stop": ["\\ud800"]}',
        b'{"messages": [{"role": "user", "content": "a"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "a"}], "top_p": Infinity}',
        b'{"messages": [{"role": "user", "content": "a"}], "min_p": 1e999}',
        b'{"messages": [{"role": "user", "content": "a"}], "seed": 1' + b"0" * 5000 + b"}",
        b'{"messages": ' + b"[" * 30_000,
        b'{"metadata": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    ],
)
def test_bodies_that_are_no_request(same: httpx.Client, raw: bytes) -> None:
    for path in (CHAT, TEXT):
        _is_refused(same.post(path, content=raw))


def _is_refused(response: httpx.Response, param: str | None = None, says: str = "") -> None:
    assert response.status_code == 400
    (error,) = response.json().values()
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    if says:
        assert error["param"] == param
        assert says in error["message"]
    assert "sEcret" not in response.text
    assert "\n" not in error["message"]


# Errors of others -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "status"),
    [
        ("POST", CHAT, {}, b"x" * 70_000, 413),
        ("POST", CHAT, {"Origin": "https://evil.example"}, b"{}", 403),
        ("GET", CHAT, {}, b"", 405),
        ("POST", "/v1/models", {}, b"{}", 405),
        ("GET", "/v1/nothing", {}, b"", 404),
        ("POST", "/v1/embeddings", {}, b"{}", 404),
        ("GET", "/v1/models/a%2Fb", {}, b"", 404),
        ("GET", "/v1/models/%ff%00", {}, b"", 404),
    ],
)
def test_all_errors_under_v1_have_the_same_body(
    same: httpx.Client,
    method: str,
    path: str,
    headers: dict[str, str],
    content: bytes,
    status: int,
) -> None:
    response = same.request(method, path, headers=headers, content=content)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (BadRequest("n: too many", "n"), 400, "invalid_request_error", None),
        (UnknownModel("no such model"), 404, "invalid_request_error", "model_not_found"),
        (DialogueRefused("no system turn"), 400, "invalid_request_error", None),
        (ValueError("secret detail"), 500, "server_error", None),
        (MemoryError(), 500, "server_error", None),
    ],
)
def test_the_answer_to_an_error(error: Exception, status: int, kind: str, code: str | None) -> None:
    told = body_of(error)["error"]
    assert (status_of(error), told["type"], told["code"]) == (status, kind, code)
    assert "secret" not in told["message"]


def test_what_is_taken_is_described(same: httpx.Client) -> None:
    paths = same.get("/openapi.json").json()["paths"]
    for path, kind in ((CHAT, ChatAsked), (TEXT, TextAsked)):
        described = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert set(described["properties"]) == set(kind.model_fields)
        assert "$ref" not in json.dumps(described)
