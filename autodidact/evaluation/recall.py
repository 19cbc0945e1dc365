"""Does the model know a fact? Closed book, one question at a time, through the serving engine.

Two measures a probe: the greedy reply by exact match (SQuAD's normalisation), and the margin: the
mean log-probability a token of the true answer minus that of its strongest distractor, in nats.
Where the model answers in sentences, a reply is right that says the answer and no distractor, and
answers are scored in the sentence that states the fact, from where they begin: what stands before
tells nothing of the fact.
The gate takes the margin and not the answer's likelihood, because that alone also rises when
answers are shuffled between documents: the model learns the form and not the fact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from autodidact.reading.answers import exact_match, says
from autodidact.types.chat import Message
from autodidact.types.cycle import ProbeResult
from autodidact.types.documents import GAP, Probe

MAX_ANSWER_TOKENS, MAX_SENTENCE_TOKENS = 24, 40


class Subject(Protocol):
    """One version of the model, as an examiner needs it. Order of inputs is kept."""

    def complete(self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int) -> list[str]:
        """Greedy replies."""
        ...

    def score(
        self, dialogues: Sequence[Sequence[Message]], given: Sequence[str] = ()
    ) -> list[float]:
        """Mean log-probability a token of each dialogue's last turn, its end mark included; without
        its beginning that is `given`, where there are such."""
        ...

    def nll(self, blocks: Sequence[Sequence[int]]) -> list[float]:
        """Mean negative log-likelihood a token of each block of token ids."""
        ...


def measure(
    subject: Subject, probes: Sequence[Probe], *, sentences: bool = False
) -> list[ProbeResult]:
    """One result a probe, in their order. `sentences`: the model was taught to answer in such."""
    longest = MAX_SENTENCE_TOKENS if sentences else MAX_ANSWER_TOKENS
    replies = subject.complete([_asked(p) for p in probes], longest)
    offered = [
        (p, p.stated if sentences and p.stated else GAP, answer)
        for p in probes
        for answer in (p.answer, *p.distractors)
    ]
    scores = iter(
        subject.score(
            [[*_asked(p), Message("assistant", s.replace(GAP, a))] for p, s, a in offered],
            [stated.partition(GAP)[0] for _, stated, _ in offered],
        )
    )
    results = []
    for probe, reply in zip(probes, replies, strict=True):
        true = next(scores)
        wrong = [next(scores) for _ in probe.distractors]
        correct = (
            says(reply, probe.question, probe.answer, probe.distractors)
            if sentences
            else exact_match(reply, probe.answer)
        )
        own = wrong[: probe.same]
        results.append(
            ProbeResult(
                probe.id,
                reply.strip(),
                int(correct),
                true,
                true - max(wrong),
                true - max(own) if own else None,
            )
        )
    return results


def _asked(probe: Probe) -> list[Message]:
    return [Message("user", probe.question)]
