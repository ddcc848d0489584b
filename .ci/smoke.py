"""The README's run command, once, as a reader would type it: start, save, read back, see it in PostgreSQL, stop.

Fails with the first thing that is not as promised; ends what it started in every case, and then looks whether anything
of it is left.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import psycopg

from web.cli.folder import free_port

READY_WITHIN_S = 60
STORED_WITHIN_S = 5
STOPPED_WITHIN_S = 60
ROOT = Path(__file__).resolve().parent.parent


def curl(
    environ: dict[str, str], token: str, method: str, path: str, body: object = None
) -> dict[str, object]:
    argv = ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "10", "--request", method]
    argv += ["--header", f"Authorization: Bearer {token}"]
    if body is not None:
        argv += ["--header", "Content-Type: application/json", "--data", json.dumps(body)]
    done = subprocess.run([*argv, environ["BASE_URL"] + path], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{method} {path} failed: {done.stderr} {done.stdout}")
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def wait_ready(process: subprocess.Popen[bytes], folder: Path) -> dict[str, str]:
    deadline = time.monotonic() + READY_WITHIN_S
    while not (folder / "env").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("`make run` did not become ready")
        time.sleep(0.05)
    return dict(line.split("=", 1) for line in (folder / "env").read_text().splitlines())


def check(folder: Path, environ: dict[str, str]) -> None:
    minted = subprocess.run(
        [".venv/bin/blotter", "token", "smoke", "--data", str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    token = minted.stdout.strip()
    path = "/api/conversations/smoke"
    message = {"id": "m1", "role": "user", "content": "Is anybody there? 👋"}
    saved = curl(environ, token, "POST", f"{path}/messages", message)
    read = curl(environ, token, "GET", path)
    messages = read["messages"]
    assert isinstance(messages, list)
    assert [(item["id"], item["content"]) for item in messages] == [("m1", message["content"])], read
    deadline = time.monotonic() + STORED_WITHIN_S
    while True:
        with psycopg.connect(environ["DATABASE_URL"]) as connection:
            found = connection.execute("SELECT content FROM messages WHERE id = 'm1'").fetchone()
        if found == (message["content"],):
            break
        if time.monotonic() > deadline:
            raise SystemExit(f"not in PostgreSQL within {STORED_WITHIN_S} s: {found}")
        time.sleep(0.05)
    print(f"smoke: saved ({saved['state']}), read back, stored", file=sys.stderr)


def main() -> None:
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory(prefix="blotter-smoke-", dir="/var/tmp") as name:
        Path(name).chmod(0o711)
        folder = Path(name) / "data"
        began = time.monotonic()
        process = subprocess.Popen(["make", "run", f"ARGS=--data {folder} --port {free_port()}"])
        family: list[psutil.Process] = []
        try:
            environ = wait_ready(process, folder)
            print(f"smoke: ready after {time.monotonic() - began:.1f} s", file=sys.stderr)
            family = psutil.Process(process.pid).children(recursive=True)
            check(folder, environ)
        except SystemExit:
            for log in sorted((folder / "logs").glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)
            raise
        finally:
            # The terminal's Ctrl-C reaches `blotter up` through its group; a SIGTERM we send to it alone.
            for child in psutil.Process(process.pid).children():
                child.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=STOPPED_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise SystemExit(f"`make run` did not stop within {STOPPED_WITHIN_S} s") from None
        if process.returncode != 0:
            raise SystemExit(f"`make run` ended with code {process.returncode}")
        left = [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        if left:
            raise SystemExit(f"still running: {left}")
        print("smoke: stopped, nothing left", file=sys.stderr)


if __name__ == "__main__":
    main()
