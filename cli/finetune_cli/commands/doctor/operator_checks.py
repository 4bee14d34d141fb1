"""Checks whether an operator serves the namespace, and whether the API server refuses what it does.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from finetune_api.names import REFUSAL_REASONS, Reason, State
from finetune_api.wire import JsonObject
from finetune_cli.commands.doctor.findings import Finding
from finetune_cli.terminal.format import parse_time

INSTALL = "helm install finetune charts/finetune-operator -n {namespace}"
OPERATOR = "app.kubernetes.io/name=finetune-operator"
# Of REFUSAL_REASONS, those that only an administrator can remove.
ADMINISTRATORS = frozenset({Reason.FORBIDDEN, Reason.WEBHOOK_FAILED, Reason.REQUEST_REFUSED})


def operator(
    deployments: Sequence[JsonObject] | None,
    ignored: Sequence[str],
    namespace: str,
    refused: Mapping[str, str] = MappingProxyType({}),
) -> Finding:
    """Distinguish an operator that is missing from one whose status the API server refuses.

    deployments: None if not permitted; ignored: FineTunes without a status. refused: the words of
    the API server about the statuses of FineTunes, from the operator's Events.
    """
    told = next(((name, refused[name]) for name in ignored if name in refused), None)
    if told:
        return Finding(
            "error",
            "operator",
            f"an operator serves namespace {namespace}, but the API server refuses the status of "
            f"{told[0]}: {told[1]}",
            "ask an administrator for the chart's permissions of the operator, and to check the "
            "admission policies and webhooks on finetunes/status",
        )
    here = [it for it in deployments or () if it["metadata"]["namespace"] == namespace]
    alive = [it for it in here if _is_ready(it)]
    if ignored and alive:
        meta = alive[0]["metadata"]
        return Finding(
            "error",
            "operator",
            f"{meta['namespace']}/{meta['name']} is ready, but {', '.join(ignored[:3])} has no "
            "status: the API server refuses its requests, or it serves other namespaces",
            f"kubectl logs deployment/{meta['name']} -n {meta['namespace']} --tail=20",
        )
    if ignored:
        return Finding(
            "error",
            "operator",
            f"no operator serves namespace {namespace}: {', '.join(ignored[:3])} has no status",
            "check the operator's pod (kubectl get pods -A -l "
            + OPERATOR
            + "), or install it: "
            + INSTALL.format(namespace=namespace),
        )
    if deployments is None:
        return Finding(
            "unknown",
            "operator",
            "you may not list deployments; no fine-tune is waiting for an operator",
        )
    ready = [it for it in deployments if _is_ready(it)]
    if ready:
        here = [it for it in ready if it["metadata"]["namespace"] == namespace]
        meta = (here or ready)[0]["metadata"]
        only = "" if here else f"; it serves {namespace} only with the chart value clusterWide=true"
        return Finding("ok", "operator", f"{meta['namespace']}/{meta['name']} is ready{only}")
    if deployments:
        meta = deployments[0]["metadata"]
        return Finding(
            "error",
            "operator",
            f"{meta['namespace']}/{meta['name']} is not ready",
            f"kubectl describe deployment {meta['name']} -n {meta['namespace']}",
        )
    return Finding(
        "warning",
        "operator",
        f"none in namespace {namespace}; an operator for all namespaces may run in another one",
        INSTALL.format(namespace=namespace),
    )


def requests(finetunes: Sequence[JsonObject], namespace: str) -> Iterator[Finding]:
    """The FineTunes that wait because the API server refuses a request of the operator."""
    for item in finetunes:
        status, name = item.get("status") or {}, item["metadata"]["name"]
        reason = status.get("reason")
        if status.get("state") == State.PENDING and reason in REFUSAL_REASONS:
            yield Finding(
                "error" if reason in ADMINISTRATORS else "warning",
                "requests",
                f"the API server refuses an object of fine-tune {name} ({reason}): "
                f"{status.get('message', '')}",
                f"kubectl describe finetune {name} -n {namespace}",
            )


def _is_ready(deployment: JsonObject) -> bool:
    return bool((deployment.get("status") or {}).get("readyReplicas"))


def find_ignored(finetunes: Sequence[JsonObject], now: datetime) -> list[str]:
    """FineTunes that have had no status for 30 seconds."""
    return [
        item["metadata"]["name"]
        for item in finetunes
        if not (item.get("status") or {}).get("state")
        and (made := parse_time(item["metadata"].get("creationTimestamp")))
        and (now - made).total_seconds() > 30
    ]
