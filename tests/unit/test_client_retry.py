"""When the client tries again: decisions are values, so every one can be asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from blotter_client.errors import (
    KINDS,
    ApiError,
    BlotterError,
    NotReached,
    NotSent,
    Unreachable,
    from_problem,
)
from blotter_client.retry import LONGEST_WAIT_S, Again, GiveUp, RetryPolicy, decide, retry_after_s
from hypothesis import given, strategies as st

from web import problems

POLICY = RetryPolicy(base_s=0.1, cap_s=5.0, patience_s=60.0)


def answer(status: int, *, retry_after: float | None = None) -> ApiError:
    return from_problem(status, None, retry_after_s=retry_after)


def decided(
    failure: BlotterError, *, tries: int = 1, elapsed_s: float = 0.0, chance: float = 1.0
) -> Again | GiveUp:
    return decide(POLICY, failure, tries=tries, elapsed_s=elapsed_s, chance=chance)


# 507, 520 to 529: what proxies say of a server that is away.
@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 507, 520, 522, 524, 529])
def test_what_passes_is_tried_again(status: int) -> None:
    assert decided(answer(status)) == Again(0.1)


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 409, 410, 413, 415, 422, 501, 505])
def test_what_does_not_pass_is_final(status: int) -> None:
    assert decided(answer(status)) == GiveUp("final")


def test_an_unknown_outcome_is_a_reason_to_repeat_and_a_bad_value_is_none() -> None:
    assert decided(Unreachable("no answer")) == Again(0.1)
    assert decided(NotSent("no JSON")) == GiveUp("final")
    assert decided(NotReached("nobody was ever there")) == GiveUp("final")


def test_pauses_double_up_to_the_cap() -> None:
    waits = [decided(Unreachable(""), tries=tries) for tries in range(1, 9)]
    assert waits == [Again(s) for s in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0)]


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_jitter_is_full_and_no_number_of_tries_overflows(tries: int, chance: float) -> None:
    decision = decided(Unreachable(""), tries=tries, chance=chance)
    assert isinstance(decision, Again)
    assert 0 <= decision.wait_s <= 5.0
    whole = decided(Unreachable(""), tries=tries)
    assert isinstance(whole, Again)
    assert decision.wait_s == pytest.approx(chance * whole.wait_s)


@given(st.floats(0, 50), st.floats(0, 1))
def test_never_sooner_than_retry_after(seconds: float, chance: float) -> None:
    decision = decided(answer(503, retry_after=seconds), chance=chance)
    assert isinstance(decision, Again)
    assert decision.wait_s >= seconds


def test_patience_ends_before_a_wait_that_would_exceed_it() -> None:
    assert decided(answer(503, retry_after=10.0), elapsed_s=49.9, chance=0.0) == Again(10.0)
    assert decided(answer(503, retry_after=10.0), elapsed_s=50.1, chance=0.0) == GiveUp("patience")
    assert decided(answer(429, retry_after=1e9), chance=0.0) == GiveUp("patience")
    assert POLICY.patience_s < LONGEST_WAIT_S


def test_retry_after_is_a_number_or_a_date() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert retry_after_s("7", now) == 7.0
    assert retry_after_s("Fri, 02 Jan 2026 03:04:15 GMT", now) == 10.0
    assert (
        retry_after_s("Fri, 02 Jan 2026 03:04:15 GMT", now.astimezone(timezone(timedelta(hours=2)))) == 10.0
    )
    assert retry_after_s("Fri, 02 Jan 2026 03:04:00 GMT", now) == 0.0
    for nothing in (None, "", "soon", "-1", "1.5", "²", "Fri, 02 Jan 99999999999 03:04:15 GMT"):
        assert retry_after_s(nothing, now) is None


def test_every_problem_has_a_class_of_its_own() -> None:
    known = set(problems.KINDS) - {"other"}
    assert set(KINDS) == known
    for slug, kind in problems.KINDS.items():
        body = {"type": kind.type, "title": kind.title, "detail": kind.meaning, "length": 3}
        error = from_problem(kind.status, body)
        assert (error.status, error.length, error.title) == (kind.status, 3, kind.title)
        assert type(error) is KINDS.get(slug, ApiError)


def test_answers_that_are_no_problem_documents_keep_their_status() -> None:
    assert [type(from_problem(status, None)).__name__ for status in (429, 500, 599, 418)] == [
        "RateLimited",
        "ServerError",
        "ServerError",
        "ApiError",
    ]


@pytest.mark.parametrize("errors", [["upstream"], None, {"detail": "x"}, 5, "away"])
def test_what_a_proxy_answers_in_its_place_is_an_error_like_any_other(errors: object) -> None:
    body = {"errors": errors, "limit": "none", "length": None, "current": ["x"], "type": 7}
    error = from_problem(502, body)
    assert (error.errors, error.limit, error.length, error.current) == ([], None, None, None)
    assert decided(error) == Again(0.1)


def test_an_error_names_the_fields_and_quotes_no_chat() -> None:
    error = from_problem(
        422,
        {
            "type": "/problems/invalid",
            "title": "Invalid",
            "detail": "x",
            "errors": [{"field": "id", "message": "bad"}],
        },
    )
    assert str(error) == "422 Invalid: x (id: bad)"
