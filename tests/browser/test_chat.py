"""The demo chat in a real browser, while things are refreshed, closed, cut, killed and lost.

After each of them: what the page shows, what the API says and what Postgres holds are the same, nothing missing, nothing
doubled (`Tab.check`).
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tests.browser.blotter import Blotter
from tests.browser.tab import AT_ONCE, READABLE, Browser, Tab
from tests.servers import eventually

pytestmark = pytest.mark.timeout(90)

STORY = "Tell me a long story."


def story_is_whole(says: Any) -> None:
    """Every word of it, once."""
    text = "".join(part["text"] for part in says["messages"][-1]["parts"])
    assert text.startswith("## The clerk who would not wait")
    assert text.rstrip().endswith("⚓️")
    assert text.count("Somebody will blow on it.") == 1


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


# ---------------------------------------------------------------------- what must not happen
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


def bodies(tab: Tab) -> list[str]:
    """The text of all frames within the page."""
    found = []
    for frame in tab.page.frames[1:]:
        with contextlib.suppress(Exception):  # a frame may be on its way out
            found.append(frame.locator("body").inner_text(timeout=200))
    return found


# ---------------------------------------------------------------------- how it is used
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


MARKDOWN = [
    ("a *b* **c** ***d*** `e` ~~f~~", "<p>a <em>b</em> <strong>c</strong> <strong><em>d</em></strong> <code>e</code> <del>f</del></p>"),
    ("snake_case_name and 2*3*4", "<p>snake_case_name and 2<em>3</em>4</p>"),
    ("**bold `code` *slanted***", "<p><strong>bold <code>code</code> <em>slanted</em></strong></p>"),
    ("\\*plain\\* a\\", "<p>*plain* a\\</p>"),
    ("``a ` b``", "<p><code>a ` b</code></p>"),
    ("one\ntwo  \nthree", "<p>one\ntwo<br>three</p>"),
    ("# A\n#B\n###### C #", "<h3>A</h3><p>#B</p><h6>C</h6>"),
    ("- a\n- b\n  - c\n\n1. d\n2. e", "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul><ol><li>d</li><li>e</li></ol>"),
    ("7. a\n   more\n\n   again", '<ol start="7"><li><p>a\nmore</p><p>again</p></li></ol>'),
    ("> a\n> > b", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>"),
    ("a\n\n---\n\nb", "<p>a</p><hr><p>b</p>"),
    ("<b>x</b> & <script>1</script>", "<p>&lt;b&gt;x&lt;/b&gt; &amp; &lt;script&gt;1&lt;/script&gt;</p>"),
    ("[x](javascript:alert(1)) [y](data:text/html,1) [z]( vbscript:1 )", "<p><span>x</span> <span>y</span> <span>z</span></p>"),
    ("|a|b|\n|:-|-:|\n|1|2\\|3|", None),
    ("```js\nx < 1\n```", None),
    ("```\nnever closed", None),
]  # fmt: skip

HOSTILE = [
    "*" * 20_000, "[" * 20_000, "`" * 20_000, "_a " * 7_000, "~~" * 10_000, "> " * 5_000, "- " * 5_000, "**a *b " * 3_000,
    "[a](" * 5_000, "![" * 9_000, "<a@" * 6_000, "http://" * 3_000, "|" * 20_000 + "\n" + "|-" * 9_000, "  \n" * 9_000,
    "\\" * 20_000, "#" * 20_000, ("- a\n" + " " * 2) * 3_000, "1. " * 6_000, "```" * 5_000, "a" * 200_000,
]  # fmt: skip


def test_markdown_becomes_elements_and_never_takes_long(blotter: Blotter, browser: Browser) -> None:
    render = """async (texts) => {
        const { Markdown } = await import("/static/demo/markdown.js");
        return texts.map((text) => {
            const root = document.createElement("div");
            const began = performance.now();
            const markdown = new Markdown(root);
            markdown.update(text);
            const ms = performance.now() - began;
            // What grew letter by letter is what was there at once.
            const grown = document.createElement("div");
            const growing = new Markdown(grown);
            if (text.length < 500) for (let at = 1; at <= text.length; at++) growing.update(text.slice(0, at));
            return { html: root.innerHTML, text: root.textContent, grown: text.length < 500 ? grown.innerHTML : root.innerHTML, ms };
        });
    }"""
    with browser.person(AT_ONCE) as person:
        tab = person.open(blotter)
        found = tab.page.evaluate(render, [text for text, _ in MARKDOWN])
        for (text, expected), shown in zip(MARKDOWN, found, strict=True):
            assert expected in (None, shown["html"]), text
            assert shown["grown"] == shown["html"], text
        assert '<th class="at-start">a</th>' in found[-3]["html"]
        assert '<td class="at-end">2|3</td>' in found[-3]["html"]
        assert "x &lt; 1" in found[-2]["html"]
        for text, shown in zip(HOSTILE, tab.page.evaluate(render, HOSTILE), strict=True):
            assert shown["ms"] < 1500, f"{text[:10]}…: {shown['ms']} ms"
        assert tab.errors == []


# ---------------------------------------------------------------------- the rest of the buttons
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
