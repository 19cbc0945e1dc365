"""The chat page, its fragments, and deleting a conversation.

Everything a reader sees at the first paint is in the HTML; the script takes over from there. Model
output is sanitised by `markdown.render`, everything else is escaped by the templates.
"""

from __future__ import annotations

import math
import time
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from markupsafe import Markup
from starlette.responses import Response

from autodidact.chat.memory import turns
from autodidact.chat.reply import DEFAULT_LENGTH, stored_context
from autodidact.store.chat import Conversation, StoredMessage
from autodidact.web.events import Snapshot
from autodidact.web.page import citations, words
from autodidact.web.page.knobs import KNOBS, PRESETS, RETRIEVAL
from autodidact.web.page.markdown import render
from autodidact.web.site import Site, site_of

FIRST_ROWS, MORE_ROWS = 40, 60
SHOWN_MESSAGES = 60

router = APIRouter(include_in_schema=False)


@router.get("/")
async def home(request: Request) -> HTMLResponse:
    site = site_of(request)
    return HTMLResponse(await site.run(lambda: _page(site, None, whole=False)))


@router.get("/c/{conversation_id}")
async def conversation(
    request: Request, conversation_id: str, whole: Annotated[bool, Query(alias="all")] = False
) -> HTMLResponse:
    site = site_of(request)
    found = await site.run(lambda: site.store.conversation(conversation_id))
    html = await site.run(lambda: _page(site, found, whole=whole, missing=found is None))
    return HTMLResponse(html, 200 if found else 404)


@router.get("/conversations")
async def conversations(
    request: Request,
    current: str = "",
    before: Annotated[str, Query(max_length=100)] = "",
) -> HTMLResponse:
    """Rows of the sidebar; `before` is the mark of the last row that is shown."""
    site = site_of(request)
    mark = _mark(before)
    return HTMLResponse(
        await site.run(
            lambda: site.pages.get_template("_conversations.html").render(
                **_rows(site, current, mark)
            )
        )
    )


@router.get("/empty")
async def empty(request: Request) -> HTMLResponse:
    """The page before the first question, for when what it says has changed."""
    site = site_of(request)

    def render() -> str:
        told = _empty(site, site.watcher.look())
        return site.pages.get_template("_empty.html").render(**told)

    return HTMLResponse(await site.run(render))


@router.post("/c/{conversation_id}/delete")
async def delete(request: Request, conversation_id: str) -> Response:
    site = site_of(request)
    done = await site.run(lambda: site.store.delete(conversation_id))
    return _after(request, done, "/")


@router.post("/c/{conversation_id}/restore")
async def restore(request: Request, conversation_id: str) -> Response:
    site = site_of(request)
    done = await site.run(lambda: site.store.restore(conversation_id))
    return _after(request, done, f"/c/{conversation_id}")


def _after(request: Request, done: bool, where: str) -> Response:
    """A form goes on to another page; a script wants to know only whether it worked."""
    if not done:
        raise HTTPException(404, "no such conversation")
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(where, 303)
    return Response(status_code=204)


def _page(site: Site, found: Conversation | None, *, whole: bool, missing: bool = False) -> str:
    now = site.watcher.look()
    messages = site.store.messages(found.id) if found else []
    shown = messages if whole else messages[-SHOWN_MESSAGES:]
    context = stored_context(messages, now.model.context)
    hidden = messages[: len(messages) - len(shown)]
    asked = [message.content for message in messages if message.role == "user"]
    boot = {
        "conversation": found.id if found else None,
        "health": now.health,
        "learner": now.learner.state,
        "context": context,
        "default_length": DEFAULT_LENGTH,
        "presets": PRESETS,
        "asked": asked[-20:],
    }
    return site.pages.get_template("chat.html").render(
        boot=boot,
        title=found.title if found else "New chat",
        missing=missing,
        conversation=found,
        items=_items(shown, context["dropped"] - len(turns(hidden))),
        hidden=len(hidden),
        hidden_turns=len(turns(hidden)),
        knobs=KNOBS,
        presets=list(PRESETS),
        lookup=RETRIEVAL,
        lookup_on=now.lookup,
        context=context,
        now=now,
        **_empty(site, now),
        **_rows(site, found.id if found else "", None),
    )


def _items(messages: list[StoredMessage], dropped: int) -> list[dict[str, Any]]:
    """Messages as the template shows them, with the line above which the model sees nothing."""
    answered = {message.reply_to for message in messages if message.content.strip()}
    items: list[dict[str, Any]] = []
    turn = 0
    for message in messages:
        if message.role == "user":
            cut = dropped if dropped > 0 and turn == dropped and message.id in answered else 0
            turn += message.id in answered
            items.append({"message": message, "cut": cut, "answered": message.id in answered})
        else:
            items.append(
                {
                    "message": message,
                    "html": Markup(render(message.content)),  # noqa: S704  sanitised by nh3
                    "name": words.name_of(message.version, message.answers),
                    "badge": citations.badge(message.passages),
                    "stats": words.stats(message.tok_s, message.first_token_ms),
                    "ended": words.ended(
                        message.finish,
                        message.content,
                        message.sampling.get("max_new_tokens", 0),
                        message.tokens,
                    ),
                }
            )
    return items


def _empty(site: Site, now: Snapshot) -> dict[str, Any]:
    return {
        "first": site.watcher.first_facts(now),
        "empty": words.empty(now.model, now.report, now.learner, time.time()),
        "learner": now.shown,
    }


def _rows(site: Site, current: str, mark: tuple[float, str] | None) -> dict[str, Any]:
    limit = MORE_ROWS if mark else FIRST_ROWS
    rows = site.store.conversations(limit + 1, mark)
    last = rows[limit - 1] if len(rows) > limit else None
    return {
        "groups": _groups(rows[:limit], time.time()),
        "current": current,
        "more": f"{last.updated_at!r}:{last.id}" if last else "",
    }


def _groups(rows: list[Conversation], now: float) -> list[tuple[str, list[Conversation]]]:
    """Rows under Today, Yesterday and Earlier, by the server's calendar."""
    today = time.localtime(now)
    midnight = time.mktime((*today[:3], 0, 0, 0, 0, 0, -1))
    yesterday = time.mktime((*today[:2], today[2] - 1, 0, 0, 0, 0, 0, -1))
    groups: dict[str, list[Conversation]] = {"Today": [], "Yesterday": [], "Earlier": []}
    for row in rows:
        recent = row.updated_at >= midnight
        name = "Today" if recent else "Yesterday" if row.updated_at >= yesterday else "Earlier"
        groups[name].append(row)
    return [(name, group) for name, group in groups.items() if group]


def _mark(before: str) -> tuple[float, str] | None:
    if not before:
        return None
    at, _, conversation_id = before.partition(":")
    try:
        updated_at = float(at)
    except ValueError:
        updated_at = math.nan
    if not math.isfinite(updated_at) or not conversation_id:
        raise HTTPException(422, "before: Input should be the mark of a row")
    return updated_at, conversation_id
