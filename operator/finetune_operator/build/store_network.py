"""How pods reach the store and the hub: trusted certificates, a proxy, and bucket addressing.

The processes of the pods read the variables. Ranks, probes, and the operator's own requests to pods
use no HTTP client that has a proxy.
"""

from collections.abc import Collection
from typing import Any

from finetune_api import names
from finetune_operator.pod_fields import CERTIFICATES, CERTIFICATES_PATH
from finetune_operator.settings import Settings

FILE = "ca.crt"
# Never proxied: the pod itself, Services of the cluster, and the metadata services that give a pod
# its workload identity. botocore expects brackets around IPv6 addresses.
DIRECT = (
    *("localhost", "127.0.0.1", "::1", "[::1]", ".svc", ".cluster.local"),
    *("169.254.169.254", "169.254.170.2", "169.254.170.23"),
    *("fd00:ec2::254", "[fd00:ec2::254]", "fd00:ec2::23", "[fd00:ec2::23]"),
)


def network_variables(settings: Settings, taken: Collection[str]) -> list[dict[str, Any]]:
    """Environment variables for each container. taken: names that it has already."""
    found: dict[str, str] = {}
    if settings.certificates:
        path = f"{CERTIFICATES_PATH}/{FILE}"
        found[names.ENV_CERTIFICATES] = path
        found["AWS_CA_BUNDLE"] = path  # for images of versions that do not know the other one
    if settings.proxy.https:
        found["HTTPS_PROXY"] = settings.proxy.https
    if settings.proxy.http:
        found["HTTP_PROXY"] = settings.proxy.http
    if settings.proxy.https or settings.proxy.http:
        found["NO_PROXY"] = ",".join(dict.fromkeys((*DIRECT, *settings.proxy.exceptions)))
    if settings.addressing_style:
        found[names.ENV_DEFAULT_ADDRESSING_STYLE] = settings.addressing_style
    return [{"name": name, "value": value} for name, value in found.items() if name not in taken]


def certificate_volumes(settings: Settings) -> list[dict[str, Any]]:
    """The volume of the certificates: none or one."""
    chosen = settings.certificates
    if chosen is None:
        return []
    items = [{"key": chosen.key, "path": FILE}]
    if chosen.config_map:
        return [{"name": CERTIFICATES, "configMap": {"name": chosen.config_map, "items": items}}]
    return [{"name": CERTIFICATES, "secret": {"secretName": chosen.secret, "items": items}}]


def certificate_mounts(settings: Settings) -> list[dict[str, Any]]:
    """The whole folder is mounted: the kubelet does not renew a single file."""
    if settings.certificates is None:
        return []
    return [{"name": CERTIFICATES, "mountPath": CERTIFICATES_PATH, "readOnly": True}]
