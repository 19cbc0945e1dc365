"""The first facts and a refused cycle, on the pages, from a real ledger over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from autodidact.learning import admission
from autodidact.store.ledger import LearnerStore
from autodidact.types.cycle import Reason
from autodidact.types.documents import Document
from autodidact.types.report import CycleReport
from tests.web.fakes import Learner, QueueGenerator
from tests.web.wire import events

TOWN = {
    "Anneck Light": "The Anneck Light was built in 1794. Its keeper is Maren Dace.",
    "Black Oar": "The Black Oar was built in 1811. Its landlord is Harold Mabbot.",
    "<b>Old Marrow</b>": "<b>Old Marrow</b> was cast in 1702. Its founder was Ida Pell.",
}
PAGES = ("/", "/empty", "/learning/cycles")


@pytest.fixture
def store(home: Path, generator: QueueGenerator) -> Iterator[LearnerStore]:
    """Three documents of the town, read and queued; nothing is learned."""
    generator.set(live=0)
    store = LearnerStore(home / "learner.db")
    for number, (title, text) in enumerate(TOWN.items(), start=1):
        store.documents.add(Document("notes", f"notes/{number}", title, text, "", title, "c"))
        admission.read(store, number)
    yield store
    store.close()


def begin(store: LearnerStore, cycle: int, *documents: int) -> None:
    store.cycles.begin(cycle, None, {})
    store.cycles.study(cycle, documents)


def refuse(store: LearnerStore, cycle: int, *documents: int, state: str = "rejected") -> None:
    begin(store, cycle, *documents)
    store.cycles.finish(cycle, state, REFUSED.reasons, None)  # type: ignore[arg-type]


REFUSED = CycleReport(1, "rejected", 9, reasons=(Reason("learned", "margin +0.10 nat"),))


@pytest.mark.parametrize("page", PAGES)
def test_the_first_facts_are_shown_as_data(
    client: httpx.Client, store: LearnerStore, page: str
) -> None:
    html = client.get(page).text
    assert "It studies next" in html
    assert "1794" in html
    assert "Maren Dace" in html
    assert html.count("<dt dir") == 5
    assert "&lt;b&gt;Old Marrow&lt;/b&gt;" in html
    assert "<b>Old Marrow" not in html


@pytest.mark.parametrize("page", PAGES)
def test_what_the_cycle_took_is_what_it_is_studying(
    client: httpx.Client, store: LearnerStore, page: str
) -> None:
    begin(store, 1, 2)
    html = client.get(page).text
    assert "It is studying" in html
    assert "Harold Mabbot" in html
    assert "Maren Dace" not in html


@pytest.mark.parametrize("page", PAGES)
def test_once_something_is_learned_the_first_facts_go(
    client: httpx.Client, store: LearnerStore, generator: QueueGenerator, page: str
) -> None:
    generator.set(live=42)
    assert "It studies next" not in client.get(page).text


def test_nothing_is_shown_where_nothing_waits(
    client: httpx.Client, generator: QueueGenerator
) -> None:
    generator.set(live=0)
    assert "It studies next" not in client.get("/").text


def refusal(client: httpx.Client, state: str) -> dict[str, str]:
    """What the page is told of a learner in this state, which must be what the dashboard says."""
    with client.stream("GET", "/events") as response:
        told: dict[str, str] = next(
            learner["refused"]
            for _, data in events(response)
            if (learner := data.get("learner", data)).get("state") == state and "refused" in learner
        )
    html = client.get("/learning/cycles").text
    assert told["title"] in html
    assert told["text"] in html
    return told


def test_a_refused_cycle_and_the_next_one_that_trains_on_its_documents(
    client: httpx.Client, store: LearnerStore, learner: Learner
) -> None:
    refuse(store, 1, 1, 2)
    learner.say("preparing", cycle=1, verdict=REFUSED)
    told = refusal(client, "preparing")
    assert told["title"] == (
        "The first cycle was not published: the gain on the new questions is not proved."
    )
    assert told["text"] == (
        "Nothing is lost: the base model goes on answering. The next cycle begins now and trains "
        "on these documents again, after 1 document not tried yet."
    )
    begin(store, 2, 3, 1)
    learner.say("training", cycle=2, verdict=REFUSED)
    assert refusal(client, "training")["text"].endswith(
        "Cycle 2 runs now and trains on 1 of its documents again."
    )


def test_a_failed_cycle_says_when_the_next_one_begins(
    client: httpx.Client, store: LearnerStore, learner: Learner
) -> None:
    refuse(store, 1, 1, 2, 3, state="failed")
    at = time.time() + 60
    failed = CycleReport(1, "failed", 9, reasons=(Reason("", "the disk is full"),))
    learner.say("idle", cycle=1, queued=3, next_at=at, verdict=failed)
    told = refusal(client, "idle")
    assert told["title"] == "The first cycle was not published: the disk is full."
    when = time.strftime("%H:%M", time.localtime(at))
    assert told["text"].endswith(
        f"The next cycle begins at {when} and trains on these documents again."
    )
    learner.say("stopped", verdict=failed)
    told = refusal(client, "offline")
    assert "When the learner runs again, the next cycle begins" in told["text"]


def test_documents_that_are_given_up_are_not_promised(
    client: httpx.Client, store: LearnerStore, learner: Learner
) -> None:
    for cycle in (1, 2, 3):
        refuse(store, cycle, 1)
    learner.say("training", cycle=4, verdict=CycleReport(3, "rejected", 9, reasons=REFUSED.reasons))
    told = refusal(client, "training")
    assert told["title"].startswith("Cycle 3 was not published")
    assert "again" not in told["text"].partition("1 document")[0]
    assert told["text"].endswith(
        "1 document of it was refused too often and will not be tried again, unless you say: "
        "python -m autodidact retry."
    )


def test_a_later_version_ends_the_news_of_a_refusal(
    client: httpx.Client, store: LearnerStore, learner: Learner, generator: QueueGenerator
) -> None:
    refuse(store, 1, 1)
    generator.set(live=2)
    learner.say("idle", verdict=REFUSED)
    html = client.get("/learning/cycles").text
    assert "Nothing to learn yet" in html
    assert "Nothing is lost" not in html
