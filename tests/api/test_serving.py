"""`spec.serving` of a Model: the server that runs it."""

from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from finetune_api.crd import model_crd
from finetune_api.crd.rules import MUTABLE_MODEL_FIELDS
from finetune_api.model import ModelSpec

SPEC = {
    "id": "ada:ft-acme:tone-2026-11-21-12-00-00",
    "uri": "s3://acme/out/ml/tone-11111111/model",
    "base": "ada",
    "pretrainingLearningRate": 0.001,
    "contextLength": 256,
}


def schema() -> dict[str, Any]:
    (version,) = model_crd()["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


@pytest.mark.parametrize(
    "serving",
    [
        {"service": "support-tone", "port": 8000},
        {"service": "s" * 63, "port": 1, "name": "n" * 256},
        {"service": "0", "port": 65535, "name": "curie:ft-acme:tone"},
    ],
)
def test_a_service_and_a_port_name_the_server(serving: dict[str, Any]) -> None:
    spec = SPEC | {"serving": serving}
    jsonschema.validate(spec, schema())
    assert ModelSpec.model_validate(spec).to_dict()["serving"] == serving


@pytest.mark.parametrize(
    "serving",
    [
        {},
        {"service": "support-tone"},
        {"port": 8000},
        {"service": "", "port": 8000},
        {"service": "s" * 64, "port": 8000},
        {"service": "Support", "port": 8000},
        {"service": "support.other", "port": 8000},
        {"service": "support/..", "port": 8000},
        {"service": "evil.example.com:80#", "port": 8000},
        {"service": "support\n", "port": 8000},
        {"service": "support-tone", "port": 0},
        {"service": "support-tone", "port": 65536},
        {"service": "support-tone", "port": "http"},
        {"service": "support-tone", "port": 8000, "name": ""},
        {"service": "support-tone", "port": 8000, "name": "n" * 257},
    ],
)
def test_what_is_no_service_of_the_namespace_is_refused(serving: dict[str, Any]) -> None:
    """By the API server, and by the gateway that reads what an older CRD let through."""
    spec = SPEC | {"serving": serving}
    if serving.get("service") != "support\n":  # the `$` of Python's regular expressions matches it
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(spec, schema())
    with pytest.raises(ValidationError):
        ModelSpec.model_validate(spec)


def test_a_model_needs_no_server_and_may_get_one_later() -> None:
    assert "serving" not in ModelSpec.model_validate(SPEC).to_dict()
    assert "serving" in MUTABLE_MODEL_FIELDS
    assert "serving" not in schema()["required"]
