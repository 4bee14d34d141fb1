"""What all pods get to reach the store: certificates, a proxy, and the addressing of buckets."""

from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api import names
from finetune_api.wire import JsonObject
from finetune_operator.build.deletion_job import build_deletion_job
from finetune_operator.build.lookup_job import build_lookup_job
from tests.operator.test_deletion import a_model
from tests.support.objects import World, a_finetune, a_settings

MOUNT = {
    "name": "finetune-certificates",
    "mountPath": "/etc/finetune/certificates",
    "readOnly": True,
}
VARIABLES = {
    *("FINETUNE_CA_BUNDLE", "AWS_CA_BUNDLE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"),
    "FINETUNE_S3_ADDRESSING_STYLE",
}


def all_pods(**settings: Any) -> list[JsonObject]:
    """The pods of every kind of Job of the product."""
    parsed = a_settings(**settings)
    world = World(a_finetune(), parsed).until_training()
    jobs = [made for made in world.created if made["kind"] == "Job"]
    jobs.append(build_lookup_job(world.finetune, world.status.resolved, parsed))
    jobs.append(build_deletion_job(a_model("Delete"), parsed))
    pods = [job["spec"]["template"]["spec"] for job in jobs]
    assert len(pods) == 4
    return pods


def containers(pod: JsonObject) -> list[JsonObject]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def variables(container: JsonObject) -> dict[str, str]:
    names_ = [item["name"] for item in container["env"]]
    assert len(names_) == len(set(names_))
    return {item["name"]: item["value"] for item in container["env"] if "value" in item}


@pytest.mark.parametrize(
    ("source", "volume"),
    [
        (
            {"configMap": "corporate", "key": "bundle.pem"},
            {
                "configMap": {
                    "name": "corporate",
                    "items": [{"key": "bundle.pem", "path": "ca.crt"}],
                }
            },
        ),
        (
            {"secret": "corporate"},
            {"secret": {"secretName": "corporate", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        ),
    ],
)
def test_every_container_mounts_the_certificates(
    source: dict[str, str], volume: dict[str, Any]
) -> None:
    for pod in all_pods(certificates=source):
        assert {"name": "finetune-certificates", **volume} in pod["volumes"]
        for container in containers(pod):
            assert MOUNT in container["volumeMounts"]
            found = variables(container)
            assert found["FINETUNE_CA_BUNDLE"] == "/etc/finetune/certificates/ca.crt"
            assert found["AWS_CA_BUNDLE"] == found["FINETUNE_CA_BUNDLE"]


def test_every_container_gets_the_proxy_and_its_exceptions() -> None:
    proxy = {"https": "http://proxy:3128", "exceptions": ["10.0.0.0/8", ".corp.example", ".svc"]}
    for pod in all_pods(proxy=proxy, addressingStyle="virtual"):
        for container in containers(pod):
            found = variables(container)
            assert found["HTTPS_PROXY"] == "http://proxy:3128"
            assert "HTTP_PROXY" not in found
            direct = found["NO_PROXY"].split(",")
            assert direct[-2:] == ["10.0.0.0/8", ".corp.example"]
            assert {"localhost", "::1", ".svc", ".cluster.local", "169.254.169.254"} <= set(direct)
            assert len(direct) == len(set(direct))
            assert found["FINETUNE_S3_ADDRESSING_STYLE"] == "virtual"


def test_without_settings_the_pods_get_nothing() -> None:
    for pod in all_pods():
        assert "finetune-certificates" not in {volume["name"] for volume in pod["volumes"]}
        for container in containers(pod):
            assert not VARIABLES & set(variables(container))


def test_the_environment_of_a_runtime_wins() -> None:
    runtime = {
        "name": "cpu",
        "accelerator": "cpu",
        "trainerImage": "registry/trainer:1",
        "env": {"HTTPS_PROXY": "http://other:3128"},
    }
    pods = all_pods(runtimes=[runtime], proxy={"https": "http://proxy:3128"})
    trainer = variables(pods[1]["containers"][0])
    assert trainer["HTTPS_PROXY"] == "http://other:3128"
    assert variables(pods[0]["containers"][0])["HTTPS_PROXY"] == "http://proxy:3128"


def test_the_secret_may_name_the_addressing_style() -> None:
    for pod in all_pods(addressingStyle="path"):
        for container in containers(pod):
            (found,) = [
                item for item in container["env"] if item["name"] == names.ENV_ADDRESSING_STYLE
            ]
            assert found["valueFrom"]["secretKeyRef"]["optional"] is True


@pytest.mark.parametrize(
    "settings",
    [
        {"certificates": {"configMap": "a", "secret": "b"}},
        {"certificates": {"key": "ca.crt"}},
        {"certificates": {"configMap": "a", "key": ""}},
        {"proxy": {"https": "proxy:3128"}},
        {"proxy": {"https": "socks5://proxy:3128"}},
        {"proxy": {"https": "http://proxy:3128", "exceptions": ["a,b"]}},
        {"addressingStyle": "host"},
    ],
)
def test_settings_that_have_no_meaning_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        a_settings(**settings)
