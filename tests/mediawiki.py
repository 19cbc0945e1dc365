"""A MediaWiki on loopback that answers the real `wikipedia-api` client. For tests only.

Its pages come from two places: those that a test adds, in the form of the TextExtracts extension
(`== Heading ==`), and exchanges recorded from Wikipedia, which win. Requests are matched by what
they ask, not by their wording: the order of parameters and underscores in titles do not matter,
several `prop` are answered together, and a list is cut by `cmtype`, `cmlimit` and `cmcontinue`.
It can fail: answer with a status, with a given body, slowly, never, or be gone.

Interface: https://www.mediawiki.org/wiki/API:Query, format version 1. Not covered: `action` other
than query, `formatversion=2`, generators.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from autodidact.sources.wikipedia import WikipediaSettings

PROSE = (
    "The lighthouse was built of grey stone in the summer of 1794 by masons from the south. "
    "Its lamp burnt whale oil at first, and was seen by ships at a distance of eleven miles.\n"
    "A keeper and two helpers lived in the tower, and rowed ashore for bread once a week."
)

Params = dict[str, str]
_OF_ONE_PROP = {"inprop": "info", "ppprop": "pageprops"}
_CUTS_LIST = ("cmtype", "cmlimit", "cmcontinue")


class MediaWiki:
    """A wiki of `site`; `with MediaWiki() as wiki:` opens it on a free port of 127.0.0.1."""

    def __init__(self, site: str = "https://en.wikipedia.org") -> None:
        self.site = site
        self.requests: list[Params] = []
        self.user_agents: list[str] = []
        self.random: list[str] = []
        self.error: dict[str, str] | None = None
        self._pages: dict[str, dict[str, Any]] = {}
        self._redirects: dict[str, str] = {}
        self._categories: dict[str, list[str]] = {}
        self._recorded: dict[frozenset[tuple[str, str]], str] = {}
        self._fault: int | str = 0
        self._released = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    # What it knows ---------------------------------------------------------------------------

    def add(
        self, title: str, extract: str | None, *, ns: int = 0, disambiguation: bool = False
    ) -> None:
        """Without an extract the wiki is one that lacks the extension for it."""
        self._pages[title] = {
            "pageid": 1000 + len(self._pages),
            "ns": ns,
            "title": title,
            "extract": extract,
            "props": {"pageprops": {"disambiguation": ""}} if disambiguation else {},
        }

    def redirect(self, title: str, target: str) -> None:
        self._redirects[title] = target

    def categorise(self, category: str, titles: list[str]) -> None:
        self._categories[f"Category:{category}"] = titles

    def record(self, folder: Path) -> int:
        """Learn every recorded exchange below `folder`/cassettes; returns how many."""
        count = 0
        for path in sorted((folder / "cassettes").glob("*.json")):
            for exchange in json.loads(path.read_text())["interactions"]:
                assert exchange["response"]["status"]["code"] == 200, path
                key = _key(_params(exchange["request"]["uri"]))
                self._recorded.setdefault(key, exchange["response"]["body"]["string"])
                count += 1
        return count

    def asked(self, name: str) -> list[str]:
        """The values of one parameter in the requests so far, without those that lack it."""
        return [params[name] for params in self.requests if name in params]

    # How it is reached -----------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}/w/api.php"

    def __enter__(self) -> MediaWiki:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Listen, again on the same port after `close`."""
        self._fault = 0
        self._released.clear()
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler())
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """Be gone: connections are refused."""
        self._released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def fail(self, fault: int | str) -> None:
        """From now on: an HTTP status, "silence", "drip", or any other text as the body."""
        self._fault = fault

    def recover(self) -> None:
        self._fault = 0
        self._released.set()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        wiki = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one packet, or each answer waits for an ACK

            def do_GET(self) -> None:
                params = _params(self.path)
                wiki.requests.append(params)
                wiki.user_agents.append(self.headers["User-Agent"])
                fault = wiki._fault
                if fault == "silence":
                    wiki._released.wait(30)
                    self.close_connection = True
                elif fault == "drip":
                    self._head(200, 1_000_000)
                    self._drip()
                elif isinstance(fault, int) and fault:
                    self._send(fault, "{}")
                else:
                    self._send(200, str(fault) if fault else json.dumps(wiki.answer(params)))

            def _head(self, status: int, length: int) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json; charset=utf-8")
                self.send_header("Content-Length", str(length))
                self.end_headers()

            def _send(self, status: int, body: str) -> None:
                data = body.encode()
                self._head(status, len(data))
                self.wfile.write(data)

            def _drip(self) -> None:
                try:
                    while not wiki._released.wait(0.01):
                        self.wfile.write(b" ")
                        self.wfile.flush()
                except OSError:  # the client has left, as it should
                    pass
                self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler

    # What it answers -------------------------------------------------------------------------

    def answer(self, params: Params) -> dict[str, Any]:
        if self.error is not None:
            return {"error": self.error, "servedby": "loopback"}
        if params.get("list") == "categorymembers":
            return self._members(params)
        if params.get("list") == "random" and _key(params) not in self._recorded:
            return self._random(int(params["rnlimit"]))
        props = params.get("prop", "").split("|")
        merged: dict[str, Any] = {}
        for prop in props:
            kept = {k: v for k, v in params.items() if _OF_ONE_PROP.get(k, prop) == prop}
            part = self._one({**kept, "prop": prop} if prop else kept)
            pages = merged.get("query", {}).get("pages", {})
            for page_id, page in part.get("query", {}).get("pages", {}).items():
                page.update({**pages.get(page_id, {}), **page})
            merged.update(part)
        return merged

    def _one(self, params: Params) -> dict[str, Any]:
        body = self._recorded.get(_key(params))
        if body is not None:
            return dict(json.loads(body))
        if not params.get("titles"):
            return {"batchcomplete": ""}
        asked = params["titles"]
        title = asked.replace("_", " ")
        query: dict[str, Any] = {}
        if title != asked:
            query["normalized"] = [{"from": asked, "to": title}]
        if title in self._redirects:
            target = self._redirects[title]
            query["redirects"] = [{"from": title, "to": target}]
            title = target
        page = self._page(title, params["prop"])
        query["pages"] = {str(page.get("pageid", -1)): page}
        return {"batchcomplete": "", "query": query}

    def _page(self, title: str, prop: str) -> dict[str, Any]:
        known = self._pages.get(title)
        if known is None:
            known = self._from_recorded(title)
        if known is None:
            return {"ns": 0, "title": title, "missing": ""}
        page = {name: known[name] for name in ("pageid", "ns", "title")}
        if prop == "extracts" and known.get("extract") is not None:
            page["extract"] = known["extract"]
        if prop == "info":
            address = f"{self.site}/wiki/{quote(title.replace(' ', '_'))}"
            page |= {"lastrevid": 77, "canonicalurl": address, "fullurl": address}
        if prop in known.get("props", {}):
            page[prop] = known["props"][prop]
        return page

    def _from_recorded(self, title: str) -> dict[str, Any] | None:
        """A page of which only other properties were recorded."""
        for key, body in self._recorded.items():
            if ("titles", title) in key and ("prop", "info") in key:
                page = dict(next(iter(json.loads(body)["query"]["pages"].values())))
                return None if "missing" in page else page
        return None

    def _members(self, params: Params) -> dict[str, Any]:
        whole = {k: v for k, v in params.items() if k not in _CUTS_LIST} | {"cmlimit": "500"}
        body = self._recorded.get(_key(whole))
        if body is not None:
            members = json.loads(body)["query"]["categorymembers"]
        else:
            titles = self._categories.get(params["cmtitle"], [])
            members = [
                {"pageid": 9_000 + n, "ns": self._pages.get(title, {}).get("ns", 0), "title": title}
                for n, title in enumerate(titles)
            ]
        if params.get("cmtype") == "page":
            members = [member for member in members if member["ns"] not in (6, 14)]
        mark = params.get("cmcontinue", "page||0")
        if not mark.startswith("page||"):
            return {"error": {"code": "badcontinue", "info": "Invalid continue param."}}
        start = int(mark.removeprefix("page||"))
        end = start + int(params["cmlimit"])
        cut = {"categorymembers": members[start:end]}
        answer: dict[str, Any] = {"batchcomplete": "", "query": cut}
        if end < len(members):
            answer["continue"] = {"cmcontinue": f"page||{end}", "continue": "-||"}
        return answer

    def _random(self, limit: int) -> dict[str, Any]:
        drawn = [self._page(title, "") for title in self.random[:limit]]
        entries = [{"id": page["pageid"], "ns": 0, "title": page["title"]} for page in drawn]
        more = {"rncontinue": "0.5", "continue": "-||"}  # chance never ends
        return {"batchcomplete": "", "continue": more, "query": {"random": entries}}


def reading(wiki: MediaWiki, **changes: Any) -> WikipediaSettings:
    """Settings of a source that reads this wiki, nothing at random."""
    return WikipediaSettings(
        **{"endpoint": wiki.endpoint, "random": 0, "timeout_s": 5.0, **changes}
    )


def _params(url: str) -> Params:
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


def _key(params: Params) -> frozenset[tuple[str, str]]:
    return frozenset(
        (name, value.replace("_", " ") if name in ("titles", "cmtitle") else value)
        for name, value in params.items()
    )


def shuffled(url: str) -> Iterator[str]:
    """The same request in other orders of its parameters."""
    pairs = urlsplit(url).query.split("&")
    for order in (pairs[::-1], sorted(pairs), pairs[3:] + pairs[:3]):
        yield "&".join(order)
