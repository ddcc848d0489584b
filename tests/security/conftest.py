"""The HTTP API on servers of its own, for intruders and for bad input."""

from __future__ import annotations

from tests.flow.conftest import api

__all__ = ["api"]
