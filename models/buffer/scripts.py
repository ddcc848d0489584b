"""The Lua scripts: loaded from files, joined with what they share, called by hash.

Laws: a script is sent again after NOSCRIPT (it did not run); after a lost answer only where the caller says that running
twice is harmless; every driver error leaves here as one of models.errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final

from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    ConnectionError as RedisConnectionError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError as RedisTimeoutError,
    TryAgainError,
)

from models.errors import BufferFull, BufferSlow, BufferUnavailable

#: Which files each script is made of, behind its own first line (the shebang).
_PARTS: Final[dict[str, tuple[str, ...]]] = {
    "ack": ("common",),
    "alive": (),
    "audit": ("common",),
    "begin": (),
    "bury": ("common",),
    "claim": (),
    "count": (),
    "enlist": (),
    "erase": ("common", "merge"),
    "evict": ("common",),
    "follow": ("common",),
    "init": (),
    "install": ("common",),
    "mark": (),
    "mend": ("common",),
    "outdate": (),
    "overdue": (),
    "pull": (),
    "read": ("common",),
    "reinstall": ("common",),
    "relay": (),
    "release": (),
    "renew": (),
    "replay": ("common", "merge"),
    "restage": (),
    "revive": ("common",),
    "ripe": (),
    "rows": ("common",),
    "sample": (),
    "save": ("common", "merge"),
    "settle": ("common",),
    "stage": (),
    "trial": (),
    "unlist": (),
    "wipe": (),
}


#: Scripts that are another's text behind a first line of their own, for calls that a full buffer must not refuse: they only
#: delete, or take a journal to Postgres, which is all that can make room where journals fill the buffer.
_SAME: Final[dict[str, tuple[str, str]]] = {
    "erase": ("save", "#!lua flags=allow-oom"),
    "replay": ("save", "#!lua flags=allow-oom"),
    "restage": ("stage", "#!lua flags=allow-oom"),
    "reinstall": ("install", "#!lua flags=allow-oom"),
}


def source(name: str) -> str:
    """The whole text of a script, as the server gets it."""
    folder = files("models.buffer") / "lua"
    file, flagged = _SAME.get(name, (name, ""))
    first, rest = (folder / f"{file}.lua").read_text().split("\n", 1)
    first = flagged or first
    shared = "\n".join((folder / f"{part}.lua").read_text() for part in _PARTS[name])
    return f"{first}\n{shared}\n{rest}"


class Script:
    """One script: its text and the hash it is called by."""

    __slots__ = ("name", "sha", "text")

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = source(name).encode()
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest()


#: How often a script is loaded for one call: others may flush them in between (SCRIPT FLUSH, a server that took over).
_LOADS: Final = 4

SCRIPTS: Final[dict[str, Script]] = {name: Script(name) for name in _PARTS}


def call(
    client: Any,
    name: str,
    keys: Sequence[str],
    args: Sequence[Any],
    *,
    retries: int = 0,
) -> Any:
    """Run a script. ``retries``: how often to try again after a lost connection (0 where a second run would tell
    otherwise than the first).

    Raises BufferUnavailable (outcome unknown), BufferFull (nothing was written).
    """
    script = SCRIPTS[name]
    while True:
        try:
            for _ in range(_LOADS):
                try:
                    return client.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)
                except NoScriptError:
                    client.execute_command("SCRIPT", "LOAD", script.text)
            raise NoScriptError("NOSCRIPT")
        except (RedisConnectionError, RedisTimeoutError) as error:
            if retries <= 0 or isinstance(error, AuthenticationError):
                raise translate(error) from error
            retries -= 1
        except RedisError as error:
            raise translate(error) from error


def call_many(client: Any, name: str, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
    """Run one script on many sets of keys in one round trip; it must be one that may run twice.

    Raises as `call`, for the first that failed.
    """
    script = SCRIPTS[name]
    try:
        for attempt in range(1, _LOADS + 1):
            pipe = client.pipeline(transaction=False)
            for keys, args in calls:
                pipe.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)
            found: list[Any] = pipe.execute(raise_on_error=False)
            faults = [answer for answer in found if isinstance(answer, RedisError)]
            if not faults:
                return found
            if attempt == _LOADS or not isinstance(faults[0], NoScriptError):
                raise faults[0]
            client.execute_command("SCRIPT", "LOAD", script.text)
    except RedisError as error:
        raise translate(error) from error
    raise AssertionError("unreachable")


#: What redis-py has classes for loses its word: nothing ran, and it passes.
_REFUSALS: Final[dict[type[Exception], str]] = {
    NoScriptError: "NOSCRIPT",
    ReadOnlyError: "READONLY",
    MasterDownError: "MASTERDOWN",
    ClusterDownError: "CLUSTERDOWN",
    TryAgainError: "TRYAGAIN",
}


def translate(error: RedisError) -> Exception:
    """The one place where driver errors become ours. A script's own fault (a bug) stays what it is."""
    if isinstance(error, OutOfMemoryError):
        return BufferFull("the buffer is at its maxmemory")
    if isinstance(error, RedisTimeoutError):
        return BufferSlow("the buffer did not answer in time")
    if isinstance(error, AuthenticationError):
        return BufferUnavailable("the buffer refuses this user or password")
    if isinstance(error, RedisConnectionError):
        return BufferUnavailable(f"the buffer did not answer ({type(error).__name__})")
    text = str(error)
    for refused, word in _REFUSALS.items():
        if isinstance(error, refused):
            return BufferUnavailable(f"the buffer refuses commands ({word})")
    if isinstance(error, ResponseError):
        if "OOM" in text:
            return BufferFull("the buffer is at its maxmemory")
        for word in ("MISCONF", "READONLY", "LOADING", "BUSY", "NOREPLICAS"):
            if word in text:
                return BufferUnavailable(f"the buffer refuses commands ({word})")
    return error
