"""Sweep: the durability net. What bells, flushers and clients left behind is found by looking, every second.

Beat asks for it (BLOTTER_SWEEP_SECONDS); any number may run at once, anywhere: each step is safe beside itself. Where
beat, or the broker, is dead, workers sweep on their own (models/pipeline/patrol.py), only less often.

    sweep.1 look at all partitions; one that is not laid out (an emptied buffer), or a server started anew: initialise,
            which gives the buffer its new epoch
    sweep.2 ring what is overdue, blind journals included (a lost bell's TTL ran out, a pause ended, the clock went back)
    sweep.3 settle what fell silent
    sweep.4 evict what idles, unless Postgres was set back (models/pipeline/setback.py)
    sweep.5 daily chores, a page at a time: strays (after a change of epoch too), purge
    sweep.6 each minute: the buffer's policy; what fails is logged by name until it is mended (saves are refused by
            models/pipeline/pressure.py)
    sweep.7 every ten seconds: a sample of the figures, for the operators' graphs

A step that fails for memory or Postgres leaves the others alone; without the buffer there is nothing to sweep.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from redis.exceptions import RedisError

from models.buffer import keys
from models.buffer.buffer import Buffer
from models.buffer.partitions import Partitions
from models.buffer.scripts import translate
from models.core.schedule import POLICY_EVERY_MS, beat_alive_ms, sweep_claim_ms
from models.errors import BufferFull, Contention, StoreUnavailable
from models.pipeline import figures, policy
from models.pipeline.evict import Evictor
from models.pipeline.failpoints import reach
from models.pipeline.purge import Purger
from models.pipeline.setback import SetBack
from models.pipeline.settle import Settler
from models.pipeline.strays import Strays
from models.postgres.errors import SchemaError

log = logging.getLogger("blotter.sweep")


class Swept(NamedTuple):
    """What one sweep did: partitions rung, items settled, conversations evicted and adopted, rows purged."""

    rung: int = 0
    settled: int = 0
    evicted: int = 0
    adopted: int = 0
    purged: int = 0


class Sweeper:
    """Sweeps all partitions."""

    def __init__(
        self,
        buffer: Buffer,
        partitions: Partitions,
        settler: Settler,
        evictor: Evictor,
        strays: Strays,
        purger: Purger,
        set_back: SetBack,
        ring: Callable[[int], None],
    ) -> None:
        self._buffer = buffer
        self._partitions = partitions
        self._settler = settler
        self._evictor = evictor
        self._strays = strays
        self._purger = purger
        self._set_back = set_back
        self._ring = ring
        self._sweep_ms = round(buffer.settings.sweep_seconds * 1000)
        self._run_id = ""
        self._policy_ms = 0

    def sweep(self, *, for_beat: bool = False) -> Swept:
        """One sweep. ``for_beat``: beat asked for it, so beat lives. Raises BufferUnavailable, BufferPolicyError."""
        self._partitions.claim(keys.SWEEP, sweep_claim_ms(self._sweep_ms), over=True)
        if for_beat:
            self._partitions.claim(keys.BEAT, beat_alive_ms(self._sweep_ms), over=True)
        looks = self._partitions.look()
        if self._started_anew() or not all(look.laid_out for look in looks):
            self._buffer.initialise()
        reach("sweep.1")
        overdue = [look.number for look in looks if look.free and look.late_ms >= 0]
        rung = (
            [look.number for look in self._partitions.look(overdue, ring=True) if look.rung]
            if overdue
            else []
        )
        for number in rung:
            self._ring(number)
        reach("sweep.2")
        now_ms = looks[0].now_ms
        settled = self._settler.settle(now_ms)
        reach("sweep.3")
        stored = self._set_back.look()
        evicted = 0 if stored == "set back" else self._evict(now_ms, away=stored == "away")
        reach("sweep.4")
        adopted, purged = self._chores(now_ms)
        reach("sweep.5")
        self._check_policy(now_ms)
        reach("sweep.6")
        figures.keep(self._buffer, self._partitions)
        reach("sweep.7")
        done = Swept(len(rung), settled, evicted, adopted, purged)
        names = ("rung", "settled", "evicted", "strays", "purged")
        try:
            self._partitions.count({name: n for name, n in zip(names, done, strict=True) if n})
        except BufferFull:
            log.debug("counters have no room")
        return done

    def _evict(self, now_ms: int, *, away: bool) -> int:
        try:
            return self._evictor.evict(now_ms, away=away)
        except (StoreUnavailable, SchemaError) as error:
            log.debug("evictions wait: %s", error)
            return 0

    def _started_anew(self) -> bool:
        """The server is another process than at the last look (or this is the first)."""
        try:
            run_id = str(self._buffer.client.info("server")["run_id"])
        except RedisError as error:
            raise translate(error) from error
        anew = run_id != self._run_id
        self._run_id = run_id
        return anew

    def _chores(self, now_ms: int) -> tuple[int, int]:
        adopted = purged = 0
        try:
            adopted = self._strays.step(self._partitions.epoch(), now_ms)
            purged = self._purger.step(now_ms)
        except (StoreUnavailable, SchemaError, BufferFull, Contention) as error:
            log.debug("chores wait: %s", error)
        return adopted, purged

    def _check_policy(self, now_ms: int) -> None:
        if now_ms - self._policy_ms < POLICY_EVERY_MS and now_ms >= self._policy_ms:
            return
        self._policy_ms = now_ms
        for fault in policy.examine(self._buffer.client, self._buffer.settings).faults:
            log.error("the buffer does not keep what it acknowledges: %s", fault)
