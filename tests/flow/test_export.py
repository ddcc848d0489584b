"""Whatever an owner has, its export put back into another Blotter reads the same there: random histories, two of everything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from models.core import commands as c
from models.core.records import Record
from models.errors import BlotterError, Gone, NotFound
from models.pipeline import backfill
from models.pipeline.export import Exporter
from tests.buffer.strategies import json_values, parts, texts
from tests.flow.crews import CrewRig, crew_rig
from tests.servers import RunningPostgres, start_valkey

OWNERS = count()
CONVERSATIONS = ("c1", "c2", "c3")


class Two(NamedTuple):
    """Two Blotters that know nothing of each other."""

    ours: CrewRig
    theirs: CrewRig


@pytest.fixture(scope="module")
def two(postgres_server: RunningPostgres, template_database: str) -> Iterator[Two]:
    with (
        start_valkey() as first,
        start_valkey() as second,
        postgres_server.new_database(template_database) as our_database,
        postgres_server.new_database(template_database) as their_database,
        crew_rig(first.url, our_database) as ours,
        crew_rig(second.url, their_database, BLOTTER_PARTITIONS="3") as theirs,
    ):
        yield Two(ours, theirs)


def _puts(
    kind: c.ItemKind, ids: str, fields: dict[str, st.SearchStrategy[Any]]
) -> st.SearchStrategy[c.Command]:
    values = st.fixed_dictionaries({}, optional=fields)
    return st.builds(c.put, st.just(kind), st.sampled_from(ids.split()), values)


NAMES = st.sampled_from(["1", "2", "3", "4"])
STATUSES = st.sampled_from(["pending", "streaming", "complete", "interrupted", "error"])
MESSAGES = _puts("m", "1 2 3 4", {
    "role": st.sampled_from(["user", "assistant"]), "content": texts, "parts": parts, "parent_id": NAMES,
    "status": STATUSES, "metadata": st.dictionaries(texts, json_values, max_size=2),
})  # fmt: skip
RESULTS = _puts("t", "1 2", {
    "message_id": NAMES, "tool_name": texts, "input": json_values, "output": json_values, "error_text": texts,
    "status": STATUSES,
})  # fmt: skip
ARTIFACTS = _puts("a", "1 2", {
    "message_id": NAMES, "title": texts, "content": texts, "language": texts, "status": STATUSES,
})  # fmt: skip
OWN = st.builds(
    c.put, st.just("c"), st.just(""),
    st.fixed_dictionaries({}, optional={
        "title": texts, "archived": st.booleans(), "head_id": NAMES,
        "metadata": st.dictionaries(texts, json_values, max_size=2),
    }),
)  # fmt: skip
DELETES = st.one_of(
    st.builds(c.Delete, st.sampled_from("mta"), NAMES), st.builds(c.Delete, st.just("c"), st.just(""))
)
#: What is done to one conversation: a save, or that what is dirty is stored, or that it leaves the buffer as well.
STEPS = st.tuples(
    st.sampled_from(CONVERSATIONS),
    st.one_of(
        MESSAGES, MESSAGES, RESULTS, ARTIFACTS, ARTIFACTS, OWN, DELETES, st.sampled_from(["flush", "evict"])
    ),
)


def perform(chat: CrewRig, owner: str, name: str, step: c.Command | str) -> None:
    """A step; what is refused (a deleted conversation, a status that may not be) changes nothing."""
    if not isinstance(step, str):
        with contextlib.suppress(BlotterError):
            chat.save(name, step, owner=owner)
        return
    chat.flush(name, owner)
    if step == "evict":
        place = chat.place(name, owner)
        chat.buffer.evict(place.keys, place.hex, 0)


def seen(chat: CrewRig, owner: str) -> dict[str, list[Record] | None]:
    """All that a reader sees, by conversation: every branch, every version of every artifact; None: nothing is there."""
    found: dict[str, list[Record] | None] = {}
    for name in CONVERSATIONS:
        try:
            view = chat.pipeline.read(owner, name, branches=True)
        except (NotFound, Gone):
            found[name] = None
            continue
        items = (*view.messages, *view.tool_results, *view.artifacts)
        found[name] = [
            view.conversation.record,
            *(item.record for item in items),
            *(
                version
                for artifact in view.artifacts
                for version in chat.pipeline.artifact_versions(
                    owner, name, artifact.record.id, after=None, limit=100
                )
            ),
        ]
    return found


def listed(chat: CrewRig, owner: str) -> list[list[str]]:
    pages = [
        chat.pipeline.conversations(owner, archived=archived, after=None, limit=50)
        for archived in (False, True)
    ]
    return [[item.record.id for item in page.conversations] for page in pages]


def export(chat: CrewRig, owner: str, path: Path) -> list[bytes]:
    """Its lines, but the first, which tells when."""
    exporter = Exporter(chat.buffer, chat.pipeline.store, chat.crew.adopter, lambda partition: None)
    with path.open("wb") as file:
        exporter.export(owner, sorted(exporter.ids(owner)), file.write, now_ms=0)
    return path.read_bytes().splitlines()[1:]


@settings(max_examples=15)
@given(history=st.lists(STEPS, min_size=1, max_size=25))
def test_an_export_reads_the_same_in_another_blotter(
    two: Two, tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, c.Command | str]]
) -> None:
    owner = f"owner{next(OWNERS)}"
    for name, step in history:
        perform(two.ours, owner, name, step)
    folder = tmp_path_factory.mktemp("export")
    lines = export(two.ours, owner, folder / "ours")
    checked = backfill.check(folder / "ours", None)
    assert (checked.owner, checked.bad) == (owner, ())

    crew = two.theirs.crew
    filler = backfill.Backfiller(crew.buffer, crew.partitions, crew.store, crew.adopter)
    done = filler.backfill(folder / "ours", owner)
    assert (done.unchanged, done.newer, done.deleted, done.rejected) == (0, 0, (), ())
    assert done.written == len(lines) - 1
    assert msgspec.to_builtins(seen(two.theirs, owner)) == msgspec.to_builtins(seen(two.ours, owner))
    assert listed(two.theirs, owner) == listed(two.ours, owner)
    assert export(two.theirs, owner, folder / "theirs") == lines
    again = filler.backfill(folder / "ours", owner)
    assert (again.written, again.unchanged) == (0, done.written)
