"""Artifacts beside the chat, and what is stored in them or anywhere else: markup that never runs."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tests.browser.blotter import Blotter
from tests.browser.tab import READABLE, Browser, Person, Tab
from tests.servers import eventually

pytestmark = pytest.mark.timeout(90)


def test_an_artifact_can_be_seen_while_it_grows(blotter: Blotter, browser: Browser) -> None:
    with browser.person(READABLE) as person:
        tab = person.open(blotter)
        tab.send("Write a small page, an invitation.")
        tab.page.click("button.card.artifact")
        eventually(lambda: any("An evening of ink" in text for text in bodies(tab)), within_s=20)
        tab.page.click("#artifact-source-tab")
        tab.until("document.getElementById('artifact-code').textContent.endsWith('</html>\\n')")
        tab.check()
        tab.page.click("#artifact-look-tab")
        eventually(lambda: any("Ottoline, at the counter" in text for text in bodies(tab)), within_s=20)
        tab.shot("artifact")
        tab.page.keyboard.press("Escape")
        assert tab.page.locator("#artifact").is_hidden()


EVIL = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
EVIL_LINK = (
    f"{EVIL} [press](javascript:window.hacked=1) <a href='javascript:1'>me</a> ![x](https://evil.test/x.png)"
)
EVIL_PAGE = (
    "<h1 id=h>harmless</h1><script>document.getElementById('h').textContent = 'hacked'; top.hacked = 1</script>"
    "<img src='https://evil.test/pixel.png' onerror='document.getElementById(\"h\").textContent = 1'>"
    "<iframe src='https://evil.test/'></iframe><form action='https://evil.test/'></form>"
    "<svg onload='top.hacked = 1'></svg><meta http-equiv=refresh content='0;url=https://evil.test/'>"
    "<link rel=stylesheet href='https://evil.test/x.css'><a href='https://evil.test' target=_top id=out>out</a>"
)


def test_stored_scripts_never_run(blotter: Blotter, browser: Browser) -> None:
    with browser.person() as person:
        tab = person.open(blotter)
        asked: list[Any] = []
        person.context.on("request", lambda request: asked.append(request))  # noqa: PLW0108 (it marks what it calls)
        parts = [
            {"type": "text", "text": EVIL_LINK},
            {
                "type": "tool-evil",
                "toolCallId": "t",
                "state": "output-available",
                "input": EVIL,
                "output": EVIL,
            },
            {"type": "data-artifact", "data": {"artifactId": "a"}},
        ]
        state = {
            "conversation": {"title": EVIL},
            "messages": [
                {"id": "u", "role": "user", "content": EVIL_LINK},
                {"id": "r", "role": "assistant", "parts": parts, "parentId": "u"},
            ],
            "artifacts": [{"id": "a", "messageId": "r", "kind": "html", "title": EVIL, "content": EVIL_PAGE}],
        }
        blotter.call(tab.owner, "POST", "/evil/sync", state)
        tab.page.goto(f"{blotter.url}/#/evil")
        tab.check()
        tab.page.click("button.card.artifact")
        eventually(lambda: any("harmless" in text for text in bodies(tab)))
        tab.shot("evil")
        assert not any("hacked" in text for text in bodies(tab))
        assert tab.page.evaluate("window.hacked") is None
        # What the page may not fetch is refused before it is sent.
        evil = {request.url: request.failure for request in asked if "evil.test" in request.url}
        assert set(evil.values()) <= {"csp"}, evil
        assert tab.page.locator("#messages a").count() == 1  # the picture, as a link
        assert tab.page.evaluate("document.querySelectorAll('#messages script, #messages img').length") == 0
        tab.page.click("#artifact-source-tab")
        assert tab.page.inner_text("#artifact-code") == EVIL_PAGE
        assert tab.errors == []


#: Whoever gets to run this leaves a trace somewhere that the test looks at.
GRASP = (
    "const tries = [() => document.title = 'hacked', () => localStorage.hacked = 1, () => document.cookie = 'hacked=1',"
    " () => top.hacked = 1, () => top.document.title = 'hacked', () => top.location = 'URL/?hacked', () => open('URL/?hacked'),"
    " () => fetch('URL/api/conversations?hacked', {credentials: 'include'}), () => navigator.sendBeacon('URL/healthz?hacked'),"
    " () => new Image().src = 'URL/healthz?hacked', () => alert('hacked')];"
    " for (const one of tries) try { one() } catch {}"
)
GRASPING = {
    "html": (
        "<!doctype html><title>harmless</title><p id=h>harmless</p><script>GRASP</script>"
        '<body onload="GRASP"><img src=x onerror="GRASP"><iframe srcdoc="<script>GRASP</script>"></iframe>'
        '<object data="URL/healthz?hacked"></object><form action="URL/healthz?hacked"><button>send</button></form>'
        '<a href="javascript:GRASP">press</a> <a href="URL/?hacked" target=_top>leave</a>'
    ),
    "svg": (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 100" onload="GRASP"><script>GRASP</script>'
        '<text x="10" y="20">harmless</text><image href="URL/healthz?hacked" onerror="GRASP"/>'
        '<foreignObject y="50" width="9" height="9"><iframe xmlns="http://www.w3.org/1999/xhtml"'
        ' srcdoc="&lt;script&gt;GRASP&lt;/script&gt;"></iframe></foreignObject>'
        '<a href="javascript:GRASP"><text x="10" y="40">press</text></a>'
        '<a href="URL/?hacked" target="_top"><text x="90" y="40">leave</text></a>'
        '<set attributeName="onclick" to="GRASP"/></svg>'
    ),
}


@pytest.mark.parametrize("kind", GRASPING)
def test_an_artifact_reaches_nothing_of_the_page_or_the_api_in_its_pane_or_by_its_address(
    blotter: Blotter, browser: Browser, kind: str
) -> None:
    markup = GRASPING[kind].replace("GRASP", GRASP).replace("URL", blotter.url)
    with browser.person() as free:
        # Where nothing holds it back, it runs: else this would show nothing.
        left = traces_of(free)
        page = free.context.new_page()
        page.set_content(markup)
        eventually(lambda: page.evaluate("1") == 1 and left != [])
    with browser.person() as person:
        traces = traces_of(person)
        tab = person.open(blotter)
        state = {
            "conversation": {"title": "Grasping"},
            "messages": [
                {"id": "u", "role": "user", "content": "Draw"},
                {
                    "id": "r",
                    "role": "assistant",
                    "parentId": "u",
                    "parts": [{"type": "data-artifact", "data": {"artifactId": "a"}}],
                },
            ],
            "artifacts": [
                {"id": "a", "messageId": "r", "kind": kind, "title": "An artifact", "content": markup}
            ],
        }
        blotter.call(tab.owner, "POST", "/grasping/sync", state)
        tab.page.goto(f"{blotter.url}/#/grasping")
        tab.check()
        title, kept = tab.page.title(), tab.page.evaluate("Object.keys(localStorage).sort()")

        def untouched(page: Any) -> None:
            assert traces == []
            assert page.evaluate("window.hacked") is None
            assert page.evaluate("Object.keys(localStorage).sort()") == kept
            assert person.context.cookies() == []
            assert len(person.context.pages) == 1

        tab.page.click("button.card.artifact")
        eventually(lambda: any("harmless" in text for text in bodies(tab)))
        inner = tab.page.frames[2]
        for words in ("press", "leave"):
            inner.get_by_text(words).click(force=True)
        tab.shot(f"grasping-{kind}")
        assert any("harmless" in text for text in bodies(tab))
        assert tab.page.title() == title
        untouched(tab.page)
        assert tab.errors == []

        # By its address, as an API's client asks for it: a document of data, not of markup.
        authorization = {"Authorization": f"Bearer {blotter.token(tab.owner)}"}
        tab.page.route(
            "**/api/**", lambda route: route.continue_(headers={**route.request.headers, **authorization})
        )
        address = f"{blotter.url}/api/conversations/grasping/artifacts/a"
        for path in (address, f"{address}/versions", f"{blotter.url}/api/conversations/grasping"):
            answer = tab.page.goto(path)
            assert answer.status == 200
            assert "harmless" in tab.page.inner_text("body")
            assert tab.page.evaluate("document.contentType") == "application/json"
            assert tab.page.evaluate("document.scripts.length") == 0
            assert tab.page.title() == ""
            # Even what would run there had no origin to do it in.
            assert tab.page.evaluate("self.origin") == "null"
            tab.page.goto(f"{blotter.url}/docs")
            untouched(tab.page)


def traces_of(person: Person) -> list[str]:
    """What scripts leave behind outside of their page: dialogs, and requests that went out."""
    traces: list[str] = []

    def spoken(dialog: Any) -> None:
        traces.append(dialog.message)
        dialog.dismiss()

    person.context.on("dialog", spoken)
    person.context.on("requestfinished", lambda one: traces.append(one.url) if "hacked" in one.url else None)
    return traces


def bodies(tab: Tab) -> list[str]:
    """The text of all frames within the page."""
    found = []
    for frame in tab.page.frames[1:]:
        with contextlib.suppress(Exception):  # a frame may be on its way out
            found.append(frame.locator("body").inner_text(timeout=200))
    return found
