"""A report in words: as JSON for people, on one line, and its card for a terminal, with figures as
people read them.

Text from elsewhere (questions, answers, titles) is printed on one line and cannot steer the
terminal.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from autodidact import checkpoints
from autodidact.types.cycle import lines
from autodidact.types.report import CycleReport

Row = Mapping[str, Any]

_SIDES = ("lower", "upper")


def signed(value: float | None, unit: str | None = "") -> str:
    """+0.004 nat, −1.2 points: a change, with the digits that its size deserves. A change of a
    share is told in points."""
    if value is None:
        return ""
    if unit == "share":
        text = f"{100 * value:+.1f} points"
    else:
        digits = 3 if abs(value) < 0.1 else 2 if abs(value) < 10 else 1
        text = f"{value:+.{digits}f} {unit or ''}".strip()
    return text.replace("-", "−") if value else text.replace("+", "")


def against(test: Row) -> str:
    """What the test compares with."""
    return {
        "control": "against controls",
        "document": "against other answers of the same document",
        "exact": "newly exact answers, against controls",
        "learned": "since they were taught",
        "parent": "against the version before",
    }.get(test["against"], f"against the {test['against']}")


def limit(test: Row) -> str:
    """What the test asks of the change."""
    if test["limit"] is None:
        return ""
    if test.get("p") is not None:
        return f"p at most {test['limit']:.4f}"
    points = test["unit"] == "share"
    bare = f"{100 * test['limit'] if points else test['limit']:g}".replace("-", "−")
    return f"{'above' if test['rule'] == 'learned' else 'at most'} {bare}{' points' * points}"


def bounds(test: Row) -> str:
    """The interval of a change, one-sided where the report has one side; or its p-value."""
    if test.get("p") is not None:
        return f"p {test['p']:.4f}"
    lower, upper = (
        signed(test[side], test["unit"]).removesuffix(f" {test['unit']}") for side in _SIDES
    )
    if lower and upper:
        return f"{lower.removesuffix(' points')} to {upper}"
    if lower:
        return f"at least {lower}"
    return f"at most {upper}" if upper else ""


def outcome(test: Row) -> str:
    """What came of a test, for the terminal. What other evidence replaced did not fail."""
    if test["ok"]:
        return "passed"
    return "unshown" if test["excused"] else "FAILED"


def share(count: Row) -> str:
    """31 of 40 (78 %, 62–88)."""
    if not count["n"]:
        return "none asked"
    text = f"{count['k']} of {count['n']}"
    if count.get("lower") is None:
        return text
    middle = 100 * count["k"] / count["n"]
    return f"{text} ({middle:.0f} %, {100 * count['lower']:.0f}–{100 * count['upper']:.0f})"


def clock(at: float | None) -> str:
    """A time of day with its date, by this machine's calendar."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else ""


def span(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def plain(text: object) -> str:
    """Text from elsewhere, for a terminal: one line, nothing that steers it."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def spoken(report: CycleReport) -> dict[str, Any]:
    """A report for people to read of, as JSON, without its questions: every reason is one text."""
    told = asdict(replace(report, probes=()))
    told |= {"ok": report.ok, "failed": report.failed, "reasons": lines(report.reasons)}
    told["looks"] = [
        {**plain, "reasons": lines(each.reasons)}
        for plain, each in zip(told["looks"], report.looks, strict=True)
    ]
    return told


def line(report: CycleReport) -> str:
    """A cycle on one line, for the terminal."""
    count = len(report.documents)
    taught = f"{count} document{'' if count == 1 else 's'}"
    parts = [f"cycle {report.cycle}", taught if report.kind == "learn" else report.kind]
    if report.figures:
        learned, kept, general = (
            report.figures.taught, report.figures.kept, report.figures.general,
        )  # fmt: skip
        if learned.n:
            parts.append(f"learned {learned.k}/{learned.n} (before {learned.before})")
        if kept.n:
            parts.append(f"kept {kept.k}/{kept.n} (before {kept.before})")
        if general.pct is not None:
            parts.append(f"general {general.pct:+.1f} %")
    if report.step is not None and report.step != 1.0:
        parts.append(f"λ {report.step}")
    if report.ok:
        parts.append(f"published {checkpoints.name(report.cycle)}")
    else:
        parts.append(f"{report.state}: {'; '.join(lines(report.reasons))}")
    return " · ".join([*parts, f"{report.seconds} s"])


def card_text(made: Row) -> str:
    """A card for the terminal."""
    after = f"checkpoint {made['parent']}" if made["parent"] else "the base"
    lines = [f"Cycle {made['cycle']} · {made['state']} · made from {after}", plain(made["verdict"])]
    lines += [f"  {plain(reason)}" for reason in made["reasons"]]
    lines.append("")
    for measure in made["measures"]:
        lines += _measure_lines(measure)
    for name, title in (("seen", "used for other facts"), ("unseen", "never used")):
        count = made["wordings"][name]
        if count["n"]:
            lines.append(f"wordings {title}: {share(count)}, {count['before']} before")
    if made["control"]["n"]:
        control = made["control"]
        lines.append(f"controls, never taught: {share(control)}, {control['before']} before")
    if made["forgotten"]["n"]:
        gone = made["forgotten"]
        lines.append(
            f"to be forgotten: {gone['k']} of {gone['n']} pass, {gone['base']} of the base"
        )
    for document in made["documents"]:
        told = f"{share(document)}, {document['before']} before"
        change = signed(document["margin"], "nat")
        lines += ["", f"{plain(document['title'])}  {plain(document['uri'])}"]
        lines.append(f"  {told}{f', margin {change}' if change else ''}")
        lines += [line for probe in document["probes"] for line in _probe_lines(probe)]
    for name in ("lost", "regained"):
        if made["kept"][name]:
            lines += ["", f"{name.capitalize()}, of earlier questions: {len(made['kept'][name])}"]
            lines += [line for probe in made["kept"][name] for line in _probe_lines(probe)]
    return "\n".join([*lines, "", *_how_lines(made)])


def _measure_lines(measure: Row) -> list[str]:
    name, now = measure["measure"], measure["now"]
    if not measure["tests"] and not now:
        return [f"{name:<8} not measured"]
    before = f"{measure['before']} → {now}" if measure["before"] else now
    figures = f"{before} of {measure['n']}" if measure["n"] else before
    if not measure["tests"]:
        return [f"{name:<8} {'no test':<7} {figures}"]
    lines = []
    for test in measure["tests"]:
        parts = [figures, f"{signed(test['value'], test['unit'])} {against(test)}"]
        parts += [bounds(test), limit(test), f"n {test['n']}" if test["n"] else ""]
        lines.append(f"{name:<8} {outcome(test):<7} " + "; ".join(part for part in parts if part))
        name, figures = "", ""
    if measure["decided"]:
        lines.append(f"{'':<16} {measure['decided']}")
    return lines


def _probe_lines(probe: Row) -> list[str]:
    note = " (wording never used)" if probe["wording"] == "unseen" else ""
    lines = [f"  {plain(probe['question'])}{note}", f"    expected  {plain(probe['answer'])}"]
    for side in ("before", "now"):
        answer = probe[side]
        margin = signed(answer["margin"])
        told = (
            f"{'right' if answer['correct'] else 'wrong'}{f', margin {margin}' if margin else ''}"
        )
        lines.append(f"    {side:<8}  {plain(answer['reply']) or '(nothing)'}  [{told}]")
    return lines


def _how_lines(made: Row) -> list[str]:
    how = made["how"]
    base = how["base"]
    tried = ", ".join(
        f"λ {look['lambda']:g} {'passed' if look['ok'] else 'failed'}"
        for look in made["looks"]
        if look["lambda"] is not None
    )
    pairs = (
        ("probes frozen", clock(how["frozen_at"])),
        ("first step", clock(how["first_step_at"])),
        ("ended", clock(made["ended_at"])),
        ("took", span(made["seconds"])),
        ("steps", how["steps"]),
        ("tried", tried),
        ("base", plain(f"{base['name']} {base['revision']}").strip()),
        ("base sha256", plain(base["sha256"])),
        ("weights sha256", how["weights_sha256"]),
    )
    return [f"{name:<15} {value}" for name, value in pairs if value]
