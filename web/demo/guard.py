"""Who may use the demo: this machine's own browser, on the demo's own page. Pure; everything is passed in.

What each check is against:
- bound to loopback, asked from loopback: the rest of the network;
- a loopback name in `Host`: DNS rebinding, where a foreign page's own name is made to point at 127.0.0.1 (the browser
  then takes our answers for that page's, but it sends that page's name);
- no trace of a proxy: one on this machine asks from loopback on behalf of anybody;
- `Origin` is the page's own address, and `Sec-Fetch-Site` does not say otherwise: other sites' pages, and other local
  servers' pages, which may send but not read.

Not against other users of this machine: whoever can connect to loopback gets a demo owner of his own, nobody else's.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from werkzeug.datastructures import Headers

_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_PROXIES: Final = (
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Real-Ip",
    "Via",
)


def is_loopback(address: str) -> bool:
    """Whether ``address`` (a name or an IP) is this machine's own."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def is_local(remote: str | None, headers: Headers) -> bool:
    """Whether a request came from this machine, under a loopback name, through nobody. ``remote``: the peer's IP."""
    if remote is None or not is_loopback(remote):
        return False
    if any(name in headers for name in _PROXIES):
        return False
    return _hostname(headers.get("Host", "")) in _NAMES


def is_own_page(headers: Headers) -> bool:
    """Whether the page that asks was served at the address it asks."""
    return headers.get("Origin") == f"http://{headers.get('Host')}" and headers.get(
        "Sec-Fetch-Site", "same-origin"
    ) in ("same-origin", "none")


def _hostname(host: str) -> str | None:
    if not host or set(host) & set("/?#@\\ \t,"):
        return None
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
