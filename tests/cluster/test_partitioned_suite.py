"""The tests of the store, and of the pipeline on it, once more on hash-partitioned tables (deploy/partition.sql)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
FLOW = ("flush", "sweep", "save_and_read", "listing", "blind")
#: What looks at a table's own pages, plans and catalogue entries, which the partitions have instead of it.
OF_ONE_TABLE = (
    "test_hot.py::test_a_reply_that_streams_updates_hot",
    "test_hot.py::test_a_conversation_row_updates_hot_unless_a_message_was_created",
    "test_hot.py::test_every_index_stands_on_columns_that_streaming_leaves_alone",
    "test_migrate.py::test_migrations_build_what_the_tables_say",
    "test_migrate.py::test_down_to_collation_fillfactor_and_predicates",
    "test_queries.py::test_the_list_is_read_from_its_index",
    "test_queries.py::test_a_step_of_the_walk_examines_only_its_rows",
    "test_upserts.py::test_rows_go_out_in_the_order_of_their_keys",
    "test_partitioned.py",
)


def test_store_and_pipeline_work_on_partitioned_tables() -> None:
    deselected = [f"--deselect=tests/postgres/{name}" for name in OF_ONE_TABLE]
    ran = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/postgres",
            *(f"tests/flow/test_{name}.py" for name in FLOW), *deselected,
        ],
        cwd=ROOT, env={**os.environ, "BLOTTER_TEST_PARTITIONED": "4"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-4000:]
