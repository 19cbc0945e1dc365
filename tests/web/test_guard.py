from __future__ import annotations

import json

import httpx
import pytest

from tests.web.fakes import LiveServer, QueueGenerator

SECRET = "do-not-repeat-me"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"{", "body: Input should be valid JSON"),
        (b"", "body: Input should be valid JSON"),
        (b"[]", "body: Input should be a JSON object"),
        (b'"text"', "body: Input should be a JSON object"),
        (b"{}", "message: Field required"),
        (b'{"message": ""}', "message: String should have at least 1 character"),
        (b'{"message": " \\n"}', "message: Input should not be empty"),
        (b'{"message": 3}', "message: Input should be a valid string"),
        (b'{"message": null}', "message: Input should be a valid string"),
    ],
)
def test_a_body_that_makes_no_sense(client: httpx.Client, body: bytes, detail: str) -> None:
    response = client.post("/chat", content=body)
    assert (response.status_code, response.json()) == (422, {"detail": detail})


@pytest.mark.parametrize(
    ("field", "value", "detail"),
    [
        ("top_k", "-1", "Input should be greater than or equal to 0"),
        ("top_k", "201", "Input should be less than or equal to 200"),
        ("top_k", "5.5", "Input should be a valid integer"),
        ("top_k", "true", "Input should be a valid integer"),
        ("top_p", "0", "Input should be greater than 0"),
        ("top_p", "1.1", "Input should be less than or equal to 1"),
        ("temperature", '"1"', "Input should be a valid number"),
        ("temperature", "false", "Input should be a valid number"),
        ("temperature", "NaN", "Input should be a finite number"),
        ("temperature", "Infinity", "Input should be a finite number"),
        ("temperature", "1e999", "Input should be a finite number"),
        ("temperature", "2.1", "Input should be less than or equal to 2"),
        ("max_length", "0", "Input should be greater than or equal to 1"),
        ("stream", "1", "Input should be a valid boolean"),
        ("stream", '"yes"', "Input should be a valid boolean"),
        ("seed", "-1", "Input should be greater than or equal to 0"),
    ],
)
def test_a_field_that_is_off_is_named(
    client: httpx.Client, generator: QueueGenerator, field: str, value: str, detail: str
) -> None:
    response = client.post("/chat", content=f'{{"message": "x", "{field}": {value}}}')
    assert (response.status_code, response.json()) == (422, {"detail": f"{field}: {detail}"})
    assert generator.asked == []


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b'{"message": "\xff"}', 400, "body: not valid UTF-8"),
        (b"[" * 60_000, 400, "body: nested too deeply"),
        (b'{"a":' * 12_000, 400, "body: nested too deeply"),
        (b'{"seed": ' + b"9" * 5000 + b"}", 422, "body: Input should be valid JSON"),
    ],
)
def test_what_json_itself_cannot_bear(
    client: httpx.Client, generator: QueueGenerator, body: bytes, status: int, detail: str
) -> None:
    response = client.post("/chat", content=body)
    assert (response.status_code, response.json()) == (status, {"detail": detail})
    assert generator.asked == []


@pytest.mark.parametrize(
    "body",
    [
        {"message": "x", SECRET: 1},
        {"message": "x", "temperature": SECRET},
        {"message": "x", "conversation_id": SECRET * 20},
        {"message": [SECRET]},
        {"message": "x", "seed": {SECRET: SECRET}},
        {"message": SECRET, "max_length": 10**6},
        {"message": "x", "conversation_id": SECRET},
        {"message": "x", "model": SECRET},
    ],
)
def test_the_input_is_never_echoed(client: httpx.Client, body: dict[str, object]) -> None:
    response = client.post("/chat", json=body)
    assert 400 <= response.status_code < 500
    assert SECRET not in response.text
    assert len(response.text) < 300


@pytest.mark.parametrize("text", ["\\ud800", "a\\udfffb"])
def test_lone_surrogates(client: httpx.Client, text: str) -> None:
    for body in (f'{{"message": "{text}"}}', f'{{"message": "x", "{text}": 1}}'):
        response = client.post("/chat", content=body.encode())
        assert response.status_code == 422
        assert "\n" not in response.json()["detail"]


def test_a_body_of_64_kib_passes_and_one_byte_more_does_not(client: httpx.Client) -> None:
    frame = len(json.dumps({"message": ""}))
    fits = client.post("/chat", content=json.dumps({"message": "x" * (65536 - frame)}))
    assert fits.status_code == 200
    over = client.post("/chat", content=json.dumps({"message": "x" * (65537 - frame)}))
    assert (over.status_code, over.json()) == (413, {"detail": "body: larger than 65536 bytes"})


def test_a_large_body_is_refused_however_it_comes(client: httpx.Client) -> None:
    assert client.post("/chat", content=b"x" * 10_000_000).status_code == 413
    pieces = (b"x" * 10_000 for _ in range(20))
    assert client.post("/chat", content=pieces).status_code == 413


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_posts_from_elsewhere_are_refused(
    client: httpx.Client, generator: QueueGenerator, headers: dict[str, str]
) -> None:
    for path in ("/chat", "/c/x/delete"):
        response = client.post(path, json={"message": "x"}, headers=headers)
        assert (response.status_code, response.json()["detail"]) == (
            403,
            "refused: sent by another site",
        )
    assert generator.asked == []


def test_posts_from_the_page_itself_pass(server: LiveServer, client: httpx.Client) -> None:
    headers = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    assert client.post("/chat", json={"message": "x"}, headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "a b"])
def test_other_host_names_are_refused(client: httpx.Client, host: str) -> None:
    refused = client.get("/health", headers={"Host": host})
    assert refused.status_code == 400
    assert "server.allowed_hosts" in refused.json()["detail"]
    for_openai = client.get("/v1/models", headers={"Host": host})
    assert for_openai.status_code == 400
    assert "server.allowed_hosts" in for_openai.json()["error"]["message"]


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"])
def test_our_own_host_names_pass(client: httpx.Client, host: str) -> None:
    assert client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/health", "/nowhere", "/static/app.css", "/c/nope"])
def test_every_answer_carries_the_security_headers(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    assert "'unsafe" not in headers["Content-Security-Policy"]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Set-Cookie" not in headers
    assert "Access-Control-Allow-Origin" not in headers


def test_no_page_that_would_load_scripts_from_elsewhere(client: httpx.Client) -> None:
    assert client.get("/docs").status_code == 404
    assert client.get("/redoc").status_code == 404
    schema = client.get("/openapi.json").json()
    body = schema["paths"]["/chat"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "message" in body["required"]
    assert body["additionalProperties"] is False
