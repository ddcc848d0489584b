"""Whether events hears of saves is found out: /readyz and an alert rest on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models.settings import load
from tests.servers import Running, eventually, start_valkey
from web.events import hints
from web.events.hints import Hints


@pytest.fixture
def valkey() -> Iterator[Running]:
    with start_valkey() as running:
        yield running


def test_a_server_that_falls_silent_is_not_listened_to(
    valkey: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a firewall forgot the connection: nobody says that it is gone."""
    monkeypatch.setattr(hints, "_PING_S", 0.3)
    monkeypatch.setattr(hints, "_WAIT_S", 0.1)
    lost = []
    settings = load({"REDIS_URL": valkey.url, "BLOTTER_BUFFER_TIMEOUT_MS": "300"})
    listening = Hints(settings, ["blotter:{p0}:live"], set(), lambda hint: None, lambda: lost.append(1))
    listening.start()
    try:
        eventually(lambda: listening.listening)
        # Silent because nothing is saved: it answers pings.
        with pytest.raises(AssertionError):
            eventually(lambda: not listening.listening, within_s=2)
        assert len(lost) == 1
        valkey.pause()
        try:
            eventually(lambda: not listening.listening, within_s=20)
        finally:
            valkey.resume()
        eventually(lambda: listening.listening, within_s=20)
        assert len(lost) == 2
    finally:
        listening.close()
