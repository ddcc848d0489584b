"""A wire on which a save is answered only when replicas have it as well (``BLOTTER_ACK_REPLICAS``).

A replica that takes over has what it was sent. So that nothing acknowledged is lost with its primary, WAIT follows the save
on the same connection, in the same write: one round trip, and the replicas' answer. Fewer than were asked for: the save is
written, but its outcome is unknown to us (NOREPLICAS, 503), as if the answer was lost; sent again it is a duplicate.

WAIT asks whether a replica *received* the write; it writes its own file at once, as its primary did, but does not wait for
it to answer. A primary and its replicas that lose power in the same moment are what `appendfsync always` is for, on each.
"""

from __future__ import annotations

from typing import Any

from redis.exceptions import ResponseError

from models.buffer.scripts import SCRIPTS
from models.buffer.wire import replies_or_first_error


class Kept:
    """``execute_command`` as the wire has it. Thread-safe."""

    def __init__(self, wire: Any, replicas: int, within_ms: int, *, mark: bool = True) -> None:
        """``mark``: the first key of the scripts that are called is a partition's meta, see mark.lua."""
        self._wire = wire
        self._replicas = replicas
        self._wait = ("WAIT", replicas, within_ms)
        self._mark = mark

    def execute_command(self, *command: Any) -> Any:
        """Send one command; where it is a script, return its reply when it was replicated. Raises RedisError, of it
        ResponseError NOREPLICAS where too few replicas have it in time.
        """
        if command[0] != "EVALSHA":
            return self._wire.execute_command(*command)
        marking = [("EVAL", SCRIPTS["mark"].text, 1, command[3], self._replicas)] if self._mark else []
        reply, *_, having = replies_or_first_error(self._wire.execute_all([command, *marking, self._wait]))
        if having < self._replicas:
            raise ResponseError(f"NOREPLICAS {having} of {self._replicas} replicas have it")
        return reply
