"""The result as a page: plain sentences, tables with n and intervals, what failed too. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NAMES = {"margin": "Margin (nat a token)", "choice": "Four-way choice", "em": "Exact match",
         "f1": "F1", "nll": "NLL of the answer (nat a token)"}  # fmt: skip
PERCENT = ("choice", "em", "f1")
MEANT = {
    "learned": "The recipe",
    "naive": "The naive recipe (raw text, learning rate 2e-5, one pass, no KL term)",
    "placebo": "Placebo: trained on other documents",
    "shuffled-within": "Answers shuffled within each document",
    "shuffled-between": "Answers shuffled between documents",
}
PRIMARY = ("margin", "choice")
GROUPS = {
    "covered": "covered",
    "covered_contested": "– of these: a distractor is a trained answer too",
    "not_covered": "not covered",
    "answer_trained": "– of these: the answer is trained, elsewhere",
    "distractor_trained": "– of these: only a distractor is a trained answer",
    "nothing_trained": "– of these: neither is",
}
Result = Mapping[str, Any]


def markdown(result: Result) -> str:
    """The whole page; the plots stand beside it."""
    parts = [
        "# Proof of learning",
        _what(result),
        "## In short",
        _short(result),
        *[_kind(result, kind) for kind in result["outcomes"]],
        _coverage(result["coverage"]),
        _aa(result),
        _books(result["books"]),
        _drift(result),
        _streams(result["streams"]),
        _training(result),
        _method(result),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def number(metric: str, value: float | None, *, signed: bool = False) -> str:
    """A value in its unit: points for shares, nat for the rest; "–" where nothing is known."""
    if value is None:
        return "–"
    sign = "+" if signed else ""
    text = f"{100 * value:{sign}.1f}" if metric in PERCENT else f"{value:{sign}.3f}"
    return text.replace("-", "−")


def interval(metric: str, figure: Result, *, signed: bool = False) -> str:
    """Value and 95 % interval."""
    low, high = (number(metric, figure[key], signed=signed) for key in ("lower", "upper"))
    return f"{number(metric, figure['value'], signed=signed)} ({low} … {high})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def verdict(figure: Result, *, better: int = 1) -> str:
    """What an interval says of an effect whose good direction is `better`."""
    if figure["lower"] is None or figure["upper"] is None:
        return "undecided: too few articles"
    if (figure["lower"] > 0) if better > 0 else (figure["upper"] < 0):
        return "yes"
    if (figure["upper"] < 0) if better > 0 else (figure["lower"] > 0):
        return "no, the opposite"
    return "not shown: the interval contains 0"


def _what(result: Result) -> str:
    given, model = result["parameters"], result["model"]
    count = result["questions"]
    return (
        f"Base: {_cell(model['name'])}, {model['parameters'] / 1e6:.1f}M parameters. "
        f"{given['articles']} articles, {given['seeds']} drawing(s) of lots, {count} human "
        f"questions ({result['data']['left_out']} left out because they do not fit or have too few "
        "distractors). Half of the articles are taught and half are control; then the arms are "
        f"swapped. Each arm trains {result['minutes']:.1f} minutes"
        + (f" in {given['cycles']} cycles" if given["cycles"] > 1 else "")
        + ". Questions are asked closed book, with the topic named. Effects are differences in "
        "differences: (trained − base) on taught articles minus the same on control articles; "
        "intervals are 95 %, clustered by article. Shares are in points of 100."
    )


def _short(result: Result) -> str:
    lines = []
    for metric in PRIMARY:
        effect = result["outcomes"]["learned"]["all"][metric]["effect"]
        p = "" if effect["p"] is None else f", p {effect['p']:.4f} by drawing the lots again"
        lines.append(
            f"- {NAMES[metric]}: effect {interval(metric, effect, signed=True)}; "
            f"n {effect['n']} questions, {effect['articles']} articles{p}. "
            f"Learned: **{verdict(effect)}**."
        )
    for metric in PRIMARY:
        added = result["books"]["contrasts"]["learned + BM25 − base + BM25"][metric]
        lines.append(
            f"- With retrieval, {NAMES[metric]}: {interval(metric, added, signed=True)}. "
            f"The weights help beside search: **{verdict(added)}**."
        )
    for kind, subsets in result["outcomes"].items():
        if kind in ("learned", "naive"):
            continue
        effect = subsets["all"]["margin"]["effect"]
        passed = verdict(effect) == "yes"
        said = "**it does not, the measure is at fault**" if passed else "it does"
        lines.append(
            f"- {MEANT[kind]} must show nothing: {said} "
            f"({interval('margin', effect, signed=True)} nat)."
        )
    return "\n".join(lines)


def _kind(result: Result, kind: str) -> str:
    parts = [f"## {MEANT[kind]}"]
    if kind == "learned":
        parts.append("![Taught and control articles](effects.png)")
    for subset, words in (("all", "All questions"), ("unknown", "What the base did not know")):
        rows = []
        for metric, found in result["outcomes"][kind][subset].items():
            before, after, effect = found["before"], found["after"], found["effect"]
            rows.append(
                [
                    NAMES[metric],
                    *(number(metric, f["value"]) for f in (before["taught"], after["taught"])),
                    *(number(metric, f["value"]) for f in (before["control"], after["control"])),
                    interval(metric, effect, signed=True),
                    "–" if effect["p"] is None else f"{effect['p']:.4f}",
                    str(effect["n"]),
                    str(effect["articles"]),
                ]
            )
        head = ["Metric", "taught: base", "after", "control: base", "after", "effect (95 %)", "p",
                "n", "articles"]  # fmt: skip
        parts += [f"{words}:", table(head, rows)]
    arms = result["outcomes"][kind]["all"]["margin"]["arms"]
    each = ", ".join(
        f"seed {a['seed']} arm {a['arm']} {number('margin', a['value'], signed=True)}" for a in arms
    )
    if each:
        parts.append(f"Margin effect of each arm by itself: {each}.")
    return "\n\n".join(parts)


def _coverage(coverage: Result) -> str:
    rows = [
        [kind, words, *(interval(m, groups[group][m], signed=True) for m in NAMES),
         str(groups[group]["margin"]["n"]), str(groups[group]["margin"]["articles"])]
        for kind, groups in coverage["effects"].items()
        for group, words in GROUPS.items()
    ]  # fmt: skip
    return "\n\n".join(
        [
            "## Which questions had a chance",
            "![Covered and other questions](coverage.png)",
            f"A made example covers {_of(coverage['share'])} of the questions: a fact that the "
            "rules read in the article has an answer that equals a gold answer, and its sentence "
            "shares at least two telling words with the question, the title's words aside. "
            "Examples that overlap a human question were not trained and cover nothing. Which "
            "questions are covered follows from the texts alone, not from any score; but it is not "
            "drawn by lot, and many rows are read here at once. Effects, differences in "
            "differences as above:",
            table(["Arms", "Questions", *NAMES.values(), "n", "articles"], rows),
            _confound(coverage),
        ]
    )


def _confound(coverage: Result) -> str:
    """Why a gain on covered questions is not yet knowledge."""
    effects, wrong = coverage["effects"], coverage["distractors"]

    def margin(kind: str, group: str) -> str:
        return interval("margin", effects[kind][group]["margin"], signed=True)

    only, without = (
        effects["learned"][group]["margin"]["n"] for group in ("distractor_trained", "not_covered")
    )
    control = (
        f"here it shows {margin('shuffled-within', 'covered')} on covered questions."
        if "shuffled-within" in effects
        else "it was not part of this proof."
    )
    return (
        "What this can and cannot tell: the true answers of covered questions are answers that "
        f"were trained, and of their distractors {_of(wrong['covered'])} are. So part of the gain "
        "may be knowing which answers belong to the article, not which one belongs to the "
        "question. How large that part may be: where the answer was trained, but elsewhere (its "
        "sentence shares fewer telling words with the question, and may tell something "
        "else), the margin's effect is "
        f"{margin('learned', 'answer_trained')}; on covered questions with a trained distractor, "
        f"where knowing trained answers helps less, {margin('learned', 'covered_contested')}; on "
        f"all covered ones {margin('learned', 'covered')}. On questions that are not covered it is "
        f"the other way round: in {only} of {without} only a distractor is a trained answer, and "
        f"the effect there is {margin('learned', 'distractor_trained')}; that is why the margin "
        "can fall. The control that separates the two is `--controls shuffled-within`, which "
        "trains the article's answers to the wrong questions: what gain it shows is not knowledge "
        f"of facts; {control}"
    )


def _of(share: Result) -> str:
    """k of n, and the share where there is one."""
    part = "" if share["value"] is None else f" ({100 * share['value']:.1f} %)"
    return f"{share['k']} of {share['n']}{part}"


def _aa(result: Result) -> str:
    if not result["aa"]:
        return ""
    rows = [
        [NAMES[m], f"{a['k']} of {a['n']}", f"{100 * a['share']:.1f} %",
         f"{100 * a['lower']:.1f} … {100 * a['upper']:.1f}",
         "holds" if a["lower"] <= a["promised"] <= a["upper"] else "**does not hold**"]
        for m, a in result["aa"].items()
    ]  # fmt: skip
    return (
        "## A/A: labels permuted\n\nThe effect is taken out of the stored scores and the articles' "
        "labels are drawn anew. A lower bound above 0 is then a false alarm; "
        "2.5 % are promised.\n\n"
        + table(["Metric", "false alarms", "share", "95 %", "promise"], rows)
    )


def _books(books: Result) -> str:
    cells = [
        [_cell_name(name), *(interval(m, figures[m]) for m in NAMES), str(figures["em"]["n"])]
        for name, figures in books["cells"].items()
    ]
    contrasts = [
        [name, *(interval(m, figures[m], signed=True) for m in NAMES),
         verdict(figures["margin"])]
        for name, figures in books["contrasts"].items()
    ]  # fmt: skip
    missed = books["missed"]
    return "\n\n".join(
        [
            "## Weights and retrieval",
            "![The 2 × 2](books.png)",
            "Questions on taught articles, closed book, with BM25's best three passages of the "
            "taught articles, and with the passage that holds the answer (oracle). In "
            f"{missed['k']} of {missed['n']} questions no retrieved passage holds an answer.",
            table(["Model", *NAMES.values(), "n"], cells),
            table(["Difference", *NAMES.values(), "margin above 0?"], contrasts),
        ]
    )


def _cell_name(name: str) -> str:
    model, _, condition = name.partition("/")
    named = {"closed": "closed book", "bm25": "BM25", "oracle": "oracle"}
    return f"{model}, {named[condition]}"


def _drift(result: Result) -> str:
    base = result["general_base"]

    def change(now: float | None, before: float | None) -> str:
        return "–" if now is None or before is None else f"{now - before:+.3f}".replace("-", "−")

    rows = [["base", *(f"{base[k]:.3f}" if base[k] is not None else "–"
                       for k in ("anchors", "wikitext"))]]  # fmt: skip
    rows += [
        [arm["name"], *(change(arm["general"][k], base[k]) for k in ("anchors", "wikitext"))]
        for arm in result["arms"]
    ]
    return (
        "## General language\n\nNLL in nat a token on text that the base wrote and no arm was "
        f"trained on ({base['blocks']} blocks), and on WikiText-2's validation text "
        f"({base['wikitext_blocks']} blocks): the base, then each arm's change.\n\n"
        + table(["Model", "held-out anchors", "WikiText-2"], rows)
    )


def _streams(streams: Sequence[Result]) -> str:
    if not streams:
        return ""
    rows = []
    for stream in streams:
        for cycle in range(1, stream["cycles"] + 1):
            own = [r for r in stream["matrix"] if r.get("learned_in") == cycle]
            for age in sorted({0, 1, 10, 50, stream["cycles"] - cycle}):
                now = [r for r in own if r["after"] == cycle + age]
                if now:
                    margin = sum(r["margin"] * r["n"] for r in now) / sum(r["n"] for r in now)
                    choice = sum(r["choice"] * r["n"] for r in now) / sum(r["n"] for r in now)
                    rows.append([stream["arm"], str(cycle), f"+{age}",
                                 number("margin", margin, signed=True),
                                 number("choice", choice, signed=True),
                                 str(sum(r["n"] for r in now))])  # fmt: skip
    return (
        "## Retention\n\n![Retention](retention.png)\n\nGains over the base on each cycle's "
        "articles, right after that cycle (+0) and later.\n\n"
        + table(["Arm", "learned in cycle", "measured after", "margin", "choice", "n"], rows)
    )


def _training(result: Result) -> str:
    rows = [
        [arm["name"], str(sum(c["steps"] for c in arm["cycles"])),
         f"{sum(c['train_s'] for c in arm['cycles']) / 60:.1f}",
         f"{sum(c['passes'] for c in arm['cycles']):.1f}",
         str(sum(c["sequences"] for c in arm["cycles"])),
         str(sum(c["dropped"] for c in arm["cycles"])),
         f"{arm['cycles'][-1]['loss']:.2f}"]
        for arm in result["arms"]
    ]  # fmt: skip
    head = ["Arm", "steps", "minutes", "passes", "sequences", "dropped", "last loss"]
    return (
        "## Training\n\n*Dropped* are made examples whose question overlaps a human one.\n\n"
        + table(head, rows)
    )


def _method(result: Result) -> str:
    return (
        "## How to read this\n\n"
        "- Margin: mean log-probability a token of the right answer minus that of the likeliest of "
        "three distractors, answers to other questions on the same article, of the same type and "
        "about as long where there are such. Four-way choice: the right one is the likeliest; "
        "chance is 25.\n"
        "- The right answer is the shortest gold answer. Exact match and F1 take the best of all "
        "gold answers, greedy replies, SQuAD's normalisation. A base that answers in sentences "
        "has no exact matches whatever it knows; the difference in differences takes form out, "
        "since control articles gain it too.\n"
        "- NLL falls on control articles as well: the form of answers is learned there too. It "
        "decides nothing.\n"
        f"- Few clusters make wide intervals: there are {result['parameters']['articles']} "
        "articles a seed. p is exact for the lots that were drawn.\n"
        "- Placebo and shuffled controls have no swapped arm; their two groups are resampled "
        "independently and they have no p."
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
