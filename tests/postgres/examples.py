"""Records to store: complete ones with telling values, of which a test changes what it is about."""

from __future__ import annotations

import itertools
from typing import Any
from uuid import UUID

from models.core.records import Artifact, ArtifactVersion, Conversation, Message, ToolResult
from models.identity import conversation_uid

OWNER = "ada"
CREATED_MS = 1_763_800_000_123
_numbers = itertools.count(1)


def new_uid(owner: str = OWNER) -> UUID:
    return conversation_uid(owner, f"chat-{next(_numbers)}")


def _filled(given: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    version = given.get("version", 1)
    common = {"version": version, "created_ms": CREATED_MS, "updated_ms": CREATED_MS + version}
    return {**common, **defaults, **given}


def conversation(name: str | None = None, *, owner: str = OWNER, **given: Any) -> Conversation:
    name = name or f"chat-{next(_numbers)}"
    defaults = {"conversation_uid": conversation_uid(owner, name), "owner": owner, "id": name}
    return Conversation(**_filled(given, **defaults))


def message(uid: UUID, name: str = "m1", **given: Any) -> Message:
    defaults = {"conversation_uid": uid, "id": name, "role": "user", "position": name, "status": "complete"}
    return Message(**_filled(given, **defaults))


def tool_result(uid: UUID, name: str = "m1.call", **given: Any) -> ToolResult:
    return ToolResult(**_filled(given, conversation_uid=uid, id=name, position=name, status="complete"))


def artifact(uid: UUID, name: str = "a1", **given: Any) -> Artifact:
    return Artifact(**_filled(given, conversation_uid=uid, id=name, position=name, status="complete"))


def artifact_version(uid: UUID, name: str = "a1", number: int = 1, **given: Any) -> ArtifactVersion:
    given = {"version": number, "content": f"text {number}", "hash": f"{number:040x}", **given}
    return ArtifactVersion(conversation_uid=uid, id=name, number=number, created_ms=CREATED_MS, **given)
