"""A cluster for each module, emptied for each test; the pipeline and all that workers have, on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.nodes import RunningCluster, start_cluster
from tests.flow.crews import CrewRig
from tests.flow.rig import rig

PARTITIONS = 16


@pytest.fixture(scope="module")
def running() -> Iterator[RunningCluster]:
    with start_cluster() as made:
        yield made


@pytest.fixture
def cluster(running: RunningCluster) -> RunningCluster:
    running.settled()
    running.empty()
    return running


@pytest.fixture
def on_cluster(cluster: RunningCluster, database_url: str) -> Iterator[CrewRig]:
    """A web's and a worker's view of the cluster."""
    with rig(cluster.url, database_url, BLOTTER_PARTITIONS=str(PARTITIONS)) as made:
        made.buffer.initialise()
        yield CrewRig(made.pipeline, database_url, made.rung)
