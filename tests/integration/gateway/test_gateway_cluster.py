"""The gateway's requests to a real API server: impersonation, tokens, rights, and watches."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from devcluster.controlplane import ControlPlane
from finetune_gateway.kube import following, kube_cluster
from finetune_gateway.kube.caller import Caller
from finetune_gateway.kube.kube_cluster import KubeCluster
from finetune_gateway.kube.server import server_of_kubeconfig
from finetune_gateway.kube_errors import KubeError
from finetune_gateway.wire.kube_answers import Asked, explain
from tests.integration.gateway.conftest import OWNER, STRANGER, USER, Team
from tests.support.audit import events
from tests.support.kubectl import finetune
from tests.support.proxy import FaultyProxy

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@asynccontextmanager
async def connected(
    team: Team, server: str = "", review_seconds: float = 10
) -> AsyncIterator[KubeCluster]:
    found = server_of_kubeconfig(team.kubeconfig(server))
    async with KubeCluster(found, team.namespace, review_seconds=review_seconds) as cluster:
        yield cluster


def with_key(team: Team, account: str) -> Caller:
    return Caller({"Impersonate-User": team.user(account)}, account)


def with_token(token: str) -> Caller:
    return Caller({"Authorization": f"Bearer {token}"})


def a_finetune(name: str, **spec: Any) -> dict[str, Any]:
    return finetune(name, model="ada", **spec)


async def eventually(check: Callable[[], Awaitable[bool]], seconds: float = 40) -> None:
    async with asyncio.timeout(seconds):
        while not await check():  # noqa: ASYNC110 - a state of the API server
            await asyncio.sleep(0.3)


async def refusal(request: Awaitable[Any]) -> KubeError:
    with pytest.raises(KubeError) as caught:
        await request
    return caught.value


async def test_a_key_has_the_rights_of_its_account_and_no_others(
    accounts: Team, control_plane: ControlPlane
) -> None:
    start = control_plane.audit_log.stat().st_size
    user, owner = with_key(accounts, USER), with_key(accounts, OWNER)
    async with connected(accounts) as cluster:
        made = await cluster.create(user, "finetunes", a_finetune("a"))
        assert made["metadata"]["namespace"] == accounts.namespace
        read = await cluster.get(user, "finetunes", "a")
        assert read["metadata"]["uid"] == made["metadata"]["uid"]
        patched = await cluster.patch(user, "finetunes", "a", {"spec": {"cancel": True}})
        assert patched["spec"]["cancel"] is True
        error = await refusal(cluster.delete(user, "finetunes", "a"))
        assert (error.status, error.reason) == (403, "Forbidden")
        asked = Asked("delete", "finetunes", accounts.namespace, "ft-a", USER)
        assert "You must be an owner (role finetune-owner)" in explain(error, asked).message
        await cluster.delete(owner, "finetunes", "a")
        assert (await refusal(cluster.get(user, "finetunes", "a"))).status == 404
    seen = [
        (event["user"]["username"], event["impersonatedUser"]["username"], event["verb"])
        for event in events(control_plane.audit_log, start)
        if event.get("stage") == "ResponseComplete"
        and event.get("objectRef", {}).get("resource") == "finetunes"
        and event["objectRef"].get("namespace") == accounts.namespace
    ]
    gateway = accounts.user("gateway")
    assert (gateway, accounts.user(USER), "create") in seen
    assert (gateway, accounts.user(OWNER), "delete") in seen


async def test_the_gateway_itself_has_no_rights(accounts: Team) -> None:
    async with connected(accounts) as cluster:
        own = with_token(accounts.token("gateway"))
        assert (await refusal(cluster.list(own, "finetunes"))).status == 403
        assert not await cluster.may(own, "list", "models")


async def test_the_gateway_cannot_be_an_account_that_its_role_does_not_name(
    accounts: Team,
) -> None:
    async with connected(accounts) as cluster:
        for account in (STRANGER, "gateway", "nobody"):
            error = await refusal(cluster.list(with_key(accounts, account), "finetunes"))
            assert error.status == 403
            asked = Asked("list", "finetunes", accounts.namespace, account=account)
            message = explain(error, asked).message
            assert f"may not act as the account {account}" in message
            assert "gateway.keys.serviceAccounts" in message
        for user in ("system:admin", "system:serviceaccount:kube-system:default", USER):
            error = await refusal(cluster.list(Caller({"Impersonate-User": user}), "finetunes"))
            assert error.status == 403


async def test_a_token_has_its_own_rights_and_not_those_of_the_gateway(accounts: Team) -> None:
    async with connected(accounts) as cluster:
        caller = with_token(accounts.token(STRANGER))
        await cluster.create(caller, "finetunes", a_finetune("b"))
        assert [item["metadata"]["name"] for item in await cluster.list(caller, "finetunes")] == [
            "b"
        ]
        await cluster.delete(caller, "finetunes", "b")
        user = with_token(accounts.token(USER))
        assert (await refusal(cluster.delete(user, "finetunes", "b"))).status == 403


@pytest.mark.parametrize("token", ["eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "garbage", "a.b.c"])
async def test_an_invalid_token_is_unauthenticated(accounts: Team, token: str) -> None:
    async with connected(accounts) as cluster:
        error = await refusal(cluster.list(with_token(token), "finetunes"))
        assert error.status == 401
        problem = explain(error, Asked("list", "finetunes", accounts.namespace))
        assert (problem.status, problem.code) == (401, "invalid_api_key")
        assert (await refusal(cluster.may(with_token(token), "list", "finetunes"))).status == 401


async def test_the_token_of_a_deleted_account_ends_a_follower(
    accounts: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "WATCH_SECONDS", (1, 1))
    caller = with_token(accounts.token(STRANGER))
    async with connected(accounts) as cluster:
        await cluster.create(caller, "finetunes", a_finetune("c"))
        changes = cluster.follow(caller, "finetunes", "c")
        assert await anext(changes)
        waiting = asyncio.create_task(anext(changes))
        await asyncio.to_thread(accounts.kubectl, "delete", "serviceaccount", STRANGER)
        error = await refusal(asyncio.wait_for(waiting, 60))
        assert error.status == 401


async def test_a_lost_role_ends_a_follower(accounts: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "WATCH_SECONDS", (1, 1))
    async with connected(accounts) as cluster:
        await cluster.create(with_key(accounts, OWNER), "finetunes", a_finetune("d"))
        changes = cluster.follow(with_key(accounts, USER), "finetunes", "d")
        assert await anext(changes)
        waiting = asyncio.create_task(anext(changes))
        await asyncio.to_thread(accounts.kubectl, "delete", "rolebinding", USER)
        error = await refusal(asyncio.wait_for(waiting, 30))
        assert error.status == 403


async def test_a_follower_sees_each_change_over_broken_and_expiring_watches(
    accounts: Team, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "WATCH_SECONDS", (1, 2))
    user, owner = with_key(accounts, USER), with_key(accounts, OWNER)
    async with connected(accounts, proxy.url) as cluster, asyncio.timeout(90):
        await cluster.create(user, "finetunes", a_finetune("e"))
        seen = []
        async with aclosing(cluster.follow(user, "finetunes", "e")) as changes:
            first = await anext(changes)
            assert first is not None
            for number in range(8):
                if number % 2:
                    proxy.break_watches()
                else:
                    await asyncio.sleep(0.8)
                status = {"status": {"state": "pending", "message": f"change {number}"}}
                await asyncio.to_thread(
                    accounts.kubectl,
                    *("patch", "finetune", "e", "--subresource=status", "--type=merge"),
                    *("-p", json.dumps(status)),
                )
                found = await anext(changes)
                assert found is not None
                seen.append(found["status"]["message"])
            assert seen == [f"change {number}" for number in range(8)]
            await cluster.delete(owner, "finetunes", "e")
            assert await anext(changes) is None
            with pytest.raises(StopAsyncIteration):
                await anext(changes)


async def test_a_fine_tune_that_is_created_again_ends_the_follower(accounts: Team) -> None:
    owner = with_key(accounts, OWNER)
    async with connected(accounts) as cluster, asyncio.timeout(30):
        await cluster.create(owner, "finetunes", a_finetune("f"))
        changes = cluster.follow(owner, "finetunes", "f")
        assert await anext(changes)
        await cluster.delete(owner, "finetunes", "f")
        await cluster.create(owner, "finetunes", a_finetune("f"))
        assert await anext(changes) is None
        again = cluster.follow(owner, "finetunes", "none")
        assert (await refusal(anext(again))).status == 404


async def test_the_api_server_refuses_what_the_crd_does_not_allow(accounts: Team) -> None:
    user = with_key(accounts, USER)
    async with connected(accounts) as cluster:
        error = await refusal(cluster.create(user, "finetunes", a_finetune("g", colour="red")))
        assert error.status == 400
        assert 'unknown field "spec.colour"' in error.message
        wrong = a_finetune("g", hyperparameters={"nEpochs": 0})
        error = await refusal(cluster.create(user, "finetunes", wrong))
        assert (error.status, error.reason) == (422, "Invalid")
        assert error.causes[0][0] == "spec.hyperparameters.nEpochs"
        await cluster.create(user, "finetunes", a_finetune("g"))
        error = await refusal(cluster.create(user, "finetunes", a_finetune("g")))
        assert (error.status, error.reason) == (409, "AlreadyExists")
        error = await refusal(cluster.patch(user, "finetunes", "g", {"spec": {"colour": 1}}))
        assert error.status == 422
        assert 'unknown field "spec.colour"' in error.message  # after the whole object


async def test_a_list_has_all_objects_of_several_pages(
    accounts: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_cluster, "PAGE", 2)
    user = with_key(accounts, USER)
    async with connected(accounts) as cluster:
        for number in range(5):
            labels = {"finetune.dev/request": "odd" if number % 2 else "even"}
            body = a_finetune(f"h{number}")
            body["metadata"]["labels"] = labels
            await cluster.create(user, "finetunes", body)
        names = {item["metadata"]["name"] for item in await cluster.list(user, "finetunes")}
        assert names == {f"h{number}" for number in range(5)}
        odd = await cluster.list(user, "finetunes", label_selector="finetune.dev/request=odd")
        assert {item["metadata"]["name"] for item in odd} == {"h1", "h3"}


async def test_rights_are_those_of_the_caller_and_change_with_its_roles(accounts: Team) -> None:
    async with connected(accounts, review_seconds=0.5) as cluster:
        user, owner = with_key(accounts, USER), with_key(accounts, OWNER)
        assert await cluster.may(user, "create", "finetunes")
        assert not await cluster.may(user, "delete", "finetunes")
        assert await cluster.may(owner, "delete", "models")
        assert not await cluster.may(user, "delete", "models")
        assert await cluster.may(with_token(accounts.token(USER)), "list", "models")
        await asyncio.to_thread(accounts.kubectl, "delete", "rolebinding", USER)

        async def is_revoked() -> bool:
            return not await cluster.may(user, "create", "finetunes")

        await eventually(is_revoked, 20)
        error = await refusal(cluster.may(with_key(accounts, STRANGER), "list", "models"))
        assert error.status == 403


async def test_the_readiness_is_that_of_the_api_server(accounts: Team, proxy: FaultyProxy) -> None:
    async with connected(accounts) as cluster:
        assert await cluster.is_ready()
    async with connected(accounts, "http://127.0.0.1:9") as cluster:
        assert not await cluster.is_ready()
