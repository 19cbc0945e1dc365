"""What a report offers people."""

from __future__ import annotations

from autodidact.evaluation.exam import ExamQuestion
from autodidact.evaluation.gate import Arm
from autodidact.lessons.probes import probe_id
from autodidact.lessons.wordings import wordings
from autodidact.reading.document import read_document
from autodidact.reports import build
from autodidact.store.documents import StoredDocument
from autodidact.types.cycle import ProbeResult
from autodidact.types.documents import Document, Fact

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
        suggested = [s.question for s in build._suggestions([stored], [read], arm, ())]
        wanted = fact.kind in ("name", "year", "measure") and question not in gaps
        assert suggested == [question] * wanted


LIGHT = "The Light is a tower. It was built in 1794. Its keeper is Maren Dace. It has 143 steps."


def suggested(uri: str, known: tuple[str, ...], *asked: ExamQuestion) -> list[str]:
    """What is suggested of `LIGHT` where the answers in `known` were given."""
    document = Document("files:library", uri, "Light", LIGHT, "", "digest", "")
    read = read_document(1, document)
    assert {fact.answer for fact in read.facts}.issuperset(known)
    results = {}
    for fact in read.facts:
        own = probe_id(1, fact)
        results[own] = ProbeResult(own, "", int(fact.answer in known), 0.0, 0.0)
    stored = StoredDocument(1, document, "studying", 0, 1)
    found = build._suggestions([stored], [read], Arm(results, (), ()), asked)
    assert {suggestion.source for suggestion in found} <= {uri}
    return [suggestion.question for suggestion in found]


def fact_of(answer: str) -> Fact:
    document = Document("files:library", "", "Light", LIGHT, "", "digest", "")
    [fact] = [fact for fact in read_document(1, document).facts if fact.answer == answer]
    return fact


def test_a_question_of_the_exam_is_suggested_where_its_answer_was_given() -> None:
    stairs = ExamQuestion("1", ("light.md",), "How many stairs?", ("143 stairs", "143"))
    keeper = ExamQuestion("2", ("light.md",), "Who looks after it?", ("Maren Dace",))
    both = ExamQuestion("3", ("light.md", "oar.md"), "Who of the two?", ("Maren Dace",))
    exam = (both, stairs, keeper)
    uri = "library/light.md"
    assert suggested(uri, ("1794", "143", "Maren Dace"), *exam) == ["How many stairs?"]
    assert suggested(uri, ("1794", "Maren Dace"), *exam) == ["Who looks after it?"]
    own = [wordings(fact_of("1794")).suggestion]
    assert suggested(uri, ("1794",), *exam) == own, "no question asks for that"
    assert suggested(uri, ("1794", "Maren Dace"), both) == own, "it names another document"
    assert suggested("notes/light.md", ("1794", "143"), *exam) == own, "another folder's document"
    assert suggested(uri, (), *exam) == []
