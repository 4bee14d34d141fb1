"""The gateway of the chart on a real API server: admission, and what its account may do."""

import json
from pathlib import Path

import pytest
import yaml

from tests.chart.conftest import CHART, Helm
from tests.chart.test_gateway import EVERYTHING, NAME
from tests.support.kubectl import Kubectl, RefusedError, finetune, until

pytestmark = pytest.mark.integration


@pytest.fixture
def installed(helm: Helm, team: Kubectl) -> Kubectl:
    """A namespace under Pod Security `restricted`, with the gateway and two users."""
    team("label", "namespace", team.namespace, "pod-security.kubernetes.io/enforce=restricted")
    lacking = ("Monitor", "priorityClassName")  # kinds and objects that are not there
    values = [value for value in EVERYTHING if not any(word in value for word in lacking)]
    sets = [word for value in values for word in ("--set-json", value)]
    place = ("-n", team.namespace, "--kubeconfig", team.kubeconfig)
    done = helm("install", "ft", CHART, *place, "--set", "crds.install=false", *sets)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    for account in ("bert", "carl"):
        team("create", "serviceaccount", account)
        subject = f"--serviceaccount={team.namespace}:{account}"
        team("create", "rolebinding", account, "--role=finetune-user", subject)
    return team


def user(team: Kubectl, account: str) -> str:
    return f"system:serviceaccount:{team.namespace}:{account}"


def allows(team: Kubectl, verb: str, resource: str, namespace: str = "") -> bool:
    """Whether the account of the gateway has a permission."""
    where = ("-n", namespace or team.namespace)
    try:
        return team("auth", "can-i", verb, resource, "--as", user(team, NAME), *where) == "yes\n"
    except RefusedError:  # `no` is exit code 1
        return False


def test_its_account_may_be_the_users_of_keys_and_nothing_else(installed: Kubectl) -> None:
    until(lambda: allows(installed, "impersonate", "serviceaccounts/bert"), 10)
    assert allows(installed, "impersonate", "serviceaccounts/anna")
    for resource in ("serviceaccounts", "serviceaccounts/carl", f"serviceaccounts/{NAME}"):
        assert not allows(installed, "impersonate", resource)
    assert not allows(installed, "impersonate", "serviceaccounts/bert", "default")
    for kind in ("users", "groups"):
        assert not allows(installed, "impersonate", kind)
    for verb, resource in (
        ("get", "secrets"),
        ("list", "finetunes.finetune.dev"),
        ("create", "pods"),
        ("create", "serviceaccounts/token"),
        ("patch", "roles"),
    ):
        assert not allows(installed, verb, resource)


def test_with_its_token_it_reads_as_a_user_with_a_key_and_as_no_other(
    installed: Kubectl, tmp_path: Path
) -> None:
    config = yaml.safe_load(Path(installed.kubeconfig).read_text())
    token = installed("create", "token", NAME).strip()
    config["users"] = [{"name": it["name"], "user": {"token": token}} for it in config["users"]]
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    own = Kubectl(installed.binary, str(tmp_path / "kubeconfig"), installed.namespace)

    def read(account: str) -> str:
        return own("get", "finetunes", "-o", "name", "--as", user(installed, account))

    installed.apply(finetune("tone"))
    until(lambda: allows(installed, "impersonate", "serviceaccounts/bert"), 10)
    assert read("bert") == "finetune.finetune.dev/tone\n"
    with pytest.raises(RefusedError, match=f'User "{user(installed, NAME)}" cannot list'):
        own("get", "finetunes")
    with pytest.raises(RefusedError, match=r'cannot impersonate resource "serviceaccounts"'):
        read("carl")


def test_its_pod_is_admitted_under_restricted(installed: Kubectl) -> None:
    template = installed.get("deployment", NAME)["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": "gateway"},
        "spec": template["spec"],
    }
    made = json.loads(
        installed(*("create", "--dry-run=server", "-o", "json", "-f", "-"), stdin=json.dumps(pod))
    )
    assert made["spec"]["serviceAccountName"] == NAME
    assert {volume["name"] for volume in made["spec"]["volumes"]} == {
        *("settings", "cluster", "tmp", "keys", "backends", "tls", "finetune-certificates")
    }  # admission has added no token
    pod["spec"] = {**template["spec"], "securityContext": {}}
    with pytest.raises(RefusedError, match="violates PodSecurity"):
        installed("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
