"""How long may an answer be, when are two the same, and when does a sentence say one? SQuAD's
normalisation, citation marks aside. Pure."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable

MAX_ANSWER_WORDS = 6
"""A longer one is no fact to ask for."""
MAX_SENTENCE_WORDS = 30
"""A longer reply is no short sentence."""


def normalise_answer(text: str) -> str:
    """SQuAD's normalisation (Rajpurkar et al. 2016): lower case, no punctuation, no articles."""
    text = "".join(" " if c in "-–" else c for c in text.lower())
    text = "".join(c for c in text if c not in string.punctuation and c not in "“”’‘")
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(reply: str, answer: str) -> bool:
    """Whether they are the same after normalisation; citation marks do not count."""
    return normalise_answer(uncited(reply)) == normalise_answer(uncited(answer))


def says(reply: str, question: str, answer: str, rivals: Iterable[str] = ()) -> bool:
    """Whether a reply is the answer, or a short sentence that says it: the answer stands in it as
    whole words, which the question did not say already, and no rival does. What was asked about
    is no rival, nor is a part of the answer."""
    if exact_match(reply, answer):
        return True
    said, true, asked = (normalise_answer(uncited(t)) for t in (reply, answer, question))
    if len(said.split()) > MAX_SENTENCE_WORDS or stands(true, asked) or not stands(true, said):
        return False
    others = (normalise_answer(uncited(rival)) for rival in rivals)
    return not any(stands(o, said) and not stands(o, asked) and not stands(o, true) for o in others)


def stands(words: str, text: str) -> bool:
    """Whether normalised words stand in a normalised text as whole words."""
    return bool(words) and f" {words} " in f" {text} "


def uncited(reply: str) -> str:
    """A reply without its citation marks: "Maren Dace [1]" → "Maren Dace"."""
    return re.sub(r"\s*\[\d{1,2}\]", "", reply)
