"""What is looked at before a program of the Procfile starts; and which addresses settings take."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from models.errors import SettingsError
from models.postgres.connecting import libpq_url
from models.settings import load
from web.cli.errors import CannotRun
from web.cli.folder import Folder, free_port
from web.cli.postgres_server import _why
from web.cli.procfile import read_procfile
from web.cli.run import CHECKOUT, choose_port, claimed, why_not_ours
from web.cli.start import check

KEY = {"BLOTTER_JWT_SECRET": "a-secret-of-at-least-32-bytes-for-tests"}
GRANIAN = ("granian", "--host", "127.0.0.1", "--port")


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL"])
@pytest.mark.parametrize(
    "value", ["localhost/hunter2", "postgres:hunter2@host/x", "redis://:hunter2@host:99999/0"]
)
def test_an_address_that_is_none_is_refused_by_name_and_not_repeated(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: must be an address") as refused:
        load({name: value})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL"])
@pytest.mark.parametrize(
    "password", ["p@hunter2", "p:/hunter2", "p/hunter2", "12#hunter2", "p?hunter2", "@", "[hunter2"]
)
def test_a_password_that_breaks_the_address_is_refused_with_the_way_to_write_it(
    name: str, password: str
) -> None:
    scheme = "postgresql" if name == "DATABASE_URL" else "redis"
    with pytest.raises(SettingsError, match=f"^{name}: must be an address .*write @ as %40") as refused:
        load({name: f"{scheme}://user:{password}@host:5432/db"})
    assert "hunter2" not in str(refused.value)
    load({name: f"{scheme}://user:{quote(password, safe='')}@host:5432/db"})


@pytest.mark.parametrize(
    "url", ["mysql://h/d", "host=h dbname=d", "postgresql://u:50%off@h/d", "postgresql://h/d?nonsense=1"]
)
def test_a_bad_database_url_is_said_alike_by_settings_by_the_store_and_before_a_program_starts(
    url: str,
) -> None:
    words = "^DATABASE_URL: must be an address "
    with pytest.raises(SettingsError, match=words):
        libpq_url(url)
    with pytest.raises(SettingsError, match=words):
        check(["celery", "-A", "workers.app", "worker"], {"DATABASE_URL": url})


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"BLOTTER_PARTITIONS": "many"}, "BLOTTER_PARTITIONS: must be a whole number"),
        ({"BLOTTER_PARTITIONS": "1.5"}, "BLOTTER_PARTITIONS: must be a whole number"),
        (
            {"BLOTTER_PARTITIONS": "9" * 5000},
            "BLOTTER_PARTITIONS: must be a whole number, and not that large",
        ),
        ({"BLOTTER_PARTITIONS": "2000"}, "BLOTTER_PARTITIONS: must be at most 1,024"),
        ({"WEB_THREADS": "0"}, "WEB_THREADS: must be at least 1"),
        ({"BLOTTER_AUTOSAVE_SECONDS": "soon"}, "BLOTTER_AUTOSAVE_SECONDS: must be a number"),
        ({"BLOTTER_AUTOSAVE_SECONDS": "nan"}, "BLOTTER_AUTOSAVE_SECONDS: must be at most 31,536,000"),
        ({"BLOTTER_AUTOSAVE_SECONDS": "1e9"}, "BLOTTER_AUTOSAVE_SECONDS: must be at most 31,536,000"),
        ({"BLOTTER_EVICT_MEMORY_SHARE": "1"}, "BLOTTER_EVICT_MEMORY_SHARE: must be less than 1"),
        ({"BLOTTER_UNSAFE_BUFFER": "perhaps"}, "BLOTTER_UNSAFE_BUFFER: must be 0 or 1"),
        ({"BLOTTER_FSYNC": "no"}, "BLOTTER_FSYNC: must be 'always' or 'everysec'"),
        ({"BLOTTER_JWT_SECRET": "short"}, "BLOTTER_JWT_SECRET must have at least 32 bytes"),
    ],
)
def test_a_setting_that_is_wrong_is_told_in_our_words(environ: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(environ)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgresql://h/d?application_name=a@b"),
        ("CELERY_BROKER_URL", "sentinel://:p@one:1;sentinel://:p@two:2"),
        ("DATABASE_URL", "postgresql+psycopg://u:p@one:1,two:2/x"),
        ("DATABASE_URL", "postgresql:///x?host=/tmp"),
        ("REDIS_URL", "unix:///tmp/valkey.sock"),
        ("REDIS_URL", "rediss://:p@[::1]:6379/0"),
        ("CELERY_BROKER_URL", "sentinel://one:1;sentinel://two:2"),
        ("CELERY_BROKER_URL", "memory://"),
    ],
)
def test_addresses_that_the_drivers_take_are_taken(name: str, value: str) -> None:
    load({name: value})


@pytest.mark.parametrize("program", ["web", "worker", "beat", "events"])
def test_each_program_ends_with_one_sentence_where_a_setting_is_wrong(program: str) -> None:
    bin_ = Path(sys.executable).parent
    ended = subprocess.run(
        read_procfile(CHECKOUT / "Procfile")[program],
        env={"PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", **KEY, "REDIS_URL": "localhost"},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert (
        ended.stderr
        == "Error: REDIS_URL: must be an address that begins with redis:// or rediss:// or unix://\n"
    )


def test_who_lets_callers_in_needs_a_key_and_a_worker_none() -> None:
    with pytest.raises(SettingsError, match="BLOTTER_JWT_SECRET"):
        check([*GRANIAN, str(free_port())], {})
    check(["celery", "-A", "workers.app", "worker"], {})


def test_a_port_that_is_shared_by_somebody_is_taken() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CannotRun, match=f"port {port} of 127.0.0.1 is taken"):
            check([*GRANIAN, str(port)], KEY, port_wait_s=0)
    check([*GRANIAN, str(port)], KEY)


@pytest.mark.parametrize("port", ["http", "0", "70000"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(CannotRun, match="is no port"):
        check([*GRANIAN, port], KEY)


def test_a_second_web_on_a_port_that_is_taken_says_so_and_starts_nothing() -> None:
    bin_ = Path(sys.executable).parent
    with socket.socket() as other:
        # As granian's own processes share theirs.
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        ended = subprocess.run(
            read_procfile(CHECKOUT / "Procfile")["web"],
            env={"PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", **KEY, "PORT": port},
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"Error: port {port} of 127.0.0.1 is taken; set PORT (or EVENTS_PORT) to another\n"


class Ready(http.server.BaseHTTPRequestHandler):
    """Says 200 to whatever is asked, as another web would."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_web_that_answers_on_our_port_is_not_taken_for_ours() -> None:
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ready) as other,
        subprocess.Popen(["sleep", "60"]) as ours,
    ):
        threading.Thread(target=other.serve_forever, daemon=True).start()
        try:
            part: Any = SimpleNamespace(process=ours)
            stranger = why_not_ours(part, other.server_port, "/readyz")
            part.process = SimpleNamespace(pid=os.getpid())
            own = why_not_ours(part, other.server_port, "/readyz")
        finally:
            other.shutdown()
            ours.kill()
    assert stranger == f"port {other.server_port} is another program's"
    assert own == ""


def test_the_port_of_the_api_is_remembered_until_somebody_has_it(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    first = choose_port(None, folder)
    assert choose_port(None, folder) == first
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", first))
        other.listen()
        second = choose_port(None, folder)
        assert second != first
        with pytest.raises(CannotRun, match="is taken"):
            choose_port(first, folder)
    assert choose_port(None, folder) == second


def test_of_two_that_start_at_once_the_second_gets_another_port(tmp_path: Path) -> None:
    """The web server shares its port, and listens only at the end of a start: until then nothing would show that it is taken."""
    first, second = Folder(tmp_path / "1"), Folder(tmp_path / "2")
    for folder in (first, second):
        folder.create()
    port = choose_port(None, first)
    with claimed(port):
        assert choose_port(None, second) != port
        with pytest.raises(CannotRun, match=f"port {port} of 127.0.0.1 is taken by another `blotter up`"):
            claimed(port)
    assert choose_port(None, Folder(tmp_path / "1")) == port


@pytest.mark.parametrize("text", ["[1", "[1]", '{"web": "x"}', '{"web": 99999999}', '{"web": null}', "\0"])
def test_remembered_ports_that_are_none_are_chosen_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "ports.json").write_text(text)
    port = Folder(tmp_path).port("web")
    assert json.loads((tmp_path / "ports.json").read_text()) == {"web": port}


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (
            (
                'running bootstrap script ... 2026-11-23 UTC [1] FATAL:  could not extend file "base/1/2691": No space left on device\n'
                "2026-11-23 UTC [1] PANIC:  cannot abort transaction 1\nchild process exited with exit code 134\n"
                'initdb: removing data directory "/x"\n'
            ),
            'could not extend file "base/1/2691": No space left on device',
        ),
        ("initdb: error: invalid locale name\ninitdb: hint: look\n", "invalid locale name"),
        ("Aborted\n", "Aborted"),
        ("", "it said nothing"),
    ],
)
def test_of_what_initdb_says_the_cause_is_told(tmp_path: Path, log: str, why: str) -> None:
    (tmp_path / "log").write_text(log)
    assert _why(tmp_path / "log") == why
