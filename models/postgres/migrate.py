"""The schema's versions: Alembic, configured in code; the scripts lie in migrations/versions/.

Laws:
- One transaction a call: a migration that fails leaves nothing behind.
- Starters that come together queue on an advisory lock, and all but the first find nothing to do.
- DDL waits at most a moment for a table lock (everybody else would queue behind it), lets go, and tries again.
- Every migration can be undone (`downgrade`): that is how to leave.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy.engine import Connection, Engine

from models.errors import StoreUnavailable
from models.postgres.engine import make_engine
from models.postgres.errors import SchemaError, StoreUnreachable
from models.postgres.transactions import reading, transaction
from models.settings import load

#: Any number, as long as all versions of Blotter agree.
_ADVISORY_LOCK: Final = 0x626C6F74
_QUEUE_SECONDS: Final = 120
_DDL_LOCK_MS: Final = 2000
_TRIES: Final = 30
_PAUSE_SECONDS: Final = 1.0


def upgrade(database_url: str, revision: str = "head") -> None:
    """Bring the database to ``revision``; nothing happens where it is there.

    Raises SchemaError when the database cannot hold what Blotter stores or is newer than this code, StoreUnavailable
    when it does not answer or its tables stay locked.
    """
    _migrate(database_url, partial(command.upgrade, revision=revision))


def downgrade(database_url: str, revision: str) -> None:
    """Take the database back to ``revision``; ``base`` drops all of Blotter's tables. Raises as `upgrade`."""
    _migrate(database_url, partial(command.downgrade, revision=revision))


class Revisions(NamedTuple):
    """The schema a database has (None: none of Blotter's), the one this code needs, and what is wrong if they differ."""

    current: str | None
    needed: str | None
    wrong: str | None


def revisions(database_url: str) -> Revisions:
    """Where the database's schema stands. Raises StoreUnavailable."""
    engine = _engine(database_url)
    head = _scripts().get_current_head()
    with reading(engine) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    wrong = None
    if current is None:
        wrong = "The database holds no schema of Blotter: run `blotter db upgrade`."
    elif current != head and _is_known(current):
        wrong = f"The database's schema is at {current}, this version needs {head}: run `blotter db upgrade`."
    elif current != head:
        wrong = f"The database's schema ({current}) is newer than this version's ({head}): update Blotter."
    return Revisions(current, head, wrong)


def check(database_url: str) -> str | None:
    """None when the schema is this code's, else a sentence that says what is wrong. Raises StoreUnavailable."""
    return revisions(database_url).wrong


def _engine(database_url: str) -> Engine:
    return make_engine(database_url, role="tool", settings=load({}))


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def _is_known(revision: str) -> bool:
    return any(script.revision == revision for script in _scripts().walk_revisions())


def _migrate(database_url: str, command_: Callable[[Config], None]) -> None:
    engine = _engine(database_url)
    for left in reversed(range(_TRIES)):
        try:
            with transaction(engine) as connection:
                _run(connection, command_)
        except (StoreUnreachable, SchemaError):
            # Another try would end the same.
            raise
        except StoreUnavailable:
            # A lock that did not come in time (55P03), or a deadlock with running writers.
            if not left:
                raise
        else:
            return
        time.sleep(_PAUSE_SECONDS)


def _run(connection: Connection, command_: Callable[[Config], None]) -> None:
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise SchemaError(f"the database's encoding is {encoding}; Blotter stores any text and needs UTF8")
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_QUEUE_SECONDS}s'")
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_ADVISORY_LOCK,))
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_DDL_LOCK_MS}ms'")
    config = _config()
    config.attributes["connection"] = connection
    try:
        command_(config)
    except CommandError as error:
        # A revision these scripts do not know: the database is newer, or the name given is wrong.
        raise SchemaError(f"cannot migrate: {error}") from None
