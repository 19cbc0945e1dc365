from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from autodidact.errors import Busy
from autodidact.settings import PROJECT
from autodidact.store.chat import ChatStore
from autodidact.types.chat import Delta
from tests.web.fakes import Item, Learner, LiveServer, QueueGenerator, endless, publish
from tests.web.wire import events, until


def ask(client: httpx.Client, message: str = "Who?", **more: Any) -> httpx.Response:
    return client.post("/chat", json={"message": message, **more})


def test_a_reply_as_json(client: httpx.Client, generator: QueueGenerator) -> None:
    generator.replies.append(["Edmund ", "Hale."])
    response = ask(client, seed=7)
    assert response.status_code == 200
    assert response.headers["X-Model-Version"] == "42"
    body = response.json()
    assert body["reply"] == "Edmund Hale."
    assert (body["version"], body["memory"], body["finish"]) == (42, "memory", "stop")
    assert (body["tokens"], body["prompt_tokens"], body["seed"]) == (2, 2, 7)
    assert body["context"] == {"used": 4, "limit": 1024, "dropped": 0, "room": 1020}
    params = generator.asked[0][1]
    assert (params.temperature, params.top_p, params.top_k) == (0.7, 0.9, 50)
    assert params.max_new_tokens == 512


def test_the_settings_of_a_request_reach_the_generator(
    client: httpx.Client, generator: QueueGenerator
) -> None:
    ask(client, temperature=0, top_p=1, top_k=0, max_length=9, model="42")
    _, params, model = generator.asked[0]
    assert (params.temperature, params.top_p, params.top_k) == (0.0, 1.0, 0)
    assert (params.max_new_tokens, model) == (9, "42")


SAMPLING: dict[str, Any] = {
    "temperature": 0.3,
    "top_p": 0.8,
    "top_k": 7,
    "min_p": 0.1,
    "repetition_penalty": 1.2,
    "presence_penalty": -0.5,
    "frequency_penalty": 1.5,
    "stop": ["\n\n", "END"],
    "max_length": 9,
}


def test_all_of_sampling_is_passed_on_told_and_stored(
    client: httpx.Client, generator: QueueGenerator, home: Path
) -> None:
    body = ask(client, **SAMPLING).json()
    assert body["sampling"] == SAMPLING
    params = generator.asked[0][1]
    assert (params.min_p, params.repetition_penalty) == (0.1, 1.2)
    assert (params.presence_penalty, params.frequency_penalty) == (-0.5, 1.5)
    assert params.stop == ("\n\n", "END")
    given = {"message": "Who?", "stream": True, **SAMPLING}
    with client.stream("POST", "/chat", json=given) as response:
        assert until(events(response), "start")["sampling"] == SAMPLING
    cid = body["conversation_id"]
    stored = ChatStore(home / "chat.db").messages(cid)[1].sampling
    assert {key: stored[key] for key in SAMPLING if key != "max_length"} == {
        key: value for key, value in SAMPLING.items() if key != "max_length"
    }
    assert client.get(f"/c/{cid}").status_code == 200


def test_a_reply_that_ran_out_of_time(
    client: httpx.Client, generator: QueueGenerator, home: Path
) -> None:
    late: list[Item] = ["as far as ", Delta("it came", 2, "time")]
    generator.replies.extend([late, late])
    body = ask(client).json()
    assert (body["finish"], body["reply"], body["tokens"]) == ("time", "as far as it came", 3)
    assert ChatStore(home / "chat.db").messages(body["conversation_id"])[1].finish == "time"
    with client.stream("POST", "/chat", json={"message": "Who?", "stream": True}) as response:
        done = until(events(response), "done")
    assert done["ended"]["text"] == "Out of time after 3 tokens. What arrived is kept."
    assert done["ended"]["text"] in client.get(f"/c/{body['conversation_id']}").text


def test_several_turns(client: httpx.Client, generator: QueueGenerator) -> None:
    cid = ask(client, "one").json()["conversation_id"]
    ask(client, "two", conversation_id=cid)
    ask(client, "two", conversation_id=cid, again=True)
    assert [m.content for m in generator.asked[1][0]] == ["one", "one", "two"]
    assert generator.asked[2][0] == generator.asked[1][0]


def test_a_reply_as_a_stream(client: httpx.Client, generator: QueueGenerator) -> None:
    generator.replies.append(["**Edmund**\n", "\n", "Hale."])
    with client.stream("POST", "/chat", json={"message": "Who?", "stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["X-Model-Version"] == "42"
        seen = list(events(response))
    assert [name for name, _ in seen] == [
        "start", "text", "text", "block", "text", "block", "done",
    ]  # fmt: skip
    start, done = seen[0][1], seen[-1][1]
    assert (start["version"], start["memory"], start["context"]["used"]) == (42, "memory", 2)
    assert "".join(data["t"] for name, data in seen if name == "text") == "**Edmund**\n\nHale."
    assert [data["n"] for name, data in seen if name == "text"] == [1, 2, 3]
    assert seen[3][1] == {"i": 0, "html": "<p><strong>Edmund</strong></p>\n", "open": ""}
    assert (done["finish"], done["tokens"], done["ended"]) == ("stop", 3, None)
    assert "html" not in done


def test_text_arrives_while_the_reply_is_being_made(
    client: httpx.Client, generator: QueueGenerator
) -> None:
    go_on = threading.Event()
    generator.replies.append(["first ", go_on, "last"])
    with client.stream("POST", "/chat", json={"message": "Who?", "stream": True}) as response:
        stream = events(response)
        assert until(stream, "text")["t"] == "first "
        go_on.set()
        assert until(stream, "text")["t"] == "last"


def test_a_reader_who_leaves_stops_the_generation(
    server: LiveServer, client: httpx.Client, generator: QueueGenerator, home: Path
) -> None:
    generator.replies.append(endless())
    with client.stream("POST", "/chat", json={"message": "Count", "stream": True}) as response:
        stream = events(response)
        cid = until(stream, "start")["conversation"]
        until(stream, "text")
    assert generator.closed.wait(10)
    server.app.state.site.replies.shutdown(wait=True)
    reply = ChatStore(home / "chat.db").messages(cid)[1]
    assert reply.finish == "stopped"
    assert reply.content.startswith("word ")


def test_a_reader_of_json_who_leaves_stops_it_too(
    client: httpx.Client, generator: QueueGenerator
) -> None:
    generator.replies.append(endless())
    with pytest.raises(httpx.ReadTimeout):
        client.post("/chat", json={"message": "Count"}, timeout=0.5)
    assert generator.closed.wait(10)


def test_a_reply_keeps_the_version_that_began_it(
    client: httpx.Client, generator: QueueGenerator
) -> None:
    go_on = threading.Event()
    generator.replies.append(["by ", go_on, "42"])
    with client.stream("POST", "/chat", json={"message": "Who?", "stream": True}) as response:
        stream = events(response)
        assert until(stream, "start")["version"] == 42
        generator.set(live=43)
        go_on.set()
        done = until(stream, "done")
    assert done["finish"] == "stop"
    assert ask(client).json()["version"] == 43


def test_a_failure_in_the_middle(client: httpx.Client, generator: QueueGenerator) -> None:
    for error, kind, message in (
        (RuntimeError("secret detail"), "failed", "an error on the server, which its log tells"),
        (MemoryError(), "memory", "out of memory on the server"),
        (Busy("too many"), "busy", "too many"),
    ):
        generator.replies.append(["half ", error])
        with client.stream("POST", "/chat", json={"message": "Who?", "stream": True}) as response:
            seen = list(events(response))
        assert seen[-1] == ("error", {"kind": kind, "message": message})
        assert all(name != "done" for name, _ in seen)


def test_a_failure_as_json(client: httpx.Client, generator: QueueGenerator) -> None:
    generator.replies.append(["half ", RuntimeError("secret detail")])
    response = ask(client)
    assert response.status_code == 500
    assert "secret" not in response.text


def test_one_request_too_many_is_told_to_wait(
    client: httpx.Client, generator: QueueGenerator
) -> None:
    """Two run, one waits: the fourth is refused, and a place is free again when one has ended."""
    go_on = threading.Event()
    generator.replies.extend([["a", go_on, "b"] for _ in range(3)])
    with httpx.Client(base_url=client.base_url, timeout=30) as other:
        streams = [
            other.stream("POST", "/chat", json={"message": "Who?", "stream": True})
            for _ in range(3)
        ]
        responses = [stream.__enter__() for stream in streams]
        refused = ask(client)
        go_on.set()
        for response in responses:
            assert list(events(response))[-1][0] == "done"
        for stream in streams:
            stream.__exit__(None, None, None)
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "4"
    assert (refused.json()["kind"], refused.json()["replies"]) == ("busy", 3)


def test_no_model_yet(client: httpx.Client, generator: QueueGenerator) -> None:
    generator.set(state="loading")
    response = ask(client)
    assert (response.status_code, response.json()["kind"]) == (503, "loading")
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("given", "status", "detail"),
    [
        ({"conversation_id": "nope"}, 404, "conversation_id: no such conversation"),
        (
            {"again": True},
            409,
            "again: message is not the last question of this conversation",
        ),
    ],
)
def test_what_cannot_be_answered(
    client: httpx.Client, given: dict[str, Any], status: int, detail: str
) -> None:
    response = ask(client, **given)
    assert (response.status_code, response.json()["detail"]) == (status, detail)


LIMIT = 64 * 1024
BAD_INPUT: list[tuple[bytes, int, str]] = [
    (b'{"message": "x"', 422, "body: Input should be valid JSON"),
    (b'{"message": "x", "temperature": NaN}', 422, "temperature: Input should be a finite number"),
    (b'{"message": "x", "min_p": NaN}', 422, "min_p: Input should be a finite number"),
    (
        b'{"message": "x", "presence_penalty": -Infinity}',
        422,
        "presence_penalty: Input should be a finite number",
    ),
    (b'{"message": "a\\ud800b"}', 422, "message: Input should be a valid string"),
    (b'{"message": "x", "stop": ["\\udfff"]}', 422, "stop: Input should be a valid string"),
    (b'{"message": ""}', 422, "message: String should have at least 1 character"),
    (b'{"message": "x", "surprise": 1}', 422, "body: unknown field; the fields are again, "),
    (b'{"message": "x", "top_k": -1}', 422, "top_k: Input should be greater than or equal to 0"),
    (b'{"message": "x", "temperature": "1"}', 422, "temperature: Input should be a valid number"),
    (b'{"message": "x", "min_p": 1.1}', 422, "min_p: Input should be less than or equal to 1"),
    (b'{"message": "x", "min_p": -0.1}', 422, "min_p: Input should be greater than or equal to 0"),
    (
        b'{"message": "x", "repetition_penalty": 0}',
        422,
        "repetition_penalty: Input should be greater than or equal to 0.5",
    ),
    (
        b'{"message": "x", "repetition_penalty": 2.1}',
        422,
        "repetition_penalty: Input should be less than or equal to 2",
    ),
    (
        b'{"message": "x", "presence_penalty": 2.1}',
        422,
        "presence_penalty: Input should be less than or equal to 2",
    ),
    (
        b'{"message": "x", "frequency_penalty": -3}',
        422,
        "frequency_penalty: Input should be greater than or equal to -2",
    ),
    (b'{"message": "x", "stop": "END"}', 422, "stop: Input should be a valid list"),
    (b'{"message": "x", "stop": [""]}', 422, "stop: String should have at least 1 character"),
    (b'{"message": "x", "stop": [3]}', 422, "stop: Input should be a valid string"),
    (b'{"message": "x", "stop": ["1","2","3","4","5"]}', 422, "stop: List should have at most 4"),
    (
        b'{"message": "x", "stop": ["' + b"y" * 65 + b'"]}',
        422,
        "stop: String should have at most 64 characters",
    ),
    (b'{"message": "\xff\xfe"}', 400, "body: not valid UTF-8"),
    (b'{"message": ' + b"[" * 60_000, 400, "body: nested too deeply"),
    # 200,000 levels do not fit into 64 KiB: the size is what is told.
    (b'{"message": ' + b"[" * 200_000, 413, f"body: larger than {LIMIT} bytes"),
    (b'{"message": "' + b"x" * LIMIT + b'"}', 413, f"body: larger than {LIMIT} bytes"),
    (
        b'{"message": "x", "max_length": 1024}',
        400,
        "prompt 2 + max_length 1024 exceeds 1024 tokens",
    ),
    (b'{"message": "x", "model": "autodidact@7"}', 404, "model: no such version; there are 42"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize(("body", "status", "detail"), BAD_INPUT)
def test_bad_input_is_told_in_one_line_and_costs_nothing(
    client: httpx.Client,
    generator: QueueGenerator,
    body: bytes,
    status: int,
    detail: str,
    stream: bool,
) -> None:
    """The table of bad input. A stream that cannot begin is refused the same way, as JSON."""
    given = body.replace(b"{", b'{"stream": true, ', 1) if stream else body
    response = client.post("/chat", content=given)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    told = response.json()["detail"]
    assert told.startswith(detail)
    assert len(told) < 300
    assert "\n" not in told
    assert (generator.asked, generator.begun) == ([], [])


def test_health(client: httpx.Client, generator: QueueGenerator, learner: Learner) -> None:
    learner.say("training", cycle=43)
    response = client.get("/health")
    assert response.status_code == 200
    body = response.json()
    assert (body["status"], body["version"], body["base"]) == ("ok", 42, "tiny-chat")
    assert (body["fallback"], body["context"], body["learner"]) == (False, 1024, "training")
    assert (body["origin"], body["choice"]) == ("", "")
    generator.set(origin="package", choice="the Hub was out of reach")
    body = client.get("/health").json()
    assert (body["origin"], body["choice"]) == ("package", "the Hub was out of reach")
    generator.set(state="loading")
    loading = client.get("/health")
    assert (loading.status_code, loading.json()["status"]) == (503, "loading")
    assert "Retry-After" in loading.headers
    generator.set(state="failed", reason="no such file")
    failed = client.get("/health")
    assert (failed.status_code, failed.json()["reason"]) == (503, "no such file")


def test_streams_end_when_the_server_is_told_to_stop(home: Path, generator: QueueGenerator) -> None:
    server = LiveServer(home, generator).start()
    generator.replies.append(endless())
    with (
        httpx.Client(base_url=server.url, timeout=30) as client,
        client.stream("GET", "/events") as live,
        client.stream("POST", "/chat", json={"message": "Count", "stream": True}) as chat,
    ):
        told, replying = events(live), events(chat)
        until(told, "hello")
        until(replying, "text")
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert "retry_ms" in until(told, "bye")
        assert until(replying, "error")["kind"] == "stopping"
        stopping.join()
    assert generator.closed.is_set()


def test_sigterm_ends_open_streams(home: Path) -> None:
    """A process of its own, because only a main thread hears signals."""
    script = (
        "import sys, pathlib, uvicorn\n"
        "from autodidact.settings import ServerSettings\n"
        "from autodidact.web.app import build_app\n"
        "from tests.web.fakes import QueueGenerator\n"
        "app = build_app(ServerSettings(), pathlib.Path(sys.argv[1]), QueueGenerator())\n"
        "config = uvicorn.Config(app, port=0, log_level='info')\n"
        "uvicorn.Server(config).run()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(home)], cwd=PROJECT, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "running on" in line)
        url = line.split("running on ")[1].split()[0]
        with httpx.Client(base_url=url, timeout=30) as client, client.stream("GET", "/events") as r:
            told = events(r)
            until(told, "hello")
            process.send_signal(signal.SIGTERM)
            until(told, "bye")
        process.stderr.read()
        assert process.wait(20) in (0, -signal.SIGTERM)


def test_a_published_manifest_without_a_version_live_changes_nothing(
    client: httpx.Client, home: Path
) -> None:
    publish(home, 43)
    assert ask(client).json()["version"] == 42
