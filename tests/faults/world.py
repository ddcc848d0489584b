"""A whole Blotter in one process whose every interleaving, fault and tick of the clock is decided from outside.

Real parts: the scripts on a Valkey, the statements on a Postgres, and the Python between them. Replaced are only the
edges: who runs when, what time it is, and what fails.

- *Actors*. Each client's request, flush, sweep runs in a thread of its own, but only when it is given the baton, up to
  its next call of a server. So between any two calls anything may be let in, an actor may be left where it stands
  (its process was killed), and the same decisions give the same run.
- *Clock*. The scripts' TIME is read from a key; nothing expires by itself: leases, pauses and bells end when told to.
- *Faults*. Postgres away, a COMMIT whose answer is lost or that never came to be, an answer of the buffer lost, the
  buffer restarted, emptied, set back to an earlier copy.

Everything clients do is logged for the checker.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import psycopg
import redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from models.buffer import scripts
from models.buffer.buffer import Buffer
from models.pipeline import failpoints
from models.pipeline.crew import Crew
from models.pipeline.failpoints import Crash
from models.pipeline.service import Pipeline
from models.postgres.store import Store
from models.settings import load
from tests.faults import planted
from tests.faults.edges import GatedRedis, GatedStore
from tests.faults.history import NEVER, Fault, Flush, History

CLOCK: Final = "blotter:simulated:clock"
START_US: Final = 1_800_000_000_000_000
TABLES: Final = "conversations, messages, tool_results, artifacts, artifact_versions"
_PRELUDE: Final = (
    "local function simulated_time() local u = tonumber(redis.call('GET', '" + CLOCK + "'))"
    " return { math.floor(u / 1000000), u % 1000000 } end"
)


class Actor:
    """One logical process: runs its work in steps."""

    def __init__(self, world: World, name: str, work: Callable[[], object]) -> None:
        self.name = name
        self.world = world
        self.step_name = "start"
        self.passed: set[str] = set()
        self.done = False
        self.error: BaseException | None = None
        self.retried = False
        self._killed = False
        self._go = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], object]) -> None:
        self.world.actors_by_thread[threading.get_ident()] = self
        self._go.acquire()
        try:
            if not self._killed:
                work()
        except Crash:
            pass
        except BaseException as error:  # noqa: BLE001 (handed to whoever steps it)
            self.error = error
        finally:
            del self.world.actors_by_thread[threading.get_ident()]
            self.done = True
            self.world.baton.release()

    def pause(self) -> None:
        """Called within its thread, before each call of a server."""
        self.world.baton.release()
        self._go.acquire()
        if self._killed:
            raise Crash(self.step_name)

    def step(self) -> None:
        """Let it run up to its next call of a server."""
        self.world.tick += 1
        self.world.steps += 1
        self._go.release()
        self.world.baton.acquire()
        if self.done:
            self._thread.join()
            if self.error is not None:
                raise self.error

    def kill(self) -> None:
        """Its process dies where it stands."""
        if not self.done:
            self._killed = True
            while not self.done:
                self.step()

    def finish(self) -> None:
        while not self.done:
            self.step()

    def until(self, step: str) -> None:
        """Let it run until it has passed a fail point (models/pipeline/failpoints.py)."""
        self.passed.clear()
        while step not in self.passed:
            assert not self.done, f"{self.name} ended before {step}"
            self.step()


class World:
    """One Blotter; `reset` for the next run."""

    def __init__(self, buffer_url: str, database_url: str, **settings: str) -> None:
        environ = {
            "REDIS_URL": buffer_url, "DATABASE_URL": database_url, "BLOTTER_PARTITIONS": "2", "BLOTTER_UNSAFE_BUFFER": "1",
            "BLOTTER_STORE_CONNECT_MS": "5000", **settings,
        }  # fmt: skip
        self.settings = load(environ)
        self.baton = threading.Semaphore(0)
        self.actors_by_thread: dict[int, Actor] = {}
        client: Any = GatedRedis.from_url(buffer_url, retry=Retry(NoBackoff(), 0), socket_timeout=30)
        client.world = self
        self.client = client
        self.raw: Any = redis.Redis.from_url(buffer_url, socket_timeout=30)
        self.database = psycopg.connect(database_url, autocommit=True)
        self.real_store = Store.open(self.settings, role="worker")
        # Before the first run, so that it is like every other.
        for script in scripts.SCRIPTS.values():
            self.raw.script_load(script.text)
        self.store: Any = GatedStore(self, self.real_store)
        self.reset()

    def close(self) -> None:
        failpoints.disarm()
        for actor in list(self.actors):
            actor.kill()
        self.client.close()
        self.raw.close()
        self.database.close()
        self.real_store.close()

    def reset(self) -> None:
        """Empty servers, a new history."""
        for actor in getattr(self, "actors", []):
            actor.kill()
        self.actors: list[Actor] = []
        self.tick = 0
        #: How often an actor was let run.
        self.steps = 0
        self.clock_us = START_US
        #: Servers there have been, and the one that connections have met.
        self.runs = self.met = 0
        self.store_away = False
        self.commit_faults: list[str] = []
        self.lose_answer = False
        self.doorbells: list[int] = []
        self.history = History()
        self.copies: list[tuple[int, int, list[tuple[bytes, int, bytes]]]] = []
        self.raw.flushall()
        self.database.execute(f"TRUNCATE {TABLES}")
        self.set_clock(self.clock_us)
        self.buffer = Buffer(self.client, self.settings)
        self._log_leases(self.buffer)
        self.pipeline = Pipeline(self.settings, self.buffer, self.store, self.doorbells.append)
        for part in (self.pipeline._saver, self.pipeline._reader):
            part._pause = _NoPause()  # type: ignore[assignment]
        self.pipeline._saver._pressure = lambda: None
        self.crew = self.new_crew()
        for step in STEPS:
            failpoints.arm(step, self._reached)
        self.buffer.initialise()

    def new_crew(self) -> Crew:
        """A worker process."""
        crew = Crew(self.buffer, self.store, self.doorbells.append)
        crew.flusher._clock_s = lambda: 0.0
        crew.flusher._chance = lambda: 0.0
        crew.sweeper._check_policy = lambda now_ms: None  # type: ignore[method-assign]
        return crew

    # ------------------------------------------------------------------ who runs
    def start(self, name: str, work: Callable[[], object]) -> Actor:
        self.actors = [actor for actor in self.actors if not actor.done]
        actor = Actor(self, name, work)
        self.actors.append(actor)
        return actor

    def pause(self) -> None:
        actor = self.actors_by_thread.get(threading.get_ident())
        if actor is not None:
            actor.pause()

    @property
    def me(self) -> Actor | None:
        """The actor in whose thread this is."""
        return self.actors_by_thread.get(threading.get_ident())

    def gate(self, command: tuple[Any, ...], call: Callable[[], Any]) -> Any:
        """Every call of the buffer goes through here; the first to a new server by a new connection."""
        self.pause()
        if self.met != self.runs:
            self._greet()
        if command[0] == "TIME":
            return divmod(self.clock_us, 1_000_000)
        answer = call()
        if command[0] == "INFO" and isinstance(answer, dict) and "run_id" in answer:
            answer["run_id"] = f"{answer['run_id']}-{self.runs}"
        if self.lose_answer and command[0] == "EVALSHA" and self.me is not None:
            self.lose_answer = False
            self.me.retried = True
            raise RedisConnectionError("simulated: the answer is lost")
        return answer

    def _greet(self) -> None:
        """What models.buffer.wire.Greeting does on each new connection. (Calls under way would have failed in truth: here
        they go on, which is harder.)
        """
        self.met = self.runs
        run_id = f"{self.raw.info('server')['run_id']}-{self.runs}"
        self.buffer._met(self.raw, run_id)
        self._noticed()

    def _reached(self, step: str) -> None:
        actor = self.me
        if actor is not None:
            actor.step_name = step
            actor.passed.add(step)

    # ------------------------------------------------------------------ time
    def set_clock(self, us: int) -> None:
        self.clock_us = us
        self.raw.set(CLOCK, us)

    def advance(self, ms: int) -> None:
        """Let time pass (or go back)."""
        self.set_clock(self.clock_us + ms * 1000)

    def expire(self, what: str, number: int) -> None:
        """The lease, hold or bell of a partition runs out."""
        self.raw.delete(getattr(self.buffer.partitions[number], what))
        if what == "lease":
            self._leases_end(number)

    # ------------------------------------------------------------------ the buffer's misfortunes
    def copy(self) -> None:
        """Remember what the buffer holds now."""
        names = [name for name in self.raw.keys() if name != CLOCK.encode()]  # noqa: SIM118
        pipe = self.raw.pipeline(transaction=False)
        for name in names:
            pipe.dump(name).pttl(name)
        found = pipe.execute()
        held = [
            (name, max(found[2 * i + 1], 0), found[2 * i]) for i, name in enumerate(names) if found[2 * i]
        ]
        self.copies.append((self.tick, self.runs, held))

    def roll_back(self, number: int = -1, *, same_server: bool = False) -> None:
        """The buffer's server comes up with an earlier copy. ``same_server``: nothing tells that it did."""
        tick, _, held = self.copies[number]
        self._lose("rolled back", tick)
        self.runs -= same_server
        pipe = self.raw.pipeline(transaction=False)
        for name, ttl, value in held:
            pipe.restore(name, ttl, value)
        pipe.execute()

    def empty(self) -> None:
        """The buffer's server comes up with nothing."""
        self._lose("emptied", -1)

    def _lose(self, what: Any, to: int) -> None:
        self.tick += 1
        self.history.add(Fault(what=what, start=self.tick, end=self.tick, to=to))
        self.tick += 1
        self.runs += 1
        self.raw.flushall()
        self.set_clock(self.clock_us)
        for number in range(len(self.buffer.partitions)):
            self._leases_end(number)

    def restart(self) -> None:
        """The buffer's server comes up with all it had."""
        self.runs += 1

    def _noticed(self) -> None:
        for fault in self.history.of(Fault):
            fault.noticed = min(fault.noticed, self.tick)

    # ------------------------------------------------------------------ leases
    def _log_leases(self, buffer: Any) -> None:
        begin, release, initialise = buffer.begin, buffer.release, buffer.initialise

        def logged_begin(keys: Any, token: str) -> Any:
            begun = begin(keys, token)
            if begun.state == "taken":
                self.history.add(Flush(client=token, start=self.tick, partition=keys.number))
            return begun

        def logged_release(keys: Any, token: str, **how: Any) -> Any:
            # From the call on: the script may run and its answer be lost.
            self._flush_ends(token, failed=how.get("pause_ms", 0) > 0)
            return release(keys, token, **how)

        def logged_initialise() -> Any:
            epoch = initialise()
            self._noticed()
            return epoch

        buffer.begin, buffer.release, buffer.initialise = logged_begin, logged_release, logged_initialise

    def _flush_ends(self, token: str, *, failed: bool) -> None:
        for flush in self.history.of(Flush):
            if flush.client == token:
                flush.failed = failed
                flush.end = min(flush.end, self.tick)

    def _leases_end(self, number: int) -> None:
        for flush in self.history.of(Flush):
            if flush.partition == number and flush.end == NEVER:
                flush.expired = min(flush.expired, self.tick)


class _NoPause:
    def wait(self, timeout: float | None = None) -> bool:
        return False


def _steps() -> tuple[str, ...]:
    counts = {"save": 3, "adopt": 3, "replay": 2, "flush": 12, "settle": 2, "evict": 1, "sweep": 6, "dead": 2}
    return (*(f"{name}.{n}" for name, last in counts.items() for n in range(1, last + 1)), "flush.bury")


STEPS: Final = _steps()


def _without_time(text: str) -> str:
    """A script on the simulated clock, in which nothing expires by itself."""
    head, rest = text.split("\n", 1)
    rest = rest.replace("redis.call('TIME')", "simulated_time()")
    for old in (
        ", 'PX', ARGV[2])",
        ", 'PX', ARGV[3])",
        ", 'PX', ARGV[4])",
        ", 'PX', ARGV[6])",
        ", 'PX', req.bell_ms)",
    ):
        rest = rest.replace(old, ")")
    lines = [line for line in rest.split("\n") if "'PEXPIRE'" not in line or "KEYS[1], ARGV[2]" not in line]
    return f"{head}\n{_PRELUDE}\n" + "\n".join(lines)


@contextmanager
def simulated_scripts() -> Iterator[None]:
    """All scripts on the simulated clock; bugs are planted within."""
    with planted.lua(*scripts.SCRIPTS, change=_without_time):
        yield


@contextmanager
def world(buffer_url: str, database_url: str, **settings: str) -> Iterator[World]:
    """A world on these servers; patches of scripts come before or within."""
    with ExitStack() as stack:
        log = logging.getLogger("blotter")
        level = log.level
        log.setLevel(logging.CRITICAL)
        stack.callback(log.setLevel, level)
        stack.enter_context(simulated_scripts())
        made = World(buffer_url, database_url, **settings)
        stack.callback(made.close)
        yield made
