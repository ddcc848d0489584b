"""Runs in the rivals' own virtual environment: saves replies through a rival, prints one JSON document.

    python rival_programs.py chainlit|langgraph DATABASE_URL TEXT_FILE CHARACTERS STEP REPLIES

A reply: the user's message, then the assistant's, saved whole each STEP characters, since neither knows an append. WAL is the
server's, from before the first save to after the last; making tables is not counted.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import statistics
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import psycopg

# The schema that Chainlit's documentation gives for its SQLAlchemy data layer.
CHAINLIT = """
CREATE TABLE users ("id" UUID PRIMARY KEY, "identifier" TEXT NOT NULL UNIQUE, "metadata" JSONB NOT NULL, "createdAt" TEXT);
CREATE TABLE threads ("id" UUID PRIMARY KEY, "createdAt" TEXT, "name" TEXT, "userId" UUID, "userIdentifier" TEXT,
  "tags" TEXT[], "metadata" JSONB, FOREIGN KEY ("userId") REFERENCES users("id") ON DELETE CASCADE);
CREATE TABLE steps ("id" UUID PRIMARY KEY, "name" TEXT NOT NULL, "type" TEXT NOT NULL, "threadId" UUID NOT NULL,
  "parentId" UUID, "streaming" BOOLEAN NOT NULL, "waitForAnswer" BOOLEAN, "isError" BOOLEAN, "metadata" JSONB,
  "tags" TEXT[], "input" TEXT, "output" TEXT, "createdAt" TEXT, "command" TEXT, "start" TEXT, "end" TEXT,
  "generation" JSONB, "showInput" TEXT, "language" TEXT, "indent" INT, "defaultOpen" BOOLEAN, "autoCollapse" BOOLEAN,
  "modes" JSONB, "icon" TEXT,
  FOREIGN KEY ("threadId") REFERENCES threads("id") ON DELETE CASCADE);
CREATE TABLE elements ("id" UUID PRIMARY KEY, "threadId" UUID, "type" TEXT, "url" TEXT, "chainlitKey" TEXT,
  "name" TEXT NOT NULL, "display" TEXT, "objectKey" TEXT, "size" TEXT, "page" INT, "language" TEXT, "forId" UUID,
  "mime" TEXT, "props" JSONB, FOREIGN KEY ("threadId") REFERENCES threads("id") ON DELETE CASCADE);
CREATE TABLE feedbacks ("id" UUID PRIMARY KEY, "forId" UUID NOT NULL, "threadId" UUID NOT NULL, "value" INT NOT NULL,
  "comment" TEXT, FOREIGN KEY ("threadId") REFERENCES threads("id") ON DELETE CASCADE);
"""


def lsn(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    return int(row[0])


async def chainlit(url: str, texts: list[str], step: int) -> dict[str, Any]:
    from chainlit.data.sql_alchemy import (  # type: ignore[import-not-found]
        SQLAlchemyDataLayer,
    )

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(CHAINLIT)
    layer = SQLAlchemyDataLayer(conninfo=url.replace("postgresql://", "postgresql+asyncpg://"))
    # The public methods queue without this context; what they wrap is what writes.
    create = getattr(layer.create_step, "__wrapped__", None)
    took, kept, before = [], 0, lsn(url)
    ids = []

    async def save(step_: dict[str, Any]) -> None:
        began = time.perf_counter()
        if create is not None:
            await create(layer, step_)
        else:
            await layer.create_step(step_)
        took.append((time.perf_counter() - began) * 1000)

    for text in texts:
        thread, question, reply = (str(uuid.uuid4()) for _ in range(3))
        ids.append((question, reply, text))
        await layer.update_thread(thread, name="A question?")

        def of(id_: str, kind: str, output: str, streaming: bool, thread: str = thread) -> dict[str, Any]:
            return {
                "id": id_, "threadId": thread, "name": kind, "type": kind, "output": output, "input": "",
                "streaming": streaming, "createdAt": "2025-11-22T10:00:00Z", "metadata": {},
            }  # fmt: skip

        await save(of(question, "user_message", "A question?", False))
        for end in range(step, len(text) + 1, step):
            await save(of(reply, "assistant_message", text[:end], end < len(text)))
    used = lsn(url) - before
    with psycopg.connect(url) as connection:
        stored: dict[str, str] = dict(connection.execute('SELECT "id"::text, "output" FROM steps').fetchall())
    for question, reply, text in ids:
        kept += (question in stored) + (stored.get(reply) == text)
    return {"wal": used, "took": took, "kept": kept, "versions": ["chainlit", "sqlalchemy", "asyncpg"]}


def langgraph(url: str, texts: list[str], step: int) -> dict[str, Any]:
    from langgraph.checkpoint.base import empty_checkpoint  # type: ignore[import-not-found]
    from langgraph.checkpoint.postgres import PostgresSaver  # type: ignore[import-not-found]

    took, kept = [], 0
    with PostgresSaver.from_conn_string(url) as saver:
        saver.setup()
        before = lsn(url)
        for text in texts:
            thread = str(uuid.uuid4())
            config: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
            for number, end in enumerate([0, *range(step, len(text) + 1, step)], 1):
                checkpoint = empty_checkpoint()
                # The state of a chat: one channel that holds its messages.
                messages = [{"role": "user", "content": "A question?"}]
                if end:
                    messages.append({"role": "assistant", "content": text[:end]})
                checkpoint["channel_values"] = {"messages": messages}
                checkpoint["channel_versions"] = {"messages": number}
                began = time.perf_counter()
                config = saver.put(
                    config,
                    checkpoint,
                    {"source": "loop", "step": number, "parents": {}},
                    {"messages": number},
                )
                took.append((time.perf_counter() - began) * 1000)
            found = saver.get_tuple({"configurable": {"thread_id": thread, "checkpoint_ns": ""}})
            stored = [] if found is None else found.checkpoint["channel_values"]["messages"]
            kept += len(stored) >= 1
            kept += len(stored) == 2 and stored[1]["content"] == text
        used = lsn(url) - before
    return {"wal": used, "took": took, "kept": kept, "versions": ["langgraph-checkpoint-postgres", "psycopg"]}


def main() -> None:
    name, url, file, characters, step, replies = sys.argv[1:]
    size = int(characters)
    whole = Path(file).read_text()
    texts = [whole[n * size : (n + 1) * size] for n in range(int(replies))]
    if name == "chainlit":
        found = asyncio.run(chainlit(url, texts, int(step)))
    else:
        found = langgraph(url, texts, int(step))
    print(json.dumps({
        "wal": found["wal"] / len(texts),
        "save_ms": statistics.median(found["took"]),
        "kept": found["kept"] / (2 * len(texts)),
        "notes": {one: importlib.metadata.version(one) for one in found["versions"]},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
