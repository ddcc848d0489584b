"""Whether there is a demo here, decided once from the settings and the environment, and what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models.settings import Settings
from web.demo import guard
from web.keys import load_secrets


@dataclass(frozen=True)
class Place:
    """What the demo needs, where there is one."""

    secret: bytes
    data: Path

    @classmethod
    def find(cls, settings: Settings, environ: Mapping[str, str]) -> Place | None:
        """None where there is no demo: not embedded, not bound to loopback, no key to sign with, no data folder."""
        secrets = load_secrets(settings) if settings.embedded else ()
        data = environ.get("BLOTTER_DATA")
        if not secrets or not data or not guard.is_loopback(environ.get("HOST") or "127.0.0.1"):
            return None
        return cls(secrets[0], Path(data))
