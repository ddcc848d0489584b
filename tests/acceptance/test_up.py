"""`blotter up` as an operator meets it: real servers, stand-in programs, kills of every kind, nothing left behind.

A run takes seconds to start: the tests share one where it outlives them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from tests.acceptance.up import CHECKOUT, ON_STANDIN, STANDIN, Up, alive, up
from tests.servers import eventually, private_directory, start_postgres, start_valkey
from web.cli.folder import Folder, free_port
from web.cli.supervisor import clear_leftovers

AS_ROOT = os.geteuid() == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    with private_directory() as directory:
        yield directory / "data"


@pytest.fixture(scope="module")
def one_run() -> Iterator[tuple[Up, dict[str, str]]]:
    """A run that several tests look at and kill parts of, and what its env says. One row is in it."""
    with private_directory() as directory, up(directory / "data") as running:
        environ = running.wait_ready()
        write_a_row(environ, 1)
        yield running, environ


def write_a_row(environ: dict[str, str], number: int) -> None:
    with psycopg.connect(environ["DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t (a int)")
        connection.execute("INSERT INTO t VALUES (%s)", [number])
    with redis.Redis.from_url(environ["REDIS_URL"]) as client:
        client.set(f"k{number}", number)


def rows(environ: dict[str, str]) -> tuple[list[int], list[bytes]]:
    with psycopg.connect(environ["DATABASE_URL"]) as connection:
        stored = [row[0] for row in connection.execute("SELECT a FROM t ORDER BY a")]
    with redis.Redis.from_url(environ["REDIS_URL"]) as client:
        return stored, sorted(client.keys("k*"))


def test_env_tells_the_addresses_of_servers_that_answer_and_is_private(
    one_run: tuple[Up, dict[str, str]],
) -> None:
    running, environ = one_run
    folder = running.folder
    assert stat.S_IMODE((folder / "env").stat().st_mode) == 0o600
    assert environ["BASE_URL"].startswith("http://127.0.0.1:")
    assert environ["DATABASE_URL"].startswith("postgresql://")
    with redis.Redis.from_url(environ["REDIS_URL"], decode_responses=True) as client:
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
    with redis.Redis.from_url(environ["CELERY_BROKER_URL"], decode_responses=True) as client:
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
    key_file = Path(environ["BLOTTER_JWT_SECRET_FILE"])
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert len(key_file.read_bytes().strip()) >= 32
    assert {path.name for path in (folder / "logs").iterdir()} == {
        "beat.log", "broker.log", "buffer.log", "postgres.log", "web.log", "worker.log"
    }  # fmt: skip
    assert rows(environ) == ([1], [b"k1"])


def test_a_folder_may_have_a_long_and_awkward_name_and_env_appears_only_when_the_web_is_ready(
    folder: Path,
) -> None:
    awkward = folder.with_name('data "dir" $HOME %s \\x été ' + "x" * 180)
    awkward.mkdir(mode=0o711)
    (awkward / "not-ready").touch()
    with up(awkward) as running:
        eventually((awkward / "run" / "beat.pid").exists, within_s=20)
        eventually((awkward / "logs" / "web.log").exists)
        assert not (awkward / "env").exists()
        (awkward / "not-ready").unlink()
        write_a_row(running.wait_ready(), 1)
        assert running.end() == 0
    with up(awkward) as running:
        assert rows(running.wait_ready()) == ([1], [b"k1"])


def test_a_second_start_on_the_same_folder_is_refused_in_one_sentence(
    one_run: tuple[Up, dict[str, str]],
) -> None:
    running, environ = one_run
    second = Up(running.folder)
    assert second.process.wait(timeout=20) == 1
    said = second.said()
    second.close()
    assert said.count("\n") == 1
    assert f"in use by `blotter up` (process {running.process.pid})" in said
    assert (running.folder / "env").exists()
    assert rows(environ) == ([1], [b"k1"])


def test_a_copy_of_a_folder_in_use_ends_nothing_of_the_other_one(
    one_run: tuple[Up, dict[str, str]], folder: Path
) -> None:
    """Its pid files name programs that run, but for the folder it was copied from."""
    running, _ = one_run
    shutil.copytree(running.folder / "run", folder / "run")
    family = {process.pid for process in running.family()}
    said: list[str] = []
    clear_leftovers(Folder(folder), said.append)
    assert said == []
    assert {process.pid for process in running.family()} >= family
    assert not list((folder / "run").glob("*.pid"))


def test_a_password_typed_into_the_environment_reaches_only_a_private_file(
    one_run: tuple[Up, dict[str, str]],
) -> None:
    running, environ = one_run
    password = environ["DATABASE_URL"].split(":")[2].split("@")[0]
    for process in running.family():
        assert password not in " ".join(words(process))


@pytest.mark.parametrize("name", ["web", "worker", "beat", "buffer", "broker", "postgres"])
def test_what_is_killed_starts_again_and_its_orphans_are_gone(
    one_run: tuple[Up, dict[str, str]], name: str
) -> None:
    running, environ = one_run
    main = psutil.Process(running.pid(name))
    children = main.children(recursive=True)
    main.kill()
    eventually(lambda: not alive([main, *children]))
    eventually(lambda: running.pid(name) not in (0, main.pid))

    def answers() -> bool:
        try:
            return rows(environ) == ([1], [b"k1"])
        except (psycopg.OperationalError, redis.exceptions.ConnectionError):
            return False

    eventually(answers)


def guardian_of(running: Up) -> psutil.Process:
    found = [process for process in running.family() if any("guardian.py" in word for word in words(process))]
    assert len(found) == 1
    return found[0]


def words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_everything_in_order(folder: Path, number: signal.Signals) -> None:
    with up(folder) as running:
        running.wait_ready()
        family = running.family()
        assert len(family) >= 10
        assert running.end(number) == 0
        assert not alive(family)
        assert (folder / "ended").read_text().split() == ["beat", "web", "worker"]
        assert not (folder / "env").exists()
        assert not list((folder / "run").glob("*.pid"))
        assert running.said().splitlines()[-1] == "blotter: stopped"


def test_under_nohup_it_outlives_its_terminal(folder: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        running = Up(folder)
    finally:
        signal.signal(signal.SIGHUP, before)
    try:
        running.wait_ready()
        running.process.send_signal(signal.SIGHUP)
        # It goes on: what dies is still started again.
        beat = running.pid("beat")
        os.kill(beat, signal.SIGKILL)
        eventually(lambda: running.pid("beat") not in (0, beat))
        assert running.end() == 0
        assert "beat was killed (SIGKILL); starting it again" in running.said()
    finally:
        running.close()


@pytest.mark.parametrize("replaced", [pytest.param(False, marks=pytest.mark.slow), True])
def test_after_sigkill_nothing_survives_and_a_new_start_goes_on_at_the_same_addresses(
    folder: Path, replaced: bool
) -> None:
    """``replaced``: the guardian too was killed before, and it is its successor that has to know all."""
    with up(folder) as first:
        before = first.wait_ready()
        write_a_row(before, 1)
        if replaced:
            guardian = guardian_of(first)
            guardian.kill()
            eventually(lambda: guardian_of(first).pid != guardian.pid)
        family = first.family()
        first.end(signal.SIGKILL)
        eventually(lambda: not (folder / "env").exists())
        with up(folder) as second:
            # It begins at once, and waits for what the first one's guardian has still to do.
            after = second.wait_ready()
            assert not alive(family)
            assert {**after, "BASE_URL": ""} == {**before, "BASE_URL": ""}
            assert rows(after) == ([1], [b"k1"])
            write_a_row(after, 2)
            assert second.end() == 0
    with up(folder) as third:
        assert rows(third.wait_ready()) == ([1, 2], [b"k1", b"k2"])


@pytest.mark.slow
def test_a_new_start_ends_what_was_left_although_the_guardian_was_killed_too(folder: Path) -> None:
    with up(folder) as first:
        before = first.wait_ready()
        write_a_row(before, 1)
        family = first.family()
        guardian_of(first).suspend()
        first.end(signal.SIGKILL)
        for process in family:
            if "guardian.py" in " ".join(words(process)):
                process.kill()
        assert alive(family), "the stand-ins' children ignore signals, so some must have survived"
        (folder / "env").unlink()
        with up(folder) as second:
            assert rows(second.wait_ready()) == ([1], [b"k1"])
            assert not alive(family)


def test_a_program_that_never_starts_ends_the_run_with_its_last_words_and_nothing_left(folder: Path) -> None:
    folder.mkdir(mode=0o711)
    (folder / "broken").touch()
    with up(folder) as running:
        assert running.process.wait(timeout=30) == 1
        assert "does not start: the stand-in is broken" in running.said().splitlines()[-1]
        assert not list((folder / "run").glob("*.pid"))


def test_servers_that_are_given_are_used_and_not_started(folder: Path) -> None:
    with (
        start_postgres(fsync="off") as postgres,
        start_valkey() as buffer,
        start_valkey(role="broker") as broker,
    ):
        given = {
            "DATABASE_URL": postgres.url,
            "REDIS_URL": buffer.url,
            "CELERY_BROKER_URL": broker.url,
            "BLOTTER_JWT_SECRET": "a key of more than thirty-two bytes",
        }
        with up(folder, environ=given) as running:
            environ = running.wait_ready()
            assert {name: environ[name] for name in given} == given
            assert "BLOTTER_JWT_SECRET_FILE" not in environ
            assert {path.stem for path in (folder / "run").glob("*.pid")} == {"web", "worker", "beat"}


@pytest.mark.skipif(not AS_ROOT, reason="only root runs PostgreSQL as somebody else")
def test_as_root_a_folder_in_a_closed_home_works_and_the_home_stays_closed() -> None:
    with private_directory() as outer:
        home = outer / "home"
        home.mkdir(mode=0o700)
        folder = home / "data"
        with up(folder) as running:
            write_a_row(running.wait_ready(), 1)
            elsewhere = (folder / "postgres").resolve()
            try:
                assert home not in elsewhere.parents
                assert psutil.Process(running.pid("postgres")).username() == "nobody"
                running.end(signal.SIGKILL)
                eventually(lambda: not (folder / "env").exists())
                with up(folder) as second:
                    assert rows(second.wait_ready()) == ([1], [b"k1"])
                assert stat.S_IMODE(home.stat().st_mode) == 0o700
            finally:
                shutil.rmtree(elsewhere)


def system_python() -> str | None:
    """A Python of our own version that an ordinary user may run; ours may lie in root's home."""
    for path in (f"/usr/bin/python3.{sys.version_info[1]}", f"/usr/local/bin/python3.{sys.version_info[1]}"):
        if os.access(path, os.X_OK):
            return path
    return None


#: Large, and needed by no `blotter up`.
NOT_COPIED = ("__pycache__", "*mypy*", "ruff*", "playwright*", "schemathesis*", "hypothesis*", "jsonschema_rs*", "pip*",
              "pygments*", "setuptools*", "node_modules")  # fmt: skip


@pytest.fixture(scope="module")
def clone() -> Iterator[Path]:
    """A copy of the checkout and its packages, in a home that is closed."""
    with private_directory() as outer:
        home = outer / "home"
        home.mkdir(mode=0o700)
        site = Path(psycopg.__file__).parent.parent
        ignore = shutil.ignore_patterns(*NOT_COPIED)
        shutil.copytree(site, home / "packages", symlinks=True, ignore=ignore)
        # redis-py wants it before Python 3.11.3, which the other Python may be.
        (home / "packages" / "async_timeout.py").write_text("from asyncio import timeout\n")
        for name in ("web", "models", "tests"):
            shutil.copytree(CHECKOUT / name, home / name, ignore=ignore)
        python = system_python()
        assert python is not None
        (home / "bin").mkdir(mode=0o755)
        (home / "bin" / "python").symlink_to(python)
        yield home


def run_as(uid: int, home: Path, folder: Path) -> subprocess.Popen[str]:
    """The stand-in run, by an ordinary user whose home the clone is."""
    subprocess.run(["chown", "-R", f"{uid}:{uid}", str(home)], check=True)
    return subprocess.Popen(
        [str(system_python()), "-c", ON_STANDIN, str(folder), str(home / STANDIN.relative_to(CHECKOUT))],
        env={
            "PATH": f"{home / 'bin'}:/usr/bin:/bin",
            "HOME": str(home),
            "PYTHONPATH": f"{home}:{home / 'packages'}",
        },
        cwd=home,
        user=uid,
        group=uid,
        extra_groups=[],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(
    not AS_ROOT or system_python() is None, reason="needs root, and a Python outside its home"
)
def test_an_ordinary_user_runs_it_from_a_clone_in_a_closed_home(clone: Path) -> None:
    uid = pwd.getpwnam("games").pw_uid
    process = run_as(uid, clone, clone / "data")
    try:
        eventually(lambda: (clone / "data" / "env").exists() or process.poll() is not None, within_s=30)
        assert process.poll() is None, process.stderr and process.stderr.read()
        family = psutil.Process(process.pid).children(recursive=True)
        assert {child.uids().real for child in family} == {uid}
        assert (clone / "data" / "postgres" / "18").is_dir()
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert not alive(family)


@pytest.mark.skipif(
    not AS_ROOT or system_python() is None, reason="needs root, and a Python outside its home"
)
def test_a_user_id_without_a_name_is_told_what_to_do(clone: Path) -> None:
    process = run_as(54_321, clone, clone / "nameless")
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "user id 54321 has no entry in /etc/passwd" in said.splitlines()[-1]


def test_a_port_that_is_taken_is_refused_when_asked_for(folder: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        running = Up(folder, None, arguments=("--port", str(port)))
        assert running.process.wait(timeout=20) == 2
        assert f"port {port} of 127.0.0.1 is taken" in running.said()
        running.close()


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"BLOTTER_AUTOSAVE_SECONDS": "soon"}, "BLOTTER_AUTOSAVE_SECONDS: must be a number"),
        ({"BLOTTER_JWT_SECRET": "short"}, "BLOTTER_JWT_SECRET must have at least 32 bytes"),
        ({"BLOTTER_CORS_ORIGINS": "chat.example"}, "BLOTTER_CORS_ORIGINS: 'chat.example' is no origin such as https://chat.example.com"),
        ({"DATABASE_URL": "postgresql://u:50%off@h/d"}, "DATABASE_URL: must be an address"),
        ({"WEB_CONCURRENCY": "two"}, "WEB_CONCURRENCY must be a whole number from 1 on, not 'two'"),
    ],
)  # fmt: skip
def test_a_setting_that_is_wrong_is_told_before_anything_is_started(
    folder: Path, environ: dict[str, str], said: str
) -> None:
    running = Up(folder, None, environ)
    assert running.process.wait(timeout=30) == 2
    told = running.said().splitlines()
    running.close()
    assert [line for line in told if line.startswith("Error: ")] == [told[-1]]
    assert said in told[-1]
    assert not [line for line in told if "starting" in line or "stopping" in line]
    assert not (folder / "postgres").exists()
    assert not list((folder / "logs").iterdir())
