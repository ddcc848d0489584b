"""`blotter openapi`: the API's description."""

from __future__ import annotations

from pathlib import Path

import click

from web.cli.options import data_option, locate
from web.cli.session import print_json


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
        described = {**described, "servers": [{"url": locate(data, "BASE_URL").environ["BASE_URL"]}]}
    print_json(described)
