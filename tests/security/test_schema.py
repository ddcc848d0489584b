"""Every call of the published OpenAPI document with what schemathesis makes of it: valid requests, and invalid ones.

All its checks: no 5xx; every status, header, media type and body as documented; what the schema forbids is refused, what it
allows is taken; without a token nothing works. A few examples a call here, many at night.
"""

from __future__ import annotations

import os
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode

from tests.flow.api import Api, token
from tests.security.bodies import ROUTES, Route

EXAMPLES = 300 if os.environ.get("BLOTTER_TEST_TIER") == "full" else 10


@pytest.fixture(scope="module")
def schema(api: Api) -> Any:
    # 410: one example deletes what the next one names.
    taken = {"expected-statuses": ["2xx", "304", "404", "409", "410"]}
    # NUL and half surrogate pairs: a schema cannot forbid them; tests/flow/test_api_bad_input.py has them refused by field.
    told = {"checks": {"positive_data_acceptance": taken}, "generation": {"allow-x00": False}}
    config = schemathesis.Config.from_dict(told)
    return schemathesis.openapi.from_wsgi("/openapi.json", api.app, config=config)


def beyond_the_schema(body: Any) -> bool:
    """Refused, though JSON Schema cannot say so: an integer written as 7.0 or beyond 64 bits, a sync of nothing."""
    if isinstance(body, dict):
        of_items = body.keys() & {"messages", "toolResults", "artifacts", "conversation"}
        if (not body or of_items) and not any(body[name] for name in of_items):
            return True
    return beyond(body)


def beyond(value: Any) -> bool:
    """The same of what lies deeper."""
    if isinstance(value, dict):
        named = [value.get(name) for name in ("revision", "offset", "part", "index")]
        return any(isinstance(one, float) for one in named) or any(map(beyond, value.values()))
    if isinstance(value, list):
        return any(map(beyond, value))
    return isinstance(value, int) and not -(2**63) <= value < 2**63


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "invalid"])
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.id)
def test_a_call_is_what_its_document_says(schema: Any, route: Route, mode: GenerationMode) -> None:
    operation = schema[route.path][route.method]
    headers = {"Authorization": f"Bearer {token(scope='blotter:operate blotter:act-for')}"}
    tried = 0

    @hypothesis.settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
                         suppress_health_check=list(hypothesis.HealthCheck))  # fmt: skip
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def holds(case: Any) -> None:
        nonlocal tried
        hypothesis.assume(mode is GenerationMode.NEGATIVE or not beyond_the_schema(case.body))
        # Whom it is about is what tests/security/test_owners.py is about.
        case.headers.pop("Blotter-Owner", None)
        tried += 1
        case.call_and_validate(headers=headers if route.guarded else {})

    try:
        holds()
    except hypothesis.errors.Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE
        assert not route.body
    else:
        assert tried
