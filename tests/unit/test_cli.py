"""The command line's decisions on values: where it finds a running Blotter, tokens, ports, orders, logs."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import jwt
import pytest
from click.testing import CliRunner

from models.settings import load
from web.cli import COMMANDS, main
from web.cli.errors import CannotRun
from web.cli.folder import PORTS, Folder, default_folder, free_port, port_is_free, write_atomically
from web.cli.options import KEYS, SERVERS, locate
from web.cli.procfile import read_procfile
from web.cli.run import CHECKOUT, choose_port, order_of_end
from web.cli.supervisor import LOG_LIMIT_BYTES, _bound, delay_s, last_words
from web.cli.token import mint

KEY = "k" * 40


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "data")
    made.create()
    return made


def test_help_names_every_command_and_imports_none_of_them() -> None:
    code = (
        "import sys\nfrom web.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'psycopg', 'redis', 'sqlalchemy', 'celery', 'flask', 'pydantic', 'jwt'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


def test_every_listed_command_can_be_imported_and_explains_itself() -> None:
    for name in COMMANDS:
        answer = CliRunner().invoke(main, [name, "--help"])
        assert answer.exit_code == 0, (name, answer.output)


def test_without_anything_the_folder_lies_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert default_folder({}) == Path("/home/ann/.local/share/blotter")
    assert default_folder({"XDG_DATA_HOME": "/x"}) == Path("/x/blotter")
    assert default_folder({"XDG_DATA_HOME": "/x", "BLOTTER_DATA": "/d"}) == Path("/d")


class TestLocate:
    """--data, else the environment where it names a server, else the default folder; never two of them mixed."""

    OURS: ClassVar = {
        "DATABASE_URL": "postgresql://folder/x",
        "REDIS_URL": "redis://folder",
        "BLOTTER_JWT_SECRET": "f",
    }

    def test_the_named_folder_wins_over_the_environment_and_is_not_mixed_with_its_keys(
        self, folder: Folder
    ) -> None:
        folder.write_env(self.OURS)
        environ = {"DATABASE_URL": "postgresql://env", "BLOTTER_JWT_SECRET_FILE": "/e", "X": "1"}
        found = locate(folder.root, "DATABASE_URL", environ=environ)
        assert found == ({**self.OURS, "X": "1"}, folder.root)

    def test_the_environment_wins_over_the_default_folder(self, folder: Folder) -> None:
        folder.write_env(self.OURS)
        environ = {"DATABASE_URL": "postgresql://env", "BLOTTER_DATA": str(folder.root)}
        assert locate(None, "DATABASE_URL", environ=environ) == (environ, None)

    def test_the_database_of_one_is_never_taken_with_the_buffer_of_another(self, folder: Folder) -> None:
        folder.write_env(self.OURS)
        environ = {"DATABASE_URL": "postgresql://env", "BLOTTER_DATA": str(folder.root)}
        with pytest.raises(
            CannotRun,
            match=r"environment names DATABASE_URL, but not REDIS_URL and CELERY_BROKER_URL: .* --data DIR",
        ):
            locate(None, *SERVERS, environ=environ)
        with pytest.raises(CannotRun, match="but not BLOTTER_JWT_SECRET_FILE or BLOTTER_JWT_SECRET"):
            locate(None, one_of=KEYS, environ=environ)

    def test_the_default_folder_comes_last(self, folder: Folder) -> None:
        folder.write_env(self.OURS)
        found = locate(None, "REDIS_URL", environ={"BLOTTER_DATA": str(folder.root)})
        assert (found.environ["REDIS_URL"], found.folder) == ("redis://folder", folder.root)

    def test_a_folder_in_which_nothing_runs_is_an_error_that_names_it(self, folder: Folder) -> None:
        environ = {"DATABASE_URL": "postgresql://env"}
        with pytest.raises(CannotRun, match=f"no Blotter is running in {folder.root}"):
            locate(folder.root, "DATABASE_URL", environ=environ)
        with pytest.raises(CannotRun, match="or set A or B"):
            locate(None, one_of=("A", "B"), environ={"BLOTTER_DATA": str(folder.root)})

    def test_a_whole_environment_needs_no_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HOME")
        environ = dict.fromkeys(SERVERS, "x://y")
        assert locate(None, *SERVERS, environ=environ).folder is None


class TestToken:
    def test_it_carries_owner_times_and_scopes(self) -> None:
        environ = {"BLOTTER_JWT_SECRET": KEY, "BLOTTER_JWT_AUDIENCE": "blotter", "BLOTTER_JWT_ISSUER": "me"}
        token = mint("ann", ("blotter:act-for", "blotter:operate"), 3600, 1_000, load(environ))
        claims = jwt.decode(
            token, KEY, algorithms=["HS256"], audience="blotter", issuer="me", options={"verify_exp": False}
        )
        assert claims == {
            "sub": "ann", "iat": 1_000, "exp": 4_600, "scope": "blotter:act-for blotter:operate",
            "aud": "blotter", "iss": "me",
        }  # fmt: skip

    def test_the_first_key_of_the_file_signs(self, tmp_path: Path) -> None:
        file = tmp_path / "keys"
        file.write_text(f"{KEY}\n{'o' * 32}\n")
        token = mint("ann", (), 60, 1_000, load({"BLOTTER_JWT_SECRET_FILE": str(file)}))
        jwt.decode(token, KEY, algorithms=["HS256"], options={"verify_exp": False})

    @pytest.mark.parametrize(
        ("arguments", "environ", "said"),
        [
            ((), {"BLOTTER_JWT_SECRET": "short"}, "BLOTTER_JWT_SECRET must have at least 32 bytes"),
            ((), {"BLOTTER_JWT_SECRET_FILE": "FILE"}, "key 2 of"),
            ((), {"BLOTTER_JWT_SECRET_FILE": "/no/such"}, "/no/such cannot be read"),
            (("--scope", "foo"), {"BLOTTER_JWT_SECRET": KEY}, "'blotter:act-for', 'blotter:operate'"),
            (("--data", "EMPTY"), {}, "no Blotter is running in"),
        ],
    )
    def test_what_web_would_refuse_is_no_token(
        self, arguments: tuple[str, ...], environ: dict[str, str], said: str, tmp_path: Path
    ) -> None:
        (tmp_path / "keys").write_text(f"{KEY}\nshort\n")
        given = {name: value.replace("FILE", str(tmp_path / "keys")) for name, value in environ.items()}
        words = [word.replace("EMPTY", str(tmp_path)) for word in arguments]
        answer = CliRunner().invoke(main, ["token", "ann", *words], env=given)
        assert (answer.exit_code, answer.stdout) == (2, "")
        assert said in answer.stderr
        assert "Warning" not in answer.stderr

    @pytest.mark.parametrize("owner", ["", "  ", "a\nb", "ä" * 129])
    def test_an_owner_that_web_would_refuse_gets_no_token(self, owner: str) -> None:
        answer = CliRunner().invoke(main, ["token", owner], env={"BLOTTER_JWT_SECRET": KEY})
        assert (answer.exit_code, answer.stdout, "OWNER" in answer.stderr) == (2, "", True)

    @pytest.mark.parametrize(("ttl", "seconds"), [("90", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800)])
    def test_the_command_prints_a_token_and_nothing_else(
        self, ttl: str, seconds: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BLOTTER_JWT_SECRET", KEY)
        answer = CliRunner().invoke(main, ["token", "ann", "--ttl", ttl])
        assert answer.exit_code == 0
        claims = jwt.decode(answer.stdout.strip(), KEY, algorithms=["HS256"])
        assert claims["sub"] == "ann"
        assert claims["exp"] - claims["iat"] == seconds
        assert "scope" not in claims

    @pytest.mark.parametrize("ttl", ["0", "-1", "1w", "forever", "400d", ""])
    def test_a_time_that_is_none_is_refused(self, ttl: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BLOTTER_JWT_SECRET", KEY)
        assert CliRunner().invoke(main, ["token", "ann", "--ttl", ttl]).exit_code == 2


class TestFolder:
    def test_what_is_secret_is_readable_by_its_owner_alone(self, folder: Folder) -> None:
        secret = folder.secret("jwt")
        assert len(secret) >= 32
        assert folder.secret("jwt") == secret
        folder.write_env({"A": "b=c"})
        for path in (folder.secrets / "jwt", folder.env_file):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for path in (folder.secrets, folder.run, folder.logs):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert folder.read_env() == {"A": "b=c"}

    def test_a_port_is_remembered_until_somebody_else_takes_it(self, folder: Folder) -> None:
        import socket

        port = folder.port("buffer")
        assert port in PORTS
        assert Folder(folder.root).port("buffer") == port
        assert folder.port("broker") != port
        with socket.create_server(("127.0.0.1", port)):
            assert not port_is_free(port)
            other = folder.port("buffer")
            assert other != port
        assert folder.port("buffer") == other

    def test_a_file_is_replaced_whole_or_not_at_all(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        write_atomically(path, "old")
        with pytest.raises(UnicodeEncodeError):
            write_atomically(path, "\ud800")
        assert path.read_text() == "old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["file"]

    def test_a_place_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(CannotRun, match=r"file/data cannot be used \(Not a directory\)"):
            Folder(tmp_path / "file" / "data").create()

    def test_a_lock_whose_holder_lives_is_refused_at_once(self, folder: Folder) -> None:
        held = folder.lock()
        try:
            with pytest.raises(CannotRun, match=f"process {os.getpid()}"):
                folder.lock()
        finally:
            os.close(held)
        os.close(folder.lock())


class TestRun:
    def test_beat_ends_first_then_web_then_workers_then_servers(self) -> None:
        started = ["postgres", "buffer", "broker", "web", "worker", "beat", "events"]
        assert order_of_end(started) == ["beat", "web", "events", "worker", "broker", "buffer", "postgres"]
        assert order_of_end(["web"]) == ["web"]

    def test_what_keeps_dying_is_started_ever_more_slowly_but_never_given_up(self) -> None:
        delays = [delay_s(failures) for failures in range(1, 1000)]
        assert delays[:4] == [0.2, 0.4, 0.8, 1.6]
        assert delays == sorted(delays)
        assert delays[-1] == 30.0

    def test_a_port_asked_for_is_taken_or_refused_never_replaced(self, folder: Folder) -> None:
        import socket

        port = free_port()
        assert choose_port(port, folder) == port
        with socket.create_server(("127.0.0.1", port)), pytest.raises(CannotRun, match=f"port {port}"):
            choose_port(port, folder)
        assert choose_port(None, folder) >= 8400

    def test_the_procfile_names_the_three_programs(self) -> None:
        programs = read_procfile(CHECKOUT / "Procfile")
        assert {"web", "worker", "beat"} <= set(programs)
        assert programs["web"][:2] == ["/bin/sh", "-c"]
        assert programs["web"][2].startswith("exec python -m web.cli.start granian ")
        # Where they share a machine, a drain takes what saves leave.
        assert programs["worker"][2].startswith("exec nice -n 10 python -m web.cli.start celery ")

    def test_other_process_managers_read_the_procfile_alike(self) -> None:
        from honcho.environ import parse_procfile

        others = parse_procfile((CHECKOUT / "Procfile").read_text()).processes
        ours = read_procfile(CHECKOUT / "Procfile")
        assert {name: f"exec {command}" for name, command in others.items()} == {
            name: argv[2] for name, argv in ours.items()
        }

    def test_every_substitution_in_the_procfile_has_a_default(self) -> None:
        for line in (CHECKOUT / "Procfile").read_text().splitlines():
            assert line.count("$") == line.count("${") == line.count(":-"), line

    def test_a_malformed_procfile_is_refused_with_its_line(self, tmp_path: Path) -> None:
        path = tmp_path / "Procfile"
        path.write_text("# programs\n\nweb: one ${PORT:-1}\nnonsense\n")
        with pytest.raises(CannotRun, match="line 4"):
            read_procfile(path)
        with pytest.raises(CannotRun, match="is missing"):
            read_procfile(tmp_path / "none")

    def test_the_line_that_names_the_error_explains_an_end_better_than_the_last(self, tmp_path: Path) -> None:
        log = tmp_path / "web.log"
        assert last_words(log) == ""
        log.write_text("starting\n  bye\n")
        assert last_words(log) == "bye"
        log.write_text("Traceback (most recent call last):\nModuleNotFoundError: No module named 'x'\nbye\n")
        assert last_words(log) == "ModuleNotFoundError: No module named 'x'"

    def test_a_log_stays_bounded_and_its_writer_goes_on(self, tmp_path: Path) -> None:
        log = tmp_path / "web.log"
        with log.open("ab", buffering=0) as writer:
            writer.write(b"x" * LOG_LIMIT_BYTES)
            _bound(log)
            assert log.stat().st_size == 0
            writer.write(b"y")
        assert log.read_bytes() == b"y"
        assert (tmp_path / "web.log.1").stat().st_size == LOG_LIMIT_BYTES
        _bound(log)
        assert log.read_bytes() == b"y"


def test_a_token_for_the_operators_page_needs_no_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOTTER_JWT_SECRET", "a-secret-of-at-least-32-bytes-for-tests")
    answer = CliRunner().invoke(main, ["token", "--ops", "--json"])
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.output)
    assert (told["owner"], told["scopes"]) == ("operator", ["blotter:operate"])
    assert CliRunner().invoke(main, ["token"]).exit_code == 2
