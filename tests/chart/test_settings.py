"""The operator can read the settings file that the chart writes."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import yaml

from finetune_api.wire import JsonObject
from finetune_operator.runtimes import Runtime, ServingRuntimes
from finetune_operator.settings import Settings
from tests.chart.conftest import CHART, Render

pytestmark = pytest.mark.integration

ENTRIES = yaml.safe_load((CHART / "values.yaml").read_text())


def settings(objects: list[JsonObject]) -> dict[str, Any]:
    (text,) = [
        obj["data"]["settings.yaml"]
        for obj in objects
        if obj["kind"] == "ConfigMap" and "settings.yaml" in obj.get("data", {})
    ]
    return dict(yaml.safe_load(text))


def test_the_keys_are_the_agreed_ones(render: Render) -> None:
    assert set(settings(render())) == {
        "namespace",
        "organization",
        "output",
        "secretName",
        "requiredSecretKeys",
        "cpuJobDeadlineSeconds",
        "serviceAccountName",
        "prepareImage",
        "imagePullPolicy",
        "imagePullSecrets",
        "models",
        "runtimes",
        "hyperparameters",
        "data",
        "prepareResources",
        "baseCheck",
        "estimatedRequests",
        "queuedRequests",
        "checkpointBandwidth",
        "kueueEnabled",
        "gangSeconds",
        "podGroups",
        "pendingDeadlineSeconds",
        "kueueVersion",
        "kueueQueuePrepare",
        "requestTimeoutSeconds",
        "deletesModels",
        "metricsTokenReview",
    }


def test_the_operator_parses_the_defaults(render: Render) -> None:
    operator = pytest.importorskip("finetune_operator.settings")
    parsed = operator.Settings.model_validate(settings(render()))
    assert parsed.namespace == "ml"
    assert [model.name for model in parsed.models] == ["ada", "babbage", "curie", "davinci"]
    assert parsed.runtime(None).accelerator == "nvidia"


def test_the_defaults_are_the_api_rooms_own(render: Render) -> None:
    from finetune_api.hyperparameters import HyperparameterRules
    from finetune_api.limits import DataLimits

    found = settings(render())
    assert HyperparameterRules.model_validate(found["hyperparameters"]) == HyperparameterRules()
    assert DataLimits.model_validate(found["data"]) == DataLimits()


@pytest.mark.parametrize(
    ("value", "seconds"), [("", 30), ("operator.requestTimeoutSeconds=2.5", 2.5)]
)
def test_the_timeout_of_requests_is_a_value(render: Render, value: str, seconds: float) -> None:
    found = settings(render(value) if value else render())
    assert found["requestTimeoutSeconds"] == seconds


def test_numbers_stay_numbers(render: Render) -> None:
    found = settings(
        render(
            'runtimes=[{"name":"x","accelerator":"nvidia","gpuMemoryGiB":141.5,"env":{"A":"1"}}]',
            "data.maxFileBytes=1099511627776",
        )
    )
    assert found["data"]["maxFileBytes"] == 1099511627776
    assert isinstance(found["data"]["maxFileBytes"], int)
    assert found["runtimes"][0]["gpuMemoryGiB"] == 141.5
    assert found["runtimes"][0]["env"] == {"A": "1"}
    assert all(isinstance(model["pretrainingLearningRate"], float) for model in found["models"])


TERM = {"topologyKey": "rack", "labelSelector": {}, "matchLabelKeys": ["finetune.dev/finetune-uid"]}


def test_a_runtime_has_only_the_fields_that_are_set(render: Render) -> None:
    fields = {
        "runtimeClassName": "nvidia",
        "resources": {"rdma/hca": 1, "hugepages-2Mi": "5Gi", "example.com/many": 4000000},
        "podAnnotations": {"k8s.v1.cni.cncf.io/networks": "a, b"},
        "podLabels": {"team": "vision"},
        "securityContext": {"runAsUser": 2000000, "capabilities": {"add": ["IPC_LOCK"]}},
        "schedulerName": "volcano",
        "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [TERM]}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", "topologyKey": "zone"}
        ],
        "resourceClaims": [{"name": "nic", "resourceClaimTemplateName": "rdma"}],
        "volumes": [{"name": "topology", "hostPath": {"path": "/etc/nccl"}}],
        "volumeMounts": [{"name": "topology", "mountPath": "/etc/nccl", "readOnly": True}],
    }
    runtime = {"name": "x", "accelerator": "nvidia"} | fields
    found = settings(render(f"runtimes={json.dumps([runtime])}"))["runtimes"][0]
    assert {key: found[key] for key in fields} == fields
    assert Runtime.model_validate(found).resources["rdma/hca"] == 1
    for plain in settings(render())["runtimes"]:
        assert not plain.keys() & fields.keys()


def test_the_parts_of_all_pods_reach_the_operator(render: Render) -> None:
    plain = settings(render())
    assert not plain.keys() & {"pods", "clusterAssignsUserIds"}
    pods = {
        "env": {"A": "1"},
        "labels": {"cost": "ml"},
        "annotations": {"sidecar.istio.io/inject": "false"},
        "allowedLabelPrefixes": ["acme.com/"],
        "allowedAnnotationPrefixes": ["acme.com/note-"],
    }
    sets = [f"pods.{key}={json.dumps(value)}" for key, value in pods.items()]
    amounts = ("prepareResources.ephemeralStorage", "baseCheck.resources.ephemeralStorage")
    objects = render("clusterAssignsUserIds=true", *sets, *(f'{name}="9Gi"' for name in amounts))
    parsed = Settings.model_validate(settings(objects))
    assert parsed.pods.to_dict() == pods
    assert parsed.prepare_resources.ephemeral_storage == "9Gi"
    assert parsed.base_check.resources.ephemeral_storage == "9Gi"
    assert parsed.cluster_assigns_user_ids
    (pod,) = [obj["spec"]["template"]["spec"] for obj in objects if obj["kind"] == "Deployment"]
    seccomp = {"type": "RuntimeDefault"}
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": seccomp}


@pytest.mark.parametrize(
    "value",
    [
        'pods.env={"FINETUNE_TASK":"x"}',
        'pods.env={"A B":"x"}',
        'pods.allowedLabelPrefixes=[""]',
        'pods.annotations={"a":true}',
        'runtimes=[{"name":"x","accelerator":"cpu","env":{"FINETUNE_LOCAL_ROOT":"/"}}]',
        'runtimes=[{"name":"x","accelerator":"cpu","volumes":[{"name":"work","emptyDir":{}}]}]',
        'runtimes=[{"name":"x","accelerator":"cpu","affinity":{"nodeAffinty":{}}}]',
        'runtimes=[{"name":"x","accelerator":"cpu","resourceClaims":[{"name":"nic"}]}]',
    ],
)
def test_the_schema_refuses_names_of_the_operator_and_wrong_shapes(helm: Any, value: str) -> None:
    done = helm("template", "ft", CHART, "--namespace", "ml", "--set-json", value)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr


@pytest.mark.parametrize(
    "cache",
    [
        {"persistentVolumeClaim": {"claimName": "models"}, "maxSize": "500Gi"},
        {"hostPath": {"path": "/var/lib/models"}, "maxSize": "1.5T"},
        {"emptyDir": {"medium": "Memory", "sizeLimit": "20Gi"}},
        {"emptyDir": {}},
    ],
)
def test_the_operator_parses_each_model_cache(render: Render, cache: JsonObject) -> None:
    operator = pytest.importorskip("finetune_operator.settings")
    runtime = {"name": "x", "accelerator": "cpu", "modelCache": cache}
    found = settings(render(f"runtimes={json.dumps([runtime])}"))
    assert found["runtimes"][0]["modelCache"] == cache
    assert operator.Settings.model_validate(found).runtime("x").model_cache is not None


@pytest.mark.parametrize(
    "cache",
    [
        {"maxSize": "1Gi"},
        {"emptyDir": {}, "maxSize": "1Gi"},
        {"emptyDir": {}, "hostPath": {"path": "/models"}},
        {"hostPath": {"path": "models"}},
        {"hostPath": {"path": "/"}},
        {"hostPath": {"path": "/data/../etc"}},
        {"persistentVolumeClaim": {}},
        {"persistentVolumeClaim": {"claimName": "models"}, "maxSize": 500},
        {"nfs": {"server": "a"}},
    ],
)
def test_the_schema_refuses_what_the_operator_refuses(cache: JsonObject) -> None:
    operator = pytest.importorskip("finetune_operator.runtimes")
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = {"runtimes": [{"name": "x", "accelerator": "cpu", "modelCache": cache}]}
    with pytest.raises(jsonschema.ValidationError) as caught:
        jsonschema.validate(values, {**schema, "required": []})
    assert list(caught.value.absolute_path)[:3] == ["runtimes", 0, "modelCache"]
    with pytest.raises(ValueError, match="validation error"):
        operator.ModelCache.model_validate(cache)


def test_an_empty_model_cache_is_none(render: Render) -> None:
    values = 'runtimes=[{"name":"x","accelerator":"cpu","modelCache":{}}]'
    assert "modelCache" not in settings(render(values))["runtimes"][0]


def test_the_catalog_is_hugging_face_with_a_revision() -> None:
    for model in ENTRIES["models"]:
        assert model["uri"].startswith("hf://")
        assert "@" in model["uri"]


def test_certificates_proxy_and_addressing_reach_the_operator(render: Render) -> None:
    from finetune_operator.settings import Certificates, Proxy, Settings

    made = render(
        'pods.certificates.configMap="corporate"',
        'pods.proxy={"https":"http://proxy:3128","exceptions":[".corp.example"]}',
        'pods.addressingStyle="virtual"',
    )
    parsed = Settings.model_validate(settings(made))
    assert parsed.certificates == Certificates(config_map="corporate", key="ca.crt")
    assert parsed.proxy == Proxy(https="http://proxy:3128", exceptions=[".corp.example"])
    assert parsed.addressing_style == "virtual"
    made = render('pods.proxy.http="http://proxy:3128"', "pods.certificates=null")
    parsed = Settings.model_validate(settings(made))
    assert parsed.certificates is None
    assert {"10.0.0.0/8", "fc00::/7"} <= set(parsed.proxy.exceptions)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ('pods.certificates={"configMap":"a","secret":"b"}', "/pods/certificates"),
        ('pods.certificates.file="a"', "/pods/certificates"),
        ('pods.proxy.https="proxy:3128"', "/pods/proxy/https"),
        ('pods.proxy.exceptions=["a,b"]', "/pods/proxy/exceptions/0"),
        ('pods.addressingStyle="host"', "/pods/addressingStyle"),
    ],
)
def test_a_wrong_way_to_the_store_is_refused_by_the_chart(
    helm: Callable[..., subprocess.CompletedProcess[str]], value: str, field: str
) -> None:
    done = helm("template", "ft", CHART, "--namespace", "ml", "--set-json", value)
    assert done.returncode != 0
    assert field in done.stderr


def test_served_models_have_runtimes_only_if_they_are_enabled(render: Render) -> None:
    assert "serving" not in settings(render())
    found = settings(
        render(
            "serving.enabled=true",
            'images.trainer="r/trainer@1"',
            'serving.runtimes=[{"name":"small","engine":"finetune","env":{"A":"1"}},'
            '{"name":"vllm","engine":"vllm","image":"v","startSeconds":86400,"args":["--x=1"],'
            '"tolerations":[{"key":"gpu","operator":"Exists"}],"resources":{"nvidia.com/gpu":8}}]',
        )
    )
    small, vllm = ServingRuntimes.model_validate(found["serving"]).runtimes
    assert (small.image, small.env, small.start_seconds) == ("r/trainer@1", {"A": "1"}, 1800)
    assert (vllm.image, vllm.args, vllm.start_seconds) == ("v", ["--x=1"], 86400)
    assert vllm.resources == {"nvidia.com/gpu": 8}
    assert vllm.tolerations[0].operator == "Exists"
    defaults = settings(render("serving.enabled=true"))["serving"]
    assert [it.engine for it in ServingRuntimes.model_validate(defaults).runtimes] == [
        "vllm",
        "finetune",
    ]


def test_a_server_of_others_needs_an_image(helm: Callable[..., Any]) -> None:
    runtimes = 'serving.runtimes=[{"name":"v","engine":"vllm"}]'
    sets = ("--set-json", "serving.enabled=true", "--set-json", runtimes)
    done = helm("template", "ft", CHART, *sets)
    assert done.returncode != 0
    assert "the runtime v has no image" in done.stderr
