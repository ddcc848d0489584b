"""A TCP proxy whose wire can be cut, frozen, slowed, or cut at a chosen word: for any server that speaks over TCP.

    with Proxy(server_port) as proxy:
        proxy.url_of("postgresql://u:p@127.0.0.1:5432/db")   # the same, through the proxy
        proxy.refuse(); proxy.accept()     # nobody listens, connections are reset · as before
        proxy.cut()                        # all connections are reset now; new ones are taken
        proxy.freeze(); proxy.thaw()       # half-open: connections live, new ones too, nothing passes either way
        proxy.latency_s = 0.05             # each piece of data takes this much longer, each way
        trap = proxy.cut_after(COMMIT)     # the client's next COMMIT reaches the server, its answer nobody
        trap = proxy.cut_before(COMMIT)    # … does not reach the server
        trap = proxy.hold_at(COMMIT)       # … waits in the wire until trap.release()
        trap = proxy.hold_at(SYNC, having=b"words")   # only on a connection that has carried these words
        trap.sprung                        # it happened; trap.wait() until it does

Two threads a connection; data is passed on piece by piece, untouched.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Final, Literal, Self
from urllib.parse import urlsplit

#: A simple query as libpq sends it.
COMMIT: Final = b"Q\x00\x00\x00\x0bCOMMIT\x00"
#: The end of a statement with parameters.
SYNC: Final = b"S\x00\x00\x00\x04"
_PIECE: Final = 64 * 1024
_RESET: Final = struct.pack("ii", 1, 0)
_WAIT_S: Final = 20.0


class Trap:
    """Springs once: on the first data of a client that ends with ``word``, on a connection that has carried ``having``."""

    def __init__(
        self, word: bytes, action: Literal["cut after", "cut before", "hold"], having: bytes
    ) -> None:
        self.word = word
        self.action = action
        self.having = having
        self._sprung = threading.Event()
        self._released = threading.Event()

    @property
    def sprung(self) -> bool:
        return self._sprung.is_set()

    def wait(self, within_s: float = _WAIT_S) -> None:
        assert self._sprung.wait(within_s), f"nobody sent {self.word!r} within {within_s:g} s"

    def release(self) -> None:
        """What is held goes on its way."""
        self._released.set()

    def spring(self) -> None:
        self._sprung.set()
        if self.action == "hold":
            self._released.wait(_WAIT_S)


class _Link:
    """A client's connection and ours to the server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.mute = False
        self.carried: set[bytes] = set()

    def reset(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Proxy:
    """Listens on a port of its own for a server on ``target_port`` of this machine."""

    def __init__(self, target_port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, target_port)
        self._host = host
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._traps: list[Trap] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener: socket.socket | None = None
        self.latency_s = 0.0
        self.port = 0
        self.accept()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self.thaw()
        for trap in self._traps:
            trap.release()

    def url_of(self, url: str) -> str:
        """``url`` with this proxy's port."""
        parts = urlsplit(url)
        userinfo, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{userinfo}{at}{self._host}:{self.port}").geturl()

    # ------------------------------------------------------------------ what a test does to the wire
    def accept(self) -> None:
        """Listen (again), on the same port."""
        if self._listener is None:
            self._listener = socket.create_server((self._host, self.port))
            self.port = self._listener.getsockname()[1]
            threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """Nobody listens any more, and what was connected is reset."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()

    def cut(self) -> int:
        """Reset all connections; how many."""
        with self._lock:
            links, self._links = self._links, set()
        for link in links:
            link.reset()
        return len(links)

    def freeze(self) -> None:
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    def cut_after(self, word: bytes, *, having: bytes = b"") -> Trap:
        """Pass on the next data that ends with ``word``, and none of what the server says to it: then cut that one."""
        return self._set(Trap(word, "cut after", having))

    def cut_before(self, word: bytes, *, having: bytes = b"") -> Trap:
        """Cut the connection when the next data ends with ``word``, which does not reach the server."""
        return self._set(Trap(word, "cut before", having))

    def hold_at(self, word: bytes, *, having: bytes = b"") -> Trap:
        """Hold back the next data that ends with ``word`` until the trap is released."""
        return self._set(Trap(word, "hold", having))

    def _set(self, trap: Trap) -> Trap:
        with self._lock:
            self._traps.append(trap)
        return trap

    # ------------------------------------------------------------------ the wire
    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=_WAIT_S)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(client, server)
            with self._lock:
                self._links.add(link)
            threading.Thread(target=self._up, args=(link,), daemon=True).start()
            threading.Thread(target=self._down, args=(link,), daemon=True).start()

    def _up(self, link: _Link) -> None:
        """From client to server."""
        with self._ending(link):
            while piece := link.client.recv(_PIECE):
                self._delay()
                trap = self._trap_for(link, piece)
                if trap is not None and trap.action == "cut before":
                    trap.spring()
                    return
                if trap is not None and trap.action == "cut after":
                    link.mute = True
                    link.server.sendall(piece)
                    trap.spring()
                    # The server's answer comes, is read by `_down`, and goes nowhere.
                    continue
                if trap is not None:
                    trap.spring()
                link.server.sendall(piece)

    def _down(self, link: _Link) -> None:
        """From server to client."""
        with self._ending(link):
            while piece := link.server.recv(_PIECE):
                self._delay()
                if link.mute:
                    return
                link.client.sendall(piece)

    def _delay(self) -> None:
        if self.latency_s:
            time.sleep(self.latency_s)
        self._flowing.wait()

    def _trap_for(self, link: _Link, piece: bytes) -> Trap | None:
        with self._lock:
            for trap in self._traps:
                if trap.having in piece:
                    link.carried.add(trap.having)
                if piece.endswith(trap.word) and trap.having in link.carried:
                    self._traps.remove(trap)
                    return trap
        return None

    @contextlib.contextmanager
    def _ending(self, link: _Link) -> Iterator[None]:
        try:
            yield
        except OSError:
            pass
        finally:
            with self._lock:
                self._links.discard(link)
            link.reset()
