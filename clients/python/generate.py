# ruff: noqa: INP001 (a script, run by path)
"""Makes `blotter_client/blocking` from `blotter_client/aio`: the same code without `async` and `await`.

    python clients/python/generate.py            writes the files
    python clients/python/generate.py --check    exit code 1 where they are not what they should be

`runtime.py` is not generated: it is where the two worlds differ. A test runs --check, so the two cannot drift apart.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent / "blotter_client"
MODULES = ("client", "conversation", "reply")
HEADER = "# Generated from blotter_client/aio/{name}.py by clients/python/generate.py: change that one.\n# ruff: noqa: UP028, RUF100\n"

#: In this order; words only.
RULES = (
    (r"async (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\bAsync(Blotter|Conversation|Reply|ToolCall|Client)\b", r"\1"),
    (r"__a(enter|exit)__", r"__\1__"),
    (r"\baclose\b", "close"),
    (r"\bblotter_client\.aio\b", "blotter_client.blocking"),
    (r"a client is used on one event loop", "threads may share a client; make it after a fork"),
    (r"a task beside the caller", "a thread beside the caller"),
    (r"by several tasks", "by several threads"),
    (r"`async with ", "`with "),
)


def blocking(name: str) -> str:
    """The blocking module made from ``aio/name.py``, formatted."""
    text = (PACKAGE / "aio" / f"{name}.py").read_text()
    for pattern, replacement in RULES:
        text = re.sub(pattern, replacement, text)
    ruff = Path(sys.executable).with_name("ruff")
    for command in (["check", "--fix", "--quiet", "--select", "I"], ["format", "--quiet"]):
        text = subprocess.run(
            [str(ruff), *command, "--stdin-filename", str(PACKAGE / "blocking" / f"{name}.py"), "-"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    return HEADER.format(name=name) + text


def main() -> int:
    stale = []
    for name in MODULES:
        path = PACKAGE / "blocking" / f"{name}.py"
        text = blocking(name)
        if path.exists() and path.read_text() == text:
            continue
        stale.append(path.name)
        if "--check" not in sys.argv:
            path.write_text(text)
    if stale and "--check" in sys.argv:
        print(f"not what generate.py makes: {', '.join(stale)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
