"""A program for tests of `blotter up`: forks a child that ignores SIGTERM, then answers HTTP, or just waits.

`web` answers 503 to /readyz while a file `not-ready` lies in the data folder, and dies at once while `broken` does.
Each notes its end in `ended` when asked to stop, so that tests see the order.
"""

from __future__ import annotations

import http.server
import os
import pathlib
import signal
import sys
import threading
import time

FOLDER = pathlib.Path(os.environ["BLOTTER_DATA"])


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        ready = self.path != "/readyz" or not (FOLDER / "not-ready").exists()
        self.send_response(200 if ready else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def end(number: int, frame: object) -> None:
    with (FOLDER / "ended").open("a") as file:
        file.write(sys.argv[1] + "\n")
    os.killpg(0, signal.SIGKILL)


def consume() -> None:
    """Ask the broker for messages, as a Celery worker does: only then is the run ready."""
    import redis

    with redis.Redis.from_url(os.environ["CELERY_BROKER_URL"]) as client:
        while True:
            client.brpop(["queue"], timeout=1)


def main() -> None:
    if (FOLDER / "broken").exists():
        sys.exit("the stand-in is broken")
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(3600)
    signal.signal(signal.SIGTERM, end)
    if sys.argv[1] == "worker":
        threading.Thread(target=consume, daemon=True).start()
    if sys.argv[1] == "web":
        http.server.ThreadingHTTPServer.allow_reuse_address = True
        http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Answer).serve_forever()
    while True:
        time.sleep(3600)


main()
