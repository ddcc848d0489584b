"""The client: one connection pool, tokens, tries; conversations are reached from here.

    async with AsyncBlotter("https://blotter.example", token) as blotter:
        chat = blotter.conversation("c-42", owner="alice")          # needs the scope blotter:act-for
        await chat.save_user_message("m-1", content="Hello")

Laws: every request may be sent twice (see `blotter_client.retry`); at most one refresh of the token is under way; a
client is used on one event loop.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, Unpack, cast
from urllib.parse import quote
from uuid import uuid4

import httpx

from blotter_client import calls, types
from blotter_client.aio.conversation import AsyncConversation
from blotter_client.aio.reply import AsyncReply
from blotter_client.aio.runtime import HttpClient, Lock, TokenSource, ask, pause
from blotter_client.calls import Request
from blotter_client.errors import (
    BlotterError,
    NotReached,
    NotSent,
    Unauthenticated,
    Unreachable,
    from_problem,
)
from blotter_client.retry import Again, RetryPolicy, decide, retry_after_s
from blotter_client.steps import Pace
from blotter_client.types import ConversationFields, ConversationPage, Json, Saved
from blotter_client.writer import OnConflict

#: Silence after which a request is given up, s: above the longest `wait`.
TIMEOUT_S = 20.0
CONNECT_S = 5.0
#: What an owner's name may hold besides letters and digits without being percent-encoded.
_PLAIN = "!#$&'()*+,-./:;<=>?@[]^_`{|}~"


class AsyncBlotter:
    """Blotter's API at ``url``."""

    def __init__(
        self,
        url: str,
        token: TokenSource,
        *,
        owner: str | None = None,
        retry: RetryPolicy | None = None,
        connections: int = 100,
        transport: Any = None,
    ) -> None:
        """``url``: an origin such as ``https://blotter.example``; ValueError where it is none.

        ``token``: a bearer token, or a function that gives one (asked again on 401).

        ``owner``: act for this owner (the token's scope `blotter:act-for`). ``connections``: most at once.
        ``transport``: an httpx transport in place of the network's.
        """
        self._http = HttpClient(
            base_url=calls.origin(url),
            timeout=httpx.Timeout(TIMEOUT_S, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            transport=transport,
        )
        self._source = token
        self._token: str | None = token if isinstance(token, str) else None
        self._token_lock = Lock()
        self._owner = owner
        self._retry = retry or RetryPolicy()
        # Somebody has answered at this address: from then on a refused connection is a restart, not a mistake.
        self._answered = False
        #: Requests sent, repeated ones included.
        self.requests = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    # ------------------------------------------------------------------ conversations
    def conversation(self, conversation_id: str, *, owner: str | None = None) -> AsyncConversation:
        """A conversation by its id; nothing is asked yet, and the first save creates it."""
        return AsyncConversation(self, conversation_id, self._owner if owner is None else owner)

    chat = conversation

    def reply(
        self,
        conversation_id: str,
        message_id: str,
        *,
        owner: str | None = None,
        parent_id: str | None = None,
        content: str | None = None,
        metadata: Json = None,
        revision: int | None = None,
        pace: Pace | None = None,
        on_conflict: OnConflict = "raise",
    ) -> AsyncReply:
        """A reply to be written while it is generated: `async with blotter.reply(…) as reply`. See AsyncReply."""
        return self.conversation(conversation_id, owner=owner).reply(
            message_id,
            parent_id=parent_id,
            content=content,
            metadata=metadata,
            revision=revision,
            pace=pace,
            on_conflict=on_conflict,
        )

    async def create_conversation(
        self,
        conversation_id: str | None = None,
        *,
        wait: float | None = None,
        **fields: Unpack[ConversationFields],
    ) -> Saved:
        """Create one (not needed before the first save). Without an id one is made here, so that a repeat is harmless."""
        body = {"id": str(uuid4()) if conversation_id is None else conversation_id, **calls.fields(fields)}
        return cast(Saved, await self.send(calls.request("POST", "/api/conversations", body, wait=wait)))

    async def list_conversations(
        self, *, limit: int | None = None, after: str | None = None, archived: bool | None = None
    ) -> ConversationPage:
        """A page, latest activity first."""
        query = {"limit": limit, "after": after, "archived": archived}
        return cast(
            ConversationPage, await self.send(calls.request("GET", "/api/conversations", query=query))
        )

    async def all_conversations(self, *, archived: bool = False) -> AsyncIterator[types.Conversation]:
        """Every one, latest activity first, page by page."""
        after: str | None = None
        while True:
            page = await self.list_conversations(limit=200, after=after, archived=archived)
            for conversation in page["conversations"]:
                yield conversation
            after = page["after"]
            if after is None:
                return

    # ------------------------------------------------------------------ requests
    async def send(self, request: Request, owner: str | None = None) -> Any:
        """Send ``request``, again where that may help; the answer's JSON, None where it has none.

        Raises ApiError's subclasses, Unreachable, NotSent.
        """
        started_s = time.monotonic()
        refreshed = returned = False
        silent = False
        tries = 0
        while True:
            token = await self._bearer()
            tries += 1
            try:
                return await self._once(request, token, self._owner if owner is None else owner)
            except Unauthenticated:
                if refreshed or isinstance(self._source, str):
                    raise
                refreshed = True
                await self._forget(token)
            except BlotterError as failure:
                if silent and not returned and not isinstance(failure, Unreachable):
                    # It is back, busy with its start perhaps: what it says now has patience of its own, once.
                    returned, started_s, tries = True, time.monotonic(), 1
                silent = isinstance(failure, Unreachable)
                elapsed_s = time.monotonic() - started_s
                chance = random.random()  # noqa: S311 (jitter, no secret)
                decision = decide(self._retry, failure, tries=tries, elapsed_s=elapsed_s, chance=chance)
                if not isinstance(decision, Again):
                    raise
                await pause(decision.wait_s)

    async def _once(self, request: Request, token: str, owner: str | None) -> Any:
        headers = {"Authorization": f"Bearer {token}", **request.headers()}
        if owner is not None:
            headers["Blotter-Owner"] = quote(owner, safe=_PLAIN)
        self.requests += 1
        try:
            response = await self._http.request(
                request.method, request.path, content=request.body, headers=headers
            )
        except httpx.ConnectError as error:
            what = f"{self._http.base_url} cannot be reached ({error})"
            if self._answered:
                raise Unreachable(what) from error
            raise NotReached(f"{what}: start Blotter there, or correct the address") from error
        except httpx.TransportError as error:
            raise Unreachable(f"{request.method} {self._http.base_url}: {type(error).__name__}") from error
        self._answered = True
        if response.is_success:
            return _answer(response)
        after_s = retry_after_s(response.headers.get("Retry-After"), datetime.now(UTC))
        raise from_problem(response.status_code, _object(response), retry_after_s=after_s)

    async def _bearer(self) -> str:
        token = self._token
        if token is not None:
            return token
        async with self._token_lock:
            if self._token is None:
                source = self._source
                given = source if isinstance(source, str) else await ask(source)
                if not isinstance(given, str) or not given:
                    raise NotSent("the token function gave no token")
                self._token = given
            return self._token

    async def _forget(self, token: str) -> None:
        async with self._token_lock:
            if self._token == token:
                self._token = None


def _answer(response: httpx.Response) -> dict[str, Any] | None:
    """What Blotter said. Raises Unreachable for the page of a proxy or a login: whatever its status, it acknowledges nothing."""
    if response.status_code == 204:
        return None
    body = _object(response)
    if body is None:
        raise Unreachable(f"{response.request.method} {response.request.url.host}: not an answer of Blotter")
    return body


def _object(response: httpx.Response) -> dict[str, Any] | None:
    try:
        body = response.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None
