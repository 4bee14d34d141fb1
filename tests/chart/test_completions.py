"""The completion server of the gateway, which `gateway.server.enabled` installs."""

import base64
import json
import re
from pathlib import Path
from shutil import copytree
from typing import Any

import jsonschema
import pytest

from finetune_api.wire import JsonObject
from finetune_serving.main import build_settings, parse_arguments
from tests.chart.conftest import CHART, Helm, Render, assert_valid, name, of_kind, one
from tests.chart.test_chart import refused
from tests.chart.test_gateway import EVERYTHING, PLAIN, parsed
from tests.chart.test_gateway import pod as gateway_pod
from tests.chart.test_gateway import sources as gateway_sources
from tests.chart.test_observability import has

pytestmark = pytest.mark.integration  # helm is built by devcluster

NAME = "ft-finetune-operator-completions"
SERVED = (*PLAIN, "gateway.server.enabled=true")
ALL = (
    *EVERYTHING,
    "gateway.server.enabled=true",
    "gateway.server.keep=5",
    "gateway.server.cacheBytes=1099511627776",
    'gateway.server.secretName="shared"',
    'gateway.server.resources.limits={"nvidia.com/gpu":1}',
    'gateway.server.nodeSelector={"gpu":"true"}',
    'gateway.server.tolerations=[{"key":"nvidia.com/gpu","operator":"Exists"}]',
)


def of_server(objects: list[JsonObject]) -> list[JsonObject]:
    return [obj for obj in objects if "completions" in name(obj)]


def deployment(objects: list[JsonObject]) -> JsonObject:
    found: JsonObject = one(objects, "Deployment", "-completions")["spec"]
    return found


def pod(objects: list[JsonObject]) -> JsonObject:
    found: JsonObject = deployment(objects)["template"]["spec"]
    return found


def container(objects: list[JsonObject]) -> JsonObject:
    (found,) = pod(objects)["containers"]
    return dict(found)


def sources(objects: list[JsonObject]) -> dict[str, JsonObject]:
    return {volume["name"]: volume for volume in pod(objects)["volumes"]}


def mounts(found: JsonObject) -> dict[str, JsonObject]:
    return {mount["name"]: mount for mount in found["volumeMounts"]}


@pytest.mark.parametrize("values", [PLAIN, EVERYTHING, ("gateway.server.enabled=true",)])
def test_it_is_off_unless_it_and_the_gateway_are_on(
    render: Render, values: tuple[str, ...]
) -> None:
    assert not of_server(render("crds.install=false", *values))


def test_its_objects_are_these(render: Render) -> None:
    def kinds(*values: str) -> list[str]:
        return sorted(obj["kind"] for obj in of_server(render(*values)))

    assert kinds(*SERVED) == ["Deployment", "Secret", "Service"]
    monitors = ["PodMonitor", "ServiceMonitor", "Service"]
    assert kinds(*ALL) == sorted(["Deployment", "NetworkPolicy", "Service", *monitors])
    assert {
        obj["metadata"]["namespace"] for obj in of_server(render(*ALL, "clusterWide=true"))
    } == {"ml"}


@pytest.mark.parametrize("values", [SERVED, ALL, (*ALL, "clusterAssignsUserIds=true")])
def test_every_object_of_it_is_valid_kubernetes(
    render: Render, tmp_path: Path, schemas: str, values: tuple[str, ...]
) -> None:
    objects = render(*values)
    found = [*of_server(objects), one(objects, "Deployment", "-gateway")]
    assert_valid(found, schemas, tmp_path)


def test_the_gateway_reaches_it_with_the_same_secret(render: Render) -> None:
    for values, secret in ((SERVED, NAME), (ALL, "shared")):
        objects = render(*values)
        server = parsed(objects).server
        assert server is not None
        service = one(objects, "Service", "-completions")
        (port,) = service["spec"]["ports"]
        assert server.url == f"http://{name(service)}.ml.svc:{port['port']}/v1"
        assert has(
            deployment(objects)["template"]["metadata"]["labels"], service["spec"]["selector"]
        )
        (gateway,) = gateway_pod(objects)["containers"]
        assert server.secret_file == Path(mounts(gateway)["server"]["mountPath"], "token")
        options = parse_arguments(container(objects)["args"])
        mount = mounts(container(objects))["secret"]
        assert options.gateway_secret_file == Path(mount["mountPath"], "token")
        source = {"secretName": secret, "items": [{"key": "token", "path": "token"}]}
        assert sources(objects)["secret"]["secret"] == source
        volumes = gateway_sources(objects)
        assert volumes["server"]["secret"] == source


def test_without_it_the_gateway_s_settings_have_no_server(render: Render) -> None:
    objects = render(*EVERYTHING)
    assert parsed(objects).server is None
    assert "server" not in gateway_sources(objects)
    (gateway,) = gateway_pod(objects)["containers"]
    assert "server" not in mounts(gateway)


def test_the_created_secret_is_random_and_long(render: Render) -> None:
    tokens = [
        base64.b64decode(one(render(*SERVED), "Secret", "-completions")["data"]["token"]).decode()
        for _ in range(2)
    ]
    assert tokens[0] != tokens[1]
    assert all(re.fullmatch(r"[A-Za-z0-9]{48}", token) for token in tokens)


def test_a_secret_that_is_there_keeps_its_value(render: Render, tmp_path: Path) -> None:
    """Without an API server, the test puts the answer of `lookup` into the template."""
    chart = tmp_path / "chart"
    copytree(CHART, chart)
    template = chart / "templates/completions.yaml"
    call = 'lookup "v1" "Secret" .Release.Namespace $name'
    text = template.read_text()
    assert text.count(call) == 1
    template.write_text(text.replace(call, 'dict "data" (dict "token" "a2VwdA==" "x" "eQ==")'))
    found = one(render(*SERVED, chart=chart), "Secret", "-completions")
    assert found["data"] == {"token": "a2VwdA=="}


def test_its_arguments_are_what_the_program_parses(render: Render) -> None:
    found = container(render(*SERVED))
    assert found["command"] == ["python", "-m", "finetune_serving"]
    options = parse_arguments(found["args"])
    made = build_settings(options)
    assert (options.host, options.cpu, made.trusts_gateway) == ("*", False, True)
    assert [str(uri) for uri in made.models_below] == ["s3://acme/finetunes/ml"]
    assert (made.keep, made.cache_bytes, made.hold_seconds) == (2, 50 * 2**30, 45)
    ports = {port["name"]: port["containerPort"] for port in found["ports"]}
    assert ports == {"api": options.port, "operations": options.status_port}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert found[probe]["httpGet"]["port"] == "operations"
    hook = int(found["lifecycle"]["preStop"]["exec"]["command"][1])
    assert hook + made.drain_seconds + 10 < pod(render(*SERVED))["terminationGracePeriodSeconds"]
    changed = build_settings(parse_arguments(container(render(*ALL))["args"]))
    assert (changed.keep, changed.cache_bytes, changed.hold_seconds) == (5, 2**40, 15.5)
    short = parse_arguments(container(render(*SERVED, "gateway.holdSeconds=2"))["args"])
    assert short.hold_seconds == 0


def test_the_cache_is_a_volume_with_room_for_its_bytes(render: Render) -> None:
    for values in (SERVED, ALL):
        objects = render(*values)
        made = build_settings(parse_arguments(container(objects)["args"]))
        assert made.cache_bytes is not None
        mount = mounts(container(objects))["cache"]
        assert made.cache.is_relative_to(mount["mountPath"])
        assert int(sources(objects)["cache"]["emptyDir"]["sizeLimit"]) > made.cache_bytes
        assert "emptyDir" in sources(objects)["tmp"]


def test_its_pod_passes_restricted_and_has_no_token(render: Render) -> None:
    for values in (SERVED, ALL):
        objects = render(*values)
        context = pod(objects)["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container(objects)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod(objects)["automountServiceAccountToken"] is False
        assert pod(objects)["serviceAccountName"] == gateway_pod(objects)["serviceAccountName"]
        assert "serviceAccountToken" not in json.dumps(sources(objects))
        assert "/var/run/secrets" not in json.dumps(mounts(container(objects)))
        assert (deployment(objects)["replicas"], deployment(objects)["strategy"]) == (
            1,
            {"type": "Recreate"},
        )
    assigned = pod(render(*SERVED, "clusterAssignsUserIds=true"))["securityContext"]
    assert assigned == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


@pytest.mark.parametrize("values", [SERVED, ALL, (*SERVED, 'pods.certificates.secret="corporate"')])
def test_the_way_to_the_store_is_that_of_the_gateway(
    render: Render, values: tuple[str, ...]
) -> None:
    objects = render(*values)
    (gateway,) = gateway_pod(objects)["containers"]
    assert container(objects)["env"] == gateway["env"]
    certificates = "finetune-certificates"
    assert mounts(container(objects)).get(certificates) == mounts(gateway).get(certificates)
    volumes = gateway_sources(objects)
    assert sources(objects).get(certificates) == volumes.get(certificates)
    assert (certificates in volumes) == (values is not SERVED)


def test_the_image_is_the_trainer_s_and_the_place_is_of_its_own(render: Render) -> None:
    objects = render(*ALL, 'images.registry="r.example"', 'images.tag="1.2"')
    assert container(objects)["image"] == "r.example/finetune-trainer:1.2"
    assert container(objects)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod(objects)["nodeSelector"] == {"gpu": "true"}
    assert pod(objects)["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert pod(objects)["imagePullSecrets"] == [{"name": "regcred"}]


def test_only_the_gateway_reaches_it(render: Render) -> None:
    assert not of_kind(of_server(render(*SERVED)), "NetworkPolicy")
    objects = render(*ALL)
    policy = one(objects, "NetworkPolicy", "-completions")["spec"]
    rule, operations = policy["ingress"]
    assert [port["port"] for port in operations["ports"]] == ["operations"]
    (peer,) = rule["from"]
    template = one(objects, "Deployment", "-gateway")["spec"]["template"]["metadata"]
    own = deployment(objects)["template"]["metadata"]["labels"]
    assert has(template["labels"], peer["podSelector"]["matchLabels"])
    assert not has(own, peer["podSelector"]["matchLabels"])
    assert peer.keys() == {"podSelector"}
    assert rule["ports"] == [{"port": "api"}]
    assert has(own, policy["podSelector"]["matchLabels"])
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    gateway = one(objects, "NetworkPolicy", "-gateway")["spec"]
    to_server = gateway["egress"][1]
    assert has(own, to_server["to"][0]["podSelector"]["matchLabels"])
    assert to_server["ports"] == [{"port": 8000}]
    assert policy["egress"] == [gateway["egress"][0], *gateway["egress"][2:]]
    free = render(*ALL, "gateway.networkPolicy.egress=[]")
    for suffix in ("-completions", "-gateway"):
        assert one(free, "NetworkPolicy", suffix)["spec"]["policyTypes"] == ["Ingress"]


def test_no_other_object_selects_its_pods(render: Render) -> None:
    objects = render(*ALL, "gateway.networkPolicy.enabled=true")
    labels = deployment(objects)["template"]["metadata"]["labels"]
    for obj in objects:
        spec = obj.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector") or {}
        wanted = selector.get("matchLabels", selector)
        if obj["kind"] in {"Deployment", "Service", "PodMonitor", "NetworkPolicy"}:
            assert has(labels, wanted) == ("completions" in name(obj)), name(obj)


def test_the_monitors_find_its_pods(render: Render) -> None:
    objects = render(*ALL)
    template = deployment(objects)["template"]
    labels, ports = template["metadata"]["labels"], template["spec"]["containers"][0]["ports"]
    by_number = {port["name"]: port["containerPort"] for port in ports}
    by_pod = one(objects, "PodMonitor", "-completions")["spec"]
    assert has(labels, by_pod["selector"]["matchLabels"])
    assert by_pod["podMetricsEndpoints"][0]["port"] in by_number
    service = one(objects, "Service", "-completions-metrics")
    assert has(labels, service["spec"]["selector"])
    (port,) = service["spec"]["ports"]
    assert by_number[port["targetPort"]] == port["port"]
    by_service = one(objects, "ServiceMonitor", "-completions")["spec"]
    wanted = by_service["selector"]["matchLabels"]
    assert has(service["metadata"]["labels"], wanted)
    assert not has(one(objects, "Service", "-completions")["metadata"]["labels"], wanted)
    assert by_service["endpoints"][0]["port"] == port["name"]


def test_the_peers_of_metrics_reach_its_port_of_metrics_only(render: Render) -> None:
    enabled = "gateway.networkPolicy.enabled=true"

    def rules(*values: str) -> Any:
        found = one(render(*SERVED, enabled, *values), "NetworkPolicy", "-completions")
        return found["spec"]["ingress"][1:]

    assert rules() == [{"ports": [{"port": "operations"}]}]
    peers = [{"podSelector": {}}]
    given = f"metrics.networkPolicy.from={json.dumps(peers)}"
    assert rules("metrics.networkPolicy.enabled=true", given) == [
        {"from": peers, "ports": [{"port": "operations"}]}
    ]
    assert rules("metrics.networkPolicy.enabled=true") == []


def test_names_and_labels_keep_to_their_length(render: Render) -> None:
    for long in ("x" * 53, "y" * 40):
        values = (*SERVED, f'fullnameOverride="{long}{long[:10]}"', f'nameOverride="{long}"')
        objects = of_server(render(*values, release=long))
        assert len(objects) == 3
        for obj in objects:
            assert len(name(obj)) <= 63
            assert all(len(value) <= 63 for value in obj["metadata"]["labels"].values())


def test_without_an_output_it_is_refused(helm: Helm) -> None:
    values = (*SERVED[::2], "gateway.server.enabled=true", 'gateway.files.prefix="s3://acme/in"')
    assert "gateway.server.enabled requires output" in refused(helm, *values)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"keep": 0}, ["keep"]),
        ({"cacheBytes": 0}, ["cacheBytes"]),
        ({"secretName": "A b"}, ["secretName"]),
        ({"url": "http://a"}, []),
    ],
)
def test_the_schema_refuses_wrong_values(values: Any, field: list[Any]) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    with pytest.raises(jsonschema.ValidationError) as caught:
        jsonschema.validate({"gateway": {"server": values}}, {**schema, "required": []})
    assert list(caught.value.absolute_path) == ["gateway", "server", *field]
