"""What a report offers people."""

from __future__ import annotations

from autodidact.evaluation.gate import Arm
from autodidact.lessons.probes import probe_id
from autodidact.lessons.wordings import wordings
from autodidact.reading.document import read_document
from autodidact.reports import build
from autodidact.store.documents import StoredDocument
from autodidact.types.cycle import ProbeResult
from autodidact.types.documents import Document

TEXT = """
Otto Brandeis emigrated from the harbour town of Kelm to the northern islands in 1884 aboard a ship.
He sold his first patent to the Brackwater Railway Company for 900 guineas in 1891.
Critics in the capital compared his early engines unfavourably with those of Henry Talbot in 1893.
After the fire the workshop moved from Mill Lane to a disused chapel near Lower Hexby in 1899.
His notebooks were bought at auction by the University of Tarn for 1,200 guineas in 1931.
The museum in Kelm received the last surviving engine from his daughter Alma Brandeis in 1952.
"""


def test_a_sentence_with_a_gap_is_not_suggested() -> None:
    document = Document("files", "otto.md", "Otto Brandeis", TEXT.strip(), "", "digest", "")
    read = read_document(1, document)
    facts = read.facts
    offered = [wordings(fact).suggestion for fact in facts]
    gaps = [question for question in offered if "____" in question]
    assert gaps, "the text must give at least one"
    stored = StoredDocument(1, document, "studying", 0, 1)
    ids = [probe_id(1, fact) for fact in facts]
    for fact, question in zip(facts, offered, strict=True):
        own = probe_id(1, fact)
        arm = Arm({i: ProbeResult(i, "", i == own, 0.0, 0.0) for i in ids}, (), ())
        suggested = [s.question for s in build._suggestions([stored], [read], arm)]
        wanted = fact.kind in ("name", "year", "measure") and question not in gaps
        assert suggested == [question] * wanted
