"""OpenAI's fine-tuning API over a cluster in memory."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import AsyncMock, patch
from urllib.parse import quote

import pytest
import pytest_asyncio
from openai.pagination import SyncCursorPage
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent

from finetune_api.names import ANNOTATION_METADATA
from finetune_api.wire import JsonObject
from finetune_gateway.kube.caller import Caller
from finetune_web.problems import unavailable
from tests.gateway.fine_tune_lives import running
from tests.support.gateway_app import Gateway, running_gateway

PATH = "/v1/fine_tuning/jobs"
SPEC = {"model": "ada", "trainingFile": "s3://acme/train.jsonl"}
ANNA = Caller({"Authorization": "Bearer anna"}, "anna")
BODY = {"model": "ada", "training_file": "s3://acme/train.jsonl"}


@pytest_asyncio.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with running_gateway() as found:
        yield found


async def add(gateway: Gateway, name: str, at: str = "", **more: Any) -> None:
    made = await gateway.cluster.add("finetunes", name, SPEC, **more)
    if at:
        made["metadata"]["creationTimestamp"] = f"2026-11-21T{at}Z"


async def test_the_newest_client_creates_a_job(gateway: Gateway) -> None:
    body = BODY | {
        "suffix": "x" * 64,
        "seed": 7,
        "metadata": {"team": "a"},
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
        "integrations": [],
        "finetune": {"resources": {"nodes": 2, "gpusPerNode": 0}},
    }
    made = await gateway.post(PATH, body)
    FineTuningJob.model_validate(made, strict=True)
    assert (made["status"], made["seed"], made["metadata"]) == ("queued", 7, {"team": "a"})
    assert made["hyperparameters"]["n_epochs"] == 2
    name = made["id"].removeprefix("ftjob-")
    assert gateway.cluster.spec_of(name)["resources"]["nodes"] == 2
    assert await gateway.get(f"{PATH}/{made['id']}") == made


async def test_the_param_of_a_rule_is_the_place_in_the_body(gateway: Gateway) -> None:
    nested = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 99}}}
    error = await gateway.post(PATH, BODY | {"method": nested}, 400)
    assert error["param"] == "method.supervised.hyperparameters.n_epochs"
    error = await gateway.post(PATH, BODY | {"hyperparameters": {"n_epochs": 99}}, 400)
    assert error["param"] == "hyperparameters.n_epochs"
    assert (await gateway.post(PATH, BODY | {"seed": -1}, 400))["param"] == "seed"


async def test_pages_are_newest_first(gateway: Gateway) -> None:
    for index, name in enumerate("abcde"):
        await add(gateway, name, f"12:00:0{index}")
    seen, query = [], "?limit=2"
    for _ in range(3):
        page = await gateway.get(f"{PATH}{query}")
        SyncCursorPage[FineTuningJob].model_validate(page, strict=True)
        seen += [job["id"] for job in page["data"]]
        assert page["has_more"] == (len(seen) < 5)
        query = f"?limit=2&after={seen[-1]}"
    assert seen == [f"ftjob-{name}" for name in "edcba"]
    for after in ("c", "ft-c", "ftjob-c"):
        page = await gateway.get(f"{PATH}?after={after}")
        assert [job["id"] for job in page["data"]] == ["ftjob-b", "ftjob-a"]
    page = await gateway.get(f"{PATH}?order=asc&limit=1")
    assert page["last_id"] == "ftjob-a"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("after=ftjob-nosuch", "after"),
        ("after=%ff%00", "after"),
        ("metadata=x", "metadata"),
        ("metadata=null&metadata[a]=b", "metadata"),
    ],
)
async def test_a_query_that_is_wrong_is_named(gateway: Gateway, query: str, param: str) -> None:
    await add(gateway, "a")
    error = await gateway.get(f"{PATH}?{query}", 400)
    assert error["param"] == param


async def test_a_job_that_is_deleted_while_its_page_is_read_is_left_out(gateway: Gateway) -> None:
    for name in "abc":
        await add(gateway, name)
    listed = await gateway.cluster.list_metadata(ANNA, "finetunes")
    await gateway.cluster.delete(ANNA, "finetunes", "b")
    with patch.object(gateway.cluster, "list_metadata", AsyncMock(return_value=listed)):
        page = await gateway.get(PATH)
    assert [job["id"] for job in page["data"]] == ["ftjob-c", "ftjob-a"]


async def test_jobs_are_found_by_their_metadata(gateway: Gateway) -> None:
    for name, text in {
        "a": '{"team":"a","x":""}',
        "b": '{"team":"b"}',
        "none": "not JSON",
        "empty": "{}",
    }.items():
        await add(gateway, name, annotations={ANNOTATION_METADATA: text})

    async def found(query: str) -> list[str]:
        return sorted(job["id"][6:] for job in (await gateway.get(f"{PATH}?{query}"))["data"])

    assert await found(f"{quote('metadata[team]')}=a") == ["a"]
    assert await found("metadata[team]=a&metadata[x]=") == ["a"]
    assert await found("metadata[team]=c") == []
    assert await found("metadata=null") == ["empty", "none"]
    assert len(await found("")) == 4


async def test_only_the_jobs_of_a_page_are_read_in_full(gateway: Gateway) -> None:
    status = running().status.to_dict()
    for number in range(1000):
        await add(gateway, f"tone-{number:04}", status=status)
    gateway.cluster.requests.clear()
    page = await gateway.get(f"{PATH}?limit=100")
    assert gateway.cluster.requests == [("list", "finetunes"), *[("get", "finetunes")] * 100]
    assert (len(page["data"]), page["has_more"]) == (100, True)
    everything = await gateway.get("/v1/fine-tunes")
    assert len(everything["data"]) == 1000


async def test_a_job_is_paused_and_resumed(gateway: Gateway) -> None:
    await add(gateway, "tone", status={"state": "running"})
    assert (await gateway.post(f"{PATH}/ftjob-tone/pause"))["status"] == "paused"
    assert gateway.cluster.spec_of("tone")["suspend"] is True
    assert (await gateway.post(f"{PATH}/ftjob-tone/pause"))["status"] == "paused"
    assert (await gateway.post(f"{PATH}/ftjob-tone/resume"))["status"] == "running"
    error = await gateway.post(f"{PATH}/ftjob-tone/resume", status=400)
    assert "is not paused" in error["message"]
    again = await gateway.post(f"{PATH}/ftjob-tone/resume", x_stainless_retry_count="1")
    assert again["status"] == "running"


@pytest.mark.parametrize("action", ["pause", "resume"])
async def test_what_has_ended_or_will_end_is_not_steered(gateway: Gateway, action: str) -> None:
    await add(gateway, "tone", status={"state": "succeeded"})
    error = await gateway.post(f"{PATH}/ftjob-tone/{action}", status=400)
    assert "has succeeded already" in error["message"]
    await add(gateway, "other", status={"state": "running"})
    gateway.cluster.spec_of("other")["cancel"] = True
    error = await gateway.post(f"{PATH}/ftjob-other/{action}", status=400)
    assert "is being cancelled" in error["message"]


async def test_a_viewer_steers_nothing(gateway: Gateway) -> None:
    await add(gateway, "tone", status={"state": "running"})
    gateway.cluster.refuse("patch", "finetunes")
    for action in ("cancel", "pause"):
        error = await gateway.post(f"{PATH}/ftjob-tone/{action}", status=403)
        assert "role finetune-user" in error["message"]


CSV = b"step,training_loss\n1,2.5\n2,2.25\n3,2\n"


def an_entry(seq: int) -> JsonObject:
    return {"seq": seq, "at": "2026-11-21T12:00:00Z", "reason": "X", "message": str(seq)}


async def test_events_are_messages_and_metrics_newest_first(gateway: Gateway) -> None:
    status = {"state": "running", "events": [an_entry(1), an_entry(2)]}
    await add(gateway, "tone", "12:00:00", status=status)
    gateway.files.results["tone"] = CSV
    seen: list[str] = []
    query = "?limit=2"
    for _ in range(3):
        page = await gateway.get(f"{PATH}/ftjob-tone/events{query}")
        for event in page["data"]:
            FineTuningJobEvent.model_validate(event, strict=True)
        seen += [event["id"] for event in page["data"]]
        query = f"?limit=2&after={seen[-1]}"
    assert not page["has_more"]
    assert seen == [f"ftevent-tone-{end}" for end in ("2", "1", "step-3", "step-2", "step-1")]
    error = await gateway.get(f"{PATH}/ftjob-tone/events?after=ftevent-other-1", 400)
    assert error["param"] == "after"
    old = await gateway.get("/v1/fine-tunes/ft-tone/events")
    assert len(old["data"]) == 2


async def test_events_without_results_are_messages(gateway: Gateway) -> None:
    await add(gateway, "tone", status={"events": [an_entry(1)]})
    page = await gateway.get(f"{PATH}/ftjob-tone/events")
    assert [event["type"] for event in page["data"]] == ["message"]
    gateway.files.failure = unavailable("The store does not answer.")
    await gateway.get(f"{PATH}/ftjob-tone/events", 503)


async def test_the_newest_page_of_a_long_training_is_quick(gateway: Gateway) -> None:
    await add(gateway, "tone", status=running().status.to_dict())
    gateway.files.results["tone"] = b"step,training_loss\n" + b"".join(
        b"%d,1.25\n" % step for step in range(1, 50_001)
    )
    started = time.process_time()
    page = await gateway.get(f"{PATH}/ftjob-tone/events?limit=100")
    assert time.process_time() - started < 4  # about 0.6 on a quiet machine
    assert len(page["data"]) == 100


async def test_no_checkpoint_is_a_model(gateway: Gateway) -> None:
    await add(gateway, "tone")
    page = await gateway.get(f"{PATH}/ftjob-tone/checkpoints?limit=10")
    assert (page["data"], page["has_more"]) == ([], False)
    await gateway.get(f"{PATH}/ftjob-nosuch/checkpoints", 404)
    await gateway.get(f"{PATH}/ftjob-tone/checkpoints?after=x", 400)


async def test_permissions_are_roles(gateway: Gateway) -> None:
    path = "/v1/fine_tuning/checkpoints/ada/permissions"
    assert (await gateway.get(path))["data"] == []
    await gateway.get("/v1/fine_tuning/checkpoints/ada:ft-x:y/permissions", 404)
    for answer in (
        await gateway.post(path, {"project_ids": ["x"]}, 400),
        await gateway.delete(f"{path}/cp_1", 400),
    ):
        assert answer["code"] == "unsupported"
        assert "finetune-user" in answer["message"]
