"""The small scripts on their own, as plain logic: on an imitation of Redis, which starts in no time and has a clock we set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest

from models.buffer.scripts import source
from tests.servers import Running


class Plain:
    """Runs scripts by name on a client, without their first line (fakeredis knows no flags)."""

    def __init__(self, client: Any, *, flags: bool) -> None:
        self.client = client
        self.flags = flags

    def __call__(self, name: str, keys: list[str], *args: Any) -> Any:
        text = source(name) if self.flags else source(name).split("\n", 1)[1]
        return self.client.eval(text, len(keys), *keys, *args)


@pytest.fixture(params=["imitation", "server"])
def run(request: pytest.FixtureRequest) -> Iterator[Plain]:
    if request.param == "imitation":
        yield Plain(fakeredis.FakeRedis(), flags=False)
        return
    import redis

    server: Running = request.getfixturevalue("quick_server")
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        yield Plain(client, flags=True)


LEASE = ["lease", "bell", "hold", "fails"]
END = ["lease", "due", "bell", "hold", "fails"]
RELEASE = (200, 5000, 0, 0, 120_000)


# ------------------------------------------------------------------ begin, renew, release
def test_one_flusher_takes_the_lease(run: Plain) -> None:
    assert run("begin", LEASE, "a", 10_000) == [1, 0]
    assert run("begin", LEASE, "b", 10_000) == [0, 0]
    assert run.client.get("lease") == b"a"
    assert 9000 < run.client.pttl("lease") <= 10_000


def test_beginning_deletes_the_bell(run: Plain) -> None:
    """Prevents: a save after the flush looked and before the bell was deleted, for which nobody would ring."""
    run.client.set("bell", 1)
    run("begin", LEASE, "a", 10_000)
    assert not run.client.exists("bell")


def test_a_bell_answered_while_another_is_at_work_lets_that_one_ring_again(run: Plain) -> None:
    """Prevents: a bell answered by a second flusher that keeps the first from ringing for what it did not see."""
    run("begin", LEASE, "a", 10_000)
    run.client.set("bell", 1)
    run.client.zadd("due", {"x": 1})
    assert run("begin", LEASE, "b", 10_000) == [0, 0]
    assert run("release", END, "a", *RELEASE) == 1


def test_a_paused_partition_is_left_alone(run: Plain) -> None:
    run("begin", LEASE, "a", 10_000)
    run.client.zadd("due", {"x": 1})
    assert run("release", END, "a", 200, 5000, 250, 3, 120_000) == 0
    assert 0 < run.client.pttl("hold") <= 250
    run.client.set("hold", 1)
    run.client.set("bell", 1)
    assert run("begin", LEASE, "b", 10_000) == [-1, 3]
    assert not run.client.exists("bell", "lease")
    run.client.delete("hold")
    assert run("begin", LEASE, "b", 10_000) == [1, 3]
    assert run("release", END, "b", *RELEASE) == 1
    assert run("begin", LEASE, "c", 10_000) == [1, 0]


def test_only_its_holder_renews_and_releases_a_lease(run: Plain) -> None:
    """Prevents: releasing somebody else's lease."""
    run("begin", LEASE, "a", 10_000)
    assert run("renew", ["lease"], "b", 99_000) == 0
    assert run("renew", ["lease"], "a", 99_000) == 1
    assert run.client.pttl("lease") > 90_000
    run("release", END, "b", *RELEASE)
    assert run.client.get("lease") == b"a"
    run("release", END, "a", *RELEASE)
    assert not run.client.exists("lease")
    assert run("renew", ["lease"], "a", 10_000) == 0


def test_releasing_rings_again_for_what_became_ripe(run: Plain) -> None:
    """Prevents: a save during the last batch for which nobody would ring."""
    run("begin", LEASE, "a", 10_000)
    seconds, micros = run.client.time()
    now = seconds * 1000 + micros // 1000
    run.client.zadd("due", {"later": now + 60_000})
    assert run("release", END, "a", *RELEASE) == 0
    run.client.zadd("due", {"soon": now + 150})
    assert run("release", END, "a", *RELEASE) == 1
    assert run.client.pttl("bell") > 4000
    # The bell is out: one is enough.
    assert run("release", END, "a", *RELEASE) == 0
    run.client.delete("bell")
    run.client.set("hold", 1)
    assert run("release", END, "a", *RELEASE) == 0


# ------------------------------------------------------------------ ripe, unlist, init
def test_ripe_gives_what_is_due_most_overdue_first_and_what_lies_too_far_ahead(run: Plain) -> None:
    seconds, micros = run.client.time()
    now = seconds * 1000 + micros // 1000
    autosave = 30_000
    run.client.zadd(
        "due",
        {
            "b": now - 5,
            "a": now - 10,
            "c": now,
            "soon": now + 1000,
            "edge": now + 2 * autosave - 5000,
            "far": now + 10**9,
        },
    )
    assert run("ripe", ["due"], 10, autosave, 0) == [b"a", b"b", b"c", b"far"]
    assert run("ripe", ["due"], 2, autosave, 0) == [b"a", b"b"]
    assert run("ripe", ["due"], 10, autosave, 2) == [b"c", b"far"]


def test_unlisting_goes_by_version(run: Plain) -> None:
    version = 1_763_800_000_123_457
    run.client.zadd("index", {"u1": version, "u2": version + 1})
    assert run("unlist", ["index"], "u1", version, "u2", version, "u3", version) == 1
    assert run.client.zrange("index", 0, -1) == [b"u2"]


def test_a_partition_is_laid_out_once(run: Plain) -> None:
    """Prevents: two starters writing different epochs."""
    keys = ["meta", "epoch"]
    assert run("init", keys, "e1", 16, 1, "run1") == [b"e1", b"16", b"1"]
    first = int(run.client.get("epoch"))
    assert run("init", keys, "e2", 8, 2, "run1") == [b"e1", b"16", b"1"]
    assert int(run.client.get("epoch")) == first > 10**15


def test_another_server_is_another_buffer_epoch(run: Plain) -> None:
    """Prevents: an emptied or rolled back buffer that looks like the old one, or counts its evictions as it did."""
    keys = ["meta", "epoch"]
    run("init", keys, "e1", 16, 1, "run1")
    first = int(run.client.get("epoch"))
    # Set back to before so many evictions as a loader may have seen.
    assert run("init", keys, "e2", 16, 1, "run2") == [b"e2", b"16", b"1"]
    second = int(run.client.get("epoch"))
    assert second > first + 1
    run.client.flushall()
    run("init", keys, "e3", 16, 1, "run2")
    assert int(run.client.get("epoch")) > second + 1
    # The clock went back: it rises all the same.
    run.client.set("epoch", 1 << 52)
    run("init", keys, "e4", 16, 1, "run3")
    assert int(run.client.get("epoch")) == (1 << 52) + 1


# ------------------------------------------------------------------ trial, pull, claim, alive, count, overdue
def test_what_was_put_off_is_pulled(run: Plain) -> None:
    seconds, micros = run.client.time()
    now = seconds * 1000 + micros // 1000
    run.client.zadd("due", {"past": now - 50, "a": now + 10_000, "b": now + 20_000})
    assert run("pull", ["due"], 1) == 1
    assert run("pull", ["due"], 10) == 1
    assert run("pull", ["due"], 10) == 0
    assert run.client.zscore("due", "past") == now - 50
    assert len(run("ripe", ["due"], 10, 30_000, 0)) == 3


def test_a_claim_stands_until_it_runs_out_or_is_overruled(run: Plain) -> None:
    assert run("claim", ["sweep"], 10_000, "0") == 1
    assert run("claim", ["sweep"], 10_000, "0") == 0
    assert run("claim", ["sweep"], 10_000, "1") == 1
    assert run.client.pttl("sweep") > 9000


def test_workers_that_no_longer_say_they_live_are_dropped(run: Plain) -> None:
    run.client.zadd("workers", {"gone": 1})
    assert run("alive", ["workers"], "w1", 10_000) == 1
    assert run("alive", ["workers"], "w2", 10_000) == 2


def test_counters_add_up(run: Plain) -> None:
    run("count", ["stats"], "rows", 2, "batches", 1)
    run("count", ["stats"], "rows", 3)
    assert run.client.hgetall("stats") == {b"rows": b"5", b"batches": b"1"}


def test_a_partition_is_rung_for_only_where_work_lies_and_nobody_is_at_it(run: Plain) -> None:
    keys = ["meta", "due", "blind", "bell", "lease", "hold"]

    def look(bell_ms: int = 5000) -> list[int]:
        rung, late, _, laid, free = run("overdue", keys, 30_000, bell_ms)
        return [rung, min(late, 1), laid, free]

    assert look() == [0, -1, 0, 1]
    run.client.hset("meta", "e", "x")
    run.client.zadd("due", {"x": 1})
    assert look(0) == [0, 1, 1, 1]
    assert look() == [1, 1, 1, 1]
    assert look() == [0, 1, 1, 1]
    run.client.delete("bell")
    for key in ("lease", "hold"):
        run.client.set(key, "x")
        assert look() == [0, 1, 1, 0]
        run.client.delete(key)
    run.client.delete("due")
    run.client.zadd("blind", {"u": 1})
    assert look() == [1, 1, 1, 1]
    run.client.delete("blind", "bell")
    run.client.zadd("due", {"far": 10**14})
    assert look() == [1, 1, 1, 1]
