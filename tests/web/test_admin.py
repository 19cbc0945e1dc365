"""The operator's routes: who may, what they tell, and that they do what the commands do."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from autodidact import checkpoints, inbox
from autodidact.checkpoints import pins
from autodidact.checkpoints.listing import listing
from autodidact.commands import app as commands
from autodidact.home import prepare_home
from autodidact.settings import ServerSettings
from autodidact.web.app import build_app
from tests.versions import publish
from tests.web.fakes import LiveServer, QueueGenerator

KEY = "correct horse battery staple"
ROUTES = (
    ("GET", "/admin/versions", None),
    ("POST", "/admin/pin", {"version": 1}),
    ("POST", "/admin/unpin", {}),
    ("POST", "/admin/rollback", {"version": None}),
)
every_route = pytest.mark.parametrize(("method", "path", "body"), ROUTES)
LOCAL = "admin: only from this machine, or with server.admin_key"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    prepare_home(folder)
    for version in (1, 2, 3):
        publish(folder, version, version - 1 or None)
    return folder


@pytest.fixture
def generator() -> QueueGenerator:
    return QueueGenerator(live=3)


def from_host(
    home: Path, generator: QueueGenerator, host: str, key: str = "", **headers: str
) -> TestClient:
    """The app as a client at this address meets it."""
    app = build_app(ServerSettings(admin_key=key), home, generator)  # type: ignore[arg-type]
    return TestClient(app, base_url="http://127.0.0.1", client=(host, 4711), headers=headers)


@pytest.fixture
def here(home: Path, generator: QueueGenerator) -> TestClient:
    return from_host(home, generator, "127.0.0.1")


def state(home: Path) -> dict[str, bytes]:
    """The files at the top of the home that decide what serves and what is learned."""
    found = {name: home / name for name in ("CURRENT", "PIN", "REJECTED")}
    found |= {path.name: path for path in (home / "inbox").iterdir()}
    return {name: path.read_bytes() for name, path in found.items() if path.exists()}


# Who may ----------------------------------------------------------------------------------------


@every_route
@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_without_a_key_this_machine_may(
    home: Path, generator: QueueGenerator, host: str, method: str, path: str, body: Any
) -> None:
    assert from_host(home, generator, host).request(method, path, json=body).status_code == 200


@every_route
@pytest.mark.parametrize(
    "host", ["10.0.0.9", "192.168.1.2", "203.0.113.5", "fe80::1%eth0", "::ffff:10.0.0.9", "x", ""]
)
def test_without_a_key_nobody_else_may(
    home: Path, generator: QueueGenerator, host: str, method: str, path: str, body: Any
) -> None:
    before = state(home)
    client = from_host(home, generator, host, Authorization="Bearer ", X_Forwarded_For="127.0.0.1")
    answer = client.request(method, path, json=body)
    assert (answer.status_code, answer.json()["detail"]) == (403, LOCAL)
    assert state(home) == before


@every_route
@pytest.mark.parametrize("host", ["127.0.0.1", "203.0.113.5"])
def test_with_a_key_whoever_sends_it_may(
    home: Path, generator: QueueGenerator, host: str, method: str, path: str, body: Any
) -> None:
    client = from_host(home, generator, host, KEY, Authorization=f"bearer {KEY}")
    assert client.request(method, path, json=body).status_code == 200


@every_route
@pytest.mark.parametrize(
    "given",
    [None, "", "Bearer", "Bearer ", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Basic {KEY}", KEY,
     "Bearer caf\u00e9"],
)  # fmt: skip
def test_with_a_key_nobody_may_without_it(
    home: Path,
    generator: QueueGenerator,
    given: str | None,
    method: str,
    path: str,
    body: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    before = state(home)
    client = from_host(home, generator, "127.0.0.1", KEY)
    raw = [] if given is None else [(b"authorization", given.encode("latin-1"))]
    answer = client.request(method, path, json=body, headers=raw)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="admin"'
    assert answer.json()["detail"].startswith("admin: ")
    assert KEY not in answer.text
    assert KEY not in caplog.text
    assert state(home) == before


def test_a_key_may_be_any_text(home: Path, generator: QueueGenerator) -> None:
    client = from_host(home, generator, "203.0.113.5", "schl\u00fcssel \u9375")
    sent = [(b"authorization", "Bearer schl\u00fcssel \u9375".encode())]
    assert client.get("/admin/versions", headers=sent).status_code == 200


def test_who_may_not_is_told_so_before_the_body_is_looked_at(
    home: Path, generator: QueueGenerator
) -> None:
    client = from_host(home, generator, "203.0.113.5")
    assert client.post("/admin/pin", content=b"{").status_code == 403


def test_another_site_cannot_steer_through_the_browser_of_this_machine(here: TestClient) -> None:
    answer = here.post("/admin/pin", json={"version": 1}, headers={"Origin": "https://example.org"})
    assert answer.status_code == 403


def test_it_is_said_who_asked_and_not_with_which_key(
    home: Path, generator: QueueGenerator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = from_host(home, generator, "203.0.113.5", KEY, Authorization=f"Bearer {KEY}")
    client.post("/admin/pin", json={"version": 1})
    assert "pinned 000001, asked by 203.0.113.5" in caplog.text
    assert KEY not in caplog.text


# What they tell and change ----------------------------------------------------------------------


def test_the_versions_are_told_as_the_command_line_tells_them(
    here: TestClient, home: Path, generator: QueueGenerator
) -> None:
    generator.set(live=2)
    answer = here.get("/admin/versions")
    assert answer.json() == json.loads(json.dumps(listing(home, live=2)))
    assert answer.json()[1]["marks"] == ["serving"]
    assert answer.headers["Cache-Control"] == "no-store"
    generator.set(state="loading", live=0)
    assert here.get("/admin/versions").json()[0]["marks"] == ["serving", "newest"]


def test_pinning_and_unpinning_change_the_pin_alone(here: TestClient, home: Path) -> None:
    before = state(home)
    answer = here.post("/admin/pin", json={"version": 1})
    assert answer.json() == {"serving": 1, "pinned": 1, "newest": 3, "live": 3}
    assert state(home) == {**before, "PIN": b"000001\n"}
    assert here.post("/admin/pin", json={"version": 0}).json()["serving"] == 0
    assert here.post("/admin/unpin", json={}).json() == {
        "serving": 3, "pinned": None, "newest": 3, "live": 3,
    }  # fmt: skip
    assert here.post("/admin/unpin", json={}).status_code == 200
    assert state(home) == before


def test_rolling_back_goes_to_the_parent_of_what_is_to_serve(here: TestClient, home: Path) -> None:
    for expected in (2, 1, 0):
        answer = here.post("/admin/rollback", json={"version": None})
        assert answer.json()["serving"] == expected
    assert here.post("/admin/rollback", json={}).status_code == 409
    assert here.post("/admin/rollback", json={"version": 2}).json()["pinned"] == 2
    publish(home, 4, 2)
    assert (checkpoints.serving(home), checkpoints.current(home)) == (2, 4), "and stays there"


@pytest.mark.parametrize("to", [None, 1, 0])
def test_a_rollback_does_what_the_command_does(
    here: TestClient, home: Path, to: int | None
) -> None:
    other = home.with_name("other")
    shutil.copytree(home, other)
    target = ["--to", str(to)] if to is not None else []
    done = CliRunner().invoke(commands.app, ["rollback", "--home", str(other), *target])
    assert done.exit_code == 0, done.output
    answer = here.post("/admin/rollback", json={"version": to})
    expected = 2 if to is None else to
    assert answer.json() == {"serving": expected, "pinned": expected, "newest": expected, "live": 3}
    assert decided(home) == decided(other)
    assert [wish for _, wish in inbox.waiting(home)] == [inbox.Rollback(expected)]


def decided(home: Path) -> list[tuple[str, bytes]]:
    """`state`, with wishes by their kind: their names have the time."""
    return sorted((name.partition("-")[0], told) for name, told in state(home).items())


def test_a_rollback_that_leads_nowhere_changes_nothing(here: TestClient, home: Path) -> None:
    before = state(home)
    answer = here.post("/admin/rollback", json={"version": 3})
    assert answer.status_code == 409
    assert "000003 is what serves now" in answer.json()["detail"]
    assert state(home) == before


def test_a_wish_that_cannot_be_left_is_told(
    here: TestClient, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inbox, "write_atomic", full)
    answer = here.post("/admin/rollback", json={"version": 1})
    assert answer.status_code == 507
    assert "the learner was not told" in answer.json()["detail"]
    monkeypatch.undo()
    assert here.post("/admin/rollback", json={"version": 1}).status_code == 200, "again does it"
    assert [wish for _, wish in inbox.waiting(home)] == [inbox.Rollback(1)]


@pytest.mark.parametrize("path", ["/admin/pin", "/admin/rollback"])
def test_what_cannot_serve_is_refused_with_the_reason(
    here: TestClient, home: Path, path: str
) -> None:
    checkpoints.reject(home, 2, "sha256 mismatch adapter_model.safetensors")
    (checkpoints.folder(home, 1) / checkpoints.REPORT).write_text("changed")
    before = state(home)
    for version, status, said in (
        (9, 404, "000009: no such version; there are 000001, 000002, 000003 and 0 (the base)"),
        (2, 409, "000002 was rejected: sha256 mismatch adapter_model.safetensors"),
        (1, 409, "000001 rejected: sha256 mismatch report.json"),
    ):
        answer = here.post(path, json={"version": version})
        assert (answer.status_code, answer.json()["detail"]) == (status, said)
    assert here.post("/admin/rollback", json={}).status_code == 409, "its parent was rejected"
    assert state(home) == before


def test_a_damaged_pin_is_told_and_can_be_removed(here: TestClient, home: Path) -> None:
    (home / "PIN").write_bytes(b"\xff")
    answer = here.get("/admin/versions")
    assert answer.status_code == 409
    assert "PIN: not a version number" in answer.json()["detail"]
    assert here.post("/admin/unpin", json={}).status_code == 200
    assert here.get("/admin/versions").status_code == 200


def test_a_full_disk_is_told(here: TestClient, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pins, "write_atomic", full)
    answer = here.post("/admin/pin", json={"version": 0})
    assert answer.status_code == 507
    assert "the disk is full; 000000 not pinned" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/admin/pin", "/admin/rollback", "/admin/unpin"])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422), (b"{", 422), (b"[]", 422), (b"\xff", 400), (b"[" * 60_000, 400),
        (b'{"version": "1"}', 422), (b'{"version": 1.5}', 422), (b'{"version": true}', 422),
        (b'{"version": -1}', 422), (b'{"version": 4294967296}', 422), (b'{"version": NaN}', 422),
        (b'{"versions": 1}', 422), (b'{"version": 1, "key": "x"}', 422), (b" " * 70_000, 413),
    ],
)  # fmt: skip
def test_bad_bodies_are_one_line_and_change_nothing(
    here: TestClient, home: Path, path: str, body: bytes, status: int
) -> None:
    before = state(home)
    answer = here.post(path, content=body)
    assert answer.status_code == status
    assert "\n" not in answer.json()["detail"]
    assert state(home) == before


def test_over_a_real_connection(home: Path, generator: QueueGenerator) -> None:
    server = LiveServer(home, generator).start()
    try:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            assert client.post("/admin/pin", json={"version": 2}).json()["serving"] == 2
            found = client.get("/admin/versions").json()
    finally:
        server.stop()
    assert [row["marks"] for row in found] == [["serving", "newest"], ["pinned"], ["kept"], []]
