"""A worker whose code cannot bear some records: to write one is its sudden end.

Stands for what no handler survives: a segmentation fault in a driver, the kernel's out-of-memory killer. While the file
that BLOTTER_TEST_DEADLY names is there, it is a message that begins with "deadly".
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from models.core.records import Record
from models.postgres.store import Store, WriteOutcome
from workers.app import app

__all__ = ["app"]

_write = Store.write


def _die_of(self: Store, records: Sequence[Record]) -> WriteOutcome:
    found = any((getattr(record, "content", None) or "").startswith("deadly") for record in records)
    if found and Path(os.environ["BLOTTER_TEST_DEADLY"]).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return _write(self, records)


Store.write = _die_of  # type: ignore[method-assign]
