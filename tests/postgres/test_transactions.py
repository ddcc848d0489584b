"""What a failure leaves behind: translated errors without a word of chat, and no connection in doubt."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable

import psycopg
import pytest
import sqlalchemy.exc
from sqlalchemy.engine import Engine

from models.errors import BlotterError, RecordRejected, StoreUnavailable
from models.postgres.errors import SchemaError, StoreUnreachable, translate
from models.postgres.store import Store
from models.postgres.transactions import drop_connection, reading, transaction
from models.postgres.upserts import upsert
from tests.postgres.examples import message, new_uid

DIES_IN_COMMIT = """
CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN {} RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER dies AFTER INSERT ON messages DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION die()
"""
KILL = "PERFORM pg_terminate_backend(pg_backend_pid());"
REFUSE = "RAISE EXCEPTION 'hunter2' USING ERRCODE = '23505';"


def backend(engine: Engine) -> int:
    with reading(engine) as connection:
        return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())


@pytest.mark.parametrize("what_happens", [KILL, REFUSE])
def test_a_commit_that_fails_is_unknown_and_costs_the_connection(
    store: Store, engine: Engine, sql: psycopg.Connection, what_happens: str
) -> None:
    before = backend(engine)
    sql.execute(DIES_IN_COMMIT.format(what_happens))

    with pytest.raises(StoreUnavailable) as caught:
        store.write([message(new_uid())])

    assert not isinstance(caught.value, RecordRejected)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    sql.execute("DROP FUNCTION die CASCADE")
    assert backend(engine) != before


def test_writing_again_after_a_lost_commit_brings_it_home(store: Store, sql: psycopg.Connection) -> None:
    record = message(new_uid())
    sql.execute(DIES_IN_COMMIT.format(KILL))
    with pytest.raises(StoreUnavailable):
        store.write([record])
    sql.execute("DROP FUNCTION die CASCADE")
    # The breaker's pause is the caller's to wait for; here a store of its own has none.
    assert Store(store._engine).write([record]).written


def test_a_connection_lost_between_statements_is_unreachable(engine: Engine, sql: psycopg.Connection) -> None:
    uid = new_uid()
    with pytest.raises(StoreUnreachable), transaction(engine) as connection:  # noqa: PT012
        upsert(connection, [message(uid)])
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        sql.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        upsert(connection, [message(uid, "m2")])
    assert Store(engine).snapshot(uid).messages == ()


def test_idle_connections_that_the_server_closed_are_not_handed_out(
    engine: Engine, sql: psycopg.Connection
) -> None:
    before = backend(engine)
    sql.execute("SELECT pg_terminate_backend(%s, 5000)", (before,))
    assert backend(engine) != before


def test_a_rejection_keeps_the_connection(store: Store, engine: Engine) -> None:
    before = backend(engine)
    with pytest.raises(RecordRejected):
        store.write([message(new_uid(), content="\0")])
    assert backend(engine) == before


def test_anything_else_drops_it(engine: Engine) -> None:
    before = backend(engine)
    for exception in (RuntimeError, KeyboardInterrupt, SystemExit):
        with pytest.raises(exception), transaction(engine) as connection:  # noqa: PT012
            upsert(connection, [message(new_uid())])
            raise exception
        after = backend(engine)
        assert after != before
        before = after


def test_what_was_written_before_an_exception_is_gone(engine: Engine) -> None:
    uid = new_uid()
    with pytest.raises(RuntimeError), transaction(engine) as connection:  # noqa: PT012
        upsert(connection, [message(uid)])
        raise RuntimeError
    assert Store(engine).snapshot(uid).messages == ()


def test_dropping_twice_is_harmless(engine: Engine) -> None:
    with engine.connect() as connection:
        drop_connection(connection)
        drop_connection(connection)


def test_a_lock_held_by_another_is_given_up_after_the_lock_timeout(
    engine: Engine, sql: psycopg.Connection
) -> None:
    record = message(new_uid())
    Store(engine).write([record])
    with sql.transaction():
        sql.execute("SELECT FROM messages FOR UPDATE")
        with pytest.raises(StoreUnavailable, match="55P03"), transaction(engine) as connection:  # noqa: PT012
            connection.exec_driver_sql("SET LOCAL lock_timeout = '20ms'")
            upsert(connection, [message(record.conversation_uid, version=2)])


def test_a_schema_that_is_not_there_names_the_remedy(store: Store, sql: psycopg.Connection) -> None:
    sql.execute("DROP TABLE messages")
    for call in (lambda: store.write([message(new_uid())]), lambda: store.snapshot(new_uid())):
        with pytest.raises(SchemaError, match="blotter db upgrade"):
            call()


def test_the_session_is_set_up_as_promised(engine: Engine) -> None:
    wanted = {
        "statement_timeout": "5s",
        "lock_timeout": "2s",
        "idle_in_transaction_session_timeout": "5s",
        "TimeZone": "UTC",
        "client_encoding": "UTF8",
        "application_name": "blotter-worker",
        "tcp_user_timeout": "5s",
    }
    with reading(engine) as connection:
        found = {name: connection.exec_driver_sql(f"SHOW {name}").scalar() for name in wanted}
    # That one is the client's socket option, not the server's setting.
    del wanted["tcp_user_timeout"], found["tcp_user_timeout"]
    assert found == wanted


def test_no_text_of_a_chat_reaches_a_log(
    store: Store, sql: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    sql.execute(DIES_IN_COMMIT.format(REFUSE))
    caplog.set_level(logging.DEBUG)
    for record in (
        message(new_uid(), content="hunter2"),
        message(new_uid(), content="hunter2", parts="[hunter2]"),
        message(new_uid(), content="hunter2", status="hunter2"),
        message(new_uid(), content="hunter2\ud800"),
    ):
        with pytest.raises(BlotterError) as caught:
            store.write([record])
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in caplog.text


# Translation, as a table


def error_of(sqlstate: str) -> psycopg.Error:
    return psycopg.errors.lookup(sqlstate)("hunter2")


@pytest.mark.parametrize(
    ("sqlstates", "meaning"),
    [
        ("40001 40P01 55P03 57014 53100 53200 25P03 25006 42P05 0A000 58030 XX000", StoreUnavailable),
        ("08000 08006 57P01 57P02 57P03 53300", StoreUnreachable),
        ("21000 22001 22003 22021 22P02 22P05 23502 23505 23514 54000 54001", RecordRejected),
        ("42P01 42703 42501 3F000", SchemaError),
    ],
)
def test_each_state_means_one_thing(sqlstates: str, meaning: type[BlotterError]) -> None:
    for sqlstate in sqlstates.split():
        for error in (error_of(sqlstate), wrapped(error_of(sqlstate))):
            ours = translate(error)
            assert type(ours) is meaning, sqlstate
            assert sqlstate in str(ours)
            assert "hunter2" not in str(ours)


def wrapped(error: psycopg.Error) -> sqlalchemy.exc.DBAPIError:
    return sqlalchemy.exc.DBAPIError("INSERT", {"content": "hunter2"}, error, hide_parameters=True)


@pytest.mark.parametrize(
    ("make", "meaning"),
    [
        (lambda: psycopg.OperationalError("the connection is closed"), StoreUnreachable),
        (lambda: psycopg.InterfaceError("x"), StoreUnreachable),
        (lambda: psycopg.DataError("hunter2"), RecordRejected),
        (
            lambda: UnicodeEncodeError("utf-8", "hunter2\ud800", 7, 8, "surrogates not allowed"),
            RecordRejected,
        ),
        (lambda: sqlalchemy.exc.TimeoutError("pool"), StoreUnavailable),
        (lambda: RuntimeError("not ours"), type(None)),
        (lambda: StoreUnavailable("ours already"), StoreUnavailable),
    ],
)
def test_errors_without_a_state(make: Callable[[], Exception], meaning: type) -> None:
    ours = translate(make())
    assert type(ours) is meaning
    assert "hunter2" not in str(ours)
