"""Are there known holes in what is locked? Asks OSV (osv.dev) by pip-audit; fails where there is one that can be mended.

Without a network, or without pip-audit, it says so and passes: a build must not fail because a database is out of reach.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "audit"
PIP_AUDIT = "pip-audit==2.10.1"
WAIT_S = 240


def skip(why: str) -> None:
    print(f"audit: skipped: {why}", file=sys.stderr)
    sys.exit(0)


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=WAIT_S)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 124, "", f"no answer within {WAIT_S} s")


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1][:300]


def main() -> None:
    python = str(FOLDER / "bin" / "python")
    if not Path(python).exists():
        venv.create(FOLDER, with_pip=True)
    got = run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PIP_AUDIT)
    if got.returncode != 0:
        skip(f"cannot install {PIP_AUDIT}: {last_line(got.stderr)}")
    audited = run(
        python, "-m", "pip_audit", "--requirement", str(ROOT / "requirements.lock"), "--require-hashes", "--disable-pip",
        "--vulnerability-service", "osv", "--format", "json", "--progress-spinner", "off",
    )  # fmt: skip
    try:
        found = json.loads(audited.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        skip(f"the data cannot be reached: {last_line(audited.stderr)}")
        return
    holes = [
        f"{one['name']} {one['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no version yet'}"
        for one in found
        for hole in one.get("vulns", [])
    ]
    print(f"audit: {len(found)} packages, {len(holes)} known holes", *holes, sep="\n  ", file=sys.stderr)
    if any("no version yet" not in hole for hole in holes):
        sys.exit(1)


if __name__ == "__main__":
    main()
