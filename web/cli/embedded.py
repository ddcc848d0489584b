"""Which servers `blotter up` brings itself: each one whose address the environment does not give."""

from __future__ import annotations

from collections.abc import Mapping

from web.cli.folder import Folder
from web.cli.postgres_server import PostgresServer
from web.cli.valkey_server import ValkeyServer

Server = PostgresServer | ValkeyServer


def missing_servers(folder: Folder, environ: Mapping[str, str]) -> dict[str, Server]:
    """The variable that shall carry the address → the server to start for it, in the order of their start."""
    servers: dict[str, Server] = {}
    if not environ.get("DATABASE_URL"):
        servers["DATABASE_URL"] = PostgresServer(
            folder.root / "postgres", folder.port("postgres"), folder.secret("postgres")
        )
    for variable, role in (("REDIS_URL", "buffer"), ("CELERY_BROKER_URL", "broker")):
        if not environ.get(variable):
            servers[variable] = ValkeyServer(
                role, folder.root / role, folder.port(role), folder.secret(role), role
            )
    return servers
