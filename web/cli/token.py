"""`blotter token`: a bearer token for the API."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

import click

from web.cli.errors import CannotRun
from web.cli.options import context, data_option
from web.cli.session import json_option, print_json

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


def mint(owner: str, scopes: tuple[str, ...], ttl_s: int, now_s: int, environ: Mapping[str, str]) -> str:
    """An HS256 token for `owner`, signed with the key that `environ` names. Raises CannotRun when there is none."""
    import jwt

    claims: dict[str, object] = {"sub": owner, "iat": now_s, "exp": now_s + ttl_s}
    if scopes:
        claims["scope"] = " ".join(scopes)
    for claim, name in (("aud", "BLOTTER_JWT_AUDIENCE"), ("iss", "BLOTTER_JWT_ISSUER")):
        if environ.get(name):
            claims[claim] = environ[name]
    return jwt.encode(claims, signing_key(environ), algorithm="HS256")


def signing_key(environ: Mapping[str, str]) -> str:
    """The first key of BLOTTER_JWT_SECRET_FILE (one a line), else BLOTTER_JWT_SECRET."""
    if environ.get("BLOTTER_JWT_SECRET_FILE"):
        path = Path(environ["BLOTTER_JWT_SECRET_FILE"])
        try:
            keys = path.read_text().split()
        except OSError as error:
            raise CannotRun(f"the key file {path} cannot be read: {error.strerror}") from None
        if not keys:
            raise CannotRun(f"the key file {path} is empty; put a key of at least 32 bytes into it")
        return keys[0]
    return environ["BLOTTER_JWT_SECRET"]


@click.command(epilog="Example: blotter token chat-backend --scope blotter:act-for --ttl 7d")
@click.argument("owner", required=False)
@click.option(
    "--ops", is_flag=True, help="For the page /ops: the scope blotter:operate; OWNER may be left out."
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="A scope the token carries, such as blotter:act-for or blotter:operate; may be repeated.",
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

    Exit code: 0 printed, 1 there is no key to sign it with, 2 wrong usage.
    """
    if ops:
        owner, scopes = owner or "operator", tuple(dict.fromkeys((*scopes, "blotter:operate")))
    if owner is None:
        raise click.MissingParameter(param_hint="OWNER", param_type="argument")
    if not owner.strip():
        raise click.BadParameter("must not be empty", param_hint="OWNER")
    environ = context(data, "BLOTTER_JWT_SECRET_FILE", "BLOTTER_JWT_SECRET")
    now_s = int(time.time())
    token = mint(owner, scopes, ttl_s, now_s, environ)
    if as_json:
        print_json({"token": token, "owner": owner, "scopes": list(scopes), "expiresAt": now_s + ttl_s})
    else:
        click.echo(token)
