"""`blotter token`: a bearer token for the API."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from web.auth import ACT_FOR, OPERATE
from web.cli.errors import CannotRun
from web.cli.options import KEYS, Owner, data_option, locate
from web.cli.session import json_option, load_settings, print_json

if TYPE_CHECKING:
    from models.settings import Settings

DAY_S = 86_400
UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": DAY_S}
LONGEST_S = 366 * DAY_S


class Duration(click.ParamType[int]):
    """Seconds, or a number with a unit: 90, 90s, 15m, 24h, 7d."""

    name = "duration"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d{1,9})([smhd]?)", value)
        seconds = int(match[1]) * UNITS_S[match[2]] if match else 0
        if not 1 <= seconds <= LONGEST_S:
            self.fail(f"{value!r} is not a time from 1s to 366d, such as 15m or 24h", param, ctx)
        return seconds


def mint(owner: str, scopes: tuple[str, ...], ttl_s: int, now_s: int, settings: Settings) -> str:
    """An HS256 token for `owner`, signed with the first of the keys that web takes.

    Raises SettingsError for a key that web would refuse too, CannotRun where there is none.
    """
    import jwt

    from web.keys import load_secrets

    secrets = load_secrets(settings)
    if not secrets:
        raise CannotRun(f"no key to sign with: set {' or '.join(KEYS)}")
    claims = {
        "sub": owner,
        "iat": now_s,
        "exp": now_s + ttl_s,
        "scope": " ".join(scopes) or None,
        "aud": settings.jwt_audience,
        "iss": settings.jwt_issuer,
    }
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, secrets[0], algorithm="HS256")


@click.command(epilog="Example: blotter token chat-backend --scope blotter:act-for --ttl 7d")
@click.argument("owner", type=Owner(), required=False)
@click.option("--ops", is_flag=True, help=f"For the page /ops: the scope {OPERATE}; OWNER may be left out.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice((ACT_FOR, OPERATE)),
    multiple=True,
    help=f"What the token may do beside: {ACT_FOR}, name the owner of each call; {OPERATE}, read the figures. May be repeated.",
)
@click.option(
    "--ttl", "ttl_s", type=Duration(), default="24h", show_default=True, help="How long it is valid."
)
@json_option
@data_option
def command(
    owner: str | None, ops: bool, scopes: tuple[str, ...], ttl_s: int, as_json: bool, data: Path | None
) -> None:
    """Print a bearer token for OWNER.

    Exit code: 0 printed, 2 there is no key to sign it with, or web would not take it; wrong usage.
    """
    if ops:
        owner, scopes = owner or "operator", tuple(dict.fromkeys((*scopes, OPERATE)))
    if owner is None:
        raise click.MissingParameter(param_hint="OWNER", param_type="argument")
    settings = load_settings(locate(data, one_of=KEYS))
    now_s = int(time.time())
    token = mint(owner, scopes, ttl_s, now_s, settings)
    if as_json:
        print_json({"token": token, "owner": owner, "scopes": list(scopes), "expiresAt": now_s + ttl_s})
    else:
        click.echo(token)
