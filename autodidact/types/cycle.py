"""What a learning cycle decides and publishes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from autodidact.types.documents import Chunk, Example, Probe, Split

CHANCE = 0.05
"""How often all bounds of a cycle together may err, one-sided."""
Kind = Literal["learn", "consolidate", "forget"]
MeasuredBy = Literal["torch", "onnx"]
CycleState = Literal["running", "published", "rejected", "failed", "interrupted"]
RULES = ("sound", "learned", "general", "kept", "chat", "mind", "consolidation")
"""Every rule that can refuse a candidate, by its name."""


@dataclass(frozen=True)
class Reason:
    """Why something was refused: the rule that did it, "" where none did, and the words."""

    rule: str
    text: str

    @property
    def line(self) -> str:
        return f"{self.rule}: {self.text}" if self.rule else self.text


@dataclass(frozen=True)
class RuleResult:
    """What one rule of the gate found against one version. Figures that are not finite, or that
    there are none of, are None; `unit` is that of all of them (nat or share)."""

    rule: str
    against: str
    ok: bool
    value: float | None
    lower: float | None
    upper: float | None
    limit: float
    before: float | None
    now: float | None
    n: int
    unit: str
    text: str
    p: float | None = None
    """Where it is given it decides, and `limit` is the most that it may be."""
    excused: bool = False
    """It failed and refuses nothing, because other evidence for the same rule passed."""

    @property
    def refuses(self) -> bool:
        return not self.ok and not self.excused


@dataclass(frozen=True)
class Count:
    """k of n, and how many `before`; None where nothing came before."""

    k: int
    n: int
    before: int | None = None


@dataclass(frozen=True)
class MarginRise:
    """The rise of the margin, taught less control, in nats a token, with the one-sided lower bound
    at the level of *learned*; None is not finite."""

    value: float | None
    stderr: float | None
    lower: float | None
    n: int


@dataclass(frozen=True)
class GeneralNll:
    """Mean NLL a token of `n` blocks of held-out text; `rise` is the candidate's over the base,
    `pct` the same in per cent; None is not finite."""

    base: float | None
    parent: float | None
    candidate: float | None
    rise: float | None
    limit: float
    pct: float | None
    n: int


@dataclass(frozen=True)
class ChatFigures:
    """Replies that are well-formed."""

    base: Count
    parent: Count
    candidate: Count


@dataclass(frozen=True)
class Figures:
    """All that the gate saw: exact answers by split, the margin, general text, chat."""

    taught: Count
    unseen: Count
    control: Count
    kept: Count
    margin: MarginRise
    general: GeneralNll
    chat: ChatFigures


@dataclass(frozen=True)
class Verdict:
    """A decision. `reasons` says why not (empty when ok); `results` is what each rule of the gate
    found, `figures` what it saw."""

    ok: bool
    reasons: tuple[Reason, ...]
    results: tuple[RuleResult, ...] = ()
    figures: Figures | None = None

    @property
    def rules(self) -> tuple[str, ...]:
        """Names of the rules that failed, each once."""
        return failed(self.reasons)

    @property
    def lines(self) -> tuple[str, ...]:
        return lines(self.reasons)


def failed(reasons: Iterable[Reason]) -> tuple[str, ...]:
    """The rules that these reasons name, each once."""
    return tuple(dict.fromkeys(reason.rule for reason in reasons if reason.rule))


def lines(reasons: Iterable[Reason]) -> tuple[str, ...]:
    """The reasons as people read them."""
    return tuple(reason.line for reason in reasons)


def reasons_from_json(stored: object) -> tuple[Reason, ...]:
    """Reasons as they are stored: a list of `{"rule", "text"}`. Versions before this one wrote each
    as one text, "rule: text" where a rule refused; those are read here too, and only here."""
    found = []
    for entry in stored if isinstance(stored, list) else ():
        if isinstance(entry, dict):
            found.append(Reason(str(entry.get("rule", "")), str(entry.get("text", ""))))
            continue
        rule, colon, text = str(entry).partition(": ")
        known = colon and rule in RULES
        found.append(Reason(rule, text) if known else Reason("", str(entry)))
    return tuple(found)


@dataclass(frozen=True)
class Limits:
    """What a candidate may cost, in nats a token and in shares of chat prompts, and at how many
    step sizes of a cycle the gate may look."""

    general_limit: float
    general_step: float
    kept_limit: float
    kept_step: float
    chat_limit: float
    chat_step: float
    mind_limit: float = 0.15
    mind_step: float = 0.05
    looks: int = 3

    @property
    def level(self) -> float:
        """Of each one-sided bound (Bonferroni)."""
        assert self.looks >= 1
        return 1 - CHANCE / self.looks

    @property
    def learned_level(self) -> float:
        """The same for *learned*, which two kinds of evidence may show: each has half."""
        return 1 - (1 - self.level) / 2


@dataclass(frozen=True)
class JobBase:
    """The base model of a job, and where it lies."""

    name: str
    path: str
    sha256: str
    revision: str


@dataclass(frozen=True)
class Parent:
    """The version that a job goes on from, and its folder."""

    version: int
    path: str


@dataclass(frozen=True)
class Lesson:
    """A document that is offered to learn. `chunks` are for a model that writes of its own."""

    document_id: int
    chunks: tuple[Chunk, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Baseline:
    """General text and chats of one version, as a cycle before measured them, by this runtime."""

    general: tuple[float, ...] = ()
    chat: tuple[bool, ...] = ()
    replies: tuple[str, ...] = ()
    runtime: MeasuredBy = "torch"


@dataclass(frozen=True)
class ProbeResult:
    """How a version answered a probe: the greedy reply, 1 where it is exact, the mean
    log-probability a token of the true answer, and its margin over the strongest distractor, in
    nats."""

    probe_id: str
    reply: str
    correct: int
    logprob: float
    margin: float
    within: float | None = None
    """The margin over the answers of the same document alone; None if none of them competes."""


ArmName = Literal["base", "parent", "candidate"]
ARMS: tuple[ArmName, ...] = ("base", "parent", "candidate")


@dataclass(frozen=True)
class Measurement:
    """What was measured of one version. `step` is λ, how much of the way from the parent it goes;
    `general` the NLL a token of each block of held-out text, `chat` whether each reply was
    well-formed, `replies` those to the held-out prompts of our own, which come first, and `worse`
    for each of these why it is worse than the base's, or "". `runtime` computed it."""

    arm: ArmName
    step: float
    rows: tuple[ProbeResult, ...]
    general: tuple[float, ...]
    chat: tuple[bool, ...]
    replies: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()
    runtime: MeasuredBy = "torch"


@dataclass(frozen=True)
class Plan:
    """What a study set out to do, once the speed of the machine was known.

    `documents` are those taken, in order; `steps` how many are planned, `most_steps` how many are
    worth doing, `steps_a_pass` those that show everything once; `replay` is the share of earlier
    facts; `train_s` the seconds set aside for training; `autocast` whether products are in
    bfloat16; `forms` how often a pass shows a fact.
    """

    documents: tuple[int, ...]
    steps: int
    most_steps: int
    steps_a_pass: int
    replay: float
    train_s: float
    seconds_per_step: float
    autocast: bool = False
    forms: float = 7.0


@dataclass(frozen=True)
class Job:
    """All that a study process needs. `replay` are examples of earlier facts, `shares` how often
    each fact is due; `when_learned` is the log-probability of each earlier answer then; `limits`
    how many probes of a split are asked; `known` is by arm ("base", "parent"); `rise` is what the
    parent has drifted. `training` are the settings of that name; `anchors` a file that may not be
    there yet. `steps` fixes what time sets otherwise. What is computed at once was halved
    `halvings` times, for want of memory. `runtime` is what the server is set to, `graphs` the
    folder in which it keeps its graphs, if it does."""

    cycle: int
    kind: Kind
    minutes: float
    spent_s: float
    frozen_at: float
    base: JobBase
    parent: Parent | None
    fresh: bool
    lessons: tuple[Lesson, ...]
    replay: tuple[Example, ...]
    shares: dict[str, float]
    forgets: tuple[int, ...]
    probes: tuple[Probe, ...]
    when_learned: dict[str, float]
    limits: dict[Split, int]
    gate: Limits
    training: dict[str, Any]
    known: dict[ArmName, Baseline]
    rise: float
    anchors: str
    threads: int
    steps: int | None = None
    halvings: int = 0
    runtime: Literal["auto", "torch", "onnx"] = "torch"
    graphs: str = ""

    @property
    def first(self) -> bool:
        """Whether it is a home's first: somebody waits to see what comes of it."""
        return self.cycle == 1 and self.kind == "learn"

    @property
    def parent_version(self) -> int:
        """0 is the untouched base."""
        return self.parent.version if self.parent else 0


@dataclass(frozen=True)
class Checkpoint:
    """A published version, as its manifest tells it. `parent` is None for a child of the base."""

    version: int
    parent: int | None
    manifest: dict[str, Any]
