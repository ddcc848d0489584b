"""The benchmark suite: rows 1-15, a table, and last on stdout one JSON document.

    make bench                                  the usual set, under 15 minutes on two cores
    make bench-full                             the big ones, and the rivals
    python -m tests.bench --only 1,4            these rows
    python -m tests.bench --quick               all of it in miniature: figures mean nothing, the code runs
    python -m tests.bench --json FILE --out DIR the document also in FILE; plots' data in DIR

Progress goes to stderr. The exit code is 0 whatever the figures say: people judge them, on a quiet machine; 1
where a row broke.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from pathlib import Path

from tests.bench import cpu, events, reads, recovery, rivals, saves, scale, store, trace, wal
from tests.bench.frame import Bench, Figure, document, load_average, progress, table

FAMILIES = (saves, store, wal, cpu, scale, reads, trace, events, recovery, rivals)
ALL_ROWS = tuple(sorted(row for family in FAMILIES for row in family.ROWS))
#: Need what `make bench-full` prepares.
FULL_ONLY = frozenset(rivals.ROWS)


def rows_of(text: str) -> set[int]:
    """`1,4,9` as rows. Raises ArgumentTypeError for what is none."""
    try:
        rows = {int(word) for word in text.split(",")}
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: numbers of rows with commas between, such as 1,4"
        ) from None
    if unknown := rows - set(ALL_ROWS):
        raise argparse.ArgumentTypeError(f"there is no row {', '.join(map(str, sorted(unknown)))}")
    return rows


def measure(bench: Bench, rows: set[int]) -> list[Figure]:
    """The figures of ``rows``, in order. A row that breaks is told in its figure; the others go on."""
    figures = []
    for family in FAMILIES:
        wanted = rows & set(family.ROWS)
        if not wanted:
            continue
        try:
            for figure in family.run(bench, wanted):
                bench.say(f"row {figure.row}: {figure.name}: {figure.value} {figure.unit}")
                figures.append(figure)
        except Exception as error:  # noqa: BLE001 (the figures of the other rows are worth having)
            bench.say(f"rows {sorted(wanted)}: {type(error).__name__}: {error}")
            told = {figure.row for figure in figures}
            figures += [
                Figure(
                    row, family.__name__, None, skipped=f"broke: {type(error).__name__}: {str(error)[:300]}"
                )
                for row in sorted(wanted)
                if row not in told or len(wanted) == 1
            ]
    return sorted(figures, key=lambda one: one.row)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="size", action="store_const", const="quick", default="usual")
    size.add_argument("--full", dest="size", action="store_const", const="full")
    parser.add_argument("--only", type=rows_of, metavar="ROWS", help="such as 1,4")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the document there too")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write document and table there, named by the time"
    )
    wish = parser.parse_args()
    rows = wish.only or set(ALL_ROWS) - (FULL_ONLY if wish.size != "full" else set())
    began, before = dt.datetime.now(dt.UTC), load_average()
    bench = Bench(wish.size, wish.out or Path("build/bench"), progress)
    try:
        figures = measure(bench, rows)
    finally:
        bench.close()
    made = document(figures, size=wish.size, began=began, load_before=before)
    text = json.dumps(made)
    shown = table(figures)
    if wish.json is not None:
        wish.json.write_text(text + "\n")
    if wish.out is not None:
        wish.out.mkdir(parents=True, exist_ok=True)
        stem = f"{began:%Y-%m-%dT%H-%M-%S}-{wish.size}"
        (wish.out / f"{stem}.json").write_text(text + "\n")
        (wish.out / f"{stem}.txt").write_text(shown + "\n")
    print(f"{shown}\n")
    print(text)
    return 1 if any(figure.skipped.startswith("broke") for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
