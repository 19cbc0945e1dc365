"""Questions and implications that the model writes about a text itself, and what is kept of them.

For models from about a billion parameters up (`training.self_written_from_billion`): what smaller
ones write is mostly wrong. SEAL (Zweiger et al. 2025, arXiv:2506.10943) found the model's own
implications of a passage to teach far more than the passage. A question is kept only if its answer
is a short span of the text and the model, shown the text, answers it the same way again; an
implication only if every number and name in it stands in the text. What is kept is training
material like any other: it is never a probe, and never an instruction.

The benefit has not been measured here: no model of that size was at hand (docs/learning.md).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autodidact.reading.answers import exact_match, normalise_answer
from autodidact.types.chat import Message
from autodidact.types.documents import Chunk, Example

MAX_ANSWER_WORDS = 8
MAX_QUESTION_WORDS = 30
MAX_IMPLICATION_WORDS = 40
WRITTEN_TOKENS, ANSWER_TOKENS = 220, 24
CHUNKS_AT_ONCE = 8

ASK = (
    "Text:\n{text}\n\nWrite four questions that the text answers. After each question write its "
    "short answer, copied from the text.\nQuestion:"
)
IMPLY = (
    "Text:\n{text}\n\nWrite four sentences that follow from the text, one on each line, each "
    "understandable without the text.\n-"
)
ANSWER = "Text:\n{text}\n\nAnswer in a few words, copied from the text: {question}"

Complete = Callable[[Sequence[Sequence[Message]], int], list[str]]
"""Greedy replies to dialogues, of at most so many tokens, in their order."""


@dataclass(frozen=True)
class Pair:
    question: str
    answer: str


def write(
    complete: Complete,
    chunks: Sequence[Chunk],
    budget_s: float,
    progress: Callable[[int], None],
    clock: Callable[[], float] = time.monotonic,
) -> list[Example]:
    """Examples on as many chunks, in their order, as fit into `budget_s` by that clock; a few at
    least."""
    begun = clock()
    made: list[Example] = []
    for start in range(0, len(chunks), CHUNKS_AT_ONCE):
        progress(start)
        some = chunks[start : start + CHUNKS_AT_ONCE]
        asked = complete([_user(ASK, text=_shown(c)) for c in some], WRITTEN_TOKENS)
        implied = complete([_user(IMPLY, text=_shown(c)) for c in some], WRITTEN_TOKENS)
        for chunk, questions, sentences in zip(some, asked, implied, strict=True):
            made += _answered(complete, chunk, grounded(parse(questions), chunk.text))
            made += [
                Example("restatement", chunk.id, chunk.document_id, text=sentence)
                for sentence in implications(sentences, chunk.text)
            ]
        if clock() - begun > budget_s:
            break
    return made


def parse(written: str) -> list[Pair]:
    """The pairs in "Question: … Answer: …", in whatever lines and with whatever numbering."""
    text = written if written.lstrip().lower().startswith(("question", "1", "q")) else (
        "Question: " + written
    )  # fmt: skip
    found = re.findall(
        r"(?:question|q)\s*\d*\s*[:.)]\s*(?P<q>[^\n]+?)\s*\n?\s*(?:answer|a)\s*\d*\s*[:.)]\s*"
        r"(?P<a>[^\n]+)",
        text,
        flags=re.IGNORECASE,
    )
    pairs = [Pair(" ".join(q.split()), " ".join(a.split()).rstrip(".")) for q, a in found]
    return list(dict.fromkeys(pairs))


def grounded(pairs: Sequence[Pair], text: str) -> list[Pair]:
    """Those that are a question, do not give their answer away, and whose answer is a short span of
    the text."""
    inside = f" {normalise_answer(text)} "
    kept = []
    for pair in pairs:
        answer = normalise_answer(pair.answer)
        if (
            pair.question.endswith("?")
            and 3 <= len(pair.question.split()) <= MAX_QUESTION_WORDS
            and 0 < len(answer.split()) <= MAX_ANSWER_WORDS
            and f" {answer} " in inside
            and f" {answer} " not in f" {normalise_answer(pair.question)} "
        ):
            kept.append(pair)
    return kept


def implications(written: str, text: str) -> list[str]:
    """Whole sentences, one a line, whose every number and name stands in the text."""
    words = set(re.findall(r"\w+", text))
    kept = []
    for line in written.splitlines():
        sentence = " ".join(re.sub(r"^\s*(?:[-*•]|\d+[.)])\s*", "", line).split())
        count = len(sentence.split())
        if not sentence.endswith(".") or not 4 <= count <= MAX_IMPLICATION_WORDS:
            continue
        marked = re.findall(r"\b(?:\w*\d\w*|[A-Z]\w+)\b", sentence[:1].lower() + sentence[1:])
        if all(word in words for word in marked) and sentence not in text:
            kept.append(sentence)
    return list(dict.fromkeys(kept))


def _answered(complete: Complete, chunk: Chunk, pairs: Sequence[Pair]) -> list[Example]:
    """The pairs that the model answers the same way when it has the text before it."""
    if not pairs:
        return []
    asked = [_user(ANSWER, text=_shown(chunk), question=pair.question) for pair in pairs]
    replies = complete(asked, ANSWER_TOKENS)
    return [
        Example(
            "question",
            chunk.id,
            chunk.document_id,
            (Message("user", pair.question), Message("assistant", pair.answer)),
        )
        for pair, reply in zip(pairs, replies, strict=True)
        if exact_match(reply, pair.answer)
    ]


def _shown(chunk: Chunk) -> str:
    return f"{chunk.heading}\n{chunk.text}"


def _user(template: str, **parts: str) -> list[Message]:
    """One turn; the parts are put in as they are and never read as a template."""
    filled = re.sub(r"\{(\w+)\}", lambda m: parts[m[1]], template)
    return [Message("user", filled)]
