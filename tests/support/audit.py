"""Requests to the API server, from its audit log. The counts are exact on every machine."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What the chart grants with an option, such as kueue.enabled; other tests use these.
BY_OPTION = {
    "create authentication.k8s.io/tokenreviews",
    "create authorization.k8s.io/subjectaccessreviews",
    "list kueue.x-k8s.io/workloads",
    "create networking.k8s.io/networkpolicies",
    "get networking.k8s.io/networkpolicies",
    "get visibility.kueue.x-k8s.io/localqueues/pendingworkloads",
}

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


def writes_by(audit_log: Path, user: str, namespace: str, start: int = 0) -> Counter[str]:
    """Count a user's writes in a namespace, successful or refused, by "verb resource".

    `start`: a byte offset, so that a test counts only its own requests.
    """
    found: Counter[str] = Counter()
    for event in events(audit_log, start):
        if event.get("stage") != "ResponseComplete" or event["verb"] not in WRITES:
            continue
        what = event.get("objectRef", {})
        if event["user"]["username"] == user and what.get("namespace") == namespace:
            found[f"{event['verb']} {resource_of(what)}"] += 1
    return found


def reads_by(audit_log: Path, user: str, namespace: str, start: int = 0) -> Counter[str]:
    """Count a user's GETs and lists in a namespace by "verb resource".

    Lists in pages are not counted: kopf reads them when it opens a watch, and the sweep.
    """
    found: Counter[str] = Counter()
    for event in events(audit_log, start):
        if event.get("stage") != "ResponseComplete" or event["verb"] not in {"get", "list"}:
            continue
        if "limit=250" in event["requestURI"]:
            continue
        what = event.get("objectRef", {})
        if event["user"]["username"] == user and what.get("namespace") == namespace:
            found[f"{event['verb']} {resource_of(what)}"] += 1
    return found


def rights_used(audit_log: Path, *users: str) -> set[str]:
    """The "verb group/resource" of all requests of the users, granted or refused."""
    return {
        f"{event['verb']} {what.get('apiGroup', '')}/{resource_of(what)}"
        for event in events(audit_log, 0)
        if "resource" in (what := event.get("objectRef", {}))
        and event["user"].get("username") in users
    }


def rights_of(role: dict[str, Any]) -> set[str]:
    """The "verb group/resource" that a Role grants."""
    return {
        f"{verb} {group}/{resource}"
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def events(audit_log: Path, start: int) -> Iterator[dict[str, Any]]:
    with audit_log.open("rb") as lines:
        lines.seek(start)
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                continue  # the last line may be incomplete


def resource_of(what: dict[str, Any]) -> str:
    return "/".join(filter(None, [what.get("resource", ""), what.get("subresource", "")]))
