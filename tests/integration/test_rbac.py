"""The permissions that the chart grants are exactly those in the audit log.

`control_plane` (conftest.py) compares them for the operators of all other tests.
"""

from pathlib import Path

import pytest
import yaml

from devcluster.controlplane import ControlPlane
from tests.integration.conftest import Kubelet, Operator
from tests.integration.test_model_deletion import conditions_of, deny
from tests.integration.test_operator import TWO_NODES, prepare
from tests.support.audit import rights_of, rights_used
from tests.support.kubectl import Kubectl, finetune, until
from tests.support.objects import prepared, trained

pytestmark = pytest.mark.integration


def foreign(team: Kubectl, kind: str, version: str, name: str, spec: dict) -> None:  # type: ignore[type-arg]
    """An object of another owner with a name that the operator needs."""
    team.apply({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec})


def live(team: Kubectl, kubelet: Kubelet) -> None:
    """Run a life with a restart and with everything that needs a rare verb."""
    team.apply(finetune("whole", **TWO_NODES))
    prepare(kubelet)
    kubelet.end(kubelet.start_pods(kubelet.job("-a1"))[1], 137)
    first, second = kubelet.start_pods(kubelet.job("-a2"))
    kubelet.ready(first, second)
    team.wait_state("whole", "running")
    kubelet.end(first, 0, trained().to_termination_message())
    kubelet.end(second, 0)
    team.wait_state("whole", "succeeded")


def live_among_foreign_objects(team: Kubectl, operator: Operator, kubelet: Kubelet) -> None:
    """A create whose name is taken reads the object: `get` on Jobs, Services, and Models."""
    operator.stop()
    team.apply(finetune("strange", **TWO_NODES))
    uid = team.get("finetune", "strange")["metadata"]["uid"][:8]
    foreign(team, "Service", "v1", f"ft-strange-{uid}-a1", {"ports": [{"port": 80}]})
    operator.start()
    (pod,) = kubelet.start_pods(kubelet.job(f"{uid}-prepare"))
    kubelet.end(pod, 0, prepared().to_termination_message())
    assert team.wait_state("strange", "failed")["error"]["code"] == "ForeignObject"

    operator.stop()
    team.apply(finetune("taken", **TWO_NODES))
    uid = team.get("finetune", "taken")["metadata"]["uid"][:8]
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}
    foreign(team, "Job", "batch/v1", f"ft-taken-{uid}-prepare", {"template": template})
    operator.start()
    assert team.wait_state("taken", "failed")["error"]["code"] == "ForeignObject"

    # The same outcome again asks for the Model that `whole` has published.
    team.apply(finetune("again", **TWO_NODES))
    uid = team.get("finetune", "again")["metadata"]["uid"][:8]
    (pod,) = kubelet.start_pods(kubelet.job(f"{uid}-prepare"))
    kubelet.end(pod, 0, prepared().to_termination_message())
    first, second = kubelet.start_pods(kubelet.job(f"{uid}-a1"))
    kubelet.end(first, 0, trained().to_termination_message())
    kubelet.end(second, 0)
    assert team.wait_state("again", "failed")["error"]["code"] == "ForeignObject"


def live_with_models(team: Kubectl, operator: Operator, kubelet: Kubelet) -> None:
    """Delete a Model with its files: the finalizer, a failing Job, the condition, the release."""
    operator.stop()
    path = operator.folder / "settings.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"deletesModels": True}))
    operator.start()
    (model,) = [thing["metadata"]["name"] for thing in team.list("models")]
    patch = '{"spec":{"deletionPolicy":"Delete"}}'
    team("patch", "model", model, "--type=merge", "-p", patch)
    until(lambda: team.get("model", model)["metadata"].get("finalizers"), 20)
    team("delete", "model", model, "--wait=false")
    deny(team, kubelet)
    until(lambda: conditions_of(team, model), 60, operator.logs)
    team("patch", "model", model, "--type=merge", "-p", '{"spec":{"deletionPolicy":"Retain"}}')
    until(lambda: not team.list("models"), 60, operator.logs)


def test_the_rights_granted_are_the_rights_used(
    team: Kubectl, operator: Operator, kubelet: Kubelet, control_plane: ControlPlane
) -> None:
    live(team, kubelet)
    live_among_foreign_objects(team, operator, kubelet)
    live_with_models(team, operator, kubelet)
    team.apply(finetune("waits", **TWO_NODES))
    uid = team.get("finetune", "waits")["metadata"]["uid"][:8]
    job = kubelet.job(f"{uid}-prepare")["metadata"]["name"]
    # Its controller has looked at it and made no pods: why, ask Events.
    team.patch_status("job", job, {"startTime": "2026-11-21T12:00:00Z"})
    log = Path(control_plane.audit_log)
    role = rights_of(team.get("role", "finetune-operator"))

    def unused() -> set[str]:
        return role - rights_used(log, operator.user)

    until(lambda: not unused(), 60, lambda: f"granted and never used: {sorted(unused())}")
    assert rights_used(log, operator.user) == role
