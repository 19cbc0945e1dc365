"""What it learned, as pages and as JSON: the cycles, one cycle's report card, the retention matrix.

Everything is read from `learner.db` and the manifests; nothing here writes. JSON is given to those
who prefer it (`Accept: application/json`, or `?format=json`), else a page that needs no script.
Titles, questions and answers come from outside: the templates escape them.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.responses import Response

from autodidact.errors import AutodidactError
from autodidact.reports import archive, prose
from autodidact.reports.retention import fold, per_cent, retention
from autodidact.store.ledger import LearnerStore
from autodidact.web.site import Site, site_of

log = logging.getLogger(__name__)

T = TypeVar("T")

A_PAGE = 24
MOST_ROWS = MOST_COLUMNS = 40
STEPS = (30, 45, 60, 70, 82)
"""Per cent at which a cell of the matrix takes the next of its six shades; below the first it has
a red edge."""
_MOST = 2**31 - 1
Format = Annotated[str, Query(pattern="^(json|html)?$", max_length=4)]

router = APIRouter(include_in_schema=False)


@router.get("/learning")
async def learning() -> Response:
    return RedirectResponse("/learning/cycles", 307)


@router.get("/learning/cycles")
async def cycles(
    request: Request,
    before: Annotated[int | None, Query(ge=1, le=_MOST)] = None,
    format: Format = "",
) -> Response:
    """The cycles, newest first, 24 at a time."""
    site = site_of(request)
    found = await site.run(
        lambda: _read(site, lambda store: archive.read_list(store, before, A_PAGE + 1))
    )
    rows = (found or [])[:A_PAGE]
    more = rows[-1]["cycle"] if found and len(found) > A_PAGE else None
    if _wants_json(request, format):
        return JSONResponse({"cycles": rows, "before": more}, headers=_VARY)
    now = await site.watcher.snapshot()
    first = await site.run(lambda: site.watcher.first_facts(now)) if before is None else None
    return await _page(
        site, "learning_cycles.html", cycles=rows, more=more, newest=before is None,
        learner=now.shown, first=first,
    )  # fmt: skip


@router.get("/learning/cycles/{n}")
async def cycle(
    request: Request,
    n: Annotated[int, Path(ge=0, le=_MOST)],
    format: Format = "",
) -> Response:
    """The report card of one cycle."""
    site = site_of(request)

    def read(store: LearnerStore) -> tuple[dict[str, Any] | None, int]:
        return archive.read_card(site.home, store, n), store.cycles.last()

    found = await site.run(lambda: _read(site, read))
    card, last = found if found is not None else (None, 0)
    if card is None:
        known = f"they go from 1 to {last}" if last else "none has begun yet"
        raise HTTPException(404, f"no such cycle; {known}")
    if _wants_json(request, format):
        return JSONResponse(card, headers=_VARY)
    measures = sorted(card["measures"], key=lambda measure: measure["ok"] is not False)
    return await _page(
        site,
        "learning_cycle.html",
        card=card,
        measures=measures,  # what failed comes first
        last=last,
        widest=widest(card),
    )


@router.get("/learning/memory")
async def memory(request: Request, format: Format = "") -> Response:
    """The retention matrix: documents taught by cycles measured."""
    site = site_of(request)
    matrix = await site.run(lambda: _read(site, retention))
    matrix = matrix or {"cycles": [], "documents": [], "overall": {}}
    if _wants_json(request, format):
        return JSONResponse(matrix, headers=_VARY)
    small = fold(matrix, MOST_ROWS, MOST_COLUMNS)
    return await _page(
        site, "learning_memory.html", matrix=matrix, rows=small["rows"], columns=small["columns"]
    )


def number_line(
    value: float | None,
    lower: float | None,
    upper: float | None,
    limit: float | None,
    ends: tuple[float, float] | None = None,
) -> dict[str, str] | None:
    """Where an interval, its value and the limit lie on a line, in per cent of its width. A side
    without a bound reaches to the end of the line; "" where there is nothing to show. None without
    a value."""
    if value is None:
        return None
    known = [x for x in (value, lower, upper, limit, 0.0) if x is not None]
    low, high = ends or (min(known), max(known))
    room = 0.12 * (high - low) or 1.0
    low, high = low - room, high + room

    def place(x: float) -> str:
        return f"{min(99.5, max(0.5, 100 * (x - low) / (high - low))):.1f}%"

    bounded = lower is not None or upper is not None
    return {
        "value": place(value),
        "lower": "" if not bounded else "0.5%" if lower is None else place(lower),
        "upper": "" if not bounded else "99.5%" if upper is None else place(upper),
        "limit": "" if limit is None else place(limit),
    }


def widest(card: Mapping[str, Any]) -> tuple[float, float]:
    """The ends of the line on which the documents of a card are compared."""
    margins = [d["margin"] for d in card["documents"] if d["margin"] is not None]
    return min([0.0, *margins]), max([0.0, *margins])


def shade(cell: Mapping[str, int]) -> int:
    """Which of the six shades a cell of the matrix has, 0 to 5."""
    return sum(100 * cell["k"] / cell["n"] >= step for step in STEPS)


_VARY = {"Vary": "Accept"}
_WORDS: dict[str, Any] = {
    "number_line": number_line,
    "shade": shade,
    "per_cent": per_cent,
    **{name: getattr(prose, name)
       for name in ("against", "bounds", "clock", "limit", "share", "signed", "span")},
}  # fmt: skip


async def _page(site: Site, template: str, **values: Any) -> HTMLResponse:
    def render() -> str:
        return site.pages.get_template(template).render(**_WORDS, **values)

    return HTMLResponse(await site.run(render), headers=_VARY)


def _read(site: Site, function: Callable[[LearnerStore], T]) -> T | None:
    """What a function finds in the ledger; None as long as no learner has made one."""
    store = LearnerStore(site.home / "learner.db", readonly=True)
    try:
        return function(store)
    except FileNotFoundError:
        return None
    except AutodidactError as error:  # outdated or damaged
        log.warning("%s", error)
        raise HTTPException(503, str(error)) from None
    except sqlite3.Error:
        raise HTTPException(503, "learner.db cannot be read at present; try again") from None
    finally:
        store.close()


def _wants_json(request: Request, format_: str) -> bool:
    if format_:
        return format_ == "json"
    wanted = {"application/json": 0.0, "text/html": 0.0}
    for part in request.headers.get("accept", "").split(","):
        kind, *more = (piece.strip() for piece in part.split(";"))
        if kind in wanted:
            wanted[kind] = max(wanted[kind], _quality(more))
    return wanted["application/json"] > wanted["text/html"]


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return min(1.0, max(0.0, float(parameter[2:])))
            except ValueError:
                return 0.0
    return 1.0
