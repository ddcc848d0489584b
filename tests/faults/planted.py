"""Planting a bug: one change to the real thing, for the time of a `with`, and what it stands for.

Lua text is replaced by a pattern that must match exactly once in the script as the server gets it; so is SQL. A pattern
that no longer matches fails the test: the bug would not be planted, and the test would prove nothing.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from hashlib import sha1
from typing import Any

from models.buffer import codec, scripts
from models.buffer.buffer import Buffer, SaveReply
from models.core.commands import ItemOutcome
from models.core.records import Snapshot
from models.errors import BufferFull
from models.pipeline.adopt import Adopter
from models.pipeline.flush import Flusher
from models.postgres import upserts


def once(text: str, pattern: str, replacement: str, *, times: int = 1) -> str:
    """``text`` with ``pattern`` (a regular expression, multi-line) replaced; it must match ``times`` times."""
    changed, found = re.subn(pattern, lambda _: replacement, text, flags=re.MULTILINE)
    if found != times:
        raise AssertionError(f"{pattern!r} matches {found} times, not {times}: this bug is not planted")
    return changed


def _script(name: str, text: str) -> Any:
    made = scripts.Script.__new__(scripts.Script)
    made.name, made.text = name, text.encode()
    made.sha = sha1(made.text, usedforsecurity=False).hexdigest()
    return made


@contextlib.contextmanager
def lua(*names: str, change: Callable[[str], str]) -> Iterator[None]:
    """Scripts ``names`` with their text changed (the server loads them by their new hash)."""
    kept = {name: scripts.SCRIPTS[name] for name in names}
    for name, script in kept.items():
        scripts.SCRIPTS[name] = _script(name, change(script.text.decode()))
    try:
        yield
    finally:
        scripts.SCRIPTS.update(kept)


def lua_bug(*names: str, pattern: str, replacement: str = "") -> contextlib.AbstractContextManager[None]:
    """Scripts ``names`` with ``pattern`` replaced, once in each."""
    return lua(*names, change=lambda text: once(text, pattern, replacement))


@contextlib.contextmanager
def sql_bug(pattern: str, replacement: str = "") -> Iterator[None]:
    """Every upsert with ``pattern`` replaced; it must be in all but the one of immutable artifact versions."""
    table: Any = upserts._UPSERTS
    kept = dict(table)
    for kind, statement in kept.items():
        if kind != "v":
            table[kind] = once(statement, pattern, replacement)
    try:
        yield
    finally:
        table.update(kept)


@contextlib.contextmanager
def python_bug(owner: Any, name: str, broken: Any) -> Iterator[None]:
    """An attribute of a module, class or object replaced; ``broken`` gets the real one: ``broken(real)``."""
    own = vars(owner).get(name)
    real = getattr(owner, name)
    setattr(owner, name, broken(real))
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)


# ---------------------------------------------------------------- bugs that are Python
def forget_first(real: Any) -> Any:
    def commit(self: Flusher, work: Any, rows: Any) -> None:
        self._buffer.acknowledge(work.keys, [(row.ref, row.version) for row in rows])
        real(self, work, rows)

    return commit


def drop_when_full(real: Any) -> Any:
    def save(self: Buffer, place: Any, commands: Any, **how: Any) -> SaveReply:
        try:
            return real(self, place, commands, **how)  # type: ignore[no-any-return]
        except BufferFull:
            version = self.now_ms() * 1000 + 1_000_000
            items = tuple(
                ItemOutcome(kind=x.k, id=x.id, outcome="accepted", version=version) for x in commands
            )
            return SaveReply(s="done", e="?", v=version, items=items)

    return save


def without_base(real: Any) -> Any:
    def replay(self: Adopter, place: Any) -> int:
        buffer = self._buffer
        staged = codec.stage(place.owner, place.id, Snapshot(conversation=None), 0, buffer.stale)
        buffer.adopt(place, staged, buffer.epoch(place))
        return buffer.save(place, (), mode="replay").lost

    return replay


def pop_first(real: Any) -> Any:
    def save(self: Buffer, place: Any, commands: Any, **how: Any) -> SaveReply:
        if how.get("mode") == "replay":
            journal = place.keys.journal(place.hex)
            entries = self.client.lrange(journal, 0, -1)
            self.client.delete(journal)
            if entries:
                self.client.rpush(journal, *entries)
        return real(self, place, commands, **how)  # type: ignore[no-any-return]

    return save


def any_version(real: Any) -> Any:
    def read(self: Buffer, *args: Any, **how: Any) -> Any:
        return real(self, *args, **{**how, "at": 0})

    return read


def newer_is_fine(real: Any) -> Any:
    return lambda kind, ours, stored: (
        "committed" if stored is not None and stored >= ours else real(kind, ours, stored)
    )


@contextlib.contextmanager
def rename_over(*_: Any) -> Any:
    refuse = r"^if hot and H\.be == meta and not req\.force then return refuse\('hot'\) end$"
    with contextlib.ExitStack() as stack:
        stack.enter_context(lua("install", change=lambda text: once(text, refuse, "")))
        stack.enter_context(lua_bug("install", pattern=r"^if not hot then$", replacement="if true then"))
        yield
