"""The command `blotter` in this process, on the servers of a rig; and what it said."""

from __future__ import annotations

from typing import Any

import orjson
from click.testing import CliRunner, Result

from tests.flow.crews import CrewRig
from web.cli import main


class Console:
    """`blotter …` on the buffer and the database of `rig`. No broker answers: bells are not heard.

    Every command says on stderr which servers it is on; `said` is what it says beside.
    """

    def __init__(self, rig: CrewRig, **environ: str) -> None:
        settings = rig.pipeline.settings
        self.environ = {
            "REDIS_URL": settings.redis_url,
            "DATABASE_URL": settings.database_url,
            "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",
            "BLOTTER_PARTITIONS": str(settings.partitions),
            **environ,
        }

    def __call__(self, *arguments: str, exits: int = 0, answer: str | None = None) -> Result:
        """Run it; fails unless it exits with `exits`."""
        result = CliRunner().invoke(main, list(arguments), env=self.environ, input=answer)
        said = (
            f"{arguments} exited with {result.exit_code}: {result.stdout}{result.stderr}{result.exception!r}"
        )
        assert result.exit_code == exits, said
        assert "Traceback" not in result.stderr, said
        return result

    def json(self, *arguments: str, exits: int = 0) -> Any:
        """With --json: the one document on stdout."""
        return orjson.loads(self(*arguments, "--json", exits=exits).stdout)

    @staticmethod
    def said(result: Result) -> list[str]:
        """Its lines on stderr, but the one that tells on which servers."""
        return [line for line in result.stderr.splitlines() if not line.startswith("on DATABASE_URL ")]
