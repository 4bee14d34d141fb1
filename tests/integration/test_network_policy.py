"""The NetworkPolicy of a FineTune, validated by a real API server."""

from pathlib import Path

import pytest

from finetune_api import names
from tests.integration.conftest import Kubelet, Operator
from tests.integration.test_operator import TWO_NODES, prepare
from tests.support.kubectl import Kubectl, finetune

pytestmark = pytest.mark.integration

PROMETHEUS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
S3 = {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 443}]}


def test_the_pods_of_a_finetune_hear_each_other_and_who_is_named(
    team: Kubectl, tools: Path, tmp_path: Path, kubelet: Kubelet
) -> None:
    """Only the validation of the API server and the labels are real: no network enforces it."""
    network = {"progressFrom": [PROMETHEUS], "egress": [S3]}
    operator = Operator(team, tools / "helm", tmp_path, podNetwork=network)
    rule = {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"]}
    operator.allow({**rule, "verbs": ["get", "create"]})
    operator.start()
    try:
        team.apply(finetune("tone", **TWO_NODES))
        prepare(kubelet)
        train = kubelet.job("-a1")
    finally:
        operator.stop()
    (policy,) = team.list("networkpolicies")
    uid = team.get("finetune", "tone")["metadata"]["uid"]
    assert [owner["uid"] for owner in policy["metadata"]["ownerReferences"]] == [uid]
    selector = policy["spec"]["podSelector"]["matchLabels"]
    for job in (train, *team.list("jobs")):
        assert selector.items() <= job["spec"]["template"]["metadata"]["labels"].items()
    own = {"podSelector": {"matchLabels": selector}}
    gang, progress = policy["spec"]["ingress"]
    assert gang == {"from": [own]}
    assert progress["from"] == [PROMETHEUS]
    assert [item["port"] for item in progress["ports"]] == [names.PORT_PROGRESS]
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    to_own, to_names, to_s3 = policy["spec"]["egress"]
    assert to_own == {"to": [own]}
    assert {item["port"] for item in to_names["ports"]} == {53}
    assert to_s3["to"] == S3["to"]
