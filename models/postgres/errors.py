"""Driver errors become Blotter's, here and nowhere else in the store.

Which error means what (SQLSTATE):

    StoreUnreachable  no state at all, 08, 57P, 53300: the connection; trips the breaker
    StoreUnavailable  40, 55P03, 57014, 53, 25 and all that is not named here: try again later
    RecordRejected    21, 22, 23, 54, and what the driver cannot even encode: this row will never be taken
    SchemaError       42, 3F: the schema is not the one this code was written for

Law: no message holds a value. Postgres puts values into DETAIL, CONTEXT and even into its primary message (``invalid
input syntax for type json``), so all that is taken over is the state, the driver's name for it, and the names of table,
column and constraint. Only what failed while connecting, before any row was sent, is quoted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
import sqlalchemy.exc

from models.errors import BlotterError, RecordRejected, StoreUnavailable

_REJECTED: Final = ("21", "22", "23", "54")
_UNREACHABLE: Final = ("08", "57P", "53300")
_SCHEMA: Final = ("42", "3F")
#: In class 42, but about the session (prepared statements behind a pooler), not about the schema.
_SESSION: Final = ("42P05",)


class StoreUnreachable(StoreUnavailable):
    """No connection to Postgres, or it broke: the next call would most likely fail too. Trips the breaker."""


class SchemaError(StoreUnavailable):
    """The database's schema is missing or another than this code's; `blotter db upgrade` is the remedy. Saves go on."""


def translate(error: BaseException) -> BlotterError | None:
    """What ``error`` means, as one of ours; None where it did not come from the store's drivers."""
    if isinstance(error, BlotterError):
        return error
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        return (
            translate(error.orig) if error.orig is not None else StoreUnavailable("Postgres: unknown error")
        )
    if isinstance(error, psycopg.Error):
        return _of_driver(error)
    if isinstance(error, UnicodeEncodeError):
        return RecordRejected(None, "a text holds a lone surrogate: it has no UTF-8 form")
    if isinstance(error, sqlalchemy.exc.TimeoutError):
        return StoreUnavailable("all connections to Postgres are in use")
    if isinstance(error, (sqlalchemy.exc.DisconnectionError, sqlalchemy.exc.InvalidRequestError)):
        # The latter: a connection that was invalidated under its user.
        return StoreUnreachable(f"the connection to Postgres is gone ({type(error).__name__})")
    return None


def _of_driver(error: psycopg.Error) -> BlotterError:
    state = error.sqlstate
    name = type(error).__name__
    if state is None:
        if isinstance(error, psycopg.DataError):
            return RecordRejected(None, f"the driver cannot encode a value ({name})")
        return StoreUnreachable(f"Postgres is unreachable ({name}){_while_connecting(error)}")
    diag = error.diag
    names = ((kind, getattr(diag, f"{kind}_name")) for kind in ("table", "column", "constraint"))
    where = "".join(f", {kind} {name_}" for kind, name_ in names if name_)
    what = f"{state} {name}{where}"
    if state.startswith(_REJECTED) or isinstance(error, psycopg.DataError):
        return RecordRejected(state, what)
    if state.startswith(_UNREACHABLE):
        return StoreUnreachable(f"Postgres: {what}")
    if state.startswith(_SCHEMA) and state not in _SESSION:
        return SchemaError(f"the database's schema is not this version's ({what}): run `blotter db upgrade`")
    return StoreUnavailable(f"Postgres: {what}")


def _while_connecting(error: psycopg.Error) -> str:
    """The driver's first line, if it is about connecting: it names host and port, never a password or a row."""
    first = str(error).partition("\n")[0].strip()
    return f": {first}" if first.startswith(("connection", "failed to resolve", "no answer")) else ""


@contextmanager
def translated() -> Iterator[None]:
    """Raise what `translate` makes of an error in the block, without the original in the traceback."""
    try:
        yield
    except Exception as error:
        ours = translate(error)
        if ours is None or ours is error:
            raise
        raise ours from None
