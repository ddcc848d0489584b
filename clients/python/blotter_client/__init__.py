"""Blotter's client for LLM backends: asynchronous and blocking, one implementation.

    from blotter_client import AsyncBlotter          # or Blotter, without `async` and `await`

    async with AsyncBlotter("https://blotter.example", token) as blotter:
        async with blotter.reply("c-42", "m-2", parent_id="m-1") as reply:
            async for token in model:
                await reply.append(token)

Map: `text` UTF-16 units · `writer` what a reply sends next (pure) · `retry` when to try again (pure) · `calls` requests as
values (pure) · `errors`, `types` · `aio` carries it out on asyncio · `blocking` with threads, generated from `aio`.
"""

from blotter_client.aio.client import AsyncBlotter
from blotter_client.aio.conversation import AsyncConversation
from blotter_client.aio.reply import AsyncReply, AsyncToolCall
from blotter_client.blocking.client import Blotter
from blotter_client.blocking.conversation import Conversation
from blotter_client.blocking.reply import Reply, ToolCall
from blotter_client.errors import ApiError, BlotterError, NotReached, NotSent, Unreachable
from blotter_client.retry import RetryPolicy
from blotter_client.steps import Pace
from blotter_client.types import UNSET

__all__ = [
    "UNSET",
    "ApiError",
    "AsyncBlotter",
    "AsyncConversation",
    "AsyncReply",
    "AsyncToolCall",
    "Blotter",
    "BlotterError",
    "Conversation",
    "NotReached",
    "NotSent",
    "Pace",
    "Reply",
    "RetryPolicy",
    "ToolCall",
    "Unreachable",
]
