"""Connections keep their deadlines: to get one, and to hear from it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

import psycopg
import pytest

from models.errors import SettingsError, StoreUnavailable
from models.postgres import connecting
from models.postgres.connecting import WatchedConnection, connect, libpq_url
from models.postgres.engine import Role, make_engine
from models.postgres.store import Store
from models.settings import load
from tests.servers import eventually


@pytest.fixture
def database_url(module_database_url: str) -> str:
    return module_database_url


@contextmanager
def taking(at_least_s: float, at_most_s: float) -> Iterator[None]:
    begun = time.monotonic()
    yield
    took = time.monotonic() - begun
    assert at_least_s <= took <= at_most_s, f"took {took:.3f} s"


def web_store(port: int) -> Store:
    return Store(make_engine(f"postgresql://127.0.0.1:{port}/x", role="web", settings=load({})))


def test_a_closed_port_is_known_at_once(closed_port: int) -> None:
    with taking(0, 0.24), pytest.raises(StoreUnavailable, match="refused"):
        web_store(closed_port).ping()


def test_an_address_that_swallows_packets_is_given_up_in_a_quarter_of_a_second(swallowing_port: int) -> None:
    with taking(0.24, 0.8), pytest.raises(StoreUnavailable, match="ConnectionTimeout"):
        web_store(swallowing_port).ping()


def test_a_server_that_accepts_and_says_nothing_too(silent_port: int) -> None:
    with taking(0.24, 0.8), pytest.raises(StoreUnavailable, match="ConnectionTimeout"):
        web_store(silent_port).ping()


def test_a_unix_socket_that_is_not_there_is_known_at_once() -> None:
    with taking(0, 0.24), pytest.raises(psycopg.OperationalError, match="No such file"):
        connect("postgresql:///x?host=/nowhere", within_s=5)


def test_a_resolver_that_hangs_is_given_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Event()

    def hang(*args: Any, **kwargs: Any) -> Any:
        answer.wait(30)
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with taking(0.24, 0.8), pytest.raises(psycopg.errors.ConnectionTimeout, match="resolver"):
        connect("postgresql://db.example/x", within_s=0.25)
    # The next one does not start a second thread.
    with taking(0.09, 0.3), pytest.raises(psycopg.errors.ConnectionTimeout, match="resolver"):
        connect("postgresql://db.example/x", within_s=0.1)
    answer.set()
    eventually(lambda: not connecting._resolving.locked())
    with pytest.raises(psycopg.OperationalError, match="Name or service not known"):
        connect("postgresql://db.example/x", within_s=5)


def test_the_next_address_is_tried_within_the_same_deadline(database_url: str, swallowing_port: int) -> None:
    params = psycopg.conninfo.conninfo_to_dict(database_url)
    hosts = {"host": "127.0.0.1,localhost", "port": f"{swallowing_port},{params['port']}"}
    with taking(0.4, 1.0), connect(database_url, within_s=1.0, **hosts) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_authentication_that_fails_names_neither_password_nor_more_than_it_must(database_url: str) -> None:
    with pytest.raises(psycopg.OperationalError) as caught:
        connect(database_url, within_s=5, password="hunter2", user="nobody-at-all")
    assert "hunter2" not in str(caught.value)


def test_a_silent_server_is_given_up(database_url: str) -> None:
    connection = connect(database_url, within_s=5, silence_s=0.3)
    with taking(0.3, 1.0), pytest.raises(psycopg.OperationalError, match="no answer"):
        connection.execute("SELECT pg_sleep(20)")
    assert connection.closed


def test_a_long_answer_that_keeps_coming_is_not_cut(database_url: str) -> None:
    with connect(database_url, within_s=5, silence_s=0.5) as connection, taking(0.9, 10):
        rows = connection.execute(
            "SELECT repeat('x', 100000), pg_sleep(0.1) FROM generate_series(1, 10)", binary=True
        ).fetchall()
    assert len(rows) == 10


def test_errors_of_statements_pass_through_the_watch(database_url: str) -> None:
    with connect(database_url, within_s=5, silence_s=1) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1/0")
        connection.rollback()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_more_threads_than_connections_wait_only_as_long_as_a_connection_may_take(
    database_url: str, settings_for: Callable[..., Any]
) -> None:
    engine = make_engine(database_url, role="web", settings=settings_for(WEB_THREADS="1"))
    store = Store(engine)
    with engine.connect(), taking(0.24, 0.8), pytest.raises(StoreUnavailable, match="in use"):
        store.ping()
    store.ping()
    store.close()


@pytest.mark.parametrize(("role", "silence_s"), [("web", 2.0), ("worker", 7.0), ("tool", None)])
def test_an_engine_hands_its_limits_to_its_connections(
    database_url: str, settings_for: Callable[..., Any], role: Role, silence_s: float | None
) -> None:
    engine = make_engine(database_url, role=role, settings=settings_for(DATABASE_PREPARE="0"))
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, WatchedConnection)
        assert (driver.silence_s, driver.prepare_threshold) == (silence_s, None)
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("postgresql://h/d", "postgresql://h/d"),
        ("postgres://h/d", "postgresql://h/d"),
        ("postgresql+psycopg://u:p@h:1/d?sslmode=require", "postgresql://u:p@h:1/d?sslmode=require"),
        ("postgresql:///d?host=/run/pg", "postgresql:///d?host=/run/pg"),
    ],
)
def test_urls_as_psql_takes_them(url: str, plain: str) -> None:
    assert libpq_url(url) == plain


@pytest.mark.parametrize("url", ["mysql://h/d", "host=h dbname=d", "postgresql://h/d?hunter2=1"])
def test_other_urls_are_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL") as caught:
        libpq_url(url)
    assert "hunter2" not in str(caught.value)


def test_what_the_url_says_wins(database_url: str) -> None:
    url = f"{database_url}{'&' if '?' in database_url else '?'}options=-cstatement_timeout%3D777&application_name=me"
    engine = make_engine(url, role="web", settings=load({}))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "777ms"
        assert connection.exec_driver_sql("SHOW application_name").scalar() == "me"
    engine.dispose()
