"""Becomes another program, tied to the life of the process that started it.

    python -I -S lifeline.py SIGNAL PARENT UID GID CHDIR PROGRAM ARGUMENT...

On Linux the kernel sends SIGNAL to the program when its parent dies, however it dies; elsewhere the guardian and
the pid files do that work. UID and GID of -1 mean: stay who you are. Run as a script of its own, on the standard
library alone: an exec in between is free of what `preexec_fn` may not do in a process with threads, it starts in
10 ms, and rights are dropped *before* the kernel is asked (changing user clears the request).

The kernel means the *thread* that started us: start long-lived programs from a main thread.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
EXIT_NOT_RUN = 127


def main(argv: list[str]) -> None:
    death_signal, parent, uid, gid = (int(argument) for argument in argv[:4])
    folder, command = argv[4], argv[5:]
    try:
        if gid != -1:
            os.setgroups([])
            os.setgid(gid)
        if uid != -1:
            os.setuid(uid)
        os.chdir(folder)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
            if os.getppid() != parent:  # it died before the kernel was asked
                sys.exit(EXIT_NOT_RUN)
        os.execvp(command[0], command)  # noqa: S606 - becoming it is the point
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]}: {error}\n")
        sys.exit(EXIT_NOT_RUN)


if __name__ == "__main__":
    main(sys.argv[1:])
