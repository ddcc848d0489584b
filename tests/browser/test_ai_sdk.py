"""The AI SDK's own packages in a real browser, saved by `withBlotter`: what becomes of a reply whose page goes."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from tests.acceptance.js_packages import CLIENT, install_packages
from tests.browser.blotter import Blotter
from tests.browser.tab import Browser
from tests.servers import eventually

#: Bare names of the packages, as a bundler would find them; one of them, of Node alone, is left out.
PACKAGES = ("ai", "@ai-sdk/gateway", "@ai-sdk/provider", "@ai-sdk/provider-utils", "@workflow/serde")
OIDC = "data:text/javascript,export const getContext = () => ({}), getVercelOidcToken = async () => null"

PAGE = """<!doctype html><title>Chat</title><script type="importmap">%s</script><script type="module">
import { AbstractChat, DefaultChatTransport } from "ai";
import { createBlotter } from "/blotter.js";
import { loadMessages, withBlotter } from "/ai-sdk.js";
class Chat extends AbstractChat {}
const asked = new URL(location);
const [id, token] = [asked.searchParams.get("id"), asked.searchParams.get("token")];
const blotter = globalThis.blotter = createBlotter({ baseUrl: "", token });
const state = {
  status: "ready", error: undefined, messages: await loadMessages(blotter, id),
  pushMessage(one) { this.messages = [...this.messages, one]; },
  popMessage() { this.messages = this.messages.slice(0, -1); },
  replaceMessage(index, one) { this.messages = this.messages.with(index, one); },
  snapshot: (one) => structuredClone(one),
};
globalThis.chat = new Chat({ id, state, transport: withBlotter(new DefaultChatTransport({ api: "/api/chat" }), blotter), onError: () => {} });
globalThis.shown = () => chat.lastMessage?.parts.map((part) => part.text ?? "").join("") ?? "";
</script>"""


def imports() -> str:
    packages = install_packages()

    def main(name: str) -> str:
        about = json.loads((packages / name / "package.json").read_text())
        entry: Any = about["exports"]["."]
        while isinstance(entry, dict):
            entry = entry.get("import") or entry["default"]
        return f"/node_modules/{name}/{entry.removeprefix('./')}"

    found = {name: main(name) for name in PACKAGES}
    found |= {"eventsource-parser/stream": "/node_modules/eventsource-parser/dist/stream.js"}
    found |= {
        name: f"/node_modules/{name}/index.js"
        for name in ("zod", "zod/v3", "zod/v4", "zod/v4/core", "zod/v4/mini")
    }
    return json.dumps({"imports": {**found, "zod/": "/node_modules/zod/", "@vercel/oidc": OIDC}})


class App:
    """An app's own server: its page, its model's stream (`words` a moment, until told), and Blotter behind the same origin."""

    def __init__(self, blotter: Blotter) -> None:
        self.page = PAGE % imports()
        #: Set: the model's stream tears.
        self.tear = threading.Event()
        self.gone = threading.Event()
        app = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                file = CLIENT / path.lstrip("/")
                if path == "/":
                    self.answer(200, app.page.encode(), "text/html")
                elif path.startswith("/api/") and not path.endswith("/events"):
                    self.pass_on()
                elif file.is_file():
                    self.answer(200, file.read_bytes(), "text/javascript")
                else:
                    self.answer(404, b"{}", "application/problem+json")

            def do_POST(self) -> None:
                if self.path == "/api/chat":
                    self.stream()
                else:
                    self.pass_on()

            do_PUT = do_PATCH = do_POST  # noqa: N815  the base class names them so

            def answer(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                kept = {
                    name: self.headers[name]
                    for name in ("Authorization", "Content-Type", "Prefer")
                    if name in self.headers
                }
                said = httpx.request(
                    self.command, blotter.url + self.path, content=body, headers=kept, timeout=20
                )
                self.answer(said.status_code, said.content, said.headers["content-type"])

            def stream(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.say({"type": "start", "messageId": "answer"}, {"type": "text-start", "id": "t"})
                    count = 0
                    while not app.tear.wait(0.02):
                        self.say({"type": "text-delta", "id": "t", "delta": f"w{count} "})
                        count += 1
                app.gone.set()

            def say(self, *chunks: object) -> None:
                for chunk in chunks:
                    data = f"data: {json.dumps(chunk)}\n\n".encode()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it so
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def app(blotter: Blotter) -> Iterator[App]:
    made = App(blotter)
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.tear.set()
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@contextlib.contextmanager
def chat(browser: Browser, app: App, blotter: Blotter, owner: str) -> Iterator[Any]:
    """A page of the app's in the middle of a reply."""
    with browser.person() as person:
        page = person.context.new_page()
        page.goto(f"{app.url}/?id=c1&token={blotter.token(owner)}")
        page.wait_for_function("globalThis.chat !== undefined")
        page.evaluate("void chat.sendMessage({ text: 'Go' })")
        page.wait_for_function("shown().length > 200")
        yield page


def saved(blotter: Blotter, owner: str) -> Any:
    [_, answer] = blotter.read(owner, "c1")["messages"]
    return answer


@pytest.mark.timeout(120)
def test_a_reply_whose_page_is_refreshed_is_no_error(browser: Browser, blotter: Blotter, app: App) -> None:
    """The page hears of a torn connection as it goes; the reply stays open, and grows where somebody else writes it."""
    with chat(browser, app, blotter, "sdk-refresh") as page:
        shown = page.evaluate("shown()")
        page.reload()
        page.wait_for_function("globalThis.chat !== undefined")
        assert app.gone.wait(10)
        page.wait_for_function("blotter.replay().then(() => blotter.unsaved === 0)")
        answer = saved(blotter, "sdk-refresh")
        assert (answer["status"], answer["statusReason"]) == ("streaming", None)
        assert answer["parts"][0]["text"].startswith(shown)

        page.evaluate("void chat.resumeStream()")
        page.wait_for_function("chat.status === 'streaming'")
        text = answer["parts"][0]["text"]
        more = {"append": {"part": 0, "offset": len(text), "text": "and on."}, "status": "complete"}
        blotter.call("sdk-refresh", "PATCH", "/c1/messages/answer", more)
        page.wait_for_function("chat.status === 'ready'")
        assert page.evaluate("shown()") == f"{text}and on."


@pytest.mark.timeout(120)
def test_a_reply_whose_connection_tears_is_an_error_where_the_page_stays(
    browser: Browser, blotter: Blotter, app: App
) -> None:
    with chat(browser, app, blotter, "sdk-torn") as page:
        app.tear.set()
        page.wait_for_function("chat.status === 'error'")

        def told() -> None:
            answer = saved(blotter, "sdk-torn")
            assert (answer["status"], answer["statusReason"]) == ("error", "network error")
            assert answer["parts"][0]["text"] == page.evaluate("shown()")

        eventually(told, within_s=15)
