"""The demo chat in a real browser, while it is refreshed, closed, left, and used in two tabs.

After each of these: what the page shows, what the API says and what Postgres holds are the same, nothing missing,
nothing doubled (`Tab.check`).
"""

from __future__ import annotations

import contextlib

import pytest

from tests.browser.blotter import Blotter
from tests.browser.tab import AT_ONCE, STORY, Browser, Tab, story_is_whole
from tests.servers import eventually

pytestmark = pytest.mark.timeout(90)


# ---------------------------------------------------------------------- refresh, close
def test_after_a_refresh_the_text_stands_at_once_and_goes_on_growing(
    blotter: Blotter, browser: Browser
) -> None:
    with browser.person() as person:
        tab = person.open(blotter)
        tab.send(STORY)
        before = tab.wait_for_text(300)
        tab.shot("streaming")
        tab.refresh()
        # The first text that is shown at all is no shorter than what was there.
        tab.until(lambda: tab.reply_length() > 0)
        again = tab.reply_length()
        assert again >= before
        assert tab.badges()[-1] == "typing"
        tab.wait_for_text(again)
        story_is_whole(tab.check())


def test_a_closed_tab_costs_nothing(blotter: Blotter, browser: Browser) -> None:
    with browser.person() as person:
        tab = person.open(blotter)
        tab.send(STORY)
        tab.wait_for_text(200)
        owner, conversation_id, address = tab.owner, tab.id, tab.address
        tab.page.close()
        eventually(lambda: not blotter.read(owner, conversation_id)["inFlight"], within_s=20, every_s=0.1)
        story_is_whole(person.open(blotter, address).check())


def test_a_page_that_is_gone_right_after_enter_has_said_it(blotter: Blotter, browser: Browser) -> None:
    with browser.person(AT_ONCE) as person:
        tab = person.open(blotter)
        tab.page.fill("#words", STORY)
        with tab.page.expect_event("load"):
            tab.page.evaluate("document.getElementById('composer').requestSubmit(), location.reload()")
        story_is_whole(tab.check())


# ---------------------------------------------------------------------- a page that goes away
#: A client of its own on the page, whose words are unsaved at the moment `leave` runs.
LEAVING = """async (leave) => {
  const { createBlotter } = await import("/static/blotter.js");
  const { openSession, Line } = await import("/static/demo/session.js");
  const { token } = await openSession(new Line());
  await token();
  window.client = createBlotter({ token, limits: { appendMs: 60_000 } });
  await client.saveUserMessage("leaving", { id: "u", content: "Go on" });
  window.reply = client.startReply("leaving", { id: "r", parentId: "u" });
  await client.flush();
  reply.append("What nobody has sent yet.");
  if (leave === "hide") {
    Object.defineProperty(document, "visibilityState", { get: () => "hidden" });
    document.dispatchEvent(new Event("visibilitychange"));
  } else if (leave === "freeze") {
    document.dispatchEvent(new Event("freeze"));
  } else if (leave === "away") {
    location.href = "about:blank";
  } else {
    location.reload();
  }
}"""


@pytest.mark.parametrize("leave", ["hide", "freeze", "away", "reload"])
def test_what_nobody_has_sent_goes_out_when_the_page_is_hidden_or_left(
    blotter: Blotter, browser: Browser, leave: str
) -> None:
    with browser.person() as person:
        tab = person.open(blotter)
        with contextlib.suppress(Exception):  # the page that ran it may be gone
            tab.page.evaluate(LEAVING, leave)
        words = "What nobody has sent yet."

        def arrived() -> None:
            said = blotter.read(tab.owner, "leaving")["messages"]
            assert [one["content"] for one in said] == ["Go on", words]

        eventually(arrived, within_s=10)
        if leave in ("hide", "freeze"):
            # Nothing was lost by it, nothing is said twice: the page goes on where it was.
            tab.page.evaluate("reply.append(' And more.'), reply.complete()")
            eventually(
                lambda: blotter.read(tab.owner, "leaving")["messages"][1]["content"] == f"{words} And more.",
                within_s=10,
            )


# ---------------------------------------------------------------------- two tabs
def test_two_tabs_edit_one_conversation_and_show_the_same(blotter: Blotter, browser: Browser) -> None:
    with browser.person(AT_ONCE) as person:
        one = person.open(blotter)
        one.send("First question")
        one.check()
        two = person.open(blotter, one.address)
        two.wait_for_text(0)

        # Both at once: another name here, another wording of the first question there.
        rename(one, "Named by the first tab")
        two.press_on(".message.user", "Edit")
        two.page.fill(".message.user textarea", "First question, put better")
        two.page.press(".message.user textarea", "Enter")
        two.until("document.getElementById('title').textContent === 'Named by the first tab'")
        two.check()
        one.check()
        assert one.shown() == two.shown()
        assert one.page.inner_text(".message.user .place") == "2/2"

        # Both say something to the same message: two branches, and one of them shown in both.
        one.send("From the first tab")
        two.send("From the second tab")
        says = two.check()
        one.check()
        assert one.shown() == two.shown()
        users = [message["content"] for message in says["messages"] if message["role"] == "user"]
        assert sorted(users) == [
            "First question",
            "First question, put better",
            "From the first tab",
            "From the second tab",
        ]
        assert len(says["messages"]) == 8

        # A branch that is chosen in one is shown in the other.
        one.page.locator(".message.user .branches button").first.click()
        one.until(lambda: first_words(two) == "First question")
        # And back, and again: what the other tab did meanwhile is known to this one.
        two.page.locator(".message.user .branches button").last.click()
        one.until(lambda: first_words(one) == "First question, put better")
        one.page.locator(".message.user .branches button").first.click()
        one.until(lambda: first_words(two) == "First question")
        one.check()
        two.check()


def first_words(tab: Tab) -> str:
    found: str = tab.page.inner_text(".words >> nth=0")
    return found


def rename(tab: Tab, title: str) -> None:
    tab.page.click("#conversation-menu")
    tab.page.click("#rename")
    tab.page.fill("#new-title", title)
    tab.page.press("#new-title", "Enter")
