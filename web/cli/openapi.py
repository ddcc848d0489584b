"""`blotter openapi`: the API's description."""

from __future__ import annotations

from pathlib import Path

import click

from web.cli.options import context, data_option
from web.cli.session import asking, print_json


@click.command(epilog="Example: blotter openapi > openapi.json")
@data_option
def command(data: Path | None) -> None:
    """Print the OpenAPI 3.1 document of the HTTP API, as /openapi.json answers it.

    Needs no running Blotter. With --data, the document names that one's address as its server.

    Exit code: 0 printed, 2 no Blotter runs in the folder named.
    """
    from web.openapi import document

    described = document()
    if data is not None:
        with asking():
            described = {**described, "servers": [{"url": context(data, "BASE_URL")["BASE_URL"]}]}
    print_json(described)
