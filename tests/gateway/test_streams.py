"""The stream of events: each event once, in order, and an end that a client can tell apart."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession, web

from finetune_gateway.backends.holding import Backends
from finetune_gateway.kube.caller import Caller
from finetune_gateway.kube_errors import KubeError
from finetune_gateway.problems import unauthenticated
from finetune_gateway.routes import open_streams
from finetune_gateway.routes.app import build_app
from finetune_gateway.routes.context import AUTHENTICATE, OPEN_STREAMS, Services
from finetune_gateway.routes.fine_tunes import ROUTES as FINE_TUNES
from finetune_gateway.routes.jobs import ROUTES as JOBS
from finetune_web import server_sent_events
from tests.support.gateway_app import MemoryFiles, gateway_settings
from tests.support.gateway_cluster import MemoryCluster

SPEC = {"model": "ada", "trainingFile": "s3://bucket/train.jsonl"}
OLD, NEW = (
    "/v1/fine-tunes/ft-a/events?stream=true",
    "/v1/fine_tuning/jobs/ftjob-a/events?stream=true",
)
HEADERS = {"Authorization": "Bearer eyJ.eyJ.c2ln"}


def an_entry(seq: int, message: str = "", level: str = "info") -> dict[str, Any]:
    at = f"2026-11-21T12:00:{seq % 60:02}Z"
    message = message or f"event {seq}"
    return {"seq": seq, "at": at, "level": level, "reason": "X", "message": message}


class Gateway:
    """The application over a cluster in memory, and a client."""

    def __init__(
        self, app: web.Application, session: ClientSession, cluster: MemoryCluster
    ) -> None:
        self.app = app
        self.cluster = cluster
        self.caller = Caller({"Authorization": HEADERS["Authorization"]})
        self._session = session

    async def get(self, path: str = OLD, **headers: str) -> ClientResponse:
        return await self._session.get(path, headers=HEADERS | headers)

    async def set(self, *entries: dict[str, Any], state: str = "running", **status: Any) -> None:
        await self.cluster.set_status("a", events=list(entries), state=state, **status)

    @property
    def streams(self) -> int:
        return len(self.app[OPEN_STREAMS])


@asynccontextmanager
async def gateway(keep_alive: float = 60, **cluster: Any) -> AsyncIterator[Gateway]:
    settings = gateway_settings(keepAliveSeconds=keep_alive)
    memory = MemoryCluster(**cluster)
    await memory.add("finetunes", "a", SPEC)

    def authenticate(header: str) -> Caller:
        return Caller({"Authorization": header})

    services = Services(settings, memory, MemoryFiles(settings), Backends(settings))
    app = build_app(services, [*FINE_TUNES, *JOBS], authenticate)
    runner = web.AppRunner(app, shutdown_timeout=0.1)  # as the process; TestServer cancels more
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with asyncio.timeout(20), ClientSession(url) as session:
        try:
            yield Gateway(app, session, memory)
        finally:
            await runner.cleanup()


class Reader:
    """The lines of a stream, as a client without a library reads them."""

    def __init__(self, response: ClientResponse) -> None:
        self.response = response

    async def next(self) -> tuple[str | None, Any]:
        """The id and the data of the next event, or a comment; (None, None) at the end."""
        number = None
        while line := (await self.response.content.readline()).decode():
            key, _, value = line.rstrip("\n").partition(": ")
            if key == "id":
                number = value
            if key == "data":
                return number, value if value == "[DONE]" else json.loads(value)
            if line.startswith(": "):
                return None, value
        return None, None

    async def rest(self) -> list[tuple[str | None, Any]]:
        found = []
        while (item := await self.next()) != (None, None):
            found.append(item)
        return found


def messages(items: list[tuple[str | None, Any]]) -> list[Any]:
    return [data["message"] if isinstance(data, dict) else data for _, data in items]


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition; the time limit of the gateway bounds it."""
    while not holds():  # noqa: ASYNC110 - conditions of another task
        await asyncio.sleep(0.02)


async def test_past_events_come_first_and_then_the_news_until_the_end() -> None:
    async with gateway() as made:
        await made.set(an_entry(1), an_entry(2, level="warning"))
        response = await made.get()
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        assert response.headers["x-request-id"].startswith("req-")
        reader = Reader(response)
        assert await reader.next() == (
            "1",
            {
                "id": "ftevent-a-1",
                "object": "fine-tune-event",
                "created_at": 1795262401,
                "level": "info",
                "message": "event 1",
            },
        )
        assert (await reader.next())[1]["level"] == "warn"
        await made.set(an_entry(1), an_entry(2), an_entry(3))
        assert (await reader.next())[1]["message"] == "event 3"
        await made.set(*(an_entry(n) for n in range(1, 5)), state="succeeded")
        assert messages(await reader.rest()) == ["event 4", "[DONE]"]
        assert made.streams == 0


async def test_the_stream_of_a_job_has_the_events_of_the_new_api_the_oldest_first() -> None:
    async with gateway() as made:
        await made.set(an_entry(1), an_entry(2), state="succeeded")
        items = await Reader(await made.get(NEW)).rest()
        assert messages(items) == ["event 1", "event 2", "[DONE]"]
        first = items[0][1]
        assert (first["object"], first["type"]) == ("fine_tuning.job.event", "message")


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
async def test_the_stream_of_an_ended_fine_tune_ends_at_once(state: str) -> None:
    async with gateway() as made:
        await made.set(an_entry(1), state=state)
        assert messages(await Reader(await made.get()).rest()) == ["event 1", "[DONE]"]


async def test_a_client_that_connects_again_receives_each_event_once() -> None:
    async with gateway() as made:
        entries = [an_entry(1), an_entry(2)]
        await made.set(*entries)
        seen: list[str | None] = []
        for more in (3, 4, 5, 6):
            last = {"Last-Event-ID": seen[-1]} if seen and seen[-1] else {}
            response = await made.get(**last)
            reader = Reader(response)
            seen.append((await reader.next())[0])
            response.close()
            entries.append(an_entry(more))
            await made.set(*entries[-3:])  # the status keeps the newest ones only
        await made.set(*entries, state="succeeded")
        items = await Reader(await made.get(**{"Last-Event-ID": str(seen[-1])})).rest()
        assert [*seen, *(number for number, _ in items[:-1])] == ["1", "2", "3", "4", "5", "6"]
        assert items[-1][1] == "[DONE]"


async def test_the_last_event_id_of_a_former_fine_tune_of_the_name_hides_nothing() -> None:
    async with gateway() as made:
        await made.set(an_entry(1), state="succeeded")
        items = await Reader(await made.get(**{"Last-Event-ID": "17"})).rest()
        assert messages(items) == ["event 1", "[DONE]"]


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "9" * 19, "٣", "ftevent-a-1"])
async def test_a_last_event_id_that_is_no_number_is_refused(value: str) -> None:
    async with gateway() as made:
        response = await made.get(**{"Last-Event-ID": value})
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "invalid_last_event_id"


async def test_a_changed_message_of_a_pending_fine_tune_is_an_event_without_an_id() -> None:
    async with gateway() as made:
        await made.set(an_entry(1), state="pending", message="Waiting for nodes.")
        reader = Reader(await made.get())
        assert (await reader.next())[0] == "1"
        number, data = await reader.next()
        assert number is None
        assert (data["level"], data["message"]) == ("info", "Waiting for nodes.")
        assert data["object"] == "fine-tune-event"
        await made.set(an_entry(1), state="pending", message="Waiting for nodes.", stage="queued")
        await made.set(an_entry(1), state="pending", message="2 of 3 in the queue.")
        assert (await reader.next())[1]["message"] == "2 of 3 in the queue."
        await made.set(an_entry(1), an_entry(2), message="Training.")  # running: not repeated
        assert (await reader.next())[1]["message"] == "event 2"
        await made.set(an_entry(1), an_entry(2), state="succeeded", message="Done.")
        assert messages(await reader.rest()) == ["[DONE]"]


async def test_a_message_that_is_the_latest_event_is_not_repeated() -> None:
    async with gateway() as made:
        await made.set(an_entry(1, "Waiting."), state="pending", message="Waiting.")
        reader = Reader(await made.get())
        assert (await reader.next())[1]["message"] == "Waiting."
        await made.set(an_entry(1, "Waiting."), state="cancelled")
        assert messages(await reader.rest()) == ["[DONE]"]


async def test_a_quiet_stream_has_comments() -> None:
    async with gateway(keep_alive=0.1) as made:
        await made.set()
        reader = Reader(await made.get())
        assert [await reader.next() for _ in range(3)] == [(None, "keep-alive")] * 3


async def test_a_deleted_fine_tune_ends_the_stream_with_an_error() -> None:
    async with gateway() as made:
        await made.set(an_entry(1))
        reader = Reader(await made.get())
        await reader.next()
        await made.cluster.delete(made.caller, "finetunes", "a")
        ((_, data),) = await reader.rest()
        assert data["error"]["code"] == "fine_tune_deleted"
        assert data["error"]["message"] == "The fine-tune ft-a was deleted."


async def test_a_fine_tune_that_is_deleted_before_its_watch_begins_was_deleted() -> None:
    async with gateway() as made:
        await made.set(an_entry(1))
        made.cluster.refuse("watch", "finetunes", KubeError(404, "not found"))
        items = await Reader(await made.get()).rest()
        assert items[-1][1]["error"]["code"] == "fine_tune_deleted"


async def test_a_fine_tune_that_was_created_again_ends_the_stream_of_the_former_one() -> None:
    async with gateway() as made:
        await made.set(an_entry(1))
        reader = Reader(await made.get())
        await reader.next()
        await asyncio.sleep(0.05)
        made.cluster.objects["finetunes"]["a"]["metadata"]["uid"] = "another"
        await made.set(an_entry(1), an_entry(2))
        ((_, data),) = await reader.rest()
        assert data["error"]["code"] == "fine_tune_deleted"


async def test_a_revoked_key_ends_the_stream_at_the_next_comment() -> None:
    async with gateway(keep_alive=0.2) as made:
        await made.set(an_entry(1))
        reader = Reader(await made.get())
        await reader.next()

        def refuse(_: str) -> Caller:
            raise unauthenticated("The key was revoked.")

        made.app._state[AUTHENTICATE] = refuse
        items = await reader.rest()
        assert items[-1][1]["error"]["code"] == "invalid_api_key"
        assert made.streams == 0


@pytest.mark.parametrize(("status", "code"), [(401, "invalid_api_key"), (403, "permission_denied")])
async def test_a_credential_that_runs_out_ends_the_stream_with_an_error(
    status: int, code: str
) -> None:
    async with gateway() as made:
        await made.set(an_entry(1))
        error = KubeError(status, "refused")
        made.cluster.refuse("watch", "finetunes", error)
        items = await Reader(await made.get()).rest()
        assert items[0][0] == "1"
        assert items[1][1]["error"]["code"] == code


async def test_an_unreadable_fine_tune_ends_the_stream_with_an_error() -> None:
    async with gateway() as made:
        await made.set(an_entry(1))
        reader = Reader(await made.get())
        await reader.next()
        await made.cluster.set_status("a", state="exploded")
        ((_, data),) = await reader.rest()
        assert data["error"]["code"] == "unreadable_object"


async def test_a_bug_ends_the_stream_with_an_error_and_the_request_id() -> None:
    async with gateway() as made:
        await made.set(an_entry(1))
        made.cluster.refusals["watch", "finetunes"] = RuntimeError("a bug")  # type: ignore[assignment]
        response = await made.get()
        items = await Reader(response).rest()
        assert items[-1][1]["error"]["code"] == "internal_error"
        assert response.headers["x-request-id"] in items[-1][1]["error"]["message"]


async def test_an_error_before_the_stream_is_an_ordinary_answer() -> None:
    async with gateway() as made:
        missing = await made.get("/v1/fine-tunes/ft-none/events?stream=true")
        assert (missing.status, missing.content_type) == (404, "application/json")
        made.cluster.refuse("get", "finetunes", KubeError(401, "Unauthorized"))
        assert (await made.get()).status == 401
        made.cluster.refuse("get", "finetunes", KubeError(0, "away"))
        assert (await made.get()).status == 503


@pytest.mark.parametrize("path", [OLD, NEW])
async def test_stream_false_is_the_list_and_another_value_is_refused(path: str) -> None:
    async with gateway() as made:
        await made.set(an_entry(1))
        response = await made.get(path.replace("true", "false"))
        assert (await response.json())["data"][0]["message"] == "event 1"
        assert (await made.get(path.replace("true", "maybe"))).status == 400
        assert made.streams == 0


async def test_all_streams_end_with_an_error_when_the_gateway_closes() -> None:
    async with gateway() as made:
        await made.set(an_entry(1))
        readers = [Reader(await made.get()) for _ in range(20)]
        for reader in readers:
            assert (await reader.next())[0] == "1"
        assert made.streams == 20
        made.app[OPEN_STREAMS].close()
        for reader in readers:
            ((_, data),) = await reader.rest()
            assert data["error"]["code"] == "service_unavailable"
            assert "restarts" in data["error"]["message"]
        assert made.streams == 0
        assert (await made.get()).status == 503


async def test_a_client_that_goes_away_frees_its_watch() -> None:
    async with gateway() as made:
        await made.set(an_entry(1))
        response = await made.get()
        await Reader(response).next()
        waiters = made.cluster._changes._waiters
        await until(lambda: len(waiters) == 1)
        response.close()
        await until(lambda: made.streams == 0)
        assert len(waiters) == 0


async def test_a_client_that_does_not_read_is_disconnected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_sent_events, "WRITE_SECONDS", 0.3)
    long = ["x" * 1000 + str(number) for number in range(64)]
    async with gateway() as made:
        await made.set()
        response = await made.get()
        assert response.connection is not None
        response.connection.transport.pause_reading()  # type: ignore[union-attr]
        number = 0
        for _ in range(400):
            entries = [an_entry(number + n, text) for n, text in enumerate(long, 1)]
            number += len(long)
            await made.set(*entries)
            await asyncio.sleep(0.005)
            if made.streams == 0:
                break
        assert made.streams == 0


async def test_too_many_streams_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_streams, "MOST_STREAMS", 2)
    async with gateway() as made:
        await made.set(an_entry(1))
        kept = [await made.get(), await made.get()]
        refused = await made.get()
        assert refused.status == 429
        assert refused.headers["Retry-After"] == "30"
        kept[0].close()
        await until(lambda: made.streams == 1)
        assert (await made.get()).status == 200
