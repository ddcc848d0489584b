"""A voice that asks an OpenAI-compatible server: `POST {OPENAI_BASE_URL}/chat/completions` with `stream`.

Only what all such servers have in common is used: roles, text, the end. Many start with a comment or an empty delta,
some end without `[DONE]`; both are fine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx
from httpx_sse import SSEError, aconnect_sse

from web.demo.assistant.voice import Failed, Line, Said, Text

#: Silence after which the server is given up, s: some think for long before the first word.
SILENCE_S = 120.0
MODEL = "gpt-4o-mini"


class OpenAI:
    """``environ``: OPENAI_BASE_URL (with its /v1), OPENAI_API_KEY, and OPENAI_MODEL (default: the first it offers)."""

    repeats = False

    def __init__(self, environ: Mapping[str, str], transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._model = environ.get("OPENAI_MODEL") or None
        self._http = httpx.AsyncClient(
            base_url=environ["OPENAI_BASE_URL"].rstrip("/") + "/",
            headers={"Authorization": f"Bearer {environ['OPENAI_API_KEY']}"},
            timeout=httpx.Timeout(SILENCE_S, connect=10.0),
            transport=transport,
        )

    async def speak(self, message_id: str, history: Sequence[Line], speed: int) -> AsyncIterator[Said]:
        """What the server answers, as it comes: ``speed`` is its own. Raises Failed."""
        try:
            body = {
                "model": await self._chosen(),
                "stream": True,
                "messages": [{"role": line.role, "content": line.text} for line in history],
            }
            async with aconnect_sse(self._http, "POST", "chat/completions", json=body) as source:
                if source.response.is_error:
                    raise Failed(f"The model's server answered {source.response.status_code}.")
                async for event in source.aiter_sse():
                    if event.data == "[DONE]":
                        break
                    text = _text(event.json())
                    if text:
                        yield Text(text)
        except httpx.HTTPStatusError as error:
            raise Failed(f"The model's server answered {error.response.status_code}.") from error
        except (httpx.TransportError, SSEError, ValueError) as error:
            raise Failed(f"The model's server cannot be read ({type(error).__name__}).") from error

    async def _chosen(self) -> str:
        if self._model is None:
            response = await self._http.get("models")
            offered: list[Any] = []
            if response.is_success:
                found = response.json()
                offered = found.get("data") or [] if isinstance(found, dict) else []
            self._model = next((one["id"] for one in offered if isinstance(one.get("id"), str)), MODEL)
        return self._model


def _text(chunk: Any) -> str:
    """The new text of a chunk; raises Failed where it says what went wrong."""
    if not isinstance(chunk, dict):
        return ""
    if "error" in chunk:
        raise Failed("The model's server broke off.")
    choices = chunk.get("choices") or [{}]
    text = (choices[0].get("delta") or {}).get("content")
    return text if isinstance(text, str) else ""
