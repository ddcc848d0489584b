"""Calling scripts by their hash on a server that forgets them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from models.buffer import scripts
from models.errors import BufferUnavailable
from tests.servers import Running


class Forgetful:
    """Forgets its scripts after each of the first ``times`` that it is given one, as a SCRIPT FLUSH beside us does."""

    def __init__(self, client: redis.Redis, times: int) -> None:
        self._client: Any = client
        self._times = times

    def execute_command(self, *command: Any) -> Any:
        answer = self._client.execute_command(*command)
        if command[0] == "SCRIPT" and self._times:
            self._times -= 1
            self._client.script_flush()
        return answer

    def pipeline(self, **how: Any) -> Any:
        return self._client.pipeline(**how)


@pytest.fixture
def client(quick_server: Running) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(quick_server.url) as made:
        made.script_flush()
        yield made


def test_a_script_that_is_forgotten_while_it_is_loaded_is_loaded_again(client: redis.Redis) -> None:
    assert scripts.call(Forgetful(client, 2), "renew", ["{p0}:lease"], ["a", 1]) == 0
    client.script_flush()
    assert scripts.call_many(Forgetful(client, 2), "renew", [(["{p0}:lease"], ["a", 1])] * 2) == [0, 0]


def test_a_server_that_forgets_all_the_time_is_unavailable(client: redis.Redis) -> None:
    with pytest.raises(BufferUnavailable, match="NOSCRIPT"):
        scripts.call(Forgetful(client, 99), "renew", ["{p0}:lease"], ["a", 1])
    with pytest.raises(BufferUnavailable, match="NOSCRIPT"):
        scripts.call_many(Forgetful(client, 99), "renew", [(["{p0}:lease"], ["a", 1])])
