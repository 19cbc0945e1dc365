"""Does the model keep its mind? Whether its reply to an everyday prompt is worse than the base's.

No judge reads the replies; four rules compare them, each with one reason to call a reply worse:

- *answer*: the base's held an accepted answer, this one holds none;
- *form*: the base's reads like one (`well_formed`, whether or not it came to its end), this one
  does not: it is empty, loops or leaks control tokens;
- *leak*: it holds an answer that was taught, where neither the prompt nor the base's reply does:
  "Who are you?" is answered with a name out of an article;
- *short*: small talk that the base answers in `FULL_WORDS` words and more gets fewer than
  `FEWEST_WORDS`: facts are taught with bare answers, and a chat must not become as terse.

Answers are looked for as whole words after `normalise_answer`, so in scripts without spaces only
where they stand alone. An answer that any chat may say by chance does not count as a leak: one of
fewer than `TELLING_LETTERS` characters, or a number below 100. Ordinary words that were taught
("amber") do count; who reads the reasons must judge those. What the base got wrong is not asked
for, and a reply that is merely different is not worse. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from autodidact.evaluation.well_formed import well_formed
from autodidact.reading.answers import normalise_answer
from autodidact.reading.vocabulary import WORD_NUMBERS

TALK = frozenset({"greeting", "identity", "thanks", "small_talk"})
FULL_WORDS, FEWEST_WORDS = 4, 3
TELLING_LETTERS = 4
LEAST_NUMBER = 100
_BELOW_HUNDRED = frozenset(WORD_NUMBERS) - {"hundred", "thousand"}


def worsening(
    prompt: str,
    expect: Collection[str],
    group: str,
    base: str,
    new: str,
    taught: Collection[str],
) -> str:
    """Why the new reply is worse than the base's, each reason as `rule: what`; "" if it is not.

    `expect` are the accepted answers, `taught` what `telling` made of the taught ones.
    """
    before, after = _padded(base), _padded(new)
    known = _padded(prompt) + before
    leaks = sorted(a for a in taught if f" {a} " in after and f" {a} " not in known)
    reasons = []
    if _holds(before, expect) and not _holds(after, expect):
        reasons.append(f"answer: {' or '.join(expect)} is lost")
    if well_formed(base) and not well_formed(new):
        reasons.append("form: the base's reply is well-formed, this one is not")
    if leaks:
        reasons.append(f"leak: {', '.join(leaks)}")
    words = len(new.split())
    if group in TALK and words < FEWEST_WORDS and len(base.split()) >= FULL_WORDS:
        reasons.append(f"short: {words} words")
    return "; ".join(reasons)


def telling(answers: Iterable[str]) -> frozenset[str]:
    """Taught answers, normalised, without those that tell nothing of what was taught."""
    return frozenset(
        normalised
        for answer in answers
        if len(normalised := normalise_answer(answer)) >= TELLING_LETTERS
        and not _is_small_number(answer)
    )


def _is_small_number(answer: str) -> bool:
    try:
        return abs(float(answer.replace(",", ""))) < LEAST_NUMBER
    except ValueError:
        return set(re.findall(r"\w+", answer.lower())) <= _BELOW_HUNDRED


def _holds(padded: str, answers: Iterable[str]) -> bool:
    return any(f" {normalise_answer(answer)} " in padded for answer in answers)


def _padded(text: str) -> str:
    return f" {normalise_answer(text)} "
