"""Where a request's body ends, and what is refused because two servers in a row might not agree on it (RFC 9112, 6.1, 6.3).

hyper, below granian, sees to most of it before we hear of the request; tests/security/test_framing.py asks over the wire:

    Content-Length with Transfer-Encoding     the chunks count, the length is taken out, the connection closed behind the
                                              answer, whichever came first: what 6.3 asks of a server that answers at all
    a length twice, unlike, or no number;     400, and closed
    chunked not last, or unknown; folded
    "gzip, chunked", "chunked, chunked"       handed on, with the chunks taken off and the rest as it came

The last line is ours: we would keep compressed bytes as text, and who reads "chunked" twice ends the body elsewhere.
"""

from __future__ import annotations


def is_plain(coding: str) -> bool:
    """Whether ``coding``, all of Transfer-Encoding's values joined by commas, is "chunked" and nothing else."""
    return coding.strip().lower() == "chunked"


#: What a refused client is told.
DETAIL = "Transfer-Encoding must be chunked and nothing else."
