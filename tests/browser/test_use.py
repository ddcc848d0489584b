"""The demo chat as it is used: on a phone, by keyboard, in the dark; stop, branches, archive, delete."""

from __future__ import annotations

import pytest

from tests.browser.blotter import Blotter
from tests.browser.tab import AT_ONCE, STORY, Browser, Tab

pytestmark = pytest.mark.timeout(90)


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone_all_of_it_fits(blotter: Blotter, browser: Browser, width: int) -> None:
    phone = {"viewport": {"width": width, "height": 700}, "is_mobile": True, "has_touch": True}
    with browser.person(AT_ONCE, **phone) as person:
        tab = person.open(blotter)
        fits(tab)
        tab.page.fill("#words", "What will the weather be in Lisbon? " + "W" * 300)
        tab.page.tap("#send")
        tab.check()
        tab.page.tap(".card.tool summary")
        fits(tab)
        tab.page.fill("#words", "Draw a lighthouse")
        tab.page.tap("#send")
        tab.check()
        tab.page.tap("button.card.artifact")
        tab.until("!document.getElementById('artifact').hidden")
        fits(tab)
        tab.shot(f"phone-{width}-artifact")
        tab.page.tap("#artifact-close")
        tab.page.tap("#list-open")
        tab.until("getComputedStyle(document.getElementById('sidebar')).visibility === 'visible'")
        fits(tab)
        tab.page.tap("#new")
        tab.until("!document.getElementById('welcome').hidden")
        tab.page.tap("#break")
        fits(tab)


def fits(tab: Tab) -> None:
    """Assert that nothing has to be moved sideways."""
    wide = tab.page.evaluate(
        "[document.documentElement.scrollWidth, document.getElementById('scroller').scrollWidth, innerWidth]"
    )
    assert max(wide) == wide[2], wide


def test_everything_can_be_done_by_keyboard(blotter: Blotter, browser: Browser) -> None:
    with browser.person() as person:
        tab = person.open(blotter)
        keys = tab.page.keyboard
        tab.until("document.activeElement.id === 'words'")
        keys.type("Tell me a")
        keys.press("Shift+Enter")
        keys.type("long story.")
        keys.press("Enter")
        tab.wait_for_text(100)
        keys.press("Escape")
        says = tab.check()
        assert says["messages"][0]["content"] == "Tell me a\nlong story."
        assert (says["messages"][1]["status"], says["messages"][1]["statusReason"]) == (
            "interrupted",
            "stopped",
        )

        # Edit the question: Shift+Tab from the field through the last messages' buttons.
        focus(tab, "Edit", "Shift+Tab")
        keys.press("Enter")
        keys.press("ControlOrMeta+A")
        keys.type("How do you keep it?")
        keys.press("Enter")
        tab.wait_for_text(100)
        keys.press("Escape")
        tab.check()
        focus(tab, "Earlier branch")
        keys.press("Enter")
        tab.until(lambda: tab.page.inner_text(".words") == "Tell me a\nlong story.")
        tab.check()

        # Rename, by the menu.
        focus(tab, "This conversation")
        keys.press("Enter")
        focus(tab, "Rename …")
        keys.press("Enter")
        keys.type("By hand")
        keys.press("Enter")
        assert tab.check()["conversation"]["title"] == "By hand"

        # A second one; the list by arrow keys; archive and delete.
        first = tab.id
        keys.press("ControlOrMeta+K")
        tab.until("document.activeElement.id === 'words'")
        keys.type("A second one")
        keys.press("Enter")
        tab.wait_for_text(50)
        keys.press("Escape")
        tab.check()
        focus(tab, "A second one", "Shift+Tab")
        keys.press("ArrowDown")
        keys.press("Enter")
        tab.until(lambda: tab.id == first)
        tab.check()
        focus(tab, "This conversation")
        keys.press("Enter")
        focus(tab, "Archive")
        keys.press("Enter")
        tab.until("document.getElementById('list').children.length === 1")
        focus(tab, "This conversation")
        keys.press("Enter")
        focus(tab, "Delete …")
        keys.press("Enter")
        focus(tab, "Delete")
        keys.press("Enter")
        tab.until("!document.getElementById('welcome').hidden")
        with pytest.raises(AssertionError, match="410"):
            blotter.read(tab.owner, first)
        assert tab.errors == []


def focus(tab: Tab, label: str, key: str = "Tab") -> None:
    """Press ``key`` until what is focused is called ``label``; every stop on the way must be seen to have the focus."""
    name = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim()"
    for _ in range(60):
        if tab.page.evaluate(name) == label:
            return
        tab.page.keyboard.press(key)
        seen = tab.page.evaluate("""() => {
            const one = document.activeElement;
            if (one === document.body || one.tagName === "IFRAME") return true;
            return one.matches(":focus-visible") && (getComputedStyle(one).outlineStyle !== "none" || one.id === "words" || one.id === "scroller");
        }""")
        assert seen, tab.page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
    raise AssertionError(f"{label!r} is not to be reached by {key}")


def test_stop_another_reply_and_the_way_back(blotter: Blotter, browser: Browser) -> None:
    with browser.person() as person:
        tab = person.open(blotter)
        tab.send(STORY)
        tab.wait_for_text(200)
        tab.page.click("#send")
        stopped = tab.check()["messages"][1]
        assert (stopped["status"], stopped["statusReason"]) == ("interrupted", "stopped")
        tab.press_on(".message.assistant", "Write another reply")
        tab.wait_for_text(0)
        says = tab.check()
        assert len(says["messages"]) == 3
        assert tab.page.inner_text(".message.assistant .place") == "2/2"
        tab.press_on(".message.assistant", "Earlier branch")
        tab.until(lambda: tab.shown()[1]["id"] == stopped["id"])
        tab.check()
        tab.refresh()
        tab.check()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_follow_the_system_until_one_is_chosen(
    blotter: Blotter, browser: Browser, scheme: str
) -> None:
    with browser.person(AT_ONCE, color_scheme=scheme) as person:
        tab = person.open(blotter)
        assert dark(tab) == (scheme == "dark")
        tab.page.click("#theme")
        assert dark(tab) != (scheme == "dark")
        tab.refresh()
        tab.until("document.getElementById('owner').textContent !== ''")
        assert dark(tab) != (scheme == "dark")


def dark(tab: Tab) -> bool:
    color = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(",")[:3]) < 3 * 128


def test_what_is_archived_is_listed_apart_until_it_is_taken_out(blotter: Blotter, browser: Browser) -> None:
    with browser.person(AT_ONCE) as person:
        tab = person.open(blotter)
        tab.send("Put me away")
        tab.check()
        listed = "[...document.querySelectorAll('#list a')].map((link) => link.textContent).join()"
        tab.until(f"{listed} === 'Put me away'")
        tab.page.click("#conversation-menu")
        tab.page.click("#archive")
        tab.until(f"{listed} === '' && !document.getElementById('empty').hidden")
        tab.page.click("#archived")
        tab.until(f"{listed} === 'Put me away'")
        assert tab.page.get_attribute("#archived", "aria-pressed") == "true"
        tab.page.click("#conversation-menu")
        assert tab.page.inner_text("#archive") == "Take out of the archive"
        tab.page.click("#archive")
        tab.until(f"{listed} === ''")
        tab.page.click("#archived")
        tab.until(f"{listed} === 'Put me away'")
        assert tab.check()["conversation"]["archived"] is False


def test_a_conversation_deleted_in_one_tab_is_gone_in_the_other(blotter: Blotter, browser: Browser) -> None:
    with browser.person(AT_ONCE) as person:
        one = person.open(blotter)
        one.send("Not for long")
        one.check()
        two = person.open(blotter, one.address)
        two.wait_for_text(0)
        one.page.click("#conversation-menu")
        one.page.click("#delete")
        one.page.click("#delete-dialog .main")
        one.until("!document.getElementById('welcome').hidden")
        two.until("document.getElementById('hint').textContent === 'This conversation was deleted.'")
        two.until("document.querySelectorAll('article.message').length === 0")
        assert two.page.locator("#send").is_disabled()
        for tab in (one, two):
            tab.until("document.getElementById('list').children.length === 0")
            assert tab.errors == []


def test_a_conversation_made_elsewhere_is_listed_as_soon_as_it_is_opened(
    blotter: Blotter, browser: Browser
) -> None:
    with browser.person(AT_ONCE) as person:
        tab = person.open(blotter)
        tab.until("!document.getElementById('empty').hidden")
        body = {"id": "u", "role": "user", "content": "From a phone"}
        blotter.call(tab.owner, "POST", "/elsewhere/messages", body)
        tab.page.goto(f"{blotter.url}/#/elsewhere")
        # Within a moment, not when the list is looked at by the clock.
        tab.until("document.querySelector('#list [aria-current=page]')", within_s=8)
        assert tab.page.locator("#empty").is_hidden()
        assert tab.errors == []


def test_copying_says_whether_it_came_to_something(blotter: Blotter, browser: Browser) -> None:
    with browser.person(AT_ONCE, permissions=["clipboard-read", "clipboard-write"]) as person:
        tab = person.open(blotter)
        tab.send("Hello, you")
        tab.check()
        toast = "document.getElementById('toast').textContent"
        tab.press_on(".message.user", "Copy")
        tab.until(f"{toast} === 'Copied.'")
        assert tab.page.evaluate("navigator.clipboard.readText()") == "Hello, you"
        tab.page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject(new Error('no')))")
        tab.press_on(".message.user", "Copy")
        tab.until(f"{toast} === 'It could not be copied.'")
