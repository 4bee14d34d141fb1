"""Which server answers for a model with spec.serve, and what it supports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_api.model import Model
from finetune_api.wire import JsonObject
from finetune_gateway.backends.target import Served, model_target
from finetune_gateway.settings import CompletionServer
from finetune_local.machine import Machine
from finetune_local.machine import gateway_settings as machine_settings
from finetune_web.problems import Problem
from tests.gateway.completion_gateway import TONE
from tests.gateway.served_gateway import status
from tests.support.gateway_app import OUTPUT, gateway_settings

UID = "0a1b2c3d-0000-4000-8000-000000000000"
NAME = "mdl-support-tone-0a1b2c3d-serve"
OWN = f"http://{NAME}.ml.svc:8000/v1"
SERVE: JsonObject = {"serve": {}}
SERVING: JsonObject = {"serving": {"service": "own", "port": 80}}
FILES: JsonObject = {
    "fineTune": {"name": "tone", "uid": UID},
    "manifestSha256": "ab" * 32,
    "uri": f"{OUTPUT}/ml/tone-0a1b2c3d/model",
}
BACKENDS: JsonObject = {"backends": [{"base": "curie", "url": "http://vllm:8000/v1"}]}
SERVER: JsonObject = {"server": {"url": "http://completions:8000/v1", "secretFile": "/token"}}


def model(*, name: str = "support-tone", found: JsonObject | None = None, **spec: Any) -> Model:
    usual: dict[str, Any] = {"id": TONE, "uri": "s3://bucket/model", "base": "curie"}
    usual |= {"pretrainingLearningRate": 0.001, "contextLength": 64}
    metadata = {"name": name, "namespace": "ml", "uid": UID}
    return Model.parse({"metadata": metadata, "spec": usual | spec, "status": found or {}})


@pytest.mark.parametrize(
    ("spec", "settings", "url", "is_served"),
    [
        pytest.param(SERVE, {"servesModels": True}, OWN, True, id="served"),
        pytest.param(
            SERVE | SERVING,
            {"servesModels": True},
            "http://own.ml.svc:80/v1",
            False,
            id="the Service of the Model is first",
        ),
        pytest.param(
            SERVE, {"servesModels": True, **BACKENDS, **SERVER}, OWN, True, id="before a backend"
        ),
        pytest.param(SERVE, BACKENDS, "http://vllm:8000/v1", False, id="no serving: backend"),
        pytest.param(
            SERVE | FILES, SERVER, "http://completions:8000/v1", False, id="no serving: server"
        ),
        pytest.param(
            {},
            {"servesModels": True, **BACKENDS},
            "http://vllm:8000/v1",
            False,
            id="without spec.serve",
        ),
    ],
)
def test_the_server_of_a_model(
    spec: JsonObject, settings: JsonObject, url: str, is_served: bool
) -> None:
    found = model_target(model(**spec), gateway_settings(**settings))
    assert (found.url, found.served is not None) == (url, is_served)


@pytest.mark.parametrize(
    ("spec", "settings", "said", "unsaid"),
    [
        pytest.param(
            SERVE, {}, "Its spec.serve needs the chart value serving.enabled", "", id="disabled"
        ),
        pytest.param(
            {}, {"servesModels": True}, "Set spec.serve of the Model, or set", "", id="enabled"
        ),
        pytest.param({}, {}, "Set spec.serving of the Model", "spec.serve ", id="neither"),
    ],
)
def test_without_a_server_the_sentence_says_what_to_set(
    spec: JsonObject, settings: JsonObject, said: str, unsaid: str
) -> None:
    with pytest.raises(Problem) as caught:
        model_target(model(**spec), gateway_settings(**settings))
    message = caught.value.message
    assert (caught.value.status, caught.value.code) == (503, "model_not_served")
    assert caught.value.should_retry is False
    assert said in message
    assert not unsaid or unsaid not in message
    for remedy in ("spec.serving of the Model support-tone", "gateway.backends", "server.enabled"):
        assert remedy in message


@pytest.mark.parametrize(
    ("found", "served", "supports"),
    [
        (None, Served(NAME), set()),
        ({}, Served(NAME), set()),
        (status("ready"), Served(NAME, "ready", "One sentence."), {"best_of"}),
        (status("ready", engine="vllm"), Served(NAME, "ready", "One sentence."), set()),
        (status("ready", engine=None), Served(NAME, "ready", "One sentence."), set()),
        (status("asleep", engine="vllm"), Served(NAME, "asleep", "One sentence."), set()),
        (status("failed", message="No GPU."), Served(NAME, "failed", "No GPU."), {"best_of"}),
    ],
    ids=["none", "empty", "finetune", "vllm", "unknown", "asleep", "failed"],
)
def test_the_target_has_the_lease_the_state_and_the_fields_of_the_engine(
    found: JsonObject | None, served: Served, supports: set[str]
) -> None:
    target = model_target(model(found=found, **SERVE), gateway_settings(servesModels=True))
    assert (target.served, set(target.supports)) == (served, supports)
    assert (target.url, target.model, target.is_trusted) == (OWN, TONE, False)
    assert (target.key_file, target.headers) == (None, ())
    assert target.shown == f"The Service {NAME}.ml.svc:8000"


@pytest.mark.parametrize("state", ["loading", "ready", "asleep", "failed", None])
def test_only_one_state_is_a_failure(state: Any) -> None:
    assert Served(NAME, state).has_failed is (state == "failed")


def test_a_status_of_another_service_leads_nowhere() -> None:
    """A user who may write the status of Models cannot send requests elsewhere."""
    found = status("ready", service="evil")
    target = model_target(model(found=found, **SERVE), gateway_settings(servesModels=True))
    assert target.url == OWN


@pytest.mark.parametrize("name", ["a/b", "a@evil", "a#", "a:80", "A", "a b", "a\n"])
def test_a_name_that_no_object_can_have_is_no_part_of_a_url(name: str) -> None:
    with pytest.raises(Problem, match="no Service can have"):
        model_target(model(name=name, **SERVE), gateway_settings(servesModels=True))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.b.c", "mdl-a-b-c-0a1b2c3d-serve"),
        ("x" * 253, f"mdl-{'x' * 35}-0a1b2c3d-serve"),
        (f"{'x' * 34}.y", f"mdl-{'x' * 34}-0a1b2c3d-serve"),
    ],
    ids=["dots", "long", "a dot at the end"],
)
def test_the_lease_and_the_service_have_one_name(name: str, expected: str) -> None:
    target = model_target(model(name=name, **SERVE), gateway_settings(servesModels=True))
    assert target.served is not None
    assert (target.served.lease, target.url) == (expected, f"http://{expected}.ml.svc:8000/v1")


def test_a_gateway_without_a_cluster_ignores_the_field() -> None:
    """`finetune serve` has one completion server for all models, and no operator that serves."""
    machine = Machine(Path("/models"), [], 8000)
    server = CompletionServer(url="http://127.0.0.1:8001/v1", secret_file=Path("/token"))
    settings = machine_settings(machine, server)
    tuned = model(**SERVE, **FILES | {"uri": f"{settings.output}/local/tone-0a1b2c3d/model"})
    target = model_target(tuned, settings)
    assert (target.url, target.served) == ("http://127.0.0.1:8001/v1", None)
