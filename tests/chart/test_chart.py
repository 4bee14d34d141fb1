"""The objects that the chart installs, rendered by helm."""

import json
from pathlib import Path

import pytest
import yaml

from finetune_api.wire import JsonObject
from tests.chart import older_values
from tests.chart.conftest import (
    CHART,
    Helm,
    Render,
    assert_valid,
    conform,
    name,
    of_kind,
    one,
    settings,
)

CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Namespace"}
RBAC = {"Role", "ClusterRole"}

ON = older_values.everything(older_values.current())
EVERYTHING = tuple(f"{key}={json.dumps(value)}" for key, value in ON.items())

pytestmark = pytest.mark.integration  # helm is built by devcluster


def refused(helm: Helm, *sets: str) -> str:
    arguments = [word for value in sets for word in ("--set-json", value)]
    done = helm("template", "ft", CHART, "--namespace", "ml", *arguments)
    assert done.returncode != 0
    return done.stderr


def test_lint_is_clean(helm: Helm) -> None:
    done = helm("lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "values",
    [
        (),
        ("clusterWide=true",),
        (
            'operator.tolerations=[{"key":"a","operator":"Exists"}]',
            'operator.nodeSelector={"a":"b"}',
            'operator.affinity={"nodeAffinity":{}}',
            'operator.env=[{"name":"A","value":"1"}]',
            'operator.priorityClassName="p"',
            'imagePullSecrets=[{"name":"regcred"}]',
        ),
        (
            "metrics.podMonitor.enabled=true",
            "metrics.serviceMonitor.enabled=true",
            "metrics.trainingPodMonitor.enabled=true",
            "metrics.alerts.enabled=true",
            "metrics.dashboard.enabled=true",
            "metrics.networkPolicy.enabled=true",
            'metrics.networkPolicy.from=[{"podSelector":{"matchLabels":{"app":"prometheus"}}}]',
            "kueue.enabled=true",
            "pods.networkPolicy.enabled=true",
        ),
        (
            "clusterWide=true",
            "metrics.tokenReview=true",
            "metrics.serviceMonitor.enabled=true",
            "metrics.trainingPodMonitor.enabled=true",
            "rbac.userRoles.aggregate=true",
        ),
        EVERYTHING,
    ],
)
def test_every_object_is_valid_kubernetes(
    render: Render, tmp_path: Path, schemas: str, values: tuple[str, ...]
) -> None:
    assert_valid(render(*values), schemas, tmp_path)


def test_kubeconform_sees_a_wrong_field(render: Render, tmp_path: Path, schemas: str) -> None:
    deployment = one(render(), "Deployment")
    deployment["spec"]["replica"] = 2
    path = tmp_path / "objects.yaml"
    path.write_text(yaml.safe_dump(deployment))
    assert "replica" in conform(schemas, path).stdout


@pytest.mark.parametrize("values", [(), ("clusterWide=true",)])
def test_no_rule_names_secrets_exec_or_a_wildcard(render: Render, values: tuple[str, ...]) -> None:
    roles = of_kind(render(*values), *RBAC)
    assert roles
    for role in roles:
        for rule in role["rules"]:
            words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert "*" not in words
            assert not words & {"secrets", "pods/exec", "escalate", "bind", "impersonate"}


def test_the_operators_rights_are_these_and_no_more(render: Render) -> None:
    role = one(render(), "Role", "ft-finetune-operator")
    rights = {
        f"{group or 'core'}/{resource}": set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    reads = {"get", "list", "watch"}
    assert rights == {
        "finetune.dev/finetunes": reads,
        "finetune.dev/finetunes/status": {"patch"},
        "finetune.dev/models": reads | {"create", "patch"},
        "finetune.dev/models/status": {"patch"},
        "batch/jobs": reads | {"create", "delete"},
        "core/services": {"get", "list", "create"},
        "core/pods": {"list", "watch"},
        "core/events": {"list", "create"},
    }


def test_a_user_deletes_nothing_and_an_owner_does(render: Render) -> None:
    objects = render()
    user, owner = one(objects, "Role", "finetune-user"), one(objects, "Role", "finetune-owner")
    assert not any("delete" in rule["verbs"] for rule in user["rules"])
    assert [rule["resources"] for rule in owner["rules"] if "delete" in rule["verbs"]] == [
        ["finetunes"],
        ["models"],
    ]


def test_two_releases_of_one_name_share_no_object(render: Render) -> None:
    def keys(objects: list[JsonObject]) -> set[tuple[str, str, str]]:
        return {
            (
                obj["kind"],
                "" if obj["kind"] in CLUSTER_SCOPED else obj["metadata"]["namespace"],
                name(obj),
            )
            for obj in objects
        }

    first = keys(render(namespace="a"))
    second = keys(render("crds.install=false", namespace="b"))
    assert not first & second
    wide = keys(render("clusterWide=true", namespace="c"))
    wide_too = keys(render("clusterWide=true", "crds.install=false", namespace="d"))
    assert not wide & wide_too


def test_only_the_crds_are_cluster_scoped_by_default(render: Render) -> None:
    found = {obj["kind"] for obj in render()} & CLUSTER_SCOPED
    assert found == {"CustomResourceDefinition"}


def test_cluster_wide_turns_the_roles_into_cluster_roles(render: Render) -> None:
    objects = render("clusterWide=true")
    assert not of_kind(objects, "Role", "RoleBinding")
    binding = one(objects, "ClusterRoleBinding")
    assert name(binding) == "ft-finetune-operator-ml"
    assert binding["roleRef"]["name"] in {name(role) for role in of_kind(objects, "ClusterRole")}
    assert settings(objects)["namespace"] == ""


def test_the_crds_are_the_generated_ones_and_stay(render: Render) -> None:
    crds = {name(crd): crd for crd in of_kind(render(), "CustomResourceDefinition")}
    assert set(crds) == {"finetunes.finetune.dev", "models.finetune.dev"}
    for path in (CHART / "files/crds").glob("*.yaml"):
        generated = yaml.safe_load(path.read_text())
        rendered = crds[name(generated)]
        annotations = rendered["metadata"]["annotations"]
        assert annotations.pop("helm.sh/resource-policy") == "keep"
        assert rendered["spec"] == generated["spec"]


def test_without_crds_none_is_rendered(render: Render) -> None:
    assert not of_kind(render("crds.install=false"), "CustomResourceDefinition")


def test_the_operators_pod_passes_restricted(render: Render) -> None:
    pod = one(render(), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not any("hostPath" in volume or "secret" in volume for volume in pod["volumes"])


def test_one_replica_that_is_gone_before_the_next_one_starts(render: Render) -> None:
    spec = one(render(), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_probes_and_metrics_have_their_ports(render: Render) -> None:
    (container,) = one(render(), "Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"health": 8080, "metrics": 8081}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}


def test_changed_settings_restart_the_operator_and_nothing_else_does(render: Render) -> None:
    def checksum(*sets: str) -> str:
        template = one(render(*sets), "Deployment")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/settings"])

    assert checksum() == checksum('commonLabels={"team":"a"}')
    assert checksum() != checksum('organization="acme"')


def test_the_pods_service_account_has_no_token_and_no_rights(render: Render) -> None:
    objects = render('pods.serviceAccount.annotations={"eks.amazonaws.com/role-arn":"arn"}')
    account = one(objects, "ServiceAccount", "finetune")
    assert account["automountServiceAccountToken"] is False
    assert account["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": "arn"}
    subjects = [
        subject["name"] for obj in of_kind(objects, "RoleBinding") for subject in obj["subjects"]
    ]
    assert subjects == ["ft-finetune-operator"]


def test_labels_and_annotations_reach_the_pod(render: Render) -> None:
    objects = render('operator.podAnnotations={"a":"b"}', 'commonLabels={"team":"ml"}')
    metadata = one(objects, "Deployment")["spec"]["template"]["metadata"]
    assert metadata["annotations"]["a"] == "b"
    assert metadata["labels"]["team"] == "ml"


def test_images_come_from_the_registry_and_tag_or_from_a_whole_reference(render: Render) -> None:
    plain = settings(render('images.registry="r.example/team"', 'images.tag="1.2"'))
    assert plain["prepareImage"] == "r.example/team/finetune-prepare:1.2"
    assert {r["trainerImage"] for r in plain["runtimes"]} == {"r.example/team/finetune-trainer:1.2"}
    objects = render('images={"operator":"r/o:1","prepare":"r/p:2","trainer":"r/t:3"}')
    (container,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "r/o:1"
    assert settings(objects)["prepareImage"] == "r/p:2"
    assert settings(objects)["runtimes"][0]["trainerImage"] == "r/t:3"


def test_pull_secrets_reach_the_operator_and_the_settings(render: Render) -> None:
    objects = render('imagePullSecrets=[{"name":"regcred"}]')
    pod = one(objects, "Deployment")["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "regcred"}]
    assert settings(objects)["imagePullSecrets"] == ["regcred"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("clusterwide=true", "clusterwide"),
        ('models=[{"name":"ada","uri":"hf://a/b@c","contextLength":8}]', "pretrainingLearningRate"),
        ('models=[{"name":"ada","url":"s3://a/b"}]', "url"),
        ('runtimes=[{"name":"x","accelerator":"tpu"}]', "accelerator"),
        ('output="/data"', "output"),
        ('crds.install="no"', "install"),
        ("runtimes=[]", "runtimes"),
        (
            'runtimes=[{"name":"x","accelerator":"cpu","modelCache":{"maxSize":"1Gi"}}]',
            "modelCache",
        ),
    ],
)
def test_a_wrong_value_is_refused_by_name(helm: Helm, values: str, message: str) -> None:
    stderr = refused(helm, values)
    assert "values don't meet the specifications" in stderr
    assert message in stderr


def test_a_missing_service_account_name_says_what_to_do(helm: Helm) -> None:
    assert "serviceAccount.name is required" in refused(helm, "serviceAccount.create=false")


def test_the_notes_fit_the_values(helm: Helm) -> None:
    done = helm("install", "ft", CHART, "--namespace", "ml", "--dry-run=client")
    if done.returncode != 0 and "unreachable" in done.stderr:
        pytest.skip("helm install --dry-run asks for a cluster here")
    assert done.returncode == 0, done.stderr
    assert "kubectl -n ml create secret generic finetune-s3" in done.stdout
    assert "model: ada" in done.stdout


def test_argo_cd_s_script_knows_every_state() -> None:
    script = (CHART / "files/argocd-health.lua").read_text()
    for state in ("pending", "running", "succeeded", "failed", "cancelled"):
        assert f"{state} = " in script


def test_t35_there_is_no_webhook_to_be_down(render: Render) -> None:
    options = ("modelDeletion.enabled", "kueue.enabled", "pods.networkPolicy.enabled")
    objects = render(*(f"{option}=true" for option in options))
    assert not [obj for obj in objects if "Webhook" in obj["kind"]]
    crds = of_kind(objects, "CustomResourceDefinition")
    assert len(crds) == 2
    for crd in crds:
        assert crd["spec"].get("conversion", {}).get("strategy", "None") == "None"
