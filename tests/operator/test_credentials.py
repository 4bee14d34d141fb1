"""What reaches the pods of a Secret: named keys, and nothing else of it."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api.names import ENV_ALLOWED_ENDPOINTS
from finetune_api.wire import JsonObject
from finetune_operator.build.credentials import SECRET_KEYS
from finetune_operator.build.lookup_job import build_lookup_job
from tests.operator.test_deletion import HELD, a_model
from tests.operator.test_deletion import decide as decide_model
from tests.support.objects import World, a_finetune, a_settings, secret_keys

# Keys that change where credentials come from, where requests go, or which code runs.
HOSTILE = (
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_PROFILE",
    "FINETUNE_LOCAL_ROOT",
    "FINETUNE_TASK",
    "HTTPS_PROXY",
    "LD_PRELOAD",
    "PYTHONPATH",
)


def containers(pod: JsonObject) -> list[JsonObject]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def all_containers(settings: dict[str, Any] | None = None, **spec: Any) -> list[JsonObject]:
    """The containers of every pod of the product: prepare, train, lookup, and deletion."""
    parsed = a_settings(**(settings or {}))
    world = World(a_finetune(**spec), parsed).until_training()
    jobs = [made for made in world.created if made["kind"] == "Job"]
    jobs.append(build_lookup_job(world.finetune, world.status.resolved, parsed))
    name = world.status.resolved.secret_name
    deletion = decide_model(a_model("Delete", *HELD, going=True, secretName=name)).create
    assert deletion is not None
    found = [pod for job in jobs for pod in containers(job["spec"]["template"]["spec"])]
    assert len(found) == 4  # with the check of the base model
    return found + (containers(deletion["spec"]["template"]["spec"]) if settings is None else [])


def test_no_pod_gets_a_secret_as_a_whole() -> None:
    for container in all_containers(storage={"secretName": "mine"}):
        assert "envFrom" not in container
        keys = secret_keys(container)
        assert set(keys) == set(SECRET_KEYS)
        assert {name for name, _ in keys.values()} == {"mine"}
        assert not keys.keys() & set(HOSTILE)
    for volume in World(a_finetune()).until_training().created:
        assert "secret" not in str(volume["spec"]["template"]["spec"]["volumes"])


@pytest.mark.parametrize(
    ("spec", "required"),
    [({}, set()), ({"storage": {"secretName": "mine"}}, {"AWS_ACCESS_KEY_ID"})],
)
def test_only_a_secret_that_the_user_names_must_exist(
    spec: dict[str, Any], required: set[str]
) -> None:
    for container in all_containers(**spec):
        keys = secret_keys(container)
        assert {key for key, (_, is_optional) in keys.items() if not is_optional} == required


def test_an_administrator_adds_keys_and_chooses_the_required_ones() -> None:
    added = {"secretKeys": ["AWS_MAX_ATTEMPTS"], "requiredSecretKeys": ["HF_TOKEN", "TEAM"]}
    for container in all_containers(added, storage={"secretName": "mine"}):
        keys = secret_keys(container)
        assert set(keys) == {*SECRET_KEYS, "AWS_MAX_ATTEMPTS", "TEAM"}
        assert {key for key, (_, may_miss) in keys.items() if not may_miss} == {"HF_TOKEN", "TEAM"}


@pytest.mark.parametrize("allowed", [[], ["https://s3.example.com", "*.amazonaws.com"]])
def test_every_pod_knows_the_allowed_endpoints(allowed: list[str]) -> None:
    for container in all_containers({"allowedEndpoints": allowed}):
        (value,) = [one for one in container["env"] if one["name"] == ENV_ALLOWED_ENDPOINTS]
        assert json.loads(value["value"]) == allowed


@pytest.mark.parametrize("text", ["https://host/path", "ftp://host", "a b", ""])
def test_a_list_of_endpoints_with_a_wrong_entry_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="allowedEndpoints"):
        a_settings(allowedEndpoints=[text])


def test_a_variable_of_the_administrator_wins_and_no_name_occurs_twice() -> None:
    env = {"AWS_ENDPOINT_URL": "https://s3.example.com"}
    runtime = {"name": "nvidia", "trainerImage": "t:1", "accelerator": "nvidia", "env": env}
    for container in all_containers({"runtimes": [runtime]}):
        found = [item["name"] for item in container["env"]]
        assert len(found) == len(set(found))
        if {"name": "AWS_ENDPOINT_URL", "value": env["AWS_ENDPOINT_URL"]} in container["env"]:
            assert "AWS_ENDPOINT_URL" not in secret_keys(container)


@pytest.mark.parametrize("key", ["FINETUNE_TASK", "FINETUNE_ANY", "9LIVES", "a b", "", "a=b"])
def test_a_key_that_a_secret_must_not_set_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match="secretKeys"):
        a_settings(secretKeys=[key])
