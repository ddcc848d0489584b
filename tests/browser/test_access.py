"""The demo chat for those who do not see it well, or use it by hand on a small screen: held against axe-core's rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.js_packages import find_node, install_packages
from tests.browser.blotter import Blotter
from tests.browser.tab import AT_ONCE, Browser, Tab

pytestmark = pytest.mark.timeout(120)

#: Replies are written by models, with whatever headings they like.
RULES_LEFT_OUT = ("heading-order",)

TABLE = "| Name | Count |\n|:--|--:|\n| a name of several words, longer than a phone is wide | 1,000,000 |"
CODE = "```python\nprint('a line that is so long that it does not fit on a phone, and hardly on a desk')\n```"
EVERYTHING: dict[str, Any] = {
    "conversation": {"title": "Everything"},
    "messages": [
        {"id": "u", "role": "user", "content": "All of it, please"},
        {
            "id": "r",
            "role": "assistant",
            "parentId": "u",
            "parts": [
                {"type": "reasoning", "text": "All of it.", "state": "done"},
                {"type": "text", "text": f"# All\n\n1. *one*\n\n> two\n\n{TABLE}\n\n{CODE}\n\n[three](https://e.test)"},
                {
                    "type": "tool-count",
                    "toolCallId": "t",
                    "state": "output-available",
                    "input": {"of": "all"},
                    "output": 3,
                },
                {
                    "type": "tool-count",
                    "toolCallId": "f",
                    "state": "output-error",
                    "input": {"of": "nothing"},
                    "errorText": "There is nothing.",
                },
                {"type": "data-artifact", "data": {"artifactId": "a"}},
            ],
        },
    ],
    "artifacts": [
        {
            "id": "a",
            "messageId": "r",
            "kind": "html",
            "title": "A page",
            "content": f"<!doctype html><html lang=en><title>A page</title><p>{'word ' * 400}",
        }
    ],
}  # fmt: skip

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core's script."""
    find_node()
    return (install_packages() / "axe-core" / "axe.min.js").read_text()


def breaches(tab: Tab, axe: str) -> list[str]:
    """What axe-core finds fault with on the page as it stands."""
    tab.page.evaluate(f"window.axe ? undefined : (() => {{ {axe} }})()")
    found = tab.page.evaluate(
        "(left) => axe.run(document, {resultTypes: ['violations'], rules: Object.fromEntries(left.map((id) => [id, {enabled: false}]))})",
        list(RULES_LEFT_OUT),
    )
    return [
        f"{breach['id']}: {breach['help']}: {[node['html'][:200] for node in breach['nodes']]}"
        for breach in found["violations"]
    ]


def opened(tab: Tab, blotter: Blotter) -> None:
    """A conversation in which everything is that can be shown."""
    blotter.call(tab.owner, "POST", "/everything/sync", EVERYTHING)
    tab.page.goto(f"{blotter.url}/#/everything")
    tab.until("document.querySelectorAll('article.message').length === 2")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [{}, PHONE], ids=["desk", "phone"])
def test_nothing_on_the_page_breaks_the_rules_of_access(
    blotter: Blotter, browser: Browser, axe: str, size: dict[str, Any], scheme: str
) -> None:
    with browser.person(AT_ONCE, color_scheme=scheme, reduced_motion="reduce", **size) as person:
        tab = person.open(blotter)
        assert breaches(tab, axe) == []
        opened(tab, blotter)
        for summary in tab.page.locator("details summary").all():
            summary.click()
        tab.shot(f"everything-{scheme}-{'phone' if size else 'desk'}")
        assert breaches(tab, axe) == []
        for button in ("conversation-menu", "break"):
            tab.page.click(f"#{button}")
            assert breaches(tab, axe) == [], button
            tab.page.keyboard.press("Escape")
        tab.page.click("#conversation-menu")
        tab.page.click("#rename")
        assert breaches(tab, axe) == []
        tab.page.keyboard.press("Escape")
        tab.page.click("button.card.artifact")
        assert breaches(tab, axe) == []
        tab.page.click("#artifact-source-tab")
        assert breaches(tab, axe) == []
        tab.page.click("#artifact-close")
        person.offline(True)
        tab.page.fill("#words", "Are you there?")
        tab.page.click("#send")
        tab.until("document.querySelector('.dots:not([hidden])')")
        assert breaches(tab, axe) == []
        tab.shot(f"offline-{scheme}-{'phone' if size else 'desk'}")


def test_who_does_not_see_the_page_hears_that_a_reply_begins_and_ends(
    blotter: Blotter, browser: Browser
) -> None:
    with browser.person(AT_ONCE) as person:
        tab = person.open(blotter)
        tab.page.evaluate("""() => {
            window.heard = [];
            const live = document.getElementById("live");
            new MutationObserver(() => heard.push(live.textContent)).observe(live, { childList: true, characterData: true, subtree: true });
        }""")
        tab.send("What will the weather be in Lisbon?")
        tab.check()
        assert tab.page.evaluate("heard") == ["The assistant is writing.", "The reply is complete."]
        assert tab.page.get_attribute("#live", "aria-live") == "polite"
        reply = tab.page.get_by_role("article", name="Assistant")
        assert reply.get_attribute("aria-busy") == "false"


@pytest.fixture
def phone(blotter: Blotter, browser: Browser) -> Iterator[Tab]:
    """The conversation in which everything is, on a phone."""
    with browser.person(AT_ONCE, **PHONE) as person:
        tab = person.open(blotter)
        opened(tab, blotter)
        yield tab


def test_what_lies_over_the_chat_on_a_phone_is_left_before_the_chat_is_reached(phone: Tab) -> None:
    covered = "document.querySelector('main').inert"
    phone.page.tap("#list-open")
    phone.until(covered)
    assert phone.page.evaluate("document.activeElement.id") == "new"
    phone.page.touchscreen.tap(380, 400)  # beside the list
    phone.until(f"!{covered} && !document.body.classList.contains('with-list')")
    assert phone.page.evaluate("document.activeElement.id") == "list-open"
    phone.page.tap("button.card.artifact")
    phone.until(covered)
    phone.page.tap("#artifact-close")
    phone.until(f"!{covered}")
    assert phone.page.evaluate("document.activeElement.className") == "card artifact"
    assert phone.errors == []


def test_words_and_numbers_in_tables_stay_whole_on_a_phone(phone: Tab) -> None:
    lines = phone.page.evaluate("""() => [...document.querySelectorAll("td.at-end, th.at-end")].map((cell) => {
        const range = document.createRange();
        range.selectNodeContents(cell);
        return range.getClientRects().length;
    })""")
    assert lines == [1, 1]


def test_a_long_line_of_an_artifacts_source_can_be_read_on_a_phone(phone: Tab) -> None:
    phone.page.tap("button.card.artifact")
    phone.page.tap("#artifact-source-tab")
    wide = phone.page.evaluate(
        "[document.getElementById('artifact-source'), document.querySelector('#artifact-source pre')].map((one) => one.scrollWidth <= innerWidth)"
    )
    assert wide == [True, True]
