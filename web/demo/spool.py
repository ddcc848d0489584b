"""What the assistant has to write: one small file a reply, made by web, removed by the assistant once all is stored.

A folder, because it outlives both sides and needs neither a port nor a server: web may ask while the assistant is
away, and an assistant that starts again finds what it had begun. No chat text is in it, only where to write.

Laws: a file appears whole; asking twice leaves one; a file that cannot be read is removed, not looked at for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

import orjson

from models.identity import is_id
from web.auth import is_owner
from web.cli.folder import write_atomically

#: Replies that may wait at a time.
MOST_WAITING: Final = 500
SLOWEST, FASTEST = 1, 1_000_000


class Full(Exception):
    """Too many replies wait already."""


@dataclass(frozen=True, slots=True)
class Job:
    """A reply to write. ``speed``: characters a second, None for the assistant's own."""

    owner: str
    conversation_id: str
    message_id: str
    speed: int | None = None

    @property
    def name(self) -> str:
        """The file's name: the same for the same reply, whatever the speed."""
        key = orjson.dumps([self.owner, self.conversation_id, self.message_id])
        return f"{blake2b(key, digest_size=16).hexdigest()}.json"


class Spool:
    """The folder of waiting replies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def of(cls, data: Path) -> Spool:
        """The one in the data folder ``data`` of `blotter up`."""
        return cls(data / "run" / "replies")

    def put(self, job: Job) -> None:
        """Ask for a reply; nothing happens where it is asked for already. Raises Full, OSError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._folder / job.name
        if path.exists():
            return
        if sum(1 for _ in self._folder.glob("*.json")) >= MOST_WAITING:
            raise Full
        write_atomically(
            path, orjson.dumps([job.owner, job.conversation_id, job.message_id, job.speed]).decode()
        )

    def jobs(self) -> Iterator[Job]:
        """All that waits or is being written."""
        if not self._folder.is_dir():
            return
        for path in sorted(self._folder.glob("*.json")):
            job = _read(path)
            if job is None or job.name != path.name:
                path.unlink(missing_ok=True)
            else:
                yield job

    def done(self, job: Job) -> None:
        """Forget ``job``."""
        (self._folder / job.name).unlink(missing_ok=True)


def _read(path: Path) -> Job | None:
    try:
        match orjson.loads(path.read_bytes()):
            case [str(owner), str(conversation_id), str(message_id), None | int() as speed]:
                if is_owner(owner) and is_id(conversation_id) and is_id(message_id):
                    return Job(owner, conversation_id, message_id, speed)
    except (OSError, ValueError):
        pass
    return None
