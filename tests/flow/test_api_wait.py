"""`Prefer: wait=N`: the answer is held until the save is stored, and waiting never takes more than its share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.flow.api import Api, fresh
from web.app import create_app

MESSAGE = {"id": "m1", "role": "user", "content": "x"}


@contextmanager
def flushing(api: Api, conversation: str) -> Iterator[None]:
    """A worker's stand-in: commits what is dirty, again and again."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(0.005):
            api.rig.flush(conversation)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_save_that_waits_is_answered_when_it_is_stored(api: Api) -> None:
    conversation = fresh()
    with flushing(api, conversation):
        saved = api("POST", f"{conversation}/messages", MESSAGE, headers={"Prefer": "wait=10"})
    assert (saved.status, saved.body["state"]) == (200, "stored")
    assert saved.headers["Preference-Applied"] == "wait=10"
    assert api("GET", f"{conversation}/messages/m1").body["stored"] is True


def test_a_sync_waits_for_all_of_it(api: Api) -> None:
    conversation = fresh()
    with flushing(api, conversation):
        body = {"messages": [{**MESSAGE, "id": f"m{number}"} for number in range(5)]}
        synced = api("POST", f"{conversation}/sync", body, headers={"Prefer": "wait=10"})
    assert (synced.status, synced.body["state"]) == (200, "stored")
    assert {item["status"] for item in synced.body["items"]} == {200}


def test_after_the_time_asked_for_the_answer_is_buffered(api: Api) -> None:
    began = time.monotonic()
    saved = api("POST", f"{fresh()}/messages", MESSAGE, headers={"Prefer": "wait=1"})
    assert (saved.status, saved.body["state"]) == (202, "buffered")
    assert saved.headers["Preference-Applied"] == "wait=1"
    assert 0.9 < time.monotonic() - began < 5


def test_creation_and_deletion_wait_too(api: Api) -> None:
    conversation = fresh()
    with flushing(api, conversation):
        body = {"id": conversation, "title": "T"}
        created = api("POST", "/api/conversations", body, headers={"Prefer": "wait=10"})
        deleted = api("DELETE", f"{conversation}/messages/none", headers={"Prefer": "wait=10"})
    assert (created.status, created.body["state"]) == (201, "stored")
    assert (deleted.status, deleted.headers["Preference-Applied"]) == (204, "wait=10")


def test_a_refused_save_is_not_held(api: Api) -> None:
    conversation = fresh()
    api("POST", f"{conversation}/messages", {**MESSAGE, "revision": 2})
    refused = api(
        "POST", f"{conversation}/messages", {**MESSAGE, "revision": 1}, headers={"Prefer": "wait=10"}
    )
    assert refused.status == 409


@pytest.mark.parametrize(("threads", "held"), [(8, 2), (4, 1), (3, 0)])
def test_waiters_hold_a_quarter_of_the_threads(api: Api, threads: int, held: int) -> None:
    settings = api.rig.pipeline.settings.model_copy(
        update={"web_threads": threads, "jwt_secret": "a-secret-of-at-least-32-bytes-for-tests"}
    )
    many = Api(api.rig, create_app(settings, api.rig.pipeline))
    conversation = fresh()
    applied: list[bool] = []

    def wait(number: int) -> None:
        one = Api(api.rig, many.app)
        message = {**MESSAGE, "id": f"m{number}"}
        saved = one("POST", f"{conversation}/messages", message, headers={"Prefer": "wait=1"})
        assert saved.status == 202
        applied.append("Preference-Applied" in saved.headers)

    waiting = [threading.Thread(target=wait, args=(number,)) for number in range(5)]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    assert (sum(applied), len(applied)) == (held, 5)
