"""Helm's install, upgrade, rollback, and uninstall while a FineTune is training.

The release is real. The operator process replaces the pod of its Deployment and uses the
ServiceAccount, the Role, and the settings file of the release. (tests/e2e has real pods.)
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import CHART, Kubelet, Operator
from tests.integration.test_operator import TWO_NODES, prepare
from tests.support.kubectl import Kubectl, RefusedError, finetune, until
from tests.support.objects import a_settings, prepared, trained

pytestmark = pytest.mark.integration


class Release(Operator):
    """An operator as Helm installs it."""

    def _install_role(self, helm: Path) -> None:
        self.helm_binary = helm
        self.install()

    def _write_settings(self, *_: Any) -> None:
        """Write the settings that the pod would mount, with shorter intervals."""
        config = self.team.get("configmap", "finetune-operator-settings")
        settings = yaml.safe_load(config["data"]["settings.yaml"]) | {"pollSeconds": 0.5}
        (self.folder / "settings.yaml").write_text(yaml.safe_dump(settings))

    def install(self, **values: Any) -> None:
        """Run helm upgrade --install. The next start of the process reads the new settings."""
        known = a_settings().to_dict()
        values = {
            "images": {
                "operator": "r/operator:1",
                "prepare": "r/prepare:1",
                "trainer": "r/train:1",
            },
            "output": known["output"],
            "models": known["models"],
        } | values
        path = self.folder / "values.yaml"
        path.write_text(yaml.safe_dump(values))
        # The suite's CRDs came with kubectl.
        self.helm("upgrade", CHART, "--install", "-f", path, "--take-ownership")

    def helm(self, command: str, *arguments: str | Path) -> str:
        line = [self.helm_binary, command, "finetune-operator", *arguments]
        line += ["-n", self.team.namespace, "--kubeconfig", self.team.kubeconfig]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def restart(self) -> None:
        """Restart the process, as the Deployment does when the checksum of the settings changes."""
        self.stop()
        self._write_settings()
        path = self.folder / "kubeconfig"
        config = yaml.safe_load(path.read_text())
        config["users"][0]["user"]["token"] = self.team(
            "create", "token", "finetune-operator"
        ).strip()
        path.write_text(yaml.safe_dump(config))
        self.start()


@pytest.fixture
def release(team: Kubectl, tools: Path, tmp_path: Path) -> Iterator[Release]:
    made = Release(team, tools / "helm", tmp_path)
    made.start()
    yield made
    made.stop()


def checksum(team: Kubectl) -> str:
    template = team.get("deployment", "finetune-operator")["spec"]["template"]
    return str(template["metadata"]["annotations"]["checksum/settings"])


def trainer_image(kubelet: Kubelet, ending: str) -> str:
    (container,) = kubelet.job(ending)["spec"]["template"]["spec"]["containers"]
    return str(container["image"])


def test_an_upgrade_in_mid_training_changes_nothing_of_what_is_trained(
    team: Kubectl, release: Release, kubelet: Kubelet
) -> None:
    team.apply(finetune("tone", **TWO_NODES))
    prepare(kubelet)
    pods = kubelet.start_pods(kubelet.job("-a1"))
    kubelet.ready(*pods)
    frozen = team.wait_state("tone", "running")["resolved"]
    before = checksum(team)

    models = [
        {"name": "ada", "uri": "s3://bucket/models/other", "pretrainingLearningRate": 0.5,
         "contextLength": 8}
    ]  # fmt: skip
    images = {"operator": "r/operator:2", "prepare": "r/prepare:2", "trainer": "r/train:2"}
    release.install(models=models, images=images, organization="other")
    assert checksum(team) != before
    release.restart()
    # Its attempt dies under the new release: the next one is the same training.
    kubelet.end(pods[1], 137)
    assert trainer_image(kubelet, "-a2") == "r/train:1"
    first, second = kubelet.start_pods(kubelet.job("-a2"))
    kubelet.ready(first, second)
    status = team.wait_state("tone", "running")
    assert status["resolved"] == frozen
    assert [attempt["number"] for attempt in status["attempts"]] == [1, 2]

    # What is new gets the new settings.
    team.apply(finetune("later", **TWO_NODES))
    until(lambda: "resolved" in team.status("later"), 20)
    resolved = team.status("later")["resolved"]
    assert resolved["base"]["uri"] == "s3://bucket/models/other"
    assert resolved["organization"] == "other"

    release.helm("rollback", "1")
    assert checksum(team) == before
    release.restart()
    kubelet.end(first, 0, trained().to_termination_message())
    kubelet.end(second, 0)
    assert team.wait_state("tone", "succeeded")["resolved"] == frozen


def test_an_uninstall_leaves_everything_and_a_new_install_goes_on(
    team: Kubectl, release: Release, kubelet: Kubelet
) -> None:
    team.apply(finetune("tone", **TWO_NODES), finetune("doomed", **TWO_NODES))
    uids = {name: team.get("finetune", name)["metadata"]["uid"] for name in ("tone", "doomed")}
    job = kubelet.job(f"ft-tone-{uids['tone'][:8]}-prepare")
    (pod,) = kubelet.start_pods(job)
    kubelet.end(pod, 0, prepared().to_termination_message())
    pods = kubelet.start_pods(kubelet.job(f"{uids['tone'][:8]}-a1"))
    kubelet.ready(*pods)
    status = team.wait_state("tone", "running")

    release.helm("uninstall")
    assert team.list("roles") == []
    assert {thing["metadata"]["name"] for thing in team.list("finetunes")} == {"tone", "doomed"}
    assert len(team.list("jobs")) == 3
    crd = team.get("crd", "finetunes.finetune.dev")
    assert "deletionTimestamp" not in crd["metadata"]
    with pytest.raises(RefusedError, match="forbidden"):
        team("get", "finetunes", f"--as={release.user}")
    release.stop()
    # Nobody is there: the pods end, and a person deletes what they no longer want.
    kubelet.end(pods[0], 0, trained().to_termination_message())
    kubelet.end(pods[1], 0)
    team("delete", "finetune", "doomed", "--timeout=10s")
    assert team.status("tone") == status

    release.install()
    release.restart()
    assert team.wait_state("tone", "succeeded")["resolved"] == status["resolved"]
    assert len(team.list("models")) == 1
    release.helm("uninstall")
    assert [thing["metadata"]["uid"] for thing in team.list("finetunes")] == [uids["tone"]]
    assert len(team.list("models")) == 1


def test_an_operator_whose_role_went_says_so_and_comes_back_with_it(
    team: Kubectl, release: Release
) -> None:
    role = team.get("role", "finetune-operator")
    team("delete", "role", "finetune-operator")
    team.apply(finetune("tone", model="gpt5"))
    until(lambda: "403" in (release.folder / "operator.log").read_text(), 30, release.logs)
    errors = 'finetune_operator_api_errors_total{code="403"}'
    until(lambda: errors in release.metrics(), 10)
    assert "state" not in team.status("tone")
    kept = {key: role[key] for key in ("apiVersion", "kind", "rules")}
    team.apply({**kept, "metadata": {"name": "finetune-operator"}})
    assert team.wait_state("tone", "failed", seconds=90)["error"]["code"] == "UnknownModel"
