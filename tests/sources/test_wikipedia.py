from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from autodidact.errors import SourceUnreachable
from autodidact.sources import wikipedia
from autodidact.sources.wikipedia import Wikipedia
from autodidact.types.documents import Document
from tests.mediawiki import PROSE, MediaWiki, reading


def source(wiki: MediaWiki, **changes: Any) -> Wikipedia:
    return Wikipedia(reading(wiki, **changes))


def titles(documents: Iterator[Document]) -> list[str]:
    return [document.title for document in documents]


# What is read --------------------------------------------------------------------------------


def test_named_articles_then_the_category_then_random_ones(wiki: MediaWiki) -> None:
    wiki.categorise("Coast", ["Gull Rock", "Black Oar"])
    wiki.random = ["Old Marrow", "River Tolk", "Anneck Light"]
    found = source(wiki, random=2, category="Coast", titles=("River Tolk", "Anneck Light"))
    assert titles(found.documents(None)) == [
        *("River Tolk", "Anneck Light", "Gull Rock", "Black Oar"),
        "Old Marrow",  # and not River Tolk once more
    ]


def test_a_document_carries_address_licence_and_revision(wiki: MediaWiki) -> None:
    (document,) = source(wiki, titles=("Anneck_Light",)).documents(None)
    assert document.source == "wikipedia"
    assert document.uri == "https://en.wikipedia.org/wiki/Anneck_Light"
    assert document.title == "Anneck Light"
    assert document.text.startswith("Anneck Light is known. The lighthouse was built of grey stone")
    assert document.license == "CC BY-SA 4.0"
    assert document.digest == ""
    assert json.loads(document.cursor)["revision"] == 77


def test_the_licence_of_another_wiki_is_not_guessed() -> None:
    with MediaWiki("https://wiki.example") as other:
        other.add("Anneck Light", PROSE)
        (document,) = source(other, titles=("Anneck Light",)).documents(None)
    assert (document.uri, document.license) == ("https://wiki.example/wiki/Anneck_Light", "")


def test_an_address_that_is_none_of_the_web_is_not_taken_over() -> None:
    with MediaWiki("javascript:alert(1)//") as hostile:
        hostile.add("Anneck Light", PROSE)
        (document,) = source(hostile, titles=("Anneck Light",)).documents(None)
    assert document.uri == "wiki:Anneck Light"


def test_a_named_redirect_is_followed_and_others_are_passed_over(wiki: MediaWiki) -> None:
    wiki.redirect("The Light", "Anneck Light")
    wiki.redirect("The Rock", "Gull Rock")
    wiki.categorise("Coast", ["The Rock", "Black Oar"])
    found = source(wiki, titles=("The Light",), category="Coast")
    assert titles(found.documents(None)) == ["Anneck Light", "Black Oar"]


def test_what_is_no_article_is_a_warning_once_and_the_next_one_follows(
    wiki: MediaWiki, caplog: pytest.LogCaptureFixture
) -> None:
    wiki.add("Oar", f"Oar may refer to: {PROSE}", disambiguation=True)
    wiki.add("Stub", "A stub is short.")
    wiki.add("Bare", None)
    wiki.add("Category:Coast", PROSE, ns=14)
    names = ("Nowhere", "Oar", "Stub", "Bare", "Category:Coast", "A|B", "", "Gull Rock")
    found = source(wiki, titles=names, category="Empty")
    with caplog.at_level(logging.WARNING):
        assert titles(found.documents(None)) == ["Gull Rock"]
        assert titles(found.documents(None)) == ["Gull Rock"]
    assert caplog.messages == [
        "wikipedia: 'Nowhere' does not exist",
        "wikipedia: 'Oar' only lists the meanings of a word; name one of them",
        "wikipedia: 'Stub' has less than 200 characters of text",
        "wikipedia: 'Bare' has less than 200 characters of text",
        "wikipedia: 'Category:Coast' is not an article",
        "wikipedia: 'A|B' cannot be the title of an article",
        "wikipedia: '' does not exist",
        "wikipedia: category 'Empty' has no articles",
    ]


def test_category_and_chance_bring_articles_only_and_say_nothing_of_the_rest(
    wiki: MediaWiki, caplog: pytest.LogCaptureFixture
) -> None:
    wiki.add("Oar", f"Oar may refer to: {PROSE}", disambiguation=True)
    wiki.add("Stub", "A stub is short.")
    wiki.add("Portal:Coast", PROSE, ns=100)
    wiki.categorise("Coast", ["Oar", "Portal:Coast", "Deleted", "Stub", "Gull Rock"])
    wiki.random = ["Stub", "Black Oar"]
    with caplog.at_level(logging.WARNING):
        found = source(wiki, category="Coast", random=2)
        assert titles(found.documents(None)) == ["Gull Rock", "Black Oar"]
    assert caplog.messages == []
    assert "Portal:Coast" not in wiki.asked("titles")


def test_the_client_names_itself_as_told(wiki: MediaWiki) -> None:
    list(source(wiki, titles=("Gull Rock",), user_agent="Probe/1 (me@x.example)").documents(None))
    assert {agent.partition(" (me@x.example)")[0] for agent in wiki.user_agents} == {"Probe/1"}


def test_fetching_is_lazy_and_a_request_at_a_time(wiki: MediaWiki) -> None:
    documents = source(wiki, titles=("Gull Rock", "Black Oar")).documents(None)
    assert wiki.requests == []
    next(documents)
    assert set(wiki.asked("titles")) == {"Gull Rock"}


# The cursor ----------------------------------------------------------------------------------


def test_what_was_delivered_is_not_asked_for_again(wiki: MediaWiki) -> None:
    wiki.categorise("Coast", ["Gull Rock", "Black Oar"])
    chosen = {"titles": ("Anneck Light",), "category": "Coast"}
    *_, last = source(wiki, **chosen).documents(None)
    wiki.requests.clear()
    assert titles(source(wiki, **chosen).documents(last.cursor)) == []
    assert wiki.requests == []
    added = {**chosen, "titles": ("River Tolk", "Anneck Light")}
    (new,) = source(wiki, **added).documents(last.cursor)
    assert new.title == "River Tolk"
    assert set(wiki.asked("titles")) == {"River Tolk"}
    assert json.loads(new.cursor)["titles"] == ["Anneck Light", "River Tolk"]
    (only,) = source(wiki, titles=("Old Marrow",)).documents(new.cursor)
    assert json.loads(only.cursor)["titles"] == ["Old Marrow"]


def test_random_articles_keep_the_progress_of_the_others(wiki: MediaWiki) -> None:
    wiki.random = ["Old Marrow"]
    chosen = {"titles": ("Anneck Light",), "random": 1}
    *_, last = source(wiki, **chosen).documents(None)
    assert titles(source(wiki, **chosen).documents(last.cursor)) == ["Old Marrow"]


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_category_is_read_through_wherever_a_fetch_stops(
    wiki: MediaWiki, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    monkeypatch.setattr(wikipedia, "FETCH_LIMIT", 3)
    members = [f"Place {n}" for n in range(8)]
    for title in members:
        wiki.add(title, f"{title} is known. {PROSE}")
    wiki.categorise("Coast", members)
    cursor, found = None, []
    for _ in range(len(members) + 1):
        taken = list(islice(source(wiki, category="Coast").documents(cursor), stop))
        found += [document.title for document in taken]
        cursor = taken[-1].cursor if taken else cursor
    assert found == members


@pytest.mark.parametrize("left", [0, 1, 2, 4, 5], ids=lambda left: f"{left} left")
def test_a_category_that_became_shorter_comes_to_its_end(
    wiki: MediaWiki, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    monkeypatch.setattr(wikipedia, "FETCH_LIMIT", 4)
    members = [f"Place {n}" for n in range(6)]
    for title in members:
        wiki.add(title, f"{title} is known. {PROSE}")
    wiki.random = ["Old Marrow"]
    wiki.categorise("Coast", members)
    started = islice(source(wiki, category="Coast").documents(None), 4)
    _, _, third, fourth = started
    (fifth,) = islice(source(wiki, category="Coast").documents(fourth.cursor), 1)
    assert (fourth.title, fifth.title) == (members[3], members[4])
    wiki.categorise("Coast", members[:left])
    for before in (third, fourth, fifth):
        *_, chance = source(wiki, category="Coast", random=1).documents(before.cursor)
        assert chance.title == "Old Marrow"
        # Nothing at all from the beginning on is a category that does not exist (any more).
        assert json.loads(chance.cursor)["complete"] == (left > 0 or before is not third)


def test_a_fetch_is_limited_in_articles_and_in_lists(
    wiki: MediaWiki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wikipedia, "FETCH_LIMIT", 2)
    wiki.add("Portal:Coast", PROSE, ns=100)
    wiki.categorise("Coast", ["Black Oar", "Old Marrow"])
    wiki.categorise("Portals", ["Portal:Coast"] * 50)
    names = ("Anneck Light", "Gull Rock", "River Tolk")
    assert titles(source(wiki, titles=names, category="Coast").documents(None)) == [*names[:2]]
    wiki.requests.clear()
    assert titles(source(wiki, category="Portals").documents(None)) == []
    assert len(wiki.requests) == 10


def test_one_list_request_does_not_follow_a_large_category_to_its_end(wiki: MediaWiki) -> None:
    wiki.categorise("Coast", ["Gull Rock"] * 500)
    next(source(wiki, category="Coast").documents(None))
    assert len(wiki.asked("cmtitle")) == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"category": "Hills"}, ["Old Marrow"]),
        ({"language": "de", "endpoint": ""}, None),
        ({"titles": ("Gull Rock",)}, ["Gull Rock"]),
    ],
    ids=["other category", "other wiki", "other titles"],
)
def test_a_cursor_counts_for_what_it_was_made_for(
    wiki: MediaWiki, change: dict[str, Any], expected: list[str] | None
) -> None:
    wiki.categorise("Coast", ["Black Oar"])
    wiki.categorise("Hills", ["Old Marrow"])
    chosen = {"titles": ("Anneck Light",), "category": "Coast"}
    *_, last = source(wiki, **chosen).documents(None)
    documents = source(wiki, **{**chosen, **change}).documents(last.cursor)
    if expected is None:
        with pytest.raises(SourceUnreachable, match=r"https://de\.wikipedia\.org/w/api\.php"):
            next(documents)
    else:
        assert titles(documents) == expected


@pytest.mark.parametrize("old", ["", "nonsense", "[]", "{}", '{"wiki": 3}', "null", "7"])
def test_a_cursor_that_is_not_understood_means_from_the_beginning(
    wiki: MediaWiki, old: str
) -> None:
    assert titles(source(wiki, titles=("Gull Rock",)).documents(old)) == ["Gull Rock"]


def test_a_place_that_the_wiki_has_forgotten_means_the_category_from_its_beginning(
    wiki: MediaWiki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wikipedia, "FETCH_LIMIT", 1)
    wiki.categorise("Coast", ["Gull Rock", "Black Oar"])
    (first,) = source(wiki, category="Coast").documents(None)
    stale = first.cursor.replace("page||", "older form ")
    assert stale != first.cursor
    assert titles(source(wiki, category="Coast").documents(stale)) == ["Gull Rock"]


# Recorded exchanges --------------------------------------------------------------------------


@pytest.mark.shared_data
def test_a_recorded_article_is_read_as_wikipedia_sent_it(
    recorded: MediaWiki, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("NonExistentPage_WikiAPI_Test_12345", "Python_(programming_language)")
    (document,) = source(recorded, titles=names).documents(None)
    assert "'NonExistentPage_WikiAPI_Test_12345' does not exist" in caplog.text
    assert document.title == "Python (programming language)"
    assert document.uri == "https://en.wikipedia.org/wiki/Python_(programming_language)"
    assert document.license == "CC BY-SA 4.0"
    assert json.loads(document.cursor)["revision"] > 1_000_000_000
    assert document.text.startswith("Python is a high-level, general-purpose programming language.")
    assert "\n\nDesign philosophy and features\n\n" in document.text
    assert 8_000 < len(document.text) <= 12_000
    (whole,) = source(recorded, titles=names, max_chars=1_000_000).documents(None)
    assert whole.text.startswith(document.text)
    assert whole.text.endswith("have been influenced, as well.")


@pytest.mark.shared_data
def test_recorded_category_and_random_lists_lead_to_their_articles(recorded: MediaWiki) -> None:
    physics = ("Physics", "Nucleation", "Thermal energy", "Wohlfarth Lectureship")
    chance = ("Chwaliszów", "Mechanical Dream")
    for title in physics + chance:
        recorded.add(title, f"{title} is known. {PROSE}")
    found = titles(source(recorded, category="Physics", random=3).documents(None))
    assert found == [*physics, *chance]
    asked = set(recorded.asked("titles"))
    assert "Zhanjiang Wuchuan International Airport" in asked
    assert not {title for title in asked if title.startswith(("Portal:", "Category:"))}
