"""The fault campaign: `make soak MINUTES=10 SEED=1`, or python -m tests.soak.

    --minutes 10 | --seconds 30   how long faults are injected
    --seed 1                      the order of faults, their length, what clients do
    --only "kill -9 beat"         only these faults (several times); --list names them
    --rivals                      the same, shorter, against two rivals, and Blotter by the clients that rivals can bear
    --json FILE                   the result as a document (- for stdout: then no table)

A table for people on stdout, progress on stderr. Exit code 1 where anything acknowledged is lost, or anything else wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from tests.soak.campaign import Campaign, unknown_faults
from tests.soak.nemesis import FAULTS
from tests.soak.stacks import Stack, blotter, rival

COLUMNS = ("times", "acknowledged", "refused", "unknown", "lost", "reverted", "other", "recovery_s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="The fault campaign.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seconds", type=float, help="instead of --minutes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--only", action="append", default=[], metavar="FAULT")
    parser.add_argument("--rivals", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--list", action="store_true")
    wish = parser.parse_args()
    if wish.list:
        print("\n".join(FAULTS))
        return 0
    only = tuple(wish.only)
    if unknown := unknown_faults(only):
        parser.error(f"--only: no fault {unknown[0]!r}; --list names them")
    seconds = wish.seconds if wish.seconds is not None else wish.minutes * 60
    names = ["blotter", *(("flask", "celery") if wish.rivals else ())]
    found = []
    for name in names:
        with _stack(name) as stack:
            campaign = Campaign(
                stack, seconds=seconds, seed=wish.seed, only=only, clients=wish.clients, alike=wish.rivals
            )
            campaign.run()
            found.append(campaign.document())
            if name == "blotter" and not campaign.kept:
                _keep_logs(stack)
    document = {"campaigns": found}
    if wish.json == "-":
        print(json.dumps(document, ensure_ascii=False))
    else:
        for one in found:
            print(table(one))
        if wish.json:
            Path(wish.json).write_text(json.dumps(document, ensure_ascii=False, indent=1))
    return 0 if found[0]["kept"] else 1


def _stack(name: str) -> contextlib.AbstractContextManager[Stack]:
    return blotter() if name == "blotter" else rival(name)


def _keep_logs(stack: Stack) -> None:
    """The last words of each program: the folder goes."""
    for log in sorted((stack.folder / "up").rglob("*.log")):
        print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)


def table(document: dict[str, Any]) -> str:
    """Lines for people."""
    rows: list[tuple[str, ...]] = [("fault", *COLUMNS)]
    for name, row in document["faults"].items():
        rows.append((name, *(f"{row[column]:,}" for column in COLUMNS)))
    rows.append(("all", *(f"{document['totals'][column]:,}" for column in COLUMNS)))
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = [f"\n{document['what']}, seed {document['seed']}, {document['seconds']:g} s"]
    for row in rows:
        first, *others = (
            text.ljust(width) if n == 0 else text.rjust(width)
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]))
    lines += [f"skipped: {name}: {why}" for name, why in document["skipped"].items()]
    if document["totals"]["gone_with_the_buffer"]:
        lines.append(
            f"gone with the buffer that came back empty, not stored yet: {document['totals']['gone_with_the_buffer']}"
        )
    if document["undecided"]:
        lines.append(f"undecided (too much unknown): {document['undecided']} items")
    for anomaly in document["anomalies"][:20]:
        lines.append(f"[{anomaly['fault']}] {anomaly['text']}")
    if len(document["anomalies"]) > 20:
        lines.append(f"… and {len(document['anomalies']) - 20} more")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
