"""Forged tokens at the front door: each call of the API refuses each of them, before anything else is looked at.

What makes a token hold is tested in tests/unit/test_web_auth.py; here stands what intruders try.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from flask.testing import FlaskClient

from models.settings import Settings
from tests.security.bodies import BODIES, ROUTES, Route
from web import auth
from web.app import create_app

SECRET = "a-secret-of-at-least-32-bytes-for-tests"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
DER = KEY.public_key().public_bytes(
    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
)
JWK = jwt.get_algorithm_by_name("RS256").to_jwk(KEY.public_key(), as_dict=True)
GUARDED = [route for route in ROUTES if route.guarded]


class Untouched:
    """A pipeline that no intruder may reach."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the pipeline was reached: {name}")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    """A web that takes both kinds of keys: a shared secret, and a key set with one RSA key."""
    keys = {"r": jwt.PyJWK({**JWK, "kid": "r", "alg": "RS256", "use": "sig"})}
    monkeypatch.setattr(auth, "fetch_jwks", lambda url: lambda: keys)
    given: dict[str, Any] = {"jwt_secret": SECRET, "jwks_url": "https://id.example.com/keys"}
    settings = Settings(**given | {"jwt_audience": "blotter", "jwt_issuer": "https://i"})
    with create_app(settings, Untouched()).test_client() as made:  # type: ignore[arg-type]
        yield made


def claims(**more: Any) -> dict[str, Any]:
    good = {"sub": "ann", "exp": int(time.time()) + 600, "aud": "blotter", "iss": "https://i"}
    return {name: value for name, value in (good | more).items() if value is not None}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed_by_hand(header: dict[str, Any], secret: bytes) -> str:
    """HS256 with whatever key: libraries refuse to sign with a public one."""
    import hashlib
    import hmac

    head = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims()).encode())}"
    return f"{head}.{b64(hmac.digest(secret, head.encode(), hashlib.sha256))}"


def by_secret(**more: Any) -> str:
    return jwt.encode(claims(**more), SECRET, "HS256")


NOW = int(time.time())
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
FORGED = {
    "alg none": signed_by_hand({"alg": "none"}, b"x").rpartition(".")[0] + ".",
    "alg None with a signature": signed_by_hand({"alg": "None"}, SECRET.encode()),
    "no alg": signed_by_hand({"typ": "JWT"}, SECRET.encode()),
    "another secret": jwt.encode(claims(), "another-secret-of-at-least-32-bytes-!", "HS256"),
    "an empty secret": signed_by_hand({"alg": "HS256"}, b""),
    "HS256 signed with the public key (PEM)": signed_by_hand({"alg": "HS256", "kid": "r"}, PEM),
    "HS256 signed with the public key (PEM, stripped)": signed_by_hand({"alg": "HS256"}, PEM.strip()),
    "HS256 signed with the public key (DER)": signed_by_hand({"alg": "HS256", "kid": "r"}, DER),
    "HS256 signed with the public key's modulus": signed_by_hand({"alg": "HS256", "kid": "r"}, JWK["n"].encode()),
    "RS256 said, signed with the secret": signed_by_hand({"alg": "RS256", "kid": "r"}, SECRET.encode()),
    "RS256 with another key": jwt.encode(claims(), OTHER_KEY, "RS256", headers={"kid": "r"}),
    "its own key in the header (jwk)": jwt.encode(claims(), OTHER_KEY, "RS256", headers={"kid": "r", "jwk": JWK}),
    "its own key's address in the header (jku)": jwt.encode(
        claims(), OTHER_KEY, "RS256", headers={"kid": "x", "jku": "https://evil.example.com/keys"}
    ),
    "a path for a key id": jwt.encode(claims(), OTHER_KEY, "RS256", headers={"kid": "../../../dev/null"}),
    "another audience": by_secret(aud="other"),
    "no audience": by_secret(aud=None),
    "another issuer": by_secret(iss="https://evil.example.com"),
    "no issuer": by_secret(iss=None),
    "expired": by_secret(exp=NOW - 3600),
    "never expires": by_secret(exp=None),
    "not valid yet": by_secret(nbf=NOW + 3600),
    "no subject": by_secret(sub=None),
    "critical extension": jwt.encode(claims(), SECRET, "HS256", headers={"crit": ["exp"], "exp": 1}),
}  # fmt: skip


def try_it(client: FlaskClient, route: Route, token: str) -> int:
    response = client.open(
        route.to("c1"),
        method=route.method,
        json=BODIES.get(route.id),
        headers={"Authorization": f"Bearer {token}"},
    )
    return response.status_code


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED.keys())
def test_no_call_takes_a_forged_token(client: FlaskClient, token: str) -> None:
    assert {try_it(client, route, token) for route in GUARDED} == {401}


@pytest.mark.parametrize("kind", ["HS256", "RS256"])
def test_no_bit_of_a_token_may_be_another(client: FlaskClient, kind: str) -> None:
    """Every bit of the signature and one of each character before it."""
    good = by_secret() if kind == "HS256" else jwt.encode(claims(), KEY, "RS256", headers={"kid": "r"})
    context = client.application.extensions["blotter"]
    assert context.verifier.caller(f"Bearer {good}").subject == "ann"
    head, payload, signature = good.split(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)))
    flipped = []
    for bit in range(0, len(raw) * 8, 1 if kind == "HS256" else 13):
        raw[bit // 8] ^= 1 << bit % 8
        flipped.append(f"{head}.{payload}.{b64(bytes(raw))}")
        raw[bit // 8] ^= 1 << bit % 8
    letters = f"{head}.{payload}"
    for at, letter in enumerate(letters):
        if letter != ".":
            flipped.append(f"{letters[:at]}{'A' if letter != 'A' else 'B'}{letters[at + 1 :]}.{signature}")
    for token in flipped:
        with pytest.raises(auth.Unauthenticated):
            context.verifier.caller(f"Bearer {token}")


@pytest.mark.parametrize(
    "where", [{"query_string": "access_token=T"}, {"query_string": "token=T"}, {"headers": {"Cookie": "token=T"}},
              {"headers": {"Authorization": "Basic T"}}, {"headers": {"X-Authorization": "Bearer T"}}]
)  # fmt: skip
def test_a_token_elsewhere_than_in_its_header_is_none(client: FlaskClient, where: dict[str, Any]) -> None:
    """So no other site's form or picture can call with what the browser sends by itself."""
    token = by_secret()
    sent = json.loads(json.dumps(where).replace("T", token)) if "headers" not in where else {
        "headers": {name: value.replace("T", token) for name, value in where["headers"].items()}
    }  # fmt: skip
    assert client.get("/api/conversations", **sent).status_code == 401
