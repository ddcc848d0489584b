"""Writers that keep a ledger: what they were told is kept, message by message, while the servers come and go."""

from __future__ import annotations

import threading
import time
from typing import Self

from models.errors import BufferUnavailable, Contention, StoreUnavailable
from tests.flow.rig import Rig


class Writers:
    """A thread for each of some conversations, each saving one message after the other, as ``with`` says."""

    def __init__(self, rig: Rig, conversations: list[str], *, size: int = 200, pause_s: float = 0.01) -> None:
        self._rig = rig
        self._size = size
        self._pause_s = pause_s
        #: Conversation -> ids whose save was acknowledged.
        self.acknowledged: dict[str, list[str]] = {name: [] for name in conversations}
        self.refused = 0
        #: The longest that any conversation could not be saved to, s.
        self.longest_s = 0.0
        #: What ended a writer; there should be none.
        self.faults: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(name,)) for name in conversations]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def count(self) -> int:
        return sum(len(ids) for ids in self.acknowledged.values())

    def _write(self, name: str) -> None:
        number, since_s = 0, 0.0
        while not self._stop.is_set():
            try:
                self._rig.say(name, f"m{number}", text_of(name, number, self._size))
            except (BufferUnavailable, Contention, StoreUnavailable):
                # The same again, as a client does that was told 503.
                self.refused += 1
                since_s = since_s or time.monotonic()
            except BaseException as error:  # noqa: BLE001 (told at the end)
                self.faults.append(error)
                return
            else:
                if since_s:
                    self.longest_s = max(self.longest_s, time.monotonic() - since_s)
                    since_s = 0.0
                self.acknowledged[name].append(f"m{number}")
                number += 1
            self._stop.wait(0.05 if since_s else self._pause_s)

    def lost(self) -> list[str]:
        """What was acknowledged and is not there, or not as it was."""
        missing = []
        for name, ids in self.acknowledged.items():
            there = dict(self._rig.texts(name, limit=100_000, branches=True)) if ids else {}
            missing += [f"{name}/{i}" for i in ids if there.get(i) != text_of(name, int(i[1:]), self._size)]
        return missing


def text_of(name: str, number: int, size: int) -> str:
    words = f"{name} {number} "
    return (words * (size // len(words) + 1))[:size]
