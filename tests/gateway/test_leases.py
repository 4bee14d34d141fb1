"""The request that renews a Lease: the only one that the gateway makes as itself."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from finetune_gateway.kube.leases import Leases, micro_time
from finetune_gateway.kube.own_token import OwnToken
from finetune_gateway.kube.server import Server
from finetune_gateway.kube_errors import KubeError
from tests.gateway.api_server import ApiServer, refuse, reply, serve

OWN = OwnToken("own")
LEASE: dict[str, Any] = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}


def leases_of(server: ApiServer, token: OwnToken | None = OWN, **options: Any) -> Leases:
    return Leases(Server(server.url, None, token), "ml", **{"timeout_seconds": 5, **options})


async def test_a_renewal_is_a_merge_patch_with_the_token_of_the_gateway() -> None:
    before = datetime.now(UTC)
    async with serve(reply(LEASE)) as server, leases_of(server, holder="gateway-7f9-x2x") as leases:
        await leases.renew("mdl-tone-0a1b2c3d-serve")
        (request,) = server.requests
        body = await request.json()
    assert request.method == "PATCH"
    assert request.path_qs == (
        "/apis/coordination.k8s.io/v1/namespaces/ml/leases/mdl-tone-0a1b2c3d-serve"
    )
    assert request.headers["Content-Type"] == "application/merge-patch+json"
    assert request.headers.getall("Authorization") == ["Bearer own"]
    assert not [name for name in request.headers if name.lower().startswith("impersonate")]
    assert body.keys() == {"spec"}
    assert body["spec"].keys() == {"renewTime", "holderIdentity"}
    assert body["spec"]["holderIdentity"] == "gateway-7f9-x2x"
    renewed = body["spec"]["renewTime"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", renewed)
    assert before <= datetime.fromisoformat(renewed) <= datetime.now(UTC)


async def test_outside_of_a_pod_the_holder_is_the_gateway() -> None:
    async with serve(reply(LEASE)) as server, leases_of(server) as leases:
        await leases.renew("a")
        assert (await server.requests[0].json())["spec"]["holderIdentity"] == "finetune-gateway"


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00.000000Z"),
        (datetime(2026, 1, 1, 1, 2, 3, 45, UTC), "2026-01-01T01:02:03.000045Z"),
        (
            datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2))),
            "2025-12-31T22:00:00.000000Z",
        ),
    ],
    ids=["whole second", "microseconds", "another zone"],
)
def test_a_micro_time_is_in_utc_with_six_digits(at: datetime, expected: str) -> None:
    assert micro_time(at) == expected


async def test_a_renewed_token_is_used_at_once(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    async with serve(reply(LEASE)) as server, leases_of(server, OwnToken(file=file)) as leases:
        await leases.renew("a")
        (tmp_path / "new").write_text("second\n")
        (tmp_path / "new").rename(file)
        await leases.renew("a")
    sent = [request.headers["Authorization"] for request in server.requests]
    assert sent == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize(
    "token",
    [None, OwnToken(""), OwnToken(file=Path("/nonexistent"))],
    ids=["no user", "empty", "no file"],
)
async def test_without_a_token_of_its_own_the_gateway_sends_nothing(token: OwnToken | None) -> None:
    async with serve(reply(LEASE)) as server, leases_of(server, token) as leases:
        with pytest.raises(KubeError, match="token of its own") as caught:
            await leases.renew("a")
        assert (caught.value.status, server.requests) == (0, [])


@pytest.mark.parametrize("name", ["", "..", "a/b", "a?dryRun=All", "a#", "A", "a\n", "x" * 254])
async def test_no_other_path_is_requested(name: str) -> None:
    async with serve(reply(LEASE)) as server, leases_of(server) as leases:
        with pytest.raises(KubeError) as caught:
            await leases.renew(name)
        assert (caught.value.status, server.requests) == (404, [])


@pytest.mark.parametrize("status", [403, 404, 409, 422, 500])
async def test_a_refusal_is_an_error_with_its_status(status: int) -> None:
    async with serve(refuse(status, "Reason")) as server, leases_of(server) as leases:
        with pytest.raises(KubeError, match="refused") as caught:
            await leases.renew("a")
        assert (caught.value.status, len(server.requests)) == (status, 1)


async def test_a_refused_token_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(refuse(401, "Unauthorized")) as server, leases_of(server) as leases:
        with pytest.raises(KubeError, match="gateway's own token"):
            await leases.renew("a")
    assert "own token" in caplog.text


async def test_a_busy_api_server_is_asked_again() -> None:
    busy = reply({"kind": "Status", "code": 429, "message": "busy"}, 429, **{"Retry-After": "1"})
    async with serve(busy, reply(LEASE)) as server, leases_of(server) as leases:
        await leases.renew("a")
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    "answer",
    [reply(b"["), reply([]), reply({"a": "b" * 2**18}), reply(b"", 302, Location="http://x/")],
    ids=["no JSON", "no object", "too large", "redirect"],
)
async def test_an_answer_that_is_no_lease_is_an_error(answer: Any) -> None:
    async with serve(answer) as server, leases_of(server) as leases:
        with pytest.raises(KubeError) as caught:
            await leases.renew("a")
        assert (caught.value.status, len(server.requests)) == (0, 1)


async def test_an_api_server_that_is_away_is_an_error() -> None:
    async with serve(reply(LEASE)) as server:
        found = leases_of(server)
    async with found as leases:
        with pytest.raises(KubeError, match="does not answer") as caught:
            await leases.renew("a")
    assert caught.value.status == 0
