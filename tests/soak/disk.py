"""A disk that forgets what was not fsynced, and that can be slow: a library preloaded into the buffer's server (disk.c).

Under it kill -9 is to the append-only file what a power cut is: gone is all that no fsync was answered for. So each fault of
the campaign that kills the buffer shows that what was acknowledged had been fsynced before.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("disk.c")


def why_not() -> str:
    """Empty where it can be had."""
    if sys.platform != "linux":
        return "needs LD_PRELOAD (Linux)"
    return "" if _compiler() else "needs a C compiler (cc or gcc)"


@cache
def _compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


class Disk:
    """The disk of one server, its library built in ``folder``. Raises CalledProcessError where it cannot be built."""

    def __init__(self, folder: Path) -> None:
        compiler = _compiler()
        assert compiler, why_not()
        self._slow = folder / "slow"
        library = folder / "disk.so"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl", "-lpthread"],
            check=True,
            capture_output=True,
        )
        #: What the server's environment must have besides.
        self.environ = {"LD_PRELOAD": str(library), "SLOW_DISK_WHILE": str(self._slow)}

    def slow(self) -> None:
        """From now on each fsync takes 50 to 500 ms longer."""
        self._slow.touch()

    def quick(self) -> None:
        self._slow.unlink(missing_ok=True)
