"""The learning pages over HTTP, on a real ledger: as HTML that needs no script, and as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from autodidact.settings import PROJECT
from autodidact.store.ledger import LearnerStore
from autodidact.web.dashboard.routes import number_line, shade
from tests.ledgers import (
    add_document,
    asked,
    full_report,
    rejected_report,
    rule,
    run_cycle,
)

JSON = {"Accept": "application/json"}
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
PAGES = ("/learning/cycles", "/learning/cycles/1", "/learning/memory")


@pytest.fixture
def store(home: Path) -> Iterator[LearnerStore]:
    store = LearnerStore(home / "learner.db")
    yield store
    store.close()


@pytest.fixture
def taught(store: LearnerStore) -> LearnerStore:
    """One published cycle."""
    document = add_document(store, "anneck")
    run_cycle(
        store, 1, [document], report=full_report(document), results={"taught": {document: (1, 5)}}
    )
    return store


class Tags(HTMLParser):
    """Fails on tags that are not closed in order; collects the names of all."""

    VOID = frozenset({"meta", "link", "br", "circle", "line"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


# One cycle --------------------------------------------------------------------------------------


def test_the_report_card_as_a_page(client: httpx.Client, taught: LearnerStore) -> None:
    answer = client.get("/learning/cycles/1", headers=BROWSER)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    html = answer.text
    assert "Published. It passes 2 of 3 new questions, 0 before." in html
    assert "What it learned" in html
    assert "What is lamp?" in html
    assert "wording never used" in html
    assert "What it lost and regained" in html
    assert "b" * 64 in html
    assert "python -m autodidact report 1" in html
    names = Tags(html).names
    assert names.count("details") == 4
    assert names.count("script") == 1, "only the theme's"


def test_the_numbers_lie_on_their_lines(client: httpx.Client, taught: LearnerStore) -> None:
    html = client.get("/learning/cycles/1").text
    label = "Learned +1.92 nat, +1.31 to +2.55, limit: above 0"
    line = re.search(
        rf'<svg class="iv" role="img" aria-label="{re.escape(label)}">(.*?)</svg>', html
    )
    assert line is not None
    places = [float(x) for x in re.findall(r'(?:x1|x2|cx)="([\d.]+)%"', line[1])]
    assert len(places) == 7
    assert all(0 <= x <= 100 for x in places)


def test_evidence_that_other_evidence_replaced_is_not_shown_as_failed(
    client: httpx.Client, store: LearnerStore
) -> None:
    document = add_document(store, "anneck")
    rules = [
        rule("learned", "control", False, excused=True, lower=-0.2, limit=0.0),
        rule("learned", "exact", value=0.7, lower=None, upper=None, limit=0.0083, unit="share",
             p=0.0004),
    ]  # fmt: skip
    run_cycle(store, 1, [document], report=full_report(document, rules=rules))
    html = client.get("/learning/cycles/1").text
    assert "Decided by exact answers; the margin alone does not show it." in html
    assert "not shown</span>" in html
    assert "failed</span>" not in html
    assert "<small>p 0.0004; newly exact answers, against controls</small>" in html
    assert '<td data-l="Limit">p at most 0.0083</td>' in html


def test_the_report_card_as_json(client: httpx.Client, taught: LearnerStore) -> None:
    card = client.get("/learning/cycles/1", headers=JSON).json()
    assert (card["cycle"], card["claim"], card["ok"]) == (1, "learned", True)
    assert card["documents"][0]["probes"][0]["now"]["reply"] == "right"
    assert client.get("/learning/cycles/1?format=json", headers=BROWSER).json() == card


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "text/html"),
        ("", "text/html"),
        ("application/json;q=0.5, text/html", "text/html"),
        ("text/html;q=0.5, application/json", "application/json"),
        ("application/json;q=0", "text/html"),
        ("application/json;q=abc", "text/html"),
    ],
)
def test_who_prefers_json_gets_it(
    client: httpx.Client, taught: LearnerStore, accept: str, kind: str
) -> None:
    for path in PAGES:
        answer = client.get(path, headers={"Accept": accept})
        assert answer.headers["content-type"].partition(";")[0] == kind
        assert answer.headers["vary"] == "Accept"


def test_a_rejected_cycle_shows_what_failed_first(
    client: httpx.Client, store: LearnerStore
) -> None:
    document = add_document(store, "anneck")
    run_cycle(store, 1, [document], "rejected", rejected_report(document))
    html = client.get("/learning/cycles/1").text
    assert "Not published: it drifted too far from the base." in html
    assert "What it learned" not in html
    assert "What it studied" in html
    measures = re.findall(r'<th scope="row"[^>]*>(\w+)<small>', html)
    assert measures == ["General", "Learned", "Kept", "Chat", "Mind"]
    assert html.index("failed</span>") < html.index("passed</span>")


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_a_cycle_that_was_not_judged_has_a_page(
    client: httpx.Client, store: LearnerStore, state: str
) -> None:
    run_cycle(store, 1, [add_document(store, "anneck")], state)  # type: ignore[arg-type]
    assert state.capitalize() in client.get("/learning/cycles/1").text


def test_a_cycle_that_forgets_says_what_is_left(client: httpx.Client, store: LearnerStore) -> None:
    arms = {arm: {"k": k, "margin": 0.5} for arm, k in
            (("base", 0), ("parent", 4), ("candidate", 1))}  # fmt: skip
    run_cycle(store, 1, [], report=full_report(1, kind="forget", forgotten={"n": 5, **arms}))
    html = client.get("/learning/cycles/1").text
    assert "1 of 5 of its questions still pass, 4 before." in html
    assert "Taught again without what it was told to forget" in html


def test_a_running_cycle_has_a_page(client: httpx.Client, store: LearnerStore) -> None:
    store.cycles.begin(1, None, {})
    store.cycles.study(1, [add_document(store, "anneck")])
    html = client.get("/learning/cycles/1").text
    assert "It is studying; nothing is proved yet." in html
    assert "The measures" not in html


def test_an_unknown_cycle_is_one_line(client: httpx.Client, taught: LearnerStore) -> None:
    answer = client.get("/learning/cycles/7")
    assert answer.status_code == 404
    assert answer.json() == {"detail": "no such cycle; they go from 1 to 1"}


@pytest.mark.parametrize("n", ["x", "-1", "1.5", "99999999999999999999"])
def test_an_odd_number_is_refused_in_one_line(
    client: httpx.Client, taught: LearnerStore, n: str
) -> None:
    answer = client.get(f"/learning/cycles/{n}")
    assert answer.status_code == 422
    assert list(answer.json()) == ["detail"]


ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>\" ' {{ 7 * 7 }} \u202e"


def test_what_comes_from_outside_is_only_text(client: httpx.Client, store: LearnerStore) -> None:
    document = add_document(store, ATTACK)
    probe = asked("lamp", "taught", document, False, True, question=ATTACK, answer=ATTACK)
    probe["now"]["reply"] = ATTACK
    report = full_report(
        document,
        documents=[{"id": document, "title": ATTACK, "uri": f"javascript:{ATTACK}"}],
        probes=[probe, asked("bell", "kept", 1, True, False, title=ATTACK)],
        base={"name": ATTACK, "revision": ATTACK, "sha256": ATTACK},
        looks=[{"lambda": 1.0, "ok": False, "reasons": [ATTACK]}],
    )
    run_cycle(store, 1, [document], report=report, results={"taught": {document: (1, 2)}})
    for path in PAGES:
        html = client.get(path).text
        names = Tags(html).names
        assert "img" not in names
        assert names.count("script") == 1
        assert not re.search(r"<[^>]*\son\w+=", html)
        assert not re.search(r'href="(?!/|#)', html)
        assert "49" not in re.sub(r"<[^>]*>", "", html).split()
    assert "&lt;script&gt;alert(1)" in client.get("/learning/cycles/1").text


@pytest.mark.parametrize("path", PAGES)
def test_pages_obey_the_policy(client: httpx.Client, taught: LearnerStore, path: str) -> None:
    answer = client.get(path)
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "style=" not in answer.text
    assert "<style" not in answer.text
    assert not re.search(r"<script(?![^>]* src=)", answer.text)
    for address in re.findall(r'(?:src|href)="([^"]*)"', answer.text):
        assert address.startswith(("/", "#"))
    for address in re.findall(r'href="(/[^"#]*)"', answer.text):
        assert client.get(address, follow_redirects=True).status_code == 200, address


# Lists ------------------------------------------------------------------------------------------


def test_cycles_come_newest_first_in_pages(client: httpx.Client, store: LearnerStore) -> None:
    document = add_document(store, "anneck")
    for n in range(1, 27):
        run_cycle(store, n, [document], "interrupted")
    first = client.get("/learning/cycles", headers=JSON).json()
    assert [cycle["cycle"] for cycle in first["cycles"]] == list(range(26, 2, -1))
    assert first["before"] == 3
    second = client.get("/learning/cycles?before=3", headers=JSON).json()
    assert [cycle["cycle"] for cycle in second["cycles"]] == [2, 1]
    assert second["before"] is None
    html = client.get("/learning/cycles").text
    assert "/learning/cycles?before=3" in html
    assert html.count('class="card run"') == 24
    assert "no older cycles" in client.get("/learning/cycles?before=1").text


@pytest.mark.parametrize("before", ["0", "x", "-3", "99999999999999999999"])
def test_an_odd_mark_is_refused(client: httpx.Client, before: str) -> None:
    answer = client.get("/learning/cycles", params={"before": before})
    assert answer.status_code == 422
    assert "before" in answer.json()["detail"]


def test_the_short_address_leads_to_the_cycles(client: httpx.Client) -> None:
    answer = client.get("/learning")
    assert (answer.status_code, answer.headers["location"]) == (307, "/learning/cycles")


# Memory -----------------------------------------------------------------------------------------


def test_the_matrix(client: httpx.Client, taught: LearnerStore) -> None:
    two = add_document(taught, "two")
    run_cycle(taught, 2, [two], results={"taught": {two: (4, 5)}, "kept": {1: (2, 4)}})
    found = client.get("/learning/memory", headers=JSON).json()
    assert found["cycles"] == [1, 2]
    assert found["documents"][0]["cells"]["2"] == {"k": 2, "n": 4}
    html = client.get("/learning/memory").text
    assert '<td class="q0" title="1 of 5">20</td>' in html
    assert '<td class="q2" title="2 of 4">50</td>' in html
    assert '<td class="q4" title="4 of 5">80</td>' in html
    assert "Checkpoint 2 answers <b>2 of 4 (50 %, 15–85)</b>" in html
    Tags(html)


def test_a_large_matrix_is_folded(client: httpx.Client, store: LearnerStore) -> None:
    for n in range(1, 46):
        document = add_document(store, f"d{n}")
        run_cycle(store, n, [document], results={"taught": {document: (1, 1)}})
    html = client.get("/learning/memory").text
    assert html.count('<th scope="row">') <= 41
    assert html.count('<th scope="col">') <= 41
    assert "1–6" in html


# Nothing there ----------------------------------------------------------------------------------


def test_before_any_learner_ran_the_pages_say_what_to_do(client: httpx.Client) -> None:
    for path in ("/learning/cycles", "/learning/memory"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "python web_learner.py" in answer.text
        Tags(answer.text)
    assert client.get("/learning/cycles", headers=JSON).json() == {"cycles": [], "before": None}
    assert client.get("/learning/memory", headers=JSON).json()["documents"] == []
    assert client.get("/learning/cycles/1").json() == {
        "detail": "no such cycle; none has begun yet"
    }


def test_a_damaged_ledger_is_one_line(home: Path, client: httpx.Client) -> None:
    (home / "learner.db").write_bytes(b"not a database at all" * 100)
    answer = client.get("/learning/cycles")
    assert answer.status_code == 503
    assert "learner.db" in answer.json()["detail"]


# Parts ------------------------------------------------------------------------------------------


def test_a_line_keeps_its_order_and_its_open_ends() -> None:
    line = number_line(1.0, 0.5, None, 0.0)
    assert line is not None
    low, mid, limit = (float(line[key].rstrip("%")) for key in ("lower", "value", "limit"))
    assert limit < low < mid < 100
    assert line["upper"] == "99.5%"
    assert number_line(None, None, None, 0.0) is None
    flat = number_line(0.0, None, None, None)
    assert flat == {"value": "50.0%", "lower": "", "upper": "", "limit": ""}


@pytest.mark.parametrize(
    ("k", "step"), [(0, 0), (29, 0), (30, 1), (45, 2), (60, 3), (70, 4), (82, 5)]
)
def test_shades(k: int, step: int) -> None:
    assert shade({"k": k, "n": 100}) == step


def test_no_rule_of_the_sheet_is_dead() -> None:
    sheet = (PROJECT / "static/learning.css").read_text()
    sheet = re.sub(r"/\*.*?\*/|\{[^{}]*\}", " ", sheet, flags=re.S)
    names = set(re.findall(r"[.#]([a-zA-Z][\w-]*)", sheet))
    text = " ".join(path.read_text() for path in (PROJECT / "templates").glob("learning_*.html"))
    text = text.replace("q{{ shade(cell) }}", "q0 q1 q2 q3 q4 q5") + " i"
    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()
