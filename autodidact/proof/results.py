"""From finished units to one JSON object. Its keys are stable: `SCHEMA` counts their changes.

- `parameters`, `model`, `data`: what was done, on what.
- `arms`: one entry a trained model: steps, passes, seconds, dropped examples, general NLL.
- `outcomes[kind][subset][metric]`: levels before and after on taught and control articles, the
  effect (difference in differences) with its interval, by arm too. Kinds are those of the arms;
  subsets `all` and `unknown` (what the base did not answer exactly).
- `aa`: how often permuted labels find an effect. `books`: the 2 × 2. `streams`: retention.
- `coverage`: `share` of questions that a made example covers (`proof.coverage`), how many by
  `articles`; `distractors[covered | not_covered]` says how many of their distractors are answers
  that were trained; `effects[kind][group][metric]` as in `outcomes`, for `proof.coverage.GROUPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from autodidact.proof import analyse, coverage
from autodidact.proof.analyse import Gain
from autodidact.proof.measure import METRICS
from autodidact.proof.plan import TrialArm
from autodidact.proof.protocol import TrialMaterial
from autodidact.proof.work import Work

SCHEMA = 1
PRIMARY = ("margin", "choice")
Rows = dict[str, dict[str, Any]]
CELLS = (
    ("base", "closed"), ("learned", "closed"), ("base", "bm25"), ("learned", "bm25"),
    ("base", "oracle"), ("learned", "oracle"),
)  # fmt: skip
CONTRASTS = {
    "learned + BM25 − base + BM25": (("learned", "bm25"), ("base", "bm25")),
    "learned − base, closed book": (("learned", "closed"), ("base", "closed")),
    "base + BM25 − base": (("base", "bm25"), ("base", "closed")),
    "learned + BM25 − learned": (("learned", "bm25"), ("learned", "closed")),
    "learned + oracle − base + oracle": (("learned", "oracle"), ("base", "oracle")),
}


def collect(
    work: Work, material: TrialMaterial, facts: dict[str, Any], *, permute: bool
) -> dict[str, Any]:
    """The whole result. `facts` are parameters, model and minutes; `permute` adds the A/A."""
    reader = _Reader(work, material)
    kinds = list(dict.fromkeys(arm.kind for arm in material.arms))
    result: dict[str, Any] = {
        "schema": SCHEMA,
        **facts,
        "data": _data(material, reader),
        "arms": [reader.arm(arm) for arm in material.arms],
        "general_base": reader.general("base-general"),
        "outcomes": {
            kind: {subset: reader.outcomes(kind, subset) for subset in ("all", "unknown")}
            for kind in kinds
        },
        "aa": {m: analyse.labels_permuted(reader.gains("learned", m)) for m in PRIMARY}
        if permute
        else {},
        "books": reader.books(),
        "streams": reader.streams(),
        "coverage": _coverage(material, reader, kinds),
        "questions": reader.questions(),
    }
    result["seconds"] = reader.seconds
    return result


class _Reader:
    """Rows by question id of every model, read once."""

    def __init__(self, work: Work, material: TrialMaterial) -> None:
        self._work = work
        self._material = material
        self._arms = material.arms
        self.seconds = 0.0
        numbers = {title: a.number for title, a in material.articles.items()}
        self.base: dict[str, Rows] = {}
        self.after: dict[str, dict[str, Rows]] = {}
        for title in material.items:
            self.base[title] = self._rows(f"base-{numbers[title]:03d}")
        for arm in self._arms:
            self.after[arm.name] = {
                title: self._rows(f"{arm.name}-{numbers[title]:03d}")
                for title in (*arm.taught, *arm.control)
            }

    def _rows(self, name: str) -> Rows:
        return {row["id"]: row for row in self._unit(name)["rows"]}

    def _unit(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._work.get(name)
        self.seconds += found["seconds"]
        return found

    def general(self, name: str) -> dict[str, Any]:
        unit = self._unit(name)
        return {key: unit[key] for key in ("anchors", "wikitext", "blocks", "wikitext_blocks")}

    def arm(self, arm: TrialArm) -> dict[str, Any]:
        cycles = [self._unit(f"{arm.name}-train-{c:02d}") for c in range(1, len(arm.cycles) + 1)]
        return {
            "name": arm.name, "kind": arm.kind, "seed": arm.seed, "side": arm.side,
            "taught": list(arm.taught), "control": list(arm.control),
            "general": self.general(f"{arm.name}-general"),
            "cycles": [
                {k: c[k] for k in ("steps", "train_s", "passes", "sequences", "loss", "dropped")}
                for c in cycles
            ],
        }  # fmt: skip

    def gains(self, kind: str, metric: str, keep: Callable[[Any], bool] = bool) -> list[Gain]:
        """What each question gained in the arms of a kind, for questions whose base row (which
        holds the question's id) `keep` takes."""
        return [
            Gain(arm.seed, arm.side, title, i, title in arm.taught, now[metric] - old[metric])
            for arm, title, i, old, now in self._pairs(kind)
            if keep(old)
        ]

    def _pairs(self, kind: str) -> Iterable[tuple[TrialArm, str, str, Any, Any]]:
        for arm in self._arms:
            if arm.kind == kind:
                for title, rows in self.after[arm.name].items():
                    for i, now in rows.items():
                        yield arm, title, i, self.base[title][i], now

    def outcomes(self, kind: str, subset: str) -> dict[str, Any]:
        def keep(old: Any) -> bool:
            return subset == "all" or not old["em"]

        kept = [pair for pair in self._pairs(kind) if keep(pair[3])]
        return analyse.outcomes(
            {metric: self.gains(kind, metric, keep) for metric in METRICS},
            {m: [(t in arm.taught, t, old[m]) for arm, t, _, old, _ in kept] for m in METRICS},
            {m: [(t in arm.taught, t, now[m]) for arm, t, _, _, now in kept] for m in METRICS},
        )

    def books(self) -> dict[str, Any]:
        """The 2 × 2 and the oracle, all learned arms together: cells, contrasts, misses."""
        values: dict[tuple[str, str], list[tuple[str, Any]]] = {cell: [] for cell in CELLS}
        missed = asked = 0
        for arm in self._arms:
            if arm.kind != "learned":
                continue
            units = {book: self._unit(f"{arm.name}-book-{book}") for book in ("base", "learned")}
            missed += units["learned"]["missed"]
            asked += units["learned"]["asked"]
            titles = {i: t for t in arm.taught for i in self.after[arm.name][t]}
            for model, unit in units.items():
                ids = [row["id"] for row in unit["rows"]["bm25"]]
                closed = self.base if model == "base" else self.after[arm.name]
                values[model, "closed"] += [(titles[i], closed[titles[i]][i]) for i in ids]
                for condition in ("bm25", "oracle"):
                    rows = unit["rows"][condition]
                    values[model, condition] += [(titles[row["id"]], row) for row in rows]
        cells = {
            f"{model}/{condition}": {
                m: analyse.mean([(t, row[m]) for t, row in values[model, condition]])
                for m in METRICS
            }
            for model, condition in CELLS
        }
        contrasts = {
            name: {m: _difference(values[more], values[less], m) for m in METRICS}
            for name, (more, less) in CONTRASTS.items()
        }
        return {"cells": cells, "contrasts": contrasts, "missed": analyse.share(missed, asked)}

    def streams(self) -> list[dict[str, Any]]:
        """For each streamed arm, what each cycle's articles had gained after each cycle."""
        found = []
        for arm in self._arms:
            if len(arm.cycles) < 2:
                continue
            learned_in = {t: c for c, group in enumerate(arm.cycles, 1) for t in group}
            matrix = []
            for cycle in range(1, len(arm.cycles) + 1):
                unit = self._unit(f"{arm.name}-kept-{cycle:02d}")
                for title, rows in unit["rows"].items():
                    means = {
                        m: sum(r[m] - self.base[title][r["id"]][m] for r in rows) / len(rows)
                        for m in METRICS
                    }
                    matrix.append(
                        {"after": cycle, "learned_in": learned_in[title], "title": title,
                         "n": len(rows), **means}
                    )  # fmt: skip
                matrix.append({"after": cycle, "general": unit["general"]})
            found.append({"arm": arm.name, "cycles": len(arm.cycles), "matrix": matrix})
        return found

    def questions(self) -> int:
        return sum(len(rows) for rows in self.base.values())


def _difference(
    more: Sequence[tuple[str, Any]], less: Sequence[tuple[str, Any]], metric: str
) -> analyse.Figure:
    pairs = zip(more, less, strict=True)
    return analyse.mean([(title, a[metric] - b[metric]) for (title, a), (_, b) in pairs])


def _coverage(material: TrialMaterial, reader: _Reader, kinds: Sequence[str]) -> dict[str, Any]:
    """How many questions a made example covers, and the effects by what was trained of them."""
    found: dict[str, coverage.Standing] = {}
    by_article: dict[str, dict[str, int]] = {}
    wrong: dict[bool, list[int]] = {True: [0, 0], False: [0, 0]}
    for title, items in material.items.items():
        taught = coverage.taught(material.articles[title], material.human)
        questions = {question.id: question for question in material.questions[title]}
        for item in items:
            now = taught.standing(questions[item.id], item.distractors)
            found[item.id] = now
            wrong[now.covered][0] += now.distractors
            wrong[now.covered][1] += len(item.distractors)
        by_article[title] = {"k": sum(found[i.id].covered for i in items), "n": len(items)}
    return {
        "share": analyse.share(sum(now.covered for now in found.values()), len(found)),
        "articles": by_article,
        "distractors": {
            "covered": analyse.share(*wrong[True]), "not_covered": analyse.share(*wrong[False])
        },
        "effects": {kind: _by_group(reader, kind, found) for kind in kinds},
    }  # fmt: skip


def _by_group(
    reader: _Reader, kind: str, standing: Mapping[str, coverage.Standing]
) -> dict[str, Any]:
    """The effects of a kind of arm on the questions of each group, by metric."""

    def one(metric: str, group: str) -> analyse.Figure:
        belongs = coverage.GROUPS[group]
        return analyse.effect(reader.gains(kind, metric, lambda old: belongs(standing[old["id"]])))

    return {group: {m: one(m, group) for m in METRICS} for group in coverage.GROUPS}


def _data(material: TrialMaterial, reader: _Reader) -> dict[str, Any]:
    return {
        "articles": {
            title: {"questions": len(items), "known": sum(
                row["em"] for row in reader.base[title].values())}
            for title, items in material.items.items()
        },
        "left_out": material.left_out,
    }  # fmt: skip
