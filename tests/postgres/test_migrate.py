"""The schema's versions: what the migrations build is what the tables say; up, down, and many starters at once."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Barrier, Thread

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Engine

from models.errors import StoreUnavailable
from models.postgres import migrate
from models.postgres.engine import make_engine
from models.postgres.errors import SchemaError
from models.postgres.store import Store
from models.postgres.tables import metadata
from models.settings import load
from tests.postgres.examples import conversation
from tests.servers import RunningPostgres

CATALOG = """
SELECT 'column', table_name, column_name,
       concat_ws(' ', data_type, udt_name, is_nullable, column_default, collation_name)
  FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
UNION ALL
SELECT 'index', tablename, indexname, indexdef FROM pg_indexes
 WHERE schemaname = 'public' AND tablename <> 'alembic_version'
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
 WHERE connamespace = 'public'::regnamespace AND conrelid <> coalesce(to_regclass('alembic_version')::oid, 0)
UNION ALL
SELECT 'options', relname, relkind::text, reloptions::text FROM pg_class
 WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'alembic_version'
ORDER BY 1, 2, 3
"""


def tool_engine(url: str) -> Engine:
    return make_engine(url, role="tool", settings=load({}))


def catalog(url: str) -> list[tuple[str, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(CATALOG).fetchall()


@pytest.fixture
def other_database_url(postgres_server: RunningPostgres) -> Iterator[str]:
    with postgres_server.new_database() as url:
        yield url


def test_migrations_build_what_the_tables_say(database_url: str) -> None:
    with tool_engine(database_url).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_down_to_collation_fillfactor_and_predicates(database_url: str, other_database_url: str) -> None:
    with tool_engine(other_database_url).begin() as connection:
        metadata.create_all(connection)
    built, said = catalog(database_url), catalog(other_database_url)
    assert len(built) > 60
    assert built == said


def test_up_and_down_and_up_again(empty_database_url: str) -> None:
    url = empty_database_url
    assert "no schema" in (migrate.check(url) or "")
    migrate.upgrade(url)
    built = catalog(url)
    assert migrate.check(url) is None
    migrate.upgrade(url)
    migrate.downgrade(url, "base")
    assert catalog(url) == []
    assert "blotter db upgrade" in (migrate.check(url) or "")
    migrate.upgrade(url)
    assert catalog(url) == built
    store = Store(tool_engine(url))
    assert store.write([conversation()]).written


def test_a_newer_schema_is_named(database_url: str, sql: psycopg.Connection) -> None:
    sql.execute("UPDATE alembic_version SET version_num = 'from-the-future'")
    assert "newer" in (migrate.check(database_url) or "")
    with pytest.raises(SchemaError, match="cannot migrate"):
        migrate.upgrade(database_url)


def test_an_unknown_revision_changes_nothing(database_url: str) -> None:
    before = catalog(database_url)
    with pytest.raises(SchemaError, match="cannot migrate"):
        migrate.downgrade(database_url, "never-was")
    assert catalog(database_url) == before


def test_starters_that_come_together_queue(empty_database_url: str) -> None:
    barrier = Barrier(4)
    failures: list[Exception] = []

    def start() -> None:
        try:
            barrier.wait(10)
            migrate.upgrade(empty_database_url)
        except Exception as error:  # noqa: BLE001 (reported below)
            failures.append(error)

    threads = [Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert migrate.check(empty_database_url) is None


def test_a_migration_that_fails_leaves_nothing_behind(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        # The last table of the first migration is in the way.
        connection.execute("CREATE TABLE artifact_versions (x int)")
        with pytest.raises(SchemaError):
            migrate.upgrade(empty_database_url)
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert tables == [("artifact_versions",)]


def test_a_table_that_stays_locked_is_given_up(
    database_url: str, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_DDL_LOCK_MS", 20)
    monkeypatch.setattr(migrate, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(migrate, "_TRIES", 3)
    with sql.transaction():
        sql.execute("LOCK TABLE messages IN ACCESS SHARE MODE")
        with pytest.raises(StoreUnavailable, match="55P03"):
            migrate.downgrade(database_url, "base")
    migrate.downgrade(database_url, "base")


def test_a_database_of_another_encoding_is_refused(postgres_server: RunningPostgres) -> None:
    admin = postgres_server.server.url_of("postgres")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
        try:
            with pytest.raises(SchemaError, match="UTF8"):
                migrate.upgrade(postgres_server.server.url_of("ascii"))
        finally:
            connection.execute("DROP DATABASE ascii WITH (FORCE)")


def test_nobody_there_is_said_at_once(closed_port: int) -> None:
    for call in (migrate.upgrade, migrate.check):
        with pytest.raises(StoreUnavailable, match="refused"):
            call(f"postgresql://127.0.0.1:{closed_port}/x")
