"""Chats in the formats of others, as plans for saving them; and back, exactly.

    plan.py     what is saved of one message, as a value; what of a source message its fields cannot carry
    openai.py   OpenAI chat messages: role, content, tool_calls, tool_call_id, name
    ui.py       AI SDK `UIMessage`: id, role, metadata, parts

Law: for every list of JSON objects ``source``, ``restore(view of plan(source)) == source``.
"""
