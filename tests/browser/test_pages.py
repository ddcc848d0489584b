"""The pages beside the chat in a real browser: the API's on a phone, and the way from the chat to the operators' page."""

from __future__ import annotations

import pytest

from tests.browser.blotter import Blotter
from tests.browser.tab import Browser

pytestmark = pytest.mark.timeout(90)


def test_the_api_with_every_call_open_is_no_wider_than_a_phone(blotter: Blotter, browser: Browser) -> None:
    with browser.person(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True) as person:
        page = person.context.new_page()
        page.goto(f"{blotter.url}/docs")
        page.wait_for_selector("#schemas details")
        page.evaluate("document.querySelectorAll('details').forEach((call) => { call.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_chat_leads_to_the_operators_page(blotter: Blotter, browser: Browser) -> None:
    with browser.person() as person:
        page = person.context.new_page()
        page.goto(blotter.url)
        page.get_by_role("link", name="Operations").click()
        page.wait_for_selector("#shown:not([hidden])")
