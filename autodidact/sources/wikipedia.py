"""Articles of Wikipedia: those named, then a category's, then random ones.

The order is that of the settings. What was delivered once by name or category is not asked for
again (the cursor says what); a later revision of it is not noticed. Only articles: redirects that
a category or chance brings up, lists of a word's meanings, pages outside the article namespace and
very short ones are passed over. One fetch reads at most `FETCH_LIMIT` named and category articles,
one request after the other, and ends with the first that fails. The client and the text are in
`mediawiki`, imported when it is used, because settings are read from here by programs that fetch
nothing; another MediaWiki may be read through `endpoint`, whose licence is then not known.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from pydantic import Field

from autodidact import __version__
from autodidact.settings import Section
from autodidact.types.documents import Document

if TYPE_CHECKING:
    from autodidact.sources.mediawiki import Client

log = logging.getLogger(__name__)

FETCH_LIMIT = 50
MIN_CHARS = 200
_LISTS = 10
_ARTICLE, _CATEGORY = 0, 14


class WikipediaSettings(Section):
    """The Wikipedia source."""

    enabled: bool = True
    """Read Wikipedia at all."""
    language: str = Field("en", pattern=r"^[a-z][a-z0-9-]{1,11}$")
    """Which Wikipedia: the language code in its address."""
    titles: tuple[str, ...] = ()
    """Articles to read by name, first of all."""
    category: str = ""
    """A category whose articles are read, without the prefix "Category:"."""
    random: int = Field(5, ge=0, le=50)
    """Random articles to read at each fetch, after the named ones."""
    max_chars: int = Field(12_000, ge=500)
    """Only this much of an article's beginning is kept."""
    timeout_s: float = Field(15.0, gt=0)
    """How long to wait for one answer."""
    user_agent: str = f"Autodidact/{__version__} (a self-learning chat model; personal use)"
    """Wikipedia asks every client to name itself; add an address where you can be reached."""
    endpoint: str = ""
    """Address of another MediaWiki's api.php; empty means Wikipedia itself."""


@dataclass
class Progress:
    """What was delivered: the cursor, as JSON, is this and the revision of the document.

    `after` is MediaWiki's mark in the category's list, `taken` the number of members dealt with
    behind it. All of it counts for one wiki, and the place in the list for one category.
    """

    wiki: str
    category: str
    titles: list[str] = field(default_factory=list)
    after: str = ""
    taken: int = 0
    complete: bool = False

    @classmethod
    def resume(cls, since: str | None, settings: WikipediaSettings) -> Progress:
        """The progress that a cursor tells; a fresh one if it tells none for these settings."""
        fresh = cls(wiki=settings.endpoint or settings.language, category=settings.category)
        try:
            told = json.loads(since or "{}")
            old = cls(**{item.name: told[item.name] for item in fields(cls)})
            old.titles = [title for title in settings.titles if title in old.titles]
            old.after, old.taken = str(old.after), max(int(old.taken), 0)
        except (ValueError, TypeError, KeyError):
            return fresh
        if old.wiki != fresh.wiki:
            return fresh
        if old.category != fresh.category:
            fresh.titles = old.titles
            return fresh
        return old

    def turn(self, after: str) -> None:
        """Go on to the next part of the category's list; an empty mark means that was the last."""
        self.after, self.taken, self.complete = after, 0, not after

    def cursor(self, revision: int) -> str:
        return json.dumps({**asdict(self), "revision": revision}, ensure_ascii=False)


class Wikipedia:
    """The source. Raises SettingError at once for settings that cannot work."""

    name = "wikipedia"
    settings = WikipediaSettings

    def __init__(self, settings: WikipediaSettings) -> None:
        from autodidact.sources.mediawiki import check

        check(settings)
        self._settings = settings
        self._told: set[str] = set()

    def documents(self, since: str | None) -> Iterator[Document]:
        """Fetch while iterating. Raises SourceUnreachable, or SourceError where waiting is no help.

        A title that does not exist is a warning and is asked for again at the next fetch.
        """
        from autodidact.sources.mediawiki import Client

        progress = Progress.resume(since, self._settings)
        with closing(Client(self._settings)) as client:
            yield from _Fetch(client, self._settings, progress, self._warn).documents()

    def _warn(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            log.warning("%s: %s", self.name, line)


class _Fetch:
    """One pass over what the settings name, moving `progress` on as documents are made."""

    def __init__(
        self,
        client: Client,
        settings: WikipediaSettings,
        progress: Progress,
        warn: Callable[[str], None],
    ) -> None:
        self._client = client
        self._settings = settings
        self._progress = progress
        self._warn = warn
        self._room = FETCH_LIMIT
        self._seen: set[int] = set()

    def documents(self) -> Iterator[Document]:
        yield from self._named()
        if self._progress.category and not self._progress.complete:
            yield from self._members()
        if self._settings.random:
            for page in self._client.random(limit=self._settings.random).values():
                yield from self._article(page)

    def _named(self) -> Iterator[Document]:
        for title in self._settings.titles:
            if title in self._progress.titles:
                continue
            if not self._room:
                return
            self._room -= 1
            if "|" in title:  # to MediaWiki that is two titles
                self._warn(f"{title!r} cannot be the title of an article")
                continue
            yield from self._article(self._client.page(title), named=title)

    def _members(self) -> Iterator[Document]:
        progress = self._progress
        for _ in range(_LISTS):  # a part of the list may hold no article at all
            members = self._list(progress.after)
            rest = self._client.continuation.get("cmcontinue", "")
            if not members and not progress.after:
                self._warn(f"category {progress.category!r} has no articles")
                return
            for number in range(progress.taken, len(members)):
                if not self._room:
                    return
                progress.taken = number + 1
                if progress.taken == len(members):
                    progress.turn(rest)
                if members[number].namespace == _ARTICLE:
                    self._room -= 1
                    yield from self._article(members[number])
            if progress.taken or not members:  # the list has become shorter since
                progress.turn(rest)
            if progress.complete:
                return

    def _list(self, after: str) -> list[Any]:
        from autodidact.sources.mediawiki import BadContinue

        page = self._client.page(f"Category:{self._progress.category}", ns=_CATEGORY)
        mark = {"cmcontinue": after} if after else {}
        try:
            members = self._client.categorymembers(page, cmtype="page", cmlimit=FETCH_LIMIT, **mark)
        except BadContinue:
            self._progress.turn("")
            self._progress.complete = False
            return self._list("") if after else []
        return list(members.values())

    def _article(self, page: Any, named: str | None = None) -> Iterator[Document]:
        """The page's document, or none and (if the page was asked for by name) a warning."""
        from autodidact.sources.mediawiki import article_text

        url = str(page.canonicalurl or "")  # asks for the page's data, its id among them
        refusal = self._refusal(page, named)
        text = "" if refusal else article_text(page, self._settings.max_chars)
        if not refusal and len(text) < MIN_CHARS:
            refusal = f"has less than {MIN_CHARS} characters of text"
        if refusal:
            if named is not None:
                self._warn(f"{named!r} {refusal}")
            return
        self._seen.add(page.pageid)
        if named is not None:
            self._progress.titles.append(named)
        yield Document(
            source=Wikipedia.name,
            uri=url if url.startswith(("https://", "http://")) else f"wiki:{page.title}",
            title=page.title,
            text=text,
            license=_license(url),
            digest="",
            cursor=self._progress.cursor(int(page.lastrevid or 0)),
        )

    def _refusal(self, page: Any, named: str | None) -> str:
        """Why a page is passed over; empty if it is not. A named redirect is followed."""
        if not page.exists():
            return "does not exist"
        if page.namespace != _ARTICLE:
            return "is not an article"
        if "disambiguation" in getattr(page, "pageprops", {}):
            return "only lists the meanings of a word; name one of them"
        if page.pageid in self._seen:
            return "is an article that another title has brought"
        if named is None and getattr(page, "redirects", None):
            return "is a redirect"
        return ""


def _license(url: str) -> str:
    return "CC BY-SA 4.0" if re.match(r"https://[a-z0-9-]+\.wikipedia\.org/", url) else ""
