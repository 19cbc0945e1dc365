"""How long may an answer be, and when are two the same? SQuAD's normalisation, citation marks
aside. Pure."""

from __future__ import annotations

import re
import string

MAX_ANSWER_WORDS = 6
"""A longer one is no fact to ask for."""


def normalise_answer(text: str) -> str:
    """SQuAD's normalisation (Rajpurkar et al. 2016): lower case, no punctuation, no articles."""
    text = "".join(" " if c in "-–" else c for c in text.lower())
    text = "".join(c for c in text if c not in string.punctuation and c not in "“”’‘")
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(reply: str, answer: str) -> bool:
    """Whether they are the same after normalisation; citation marks do not count."""
    return normalise_answer(uncited(reply)) == normalise_answer(uncited(answer))


def uncited(reply: str) -> str:
    """A reply without its citation marks: "Maren Dace [1]" → "Maren Dace"."""
    return re.sub(r"\s*\[\d{1,2}\]", "", reply)
