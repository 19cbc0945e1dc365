"""A Hugging Face Hub on loopback that answers the real `huggingface_hub` client. For tests only.

It serves folders as model repositories: what the Hub says of a model, its file tree, and the files
with commit, ETag and length, whole or in ranges. As on the Hub, files over 1 MB are stored by their
sha256 and come by redirect from another host (`localhost` instead of `127.0.0.1`). It can fail:
refuse a model, or cut a file off in the middle.

Interface: the HTTP calls of huggingface_hub 2 (`model_info`, `list_repo_tree`, `resolve`). Not
covered: other repository types, Xet, uploads, pagination.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

LARGE = 1_000_000


class Request(NamedTuple):
    """One request: `path` without query, `range` and `token` as the headers were sent, or ""."""

    method: str
    path: str
    range: str
    token: str


class Refusal(NamedTuple):
    """An error answer, with the headers that tell the client which it is."""

    status: int
    code: str = ""
    message: str = ""


UNKNOWN_MODEL = Refusal(404, "RepoNotFound", "Repository not found")
UNKNOWN_WITHOUT_TOKEN = Refusal(401, "", "Invalid username or password.")
UNKNOWN_REVISION = Refusal(404, "RevisionNotFound", "Invalid rev id")
UNKNOWN_FILE = Refusal(404, "EntryNotFound", "Entry not found")
GATED_WITHOUT_TOKEN = Refusal(401, "GatedRepo", "Access to this model is restricted.")
GATED = Refusal(403, "GatedRepo", "You are not in the authorized list.")


@dataclass
class Repository:
    """A folder under a name. `refuses` answers every file; `cuts` are taken one for each GET of a
    file: so many bytes and then the connection ends, or 0 for HTTP 503; `sizes` are lies."""

    folder: Path
    commit: str
    refuses: Refusal | None = None
    cuts: dict[str, list[int]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def content(self, file: str) -> bytes | None:
        path = self.folder / file
        return path.read_bytes() if path.is_file() else None

    def files(self) -> list[str]:
        found = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        return [path.relative_to(self.folder).as_posix() for path in found]


class HubServer:
    """`with HubServer() as hub:` opens it on a free port; `hub.endpoint` is its HF_ENDPOINT."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.repositories: dict[str, Repository] = {}
        self.unknown = UNKNOWN_MODEL
        self.login_page = False
        """Whether to answer everything as the Wi-Fi of a hotel does: 200 and a page of HTML."""
        self.hold = threading.Event()
        """While it is cleared, requests are accepted and not answered."""
        self.hold.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def add(self, name: str, folder: Path) -> Repository:
        commit = hashlib.sha1(f"{name} {folder}".encode(), usedforsecurity=False).hexdigest()
        self.repositories[name] = Repository(folder, commit)
        return self.repositories[name]

    def downloads(self, sha256: str) -> list[Request]:
        """The GETs of a large file's content."""
        return [r for r in self.requests if r.method == "GET" and r.path == f"/cdn/{sha256}"]

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub._answer(_Exchange(self))

            do_HEAD = do_GET  # noqa: N815 - the name is http.server's

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler

    def _answer(self, exchange: _Exchange) -> None:
        self.requests.append(exchange.request)
        self.hold.wait()
        path = exchange.request.path
        if self.login_page:
            exchange.send(200, b"<html>Welcome! Please log in.</html>", {})
            return
        if path.startswith("/cdn/"):
            self._content(exchange, path.removeprefix("/cdn/"))
            return
        parts = path.removeprefix("/api/models/").strip("/").split("/")
        repository = self.repositories.get("/".join(parts[:2]))
        rest = parts[2:]
        revision = unquote(rest[1]) if len(rest) > 1 else "main"
        if repository is None:
            exchange.refuse(self.unknown)
        elif revision not in ("main", repository.commit):
            exchange.refuse(UNKNOWN_REVISION)
        elif not path.startswith("/api/models/"):
            self._resolve(exchange, repository, unquote("/".join(rest[2:])))
        elif rest[:1] == ["tree"]:
            exchange.json([self._entry(repository, file) for file in repository.files()])
        else:
            exchange.json(self._model_info("/".join(parts[:2]), repository))

    def _model_info(self, name: str, repository: Repository) -> dict[str, Any]:
        siblings = []
        for file in repository.files():
            entry = self._entry(repository, file)
            sibling = {"rfilename": file, "size": entry["size"], "blobId": entry["oid"]}
            if "lfs" in entry:
                lfs = entry["lfs"]
                sibling["lfs"] = {
                    "sha256": lfs["oid"],
                    "size": lfs["size"],
                    "pointerSize": lfs["pointerSize"],
                }
            siblings.append(sibling)
        return {
            "_id": "0",
            "id": name,
            "modelId": name,
            "sha": repository.commit,
            "private": False,
            "gated": "manual" if repository.refuses else False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": siblings,
        }

    def _entry(self, repository: Repository, file: str) -> dict[str, Any]:
        content = repository.content(file) or b""
        size = repository.sizes.get(file, len(content))
        entry = {"type": "file", "path": file, "size": size, "oid": _git_id(content)}
        if len(content) > LARGE:
            entry["lfs"] = {"oid": _sha256(content), "size": size, "pointerSize": 134}
        return entry

    def _resolve(self, exchange: _Exchange, repository: Repository, file: str) -> None:
        content = repository.content(file)
        headers = {"X-Repo-Commit": repository.commit}
        if repository.refuses:
            exchange.refuse(repository.refuses)
        elif content is None:
            exchange.refuse(UNKNOWN_FILE, headers)
        elif len(content) > LARGE:
            exchange.send(
                302,
                b"",
                headers
                | {
                    "Location": f"http://localhost:{self._port}/cdn/{_sha256(content)}",
                    "X-Linked-Etag": f'"{_sha256(content)}"',
                    "X-Linked-Size": str(len(content)),
                },
            )
        else:
            exchange.send(200, content, headers | {"ETag": f'"{_git_id(content)}"'})

    def _content(self, exchange: _Exchange, sha256: str) -> None:
        for repository in self.repositories.values():
            for file in repository.files():
                content = repository.content(file) or b""
                if _sha256(content) == sha256:
                    cuts = repository.cuts.get(file, [])
                    cut = cuts.pop(0) if cuts and exchange.request.method == "GET" else None
                    exchange.content(content, {"ETag": f'"{sha256}"'}, cut)
                    return
        exchange.refuse(UNKNOWN_FILE)


class _Exchange:
    """One request and the ways to answer it."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self._handler = handler
        self.request = Request(
            handler.command,
            urlsplit(handler.path).path,
            handler.headers.get("Range", ""),
            handler.headers.get("Authorization", ""),
        )

    def json(self, answer: Any) -> None:
        self.send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def refuse(self, refusal: Refusal, headers: dict[str, str] | None = None) -> None:
        said = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
        body = json.dumps({"error": refusal.message}).encode()
        self.send(refusal.status, body, (headers or {}) | {k: v for k, v in said.items() if v})

    def content(self, content: bytes, headers: dict[str, str], cut: int | None) -> None:
        """Answer with `content` or the range of it that was asked for, up to `cut` bytes."""
        if cut == 0:
            self.refuse(Refusal(503))
            return
        asked = self.request.range
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if asked:
            headers = headers | {
                "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"
            }
        self.send(206 if asked else 200, content[start:], headers, cut)

    def send(
        self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None
    ) -> None:
        handler = self._handler
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if self.request.method != "HEAD":
            handler.wfile.write(body[:cut])
        if cut is not None:
            handler.close_connection = True


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_id(content: bytes) -> str:
    header = f"blob {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()
