"""Documents, probes and cycles, as the tests of the ledger's parts write them."""

from __future__ import annotations

from dataclasses import replace

from autodidact.store.ledger import LearnerStore
from autodidact.types.cycle import CycleState, Kind, Reason
from autodidact.types.documents import Document, Probe
from autodidact.types.report import CycleReport
from tests.ledgers import figures


def document(number: int, text: str = "", source: str = "notes") -> Document:
    text = text or f"text {number}"
    return Document(source, f"uri/{number}", f"Title {number}", text, "CC0", f"digest {text}", "c")


def probe(number: int, document_id: int = 1, **changes: object) -> Probe:
    made = Probe(
        f"{document_id}-{number:08x}",
        document_id,
        "Who?",
        "Ida",
        ("Odo", "Zoë"),
        "name",
        "by built",
        "by/3",
        "taught",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def state(store: LearnerStore, document_id: int) -> str:
    return store.documents.get(document_id).state


def run_cycle(store: LearnerStore, n: int, documents: list[int], outcome: CycleState) -> None:
    store.cycles.begin(n, n - 1 or None, {"rank": 4})
    store.cycles.study(n, documents)
    store.cycles.finish(n, outcome, (Reason("", "because"),), CycleReport(n, outcome, 0))


def answered(
    store: LearnerStore, n: int, logprob: float, outcome: CycleState, kind: Kind = "learn"
) -> None:
    """A cycle that measured probe 1 of document 1, taught in cycle 1."""
    store.cycles.begin(n, n - 1 or None, {}, kind)
    store.probes.freeze(n, [probe(1)])
    store.cycles.study(n, [1] if n == 1 else [])
    row = {"probe_id": probe(1).id, "split": "taught" if n == 1 else "kept", "reply": "?",
           "correct": 0, "margin": 0.0}  # fmt: skip
    store.probes.record(n, "parent", [{**row, "logprob": -9.0}])
    store.probes.record(n, "candidate", [{**row, "logprob": logprob}])
    some = figures(0, 1)
    rise = replace(some, general=replace(some.general, rise=n / 100))
    store.cycles.finish(n, outcome, (), CycleReport(n, outcome, 0, figures=rise))
