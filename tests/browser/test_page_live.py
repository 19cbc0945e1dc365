from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from autodidact.errors import Busy
from autodidact.types.cycle import Reason
from autodidact.types.report import CycleReport
from tests.browser.hands import Open, expect, reply, say, settled, words
from tests.web.fakes import Learner, LiveServer, QueueGenerator, endless, publish

pytestmark = pytest.mark.browser


def test_a_new_version_is_noticed_and_can_be_asked_at_once(
    open_page: Open, generator: QueueGenerator, home: Path
) -> None:
    generator.replies.extend([words("Edmund Hale."), words("Ilse Varrow.")])
    page = open_page()
    expect(page.locator("#answers")).to_contain_text("Newest, 42")
    say(page, "Who designed it?")
    settled(page)
    publish(home, 43)
    generator.set(live=43)
    notice = page.get_by_role("group", name="New checkpoint")
    expect(notice).to_contain_text("Checkpoint 43 is live")
    expect(notice).to_contain_text(
        "It passes 31 of 40 questions on 8 new documents; checkpoint 42 passed 4."
    )
    expect(page.locator("#answers")).to_contain_text("Newest, 43")
    card = notice.get_by_role("link", name="Report card")
    expect(card).to_have_attribute("href", "/learning/cycles/43")
    notice.get_by_role("button", name="Ask my last question again").click()
    expect(reply(page).locator(".body")).to_have_text("Ilse Varrow.")
    expect(notice.get_by_role("button")).to_have_count(0)  # the offer is over, the card stays
    expect(card).to_be_visible()
    expect(reply(page).locator(".name")).to_have_text("Checkpoint 43")
    expect(reply(page, 0).locator(".name")).to_have_text("Checkpoint 42")


def test_the_base_has_no_report_card(open_page: Open, generator: QueueGenerator) -> None:
    page = open_page()
    say(page, "Who?")
    settled(page)
    generator.set(live=0)
    notice = page.get_by_role("group", name="New checkpoint")
    expect(notice).to_contain_text("The base model answers now")
    expect(notice.get_by_role("link")).to_have_count(0)
    say(page, "Who?")
    settled(page)
    expect(reply(page).locator(".name")).to_have_text("Base")
    assert reply(page).locator(".name").get_attribute("href") is None
    assert reply(page, 0).locator(".name").get_attribute("href") == "/learning/cycles/42"


def test_a_version_that_goes_live_during_a_reply(
    open_page: Open, generator: QueueGenerator, home: Path
) -> None:
    go_on = threading.Event()
    generator.replies.append([*words("Half "), go_on, *words("done.")])
    page = open_page()
    say(page, "Who?")
    expect(reply(page).locator(".body")).to_have_text("Half")
    publish(home, 43)
    generator.set(live=43)
    expect(page.get_by_role("group", name="New checkpoint")).to_be_visible()
    go_on.set()
    note = reply(page).locator(".note")
    expect(note).to_contain_text("Checkpoint 43 went live while this reply was being written.")
    expect(note).to_contain_text("The reply was finished by checkpoint 42, which began it.")
    expect(reply(page).locator(".name")).to_have_text("Checkpoint 42")
    note.get_by_role("button", name="Ask 43").click()
    expect(reply(page).locator(".name")).to_have_text("Checkpoint 43")


def test_a_new_version_on_the_empty_page_offers_what_it_learned(
    open_page: Open, generator: QueueGenerator, home: Path
) -> None:
    generator.set(live=0)
    page = open_page()
    expect(page.get_by_text("It has not learned anything yet")).to_be_visible()
    publish(home, 43)
    generator.set(live=43)
    expect(page.get_by_role("heading", name="Ask what it has just learned")).to_be_visible()
    page.get_by_role("button", name="Who designed the Anneck Light?").click()
    expect(page.locator(".me")).to_have_text("Who designed the Anneck Light?")
    settled(page)


def test_the_learner_is_followed(open_page: Open, learner: Learner) -> None:
    learner.say("training", cycle=44, step=312, of=480, eta_s=118)
    page = open_page()
    line = page.get_by_role("group", name="The learner")
    expect(line).to_have_text(re.compile(r"Studying, cycle 44\s*Step 312 of 480, 1:58 left"))
    learner.say("training", cycle=44, step=360, of=480, eta_s=40)
    expect(line).to_contain_text("Step 360 of 480, 0:40 left")
    expect(line.locator(".v")).to_have_attribute("stroke-dasharray", "75 100")
    learner.say("idle", cycle=44, queued=3)
    expect(line).to_contain_text("3 documents queued")
    learner.say("stopped")
    expect(line).to_contain_text("The learner is not running")


def test_the_first_cycle_shows_its_progress(
    open_page: Open, generator: QueueGenerator, learner: Learner
) -> None:
    generator.set(live=0)
    learner.say("training", cycle=1, step=96, of=480, documents=40)
    page = open_page()
    bar = page.get_by_role("progressbar", name="Cycle 1, training: step 96 of 480")
    expect(bar).to_be_visible()
    expect(page.get_by_text("The first cycle reads 40 documents.")).to_be_visible()
    learner.say("training", cycle=1, step=240, of=480, documents=40)
    expect(
        page.get_by_role("progressbar", name="Cycle 1, training: step 240 of 480")
    ).to_be_visible()
    expect(page.locator("#answers")).to_contain_text("Base")


def test_the_time_left_moves_while_the_study_is_silent(
    open_page: Open, generator: QueueGenerator, learner: Learner
) -> None:
    generator.set(live=0)
    learner.say("preparing", cycle=1, phase="loading", left_s=290, cycle_s=300)
    page = open_page()
    expect(page.get_by_role("progressbar", name="4:50 of the cycle left")).to_be_visible()
    learner.say("preparing", cycle=1, phase="loading", left_s=285, cycle_s=300)
    expect(page.get_by_role("progressbar", name="4:45 of the cycle left")).to_be_visible()
    expect(page.get_by_role("group", name="The learner")).to_contain_text("Loading the model, 4:45")


def test_a_refused_cycle_is_explained_until_it_is_dismissed(
    open_page: Open, generator: QueueGenerator, learner: Learner
) -> None:
    generator.set(live=0)
    refused = CycleReport(1, "rejected", 9, reasons=(Reason("kept", "+0.3 nat"),))
    learner.say("idle", cycle=1, verdict=refused)
    page = open_page()
    note = page.locator("#notices .note")
    expect(note).to_contain_text(
        "The first cycle was not published: it forgot too much of what it knew. "
        "Nothing is lost: the base model goes on answering. The next cycle begins now."
    )
    learner.say("preparing", cycle=2, verdict=refused)
    expect(note).to_contain_text("Cycle 2 runs now.")
    note.get_by_role("button", name="Dismiss").click()
    learner.say("training", cycle=2, verdict=refused)
    expect(page.get_by_role("group", name="The learner")).to_contain_text("Studying, cycle 2")
    expect(note).to_have_count(0)


def test_lasting_notices_can_be_dismissed(open_page: Open, generator: QueueGenerator) -> None:
    generator.set(fallback=True)
    page = open_page()
    note = page.locator("#notices .note")
    expect(note).to_contain_text("Answered by the small bundled model.")
    note.get_by_role("button", name="Dismiss").click()
    expect(note).to_have_count(0)
    generator.set(rejected="000044 rejected: sha256 mismatch adapter_model.safetensors")
    expect(note).to_contain_text(
        "Checkpoint 44 did not load: sha256 mismatch adapter_model.safetensors. "
        "42 goes on serving. Nothing you asked is lost."
    )


def test_a_message_is_held_while_the_model_loads(
    open_page: Open, generator: QueueGenerator
) -> None:
    generator.set(state="loading")
    page = open_page(failing=True)
    expect(page.locator("#answers")).to_contain_text("Loading")
    say(page, "Who?")
    expect(page.locator("#notices")).to_contain_text(
        "The model is loading. Your message goes out as soon as it is ready."
    )
    generator.set(state="ready")
    expect(reply(page).locator(".body")).to_have_text("Who?")
    expect(page.locator("#notices .note")).to_have_count(0)
    assert len(generator.asked) == 1


def test_a_held_message_can_be_taken_back(open_page: Open, generator: QueueGenerator) -> None:
    generator.set(state="loading")
    page = open_page(failing=True)
    say(page, "Who?")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("textbox", name="Message")).to_have_value("Who?")
    expect(page.locator(".me")).to_have_count(0)
    assert generator.asked == []


def test_a_busy_server_is_asked_again(open_page: Open, generator: QueueGenerator) -> None:
    generator.refusals.append(Busy("busy", 1))
    page = open_page(failing=True)
    say(page, "Who?")
    expect(page.locator("#notices")).to_contain_text("The server is busy with")
    expect(reply(page).locator(".body")).to_have_text("Who?")
    expect(page.locator("#notices .note")).to_have_count(0)


def test_a_message_too_long_offers_a_shorter_reply(
    open_page: Open, generator: QueueGenerator
) -> None:
    page = open_page(failing=True)
    page.get_by_role("button", name="Reply settings").first.click()
    page.get_by_label("Longest reply", exact=True).fill("900")
    say(page, "w " * 200)
    expect(page.locator("#notices")).to_contain_text(
        "This message is too long for the model. "
        "Message 201 + longest reply 900 is more than 1,024 tokens."
    )
    page.get_by_role("button", name="Shorten the reply to 823").click()
    expect(page.locator("article.ai")).to_have_count(1)
    settled(page)
    assert generator.asked[0][1].max_new_tokens == 823


def test_a_failure_in_the_middle_keeps_what_came(
    open_page: Open, generator: QueueGenerator
) -> None:
    generator.replies.append([*words("Half of "), MemoryError()])
    page = open_page()
    say(page, "Who?")
    note = reply(page).get_by_role("alert")
    expect(note).to_contain_text("The reply failed after 2 tokens: out of memory on the server.")
    expect(note).to_contain_text("What arrived is kept. A shorter “Longest reply” may help.")
    expect(reply(page).locator(".body")).to_have_text("Half of")
    note.get_by_role("button", name="Ask again").click()
    expect(reply(page).locator(".body")).to_have_text("Who?")


def test_a_server_that_goes_in_the_middle(
    open_page: Open, generator: QueueGenerator, server: LiveServer
) -> None:
    generator.replies.append(endless())
    page = open_page(failing=True)
    say(page, "Count")
    expect(reply(page).locator(".body")).to_contain_text("word word")
    server.stop()
    expect(reply(page).get_by_role("alert")).to_contain_text(
        re.compile(r"The connection broke after \d+ tokens\. What arrived is kept\.")
    )


def test_a_server_that_is_gone_keeps_the_draft(open_page: Open, server: LiveServer) -> None:
    page = open_page(failing=True)
    expect(page.locator("#learner b")).to_have_text("The learner is not running")
    server.stop()
    say(page, "Who?")
    note = page.locator("#notices").get_by_role("alert")
    expect(note).to_contain_text(
        "The server does not answer. Your text is kept in this browser. "
        "Is python server.py running?"
    )
    expect(page.get_by_role("textbox", name="Message")).to_have_value("Who?")
    assert page.evaluate("localStorage.getItem('draft:new')") == "Who?"


def test_a_draft_survives_a_reload(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("textbox", name="Message").fill("half a thou")
    page.reload()
    expect(page.get_by_role("textbox", name="Message")).to_have_value("half a thou")


def test_a_conversation_deleted_elsewhere(
    open_page: Open, server: LiveServer, generator: QueueGenerator
) -> None:
    page = open_page(failing=True)
    say(page, "one")
    settled(page)
    server.app.state.site.store.delete(page.url.rsplit("/", 1)[1])
    say(page, "two")
    expect(page.locator("#notices")).to_contain_text("This conversation no longer exists.")
    page.get_by_role("button", name="Ask in a new chat").click()
    expect(reply(page).locator(".body")).to_have_text("two")
    assert [m.content for m in generator.asked[-1][0]] == ["two"]
