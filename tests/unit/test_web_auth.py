"""Tokens: which hold, for whom, and how keys are fetched."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from starlette.datastructures import Headers, QueryParams

from models.errors import SettingsError
from models.settings import Settings
from web import auth
from web.auth import BadOwner, Caller, Forbidden, Unauthenticated, Verifier
from web.events.requests import Gate
from web.keys import KeySet, KeysUnavailable, load_secrets

SECRET = "a-secret-of-at-least-32-bytes-for-tests"
OTHER = "another-secret-of-at-least-32-bytes-here"


def settings(**values: Any) -> Settings:
    return Settings(**{"jwt_secret": SECRET, **values})


def token(secret: Any = SECRET, algorithm: str = "HS256", headers: Any = None, **claims: Any) -> str:
    body = {"sub": "ann", "exp": int(time.time()) + 60, **claims}
    body = {name: value for name, value in body.items() if value is not None}
    return jwt.encode(body, secret, algorithm=algorithm, headers=headers)


def unsigned(header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    parts = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)
    )
    return ".".join((*parts, ""))


def test_a_good_token_names_its_owner_and_scopes() -> None:
    caller = Verifier(settings()).caller(f"Bearer {token(scope='blotter:act-for x')}")
    assert caller == Caller("ann", frozenset({"blotter:act-for", "x"}))
    assert caller.owner(None) == "ann"


def test_scopes_may_be_a_list() -> None:
    assert Verifier(settings()).caller(f"bearer {token(scope=['a', 1])}").scopes == {"a"}


NOW = int(time.time())
BAD: dict[str, Callable[[], str]] = {
    "another secret": lambda: token(OTHER),
    "expired": lambda: token(exp=NOW - 3600),
    "without exp": lambda: token(exp=None),
    "without sub": lambda: token(sub=None),
    "not valid yet": lambda: token(nbf=NOW + 3600),
    "issued in the future": lambda: token(iat=NOW + 3600),
    "sub empty": lambda: token(sub=""),
    "sub too long": lambda: token(sub="x" * 257),
    "sub with a control character": lambda: token(sub="a\nb"),
    "sub with a NUL": lambda: token(sub="a\0b"),
    "sub with half a surrogate pair": lambda: token(sub="a\ud800"),
    "sub a number": lambda: unsigned({"alg": "HS256"}, {"sub": 1, "exp": NOW + 60}),
    "another algorithm": lambda: token(SECRET * 2, "HS512"),
    "no algorithm": lambda: unsigned({"alg": "none"}, {"sub": "ann", "exp": NOW + 60}),
    "an odd key id": lambda: unsigned({"alg": "RS256", "kid": 7}, {"sub": "ann", "exp": NOW + 60}),
    "cut off": lambda: token()[:-3],
    "altered": lambda: token().replace(".", ".A", 1),
    "no token": lambda: "abc",
    "too long": lambda: "a" * 9000,
    "not ASCII": lambda: "tökèn",
    "exp a text": lambda: unsigned({"alg": "HS256"}, {"sub": "ann", "exp": "soon"}),
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD.keys())
def test_a_bad_token_proves_nobody(make: Callable[[], str]) -> None:
    with pytest.raises(Unauthenticated) as refused:
        Verifier(settings()).caller(f"Bearer {make()}")
    assert refused.value.error in {"invalid_token", "invalid_request"}


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "Token x"])
def test_other_headers_prove_nobody(header: str | None) -> None:
    with pytest.raises(Unauthenticated):
        Verifier(settings()).caller(header)


def test_a_little_clock_skew_is_borne() -> None:
    Verifier(settings()).caller(f"Bearer {token(iat=NOW + 5, nbf=NOW + 5)}")


def test_audience_and_issuer_must_match_where_they_are_set() -> None:
    verifier = Verifier(settings(jwt_audience="blotter", jwt_issuer="https://id.example.com"))
    verifier.caller(f"Bearer {token(aud='blotter', iss='https://id.example.com')}")
    for claims in ({"aud": "other", "iss": "https://id.example.com"}, {"aud": "blotter", "iss": "x"}, {}):
        with pytest.raises(Unauthenticated):
            verifier.caller(f"Bearer {token(**claims)}")


def test_a_remembered_token_is_not_checked_again_until_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    # The token outlives any test: it expires by the verifier's clock alone.
    exp = NOW + 86_400
    now = [float(exp - 60)]
    verifier = Verifier(settings(), clock=lambda: now[0])
    checked: list[bytes] = []
    check = verifier._claims
    monkeypatch.setattr(verifier, "_claims", lambda raw: (checked.append(raw), check(raw))[1])
    header = f"Bearer {token(exp=exp)}"
    for _ in range(3):
        verifier.caller(header)
    assert len(checked) == 1
    now[0] += 61
    verifier.caller(header)
    assert len(checked) == 2


def test_a_remembered_token_is_checked_again_after_five_minutes() -> None:
    now = [float(NOW)]
    verifier = Verifier(settings(), clock=lambda: now[0])
    header = f"Bearer {token(exp=NOW + 3600)}"
    verifier.caller(header)
    verifier._secrets = (OTHER.encode(),)
    now[0] += 299
    verifier.caller(header)
    now[0] += 2
    with pytest.raises(Unauthenticated):
        verifier.caller(header)


def test_refused_tokens_are_not_remembered_and_the_rest_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_REMEMBERED", 3)
    verifier = Verifier(settings())
    with pytest.raises(Unauthenticated):
        verifier.caller(f"Bearer {token(OTHER)}")
    assert not verifier._known
    for number in range(10):
        verifier.caller(f"Bearer {token(sub=str(number))}")
        assert len(verifier._known) <= 3


@pytest.mark.parametrize(
    "claims", [{"exp": 10**400}, {"exp": -(10**400)}, {"sub": "x" * 257}, {"sub": "é" * 129}, {"sub": "a\0"}]
)
def test_claims_beyond_all_bounds_are_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        Verifier(settings()).caller(f"Bearer {token(**claims)}")


@pytest.mark.parametrize("expires", [10**400, -(10**400)])
def test_who_asks_for_events_is_checked_the_same(expires: int) -> None:
    gate = Gate(settings())
    with pytest.raises(Unauthenticated):
        gate.check(Headers({"authorization": f"Bearer {token(exp=expires)}"}), "c1", QueryParams("offset=-1"))


def test_a_subject_of_256_bytes_is_taken() -> None:
    assert Verifier(settings()).caller(f"Bearer {token(sub='é' * 128)}").subject == "é" * 128


def test_acting_for_another_needs_the_scope() -> None:
    backend = Caller("backend", frozenset({"blotter:act-for"}))
    assert backend.owner("ann") == "ann"
    assert backend.owner("Zoë".encode().decode("latin-1")) == "Zoë"
    assert backend.owner("Zo%C3%AB%20100%25") == "Zoë 100%"
    with pytest.raises(Forbidden):
        Caller("bob", frozenset()).owner("ann")
    for bad in ("", "x" * 257, "a\x7fb", "\xff", "a%00b", "%ff"):
        with pytest.raises(BadOwner):
            backend.owner(bad)


def test_no_key_no_start_unless_embedded() -> None:
    with pytest.raises(SettingsError, match="BLOTTER_JWT_SECRET"):
        Verifier(Settings())
    with pytest.raises(Unauthenticated):
        Verifier(Settings(embedded=True)).caller(f"Bearer {token()}")


def test_all_keys_of_the_file_are_accepted_the_first_signs(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{OTHER}\n\n  {SECRET}  \n")
    configured = Settings(jwt_secret_file=file)
    assert load_secrets(configured) == (OTHER.encode(), SECRET.encode())
    for secret in (OTHER, SECRET):
        assert Verifier(configured).caller(f"Bearer {token(secret)}").subject == "ann"


@pytest.mark.parametrize("text", ["", "\n \n", "short", f"{SECRET}\nshort"])
def test_a_bad_key_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(SettingsError, match="BLOTTER_JWT_SECRET_FILE"):
        Verifier(Settings(jwt_secret_file=file))
    with pytest.raises(SettingsError, match="cannot be read"):
        Verifier(Settings(jwt_secret_file=tmp_path / "missing"))


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())


def jwks() -> dict[str, jwt.PyJWK]:
    keys = {}
    for name, algorithm, private in (("r", "RS256", RSA), ("e", "ES256", EC)):
        made = jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key(), as_dict=True)  # type: ignore[attr-defined]
        keys[name] = jwt.PyJWK({**made, "kid": name, "alg": algorithm, "use": "sig"})
    return keys


def by_key_set(monkeypatch: pytest.MonkeyPatch, fetch: Callable[[], Any] = jwks, **values: Any) -> Verifier:
    monkeypatch.setattr(auth, "fetch_jwks", lambda url: fetch)
    return Verifier(
        Settings(
            jwks_url="https://id.example.com/keys", jwt_audience="blotter", jwt_issuer="https://i", **values
        )
    )


@pytest.mark.parametrize(("algorithm", "kid", "key"), [("RS256", "r", RSA), ("ES256", "e", EC)])
def test_public_keys_check_what_they_signed(monkeypatch: Any, algorithm: str, kid: str, key: Any) -> None:
    verifier = by_key_set(monkeypatch)
    good = {"aud": "blotter", "iss": "https://i", "headers": {"kid": kid}}
    assert verifier.caller(f"Bearer {token(key, algorithm, **good)}").subject == "ann"
    for claims in (
        {**good, "aud": "x"},
        {**good, "iss": "x"},
        {**good, "headers": {"kid": "unknown"}},
        {**good, "headers": {}},
    ):
        with pytest.raises(Unauthenticated):
            verifier.caller(f"Bearer {token(key, algorithm, **claims)}")


def test_a_public_key_never_checks_a_shared_secrets_token(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = by_key_set(monkeypatch)
    forged = token(SECRET, aud="blotter", iss="https://i", headers={"kid": "r"})
    with pytest.raises(Unauthenticated):
        verifier.caller(f"Bearer {forged}")


def test_one_key_never_checks_the_others_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = by_key_set(monkeypatch)
    with pytest.raises(Unauthenticated):
        verifier.caller(f"Bearer {token(EC, 'ES256', aud='blotter', iss='https://i', headers={'kid': 'r'})}")


class Source:
    """A key set's address that can be taken away, and counts."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.fetches = 0
        self.up = True
        self.keys = jwks()

    def __call__(self) -> Mapping[str, jwt.PyJWK]:
        self.fetches += 1
        if not self.up:
            raise jwt.PyJWKClientConnectionError("down")
        return self.keys


def test_keys_are_fetched_once_in_five_minutes() -> None:
    source = Source()
    keys = KeySet(source, lambda: source.now)
    for _ in range(5):
        assert keys.key("r") is not None
    source.now += 299
    assert keys.key("e") is not None
    assert source.fetches == 1
    source.now += 2
    assert keys.key("r") is not None
    assert source.fetches == 2


def test_the_last_keys_stay_in_use_while_the_address_is_down() -> None:
    source = Source()
    keys = KeySet(source, lambda: source.now)
    keys.key("r")
    source.up = False
    source.now += 3600
    for _ in range(5):
        assert keys.key("r") is not None
    assert source.fetches == 2


def test_unknown_key_ids_fetch_at_most_once_in_ten_seconds() -> None:
    source = Source()
    keys = KeySet(source, lambda: source.now)
    for number in range(100):
        assert keys.key(f"invented-{number}") is None
    assert source.fetches == 1
    source.keys = {**source.keys, "new": source.keys["r"]}
    assert keys.key("new") is None
    source.now += 10
    assert keys.key("new") is not None
    assert source.fetches == 2


def test_without_ever_a_key_nobody_can_be_checked() -> None:
    source = Source()
    source.up = False
    keys = KeySet(source, lambda: source.now)
    for _ in range(3):
        with pytest.raises(KeysUnavailable):
            keys.key("r")
    assert source.fetches == 1
    source.up = True
    source.now += 10
    assert keys.key("r") is not None


def test_a_key_sets_address_must_be_http() -> None:
    with pytest.raises(SettingsError, match="BLOTTER_JWKS_URL"):
        Verifier(Settings(jwks_url="file:///etc/passwd", jwt_audience="a", jwt_issuer="i"))


def test_keys_come_by_http_and_only_those_for_signatures() -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    from web.keys import fetch_jwks

    public = [dict(key._jwk_data) for key in jwks().values()] + [
        {"kty": "oct", "k": "AAAA", "kid": "x", "use": "enc"}
    ]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/keys" else 500)
            self.end_headers()
            self.wfile.write(json.dumps({"keys": public}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            base = f"http://127.0.0.1:{server.server_port}"
            assert set(fetch_jwks(f"{base}/keys")()) == {"r", "e"}
            with pytest.raises(KeysUnavailable):
                KeySet(fetch_jwks(f"{base}/broken")).key("r")
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("drips", ["head", "body"])
def test_a_server_that_drips_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch, drips: str) -> None:
    """Each byte comes well within a timeout, and the answer never ends."""
    from web import keys

    monkeypatch.setattr(keys, "_FETCH_S", 0.3)
    gone = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + (b"\r\n{" if drips == "body" else b"x: "))
            while not gone.wait(0.05):
                connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=[listener], daemon=True)
        thread.start()
        began = time.monotonic()
        with pytest.raises(jwt.PyJWTError):
            keys.fetch_jwks(f"http://127.0.0.1:{listener.getsockname()[1]}/")()
        assert time.monotonic() - began < 5
        gone.set()
        thread.join()


@pytest.mark.parametrize("answer", [b"[]", b"{", b"{}", b'{"keys": [{}]}', b"null", b"\xff"])
def test_an_answer_that_is_no_key_set_leaves_the_last_keys_in_use(answer: bytes) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    from web.keys import fetch_jwks

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            fetch = fetch_jwks(f"http://127.0.0.1:{server.server_port}/")
            source = Source()
            keys = KeySet(lambda: source() if source.fetches == 0 else fetch(), lambda: source.now)
            assert keys.key("r") is not None
            source.now += 3600
            assert keys.key("r") is not None
            with pytest.raises(KeysUnavailable):
                KeySet(fetch).key("r")
        finally:
            server.shutdown()
            thread.join()
