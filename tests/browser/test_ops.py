"""The operators' page in a real browser: what it shows, its graphs by keyboard, its token, and trouble in words."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.browser.blotter import Blotter
from tests.browser.tab import Browser
from tests.servers import eventually

pytestmark = pytest.mark.timeout(90)


def opened(person: Any, blotter: Blotter) -> tuple[Any, list[str]]:
    """The page, shown, and what its console complains of."""
    page = person.context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{blotter.url}/ops")
    page.wait_for_selector("#shown:not([hidden])")
    return page, complaints


def tile(page: Any, name: str) -> Any:
    return page.locator("figure.tile", has=page.get_by_role("heading", name=name, exact=True))


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_it_shows_what_is_saved_and_its_graphs_are_read_by_keyboard(
    blotter: Blotter, browser: Browser, width: int, scheme: str
) -> None:
    with browser.person(viewport={"width": width, "height": 900}, color_scheme=scheme) as person:
        page, complaints = opened(person, blotter)
        blotter.call("ann", "POST", f"/ops{width}/messages", {"id": "m", "role": "user"})
        page.wait_for_function(
            "document.querySelectorAll('figure.tile path[d^=M]').length > 5", timeout=30_000
        )
        page.wait_for_selector("#verdict[data-level]")
        assert tile(page, "Conversations in the buffer").locator("output").inner_text().split()[0] == "hot"
        graph = tile(page, "Dirty items").locator("svg")
        graph.focus()
        page.keyboard.press("ArrowLeft")
        said = graph.get_attribute("aria-label")
        assert "Dirty items, the last hour; " in said
        assert ": " in said.split("; ")[1], "a time and a value"
        page.keyboard.press("Escape")
        assert "highest" in graph.get_attribute("aria-label")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("#partitions li").count() == 16
        assert complaints == []


def test_trouble_is_told_in_words_with_the_next_step(blotter: Blotter, browser: Browser) -> None:
    with browser.person() as person:
        page, _ = opened(person, blotter)
        broker = blotter.up.pid("broker")
        os.kill(broker, signal.SIGSTOP)
        try:
            page.wait_for_selector(
                "#verdict[data-level=amber] li:has-text('the broker is not usable')", timeout=30_000
            )
            assert "CELERY_BROKER_URL" in page.locator("#reasons .step").all_inner_texts()[0]
            assert page.title().startswith("▲")
        finally:
            os.kill(broker, signal.SIGCONT)
        page.wait_for_selector("#verdict:not([data-level=red])")
        eventually(lambda: "broker" not in page.locator("#reasons").inner_text(), within_s=30)


def test_elsewhere_it_asks_for_a_token_and_says_why_one_is_not_taken(
    blotter: Blotter, browser: Browser
) -> None:
    with browser.person() as person:
        page = person.context.new_page()
        page.route("**/demo/session", lambda route: route.fulfill(status=404, body="{}"))
        page.goto(f"{blotter.url}/ops")
        field = page.get_by_label("Token")
        field.fill("nonsense")
        page.keyboard.press("Enter")
        page.wait_for_selector("#why:has-text('The token is not valid.')")
        assert page.evaluate("sessionStorage.length") == 0
        field.fill(blotter.token("ann"))
        page.keyboard.press("Enter")
        page.wait_for_selector("#shown:not([hidden])")
        page.reload()
        page.wait_for_selector("#shown:not([hidden])")
        page.get_by_role("button", name="Forget the token").click()
        page.wait_for_selector("#enter:not([hidden])")
        assert page.evaluate("sessionStorage.length") == 0


def test_the_api_page_shows_code_as_code(blotter: Blotter, browser: Browser) -> None:
    with browser.person() as person:
        page = person.context.new_page()
        page.goto(f"{blotter.url}/docs")
        page.wait_for_selector("#schemas details", state="attached")
        assert "`" not in page.evaluate("document.body.textContent")
        assert page.locator("#calls code", has_text="live=sse").count()
