"""What the tests of commands share: a crew on real servers, and the command line on the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.console import Console
from tests.flow.crews import CrewRig, crew_rig


@pytest.fixture
def chat(buffer_url: str, database_url: str) -> Iterator[CrewRig]:
    with crew_rig(buffer_url, database_url) as made:
        yield made


@pytest.fixture
def blotter(chat: CrewRig) -> Console:
    return Console(chat)
