"""The retention matrix: how much of each document each published checkpoint still knows.

Rows are documents, columns the published cycles that still stand; a cell counts the exact answers
of that cycle's candidate to the questions on that document that it was asked (k of n). A cell is
missing where nothing was asked: each cycle samples only some of what was taught before. Questions
in wordings never trained for any fact and those on controls are left out.

`retention` reads the ledger; `fold` makes a matrix small enough to be looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from autodidact.reports.archive import stored, withdrawn
from autodidact.reports.cards import interval
from autodidact.reports.prose import plain
from autodidact.store.ledger import LearnerStore

Row = Mapping[str, Any]
Cells = dict[int, dict[str, int]]

LABEL_WIDTH = 34
CELL_WIDTH = 5


def retention(store: LearnerStore) -> dict[str, Any]:
    """`cycles`: those published, oldest first. `documents`: `id`, `title`, `learned_in` (the cycle
    that taught it last) and `cells`, cycle → `k`, `n`. `overall`: for each cycle `k` of `n` over
    all documents of earlier cycles, with the 95 % interval of the share."""
    cycles = _published(store)
    cells: dict[int, Cells] = {}
    taught: dict[int, int] = {}
    earlier: Cells = {n: {"k": 0, "n": 0} for n in cycles}
    for cycle in cycles:
        for result in store.probes.results(cycle):
            if result.arm != "candidate" or result.split not in ("taught", "kept"):
                continue
            document = int(result.probe_id.rpartition("-")[0])
            _add(cells.setdefault(document, {}).setdefault(cycle, {"k": 0, "n": 0}), result.correct)
            if result.split == "taught":
                taught[document] = cycle
            else:
                _add(earlier[cycle], result.correct)
    rows = [
        {
            "id": number,
            "title": _title(store, number),
            "learned_in": taught.get(number),
            "cells": found,
        }
        for number, found in cells.items()
    ]
    rows.sort(key=lambda row: (row["learned_in"] or 0, row["id"]))
    overall = {n: {**count, **interval(count["k"], count["n"])} for n, count in earlier.items()}
    return {"cycles": cycles, "documents": rows, "overall": overall}


def fold(matrix: Row, rows: int, columns: int) -> dict[str, Any]:
    """A matrix of at most `rows` × `columns`. The newest cycles keep a column each, older ones are
    pooled in tens (hundreds, …). More documents than `rows` are pooled by the cycle that taught
    them, and those cycles likewise. Columns have `label`, `cycle` (None for several) and the count
    of `overall`; each row has a list of cells, {"k", "n"} or None, one for each column."""
    groups = _groups(matrix["cycles"], columns)
    documents = matrix["documents"]
    made = []
    if len(documents) <= rows:
        for row in documents:
            made.append(
                {
                    "label": row["title"],
                    "learned_in": row["learned_in"],
                    "documents": 1,
                    "cells": [_pool([row], group) for group in groups],
                }
            )
    else:
        for taught in _groups(sorted({row["learned_in"] or 0 for row in documents}), rows):
            mine = [row for row in documents if (row["learned_in"] or 0) in taught]
            made.append(
                {
                    "label": f"Cycle {_name(taught)}: {len(mine)} documents"
                    if taught != [0]
                    else f"{len(mine)} documents taught before",
                    "learned_in": taught[0] if len(taught) == 1 else None,
                    "documents": len(mine),
                    "cells": [_pool(mine, group) for group in groups],
                }
            )
    return {
        "columns": [
            {
                "label": _name(group),
                "cycle": group[0] if len(group) == 1 else None,
                **_total(matrix["overall"], group),
            }
            for group in groups
        ],
        "rows": made,
    }


def retention_text(matrix: Row, width: int = 100) -> str:
    """The matrix for a terminal `width` characters wide: per cent, newest cycles on the right."""
    if not matrix["cycles"]:
        return "nothing is published yet"
    small = fold(matrix, 40, max(4, (width - LABEL_WIDTH) // CELL_WIDTH))
    heads = [column["label"].rpartition("–")[2] for column in small["columns"]]
    heads = [
        f"≤{head}" if column["cycle"] is None else head
        for head, column in zip(heads, small["columns"], strict=True)
    ]
    lines = ["Per cent of the questions answered exactly; rows taught, columns measured."]
    lines.append(_line("", heads))
    for row in small["rows"]:
        lines.append(_line(row["label"], [per_cent(cell) for cell in row["cells"]]))
    lines.append(_line("all of earlier cycles", [per_cent(c) for c in small["columns"]]))
    for column in reversed(small["columns"]):
        if column["n"]:
            low, high = 100 * column["lower"], 100 * column["upper"]
            lines.append(
                f"cycle {column['label']}: {column['k']} of {column['n']} earlier questions pass "
                f"({low:.0f}–{high:.0f} %)"
            )
            break
    return "\n".join(lines)


def per_cent(cell: Row | None) -> str:
    return f"{100 * cell['k'] / cell['n']:.0f}" if cell and cell["n"] else ""


def _line(label: str, cells: Iterable[str]) -> str:
    label = plain(label)
    if len(label) >= LABEL_WIDTH:
        label = label[: LABEL_WIDTH - 2] + "…"
    return f"{label:<{LABEL_WIDTH}}" + "".join(f"{cell:>{CELL_WIDTH}}" for cell in cells)


def _groups(cycles: list[int], most: int) -> list[list[int]]:
    """Cycles in at most `most` groups: the newest alone, older ones in tens, hundreds, ….
    At least half of the groups are single cycles."""
    if len(cycles) <= most:
        return [[n] for n in cycles]
    step = 10
    while True:
        for alone in range(most - 1, most // 2 - 1, -1):
            old, new = cycles[: len(cycles) - alone], cycles[len(cycles) - alone :]
            pooled: dict[int, list[int]] = {}
            for n in old:
                pooled.setdefault((n - 1) // step, []).append(n)
            if len(pooled) + alone <= most:
                return [*pooled.values(), *([n] for n in new)]
        step *= 10


def _name(group: list[int]) -> str:
    return str(group[0]) if len(group) == 1 else f"{group[0]}–{group[-1]}"


def _pool(rows: Iterable[Row], group: Iterable[int]) -> dict[str, int] | None:
    total = {"k": 0, "n": 0}
    for row in rows:
        for cycle in group:
            if cycle in row["cells"]:
                total["k"] += row["cells"][cycle]["k"]
                total["n"] += row["cells"][cycle]["n"]
    return total if total["n"] else None


def _total(overall: Mapping[int, Row], group: list[int]) -> dict[str, Any]:
    k, n = (sum(overall[cycle][key] for cycle in group) for key in ("k", "n"))
    return {"k": k, "n": n, **interval(k, n)}


def _add(count: dict[str, int], correct: bool) -> None:
    count["k"] += int(correct)
    count["n"] += 1


def _published(store: LearnerStore) -> list[int]:
    cycles = (store.cycles.get(n) for n in range(1, store.cycles.last() + 1))
    return [
        cycle.n
        for cycle in cycles
        if cycle and cycle.state == "published" and not withdrawn(store, cycle)
    ]


def _title(store: LearnerStore, number: int) -> str:
    found = stored(store, number)
    return found.document.title if found is not None else f"document {number}"
