"""Export: conversations as JSON lines (models/pipeline/lines.py), each one snapshot.

What a reader would see at one version: from the buffer where it is hot, so what was acknowledged a moment ago is in it,
else from Postgres. Artifact versions are immutable and counted by their artifact, so those up to the snapshot's count
belong to it, whenever they are read. Deleted items and conversations are left out. Several conversations are several
snapshots, one after the other: nothing holds an owner still.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, cast

from models.buffer import codec
from models.buffer.buffer import Buffer, Place
from models.core.records import Artifact, ArtifactVersion
from models.errors import StoreUnavailable
from models.pipeline import lines
from models.pipeline.adopt import Adopter
from models.pipeline.listing import Lister
from models.pipeline.read import Reader
from models.pipeline.views import Item
from models.postgres.store import Store

_PAGE: Final = 100
_VERSIONS: Final = 20


class Progress(NamedTuple):
    """So far. ``lines``: all of them, the first included."""

    conversations: int
    lines: int


class Exporter:
    """Writes conversations as lines. Raises BufferUnavailable, StoreUnavailable, Contention."""

    def __init__(self, buffer: Buffer, store: Store, adopter: Adopter, ring: Callable[[int], None]) -> None:
        self._buffer = buffer
        self._store = store
        self._reader = Reader(buffer, store, adopter, ring)
        self._lister = Lister(buffer, store)

    def ids(self, owner: str) -> list[str]:
        """The owner's living conversations, archived ones included, latest activity first."""
        found: dict[str, None] = {}
        # Not archived twice: what leaves the archive while it is read is seen then.
        for archived in (False, True, False):
            after: str | None = None
            while True:
                page = self._lister.page(owner, archived=archived, after=after, limit=_PAGE)
                if page.degraded:
                    raise StoreUnavailable("Postgres is away: what only it has cannot be exported")
                found.update((item.record.id, None) for item in page.conversations)
                after = page.after
                if after is None:
                    break
        return list(found)

    def export(
        self,
        owner: str,
        ids: list[str],
        write: Callable[[bytes], object],
        *,
        now_ms: int,
        progress: Callable[[Progress], None] = lambda so_far: None,
        found: Callable[[str], object] = lambda conversation_id: None,
    ) -> Progress:
        """Write the conversations ``ids``; those that are not there (anymore) are left out, the others told to ``found``."""
        write(
            lines.encode({
                "type": "blotter-export",
                "format": lines.FORMAT,
                "owner": owner,
                "exportedAt": lines.moment(now_ms),
            })
        )  # fmt: skip
        so_far = Progress(0, 1)
        for conversation_id in ids:
            written = 0
            for line in self._conversation(self._buffer.place(owner, conversation_id)):
                write(line)
                written += 1
            if written:
                found(conversation_id)
            so_far = Progress(so_far.conversations + (written > 0), so_far.lines + written)
            progress(so_far)
        so_far = Progress(so_far.conversations, so_far.lines + 1)
        write(lines.encode({"type": "end", **so_far._asdict()}))
        return so_far

    def _conversation(self, place: Place) -> Iterator[bytes]:
        loaded = self._reader.changed(place, 0)
        if loaded.partial:
            raise StoreUnavailable(f"conversation {place.id} waits for its base: Postgres is away")
        if loaded.conversation is None or loaded.conversation.record.deleted_ms is not None:
            return
        yield lines.line(loaded.conversation.record)
        for kind in ("m", "t", "a"):
            living: list[Item[Artifact]] = [
                item for item in loaded.items[kind].values() if item.record.deleted_ms is None
            ]
            for item in sorted(living, key=lambda item: (item.record.position, item.record.id)):
                yield lines.line(item.record)
                if kind == "a" and item.record.head_number:
                    yield from map(lines.line, self._versions(place, item.record))

    def _versions(self, place: Place, artifact: Artifact) -> Iterator[ArtifactVersion]:
        """Up to the number that the snapshot counts; the buffer first, for a version leaves it for Postgres."""
        names = self._buffer.version_names(place, artifact.id)
        reply = self._buffer.read(place, "names", names=names, trust=True) if names else None
        pending: dict[int, ArtifactVersion] = {}
        for found in reply.items if reply is not None else ():
            version = cast(ArtifactVersion, codec.record(place.uid, place.owner, place.id, found))
            pending[version.number] = version
        after = 0
        while page := self._store.artifact_versions(place.uid, artifact.id, after=after, limit=_VERSIONS):
            for version in page:
                pending.pop(version.number, None)
                if version.number <= artifact.head_number:
                    yield version
            after = page[-1].number
        yield from (pending[number] for number in sorted(pending) if number <= artifact.head_number)
