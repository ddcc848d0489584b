"""On a cluster: each script names all its keys, and they lie in one slot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models.buffer import cluster, scripts
from models.buffer.buffer import Buffer
from models.buffer.scripts import SCRIPTS, Script
from models.errors import BufferUnavailable
from models.settings import load
from tests.buffer.chat import Chat
from tests.buffer.smoke import everything
from tests.servers import eventually, start_valkey

#: Scripts that only `blotter verify`, `erase` and `repartition`, the sweep's samples and saves that wait for replicas call,
#: and their tests.
ELSEWHERE = {"audit", "mark", "mend", "relay", "sample", "wipe"}

#: Stands before a script's own text: a `redis` that knows which keys were declared, and notes that it ran.
GUARD = """
local redis = setmetatable({ call = function(command, ...)
  local keys, args = { ... }, { ... }
  local many = { EXISTS = 1, DEL = 1, UNLINK = 1, RENAME = 1 }
  local none = { TIME = 1, SPUBLISH = 1 }
  local count = none[command] and 0 or many[command] and #keys or 1
  for i = 1, count do
    local known = false
    for _, key in ipairs(KEYS) do known = known or key == keys[i] end
    if not known then error(command .. ' of a key that was not declared: ' .. tostring(keys[i])) end
  end
  return redis.call(command, unpack(args))
end }, { __index = redis })
"""


@pytest.fixture(scope="module")
def cluster_url() -> Iterator[str]:
    import redis

    with start_valkey(cluster_enabled="yes", cluster_port="0", appendfsync="no") as server:
        with redis.Redis.from_url(server.url) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            eventually(lambda: b"cluster_state:ok" in _raw(client.execute_command("CLUSTER INFO")))
        yield server.url


def _raw(answer: object) -> bytes:
    if isinstance(answer, dict):
        return b"".join(f"{name}:{value}\n".encode() for name, value in answer.items())
    assert isinstance(answer, bytes)
    return answer


def test_every_script_runs_on_a_cluster(cluster_url: str) -> None:
    buffer = Buffer.connect(load({"REDIS_URL": cluster_url, "BLOTTER_PARTITIONS": "16"}))
    buffer.initialise()
    partitions = set()
    for number in range(6):
        chat = Chat(buffer, "owner", f"chat{number}")
        everything(chat)
        partitions.add(chat.place.keys.number)
    assert len(partitions) > 1
    buffer.close()


def test_every_script_declares_the_keys_it_touches(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = set()
    guarded = {}
    for name in SCRIPTS:
        script = Script(name)
        first, rest = script.text.decode().split("\n", 1)
        script.text = f"{first}\n{GUARD}\n{rest}".encode()
        script.sha = scripts.sha1(script.text, usedforsecurity=False).hexdigest()
        guarded[name] = script

    class Noted(dict[str, Script]):
        def __getitem__(self, name: str) -> Script:
            ran.add(name)
            return super().__getitem__(name)

    monkeypatch.setattr(scripts, "SCRIPTS", Noted(guarded))
    chat.buffer.initialise()
    everything(chat)
    assert set(SCRIPTS) - ran <= ELSEWHERE, "a new script: add it to smoke.py"


@pytest.mark.parametrize(
    ("url", "first", "others"),
    [
        ("redis+cluster://a:7001", "redis://a:7001", []),
        ("redis+cluster://:p%40w@10.0.0.1:7001,10.0.0.2:7002,10.0.0.3", "redis://:p%40w@10.0.0.1:7001", [("10.0.0.2", 7002), ("10.0.0.3", 6379)]),
        ("rediss+cluster://u:p@[::1]:7001,[::2]:7002/0", "rediss://u:p@[::1]:7001/0", [("::2", 7002)]),
    ],
)  # fmt: skip
def test_the_address_of_a_cluster_names_some_of_its_servers(
    url: str, first: str, others: list[tuple[str, int]]
) -> None:
    assert load({"REDIS_URL": url}).redis_url == url
    assert cluster.is_cluster(url)
    plain, nodes = cluster._start(url)
    assert (plain, [(node.host, node.port) for node in nodes]) == (first, others)


def test_a_cluster_that_is_away_is_unavailable_when_it_is_asked_not_before() -> None:
    buffer = Buffer.connect(load({"REDIS_URL": "redis+cluster://127.0.0.1:1,127.0.0.1:2"}))
    with pytest.raises(BufferUnavailable):
        buffer.initialise()
    with pytest.raises(BufferUnavailable):
        buffer.save(buffer.place("owner", "chat"), ())
    buffer.close()
