"""The two ways to use a connection: a transaction for writing, autocommit for one reading statement.

Laws:
- Only a rejected row leaves the connection as it was. Whatever else goes wrong, a signal included, drops it: what the
  server made of the statement is unknown, and psycopg may stand in the middle of an answer.
- Any exception during COMMIT means "unknown", whatever it says: StoreUnavailable, and write again. The fence makes the
  second time harmless.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import Connection, Engine, RootTransaction

from models.errors import RecordRejected, StoreUnavailable
from models.postgres.errors import translate, translated


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """A connection in a transaction that commits at the end of the block and rolls back on an exception.

    Raises StoreUnavailable, RecordRejected, SchemaError; exceptions of others go through after the rollback.
    """
    with translated(), _checked_out(engine) as connection:
        begun = connection.begin()
        try:
            yield connection
        except BaseException as error:
            if isinstance(translate(error), RecordRejected):
                begun.rollback()
            else:
                drop_connection(connection)
            raise
        _commit(connection, begun)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection without a transaction: each statement is its own snapshot, and costs one round trip."""
    with translated(), _checked_out(engine) as connection:
        try:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")
        except BaseException:
            drop_connection(connection)
            raise


def drop_connection(connection: Connection) -> None:
    """Close it for good and take it out of the pool; the server rolls back what was not committed."""
    if not connection.invalidated and not connection.closed:
        connection.invalidate()


def _commit(connection: Connection, begun: RootTransaction) -> None:
    try:
        begun.commit()
    except BaseException as error:
        drop_connection(connection)
        ours = translate(error)
        if isinstance(error, Exception) and not isinstance(ours, StoreUnavailable):
            raise StoreUnavailable(
                f"the outcome of COMMIT is unknown ({ours or type(error).__name__})"
            ) from None
        raise


@contextmanager
def _checked_out(engine: Engine) -> Iterator[Connection]:
    """A connection of the pool. Giving back a broken one may fail, which is no news: the pool drops it."""
    connection = engine.connect()
    try:
        yield connection
    finally:
        try:
            connection.close()
        except Exception as error:
            if translate(error) is None:
                raise
