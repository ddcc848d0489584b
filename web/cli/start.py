"""Starts a program of the Procfile, once it is sure that it can run: `python -m web.cli.start granian …` or `celery …`.

granian starts a process that refused its settings again and again, and shares a port with whoever has it already
(SO_REUSEPORT is how its own processes share theirs). Celery shows a traceback. So settings, port and, for web, the buffer's
policy (as a worker does itself) are looked at here, before anything listens; what is wrong is told in one sentence, exit
code 1. Then this process becomes the program.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from models import logs, tracing
from models.errors import BlotterError, BufferUnavailable
from models.postgres.connecting import libpq_url
from models.settings import Settings, load
from web.cli.errors import CannotRun
from web.cli.folder import port_is_free

log = logging.getLogger("blotter.start")

#: What granian is given for web, in the Procfile.
WEB = "web.edge:create_app"
#: How granian itself logs.
LOG_CONFIG = Path(__file__).resolve().parent.parent / "granian-log.json"
#: How long a port may stay taken by a predecessor that was just killed.
PORT_WAIT_S = 3.0


def check(argv: Sequence[str], environ: Mapping[str, str], *, port_wait_s: float = PORT_WAIT_S) -> None:
    """Raises SettingsError, BufferPolicyError or CannotRun where the program ``argv`` could not run."""
    settings = check_settings(environ, lets_in=argv[0] == "granian")
    if argv[0] != "granian":
        return
    host, port = _option(argv, "--host", "127.0.0.1"), _option(argv, "--port", "8000")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise CannotRun(f"{port} is no port: PORT and EVENTS_PORT are numbers from 1 to 65535")
    deadline = time.monotonic() + port_wait_s
    while not port_is_free(int(port), host):
        if time.monotonic() > deadline:
            raise CannotRun(f"port {port} of {host} is taken; set PORT (or EVENTS_PORT) to another")
        time.sleep(0.05)
    if argv[-1] == WEB:
        _check_buffer(settings)


def check_settings(environ: Mapping[str, str], *, lets_in: bool) -> Settings:
    """All that can be told without asking anybody. ``lets_in``: callers, so there has to be a key, and origins count.

    Raises SettingsError.
    """
    settings = load(environ)
    tracing.check(settings)
    libpq_url(settings.database_url)
    if lets_in:
        # Only now, for celery does without.
        from web import cors
        from web.auth import Verifier

        Verifier(settings)
        for origin in settings.cors_origins:
            cors.check(origin)
    return settings


def _check_buffer(settings: Settings) -> None:
    from models.pipeline.crew import check_buffer

    try:
        check_buffer(settings)
    except BufferUnavailable as error:
        # Nothing can be lost by a web that refuses saves; it looks at the buffer again before the first.
        log.warning("the buffer is not there yet: %s", error)


def _option(argv: Sequence[str], name: str, default: str) -> str:
    return argv[argv.index(name) + 1] if name in argv else default


def main() -> None:
    """Check, then become the program."""
    argv = sys.argv[1:]
    logs.install("INFO")
    try:
        check(argv, os.environ)
    except (BlotterError, CannotRun) as error:
        sys.exit(f"Error: {error}")
    if argv[0] == "granian" and "--log-config" not in argv:
        # Whatever folder the Procfile lies in.
        argv[1:1] = ["--log-config", str(LOG_CONFIG)]
    os.execvp(argv[0], argv)  # noqa: S606


if __name__ == "__main__":
    main()
