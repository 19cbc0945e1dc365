from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import PHONE
from tests.browser.hands import Open, expect, reply, say, settled, words
from tests.web.fakes import Learner, LiveServer, QueueGenerator, endless, publish

pytestmark = pytest.mark.browser


def test_a_reply_streams_and_says_who_made_it(open_page: Open, generator: QueueGenerator) -> None:
    go_on = threading.Event()
    generator.replies.append([*words("Here **they** are:\n\n"), go_on, *words("- Wren\n- Maren")])
    page = open_page()
    say(page, "Who kept the light?")
    body = reply(page).locator(".body")
    expect(body).to_have_text("Here they are:")
    expect(body.locator("strong")).to_have_text("they")
    expect(reply(page)).to_have_attribute("aria-busy", "true")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    go_on.set()
    expect(body.locator("li")).to_have_text(["Wren", "Maren"])
    settled(page)
    expect(reply(page)).to_have_attribute("aria-busy", "false")
    expect(reply(page).locator(".who")).to_have_text("Checkpoint 42From memory")
    expect(reply(page).locator(".stats")).to_contain_text("first token")
    expect(page.locator("#says")).to_contain_text("Here they are")
    expect(page).to_have_url(re.compile(r"/c/[\w-]+$"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Who kept the light?")
    expect(page.locator("#rows [aria-current]")).to_have_text("Who kept the light?")
    expect(page.locator("#context .used")).to_have_text("12")


def test_a_reload_shows_the_same_and_goes_on(open_page: Open, generator: QueueGenerator) -> None:
    generator.replies.append(words("It is **Edmund Hale**."))
    page = open_page()
    say(page, "Who designed it?")
    expect(reply(page).locator("strong")).to_be_visible()
    settled(page)
    page.reload()
    expect(page.locator(".me")).to_have_text("Who designed it?")
    expect(reply(page).locator("strong")).to_have_text("Edmund Hale")
    say(page, "And when?")
    expect(page.locator("article.ai")).to_have_count(2)
    settled(page)
    assert [m.content for m in generator.asked[-1][0]] == [
        "Who designed it?",
        "It is **Edmund Hale**.",
        "And when?",
    ]


@pytest.mark.parametrize("how", ["button", "escape"])
def test_stop(open_page: Open, generator: QueueGenerator, how: str) -> None:
    generator.replies.append(endless())
    page = open_page()
    say(page, "Count")
    expect(reply(page).locator(".body")).to_contain_text("word word")
    if how == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    expect(reply(page).locator(".status")).to_contain_text(
        re.compile(r"Stopped by you after \d+ tokens?\.")
    )
    assert generator.closed.wait(10)
    settled(page)


def test_asking_again_puts_a_second_answer_below_the_first(
    open_page: Open, generator: QueueGenerator
) -> None:
    generator.replies.extend([words("First."), words("Second.")])
    page = open_page()
    say(page, "Why?")
    expect(reply(page).locator(".body")).to_have_text("First.")
    settled(page)
    reply(page).locator(".acts").get_by_role("button", name="Ask again").click()
    expect(reply(page).locator(".body")).to_have_text("Second.")
    settled(page)
    expect(page.locator(".me")).to_have_count(1)
    assert [m.content for m in generator.asked[-1][0]] == ["Why?"]
    expect(page.get_by_role("button", name="Ask again")).to_have_count(1)


def test_copy(open_page: Open, generator: QueueGenerator) -> None:
    generator.replies.append(words("Edmund Hale."))
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    say(page, "Who?")
    settled(page)
    reply(page).get_by_role("button", name="Copy").click()
    expect(reply(page).get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "Edmund Hale."


def test_the_longest_reply_cuts_off(open_page: Open, generator: QueueGenerator) -> None:
    generator.replies.append(words("word " * 30))
    page = open_page()
    page.get_by_role("button", name="Reply settings").first.click()
    page.get_by_label("Longest reply", exact=True).fill("16")
    say(page, "Count")
    expect(reply(page).locator(".status")).to_contain_text(
        "Cut off at 16 tokens, the longest reply you set."
    )


def test_turns_that_the_model_no_longer_sees(open_page: Open, generator: QueueGenerator) -> None:
    generator.set(context=100)
    page = open_page()
    for n in range(4):
        generator.replies.append(words("reply"))
        say(page, f"{n} " + "w " * 20)
        expect(page.locator("article.ai .stats")).to_have_count(n + 1)
        settled(page)
    expect(page.locator(".cutline")).to_have_text("The model no longer sees the 1 turn above.")


def test_settings_change_what_is_asked_and_can_be_put_back(
    open_page: Open, generator: QueueGenerator
) -> None:
    page = open_page()
    say(page, "one")
    settled(page)
    page.get_by_role("button", name="Reply settings: Balanced").click()
    page.get_by_label("Temperature", exact=True).fill("1.25")
    page.get_by_label("Top-p, slider").fill("0.5")
    page.get_by_label("Top-k", exact=True).fill("7")
    page.get_by_label("Longest reply", exact=True).fill("99")
    expect(page.get_by_role("button", name="Reply settings: Own")).to_be_visible()
    say(page, "two")
    settled(page)
    page.get_by_role("button", name="Back to Balanced").click()
    expect(page.get_by_label("Temperature", exact=True)).to_have_value("0.70")
    say(page, "three")
    settled(page)
    page.get_by_text("Exact", exact=True).click()
    say(page, "four")
    settled(page)
    asked = [params for _, params, _ in generator.asked]
    assert [(p.temperature, p.top_p, p.top_k, p.max_new_tokens) for p in asked] == [
        (0.7, 0.9, 50, 512),
        (1.25, 0.5, 7, 99),
        (0.7, 0.9, 50, 512),
        (0.0, 0.9, 50, 512),
    ]


@pytest.mark.parametrize(
    ("field", "typed", "said"),
    [
        ("Temperature", "2.5", "From 0 to 2. Still 0.70."),
        ("Temperature", "", "From 0 to 2. Still 0.70."),
        ("Top-p", "0", "From 0.05 to 1. Still 0.90."),
        ("Top-k", "201", "From 0 to 200. Still 50."),
        ("Top-k", "1.5", "A whole number from 0 to 200. Still 50."),
        ("Longest reply", "5000", "From 16 to 1,024. Still 512."),
    ],
)
def test_a_value_out_of_range_is_refused_at_its_field(
    open_page: Open, generator: QueueGenerator, field: str, typed: str, said: str
) -> None:
    page = open_page()
    page.get_by_role("button", name="Reply settings").first.click()
    box = page.get_by_label(field, exact=True)
    box.fill(typed)
    expect(page.get_by_role("alert").filter(has_text=said)).to_be_visible()
    expect(box).to_have_attribute("aria-invalid", "true")
    say(page, "go")
    settled(page)
    params = generator.asked[0][1]
    assert (params.temperature, params.top_p, params.top_k, params.max_new_tokens) == (
        0.7, 0.9, 50, 512,
    )  # fmt: skip


def test_settings_stay_with_their_conversation(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("button", name="Reply settings").first.click()
    page.get_by_text("Free", exact=True).click()
    say(page, "one")
    settled(page)
    page.reload()
    expect(page.locator("#preset")).to_have_text("Free")
    page.get_by_role("link", name="New chat").click()
    expect(page.locator("#preset")).to_have_text("Balanced")


def test_deleting_and_undoing(open_page: Open) -> None:
    page = open_page()
    say(page, "keep me")
    settled(page)
    expect(page.locator("#rows [aria-current]")).to_be_visible()
    page.get_by_role("button", name="Delete keep me").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("New chat")
    expect(page.locator("#rows li")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("keep me")
    expect(page.locator(".me")).to_have_text("keep me")


def test_older_conversations_are_fetched(open_page: Open, server: LiveServer) -> None:
    for n in range(42):
        server.app.state.site.store.begin(
            None, f"number {n}", version=1, sampling={}, prompt_tokens=1, dropped=0
        )
    page = open_page()
    expect(page.locator("#rows li")).to_have_count(40)
    page.get_by_role("button", name="Show older ones").click()
    expect(page.locator("#rows li")).to_have_count(42)
    expect(page.locator("#rows h2")).to_have_count(1)


def test_themes(open_page: Open) -> None:
    page = open_page(color_scheme="dark")
    dark = "rgb(18, 21, 19)"
    light = "rgb(250, 248, 244)"
    body = page.locator("body")
    expect(body).to_have_css("background-color", dark)
    page.get_by_role("button", name="Theme: automatic").click()
    expect(body).to_have_css("background-color", light)
    page.reload()
    expect(body).to_have_css("background-color", light)
    page.get_by_role("button", name="Theme: light").click()
    expect(body).to_have_css("background-color", dark)
    page.get_by_role("button", name="Theme: dark").click()
    expect(page.get_by_role("button", name="Theme: automatic")).to_be_visible()


def test_the_enter_that_ends_a_composition_does_not_send(open_page: Open) -> None:
    """Safari ends it first: the Enter is no part of it any more, but its key code is 229."""
    page = open_page()
    box = page.get_by_role("textbox", name="Message")
    box.fill("かな")
    ending = {"key": "Enter", "bubbles": True, "cancelable": True}
    for more in ({"isComposing": True}, {"keyCode": 229}):
        box.dispatch_event("keydown", {**ending, **more})
    expect(box).to_have_value("かな")
    expect(reply(page)).to_have_count(0)


def test_keyboard_alone(open_page: Open, generator: QueueGenerator) -> None:
    generator.replies.append(words("An answer."))
    page = open_page()
    box = page.get_by_role("textbox", name="Message")
    expect(box).to_be_focused()
    page.keyboard.type("first line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second line")
    expect(box).to_have_value("first line\nsecond line")
    page.keyboard.press("Enter")
    expect(reply(page).locator(".body")).to_have_text("An answer.")
    settled(page)
    expect(box).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(box).to_have_value("first line\nsecond line")
    page.keyboard.press("Alt+Shift+KeyR")
    expect(reply(page)).to_be_focused()
    with page.expect_navigation():
        page.keyboard.press("Control+Shift+KeyO")
    expect(page.get_by_role("heading", level=1)).to_have_text("New chat")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Reply settings: Balanced")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Reply settings")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Reply settings")).to_be_hidden()
    expect(page.get_by_role("button", name="Reply settings: Balanced")).to_be_focused()


def test_phone(open_page: Open, generator: QueueGenerator, learner: Learner) -> None:
    learner.say("training", cycle=44, step=312, of=480)
    generator.replies.append(
        words("```\n" + "x" * 300 + "\n```\n\n| a | b |\n|---|---|\n| " + "y" * 200 + " | 2 |\n")
    )
    page = open_page(**PHONE)
    page.get_by_role("textbox", name="Message").fill("w" * 300)
    page.get_by_role("button", name="Send").tap()
    expect(reply(page).locator("table")).to_be_visible()
    settled(page)
    page.get_by_role("button", name="Conversations").tap()
    expect(page.get_by_role("group", name="The learner")).to_contain_text("Studying, cycle 44")
    assert fits(page)
    page.get_by_role("button", name="Close the list").tap()
    expect(page.get_by_role("group", name="The learner")).to_be_hidden()
    page.get_by_role("button", name="Reply settings").first.tap()
    expect(page.get_by_role("dialog", name="Reply settings")).to_be_visible()
    assert fits(page)


def fits(page: Any) -> bool:
    """Nothing scrolls sideways: neither the page nor the conversation."""
    return bool(
        page.evaluate(
            "[document.documentElement, document.querySelector('#scroll')]"
            ".every(e => e.scrollWidth <= e.clientWidth)"
        )
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["wide", "phone"])
def test_accessibility(
    open_page: Open,
    generator: QueueGenerator,
    learner: Learner,
    home: Path,
    scheme: str,
    size: str,
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    learner.say("training", cycle=44, step=312, of=480, eta_s=118)
    options = PHONE if size == "phone" else {}
    page = open_page(color_scheme=scheme, reduced_motion="reduce", **options)
    assert axe.run(page).response["violations"] == []
    generator.replies.append(
        words("## Keepers\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\n" + "x " * 200 + "\n```\n")
    )
    say(page, "Who?")
    expect(reply(page).locator("table")).to_be_visible()
    settled(page)
    generator.set(live=43, fallback=True, rejected="000044 rejected: truncated")
    expect(page.locator("#notices .note")).to_have_count(2)
    assert axe.run(page).response["violations"] == []
    generator.replies.append([*words("half "), RuntimeError()])
    say(page, "Again?")
    expect(reply(page).get_by_role("alert")).to_be_visible()
    page.get_by_role("button", name="Reply settings").first.click()
    page.get_by_label("Temperature", exact=True).fill("9")
    assert axe.run(page).response["violations"] == []


XSS = [
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned=1'>",
    "<svg/onload=window.pwned=1>",
    "[click](javascript:window.pwned=1)",
    "![x](https://evil.example/pixel.png)",
    '<a href="https://evil.example" style="position:fixed;inset:0">x</a>',
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<style>body{display:none}</style>",
    "<form action=https://evil.example><button>go</button></form>",
    "<base href=https://evil.example>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    '"><script>window.pwned=1</script>',
    "</textarea></template><script>window.pwned=1</script>",
    "| <img src=x onerror=window.pwned=1> |\n|---|\n| `<script>` |",
    "```html\n<script>window.pwned=1</script>\n```",
    "&#60;script&#62;window.pwned=1&#60;/script&#62;",
    "<math><mtext></mtext><mglyph><style></math><img src onerror=window.pwned=1>",
]


def test_nothing_in_a_reply_or_a_question_runs(
    open_page: Open, generator: QueueGenerator, home: Path
) -> None:
    """As streamed, as stored, as a title, as a suggestion. The fixture checks for requests, errors
    and violations of the content security policy (they reach the console)."""
    publish(home, 43, suggestions=[{"question": text, "source": text} for text in XSS[:3]])
    generator.set(live=43)
    page = open_page()
    expect(page.locator(".ask")).to_have_count(3)
    for text in XSS:
        generator.replies.append([*text[:9], text[9:], "\n\nend of it"])
        say(page, text)
        expect(reply(page).locator(".body")).to_contain_text("end of it")
        settled(page)
        assert page.evaluate("window.pwned") is None
    page.reload()
    expect(page.locator("article.ai")).to_have_count(len(XSS))
    assert page.evaluate("window.pwned") is None
    assert page.locator("#thread :is(script, img, iframe, style, form, link, base)").count() == 0
