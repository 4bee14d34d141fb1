"""The chart's monitors, alerts, and dashboard, and access to the metrics."""

import json
import re
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from finetune_api.wire import JsonObject
from finetune_gateway import metrics as gateway_metrics
from finetune_operator.build.deletion_job import build_deletion_job
from finetune_operator.settings import Settings
from finetune_operator.telemetry import reconcile_metrics, serving_metrics
from finetune_operator.telemetry.request_metrics import REGISTRY
from finetune_operator.telemetry.state_collector import PROGRESS
from tests.chart.conftest import CHART, ROOT, Render
from tests.chart.test_chart import Helm, name, of_kind, one, refused
from tests.operator.test_deletion import a_model
from tests.support.objects import a_settings

ALERTS = ("metrics.alerts.enabled=true",)
EXTRA = {"ServiceMonitor", "PodMonitor", "PrometheusRule", "NetworkPolicy", "Service"}
SUFFIXES = ("_bucket", "_sum", "_count")
integration = pytest.mark.integration  # helm is built by devcluster


def known_series() -> set[str]:
    """Return every metric that operator and gateway serve, with its name in Prometheus."""
    assert reconcile_metrics.HEALTH and serving_metrics.SERVED
    text = (generate_latest(REGISTRY) + generate_latest(gateway_metrics.REGISTRY)).decode()
    return {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}


def used_series(text: str) -> set[str]:
    """Find the project's metrics in a PromQL expression; histograms without their suffix."""
    found = set(re.findall(r"\b((?:finetune|process)_[a-z_]+)", text))
    known = known_series()
    return {
        next((word.removesuffix(end) for end in SUFFIXES if word.removesuffix(end) in known), word)
        for word in found
    }


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CHART / "files/dashboard.json").read_text())
    return found


def expressions() -> list[str]:
    return [
        target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])
    ]


def test_every_metric_of_ours_has_a_panel_and_every_panel_a_metric() -> None:
    shown = set().union(*(used_series(text) for text in expressions()))
    assert shown - known_series() == set()
    assert {series for series in known_series() if series.startswith("finetune_")} - shown == set()


def test_every_metric_of_ours_is_in_the_docs_and_nothing_else() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    told = set(re.findall(r"^\| `(finetune_[a-z_]+)", text, re.MULTILINE))
    assert told == {series for series in known_series() if series.startswith("finetune_")}
    assert {f"finetune_job_{word}" for word in PROGRESS} <= told


def test_the_dashboard_s_panels_have_ids_places_and_titles_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["title"] for panel in panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells


def test_the_dashboard_asks_for_its_own_variables_only() -> None:
    items = dashboard()["templating"]["list"]
    texts = [*expressions(), *(json.dumps(item["query"]) for item in items)]
    used = set().union(*(re.findall(r"\$\{?([a-z_]+)\}?", text) for text in texts))
    assert used - {"__rate_interval", "__range"} == {"namespace", "name"}
    assert {item["name"] for item in items} == {"datasource", "namespace", "name"}


@integration
def test_everything_is_disabled_by_default(render: Render) -> None:
    assert not of_kind(render(), *EXTRA)
    assert len(of_kind(render(), "ConfigMap")) == 1


def rules(objects: list[JsonObject]) -> dict[str, JsonObject]:
    spec = one(objects, "PrometheusRule")["spec"]
    return {rule["alert"]: rule for group in spec["groups"] for rule in group["rules"]}


@integration
@pytest.mark.parametrize("wide", [(), ("clusterWide=true",)])
def test_every_alert_is_a_query_on_metrics_that_exist(
    render: Render, wide: tuple[str, ...]
) -> None:
    promql = pytest.importorskip("promql_parser")
    found = rules(render(*ALERTS, *wide))
    assert {
        "FineTuneOperatorDown",
        "FineTuneReconcileErrors",
        "FineTuneQueueStuck",
        "FineTuneStalled",
        "FineTunesFailing",
    } <= set(found)
    for alert, rule in found.items():
        assert used_series(rule["expr"]) <= known_series(), alert
        assert used_series(rule["expr"])
        promql.parse(rule["expr"])
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["summary"]


def test_every_panel_is_a_query() -> None:
    promql = pytest.importorskip("promql_parser")
    for text in expressions():
        promql.parse(text.replace("$__rate_interval", "5m").replace("$__range", "1h"))


@integration
def test_an_alert_of_one_namespace_looks_at_no_other(render: Render) -> None:
    for rule in rules(render(*ALERTS)).values():
        selectors = re.findall(r"finetune_[a-z_]+\{([^}]*)\}", rule["expr"])
        assert selectors
        assert all('namespace="ml"' in selector for selector in selectors)
    stalled = rules(render(*ALERTS, "clusterWide=true"))["FineTuneStalled"]
    assert "namespace=" not in stalled["expr"]


@integration
def test_thresholds_come_from_the_values(render: Render) -> None:
    found = rules(
        render(
            *ALERTS,
            "metrics.alerts.stalledSeconds=77",
            "metrics.alerts.failedShare=0.25",
        )
    )
    assert found["FineTuneStalled"]["expr"].endswith("> 77")
    assert "> 0.25" in found["FineTunesFailing"]["expr"]


@integration
def test_the_monitors_find_the_operator_and_rank_0(render: Render) -> None:
    from finetune_api import names
    from finetune_operator.build.identity import labels
    from tests.support.objects import a_finetune

    objects = render(
        "metrics.podMonitor.enabled=true",
        "metrics.serviceMonitor.enabled=true",
        "metrics.trainingPodMonitor.enabled=true",
        'metrics.podMonitor.labels={"release":"prometheus"}',
    )
    pod = one(objects, "Deployment")["spec"]["template"]
    ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
    operator = one(objects, "PodMonitor", "ft-finetune-operator")
    assert operator["metadata"]["labels"]["release"] == "prometheus"
    service = one(objects, "Service")
    by_service = one(objects, "ServiceMonitor")
    assert has(pod["metadata"]["labels"], operator["spec"]["selector"]["matchLabels"])
    assert has(pod["metadata"]["labels"], service["spec"]["selector"])
    assert has(service["metadata"]["labels"], by_service["spec"]["selector"]["matchLabels"])
    assert operator["spec"]["podMetricsEndpoints"][0]["port"] in ports
    assert by_service["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    training = one(objects, "PodMonitor", "-training")
    wanted = dict(training["spec"]["selector"]["matchLabels"])
    assert wanted.pop("batch.kubernetes.io/job-completion-index") == "0"
    assert has(labels(a_finetune(), names.COMPONENT_TRAIN, 1), wanted)
    assert training["spec"]["podMetricsEndpoints"][0]["portNumber"] == names.PORT_PROGRESS


def has(labels: dict[str, str], wanted: dict[str, str]) -> bool:
    return wanted.items() <= labels.items()


@integration
def test_the_dashboard_reaches_grafana_whole(render: Render) -> None:
    config = one(render("metrics.dashboard.enabled=true"), "ConfigMap", "-dashboard")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["finetunes.json"]) == dashboard()


@integration
def test_the_network_policy_lets_only_the_named_reach_the_metrics(render: Render) -> None:
    closed = one(render("metrics.networkPolicy.enabled=true"), "NetworkPolicy")
    assert closed["spec"]["ingress"] == [{"ports": [{"port": "health"}]}]
    peer = '{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"monitoring"}}}'
    policy = one(
        render(
            "metrics.networkPolicy.enabled=true",
            f"metrics.networkPolicy.from=[{peer}]",
        ),
        "NetworkPolicy",
    )
    by_port = {rule["ports"][0]["port"]: rule.get("from") for rule in policy["spec"]["ingress"]}
    assert by_port == {"health": None, "metrics": [json.loads(peer)]}
    assert policy["spec"]["policyTypes"] == ["Ingress"]


@integration
def test_the_pods_policy_names_this_release_s_operator(render: Render) -> None:
    off = yaml.safe_load(one(render(), "ConfigMap", "-settings")["data"]["settings.yaml"])
    assert "podNetwork" not in off
    peer = '{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"monitoring"}}}'
    objects = render(
        "pods.networkPolicy.enabled=true",
        f"pods.networkPolicy.metricsFrom=[{peer}]",
        'pods.networkPolicy.egress=[{"ports":[{"port":443}]}]',
    )
    text = one(objects, "ConfigMap", "-settings")["data"]["settings.yaml"]
    network = Settings.model_validate(yaml.safe_load(text)).pod_network
    assert network is not None
    operator, monitoring = network.progress_from
    wanted = operator["podSelector"]["matchLabels"]
    template = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert has(template, wanted)
    assert monitoring == json.loads(peer)
    assert network.egress == [{"ports": [{"port": 443}]}]
    rules = [rule["resources"] for rule in one(objects, "Role", "operator")["rules"]]
    assert ["networkpolicies"] in rules
    deletion = one(objects, "NetworkPolicy", "-deletion")["spec"]
    assert deletion["egress"][1:] == network.egress
    labels = build_deletion_job(a_model("Delete"), a_settings())["spec"]["template"]["metadata"]
    assert has(labels["labels"], deletion["podSelector"]["matchLabels"])


@integration
def test_the_default_egress_excludes_the_addresses_of_the_node(render: Render) -> None:
    """Those of the metadata, and of the credentials of cloud providers."""
    text = one(render("pods.networkPolicy.enabled=true"), "ConfigMap", "-settings")
    network = Settings.model_validate(yaml.safe_load(text["data"]["settings.yaml"])).pod_network
    assert network is not None
    blocks = [peer["ipBlock"] for rule in network.egress for peer in rule["to"]]

    def is_reached(address: str) -> bool:
        found = ip_address(address)
        return any(
            found in ip_network(block["cidr"])
            and not any(found in ip_network(part) for part in block["except"])
            for block in blocks
        )

    for reached in ("10.96.0.1", "52.216.0.1", "192.168.1.5", "2600:1fa0::1", "fd00:10::1"):
        assert is_reached(reached)
    for closed in ("169.254.169.254", "169.254.170.2", "fe80::1", "fd00:ec2::254", "fd00:ec2::23"):
        assert not is_reached(closed)
    open_values = render("pods.networkPolicy.enabled=true", "pods.networkPolicy.egress=[]")
    text = one(open_values, "ConfigMap", "-settings")["data"]["settings.yaml"]
    unrestricted = Settings.model_validate(yaml.safe_load(text)).pod_network
    assert unrestricted is not None and unrestricted.egress == []
    assert not [item for item in open_values if item["kind"] == "NetworkPolicy"]


@integration
def test_token_review_takes_a_cluster_role_and_no_more(render: Render, helm: Helm) -> None:
    assert "Set clusterWide=true" in refused(helm, "metrics.tokenReview=true")
    on = ("clusterWide=true", "metrics.tokenReview=true")
    assert "metrics.serviceMonitor" in refused(helm, *on, "metrics.podMonitor.enabled=true")
    objects = render(*on, "metrics.serviceMonitor.enabled=true")
    reviews = one(objects, "ClusterRole", "-reviews")["rules"]
    assert [(rule["resources"], rule["verbs"]) for rule in reviews] == [
        (["tokenreviews"], ["create"]),
        (["subjectaccessreviews"], ["create"]),
    ]
    reader = one(objects, "ClusterRole", "-metrics-reader")["rules"]
    assert reader == [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
    endpoint = one(objects, "ServiceMonitor")["spec"]["endpoints"][0]
    assert "bearerTokenFile" in endpoint
    text = one(objects, "ConfigMap", "-settings")["data"]["settings.yaml"]
    assert yaml.safe_load(text)["metricsTokenReview"] is True


@integration
def test_kueue_s_verbs_are_granted_only_where_it_is_enabled(render: Render) -> None:
    def groups(*values: str) -> set[str]:
        role = one(render(*values), "Role", "ft-finetune-operator")
        return {group for rule in role["rules"] for group in rule["apiGroups"]}

    assert "kueue.x-k8s.io" not in groups()
    assert "kueue.x-k8s.io" in groups("kueue.enabled=true")


@integration
def test_who_deletes_no_files_changes_no_model(render: Render) -> None:
    role = one(render("modelDeletion.enabled=false"), "Role", "ft-finetune-operator")
    verbs = {
        resource: set(rule["verbs"])
        for rule in role["rules"]
        for resource in rule["resources"]
        if resource.startswith("models")
    }
    assert verbs == {"models": {"get", "list", "create"}}


@integration
def test_aggregation_is_asked_for_and_for_cluster_roles(render: Render, helm: Helm) -> None:
    assert "Set clusterWide=true" in refused(helm, "rbac.userRoles.aggregate=true")
    wide = render("clusterWide=true")
    assert "aggregate-to" not in json.dumps(wide)
    objects = render("clusterWide=true", "rbac.userRoles.aggregate=true")
    into = {
        name(role).rpartition("-")[2]: label.rpartition("-")[2]
        for role in of_kind(objects, "ClusterRole")
        for label in role["metadata"]["labels"]
        if "aggregate-to" in label
    }
    assert into == {"owner": "admin", "user": "edit", "viewer": "view"}
    viewer = one(objects, "ClusterRole", "-finetune-viewer")
    assert {verb for rule in viewer["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}


def paths(value: Any, under: str = "") -> set[str]:
    if not isinstance(value, dict) or not value:
        return {under}
    return set().union(*(paths(item, f"{under}.{key}") for key, item in value.items()))


def test_the_schema_knows_every_value() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    for path in paths(values):
        node = schema
        for part in path.strip(".").split("."):
            if "properties" not in node:  # a map with arbitrary keys
                break
            assert node["additionalProperties"] is False, path
            assert part in node["properties"], path
            node = node["properties"][part]
        assert "type" in node, path


def test_every_value_of_the_metrics_has_words_in_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    nodes = [schema["properties"]["metrics"], schema["properties"]["kueue"]]
    while nodes:
        node = nodes.pop()
        assert node["description"]
        nodes.extend(node.get("properties", {}).values())


@integration
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("metrics.alert.enabled=true", "alert"),
        ('metrics.interval="often"', "interval"),
        ("metrics.alerts.failedShare=2", "failedShare"),
        ("metrics.alerts.stalledSeconds=0", "stalledSeconds"),
        ('metrics.networkPolicy.from="monitoring"', "from"),
        ('kueue.enabled="yes"', "enabled"),
    ],
)
def test_a_wrong_value_is_refused(helm: Helm, value: str, words: str) -> None:
    assert words in refused(helm, value)
