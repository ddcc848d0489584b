"""The demo chat while the line is cut, the page is killed, processes die and the buffer is lost: checked as in test_chat."""

from __future__ import annotations

import pytest

from tests.browser.blotter import Blotter
from tests.browser.tab import AT_ONCE, STORY, Browser, Tab, story_is_whole

pytestmark = pytest.mark.timeout(90)


# ---------------------------------------------------------------------- the line
def test_what_is_written_offline_waits_and_goes_out_when_the_line_is_back(
    blotter: Blotter, browser: Browser
) -> None:
    with browser.person() as person:
        tab = person.open(blotter)
        tab.send(STORY)
        tab.wait_for_text(200)
        person.offline(True)
        tab.until("!document.getElementById('away').hidden")
        tab.send("Are you still there?")
        tab.until(lambda: tab.badges()[-2:] == ["waiting", "waiting"])
        tab.shot("offline")
        # A refresh would find no server; what waits is in the outbox all the same.
        person.offline(False)
        says = tab.check(within_s=40)
        assert [message["role"] for message in says["messages"]] == ["user", "assistant"] * 2
        assert says["messages"][1]["statusReason"] == "stopped"
        assert tab.page.locator("#away").is_hidden()


def test_a_page_killed_with_a_long_unsaved_message_has_not_lost_it(
    blotter: Blotter, browser: Browser
) -> None:
    words = "".join(f"{number} bottles of ink, " for number in range(10_000))[:200_000].strip()
    with browser.person(AT_ONCE) as person:
        tab = person.open(blotter)
        person.offline(True)
        tab.send(words)
        tab.until("document.querySelector('.message.user .badge')?.textContent === 'waiting'")
        address, owner = tab.address, tab.owner
        tab.until(lambda: rows_in_outbox(tab) >= 3)  # the question, the reply's stub, the title
        with pytest.raises(Exception, match="crash"):
            tab.page.goto("chrome://crash")
        tab.page.close()
        person.offline(False)
        tab = person.open(blotter, address)
        assert tab.owner == owner
        says = tab.check()
        assert [message["role"] for message in says["messages"]] == ["user", "assistant"]
        assert says["messages"][0]["content"] == words


def rows_in_outbox(tab: Tab) -> int:
    found: int = tab.page.evaluate("""() => new Promise((resolve) => {
        const open = indexedDB.open("blotter");
        open.onsuccess = () => {
            const count = open.result.transaction("outbox").objectStore("outbox").count();
            count.onsuccess = () => { open.result.close(); resolve(count.result); };
        };
    })""")
    return found


# ---------------------------------------------------------------------- processes
@pytest.mark.parametrize("name", ["web", "events", "assistant"])
def test_a_reply_goes_on_when_a_process_is_killed(blotter: Blotter, browser: Browser, name: str) -> None:
    with browser.person() as person:
        tab = person.open(blotter)
        tab.send(STORY)
        before = tab.wait_for_text(300)
        blotter.kill(name)
        tab.wait_for_text(before + 200, within_s=30)
        story_is_whole(tab.check(within_s=40))


def test_with_the_worker_dead_all_goes_on_and_nothing_is_stored(blotter: Blotter, browser: Browser) -> None:
    with browser.person(AT_ONCE) as person:
        tab = person.open(blotter)
        with blotter.without("worker"):
            tab.send("Draw me a lighthouse.")
            tab.until("document.querySelector('.message.assistant[data-status=complete]')")
            tab.until(lambda: tab.badges() == ["buffered", "buffered"])
            tab.refresh()
            tab.until(lambda: tab.badges() == ["buffered", "buffered"])
            tab.check_shown(blotter.read(tab.owner, tab.id), badge="buffered")
            assert blotter.stored(tab.owner, tab.id)["messages"] == []
        says = tab.check(within_s=30)
        assert says["artifacts"][0]["content"].endswith("</svg>\n")


def test_the_button_kills_a_worker_and_nobody_notices(blotter: Blotter, browser: Browser) -> None:
    with browser.person() as person:
        tab = person.open(blotter)
        tab.send("What will the weather be in Lisbon?")
        tab.wait_for_text(10)
        tab.page.click("#break")
        tab.page.click("#break-worker")
        tab.until("document.getElementById('toast').textContent.includes('is dead')")
        says = tab.check(within_s=40)
        assert says["toolResults"][0]["output"]["place"] == "Lisbon"


def test_a_buffer_that_is_lost_and_back_empty_costs_nothing(blotter: Blotter, browser: Browser) -> None:
    with browser.person() as person:
        tab = person.open(blotter)
        with blotter.without("worker"):
            tab.send(STORY)
            before = tab.wait_for_text(300)
            assert blotter.stored(tab.owner, tab.id)["messages"] == []
            blotter.lose_buffer()
            tab.wait_for_text(before + 200, within_s=30)
        story_is_whole(tab.check(within_s=40))


def test_the_buttons_that_refresh_and_cut_the_line_cost_nothing(blotter: Blotter, browser: Browser) -> None:
    with browser.person() as person:
        tab = person.open(blotter)
        tab.send(STORY)
        before = tab.wait_for_text(200)
        tab.page.click("#break")
        with tab.page.expect_event("load"):
            tab.page.click("#break-refresh")
        tab.wait_for_text(before)
        tab.page.click("#break")
        tab.page.click("#break-line")
        tab.until("document.getElementById('break-line-left').textContent.startsWith('back in')")
        tab.until("!document.getElementById('away').hidden")
        assert tab.page.locator("#break-line").is_disabled()
        tab.until("document.getElementById('toast').textContent === 'Back online.'", within_s=20)
        story_is_whole(tab.check(within_s=40))
        assert tab.page.locator("#away").is_hidden()
