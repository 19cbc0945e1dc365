"""The dataclasses that travel between modules, and the protocols that modules meet behind.

Everything here is frozen and free of behaviour: no I/O, no torch, no SQL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Role = Literal["system", "user", "assistant"]
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
class Message:
    role: Role
    content: str


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


@dataclass(frozen=True)
class Example:
    """One training sequence. Either `messages` (loss on the last, the assistant's) or `text`
    (loss on all of it). `kind` is question, cloze, reversed, restatement or text; `fact` is the id
    of the probe on the same fact, "" where the sequence is about no single one."""

    kind: str
    chunk_id: str
    document_id: int
    messages: tuple[Message, ...] = ()
    text: str = ""
    fact: str = ""


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


@dataclass(frozen=True)
class Metric:
    name: str
    value: float
    stderr: float
    n: int


@dataclass(frozen=True)
class Verdict:
    """The gate's decision. `reasons` says why not (empty when ok); `metrics` is what it saw."""

    ok: bool
    reasons: tuple[str, ...]
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A published version, as its manifest tells it. `parent` is None for a child of the base."""

    version: int
    parent: int | None
    manifest: dict[str, Any]


@dataclass(frozen=True)
class SamplingParams:
    """How one reply is sampled. Temperature 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 set no
    limit. They apply in the order of `transformers`: penalties, temperature, top-k, top-p, min-p.

    `repetition_penalty` (Keskar et al. 2019) counts the prompt too; `presence_penalty` and
    `frequency_penalty` (OpenAI) count the reply only. A reply ends before the first of the `stop`
    strings. `logprobs` asks for the log-probability of each token under the model itself (before
    penalties and temperature) and of that many likeliest others; None asks for none.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 50
    max_new_tokens: int = 512
    seed: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    logprobs: int | None = None


Finish = Literal["stop", "length", "time"]
"""Why a reply ended: by itself or at a stop string, at its maximum of tokens, at its deadline."""


@dataclass(frozen=True)
class TokenLogprob:
    """A token of a reply, its log-probability in nats, and the likeliest tokens at its place."""

    token: str
    data: bytes
    logprob: float
    top: tuple[tuple[str, bytes, float], ...] = ()


@dataclass(frozen=True)
class Delta:
    """A piece of a streamed reply: new text and how many tokens it took. The last one carries
    `finish` (its text may be empty). `logprobs` has an entry a token, where they were asked for."""

    text: str
    tokens: int
    finish: Finish | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class ServedModel:
    """A name that a request may give as `model`. `created` is Unix time."""

    id: str
    version: int
    created: float
    role: Literal["newest", "pinned", "kept", "base"]


@dataclass(frozen=True)
class Prepared:
    """A request that is sure to fit: the prompt's tokens, the room left, the version that answers
    (0 is the untouched base) and the parameters with every blank filled in."""

    version: int
    prompt_ids: tuple[int, ...]
    room: int
    params: SamplingParams
    handle: Any = field(repr=False, compare=False)


@dataclass(frozen=True)
class ModelStatus:
    """What serves now. `live` is the version (0: the untouched base), `since` its Unix time,
    `parameters` the base's (0 until it has loaded)."""

    state: Literal["loading", "ready", "failed"]
    name: str
    fallback: bool
    context: int
    live: int
    since: float
    reason: str = ""
    rejected: str = ""
    parameters: int = 0


class Source(Protocol):
    """Where documents come from. `since` is the last cursor that was stored, or None."""

    name: str

    def documents(self, since: str | None) -> Iterator[Document]: ...


class Generator(Protocol):
    """What answers. `prepare` raises a `GeneratorError`; closing the iterator of `stream` stops
    the generation within one token."""

    def status(self) -> ModelStatus: ...

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt that these messages make, generation mark included."""
        ...

    def prepare(
        self, messages: Sequence[Message], params: SamplingParams, model: str | None = None
    ) -> Prepared: ...

    def prepare_text(self, text: str, params: SamplingParams, model: str | None = None) -> Prepared:
        """As `prepare`, to go on with a text instead of answering in a dialogue."""
        ...

    def models(self) -> Sequence[ServedModel]:
        """What a request may ask for by name, the newest first, the base last."""
        ...

    def stream(self, prepared: Prepared) -> Iterator[Delta]: ...
