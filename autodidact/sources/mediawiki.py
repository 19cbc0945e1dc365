"""The `wikipedia-api` client, made predictable: where it asks, how long, and what goes wrong.

What this adds to the package (0.16), which does the requests and the parsing:

- `endpoint` may be the api.php of any MediaWiki that has the TextExtracts extension;
- one request a call: no retries (waiting is the learner's business) and no following of a list to
  its end, which for a large category would be thousands of requests; `continuation` has the rest;
- an answer has to be complete within `timeout_s`, also if it drips (only its headers may not);
- every failure is a `SourceError` with one line, `SourceUnreachable` where it may pass;
- `info` also says whether a page only lists the meanings of a word.

- `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` are honoured, which a transport of one's
  own does not do by itself.

`article_text` turns a page of the client into plain text. Interface:
https://www.mediawiki.org/wiki/API:Query
"""

# mypy: disable-error-code="import-untyped", disallow-subclassing-any=False
from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
import wikipediaapi

from autodidact.errors import SettingError, SourceError, SourceUnreachable

if TYPE_CHECKING:
    from autodidact.sources.wikipedia import WikipediaSettings

_PASSING = ("ratelimited", "maxlag", "readonly", "internal_api_error")
_APPENDIX_EN = (
    "see also|references|notes|notes and references|references and notes|explanatory notes|"
    "footnotes|citations|sources|works cited|bibliography|further reading|external links"
)
_APPENDIX_DE_FR_ES_IT = (
    "siehe auch|literatur|weblinks|einzelnachweise|anmerkungen|fußnoten|quellen|"
    "voir aussi|notes et références|références|bibliographie|liens externes|annexes|"
    "véase también|referencias|notas|bibliografía|enlaces externos|"
    "note|bibliografia|voci correlate|altri progetti|collegamenti esterni"
)
_APPENDIX = frozenset(f"{_APPENDIX_EN}|{_APPENDIX_DE_FR_ES_IT}".split("|"))
# TextExtracts spreads a formula over indented lines, the last of which holds its TeX.
_FORMULA = re.compile(r"\n(?: {2,}[^\n]*\n)+")
_TEX = re.compile(r"\{\\(?:display|text)style (.*)\}\s*$")


class BadContinue(SourceError):
    """The wiki no longer knows the place in a list where an earlier fetch stopped."""


class Client(wikipediaapi.Wikipedia):
    """One client for one fetch; `close` it. Every method may raise SourceError."""

    def __init__(self, settings: WikipediaSettings) -> None:
        self._endpoint = settings.endpoint
        self._timeout_s = settings.timeout_s
        self.continuation: dict[str, str] = {}
        # It finds a language such as "simple" suspiciously long, and says so at each fetch.
        logging.getLogger("wikipediaapi").setLevel(logging.ERROR)
        super().__init__(
            user_agent=settings.user_agent,
            language=settings.language,
            max_retries=0,
            timeout=settings.timeout_s,
            transport=_transport(
                settings.endpoint or f"https://{settings.language}.wikipedia.org",
                settings.timeout_s,
            ),
        )

    def close(self) -> None:
        self._client.close()

    def _build_url(self, language: str) -> str:
        return self._endpoint or str(super()._build_url(language))

    def _info_params(self, page: Any) -> dict[str, Any]:
        added = {"prop": "info|pageprops", "ppprop": "disambiguation"}
        return {**super()._info_params(page), **added}

    def _get(self, language: str, params: dict[str, Any]) -> dict[str, Any]:
        where = _without_password(self._build_url(language))
        try:
            answer = super()._get(language, params)
        except wikipediaapi.WikipediaException as error:
            raise self._explained(error, where) from error
        if not isinstance(answer, dict):
            raise SourceUnreachable(f"{where} did not answer like a MediaWiki")
        if "error" in answer:
            raise _api_error(answer["error"], where)
        self.continuation = answer.pop("continue", {})
        # The package takes these for granted; an empty or odd title goes without them.
        query = answer["query"] = _mapping(answer.get("query"))
        query["pages"] = _mapping(query.get("pages"))
        if params.get("prop") == "extracts":
            for page in query["pages"].values():
                page.setdefault("extract", "")
        return answer

    def _explained(self, error: Exception, where: str) -> SourceError:
        if isinstance(error, wikipediaapi.WikiHttpTimeoutError):
            return SourceUnreachable(f"{where} gave no answer within {self._timeout_s:g} s")
        if isinstance(error, wikipediaapi.WikiConnectionError):
            reason = re.sub(r"^\[Errno -?\d+\] ", "", str(error.__cause__ or "no connection"))
            return SourceUnreachable(f"{where} cannot be reached: {' '.join(reason.split())}")
        if isinstance(error, wikipediaapi.WikiRateLimitError):
            return SourceUnreachable(f"{where} asks for fewer requests (HTTP 429)")
        if isinstance(error, wikipediaapi.WikiHttpError):
            if error.status_code >= 500:
                return SourceUnreachable(f"{where} is out of order (HTTP {error.status_code})")
            return SourceError(
                f"{where} refuses (HTTP {error.status_code}); check endpoint and user_agent "
                "under sources.wikipedia"
            )
        return SourceUnreachable(f"{where} did not answer with JSON")


def _transport(url: str, timeout_s: float) -> httpx.HTTPTransport:
    """Raises SettingError for a proxy that cannot be used."""
    proxy = proxy_for(url)
    try:
        return _Punctual(timeout_s, proxy)
    except (ValueError, ImportError) as error:
        told = str(error).splitlines()[0]
        raise SettingError(f"the proxy {_without_password(proxy or '')}: {told}") from None


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for this address. None of this machine itself."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        own = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        own = False
    if own or proxy_bypass(host):
        return None
    proxies = getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    return found if not found or "://" in found else f"http://{found}"


class _Punctual(httpx.HTTPTransport):
    """httpx limits each wait for bytes; this limits the whole body."""

    def __init__(self, timeout_s: float, proxy: str | None) -> None:
        super().__init__(proxy=proxy)
        self._timeout_s = timeout_s

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        end = time.monotonic() + self._timeout_s
        response = super().handle_request(request)
        return httpx.Response(
            status_code=response.status_code,
            headers=response.headers,
            stream=_Body(response, end),
            extensions=response.extensions,
        )


class _Body(httpx.SyncByteStream):
    def __init__(self, response: httpx.Response, end: float) -> None:
        self._response = response
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        for part in self._response.iter_raw():
            if time.monotonic() > self._end:
                raise httpx.ReadTimeout("the body took too long")
            yield part

    def close(self) -> None:
        self._response.close()


def article_text(page: Any, max_chars: int) -> str:
    """The article in blocks separated by a blank line, from its beginning up to `max_chars`.

    It ends at a paragraph's border (within one only if the first is too long by itself) and never
    with a heading. References, external links and the like are left out with all below them.
    """
    blocks = [(False, line) for line in _paragraphs(page.summary)]
    blocks += _section_blocks(page.sections)
    kept: list[tuple[bool, str]] = []
    room = max_chars
    for heading, block in blocks:
        if len(block) > room:
            if not kept:
                kept.append((False, block[:room].rpartition(" ")[0] or block[:room]))
            break
        kept.append((heading, block))
        room -= len(block) + 2
    while kept and kept[-1][0]:
        kept.pop()
    return "\n\n".join(block for _, block in kept)


def _section_blocks(sections: Iterable[Any]) -> Iterator[tuple[bool, str]]:
    """(is it a heading, text). A section that says nothing loses its heading."""
    for section in sections:
        if section.title.casefold().strip() in _APPENDIX:
            continue
        inside = [(False, line) for line in _paragraphs(section.text)]
        inside += _section_blocks(section.sections)
        if inside:
            yield True, " ".join(section.title.split())
            yield from inside


def _paragraphs(extract: str) -> list[str]:
    text = _FORMULA.sub(_tex, extract)
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return [line for line in lines if line]


def _tex(formula: re.Match[str]) -> str:
    found = _TEX.search(formula[0])
    return f" {found[1]} " if found else " "


def _api_error(error: Any, where: str) -> SourceError:
    code = str(_mapping(error).get("code", "unknown"))
    info = " ".join(str(_mapping(error).get("info", "")).split())[:200]
    kind: type[SourceError] = SourceError
    if code.startswith(_PASSING):
        kind = SourceUnreachable
    elif code == "badcontinue":
        kind = BadContinue
    return kind(f"{where} answered with an error: {code}: {info}")


def _mapping(value: Any) -> dict[str, Any]:
    """PHP writes an empty mapping as a list."""
    return value if isinstance(value, dict) else {}


def check(settings: WikipediaSettings) -> None:
    """Raise SettingError for what the client could not work with."""
    if settings.endpoint and not _is_address(settings.endpoint):
        raise SettingError(
            f"sources.wikipedia.endpoint: {settings.endpoint!r} is not the http(s) address "
            "of an api.php"
        )
    agent = settings.user_agent
    if len(agent) < 5 or not (agent.isascii() and agent.isprintable()):
        raise SettingError(
            "sources.wikipedia.user_agent: must be at least 5 characters of plain ASCII"
        )


def _is_address(text: str) -> bool:
    try:
        httpx.URL(text)
        url = urlsplit(text)
        port = url.port
    except (ValueError, httpx.InvalidURL):
        return False
    return (
        url.scheme in ("http", "https")
        and bool(url.hostname)
        and port != 0
        and not (url.query or url.fragment)
    )


def _without_password(url: str) -> str:
    return str(httpx.URL(url).copy_with(userinfo=b""))
