"""What stands between a browser and the server: pages of other origins, and proxies."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from autodidact.settings import PROJECT
from tests.web.fakes import LiveServer, QueueGenerator

PLUGIN = "app://obsidian.md"
CHAT = "/v1/chat/completions"
BODY = {"model": "autodidact", "messages": [{"role": "user", "content": "Who?"}]}
NAME = "chat.example.org"


@pytest.fixture
def settings() -> dict[str, Any]:
    return {}


@pytest.fixture
def server(home: Path, generator: QueueGenerator, settings: dict[str, Any]) -> Iterator[LiveServer]:
    server = LiveServer(home, generator, **settings).start()
    yield server
    server.stop()


def preflight(client: httpx.Client, path: str, origin: str) -> httpx.Response:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, x-stainless-os",
    }
    return client.options(path, headers={"Origin": origin, **asked})


# Other origins ----------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"allowed_origins": [PLUGIN, "https://notes.example"]}])
@pytest.mark.parametrize("origin", [PLUGIN, "APP://obsidian.md", "https://notes.example"])
@pytest.mark.parametrize(("path", "body"), [(CHAT, BODY), ("/chat", {"message": "Who?"})])
def test_an_origin_that_is_named_may_ask(
    client: httpx.Client, origin: str, path: str, body: dict[str, Any]
) -> None:
    before = preflight(client, path, origin.lower())
    assert before.status_code == 200
    assert before.headers["Access-Control-Allow-Origin"] == origin.lower()
    allowed = before.headers["Access-Control-Allow-Headers"]
    assert {"authorization", "content-type", "x-stainless-os"} <= set(allowed.split(", "))
    headers = {"Origin": origin.lower(), "Sec-Fetch-Site": "cross-site"}
    said = client.post(path, json=body, headers=headers)
    assert said.status_code == 200
    assert said.headers["Access-Control-Allow-Origin"] == origin.lower()


@pytest.mark.parametrize("settings", [{"allowed_origins": [PLUGIN]}, {}])
@pytest.mark.parametrize("origin", ["app://obsidian.md.evil", "https://obsidian.md", "null"])
def test_no_other_may(client: httpx.Client, origin: str) -> None:
    assert preflight(client, CHAT, origin).status_code in (400, 405)
    said = client.post(CHAT, json=BODY, headers={"Origin": origin})
    assert said.status_code == 403
    assert "server.allowed_origins" in said.json()["error"]["message"]
    assert "Access-Control-Allow-Origin" not in said.headers


@pytest.mark.parametrize("settings", [{"allowed_origins": [PLUGIN]}])
def test_what_administers_stays_closed(client: httpx.Client) -> None:
    said = client.post("/admin/pin", json={"version": 1}, headers={"Origin": PLUGIN})
    assert said.status_code == 403


@pytest.mark.parametrize("settings", [{"allowed_origins": [PLUGIN]}])
def test_a_refusal_can_be_read_there(client: httpx.Client) -> None:
    said = client.post(CHAT, content=b"x" * 70_000, headers={"Origin": PLUGIN})
    assert said.status_code == 413
    assert said.headers["Access-Control-Allow-Origin"] == PLUGIN


# Proxies ----------------------------------------------------------------------------------------

FORWARDED = {"Host": "127.0.0.1:9", "X-Forwarded-Host": NAME, "X-Forwarded-Proto": "https",
             "X-Forwarded-For": "203.0.113.7", "Origin": f"https://{NAME}"}  # fmt: skip
BEHIND = {"trusted_proxies": ["127.0.0.0/8"], "allowed_hosts": [NAME]}


@pytest.mark.parametrize("settings", [BEHIND])
def test_the_page_s_own_request_comes_through_a_trusted_proxy(client: httpx.Client) -> None:
    assert client.post("/chat", json={"message": "x"}, headers=FORWARDED).status_code == 200
    twice = {**FORWARDED, "X-Forwarded-Host": f"evil.example, {NAME}"}
    assert client.post("/chat", json={"message": "x"}, headers=twice).status_code == 200


@pytest.mark.parametrize("settings", [BEHIND])
@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"X-Forwarded-Host": "evil.example", "Origin": "https://evil.example"}, 400),
        ({"X-Forwarded-Host": ""}, 403),
    ],
)
def test_another_site_does_not(client: httpx.Client, more: dict[str, str], status: int) -> None:
    said = client.post("/chat", json={"message": "x"}, headers={**FORWARDED, **more})
    assert said.status_code == status


@pytest.mark.parametrize("settings", [{"trusted_proxies": ["10.0.0.1"]}, {}])
def test_whoever_is_no_trusted_proxy_is_not_believed(client: httpx.Client) -> None:
    headers = {**FORWARDED, "Host": "127.0.0.1:8000"}
    assert client.post("/chat", json={"message": "x"}, headers=headers).status_code == 403


@pytest.mark.parametrize("settings", [{**BEHIND, "requests_per_minute": 1}])
def test_requests_are_counted_by_who_asked(client: httpx.Client) -> None:
    statuses = [
        client.post(
            "/chat", json={"message": "x"}, headers={**FORWARDED, "X-Forwarded-For": address}
        ).status_code
        for address in ("203.0.113.7", "203.0.113.8", "203.0.113.7")
    ]
    assert statuses == [200, 200, 429]


# The examples of docs/http.md, with the programs themselves -------------------------------------


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def example(language: str, server: LiveServer, port: int) -> str:
    """The block of the documentation, for this server and on this port."""
    text = (PROJECT / "docs" / "http.md").read_text("utf-8")
    [block] = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return block.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}").replace(
        f"{NAME} {{", f"http://{NAME}:{port} {{"
    )


def proxied(folder: Path, kind: str, server: LiveServer, port: int) -> list[str]:
    """A command that runs the proxy in the foreground."""
    block = example(kind, server, port)
    if kind == "caddy":
        (folder / "Caddyfile").write_text(f"{{\n  admin off\n}}\n{block}", "utf-8")
        return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    paths = " ".join(
        f"{name}_temp_path {folder / name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder / 'pid'}; error_log stderr;\nevents {{}}\n"
        f"http {{ access_log off; {paths}\nserver {{ listen 127.0.0.1:{port};\n{block}}}\n}}\n",
        "utf-8",
    )
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]


@pytest.mark.parametrize("settings", [{"trusted_proxies": ["127.0.0.1"], "allowed_hosts": [NAME]}])
@pytest.mark.parametrize("kind", ["nginx", "caddy"])
def test_the_page_works_behind(tmp_path: Path, server: LiveServer, kind: str) -> None:
    if shutil.which(kind) is None:
        pytest.skip(f"{kind} is not installed")
    port = free_port()
    asked = {"Host": f"{NAME}:{port}", "Origin": f"http://{NAME}:{port}"}
    environment = {"HOME": str(tmp_path), "PATH": "/usr/sbin:/usr/bin:/bin"}
    with subprocess.Popen(proxied(tmp_path, kind, server, port), env=environment) as proxy:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
                for _ in range(100):
                    try:
                        client.get("/health", headers=asked)
                        break
                    except httpx.TransportError:
                        time.sleep(0.1)
                page = client.get("/", headers={"Host": asked["Host"]})
                assert page.status_code == 200
                same = {**asked, "Sec-Fetch-Site": "same-origin"}
                said = client.post("/chat", json={"message": "Who?"}, headers=same)
                assert (said.status_code, said.json()["reply"]) == (200, "Who?")
                foreign = {**same, "Origin": "https://evil.example"}
                assert (
                    client.post("/chat", json={"message": "x"}, headers=foreign).status_code == 403
                )
        finally:
            proxy.terminate()
