"""The tables as deploy/partition.sql makes them."""

from __future__ import annotations

from pathlib import Path

import psycopg

SCRIPT = Path(__file__).parents[2] / "deploy" / "partition.sql"


def partition(database_url: str, partitions: int) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"SET blotter.partitions = {partitions}")
        connection.execute(SCRIPT.read_text())
