"""A body that each call of the API takes, by operationId: for tests that go through all of them.

A new call that takes a body is not in here; then those tests fail until it is.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import orjson

from web.openapi import document

MARK: Final = "PRIVATE"
_MESSAGE: Final = {"id": "m1", "role": "assistant", "content": f"of the intruder {MARK[::-1]}"}
BODIES: Final[dict[str, Any]] = {
    "createConversation": {"id": "c1", "title": "of the intruder"},
    "updateConversation": {"title": "of the intruder"},
    "saveUserMessage": {**_MESSAGE, "role": "user"},
    "saveOrUpdateMessage": _MESSAGE,
    "saveAssistantMessage": {"append": {"offset": 4, "text": "more"}},
    "saveToolResult": {"id": "t1", "output": {"by": "the intruder"}},
    "updateToolResult": {"id": "t1", "output": {"by": "the intruder"}},
    "saveArtifact": {"id": "a1", "kind": "text", "content": "of the intruder"},
    "updateArtifact": {"id": "a1", "content": "of the intruder"},
    "appendToArtifact": {"append": {"offset": 4, "text": "more"}},
    "syncConversationState": {"messages": [_MESSAGE], "toolResults": [{"id": "t1"}]},
    "putConversationState": {"messages": [_MESSAGE]},
}


class Route(NamedTuple):
    """One call as the published document names it. ``body``: it takes one."""

    id: str
    method: str
    path: str
    body: bool
    guarded: bool

    def to(self, conversation: str, item: str = "") -> str:
        """Its address. ``item``: in the place of the example ids (m1, t1, a1)."""
        path = self.path.replace("{conversationId}", conversation)
        for name, example in (("messageId", "m1"), ("toolResultId", "t1"), ("artifactId", "a1")):
            path = path.replace(f"{{{name}}}", item or example)
        return path


def published() -> list[Route]:
    """All calls of the published document."""
    found = []
    for path, methods in orjson.loads(orjson.dumps(document()))["paths"].items():
        for method, call in methods.items():
            if method in ("get", "put", "post", "patch", "delete"):
                guarded = call.get("security", [{"bearer": []}]) != []
                found.append(Route(call["operationId"], method.upper(), path, "requestBody" in call, guarded))
    return found


ROUTES: Final = published()
OF_A_CONVERSATION: Final = [route for route in ROUTES if "{conversationId}" in route.path]
EVENTS: Final = "followConversation"
