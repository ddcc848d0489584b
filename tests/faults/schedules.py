"""Planted bugs: each a change to the real thing, a short schedule that brings it out, and what the checker calls it.

The schedules are right for the real thing as well: without the bug nothing is found.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, Final, NamedTuple

from models.buffer import buffer as buffer_module
from models.buffer.buffer import Buffer
from models.buffer.partitions import Partitions
from models.core import commands as c
from models.core.commands import Append, Delete, Put
from models.errors import BlotterError
from models.pipeline import flush as flush_module, read as read_module
from models.pipeline.adopt import Adopter
from models.pipeline.flush import Flusher
from tests.faults.clients import OWNER
from tests.faults.planted import (
    any_version,
    drop_when_full,
    forget_first,
    lua_bug,
    newer_is_fine,
    pop_first,
    python_bug,
    rename_over,
    sql_bug,
    without_base,
)
from tests.faults.simulation import Run
from tests.faults.world import Actor

Bug = Callable[[], AbstractContextManager[None]]


class Case(NamedTuple):
    """``caught``: names of anomalies, one of which must be found. ``bells_only``: no sweep heals it."""

    name: str
    bug: Bug
    schedule: Callable[[Stage], None]
    caught: frozenset[str]
    bells_only: bool = False


class Stage(Run):
    """A run whose schedule is written by hand, about the conversation c0."""

    @property
    def keys(self) -> Any:
        return self.world.buffer.place(OWNER, "c0").keys

    @property
    def hex(self) -> str:
        return self.world.buffer.place(OWNER, "c0").hex

    def say(self, message_id: str, text: str, **how: Any) -> None:
        """A complete message saved from beginning to end."""
        self.clients.save("c0", said(message_id, text, **how))

    def saving(self, *commands: c.Command) -> Actor:
        return self.clients.start_save("c0", commands)

    def flushing(self) -> Actor:
        """A worker at c0's partition."""
        flusher = self.world.new_crew().flusher

        def work() -> None:
            with suppress(BlotterError):
                flusher.flush(self.keys.number)

        return self.world.start("flusher", work)

    def make_cold(self) -> None:
        self.flushing().finish()
        assert self.world.buffer.evict(self.keys, self.hex, 0) == 1

    def read(self) -> None:
        self.clients.read("c0").finish()


def said(message_id: str, text: str, **how: Any) -> Put:
    return c.put("m", message_id, {"role": "user", "content": text}, **how)


def appended(message_id: str, offset: int, text: str) -> Append:
    return Append("m", message_id, offset, text, c.utf16_units(text))


# ---------------------------------------------------------------- schedules
def a_commit_fails(stage: Stage) -> None:
    stage.say("m1", "one")
    stage.world.commit_faults = ["refused"]
    stage.flushing().finish()


def a_stalled_flusher_wakes_up(stage: Stage) -> None:
    stage.say("m1", "one")
    stalled = stage.flushing()
    stalled.until("flush.5")
    stage.say("m1", "two")
    stage.world.expire("lease", stage.keys.number)
    stage.flushing().finish()
    stalled.finish()


def a_save_during_commit(stage: Stage) -> None:
    stage.say("m1", "one")
    flusher = stage.flushing()
    flusher.until("flush.6")
    stage.say("m1", "two")
    flusher.finish()


def no_room(stage: Stage) -> None:
    stage.say("m1", "one")
    most = stage.world.raw.config_get("maxmemory")["maxmemory"]
    stage.world.raw.config_set("maxmemory", 1)
    try:
        stage.say("m2", "two")
    finally:
        stage.world.raw.config_set("maxmemory", most)
    stage.read()


def a_base_older_than_an_eviction(stage: Stage) -> None:
    stage.say("m1", "one")
    stage.make_cold()
    slow = stage.saving(said("m2", "beside"))
    slow.until("adopt.2")
    stage.say("m1", "two")
    stage.make_cold()
    slow.finish()
    stage.read()


def two_adopt_at_once(stage: Stage) -> None:
    stage.say("m1", "one")
    stage.make_cold()
    slow = stage.saving(said("m2", "beside"))
    slow.until("adopt.2")
    stage.say("m1", "two")
    slow.finish()
    stage.read()


def staging_expires_halfway(stage: Stage) -> None:
    stage.say("m1", "one")
    stage.say("m2", "two")
    stage.make_cold()
    with python_bug(buffer_module, "STAGING_PIECE_BYTES", lambda real: 1):
        slow = stage.saving(said("m3", "three"))
        slow.until("adopt.2")
        raw = stage.world.raw
        while not any(raw.hexists(name, "m/m1") for name in raw.keys("*:sc:*")):
            slow.step()
        raw.delete(*raw.keys("*:s[cb]:*"))
        slow.finish()
    stage.read()


def a_rollback_nobody_noticed(stage: Stage) -> None:
    stage.say("m1", "one")
    stage.world.copy()
    stage.say("m1", "two")
    stage.flushing().finish()
    stage.world.roll_back(same_server=True)
    stage.world.buffer.initialise()
    stage.world.expire("bell", stage.keys.number)
    stage.flushing().finish()
    stage.read()


def two_writers_append(stage: Stage) -> None:
    stage.clients.save("c0", c.put("m", "m1", {"content": ""}, status="streaming"))
    stage.clients.save("c0", appended("m1", 0, "one, two"))
    stage.clients.save("c0", appended("m1", 5, "other words"))


def saves_between_bells(stage: Stage) -> None:
    stage.say("m1", "one")
    stage.answer_bells()
    stage.say("m2", "two")
    stage.answer_bells()


def postgres_away_for_long(stage: Stage) -> None:
    stage.say("m1", "one")
    for _ in range(7):
        stage.world.commit_faults = ["refused"]
        stage.flushing().finish()
        stage.world.expire("hold", stage.keys.number)


def three_saves(stage: Stage) -> None:
    for text in ("one", "two", "three"):
        stage.say("m1", text)
        stage.flushing().finish()


def a_client_dies_before_the_index(stage: Stage) -> None:
    # As on a cluster.
    stage.world.buffer.index_apart = True
    save = said("m1", "one")
    dying = stage.saving(save)
    dying.until("save.2")
    dying.kill()
    stage.clients.save("c0", save)
    stage.clients.list().finish()


def a_blind_save_of_some_fields(stage: Stage) -> None:
    stage.say("m1", "one")
    stage.make_cold()
    stage.world.store_away = True
    stage.clients.save("c0", c.put("m", "m1", {"metadata": {"seen": True}}))
    stage.world.store_away = False


def a_save_on_rows_set_back_without_postgres(stage: Stage) -> None:
    stage.say("m1", "one")
    stage.world.copy()
    stage.say("m1", "two")
    stage.flushing().finish()
    stage.clients.read("c0").finish()
    stage.world.roll_back()
    stage.world.buffer.initialise()
    stage.world.store_away = True
    stage.clients.save("c0", c.put("m", "m1", {"metadata": {"seen": True}}))
    stage.world.store_away = False


def a_journal_set_back(stage: Stage) -> None:
    stage.say("m1", "one")
    stage.make_cold()
    stage.world.store_away = True
    stage.say("m1", "blind")
    stage.world.copy()
    stage.world.store_away = False
    stage.read()
    stage.say("m1", "newer")
    stage.flushing().finish()
    stage.read()
    stage.world.roll_back()
    stage.world.buffer.initialise()
    stage.read()


def a_flusher_dies_in_a_replay(stage: Stage) -> None:
    stage.say("m1", "one")
    stage.make_cold()
    stage.world.store_away = True
    stage.say("m2", "two")
    stage.world.store_away = False
    flusher = stage.flushing()
    while stage.world.raw.exists(stage.keys.journal(stage.hex)):
        flusher.step()
    flusher.kill()


def a_save_after_a_delete(stage: Stage) -> None:
    stage.say("m1", "one")
    stage.clients.save("c0", Delete("m", "m1"))
    stage.say("m1", "late")


def a_slow_flusher_releases(stage: Stage) -> None:
    stage.say("m1", "one")
    slow = stage.flushing()
    slow.until("flush.6")
    stage.world.expire("lease", stage.keys.number)
    stage.say("m2", "two")
    other = stage.flushing()
    other.until("flush.4")
    slow.finish()
    stage.say("m3", "three")
    stage.flushing().finish()
    other.finish()


def a_flusher_outlives_the_buffer(stage: Stage) -> None:
    stage.say("m1", "one")
    stage.flushing().finish()
    stage.say("m2", "two")
    slow = stage.flushing()
    slow.until("flush.5")
    stage.world.empty()
    # Adopts what Postgres has so far.
    stage.say("m3", "three")
    slow.finish()


def a_save_between_rows_and_texts(stage: Stage) -> None:
    stage.say("m1", "one")
    with python_bug(read_module, "READ_WHOLE_BYTES", lambda real: 1):
        reader = stage.clients.read("c0")
        reader.step()
        reader.step()
        stage.say("m1", "two")
        reader.finish()


def _case(
    name: str, bug: Bug, schedule: Callable[[Stage], None], *caught: str, bells_only: bool = False
) -> Case:
    return Case(name, bug, schedule, frozenset(caught), bells_only)


CASES: Final = (
    _case("forget before commit", lambda: python_bug(Flusher, "_commit", forget_first), a_commit_fails, "lost"),
    _case(
        "no fence in SQL", lambda: sql_bug(r" WHERE stored\.version < excluded\.version"), a_stalled_flusher_wakes_up, "lost"
    ),
    _case(
        "no fence in Lua",
        lambda: lua_bug("ack", pattern=r"if r\.v <= version then", replacement="if true then"),
        a_save_during_commit, "lost",
    ),
    _case("drop on OOM", lambda: python_bug(Buffer, "save", drop_when_full), no_room, "lost"),
    _case(
        "adopt without epoch check",
        lambda: lua_bug("install", pattern=r"^if tonumber\(redis\.call\('GET', KEYS\[2\]\) or '0'\) ~= req\.epoch then .*$"),
        a_base_older_than_an_eviction, "read backwards",
    ),
    _case("adopted pieces renamed without the last look", rename_over, two_adopt_at_once, "read backwards"),
    _case(
        "adopted pieces renamed without a count",
        lambda: lua_bug("install", pattern=r"^if staged ~= req\.header\.rows then .*$"),
        staging_expires_halfway, "read backwards",
    ),
    _case(
        "stored is newer taken for committed", lambda: python_bug(flush_module, "verdict", newer_is_fine),
        a_rollback_nobody_noticed, "disagreement",
    ),
    _case(
        "overlap not compared",
        lambda: lua_bug(
            "save", pattern=r"if not skip or string\.sub\(stored, .*\) ~= string\.sub\(text, 1, skip\) then",
            replacement="if not skip then",
        ),
        two_writers_append, "wrong answer", "not a fold",
    ),
    _case(
        "bell not deleted at flush start",
        lambda: lua_bug("begin", pattern=r"and 1 or 0\nredis\.call\('DEL', KEYS\[2\]\)", replacement="and 1 or 0"),
        saves_between_bells, "not at rest", bells_only=True,
    ),
    _case(
        "trial counted on transient errors",
        lambda: python_bug(Partitions, "end_trial", lambda real: lambda self, keys, refs: None),
        postgres_away_for_long, "not at rest",
    ),
    _case(
        "version through tostring",
        lambda: lua_bug(
            "save", pattern=r"H\.last = math\.max\(H\.last \+ 1, NOW_US\)",
            replacement="H.last = tonumber(tostring(math.max(H.last + 1, NOW_US)))",
        ),
        three_saves, "one version twice",
    ),
    _case(
        "owner index not re-added on a duplicate",
        lambda: lua_bug("save", pattern=r"list = c and c\.y and", replacement="list = changed and c and c.y and"),
        a_client_dies_before_the_index, "unlisted",
    ),
    _case(
        "flush from blind", lambda: python_bug(Adopter, "replay", without_base), a_blind_save_of_some_fields,
        "never a state", "lost",
    ),
    _case(
        "rows set back decide while Postgres is away",
        lambda: lua_bug("save", pattern=r"^if not blind and H\.be ~= meta\[1\] then .*$"),
        a_save_on_rows_set_back_without_postgres, "lost", "not a fold", "never a state",
    ),
    _case("journal popped before it is applied", lambda: python_bug(Buffer, "save", pop_first), a_flusher_dies_in_a_replay, "lost"),
    _case(
        "journal set back applied again",
        lambda: lua_bug("save", pattern=r"^  elseif entries and applied_before\(.*\) then$", replacement="  elseif false then"),
        a_journal_set_back, "lost", "not a fold", "never a state", "read backwards",
    ),
    _case(
        "tombstone ignored",
        lambda: lua_bug("save", pattern=r"^  if r and r\.d then return outcome\(cmd, 'gone', r\) end$"),
        a_save_after_a_delete, "revived",
    ),
    _case(
        "lease released without token",
        lambda: lua_bug(
            "release", pattern=r"^if redis\.call\('GET', KEYS\[1\]\) == ARGV\[1\] then (.*) end$",
            replacement="redis.call('DEL', KEYS[1])",
        ),
        a_slow_flusher_releases, "shared lease",
    ),
    _case(
        "a late commit is not caught up with",
        lambda: python_bug(Flusher, "_catch_up", lambda real: lambda self, work, rows: None),
        a_flusher_outlives_the_buffer,
        "disagreement",
    ),
    _case(
        "read mixes two versions", lambda: python_bug(Buffer, "read", any_version), a_save_between_rows_and_texts,
        "mixed read",
    ),
)  # fmt: skip
