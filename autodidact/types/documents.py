"""What is read and made of it: documents, chunks, facts, examples, probes, passages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autodidact.types.chat import Message

GAP = "____"
"""Where an answer stands in a sentence."""
Split = Literal["taught", "unseen", "control", "kept", "forgotten"]
"""What a probe is for. `unseen` probes ask about taught documents in wordings that are never
trained for any fact: they are reported and decide nothing."""


@dataclass(frozen=True)
class Document:
    """One text as a source delivered it. `digest` is the sha256 of the normalised text."""

    source: str
    uri: str
    title: str
    text: str
    license: str
    digest: str
    cursor: str


@dataclass(frozen=True)
class Chunk:
    """A piece of a document that fits a training sequence; `id` is `<document id>:<ordinal>`."""

    id: str
    document_id: int
    heading: str
    text: str


@dataclass(frozen=True)
class Fact:
    """A (subject, relation, answer) that a rule read in one sentence of a chunk.

    `questions` are equivalent wordings of the same question. `relation` names the rule together
    with what distinguishes it (verb, noun), so that facts of one relation compete as distractors.
    """

    chunk_id: str
    subject: str
    relation: str
    kind: str
    answer: str
    sentence: str
    questions: tuple[str, ...]
    restatements: tuple[str, ...]
    unseen: str = ""
    """A wording that is never trained for any fact, only measured; "" if the rule has none."""
    probe: int = -1
    """Which of the questions is the probe's, once that is settled; -1 before."""
    suggestion: int = -1
    """Which one is kept for people."""
    stated: str = ""
    """A short sentence that answers every one of the questions, with `GAP` for the answer; "" if
    there is none."""


@dataclass(frozen=True)
class Findings:
    """All that the rules found in one document."""

    document_id: int
    title: str
    chunks: tuple[Chunk, ...]
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Example:
    """One training sequence. Either `messages` (loss on the last, the assistant's) or `text`
    (loss on all of it). `kind` is question, cloze, reversed, restatement or text; `fact` is the id
    of the probe on the same fact, "" where the sequence is about no single one; `sentence` what the
    assistant says where the model answers in sentences, "" for the same as always."""

    kind: str
    chunk_id: str
    document_id: int
    messages: tuple[Message, ...] = ()
    text: str = ""
    fact: str = ""
    sentence: str = ""


@dataclass(frozen=True)
class Material:
    """What is stored of a document to learn and to ask: made once, by rules of this version."""

    rules: int
    findings: Findings
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Probe:
    """A question frozen before training, in a wording that training never shows for its fact."""

    id: str
    document_id: int
    question: str
    answer: str
    distractors: tuple[str, ...]
    kind: str
    relation: str
    wording: str
    split: Split
    same: int = 0
    """How many of the distractors, the first ones, are answers of the same document."""
    stated: str = ""
    """As the fact has it."""


@dataclass(frozen=True)
class LearnedFact:
    """A learned fact. `then` and `now`: mean log-probability a token of its answer when it was
    learned and when it was last measured; None if it never was."""

    fact: str
    document_id: int
    learned_in: int
    then: float | None = None
    now: float | None = None

    @property
    def faded(self) -> float | None:
        if self.then is None or self.now is None:
            return None
        return max(0.0, self.then - self.now)


@dataclass(frozen=True)
class Passage:
    """A piece of a learned document, as it is put before a question and cited. `number` is its
    mark in the prompt and in the citations, from 1; `date` is the day it was read, as ISO 8601."""

    number: int
    document_id: int
    title: str
    uri: str
    date: str
    text: str
