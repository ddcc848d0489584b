"""The button that kills a worker: one process of Celery's pool, the hard way, so that one can watch nothing happen."""

from __future__ import annotations

import contextlib
from pathlib import Path


def kill_one_worker(data: Path) -> int | None:
    """SIGKILL one of the processes that write to Postgres in the run of folder ``data``; its id, None if there is none.

    Celery starts another in its place. Should the pool have none, nothing is killed: its main process stays.
    """
    import psutil

    try:
        main = psutil.Process(int((data / "run" / "worker.pid").read_text().split()[0]))
        # A process id may have gone to somebody else since.
        if main.environ().get("BLOTTER_DATA") != str(data) or not any(
            "celery" in word for word in main.cmdline()
        ):
            return None
        children = sorted(main.children(), key=lambda child: child.create_time())
    except (OSError, ValueError, IndexError, psutil.Error):
        return None
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
            return child.pid
    return None
