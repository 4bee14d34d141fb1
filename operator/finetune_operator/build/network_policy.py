"""A NetworkPolicy for all pods of a FineTune, if the chart enables it.

Gradients travel unencrypted between the ranks, and any client that reaches the port of a rank could
take part. The pods of a FineTune therefore accept only each other, the operator, and the clients
that read metrics.
"""

from typing import Any

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_operator.build.identity import child_metadata, child_name
from finetune_operator.settings import PodNetwork

DNS = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]


def build_network_policy(finetune: FineTune, network: PodNetwork) -> dict[str, Any]:
    own = {"podSelector": {"matchLabels": {names.LABEL_UID: finetune.metadata.uid}}}
    ingress: list[dict[str, Any]] = [{"from": [own]}]
    if network.progress_from:
        ports = [{"port": names.PORT_PROGRESS}]
        ingress.append({"from": network.progress_from, "ports": ports})
    spec = {**own, "policyTypes": ["Ingress"], "ingress": ingress}
    if network.egress:
        spec["policyTypes"] = ["Ingress", "Egress"]
        spec["egress"] = [{"to": [own]}, {"ports": DNS}, *network.egress]
    metadata = child_metadata(finetune, child_name(finetune, "network"), names.COMPONENT_NETWORK)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": spec,
    }
