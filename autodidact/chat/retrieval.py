"""Passages of learned documents for a question: which are relevant, and how they reach the model.

Relevance is decided by words alone. Each telling word of the question weighs as much as it is rare
among the documents of the index (inverse document frequency, Spärck Jones, 1972, in the form that
BM25 uses); a word that no document holds weighs most. A passage is relevant if it holds at least
`retrieval.relevance` of that weight, its title included, and if one of the words that it holds is
rare: "When was it built?" is about no document in particular, whatever was built. Otherwise the
question is answered from memory, with the same prompt as if there were no index.

What is guaranteed: a passage is data for this program. It stands in the user's turn, quoted, each
on one line of its own behind its number, before the line with the question; it cannot end that
line, begin another turn, or carry another passage's number. Control tokens in it are neutralised
where the prompt is encoded (`prompts.prompt_ids`), and marks such as "System:" at the beginnings of
its lines are taken out here. It never changes settings, tools, the system text or other turns; it
is stored with the reply, never with the question, and later prompts do not repeat it.

What is not guaranteed: what the model makes of it. Words in a passage may sway a reply as words in
a question may.
"""

from __future__ import annotations

import logging
import math
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from autodidact.errors import AutodidactError
from autodidact.settings import RetrievalSettings
from autodidact.store.passages import Hit, PassageIndex, telling
from autodidact.types.chat import Message, ModelStatus
from autodidact.types.documents import Passage

CANDIDATES = 24
"""The best passages by BM25 that are looked at."""
READERS = 100_000_000
"""From this many parameters up a model is given passages unasked. Measured (docs/learning.md): the
bundled model of 8.4 million gives fewer exact answers with passages than from memory."""
RARE_SHARE = 0.1
RARE_AT_LEAST = 3
"""A word is rare if it occurs in at most this share of the documents, or in this many."""

_ROLE = re.compile(
    r"^[\s>#*_\-\[(<|]*(?:system|user|human|assistant|bot|ai|tool|developer|question|answer|"
    r"instructions?|passages?)[\s\])>|*_]*[:\uff1a][\s*_]*",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\[\s*(\d+)\s*\]")
_UNSEEN = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200b\u200e\u200f\u202a-\u202e"
                     r"\u2060-\u2069\ufeff\ud800-\udfff]")  # fmt: skip

log = logging.getLogger(__name__)


class Library:
    """What replies may look up: `<home>/passages.db`, which the learner keeps."""

    def __init__(self, path: Path, settings: RetrievalSettings) -> None:
        self._settings = settings
        self._index = PassageIndex(path, readonly=True)
        self._said = ""

    def wanted(self, model: ModelStatus) -> bool:
        """Whether this model is given passages where a request does not say."""
        return by_default(self._settings.enabled, model.parameters)

    def find(self, question: str) -> tuple[Passage, ...]:
        """The relevant passages, best first. Never fails: an index that cannot be read has none,
        and says so once in the log."""
        try:
            found = self._find(question)
        except (AutodidactError, sqlite3.Error, OSError) as error:
            if str(error) != self._said:
                self._said = str(error)
                log.warning("replies come from memory: %s", error)
            return ()
        self._said = ""
        return found

    def _find(self, question: str) -> tuple[Passage, ...]:
        hits = self._index.search(question, CANDIDATES)
        if not hits:
            return ()
        frequencies = self._index.frequencies(telling(question))
        chosen = relevant(hits, frequencies, self._index.documents(), self._settings.relevance)
        return tuple(_passage(n, hit) for n, hit in enumerate(chosen[: self._settings.passages], 1))


def by_default(setting: bool | None, parameters: int) -> bool:
    """Whether passages are looked up where a request does not say: as the setting says, and where
    it is not set, if the model has at least `READERS` parameters. 0 parameters mean a model that
    has not loaded yet or does not tell; of it nothing is known that would speak against passages.
    """
    if setting is not None:
        return setting
    return parameters == 0 or parameters >= READERS


def weight(frequency: int, documents: int) -> float:
    """Inverse document frequency in nats, above 0: of a word that `frequency` documents hold."""
    return math.log1p((documents - frequency + 0.5) / (frequency + 0.5))


def relevant(
    hits: Sequence[Hit], frequencies: Mapping[str, int], documents: int, least: float
) -> list[Hit]:
    """The hits that hold at least `least` of the words' weight and one rare word; those that hold
    most come first, and by BM25 among equals. `frequencies` has every telling word."""
    weights = {word: weight(n, documents) for word, n in frequencies.items()}
    whole = sum(weights.values())
    often = max(RARE_AT_LEAST, RARE_SHARE * documents)
    rare = {word for word, n in frequencies.items() if n <= often}

    def share(hit: Hit) -> float:
        return sum(sorted(weights[word] for word in hit.words)) / whole

    # Sums of the same numbers may differ in their last digit.
    chosen = [hit for hit in hits if hit.words & rare and share(hit) >= least - 1e-9]
    return sorted(chosen, key=lambda hit: (-round(share(hit), 6), -hit.score))


def prompt(question: str, passages: Sequence[Passage]) -> str:
    """The user's turn: the passages as numbered quotations, then the question. Without passages,
    the question as it is."""
    if not passages:
        return question
    lines = [f"[{passage.number}] {passage.title}: {passage.text}" for passage in passages]
    return "\n".join(["Passages:", *lines, "", f"Question: {question}"])


def quoted(text: str) -> str:
    """Text as one line of data: no role marks at the beginnings of its lines, no invisible
    characters, and no number in brackets, which only our own quotations have."""
    lines = (_unmarked(_UNSEEN.sub("", line)) for line in text.splitlines())
    return " ".join(_NUMBER.sub(r"(\1)", " ".join(lines)).split())


def within(
    passages: Sequence[Passage],
    question: str,
    size: Callable[[Sequence[Message]], int],
    most: int,
) -> tuple[Passage, ...]:
    """The passages that together add at most the size `most` to the question (in tokens, or
    whatever `size` measures), numbered anew; one that is too long for what is left is passed over.
    """
    kept: tuple[Passage, ...] = ()
    plain = size([Message("user", question)]) if passages else 0
    for passage in passages:
        more = (*kept, _numbered(passage, len(kept) + 1))
        if size([Message("user", prompt(question, more))]) - plain <= most:
            kept = more
    return kept


def _unmarked(line: str) -> str:
    while (shorter := _ROLE.sub("", line)) != line:
        line = shorter
    return line


def _passage(number: int, hit: Hit) -> Passage:
    return Passage(number, hit.document_id, quoted(hit.title), hit.uri, hit.date, quoted(hit.text))


def _numbered(passage: Passage, number: int) -> Passage:
    return Passage(
        number, passage.document_id, passage.title, passage.uri, passage.date, passage.text
    )
