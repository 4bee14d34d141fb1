"""OpenAI's fine-tunes API over a cluster in memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from finetune_api.names import LABEL_REQUEST
from finetune_gateway.kube.caller import Caller
from finetune_gateway.kube_errors import KubeError
from finetune_gateway.routes import context
from finetune_web.problems import unavailable
from tests.support.gateway_app import AS_ANNA, OUTPUT, Gateway, running_gateway
from tests.support.gateway_cluster import MemoryCluster

OPERATOR = Caller({}, "operator")
PATH = "/v1/fine-tunes"
SPEC = {"model": "ada", "trainingFile": "s3://acme/train.jsonl"}
RESULTS = f"{OUTPUT}/ml/tone-00000000/results.csv"
BODY = {"model": "ada", "training_file": "s3://acme/train.jsonl"}


@pytest_asyncio.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with running_gateway() as found:
        yield found


async def test_the_command_line_creates_a_fine_tune(gateway: Gateway) -> None:
    file = gateway.files.upload("test.jsonl", 27)
    body = {"training_file": file.id, "model": "ada", "suffix": "custom model name"}
    made = await gateway.post(PATH, body)
    assert re.fullmatch("ft-custom-model-name-[0-9a-f]{6}", made["id"])
    assert made["status"] == "pending"
    assert made["training_files"][0] | {"created_at": 0} == {
        "id": file.id,
        "object": "file",
        "bytes": 27,
        "created_at": 0,
        "filename": "test.jsonl",
        "purpose": "fine-tune",
        "status": "processed",
        "status_details": None,
    }
    name = made["id"].removeprefix("ft-")
    assert gateway.cluster.spec_of(name)["trainingFile"] == str(file.uri)
    assert await gateway.get(f"{PATH}/{made['id']}") == made


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n_epochs": 99}, "n_epochs"),
        ({"n_epochs": "four"}, "n_epochs"),
        ({"learning_rate_multiplier": 1e9}, "learning_rate_multiplier"),
        ({"classification_positive_class": ""}, "classification_positive_class"),
        ({"finetune": {"resources": {"nodes": 0}}}, "finetune.resources.nodes"),
        ({"finetune": {"resources": {"gpus": 1}}}, "finetune.resources.gpus"),
        ({"finetune": {"method": {"type": "qlora"}}}, "finetune.method.type"),
        ({"finetune": {"trainingFiles": [{"uri": "s3://acme/x"}]}}, "training_file"),
        ({"model": "gpt-4"}, "model"),
        ({"model": "ada:ft-acme:gone-2026-11-21-12-00-00"}, "model"),
        ({"model": "::"}, "model"),
        ({"training_file": "nosuch.jsonl"}, "training_file"),
        ({"suffix": "x" * 41}, "suffix"),
        ({"stream": True}, "stream"),
    ],
)
async def test_a_bad_request_makes_no_fine_tune(
    gateway: Gateway, body: dict[str, Any], param: str
) -> None:
    error = await gateway.post(PATH, BODY | body, 400)
    assert error["param"] == param
    assert not gateway.cluster.objects["finetunes"]


async def test_a_file_of_another_purpose_is_no_training_file(gateway: Gateway) -> None:
    file = gateway.files.upload("x.jsonl", purpose="batch")
    error = await gateway.post(PATH, BODY | {"training_file": file.id}, 400)
    assert error["param"] == "training_file"


async def test_a_fine_tuned_model_continues(gateway: Gateway) -> None:
    model_id = "ada:ft-acme:tone-2026-11-21-12-00-00"
    await add_model(gateway.cluster, model_id)
    made = await gateway.post(PATH, BODY | {"model": model_id})
    assert made["model"] == model_id
    # Another id with the same name of an object is another model.
    error = await gateway.post(PATH, BODY | {"model": model_id.replace(":", "-")}, 400)
    assert error["code"] == "model_not_found"


async def add_model(cluster: MemoryCluster, model_id: str) -> None:
    spec = {
        "id": model_id,
        "uri": f"{OUTPUT}/ml/tone-00000000/model",
        "base": "ada",
        "pretrainingLearningRate": 0.001,
        "contextLength": 256,
    }
    await cluster.add("models", re.sub("[^a-z0-9]+", "-", model_id), spec)


async def test_the_administrators_part_of_the_base_model_is_in_the_spec() -> None:
    lora = {"method": {"type": "lora", "rank": 8}, "resources": {"gpusPerNode": 4}}
    base = {"uri": "s3://bucket/ada", "pretrainingLearningRate": 0.001, "contextLength": 256}
    entries = [{"name": "ada", "fineTune": lora} | base, {"name": "curie"} | base]
    async with running_gateway(models=entries) as gateway:
        model_id = "ada:ft-acme:tone-2026-11-21-12-00-00"
        await add_model(gateway.cluster, model_id)
        for model, kind in (("ada", "lora"), (model_id, "lora"), ("curie", "full")):
            made = await gateway.post(PATH, BODY | {"model": model})
            spec = gateway.cluster.spec_of(made["id"].removeprefix("ft-"))
            assert spec["method"]["type"] == kind


async def test_a_name_that_is_taken_is_replaced_and_never_409(gateway: Gateway) -> None:
    taken = KubeError(409, 'finetunes.finetune.dev "x" already exists', reason="AlreadyExists")
    gateway.cluster.refuse("create", "finetunes", taken)
    error = await gateway.post(PATH, BODY, 503)
    assert error["code"] == "service_unavailable"
    assert gateway.cluster.requests.count(("create", "finetunes")) == 5


async def test_a_list_has_all_without_events_oldest_first(gateway: Gateway) -> None:
    for name in ("c", "a", "b"):
        await gateway.cluster.add("finetunes", name, SPEC, status={"state": "running"})
    objects = gateway.cluster.objects["finetunes"]
    for index, name in enumerate(("c", "a", "b")):
        objects[name]["metadata"]["creationTimestamp"] = f"2026-11-21T12:00:0{index}Z"
    found = await gateway.get(PATH)
    assert [item["id"] for item in found["data"]] == ["ft-c", "ft-a", "ft-b"]
    assert (found["object"], found["has_more"]) == ("list", False)
    assert not any("events" in item for item in found["data"])
    page = await gateway.get(f"{PATH}?limit=1&after=ft-c")
    assert [item["id"] for item in page["data"]] == ["ft-a"]


async def test_one_that_cannot_be_read_hides_no_other(gateway: Gateway) -> None:
    await gateway.cluster.add("finetunes", "good", SPEC)
    await gateway.cluster.add("finetunes", "newer", SPEC, status={"state": "meditating"})
    assert [item["id"] for item in (await gateway.get(PATH))["data"]] == ["ft-good"]
    error = await gateway.get(f"{PATH}/ft-newer", 500)
    assert error["code"] == "unreadable_object"
    assert "FineTune newer" in error["message"]
    assert "status.state" in error["message"]


@pytest.mark.parametrize(
    "status",
    [
        {"events": [{"at": "never", "reason": "X", "message": "\x00\x1b[2J"}] * 64},
        {"state": "running", "progress": {"eta": "soon", "updatedAt": "-", "step": -1}},
        {"state": "succeeded", "finishedAt": "", "resultFiles": ["", "s3://..", "https://x"]},
        {"state": "failed", "error": {"code": "", "message": "", "param": "[0]", "hint": ""}},
        {"state": "failed", "startedAt": "0001-01-01T00:00:00Z", "trainedTokens": -1},
        {"state": "cancelled", "fineTunedModel": "<script>", "stage": "?"},
    ],
)
async def test_a_hostile_status_is_shown(gateway: Gateway, status: dict[str, Any]) -> None:
    await gateway.cluster.add("finetunes", "tone", SPEC, status=status)
    for path in (f"{PATH}/ft-tone", PATH, f"{PATH}/ft-tone/events"):
        await gateway.get(path)
    for path in ("/ftjob-tone", "", "/ftjob-tone/events"):
        await gateway.get(f"/v1/fine_tuning/jobs{path}")


async def test_every_form_of_an_id_finds_its_fine_tune(gateway: Gateway) -> None:
    await gateway.cluster.add("finetunes", "tone", SPEC)
    for shown in ("ft-tone", "ftjob-tone", "tone"):
        assert (await gateway.get(f"{PATH}/{shown}"))["id"] == "ft-tone"
    await gateway.cluster.add("finetunes", "ft-tone", SPEC)
    assert (await gateway.get(f"{PATH}/ft-tone"))["id"] == "ft-tone"
    assert (await gateway.get(f"{PATH}/ft-ft-tone"))["id"] == "ft-ft-tone"
    await gateway.cluster.add("finetunes", "ft-other", SPEC)
    assert (await gateway.get(f"{PATH}/ft-other"))["id"] == "ft-ft-other"


@pytest.mark.parametrize("shown", ["nosuch", "ft-nosuch", "..%2Fmodels", "%ff", "x" * 2000, "A"])
async def test_an_unknown_id_is_404(gateway: Gateway, shown: str) -> None:
    for path in (f"{PATH}/{shown}", f"{PATH}/{shown}/events", f"/v1/fine_tuning/jobs/{shown}"):
        error = await gateway.get(path, 404)
        assert error["code"] == "fine_tune_not_found"
    assert (await gateway.post(f"{PATH}/{shown}/cancel", status=404))["param"] == "fine_tune_id"


async def test_an_id_that_no_object_has_needs_a_known_caller_too(gateway: Gateway) -> None:
    gateway.cluster.refuse("get", "finetunes", KubeError(401, "Unauthorized"))
    assert (await gateway.get(f"{PATH}/A", 401))["code"] == "invalid_api_key"


async def test_events_are_listed_oldest_first(gateway: Gateway) -> None:
    entries = [
        {"seq": seq, "at": "2026-11-21T12:00:00Z", "reason": "X", "message": str(seq)}
        for seq in (3, 4)
    ]
    await gateway.cluster.add("finetunes", "tone", SPEC, status={"events": entries})
    for query in ("", "?stream=false"):
        found = await gateway.get(f"{PATH}/ft-tone/events{query}")
        assert [event["id"] for event in found["data"]] == ["ftevent-tone-3", "ftevent-tone-4"]
    assert (await gateway.get(f"{PATH}/ft-tone/events?stream=x", 400))["param"] == "stream"


async def test_results_have_the_id_that_their_content_has(gateway: Gateway) -> None:
    made = await gateway.cluster.add("finetunes", "tone", SPEC)
    made["metadata"]["uid"] = "00000000-1111"
    await gateway.cluster.set_status("tone", state="succeeded", resultFiles=[RESULTS])
    assert (await gateway.get(f"{PATH}/ft-tone"))["result_files"][0]["id"] == "file-results-tone"
    job = await gateway.get("/v1/fine_tuning/jobs/ft-tone")
    assert job["result_files"] == ["file-results-tone"]
    page = await gateway.get("/v1/fine_tuning/jobs")
    assert page["data"] == [job]


async def test_a_store_that_is_away_hides_only_the_sizes(gateway: Gateway) -> None:
    file = gateway.files.upload("test.jsonl")
    for name in ("a", "b"):
        await gateway.cluster.add("finetunes", name, SPEC | {"trainingFile": str(file.uri)})
    gateway.files.failure = unavailable("The store does not answer.")
    shown = await gateway.get(f"{PATH}/ft-a")
    assert (shown["training_files"][0]["id"], shown["training_files"][0]["bytes"]) == (
        file.id,
        None,
    )
    found = await gateway.get(PATH)
    assert [item["training_files"][0]["id"] for item in found["data"]] == [file.id] * 2
    await gateway.get("/v1/fine_tuning/jobs/ft-a")
    error = await gateway.post(PATH, BODY | {"training_file": file.id}, 503)
    assert error["code"] == "service_unavailable"


async def test_a_cancellation_waits_for_the_end(gateway: Gateway) -> None:
    await gateway.cluster.add("finetunes", "tone", SPEC, status={"state": "running"})

    async def operate() -> None:
        async for found in gateway.cluster.follow(OPERATOR, "finetunes", "tone"):
            if found is not None and found["spec"]["cancel"]:
                await gateway.cluster.set_status("tone", state="cancelled")
                return

    operator = asyncio.create_task(operate())
    assert (await gateway.post(f"{PATH}/ft-tone/cancel"))["status"] == "cancelled"
    await operator


async def test_a_cancellation_does_not_wait_for_long(gateway: Gateway) -> None:
    await gateway.cluster.add("finetunes", "tone", SPEC, status={"state": "running"})
    assert (await gateway.post(f"{PATH}/ft-tone/cancel"))["status"] == "running"
    gateway.cluster.refuse("watch", "finetunes")
    assert (await gateway.post(f"{PATH}/ft-tone/cancel"))["status"] == "running"
    assert gateway.cluster.spec_of("tone")["cancel"] is True


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("succeeded", "has succeeded already"),
        ("failed", "has failed already"),
        ("cancelled", "has been cancelled already"),
    ],
)
async def test_what_has_ended_is_not_cancelled(gateway: Gateway, state: str, words: str) -> None:
    await gateway.cluster.add("finetunes", "tone", SPEC, status={"state": state})
    for path in (PATH, "/v1/fine_tuning/jobs"):
        error = await gateway.post(f"{path}/ft-tone/cancel", status=400)
        assert words in error["message"]
    assert gateway.cluster.spec_of("tone")["cancel"] is False


async def test_the_repeated_cancellation_of_a_client_has_the_first_ones_answer(
    gateway: Gateway,
) -> None:
    await gateway.cluster.add("finetunes", "tone", SPEC, status={"state": "cancelled"})
    path = f"{PATH}/ft-tone/cancel"
    assert (await gateway.post(path, x_stainless_retry_count="1"))["status"] == "cancelled"


async def test_a_fine_tune_is_deleted_by_its_owner(gateway: Gateway) -> None:
    await gateway.cluster.add("finetunes", "tone", SPEC)
    gateway.cluster.refuse("delete", "finetunes")
    error = await gateway.delete(f"{PATH}/ft-tone", 403)
    assert "You must be an owner (role finetune-owner) to delete fine-tunes" in error["message"]
    del gateway.cluster.refusals["delete", "finetunes"]
    assert await gateway.delete(f"{PATH}/tone") == {
        "id": "ft-tone",
        "object": "fine-tune",
        "deleted": True,
    }
    await gateway.delete(f"{PATH}/tone", 404)


async def test_a_caller_without_rights_reaches_nothing(gateway: Gateway) -> None:
    await gateway.cluster.add("finetunes", "tone", SPEC)
    for verb in ("get", "list", "create"):
        gateway.cluster.refuse(verb, "finetunes")
    gateway.files.failure = AssertionError("the store was asked")
    for path in (PATH, f"{PATH}/ft-tone", "/v1/fine_tuning/jobs"):
        assert (await gateway.get(path, 403))["type"] == "permission_error"
    file_id = "file-01m7yw6nw0jv8eb33q8pb9ssjv"
    error = await gateway.post(PATH, BODY | {"training_file": file_id}, 403)
    assert "role finetune-user" in error["message"]


async def test_every_request_is_made_as_the_caller(gateway: Gateway) -> None:
    await gateway.post(PATH, BODY)
    await gateway.get(PATH, Authorization="Bearer eyJ.eyJ.c2ln")
    assert {caller.account for caller in gateway.cluster.callers[:-1]} == {"anna"}
    assert gateway.cluster.callers[-1].headers == {"Authorization": "Bearer eyJ.eyJ.c2ln"}


async def test_a_full_quota_is_not_repeated(gateway: Gateway) -> None:
    said = 'finetunes.finetune.dev "x" is forbidden: exceeded quota: few, requested: count=1'
    gateway.cluster.refuse("create", "finetunes", KubeError(403, said, reason="Forbidden"))
    error = await gateway.post(PATH, BODY, 429)
    assert error["code"] == "insufficient_quota"
    assert gateway.headers["x-should-retry"] == "false"


# Repeated requests


async def test_a_body_that_does_not_arrive_is_not_waited_for(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "BODY_SECONDS", 0.1)

    async def slow() -> AsyncIterator[bytes]:
        yield b'{"model": '
        await asyncio.sleep(60)

    async with gateway.client.post(PATH, data=slow(), headers=AS_ANNA) as response:
        assert response.status == 408
        assert (await response.json())["error"]["code"] == "request_timeout"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_cannot_be_decoded_is_no_error_of_the_gateway(
    gateway: Gateway, encoding: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {**AS_ANNA, "Content-Encoding": encoding}
    async with gateway.client.post(
        PATH, data=b"hello", headers=headers, skip_auto_headers=["Content-Encoding"]
    ) as response:
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "invalid_encoding"


async def names(gateway: Gateway) -> set[str]:
    return set(gateway.cluster.objects["finetunes"])


async def test_two_equal_requests_are_two_fine_tunes(gateway: Gateway) -> None:
    await gateway.post(PATH, BODY)
    await gateway.post(PATH, BODY, x_stainless_retry_count="0")
    assert len(await names(gateway)) == 2


async def test_a_repeated_request_has_the_first_ones_answer(gateway: Gateway) -> None:
    made = await gateway.post(PATH, BODY)
    again = await gateway.post(PATH, BODY, x_stainless_retry_count="1")
    assert again == made
    await gateway.post(PATH, BODY | {"suffix": "x"}, x_stainless_retry_count="1")
    await gateway.post("/v1/fine_tuning/jobs", BODY, x_stainless_retry_count="1")
    bert = {"Authorization": "Bearer sk-ft-bert"}
    await gateway.post(PATH, BODY, x_stainless_retry_count="1", **bert)
    assert len(await names(gateway)) == 4


async def test_a_repetition_after_ten_minutes_is_a_new_request(gateway: Gateway) -> None:
    await gateway.post(PATH, BODY)
    make_older(gateway, minutes=11)
    await gateway.post(PATH, BODY, x_stainless_retry_count="2")
    assert len(await names(gateway)) == 2


async def test_a_key_makes_one_fine_tune_for_a_day(gateway: Gateway) -> None:
    made = await gateway.post(PATH, BODY, Idempotency_Key="once")
    make_older(gateway, minutes=23 * 60)
    assert (await gateway.post(PATH, BODY, Idempotency_Key="once"))["id"] == made["id"]
    assert (await gateway.post(PATH, BODY, Idempotency_Key="twice"))["id"] != made["id"]
    make_older(gateway, minutes=2 * 60)
    assert (await gateway.post(PATH, BODY, Idempotency_Key="once"))["id"] != made["id"]
    assert len(await names(gateway)) == 3


async def test_equal_keys_at_the_same_time_make_one_fine_tune(gateway: Gateway) -> None:
    answers = await asyncio.gather(
        *(gateway.post(PATH, BODY, Idempotency_Key="once") for _ in range(10))
    )
    assert len({answer["id"] for answer in answers}) == 1
    assert gateway.cluster.requests.count(("create", "finetunes")) > 1
    assert len(await names(gateway)) == 1


async def test_repetitions_at_the_same_time_make_one_fine_tune(gateway: Gateway) -> None:
    counts = ["1", "1", "2", "3"]
    answers = await asyncio.gather(
        *(gateway.post(PATH, BODY, x_stainless_retry_count=count) for count in counts)
    )
    assert gateway.cluster.requests.count(("create", "finetunes")) > 1
    assert len({answer["id"] for answer in answers}) == 1
    assert len(await names(gateway)) == 1


async def test_equal_requests_at_the_same_time_are_as_many_fine_tunes(gateway: Gateway) -> None:
    await asyncio.gather(*(gateway.post(PATH, BODY, x_stainless_retry_count="0") for _ in range(3)))
    assert len(await names(gateway)) == 3


@pytest.mark.parametrize("count", ["x", "-1", "", "9" * 5000])
async def test_a_count_that_is_no_number_is_no_repetition(gateway: Gateway, count: str) -> None:
    await gateway.post(PATH, BODY)
    await gateway.post(PATH, BODY, x_stainless_retry_count=count)
    assert len(await names(gateway)) == 2


def make_older(gateway: Gateway, minutes: int) -> None:
    for obj in gateway.cluster.objects["finetunes"].values():
        meta = obj["metadata"]
        assert len(meta["labels"][LABEL_REQUEST]) == 32
        at = datetime.strptime(meta["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        meta["creationTimestamp"] = f"{at - timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}"
