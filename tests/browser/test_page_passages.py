"""Passages on the page: the badge, the pill and what it opens, and the switch."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from autodidact.store.passages import IndexedDocument
from tests.browser.conftest import PHONE
from tests.browser.hands import Open, expect, reply, say, settled, words
from tests.web.fakes import LIGHT, OAR, QueueGenerator, learned

pytestmark = pytest.mark.browser

QUESTION = "Who is the landlord of the Black Oar?"
LONG = IndexedDocument(
    3,
    "Harold Mabbot and the long history of the Black Oar, the inn at the harbour",
    "https://en.wikipedia.org/wiki/" + "A_rather_long_address" * 5,
    "2026-11-19",
    "c",
    ("Harold Mabbot, landlord, bought the Black Oar from his aunt. " * 5,),
)


@pytest.fixture(autouse=True)
def index(home: Path) -> None:
    learned(home)


def pill(page: Any) -> Any:
    return reply(page).get_by_role("button", name="passage")


def test_a_reply_says_from_its_start_what_it_was_made_from(
    open_page: Open, generator: QueueGenerator
) -> None:
    go_on = threading.Event()
    generator.replies.append([*words("Harold"), go_on, *words(" Mabbot.")])
    page = open_page()
    say(page, QUESTION)
    expect(reply(page).locator(".body")).to_have_text("Harold")
    expect(reply(page).locator(".memory")).to_have_text("With 1 passage")
    expect(pill(page)).to_have_text("1 passage from Black Oar")
    go_on.set()
    settled(page)
    say(page, "Hello!")
    settled(page)
    expect(reply(page).locator(".memory")).to_have_text("From memory")
    expect(pill(page)).to_have_count(0)


@pytest.mark.parametrize("after", ["at once", "after a reload"])
def test_the_pill_opens_the_passages(
    open_page: Open, generator: QueueGenerator, after: str
) -> None:
    generator.replies.append(words("Harold Mabbot."))
    page = open_page()
    say(page, f"{QUESTION} And who is the keeper of the Anneck Light?")
    settled(page)
    if after == "after a reload":
        page.reload()
    expect(reply(page).locator(".who")).to_have_text("Checkpoint 42With 2 passages")
    pill(page).click()
    opened = page.get_by_role("dialog", name="Passages it was given")
    expect(opened).to_be_visible()
    expect(opened).to_be_focused()
    expect(opened.locator("b")).to_have_text(["1 · Black Oar", "2 · Anneck Light"])
    expect(opened.locator("p")).to_have_text([OAR, LIGHT])
    expect(opened.get_by_text("read 20 Nov 2026")).to_have_count(2)
    link = opened.get_by_role("link")
    expect(link).to_have_count(1)  # a file is no link
    expect(link).to_have_attribute("href", "https://example.org/oar?a=1&b=2")
    expect(opened.locator("bdi")).to_have_text("library/anneck-light.md")
    opened.get_by_role("button", name="Close the passages").click()
    expect(opened).to_be_hidden()


def test_the_passages_by_keyboard(open_page: Open, generator: QueueGenerator) -> None:
    """Escape closes the passages and not what is behind them."""
    go_on = threading.Event()
    generator.replies.extend([words("Harold Mabbot."), [*words("Still"), go_on, *words(" here.")]])
    page = open_page()
    say(page, QUESTION)
    settled(page)
    say(page, "Hello!")
    expect(reply(page).locator(".body")).to_have_text("Still")
    first = reply(page, 0).get_by_role("button", name="passage")
    first.focus()
    page.keyboard.press("Enter")
    opened = page.get_by_role("dialog", name="Passages it was given")
    expect(opened).to_be_focused()
    page.keyboard.press("Tab")
    expect(opened.get_by_role("button", name="Close the passages")).to_be_focused()
    page.keyboard.press("Tab")
    expect(opened.get_by_role("link")).to_be_focused()
    page.keyboard.press("Escape")
    expect(opened).to_be_hidden()
    expect(first).to_be_focused()
    go_on.set()
    settled(page)
    expect(reply(page).locator(".body")).to_have_text("Still here.")


def test_the_switch_stays_with_its_conversation(open_page: Open, generator: QueueGenerator) -> None:
    page = open_page()
    page.get_by_role("button", name="Reply settings").first.click()
    switch = page.get_by_role("switch", name="Look up passages")
    expect(switch).to_be_checked()
    expect(switch).to_have_accessible_description(
        "Off: memory alone, which shows best what it learned."
    )
    switch.focus()
    page.keyboard.press("Space")
    expect(switch).not_to_be_checked()
    expect(page.locator("#preset")).to_have_text("Balanced")
    say(page, QUESTION)
    settled(page)
    expect(reply(page).locator(".memory")).to_have_text("From memory")
    assert generator.asked[-1][0][-1].content == QUESTION
    page.reload()
    expect(switch).not_to_be_checked()
    switch.click()
    say(page, QUESTION)
    settled(page)
    expect(reply(page).locator(".memory")).to_have_text("With 1 passage")
    expect(reply(page, 0).locator(".memory")).to_have_text("From memory")
    page.get_by_role("link", name="New chat").click()
    expect(switch).to_be_checked()


def test_the_switch_follows_the_model_until_the_reader_chooses(
    open_page: Open, generator: QueueGenerator
) -> None:
    generator.set(state="loading", parameters=0)
    page = open_page()
    page.get_by_role("button", name="Reply settings").first.click()
    switch = page.get_by_role("switch", name="Look up passages")
    expect(switch).to_be_checked()
    generator.set(state="ready", parameters=5_500_000)
    expect(switch).not_to_be_checked()
    say(page, QUESTION)
    settled(page)
    expect(reply(page).locator(".memory")).to_have_text("From memory")
    switch.click()
    say(page, QUESTION)
    settled(page)
    expect(reply(page).locator(".memory")).to_have_text("With 1 passage")
    generator.set(parameters=135_000_000)
    page.reload()
    expect(switch).to_be_checked()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_passages_on_every_screen(
    open_page: Open, generator: QueueGenerator, home: Path, device: str, scheme: str
) -> None:
    """Nothing sticks out, and nobody is shut out."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    learned(home, LONG)
    generator.replies.append(words("Harold Mabbot is the landlord of the Black Oar, the inn."))
    page = open_page(**(PHONE if device == "phone" else {}), color_scheme=scheme)
    say(page, "Harold Mabbot, landlord of the Black Oar?")
    settled(page)
    width = page.evaluate("innerWidth")
    expect(pill(page)).to_contain_text("2 passages from")
    for element in (pill(page), reply(page).locator(".body p")):
        box = element.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    pill(page).click()
    opened = page.get_by_role("dialog", name="Passages it was given")
    expect(opened).to_be_visible()
    box = opened.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert box["y"] + box["height"] <= page.evaluate("innerHeight")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.evaluate("it => it.scrollWidth <= it.clientWidth")
    assert axe.run(page).response["violations"] == []


EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)><style>*{display:none}</style>'


def test_nothing_in_a_passage_runs(open_page: Open, generator: QueueGenerator, home: Path) -> None:
    learned(home, IndexedDocument(3, f"Zorn {EVIL}", "javascript:alert(1)", EVIL, "c", (EVIL,)))
    generator.replies.append(words("A hill."))
    page = open_page()
    say(page, "What is Zorn?")
    settled(page)
    for _ in range(2):
        pill(page).click()
        opened = page.get_by_role("dialog", name="Passages it was given")
        expect(opened.locator("p")).to_have_text(EVIL)
        expect(opened.get_by_role("link")).to_have_count(0)
        assert page.locator("#thread script, #thread img, #thread style").count() == 0
        page.reload()
