"""A folder as the gateway's cluster: the behavior of the API server that endpoints rely on."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from finetune_gateway.kube.caller import Caller
from finetune_gateway.kube.cluster import Cluster
from finetune_gateway.kube_errors import KubeError
from finetune_local.folder_cluster import FolderCluster
from finetune_local.objects import Objects

YOU = Caller({}, account="you")
SPEC = {"model": "ada", "trainingFile": "s3://finetune-local/a.jsonl"}


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path)


@pytest.fixture
def cluster(objects: Objects) -> Cluster:
    return FolderCluster(objects, "local", 0)


async def create(cluster: Cluster, name: str, **metadata: Any) -> dict[str, Any]:
    body = {"metadata": {"name": name, **metadata}, "spec": SPEC}
    return await cluster.create(YOU, "finetunes", body)


async def test_objects_are_found_by_name_and_label(cluster: Cluster) -> None:
    await create(cluster, "a", labels={"finetune.dev/request": "1"})
    made = await create(cluster, "b", labels={"finetune.dev/request": "2"})
    assert made["metadata"]["namespace"] == "local"
    assert (await cluster.get(YOU, "finetunes", "b")) == made
    found = await cluster.list(YOU, "finetunes", label_selector="finetune.dev/request=2")
    assert found == [made]
    assert len(await cluster.list(YOU, "finetunes")) == 2


@pytest.mark.parametrize(("name", "status"), [("a", 409), ("A", 422)])
async def test_a_refusal_has_the_status_of_the_api_server(
    cluster: Cluster, name: str, status: int
) -> None:
    await create(cluster, "a")
    with pytest.raises(KubeError) as caught:
        await create(cluster, name)
    assert caught.value.status == status


async def test_what_does_not_exist_is_404(cluster: Cluster) -> None:
    for call in (
        cluster.get(YOU, "finetunes", "x"),
        cluster.patch(YOU, "finetunes", "x", {}),
        cluster.delete(YOU, "models", "x"),
        anext(cluster.follow(YOU, "finetunes", "x")),
    ):
        with pytest.raises(KubeError) as caught:
            await call
        assert caught.value.status == 404


async def test_a_follower_sees_the_newest_state_and_the_end(
    cluster: Cluster, objects: Objects
) -> None:
    made = await create(cluster, "a")
    seen: list[Any] = []

    async def follow() -> None:
        async with aclosing(cluster.follow(YOU, "finetunes", "a")) as changes:
            async for found in changes:
                seen.append(found and found["spec"].get("suspend", False))

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.01)
    await create(cluster, "other")
    await cluster.patch(YOU, "finetunes", "a", {"spec": {"suspend": True}})
    await asyncio.sleep(0.01)
    objects.notify()
    await asyncio.sleep(0.01)
    await cluster.delete(YOU, "finetunes", "a")
    await asyncio.wait_for(following, 5)
    assert seen == [False, True, None]
    assert made["spec"].get("suspend") is None


async def test_a_model_with_a_finalizer_waits_for_the_operator(
    cluster: Cluster, objects: Objects
) -> None:
    objects.add("models", {"metadata": {"name": "m"}, "spec": {"id": "m"}})
    await cluster.patch(YOU, "models", "m", {"spec": {"deletionPolicy": "Delete"}})
    await cluster.delete(YOU, "models", "m")
    first = (await cluster.get(YOU, "models", "m"))["metadata"]
    assert first["deletionTimestamp"]
    await cluster.delete(YOU, "models", "m")
    assert (await cluster.get(YOU, "models", "m"))["metadata"] == first
