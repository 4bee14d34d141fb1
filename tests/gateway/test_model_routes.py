"""Models over a cluster in memory."""

from __future__ import annotations

import re
from typing import Any

import pytest
from openai.types import Model, ModelDeleted

from finetune_gateway.kube_errors import KubeError
from tests.support.gateway_app import Gateway, running_gateway

ID = "ada:ft-acme:custom-model-name-2022-02-15-04-21-04"
ENCODED = ID.replace(":", "%3A")


async def add_model(gateway: Gateway, model_id: str = ID, **spec: Any) -> str:
    name = re.sub("[^a-z0-9]+", "-", model_id)
    fields = {
        "id": model_id,
        "uri": "s3://bucket/out/ml/tone-00000000/model",
        "base": "ada",
        "pretrainingLearningRate": 0.001,
        "contextLength": 256,
    }
    await gateway.cluster.add("models", name, fields | spec)
    return name


async def test_the_list_has_base_models_and_fine_tuned_ones() -> None:
    async with running_gateway() as gateway:
        await add_model(gateway)
        await add_model(gateway, "ada:ft-acme:next", parent=ID)
        found = (await gateway.get("/v1/models"))["data"]
    for model in found:
        Model.model_validate(model, strict=True)
    assert [(model["id"], model["owned_by"]) for model in found] == [
        ("ada", "system"),
        ("curie", "system"),
        (ID, "acme"),
        ("ada:ft-acme:next", "acme"),
    ]
    assert (found[3]["root"], found[3]["parent"]) == ("ada", ID)


@pytest.mark.parametrize("shown", [ID, ENCODED])
async def test_a_model_is_found_with_bare_and_encoded_colons(shown: str) -> None:
    async with running_gateway() as gateway:
        await add_model(gateway)
        assert (await gateway.get(f"/v1/models/{shown}"))["id"] == ID
        assert (await gateway.get("/v1/models/ada"))["owned_by"] == "system"


@pytest.mark.parametrize(
    "shown", [ID.replace(":", "-"), "nosuch", "::", "%ff", "..%2F..", "x" * 3000, "ADA"]
)
async def test_any_other_id_is_404(shown: str) -> None:
    async with running_gateway() as gateway:
        await add_model(gateway)
        for error in (
            await gateway.get(f"/v1/models/{shown}", 404),
            await gateway.delete(f"/v1/models/{shown}", 404),
        ):
            assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert gateway.cluster.objects["models"]


async def test_only_an_owner_deletes_a_model() -> None:
    async with running_gateway(deletesFiles=True) as gateway:
        name = await add_model(gateway)
        gateway.cluster.refuse("delete", "models")
        error = await gateway.delete(f"/v1/models/{ENCODED}", 403)
        assert error["message"].startswith(
            "You must be an owner (role finetune-owner) to delete models in ml."
        )
        assert gateway.cluster.objects["models"][name]["spec"]["deletionPolicy"] == "Retain"
        del gateway.cluster.refusals["delete", "models"]
        deleted = await gateway.delete(f"/v1/models/{ID}")
        ModelDeleted.model_validate(deleted, strict=True)
        assert deleted == {"id": ID, "object": "model", "deleted": True}
        assert not gateway.cluster.objects["models"]


@pytest.mark.parametrize(
    ("deletes_files", "before", "verbs"),
    [
        (False, "Retain", ["get", "delete"]),
        (True, "Retain", ["get", "patch", "delete"]),
        (True, "Delete", ["get", "delete"]),
    ],
)
async def test_the_files_are_deleted_if_the_settings_say_so(
    deletes_files: bool, before: str, verbs: list[str]
) -> None:
    async with running_gateway(deletesFiles=deletes_files) as gateway:
        await add_model(gateway, deletionPolicy=before)
        await gateway.delete(f"/v1/models/{ID}")
        assert [verb for verb, _ in gateway.cluster.requests] == verbs


async def test_a_base_model_is_not_deleted() -> None:
    async with running_gateway() as gateway:
        error = await gateway.delete("/v1/models/ada", 400)
        assert "cannot be deleted" in error["message"]


async def test_an_unknown_caller_sees_no_base_model() -> None:
    async with running_gateway() as gateway:
        gateway.cluster.refuse("get", "models", KubeError(401, "Unauthorized"))
        for path in ("/v1/models/ada", "/v1/models/::", f"/v1/models/{ID}"):
            assert (await gateway.get(path, 401))["code"] == "invalid_api_key"


async def test_an_api_server_that_is_away_is_503() -> None:
    async with running_gateway() as gateway:
        gateway.cluster.refuse("list", "models", KubeError(0, "connection refused"))
        error = await gateway.get("/v1/models", 503)
        assert error["code"] == "service_unavailable"
        assert gateway.headers["Retry-After"] == "5"
