"""The objects of the gateway, which the chart installs if `gateway.enabled` is set."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from finetune_api.names import ENV_ALLOWED_ENDPOINTS
from finetune_api.wire import JsonObject
from finetune_gateway.main import CLOSE_SECONDS, parse_arguments
from finetune_gateway.settings import Settings
from finetune_operator.build.credentials import SECRET_KEYS
from finetune_operator.build.pods import _allowed_endpoints
from finetune_operator.build.store_network import certificate_volumes, network_variables
from finetune_operator.settings import Settings as OperatorSettings
from tests.chart.conftest import CHART, Helm, Render, assert_valid, name, of_kind, one, settings
from tests.chart.test_chart import refused
from tests.chart.test_observability import has

pytestmark = pytest.mark.integration  # helm is built by devcluster

NAME = "ft-finetune-operator-gateway"
PLAIN = ("gateway.enabled=true", 'output="s3://acme/finetunes/"', "gateway.allowPlainHttp=true")
KEYS = (*PLAIN, 'gateway.keys.serviceAccounts=["bert","anna"]')
ONLY_FOR_THE_HUB = {"HF_TOKEN", "HF_ENDPOINT"}
PEER = '[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"ingress-nginx"}}}]'
EVERYTHING = (
    *KEYS,
    'gateway.tls.secretName="gateway-tls"',
    "gateway.ingress.enabled=true",
    'gateway.ingress.className="nginx"',
    'gateway.ingress.host="finetune.example.com"',
    'gateway.ingress.tlsSecretName="ingress-tls"',
    'gateway.service.type="LoadBalancer"',
    'gateway.service.annotations={"a":"b"}',
    'gateway.serviceAccount.annotations={"eks.amazonaws.com/role-arn":"arn"}',
    'gateway.secretName="gateway-s3"',
    'gateway.files={"prefix":"s3://acme/in","quotaBytes":1099511627776}',
    'gateway.backends=[{"base":"curie","url":"http://vllm-curie:8000/v1","name":"SmolLM3-3B",'
    '"supports":["best_of"],"keySecret":{"name":"vllm","key":"api-key"}}]',
    "gateway.deletesFiles=true",
    "gateway.holdSeconds=20.5",
    "gateway.networkPolicy.enabled=true",
    f"gateway.networkPolicy.from={PEER}",
    'gateway.podAnnotations={"a":"b"}',
    'gateway.podLabels={"c":"d"}',
    'gateway.nodeSelector={"e":"f"}',
    'gateway.tolerations=[{"key":"a","operator":"Exists"}]',
    'gateway.affinity={"nodeAffinity":{}}',
    'gateway.priorityClassName="p"',
    'gateway.env=[{"name":"AWS_MAX_ATTEMPTS","value":"7"}]',
    'imagePullSecrets=[{"name":"regcred"}]',
    'pods.certificates.configMap="corporate"',
    'pods.proxy.https="http://proxy:3128"',
    "metrics.podMonitor.enabled=true",
    "metrics.serviceMonitor.enabled=true",
    "metrics.networkPolicy.enabled=true",
    f"metrics.networkPolicy.from={PEER}",
)


def of_gateway(objects: list[JsonObject]) -> list[JsonObject]:
    return [obj for obj in objects if "gateway" in name(obj)]


def pod(objects: list[JsonObject]) -> JsonObject:
    found: JsonObject = one(objects, "Deployment", "-gateway")["spec"]["template"]["spec"]
    return found


def container(objects: list[JsonObject]) -> JsonObject:
    (found,) = pod(objects)["containers"]
    return dict(found)


def environment(objects: list[JsonObject]) -> dict[str, JsonObject]:
    return {item["name"]: item for item in container(objects)["env"]}


def parsed(objects: list[JsonObject]) -> Settings:
    text = one(objects, "ConfigMap", "-gateway")["data"]["settings.yaml"]
    return Settings.model_validate(yaml.safe_load(text))


def sources(objects: list[JsonObject]) -> dict[str, JsonObject]:
    return {volume["name"]: volume for volume in pod(objects)["volumes"]}


def test_by_default_there_is_no_gateway(render: Render) -> None:
    objects = [obj for obj in render() if obj["kind"] != "CustomResourceDefinition"]
    assert not of_gateway(objects)
    assert "gateway" not in json.dumps(objects)


@pytest.mark.parametrize("values", [PLAIN, KEYS, EVERYTHING])
def test_every_object_of_it_is_valid_kubernetes(
    render: Render, tmp_path: Path, schemas: str, values: tuple[str, ...]
) -> None:
    assert_valid(of_gateway(render(*values)), schemas, tmp_path)


def test_its_objects_are_these(render: Render) -> None:
    def kinds(*values: str) -> list[str]:
        return sorted(obj["kind"] for obj in of_gateway(render(*values)))

    smallest = [
        "ConfigMap",
        "Deployment",
        "PodDisruptionBudget",
        "Service",
        "ServiceAccount",
    ]
    assert kinds(*PLAIN) == smallest
    assert kinds(*KEYS) == sorted([*smallest, "Role", "RoleBinding"])
    monitors = ["PodMonitor", "ServiceMonitor", "Service"]
    assert kinds(*EVERYTHING) == sorted(
        [*smallest, "Role", "RoleBinding", "Ingress", "NetworkPolicy", *monitors]
    )


def test_its_only_permission_is_to_be_the_accounts_of_keys(render: Render) -> None:
    objects = of_gateway(render(*EVERYTHING))
    role, binding = one(objects, "Role"), one(objects, "RoleBinding")
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["serviceaccounts"],
            "verbs": ["impersonate"],
            "resourceNames": ["bert", "anna"],
        }
    ]
    assert binding["roleRef"] | {"apiGroup": ""} == {"apiGroup": "", "kind": "Role", "name": NAME}
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": NAME, "namespace": "ml"}]
    assert not of_kind(objects, "ClusterRole", "ClusterRoleBinding")


def test_it_renews_leases_with_its_own_token_only_where_models_are_served(render: Render) -> None:
    objects = of_gateway(render(*PLAIN, "serving.enabled=true"))
    lease = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["patch"]}
    assert one(objects, "Role")["rules"] == [lease]
    whole = render(*PLAIN, "serving.enabled=true")
    assert "serviceAccountToken" in json.dumps(sources(whole)["cluster"])
    assert parsed(whole).serves_models
    assert one(of_gateway(render(*KEYS, "serving.enabled=true")), "Role")["rules"][1:] == [lease]
    assert not parsed(render(*PLAIN)).serves_models


def test_no_other_binding_names_its_account(render: Render) -> None:
    for values in (KEYS, (*KEYS, "clusterWide=true")):
        bindings = of_kind(render(*values), "RoleBinding", "ClusterRoleBinding")
        named = {name(it) for it in bindings if NAME in json.dumps(it["subjects"])}
        assert named == {NAME}


def test_without_accounts_it_has_neither_a_role_nor_a_token_nor_keys(render: Render) -> None:
    objects = render(*PLAIN)
    assert not of_kind(of_gateway(objects), "Role", "RoleBinding")
    assert set(sources(objects)) == {"settings", "cluster", "tmp"}
    assert "serviceAccountToken" not in json.dumps(sources(objects)["cluster"])
    assert parsed(objects).keys is None


def test_with_accounts_it_has_its_own_token_and_the_mounted_keys(render: Render) -> None:
    objects = render(*KEYS, 'gateway.keys.secretName="my-keys"')
    assert pod(objects)["automountServiceAccountToken"] is False
    account = one(of_gateway(objects), "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    kinds = {kind for it in sources(objects)["cluster"]["projected"]["sources"] for kind in it}
    assert kinds == {"configMap", "serviceAccountToken"}
    assert sources(objects)["keys"]["secret"] == {"secretName": "my-keys", "optional": True}
    mounts = {it["name"]: it for it in container(objects)["volumeMounts"]}
    assert mounts["cluster"]["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    assert str(parsed(objects).keys) == mounts["keys"]["mountPath"]
    assert all(mount.get("readOnly") for it, mount in mounts.items() if it != "tmp")


def test_its_pod_passes_restricted(render: Render) -> None:
    for values in (PLAIN, EVERYTHING):
        objects = render(*values)
        context = pod(objects)["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container(objects)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        allowed = {"name", "configMap", "secret", "projected", "emptyDir"}
        assert all(volume.keys() <= allowed for volume in sources(objects).values())
    assigned = pod(render(*PLAIN, "clusterAssignsUserIds=true"))["securityContext"]
    assert assigned == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_two_pods_on_two_nodes_that_end_in_peace(render: Render) -> None:
    objects = render(*PLAIN)
    spec = one(objects, "Deployment", "-gateway")["spec"]
    assert spec["replicas"] == 2
    (spread,) = pod(objects)["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["labelSelector"] == spec["selector"]
    hook = container(objects)["lifecycle"]["preStop"]["exec"]["command"]
    lasts = int(hook[1]) + parsed(objects).shutdown_seconds + CLOSE_SECONDS
    assert lasts < pod(objects)["terminationGracePeriodSeconds"] == 60
    assert one(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert not of_kind(render(*PLAIN, "gateway.replicas=1"), "PodDisruptionBudget")


def test_its_pods_are_not_the_operator_s(render: Render) -> None:
    """The operator's Deployment, monitors, and policies select by the labels of its pods."""
    objects = render(*EVERYTHING)
    labels = one(objects, "Deployment", "-gateway")["spec"]["template"]["metadata"]["labels"]
    own = one(objects, "Deployment", "ft-finetune-operator")["spec"]["template"]["metadata"]
    for obj in objects:
        spec = obj.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector") or {}
        wanted = selector.get("matchLabels", selector)
        if obj["kind"] in {"Deployment", "Service", "PodMonitor", "NetworkPolicy"}:
            is_of_gateway = "gateway" in name(obj)
            assert has(labels, wanted) == is_of_gateway, name(obj)
            assert has(own["labels"], wanted) == (not is_of_gateway), name(obj)


def test_labels_keep_to_their_length_whatever_the_release_is_called(render: Render) -> None:
    for long in ("x" * 53, "y" * 40):
        objects = of_gateway(render(*PLAIN, f'fullnameOverride="{long}{long[:10]}"', release=long))
        assert len(objects) == 5
        for obj in objects:
            assert len(name(obj)) <= 63
            assert all(len(value) <= 63 for value in obj["metadata"]["labels"].values())


def test_ports_and_probes_are_those_of_the_program(render: Render) -> None:
    found = container(render(*PLAIN))
    ports = {port["name"]: port["containerPort"] for port in found["ports"]}
    assert ports == {"api": 8000, "operations": 8001}
    options = parse_arguments(found["args"])
    assert (options.port, options.operations_port) == (ports["api"], ports["operations"])
    assert options.tls_certificate is None
    (mount,) = [it for it in found["volumeMounts"] if it["name"] == "settings"]
    assert options.settings == Path(mount["mountPath"], "settings.yaml")
    assert found["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "operations"}
    assert found["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "operations"}


def test_the_image_is_the_gateway_s(render: Render) -> None:
    objects = render(*PLAIN, 'images.registry="r.example"', 'images.tag="1.2"')
    assert container(objects)["image"] == "r.example/finetune-gateway:1.2"
    assert container(render(*PLAIN, 'images.gateway="r/g@1"'))["image"] == "r/g@1"


def test_the_settings_are_what_the_gateway_parses(render: Render) -> None:
    plain = parsed(render(*PLAIN))
    assert plain.namespace == "ml"
    assert plain.files == "s3://acme/finetunes/uploads"
    assert plain.files_quota_bytes == 2**30
    assert [model.name for model in plain.models] == ["ada", "babbage", "curie", "davinci"]
    assert plain.data.max_file_bytes == 157286400
    found = parsed(render(*EVERYTHING, 'organization="acme"', "data.maxFileBytes=1099511627776"))
    assert (found.files, found.files_quota_bytes) == ("s3://acme/in", 2**40)
    assert found.data.max_file_bytes == 2**40
    assert found.output == "s3://acme/finetunes/"
    assert found.shown_organization == "acme"
    assert found.backends[0].url == "http://vllm-curie:8000/v1"
    assert (found.hold_seconds, found.deletes_files) == (20.5, True)
    assert (plain.allow_plain_http, found.allow_plain_http) == (True, False)


def test_the_key_of_a_backend_is_a_mounted_file(render: Render) -> None:
    objects = render(*EVERYTHING)
    (backend,) = parsed(objects).backends
    assert (backend.name, backend.supports) == ("SmolLM3-3B", ["best_of"])
    (source,) = sources(objects)["backends"]["projected"]["sources"]
    assert source["secret"] == {
        "name": "vllm",
        "items": [{"key": "api-key", "path": "curie"}],
        "optional": True,
    }
    (mount,) = [it for it in container(objects)["volumeMounts"] if it["name"] == "backends"]
    assert backend.key_file == Path(mount["mountPath"], "curie")
    without = render(*PLAIN, 'gateway.backends=[{"base":"ada","url":"http://ada:8000/v1"}]')
    assert "backends" not in sources(without)
    (plain,) = parsed(without).backends
    assert (plain.key_file, plain.name, plain.supports) == (None, "", [])


def test_the_defaults_of_the_chart_are_those_of_the_settings(render: Render) -> None:
    found = parsed(render(*PLAIN))
    default = Settings(namespace="ml", files="s3://acme/finetunes/uploads")
    for field in ("files_quota_bytes", "hold_seconds", "deletes_files", "backends", "data"):
        assert getattr(found, field) == getattr(default, field), field


def test_the_catalog_is_the_operator_s(render: Render) -> None:
    objects = render(*PLAIN)
    text = one(objects, "ConfigMap", "-gateway")["data"]["settings.yaml"]
    assert yaml.safe_load(text)["models"] == settings(objects)["models"]


def test_it_alone_gets_the_specs_of_the_base_models(render: Render) -> None:
    spec = {
        "method": {"type": "lora", "rank": 16, "dropout": 0.05},
        "scheduling": {"nodeSelector": {"gpu": "true"}},
        "ttlSecondsAfterFinished": 31536000,
    }
    (model, *_) = yaml.safe_load((CHART / "values.yaml").read_text())["models"]
    models = [model | {"fineTune": spec}, model | {"name": "other", "fineTune": {}}]
    objects = render(*PLAIN, f"models={json.dumps(models)}")
    assert [entry.fine_tune for entry in parsed(objects).models] == [spec, None]
    assert all("fineTune" not in entry for entry in settings(objects)["models"])


def test_helm_refuses_a_spec_with_a_field_that_a_base_model_cannot_have(helm: Helm) -> None:
    (model, *_) = yaml.safe_load((CHART / "values.yaml").read_text())["models"]
    models = json.dumps([model | {"fineTune": {"trainingFile": "s3://acme/train.jsonl"}}])
    assert "trainingFile" in refused(helm, f"models={models}")


def test_with_cluster_wide_it_serves_the_namespace_of_the_release(render: Render) -> None:
    objects = render(*KEYS, "clusterWide=true")
    assert settings(objects)["namespace"] == ""
    assert parsed(objects).namespace == "ml"
    assert {obj["metadata"]["namespace"] for obj in of_gateway(objects)} == {"ml"}


def test_changed_settings_restart_it_and_nothing_else_does(render: Render) -> None:
    def checksum(*sets: str) -> str:
        template = one(render(*PLAIN, *sets), "Deployment", "-gateway")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/settings"])

    assert checksum() == checksum('commonLabels={"team":"a"}', "operator.requestTimeoutSeconds=3")
    assert checksum() != checksum("gateway.holdSeconds=5")


def test_it_gets_the_named_keys_of_its_secret_and_no_others(render: Render) -> None:
    objects = render(*PLAIN, 'pods.secretKeys=["AWS_MAX_ATTEMPTS"]')
    referred = {
        key: item["valueFrom"]["secretKeyRef"]
        for key, item in environment(objects).items()
        if "valueFrom" in item
    }
    assert set(referred) == set(SECRET_KEYS) - ONLY_FOR_THE_HUB | {"AWS_MAX_ATTEMPTS"}
    for key, reference in referred.items():
        assert reference == {"name": "finetune-s3", "key": key, "optional": True}
    assert "envFrom" not in container(objects)
    own = environment(render(*PLAIN, 'gateway.secretName="mine"'))
    assert own["AWS_REGION"]["valueFrom"]["secretKeyRef"]["name"] == "mine"
    replaced = environment(render(*PLAIN, 'gateway.env=[{"name":"AWS_REGION","value":"eu"}]'))
    assert replaced["AWS_REGION"] == {"name": "AWS_REGION", "value": "eu"}


@pytest.mark.parametrize(
    "values",
    [
        (),
        ('pods.allowedEndpoints=["https://minio.storage.svc:9000","*.amazonaws.com"]',),
        ('pods.certificates={"configMap":"corporate","key":"root.pem"}',),
        ('pods.certificates.secret="corporate"', 'pods.addressingStyle="virtual"'),
        ('pods.proxy={"https":"http://proxy:3128","exceptions":[".corp.example","127.0.0.1"]}',),
        ('pods.proxy.http="http://proxy:3128"',),
    ],
)
def test_the_way_to_the_store_is_that_of_the_pods(render: Render, values: tuple[str, ...]) -> None:
    objects = render(*PLAIN, *values)
    operator = OperatorSettings.model_validate(settings(objects))
    wanted = {item["name"]: item["value"] for item in network_variables(operator, ())}
    wanted.pop("AWS_CA_BUNDLE", None)  # for older images of pods
    wanted[ENV_ALLOWED_ENDPOINTS] = json.loads(_allowed_endpoints(operator)["value"])
    made = {key: it["value"] for key, it in environment(objects).items() if "value" in it}
    made[ENV_ALLOWED_ENDPOINTS] = json.loads(made[ENV_ALLOWED_ENDPOINTS])
    assert made == wanted
    volumes = sources(objects)
    assert [it for it in volumes.values() if it["name"] == "finetune-certificates"] == (
        certificate_volumes(operator)
    )


def test_tls_is_mounted_and_the_service_says_so(render: Render) -> None:
    objects = render(*PLAIN[:2], 'gateway.tls.secretName="gateway-tls"')
    assert sources(objects)["tls"]["secret"] == {"secretName": "gateway-tls"}
    options = parse_arguments(container(objects)["args"])
    (mount,) = [it for it in container(objects)["volumeMounts"] if it["name"] == "tls"]
    assert options.tls_certificate == Path(mount["mountPath"], "tls.crt")
    assert options.tls_key == Path(mount["mountPath"], "tls.key")
    assert parsed(objects).allow_plain_http is False
    (port,) = one(objects, "Service", "-gateway")["spec"]["ports"]
    assert (port["name"], port["appProtocol"], port["targetPort"]) == ("https", "https", "api")
    (plain,) = one(render(*PLAIN), "Service", "-gateway")["spec"]["ports"]
    assert (plain["name"], plain["appProtocol"], plain["port"]) == ("http", "http", 8000)


def test_the_ingress_passes_paths_uploads_and_streams_as_they_are(render: Render) -> None:
    ingress = (*PLAIN, "gateway.ingress.enabled=true", 'gateway.ingress.host="ft.example.com"')
    found = one(render(*ingress, 'gateway.ingress.tlsSecretName="t"'), "Ingress")
    prefix = "nginx.ingress.kubernetes.io"
    annotations = found["metadata"]["annotations"]
    assert annotations[f"{prefix}/proxy-request-buffering"] == "off"
    assert annotations[f"{prefix}/proxy-buffering"] == "off"
    assert annotations[f"{prefix}/proxy-body-size"] == "0"
    assert int(annotations[f"{prefix}/proxy-read-timeout"]) == 3600
    assert not any("rewrite" in key for key in annotations)
    assert f"{prefix}/backend-protocol" not in annotations
    assert found["spec"]["tls"] == [{"hosts": ["ft.example.com"], "secretName": "t"}]
    (rule,) = found["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    service = path["backend"]["service"]
    assert (path["path"], service) == ("/", {"name": NAME, "port": {"name": "http"}})
    both = one(render(*ingress, 'gateway.tls.secretName="t"'), "Ingress")
    assert both["metadata"]["annotations"][f"{prefix}/backend-protocol"] == "HTTPS"
    other = f'gateway.ingress.annotations={{"{prefix}/proxy-buffering":null,"a":"b"}}'
    changed = one(render(*ingress, other), "Ingress")["metadata"]["annotations"]
    assert changed["a"] == "b"
    assert f"{prefix}/proxy-buffering" not in changed


def test_the_network_policy_opens_the_api_to_the_named_and_closes_link_local(
    render: Render,
) -> None:
    policy = (*PLAIN, "gateway.networkPolicy.enabled=true")
    closed = one(render(*policy), "NetworkPolicy", "-gateway")["spec"]
    assert closed["ingress"] == [{"ports": [{"port": "operations"}]}]
    assert closed["policyTypes"] == ["Ingress", "Egress"]
    dns, rest = closed["egress"]
    assert {(port["port"], port["protocol"]) for port in dns["ports"]} == {(53, "UDP"), (53, "TCP")}
    assert "169.254.0.0/16" in rest["to"][0]["ipBlock"]["except"]
    opened = one(render(*policy, f"gateway.networkPolicy.from={PEER}"), "NetworkPolicy", "-gateway")
    assert {"from": json.loads(PEER), "ports": [{"port": "api"}]} in opened["spec"]["ingress"]
    both = (*policy, "metrics.networkPolicy.enabled=true")
    nothing = one(render(*both), "NetworkPolicy", "-gateway")["spec"]
    assert nothing["ingress"] == []
    named = one(render(*both, f"metrics.networkPolicy.from={PEER}"), "NetworkPolicy", "-gateway")
    assert named["spec"]["ingress"] == [
        {"from": json.loads(PEER), "ports": [{"port": "operations"}]}
    ]
    free = one(render(*policy, "gateway.networkPolicy.egress=[]"), "NetworkPolicy", "-gateway")
    assert free["spec"]["policyTypes"] == ["Ingress"]
    assert "egress" not in free["spec"]


def test_the_monitors_find_its_pods(render: Render) -> None:
    objects = render(*EVERYTHING, 'metrics.podMonitor.labels={"release":"prometheus"}')
    template = one(objects, "Deployment", "-gateway")["spec"]["template"]
    labels, ports = template["metadata"]["labels"], template["spec"]["containers"][0]["ports"]
    by_pod = one(objects, "PodMonitor", "-gateway")
    assert by_pod["metadata"]["labels"]["release"] == "prometheus"
    assert has(labels, by_pod["spec"]["selector"]["matchLabels"])
    assert by_pod["spec"]["podMetricsEndpoints"][0]["port"] in {port["name"] for port in ports}
    service = one(objects, "Service", "-gateway-metrics")
    by_service = one(objects, "ServiceMonitor", "-gateway")
    assert has(labels, service["spec"]["selector"])
    assert has(service["metadata"]["labels"], by_service["spec"]["selector"]["matchLabels"])
    assert by_service["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    api = one(objects, "Service", "-gateway")
    assert not has(api["metadata"]["labels"], by_service["spec"]["selector"]["matchLabels"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (PLAIN[:2], "can be read on their way. Set gateway.tls.secretName"),
        (
            (*PLAIN[:2], "gateway.ingress.enabled=true", 'gateway.ingress.host="a.example"'),
            "can be read on their way. Set gateway.tls.secretName",
        ),
        (
            (*PLAIN[:2], 'gateway.ingress.tlsSecretName="t"'),
            "can be read on their way. Set gateway.tls.secretName",
        ),
        (PLAIN[::2], "gateway.files.prefix is empty, and so is output"),
        ((*PLAIN, "gateway.ingress.enabled=true"), "requires gateway.ingress.host"),
        (
            (*PLAIN, 'gateway.keys.serviceAccounts=["bert","ft-finetune-operator"]'),
            "gateway.keys.serviceAccounts contains a ServiceAccount of the operator",
        ),
        (
            (*PLAIN, f'gateway.keys.serviceAccounts=["{NAME}"]'),
            "gateway.keys.serviceAccounts contains a ServiceAccount of the gateway itself",
        ),
        (
            (*PLAIN, 'gateway.keys.serviceAccounts=["finetune"]'),
            "gateway.keys.serviceAccounts contains a ServiceAccount of the training pods",
        ),
        (
            (*PLAIN, 'gateway.keys.serviceAccounts=["default"]'),
            "gateway.keys.serviceAccounts contains a ServiceAccount of every pod that names none",
        ),
        (
            (*PLAIN, 'gateway.serviceAccount.name="default"'),
            "gateway.serviceAccount.name is default, the ServiceAccount of every pod",
        ),
        (
            (*PLAIN, 'gateway.serviceAccount={"create":false,"name":"ft-finetune-operator"}'),
            "is ft-finetune-operator, the ServiceAccount of the operator. Choose another name",
        ),
        (
            (*PLAIN, "gateway.serviceAccount.create=false"),
            "so gateway.serviceAccount.name is required",
        ),
    ],
)
def test_values_that_would_open_too_much_are_refused_with_the_remedy(
    helm: Helm, values: tuple[str, ...], message: str
) -> None:
    assert message in refused(helm, *values)


@pytest.mark.parametrize(
    "values",
    [
        (*PLAIN[:2], 'gateway.tls.secretName="t"'),
        (
            *PLAIN[:2],
            'gateway.ingress={"enabled":true,"host":"a.example","tlsSecretName":"t"}',
        ),
        (*PLAIN[::2], 'gateway.files.prefix="s3://acme/in/"'),
        (*PLAIN, 'gateway.serviceAccount={"create":false,"name":"mine"}'),
    ],
)
def test_each_remedy_is_accepted(render: Render, values: tuple[str, ...]) -> None:
    objects = render(*values)
    assert one(objects, "Deployment", "-gateway")
    assert parsed(objects).files in {"s3://acme/finetunes/uploads", "s3://acme/in"}


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"keys": {"serviceAccounts": ["system:masters"]}}, ["keys", "serviceAccounts", 0]),
        ({"keys": {"serviceAccounts": ["*"]}}, ["keys", "serviceAccounts", 0]),
        ({"backends": [{"base": "curie"}]}, ["backends", 0]),
        (
            {"backends": [{"base": "a", "url": "http://a", "keyFile": "/etc/passwd"}]},
            ["backends", 0],
        ),
        ({"backends": [{"base": "curie", "url": "vllm:8000"}]}, ["backends", 0, "url"]),
        ({"files": {"prefix": "/data"}}, ["files", "prefix"]),
        ({"files": {"quotaBytes": -1}}, ["files", "quotaBytes"]),
        ({"service": {"type": "ExternalName"}}, ["service", "type"]),
        ({"serving": {"enabled": True}}, []),
    ],
)
def test_the_schema_refuses_wrong_values(values: Any, field: list[Any]) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    with pytest.raises(jsonschema.ValidationError) as caught:
        jsonschema.validate({"gateway": values}, {**schema, "required": []})
    assert list(caught.value.absolute_path) == ["gateway", *field]


@pytest.mark.parametrize(
    ("values", "lines", "is_warned"),
    [
        (
            KEYS,
            [
                "finetune keys create -n ml --for bert",
                f"export OPENAI_BASE_URL=http://{NAME}.ml.svc:8000/v1",
            ],
            True,
        ),
        (
            (*PLAIN[:2], 'gateway.tls.secretName="t"'),
            [
                "kubectl -n ml create token ACCOUNT",
                f"export OPENAI_BASE_URL=https://{NAME}.ml.svc:8000/v1",
            ],
            False,
        ),
        (EVERYTHING, ["export OPENAI_BASE_URL=https://finetune.example.com/v1"], False),
        (
            (*PLAIN, "gateway.ingress.enabled=true", 'gateway.ingress.host="a.example"'),
            ["export OPENAI_BASE_URL=http://a.example/v1"],
            True,
        ),
    ],
)
def test_the_notes_say_how_to_reach_it(
    helm: Helm, values: tuple[str, ...], lines: list[str], is_warned: bool
) -> None:
    sets = [word for value in values for word in ("--set-json", value)]
    done = helm("install", "ft", CHART, "--namespace", "ml", "--dry-run=client", *sets)
    if done.returncode != 0 and "unreachable" in done.stderr:
        pytest.skip("helm install --dry-run asks for a cluster here")
    assert done.returncode == 0, done.stderr
    notes = done.stdout[done.stdout.index("NOTES:") :].splitlines()
    assert set(lines) <= set(notes)
    assert any(line.startswith("WARNING: This address has no TLS") for line in notes) == is_warned
