"""The blocking client is the asynchronous one without `async`."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import blotter_client

SCRIPT = Path(blotter_client.__file__).resolve().parent.parent / "generate.py"


def test_the_blocking_client_is_what_the_generator_makes() -> None:
    checked = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    pairs = [
        (blotter_client.AsyncBlotter, blotter_client.Blotter, {"aclose": "close"}),
        (blotter_client.AsyncConversation, blotter_client.Conversation, {}),
        (blotter_client.AsyncReply, blotter_client.Reply, {}),
        (blotter_client.AsyncToolCall, blotter_client.ToolCall, {}),
    ]
    for asynchronous, blocking, renamed in pairs:
        names = [name for name in vars(asynchronous) if not name.startswith("_")]
        assert {renamed.get(name, name) for name in names} == {
            n for n in vars(blocking) if not n.startswith("_")
        }
        for name in names:
            ours, theirs = getattr(asynchronous, name), getattr(blocking, renamed.get(name, name))
            if callable(ours):
                assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
                assert not inspect.iscoroutinefunction(theirs), name


def test_the_source_names_are_methods() -> None:
    for name in (
        "save_user_message",
        "save_assistant_message",
        "save_or_update_message",
        "save_tool_result",
        "update_tool_result",
        "save_artifact",
        "update_artifact",
        "sync_conversation_state",
    ):
        assert callable(getattr(blotter_client.Conversation, name))
