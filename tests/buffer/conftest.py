"""A buffer on a real Valkey, laid out, with small times."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models.buffer.buffer import Buffer
from models.settings import load


@pytest.fixture
def buffer(buffer_url: str) -> Iterator[Buffer]:
    made = Buffer.connect(load({"REDIS_URL": buffer_url, "BLOTTER_PARTITIONS": "2"}))
    made.initialise()
    yield made
    made.close()
