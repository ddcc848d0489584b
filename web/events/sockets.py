"""Cutting off a reader that takes nothing: its connection, found by its two ends.

granian gives an application no hold on a connection: one that returns leaves what was sent, 4 MB in the kernel and two
in the server on Linux' defaults, waiting for the reader as long as it keeps the connection open. So the descriptor is
looked for among the process' own. A walk over them all, but only for a reader that fell behind.

Rejected: TCP_USER_TIMEOUT on the listening socket: tried, and connections with a closed window stood for twice that time.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct
import termios
from array import array
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final, TypeAlias

#: A host and a port, as ASGI's scope names them (granian: the port as text).
End: TypeAlias = tuple[str, int | str]

#: Closing forgets what was not sent, instead of waiting for a reader that will not take it.
_FORGET: Final = struct.pack("ii", 1, 0)


def find(client: End | None, server: End | None) -> socket.socket | None:
    """The connection between ``client`` and us, to be closed by the caller; None: gone, or one without addresses."""
    if client is None or server is None:
        return None
    wanted = _end(client), _end(server)
    for name in os.listdir("/dev/fd"):
        connection = _socket(int(name))
        if connection is None:
            continue
        try:
            if (_end(connection.getpeername()), _end(connection.getsockname())) == wanted:
                return connection
        except (OSError, ValueError, IndexError):
            # Not connected, not of the internet, or gone meanwhile.
            pass
        connection.close()
    return None


def untaken(connection: socket.socket) -> int:
    """Bytes sent that the other side has not acknowledged; 0 where the system does not tell."""
    count = array("i", [0])
    with suppress(OSError):
        fcntl.ioctl(connection, termios.TIOCOUTQ, count)
    return count[0]


def cut(connection: socket.socket) -> None:
    """End it at once; what was not taken is forgotten."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _FORGET)
        connection.shutdown(socket.SHUT_RDWR)


def _socket(descriptor: int) -> socket.socket | None:
    """One of our own on the same connection: what the server closes meanwhile cannot become another under our hands."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return None
        return socket.socket(fileno=os.dup(descriptor))
    except OSError:
        return None


def _end(address: Any) -> tuple[str, int]:
    return ip_address(address[0].partition("%")[0]).compressed, int(address[1])
