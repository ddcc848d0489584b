"""A browser tab with the demo chat in it: what a person does there, and what the page then shows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.browser.blotter import Blotter
from tests.servers import eventually

#: The page's speeds, in characters a second: slow enough to come in between, and as fast as it goes.
READABLE, AT_ONCE = 1000, 20_000

#: A question whose answer the assistant knows by heart.
STORY = "Tell me a long story."

#: What the page shows of each message: from the page's elements, not from its variables.
SHOWN = """() => [...document.querySelectorAll("article.message")].map((message) => ({
  id: message.dataset.id,
  role: message.classList.contains("user") ? "user" : "assistant",
  status: message.dataset.status,
  badge: message.querySelector("footer .badge").textContent,
  texts: [...message.querySelectorAll(".words, .parts > .text")].map((text) => text.innerText.trim()),
  tools: [...message.querySelectorAll(".card.tool")].map((card) => [card.querySelector(".name").textContent, ...[...card.querySelectorAll("pre")].map((pre) => pre.textContent)]),
  artifacts: [...message.querySelectorAll("button.card.artifact .name")].map((name) => name.textContent),
}))"""

#: What the page would show for the API's messages, rendered beside it.
RENDERED = """async (messages) => {
  const { Markdown } = await import("/static/demo/markdown.js");
  const json = (value) => JSON.stringify(value, null, 2);
  const root = document.createElement("div");
  document.getElementById("messages").append(root);
  const rendered = messages.map((message) => {
    const parts = message.parts?.length ? message.parts : [{ type: "text", text: message.content ?? "" }];
    const texts = parts.filter((part) => part.type === "text").map((part) => {
      const text = document.createElement("div");
      text.className = message.role === "user" ? "words" : "text";
      root.append(text);
      if (message.role === "user") text.textContent = part.text;
      else new Markdown(text).update(part.text);
      return text.innerText.trim();
    });
    const tools = parts.filter((part) => part.type.startsWith("tool-")).map((part) => [part.type.slice(5), json(part.input), json(part.output)]);
    return { id: message.id, role: message.role, status: message.status, badge: "stored", texts, tools, artifacts: parts.filter((part) => part.type === "data-artifact").map((part) => part.data.title) };
  });
  root.remove();
  return rendered;
}"""


class Browser:
    """Chromium."""

    def __init__(self, chromium: Any) -> None:
        self._chromium = chromium

    def person(self, speed: int = READABLE, **options: Any) -> Person:
        """Somebody with a browser of their own: another owner than all others. ``options``: of Playwright's context."""
        return Person(
            self._chromium.new_context(**{"viewport": {"width": 1200, "height": 800}, **options}), speed
        )


class Person:
    """A browser profile; its tabs share storage, outbox and owner."""

    def __init__(self, context: Any, speed: int) -> None:
        self.context = context
        script = (
            f"if (!localStorage.getItem('blotter.speed')) localStorage.setItem('blotter.speed', '{speed}');"
        )
        context.add_init_script(f"if (location.protocol === 'http:' && self === top) {{ {script} }}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def open(self, blotter: Blotter, address: str = "/") -> Tab:
        """A new tab, ready to be used."""
        page = self.context.new_page()
        tab = Tab(page, blotter)
        page.goto(f"{blotter.url}{address}")
        tab.until("document.getElementById('owner').textContent !== ''")
        tab.owner = page.inner_text("#owner") or page.evaluate("document.getElementById('owner').textContent")
        return tab

    def offline(self, away: bool) -> None:
        self.context.set_offline(away)


class Tab:
    """One tab."""

    def __init__(self, page: Any, blotter: Blotter) -> None:
        self.page = page
        self.blotter = blotter
        self.owner = ""
        #: Scripts' errors; at the end there must be none.
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    @property
    def id(self) -> str:
        """The conversation that is open."""
        found: str = self.page.evaluate("decodeURIComponent(location.hash.slice(2))")
        assert found
        return found

    @property
    def address(self) -> str:
        return f"/#/{self.id}"

    def until(self, holds: str | Callable[[], object], within_s: float = 15.0) -> None:
        """Wait for an expression of the page's, or for a function."""
        if isinstance(holds, str):
            expression = holds
            holds = lambda: _true(self.page.evaluate(f"!!({expression})"), expression)  # noqa: E731
        eventually(holds, within_s=within_s, every_s=0.05)

    # ------------------------------------------------------------------ doing
    def send(self, text: str) -> None:
        self.page.fill("#words", text)
        self.page.press("#words", "Enter")

    def reply_length(self) -> int:
        """Characters shown of the last reply."""
        return int(
            self.page.evaluate(
                "[...document.querySelectorAll('.message.assistant')].at(-1)?.querySelector('.parts')?.textContent.length ?? 0"
            )
        )

    def wait_for_text(self, more_than: int, within_s: float = 15.0) -> int:
        """Until the last reply shows more than so many characters; how many it shows."""
        self.until(lambda: self.reply_length() > more_than, within_s)
        return self.reply_length()

    def press_on(self, selector: str, label: str) -> None:
        """Click the button of that name within the last element of ``selector``."""
        self.page.locator(selector).last.hover()
        self.page.locator(selector).last.get_by_role("button", name=label).click()

    def refresh(self) -> None:
        self.page.reload()

    def shot(self, name: str) -> None:
        folder = os.environ.get("BLOTTER_TEST_SCREENSHOTS")
        if folder:
            self.page.screenshot(path=Path(folder) / f"{name}.png")

    # ------------------------------------------------------------------ what is shown
    def shown(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.page.evaluate(SHOWN)
        return found

    def badges(self) -> list[str]:
        return [message["badge"] for message in self.shown()]

    def check(self, within_s: float = 20.0) -> dict[str, Any]:
        """Wait until page, API and Postgres say the same, nothing under way, all of it stored; what the API says."""
        said: dict[str, Any] = {}

        def same() -> None:
            said.update(self.blotter.check_stored(self.owner, self.id))
            self.check_shown(said)

        eventually(same, within_s=within_s, every_s=0.1)
        assert self.errors == []
        return said

    def check_shown(self, says: dict[str, Any], badge: str = "stored") -> None:
        """Assert that the page shows what the API says of the branch that is chosen."""
        path = self.blotter.read(self.owner, self.id, branches=False)["messages"]
        titles = {artifact["id"]: artifact["title"] for artifact in says["artifacts"]}
        for message in path:
            for part in message["parts"] or []:
                if part["type"] == "data-artifact":
                    part["data"] = {"title": titles[part["data"]["artifactId"]]}
        more = self.page.locator(".more")
        while more.count():
            more.first.click()
        expected = [{**one, "badge": badge} for one in self.page.evaluate(RENDERED, path)]
        assert self.shown() == expected
        title = says["conversation"]["title"]
        assert self.page.inner_text("#title") == title
        assert (
            self.page.evaluate("document.getElementById('list').querySelector('[aria-current]')?.textContent")
            == title
        )


def story_is_whole(says: Any) -> None:
    """Every word of it, once."""
    text = "".join(part["text"] for part in says["messages"][-1]["parts"])
    assert text.startswith("## The clerk who would not wait")
    assert text.rstrip().endswith("⚓️")
    assert text.count("Somebody will blow on it.") == 1


def _true(value: object, what: str) -> None:
    assert value, what
